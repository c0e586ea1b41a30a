"""Settings of the page."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rtfuse.settings import Count, Section


class Detector(Section, frozen=True):
    """Where a detector publishes its boxes, and the file of `rtfuse keys new client` for it, if it encrypts."""

    endpoint: str
    keys: str | None = None


class Web(Section, frozen=True):
    """Where the rig answers over HTTP (`ADDR:PORT` or a port of this machine alone); `address: null` does not.

    The page at `/`, numbers for Prometheus at `/metrics`, `/healthz`, `/readyz`. Beyond this machine it needs the token
    (null: a random one, printed at the start), and a certificate (`cert` and `key`, PEM files) or `insecure`. `hosts`
    are further names that the rig goes by. `viewers` may watch at once; `controls`: they may change the gain control.
    `detections` are ZeroMQ endpoints of boxes to draw; `detections_keys` is the client's key file for those that have
    none of their own.
    """

    address: str | None = None
    insecure: bool = False
    token: Annotated[str, msgspec.Meta(min_length=12, max_length=200)] | None = None
    cert: str | None = None
    key: str | None = None
    hosts: tuple[str, ...] = ()
    viewers: Count = 8
    controls: bool = True
    detections: tuple[str | Detector, ...] = ()
    detections_keys: str | None = None
