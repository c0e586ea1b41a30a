"""Draw and write pictures that show a registration: thermal's edges on RGB, and a checkerboard of both."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from calib.footage import as_grey
from rtfuse.align.aligner import Aligner
from rtfuse.align.calibration import Calibration
from rtfuse.errors import OutputUnwritable
from rtfuse.outputs import write_whole
from rtfuse.types import Image

_EDGE = (255, 120, 0)


def aligned(ir: Image, rgb: Image, c: Calibration | None) -> tuple[Image, Image]:
    """Return thermal on the grid of RGB, (H, W) uint8, and the mask (H, W) bool of its extent.

    Without a calibration, thermal is stretched over the RGB picture.
    """
    aligner = Aligner((ir.shape[0], ir.shape[1]), (rgb.shape[0], rgb.shape[1]), c, seam_px=0)
    reached = np.ones(rgb.shape[:2], bool) if aligner.valid is None else aligner.valid > 0
    return aligner(as_grey(ir)), reached


def edges_on(aligned_ir: Image, reached: Image, rgb: Image) -> Image:
    """Return RGB in grey with the edges of thermal in orange, (H, W, 3) uint8."""
    blurred = cv2.GaussianBlur(aligned_ir, (0, 0), max(1.0, rgb.shape[1] / 500))
    strength = cv2.magnitude(cv2.Sobel(blurred, cv2.CV_32F, 1, 0), cv2.Sobel(blurred, cv2.CV_32F, 0, 1))
    high = max(10.0, float(np.percentile(strength, 94)))
    edges = cv2.Canny(blurred, 0.4 * high, high, L2gradient=True)
    edges[cv2.erode(reached.astype(np.uint8), np.ones((9, 9), np.uint8), borderValue=1) == 0] = 0
    if rgb.shape[1] > 800:
        edges = cv2.dilate(edges, np.ones((2, 2), np.uint8))
    grey = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    picture = cv2.addWeighted(grey, 0.8, np.full_like(grey, 30), 0.2, 0)
    picture[edges > 0] = _EDGE
    return picture


def checkerboard(aligned_ir: Image, reached: Image, rgb: Image, squares: int = 8) -> Image:
    """Return squares of RGB and thermal in turn, (H, W, 3) uint8; lines continue across squares if registered."""
    h, w = rgb.shape[:2]
    side = max(1, round(w / squares))
    odd = ((np.arange(h)[:, None] // side + np.arange(w) // side) % 2).astype(bool) & reached
    return np.where(odd[..., None], cv2.cvtColor(cv2.equalizeHist(aligned_ir), cv2.COLOR_GRAY2RGB), rgb)


def before_and_after(ir: Image, rgb: Image, c: Calibration) -> Image:
    """Return edges and checkerboard, without the calibration above and with it below, (2H, 2W, 3) uint8."""
    rows = [aligned(ir, rgb, None), aligned(ir, rgb, c)]
    return np.vstack([np.hstack([edges_on(*row, rgb), checkerboard(*row, rgb)]) for row in rows])


def write_picture(path: Path, rgb: Image) -> None:
    """Write (H, W, 3) uint8 RGB by the suffix of `path`, whole or not at all. Raises OutputUnwritable."""
    try:
        data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1]
    except cv2.error as e:
        raise OutputUnwritable(f"output {path} cannot be encoded as {path.suffix}: {e.err}") from e
    write_whole(path, data.tobytes())
