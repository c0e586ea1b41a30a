"""Serve the rig over HTTP: a page with the live picture, numbers for Prometheus, and its health.

`server` listens, `guard` controls access, `page` answers, `live` sends frames; `static` has the browser's files.
"""

from rtfuse.web.addresses import DEFAULT_ADDRESS, address_of

__all__ = ["DEFAULT_ADDRESS", "address_of"]
