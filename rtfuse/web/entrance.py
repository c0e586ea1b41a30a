"""Read how a client reached the page: its own address, scheme and host where a trusted proxy names them, and the path.

Headers: `X-Forwarded-For`, `-Proto`, `-Host` and `-Prefix`, and `Forwarded` (RFC 7239).
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence

from aiohttp import web
from multidict import CIMultiDictProxy
from yarl import URL

from rtfuse.observe.logs import event
from rtfuse.web.addresses import Network, is_prefix
from rtfuse.web.visit import Visit, visit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Headers = CIMultiDictProxy[str]
_log = logging.getLogger("rtfuse.web")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::\d{1,5})?", re.ASCII)
_PORT = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::\d+)?")
_PAIR = re.compile(r"\s*([\w-]+)\s*=\s*(?:\"([^\"]*)\"|([^\s\",;]*))\s*", re.ASCII)


class Entrance:
    """Shows each request to the page as its client sent it, and without the path's prefix.

    prefix: path that the page lies under, as `web.prefix`; a proxy may take it off or leave it.
    proxies: networks whose headers are believed; headers of others are ignored, and so is what cannot be read. The log
      says so once for each header.

    `visit.prefix` is the prefix in the client's address: that of the proxy's header, or else `prefix`.
    """

    def __init__(self, prefix: str = "", proxies: Sequence[Network] = ()) -> None:
        self._prefix, self._proxies = prefix, proxies
        self._noted = set[str]()

    @web.middleware
    async def passed(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Pass a request on, read as described above."""
        headers, peer = request.headers, read_address(request.remote or "")
        remote, scheme = request.remote or "", request.scheme
        host, prefix = headers.get("Host", ""), self._prefix
        if peer is not None and self._trusts(peer):
            remote = str(self._client(peer, headers))
            told = _first(headers, "X-Forwarded-Proto", "proto").lower()
            scheme = _SCHEMES[told] if self._readable("X-Forwarded-Proto", told, told in _SCHEMES) else scheme
            told = _first(headers, "X-Forwarded-Host", "host")
            host = told if self._readable("X-Forwarded-Host", told, bool(_HOST.fullmatch(told))) else host
            told = "".join(part.rstrip("/") for part in _listed(headers, "X-Forwarded-Prefix"))
            prefix = told if self._readable("X-Forwarded-Prefix", told, is_prefix(told)) else prefix
        elif "X-Forwarded-For" in headers:
            what = "requests come through a proxy that web.proxies does not name: its clients count as one"
            self._note(what, proxy=remote)
        path = request.rel_url.raw_path
        for taken in filter(None, dict.fromkeys([prefix, self._prefix])):
            if path == taken:
                query = request.rel_url.raw_query_string
                raise web.HTTPPermanentRedirect(f"{prefix}/?{query}" if query else f"{prefix}/")
            if path.startswith(f"{taken}/"):
                path = "/" + path.removeprefix(taken).lstrip("/")
                break
        if path == request.rel_url.raw_path:
            seen = request.clone(remote=remote, scheme=scheme, host=host)
        else:
            url = URL.build(path=path, query_string=request.rel_url.raw_query_string, encoded=True)
            seen = request.clone(rel_url=url, remote=remote, scheme=scheme, host=host)
        visit.set(Visit(prefix))
        return await handler(seen)

    def _note(self, what: str, **fields: str) -> None:
        """Log a sentence once."""
        if what not in self._noted:
            self._noted.add(what)
            event(_log, logging.WARNING, "web", what, **{name: text[:200] for name, text in fields.items()})

    def _readable(self, name: str, told: str, fits: bool) -> bool:
        """Return True for a proxy's header that `fits`; note one that does not, if it says anything."""
        if told and not fits:
            self._note(f"{name} of a proxy cannot be read and is ignored", value=told)
        return fits

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._proxies)

    def _client(self, peer: Address, headers: Headers) -> Address:
        """Return the nearest address outside of the proxies'.

        A client can send the header that its proxy does not write: where both are there and disagree, neither is
        believed, and the request counts as the proxy's own.
        """
        chains = [_listed(headers, "X-Forwarded-For"), _forwarded(headers, "for")]
        found = {self._nearest(peer, chain) for chain in chains if chain}
        if len(found) > 1:
            what = "Forwarded and X-Forwarded-For disagree, so clients of the proxy count as one: let it drop one"
            self._note(what, proxy=str(peer))
        return found.pop() if len(found) == 1 else peer

    def _nearest(self, peer: Address, chain: Sequence[str]) -> Address:
        """Follow a chain of addresses from its end; each proxy appends the address that it was reached from."""
        for text in reversed(chain):
            address = read_address(text)
            if not self._readable("An address in X-Forwarded-For or Forwarded", text or "empty", address is not None):
                break
            assert address is not None
            peer = address
            if not self._trusts(address):
                break
        return peer


def read_address(text: str) -> Address | None:
    """Return an address, of a text with or without a port, as IPv4 where it is one; None if it is none."""
    found = _PORT.fullmatch(text)
    plain = (found[1] or found[2] or "") if found else text
    try:
        address = ipaddress.ip_address(plain.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _listed(headers: Headers, name: str) -> list[str]:
    """Return the entries of a header of comma-separated values, which may stand in several lines."""
    return [entry.strip() for line in headers.getall(name, []) for entry in line.split(",") if entry.strip()]


def _forwarded(headers: Headers, name: str) -> list[str]:
    """Return one parameter of each element of the `Forwarded` headers; empty where an element lacks it."""
    return [dict(_pairs(element)).get(name, "") for element in _listed(headers, "Forwarded")]


def _pairs(element: str) -> Iterable[tuple[str, str]]:
    for part in element.split(";"):
        if found := _PAIR.fullmatch(part):
            yield found[1].lower(), found[2] or found[3] or ""


def _first(headers: Headers, name: str, parameter: str) -> str:
    """Return what the first proxy, the one that the client reached, said in one header or in `Forwarded`."""
    return next(iter([*_listed(headers, name), *filter(None, _forwarded(headers, parameter))]), "")
