"""Open sources of frames: cameras, network streams, recordings, stills, the synthetic street.

`sources` has `open_source(uri, stream)`; all sources share `clocks`, `pacing`, `prepared` and `reconnect`.
`paths` tells files from addresses, and `display` shows decoded video as a player does.
"""

from rtfuse.capture.sources import is_live, open_source

__all__ = ["is_live", "open_source"]
