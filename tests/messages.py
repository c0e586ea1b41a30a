"""Headers and messages of the wire format that tests change by hand."""

from __future__ import annotations

import struct

import msgspec
import numpy as np

from rtfuse.wire.message import Header


def header(size_wh=(6, 4), encoding="raw", **changes):
    values = {
        "session": "0011223344556677",
        "seq": 7,
        "rig": "truck",
        "mode": "fused",
        "fuser": "pyramid",
        "ir_id": 3,
        "rgb_id": 9,
        "ir_t_ns": 1_000_000,
        "rgb_t_ns": 1_500_000,
        "stamp": "end-of-frame",
        "skew_ns": -500_000,
        "age_ns": 12_000_000,
        "published_ns": 13_500_000,
        "published_unix_ms": 1_790_000_000_000,
        "width": size_wh[0],
        "height": size_wh[1],
        "encoding": encoding,
    }
    return Header(**(values | changes))


def image(size_wh=(6, 4), seed=0):
    return np.random.default_rng(seed).integers(0, 255, (size_wh[1], size_wh[0], 3), np.uint8)


def rebuilt(**changes):
    """A message whose JSON header was changed by hand."""
    fields = msgspec.to_builtins(header()) | changes
    text = msgspec.json.encode({k: v for k, v in fields.items() if v is not ...})
    return b"fused\0" + struct.pack("<I", len(text)) + text + image().tobytes()
