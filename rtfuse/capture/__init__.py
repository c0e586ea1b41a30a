"""Open sources of frames: cameras, network streams, recordings, stills, the synthetic street.

`sources` has `open_source(uri, stream)`; all sources share `clocks`, `pacing`, `prepared` and `reconnect`.
"""

from rtfuse.capture.sources import is_live, open_source

__all__ = ["is_live", "open_source"]
