"""Settings of the page."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rtfuse.settings import Count, Section


class Detector(Section, frozen=True):
    """Endpoint of a detector's boxes, and the file of `rtfuse keys new client` for it, if it encrypts."""

    endpoint: str
    keys: str | None = None


class Web(Section, frozen=True):
    """Settings of the page at `/`, of Prometheus' numbers at `/metrics`, and of `/healthz` and `/readyz`.

    - `address`: `ADDR:PORT`, or a port of this machine alone; null: no page.
    - `token`: needed beyond this machine; null: a random one, printed at the start.
    - `cert`, `key`: PEM files, needed beyond this machine unless `insecure`.
    - `link_token`: opens the picture and the state alone, as `?token=` in an address; null: no such addresses.
    - `hosts`: further names of the rig, without port.
    - `prefix`: the path that a reverse proxy puts the page at, as `/rig1`; `proxies`: addresses and networks of proxies
      whose `X-Forwarded-…` headers are believed; with them, a token is needed.
    - `embed`: origins of pages that may show this one in a frame.
    - `viewers`: the most that may watch at once; `controls`: they may change the gain control.
    - `detections`: ZeroMQ endpoints of boxes to draw; `detections_keys`: the client's key file for those without one.
    """

    address: str | None = None
    insecure: bool = False
    token: Annotated[str, msgspec.Meta(min_length=12, max_length=200)] | None = None
    link_token: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9._~-]{12,200}$")] | None = None
    cert: str | None = None
    key: str | None = None
    hosts: tuple[str, ...] = ()
    prefix: str = ""
    proxies: tuple[str, ...] = ()
    embed: tuple[str, ...] = ()
    viewers: Count = 8
    controls: bool = True
    detections: tuple[str | Detector, ...] = ()
    detections_keys: str | None = None

    def keyed(self) -> dict[str, str | None]:
        """Return the endpoints of boxes, each with its file of keys."""
        listed = [Detector(endpoint=d) if isinstance(d, str) else d for d in self.detections]
        return {d.endpoint: d.keys or self.detections_keys for d in listed}
