"""A picture without details, and JPEG as cameras send it."""

from __future__ import annotations

import numpy as np


def smooth_picture(w: int = 64, h: int = 48) -> np.ndarray:
    across, down = np.meshgrid(np.linspace(0, 255, w), np.linspace(0, 255, h))
    return np.dstack([across, down, 255 - across]).astype(np.uint8)


def without_huffman_tables(jpeg: bytes) -> bytes:
    """Drop the DHT segments, as many UVC cameras do."""
    kept, at = jpeg[:2], 2
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        kept, at = kept + (b"" if jpeg[at + 1] == 0xC4 else jpeg[at:end]), end
    return kept + jpeg[at:]
