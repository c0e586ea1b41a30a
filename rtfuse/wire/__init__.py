"""Encode, decode and address network messages, for publishers and clients.

`message` is the format (`docs/wire.md`), `names` its topics and planes; `keys` are the files of keys.
"""

from rtfuse.wire.detections import Box
from rtfuse.wire.message import Header, decode, encode, split
from rtfuse.wire.statistics import Statistics

__all__ = ["Box", "Header", "Statistics", "decode", "encode", "split"]
