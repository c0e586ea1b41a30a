"""The thermal stream: what its cameras send (`cameras`, `front`), how counts become brightness (`agc`), and colours."""

from rtfuse.thermal.agc import Agc, displayed

__all__ = ["Agc", "displayed"]
