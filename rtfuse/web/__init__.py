"""Serve the rig over HTTP: a page with the live picture, numbers for Prometheus, and whether it is healthy.

`server` listens, `guard` says who may, `page` answers, `live` sends frames; what the browser runs is in `static`.
"""

from rtfuse.web.addresses import DEFAULT_ADDRESS, address_of

__all__ = ["DEFAULT_ADDRESS", "address_of"]
