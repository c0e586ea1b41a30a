"""Find a board in a picture: RGB, or thermal of either polarity and any contrast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from calib.corners import refined
from calib.discs.grid import find_grid
from calib.targets import Board
from rtfuse.types import Image

_MIN_CHARUCO = 6


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """Position of a board in a picture.

    `ids`: indices of the board's points, (M,) int.
    `pixels`: positions of these points, (M, 2) float64.
    `sharpness`: steepest edge per pixel, as a part of the board's contrast; about 0.5 with a perfect lens.
    `ratio`: diameter of the discs as a part of the spacing; 0 for boards without discs.
    """

    ids: Image
    pixels: Image
    sharpness: float
    ratio: float = 0.0


def find_board(image: Image, board: Board) -> Finding | None:
    """Find a board in a picture, (h, w) uint8 or uint16, or (h, w, 3) uint8 RGB; return None if it is not whole.

    The order of the points depends on their positions in the picture, not on brightness: the first point is as near
    to the top left as possible without mirroring. A thermal and an RGB camera agree on the order unless one is turned
    against the other. The markers of a ChArUco board give its points their ids.
    """
    grey = stretched(image)
    if min(grey.shape) < 24:
        return None
    if board.discs:
        grid = find_grid(grey, board.cells)
        if grid is None:
            return None
        pixels, radii = grid
        return Finding(np.arange(len(pixels)), pixels, _sharpness(grey, pixels), _ratio(pixels, radii, board))
    found = _charuco(grey, board) if board.kind == "charuco" else _corners(grey, board)
    return None if found is None else Finding(*found, _sharpness(grey, found[1]))


def stretched(image: Image) -> Image:
    """Return a picture as (h, w) uint8 grey with its 0.5 % tails at 0 and 255.

    A lower limit on the contrast keeps the noise of an empty picture small.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    low, high = np.percentile(grey, [0.5, 99.5])
    least = 16 if grey.dtype == np.uint8 else 40
    scale = 255 / max(high - low, least)
    return np.clip((grey.astype(np.float32) - low) * scale + 0.5, 0, 255).astype(np.uint8)


def _versions(grey: Image) -> Iterator[tuple[Image, float]]:
    """Yield versions of a picture in which to search, the likeliest first, and the enlargement of each."""
    yield grey, 1.0
    yield flattened(grey), 1.0
    if max(grey.shape) <= 800:
        yield cv2.resize(grey, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), 2.0


def flattened(grey: Image) -> Image:
    """Return the picture with even brightness and contrast, (h, w) uint8."""
    wide = grey.shape[1] / 12
    off = cv2.GaussianBlur(grey, (0, 0), 1.0).astype(np.float32)
    off -= cv2.GaussianBlur(off, (0, 0), wide)
    spread = np.sqrt(cv2.GaussianBlur(off * off, (0, 0), wide))
    return np.clip(128 + 50 * off / (spread + 5), 0, 255).astype(np.uint8)


def _corners(grey: Image, board: Board) -> tuple[Image, Image] | None:
    for seen, scale in _versions(grey):
        ok, corners = cv2.findChessboardCornersSB(seen, (board.cols, board.rows), flags=cv2.CALIB_CB_ACCURACY)
        if ok:
            pixels = (corners.reshape(-1, 2).astype(float) + 0.5) / scale - 0.5
            return np.arange(len(pixels)), refined(grey, _in_order(pixels, board), 0.5)
    return None


def _in_order(pixels: Image, board: Board) -> Image:
    """Return the corners of a checkerboard in the order of `find_board`; OpenCV starts at any corner."""
    grid = pixels.reshape(board.rows, board.cols, 2)
    across, down = grid[0, -1] - grid[0, 0], grid[-1, 0] - grid[0, 0]
    if across[0] * down[1] - across[1] * down[0] < 0:  # mirrored: OpenCV counted the rows from the other end
        grid = grid[::-1]
    ways = [grid, grid[::-1, ::-1]]
    if board.cols == board.rows:
        ways += [np.rot90(grid), np.rot90(grid, 3)]
    return min(ways, key=lambda way: float(way[0, 0].sum())).reshape(-1, 2)


def _charuco(grey: Image, board: Board) -> tuple[Image, Image] | None:
    detector = cv2.aruco.CharucoDetector(board.charuco())
    for version in (grey, 255 - grey, cv2.GaussianBlur(grey, (0, 0), 1.0), 255 - cv2.GaussianBlur(grey, (0, 0), 1.0)):
        corners, ids, _, _ = detector.detectBoard(version)
        if ids is not None and len(ids) >= _MIN_CHARUCO:
            order = np.argsort(ids.ravel())
            pixels = corners.reshape(-1, 2)[order].astype(float)
            assert board.marker_m is not None
            clear = 0.5 * (board.spacing_m - board.marker_m) / board.spacing_m  # the gap between corner and marker
            return ids.ravel()[order].astype(int), refined(grey, pixels, clear)
    return None


def _ratio(pixels: Image, radii: Image, board: Board) -> float:
    """Return the diameter of the discs as a part of the spacing, from their size in the picture."""
    H, _ = cv2.findHomography(board.cells.astype(float), pixels)
    if H is None:
        return 0.0
    # The Jacobian of the homography is the area in the picture of a square spacing at each disc.
    cells = np.concatenate([board.cells, np.ones((len(board.cells), 1))], 1)
    area = abs(np.linalg.det(H)) / np.abs(cells @ H[2]) ** 3
    return float(np.median(2 * radii / np.sqrt(area)))


def _sharpness(grey: Image, pixels: Image) -> float:
    """Return the sharpness of the part of a picture around `pixels` (N, 2), as in `Finding`."""
    x, y, w, h = cv2.boundingRect(pixels.astype(np.float32))
    part = grey[max(0, y) : y + h, max(0, x) : x + w].astype(np.float32)
    if min(part.shape) < 4:
        return 0.0
    slope = cv2.magnitude(
        cv2.Sobel(part, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(part, cv2.CV_32F, 0, 1, scale=1 / 8)
    )
    low, high = np.percentile(part, [5, 95])
    return float(np.percentile(slope, 98) / max(high - low, 8.0))


def draw_finding(image: Image, board: Board, finding: Finding) -> Image:
    """Return the picture with the points joined in their order, from red to blue, (h, w, 3) uint8 RGB."""
    shown = image if image.ndim == 3 else cv2.cvtColor(stretched(image), cv2.COLOR_GRAY2RGB)
    picture = shown.copy()
    count = len(board.points)
    last: tuple[int, int] | None = None
    size = max(3, image.shape[1] // 120)
    for k, (x, y) in zip(finding.ids, finding.pixels, strict=True):
        hue = np.array([[[120 * k // max(1, count - 1), 255, 255]]], np.uint8)
        colour = tuple(int(c) for c in cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0])
        at = (round(x), round(y))
        if last is not None:
            cv2.line(picture, last, at, colour, max(1, size // 4), cv2.LINE_AA)
        cv2.circle(picture, at, size, colour, max(1, size // 3), cv2.LINE_AA)
        last = at
    return picture
