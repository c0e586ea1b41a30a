"""Find bad and busy addresses before anything is loaded or opened."""

from __future__ import annotations

import errno
import re
import socket

from rtfuse.config import Web
from rtfuse.errors import ConfigError, EndpointUnavailable
from rtfuse.hints import need
from rtfuse.web.addresses import address_of, names_of, networks_of, origins_of, prefix_of
from rtfuse.wire.addresses import check_endpoint

PAGE = ("aiohttp", "prometheus_client", "segno")
"""The packages of the `web` extra."""
_TRIES = 100
_ENDPOINT = re.compile(r"(tcp://.+:\d+|ipc://.+|inproc://.+)", re.IGNORECASE)


def check_web(web: Web) -> None:
    """Check the page's packages, address, names, proxies and detectors, if there is a page.

    Raises ConfigError for a package that is missing and for an address that makes no sense, EndpointUnavailable for a
    busy one.
    """
    listed = [d if isinstance(d, str) else d.endpoint for d in web.detections]
    for endpoint in listed:
        check_endpoint(endpoint)
        if not _ENDPOINT.fullmatch(endpoint):
            raise ConfigError(f"web.detections: {endpoint!r} is not an endpoint; want for example tcp://127.0.0.1:5556")
    prefix_of(web.prefix)
    names_of(web.hosts)
    networks_of(web.proxies)
    origins_of(web.embed)
    if web.token is not None and web.token == web.link_token:
        raise ConfigError("web.link_token equals web.token; choose another, since others can see links")
    if web.address is None:
        return
    host, port = address_of(web.address)
    need("--web", PAGE, "web")
    if (fault := _fault(host, port)) is not None:
        why = "the port is in use" if fault.errno == errno.EADDRINUSE else fault.strerror or str(fault)
        raise EndpointUnavailable(f"web.address: cannot listen on {web.address}: {why}; choose another with --web")


def next_free(port: int, host: str = "127.0.0.1") -> int:
    """Return the first free TCP port from `port` on. Raises EndpointUnavailable after a hundred."""
    for candidate in range(port, min(port + _TRIES, 65_536)):
        if _fault(host, candidate) is None:
            return candidate
    raise EndpointUnavailable(
        f"no free port on {host} from {port} to {port + _TRIES - 1}: end one of the programs there"
    )


def _fault(host: str, port: int) -> OSError | None:
    """Try to listen on an address; return the error, None if it worked. Nothing stays bound."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as e:
        return e
    return None
