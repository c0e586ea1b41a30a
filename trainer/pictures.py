"""Draw contact sheets: columns of images with a title each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from rtfuse.types import Image


def sheet(columns: Sequence[Tensor], titles: Sequence[str]) -> Image:
    """Return (N, 1, P, P) tensors of [0, 1] side by side, one row for each N, as a picture (H, W, 3) uint8 BGR."""
    tall = [
        np.vstack(list((c[:, 0].detach().float().cpu().numpy().clip(0, 1) * 255).astype(np.uint8))) for c in columns
    ]
    picture = cv2.cvtColor(np.hstack(tall), cv2.COLOR_GRAY2BGR)
    head = np.full((24, picture.shape[1], 3), 32, np.uint8)
    for k, title in enumerate(titles):
        cv2.putText(
            head, title, (k * tall[0].shape[1] + 4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (240,) * 3, 1, cv2.LINE_AA
        )
    return np.vstack([head, picture])


def encoded(picture: Image, path: Path) -> bytes:
    """Return a picture, (H, W, 3) uint8 BGR, as a file of the suffix of `path`."""
    _, data = cv2.imencode(path.suffix.lower(), picture)
    return data.tobytes()
