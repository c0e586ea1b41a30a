"""Serve the rig over HTTP: a page with the live picture, numbers for Prometheus, and whether it is healthy.

`server` listens, `guard` says who may, `page` answers; `live` shows the newest frame, `encode` makes it a JPEG once,
`boxes` are what detectors say of it, `state` the rig in words and numbers, `controls` what may be changed. What the
browser runs is in `static`.
"""

from rtfuse.web.addresses import DEFAULT_ADDRESS, address_of

__all__ = ["DEFAULT_ADDRESS", "address_of"]
