"""Guess the board in a picture, for the error about a wrong `--board`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import cv2
import numpy as np

from calib.boards import flattened, stretched
from calib.discs.blobs import find_discs
from calib.discs.lattice import any_grid
from calib.footage import Moment
from calib.targets import Board, describe
from rtfuse.pipeline.queues import STREAMS
from rtfuse.types import Image

_DICTIONARIES = ("DICT_5X5_250", "DICT_4X4_250", "DICT_6X6_250", "DICT_7X7_250")
_MIN_MARKERS = 4
_MOST_PX = 800
"""Longest side of the picture that is searched; a larger one is shrunk first."""
_MOST_PICTURES = 40
"""Number of pictures that are looked at; a guess takes longer than the search for a known board."""
_VOTES, _VOTES_LIVE = 2, 10
_FOUND = 5
"""Number of pictures with the wanted board after which no other is guessed."""
_SIZE = re.compile(r"(?P<kind>\w+):(?P<cols>\d+)x(?P<rows>\d+)(?P<rest>.*)")
_GAP_NS, _GAP_LIVE_NS = 150_000_000, 1_000_000_000
"""Least time between two guesses. A person before a live camera needs time to bring the board into the picture."""


def guess_board(image: Image) -> str | None:
    """Return the board in a picture as KIND:COLSxROWS, the longer side first; None if no whole board is seen.

    `image`: (h, w) uint8 or uint16, or (H, W, 3) uint8 RGB.
    """
    grey = stretched(image)
    if min(grey.shape) < 24:
        return None
    if max(grey.shape) > _MOST_PX:
        scale = _MOST_PX / max(grey.shape)
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    # Discs come before the checkerboard, whose detector also finds corners between discs.
    found = _charuco(grey)
    if found is None:
        found, part = _discs(grey)
        if not part:
            found = _checkerboard(grey)
    return found


def _charuco(grey: Image) -> str | None:
    for name in _DICTIONARIES:
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))
        detector = cv2.aruco.ArucoDetector(dictionary)
        for version in (grey, 255 - grey):
            corners, ids, _ = detector.detectMarkers(version)
            if ids is None or len(ids) < _MIN_MARKERS:
                continue
            centres = np.array([c.reshape(-1, 2).mean(0) for c in corners])
            size = _charuco_size(ids.ravel(), centres)
            marker = "" if name == _DICTIONARIES[0] else f" with markers of {name}"
            return f"charuco:{size[0]}x{size[1]}{marker}" if size else None
    return None


def _charuco_size(ids: Image, centres: Image) -> tuple[int, int] | None:
    """Return columns and rows of the ChArUco board with the markers `ids` (N,) at `centres` (N, 2).

    Markers fill every second square, row by row; only the right number of columns puts them on a plane.
    """
    fits = []
    for cols in range(3, 21):
        squares = [(x, y) for y in range(40) for x in range(cols) if (x + y) % 2]
        if ids.max() >= len(squares):
            continue
        places = np.array(squares, float)[ids]
        H, _ = cv2.findHomography(places, centres)
        if H is not None and np.isfinite(H).all():
            off = np.linalg.norm(cv2.perspectiveTransform(places[:, None], H)[:, 0] - centres, axis=1).max()
            fits.append((float(off), cols, squares[ids.max()][1] + 1))
    error, cols, rows = min(fits, default=(np.inf, 0, 0))
    step = float(np.median(np.sort(np.linalg.norm(centres[:, None] - centres, axis=2), axis=1)[:, 1]))
    return (cols, rows) if error < 0.25 * step else None


def _checkerboard(grey: Image) -> str | None:
    for version in (grey, flattened(grey)):
        found, corners, meta = cv2.findChessboardCornersSBWithMeta(version, (3, 3), cv2.CALIB_CB_LARGER)
        if found and meta is not None and meta.shape[0] * meta.shape[1] == len(corners):
            rows, cols = meta.shape[:2]
            cells = np.stack(np.meshgrid(np.arange(cols), np.arange(rows)), -1).reshape(-1, 2)
            xy = corners.reshape(-1, 2)
            sound = _alternates(version, cells, xy) and _is_whole(cells, xy, grey.shape, 1.0)
            sound = sound and not _goes_on(version, cells, xy)
            return f"checkerboard:{max(cols, rows)}x{min(cols, rows)}" if sound else None
    return None


def _alternates(grey: Image, cells: Image, xy: Image) -> bool:
    """Return True if squares between corners are bright and dark in turn; the gaps between discs are not."""
    H, _ = cv2.findHomography(cells.astype(float), xy)
    squares = cells[(cells < cells.max(0)).all(1)]
    if H is None or len(squares) < 2:
        return False
    levels = _levels(grey, H, squares)
    odd = squares.sum(1) % 2 == 1
    return bool(levels[odd].min() > levels[~odd].max() or levels[odd].max() < levels[~odd].min())


def _goes_on(grey: Image, cells: Image, xy: Image) -> bool:
    """Return True if squares alternate beyond the outer squares: the corners are a part of a larger board."""
    H, _ = cv2.findHomography(cells.astype(float), xy)
    cols, rows = cells.max(0) + 1
    x, y = np.meshgrid(np.arange(-1, cols), np.arange(-1, rows))
    own = _contrast(grey, H, np.stack([x.ravel(), y.ravel()], 1))
    columns = [np.stack([np.full(rows + 1, k), np.arange(-1, rows)], 1) for k in (-2, cols)]
    lines = [np.stack([np.arange(-1, cols), np.full(cols + 1, k)], 1) for k in (-2, rows)]
    return any(_contrast(grey, H, strip) * np.sign(own) > 0.5 * abs(own) for strip in columns + lines)


def _contrast(grey: Image, H: Image, squares: Image) -> float:
    """Return the mean level of odd squares (N, 2) minus that of even ones; 0 if the picture has under two of each."""
    at = cv2.perspectiveTransform(squares[:, None] + 0.5, H)[:, 0]
    squares = squares[((at >= 0) & (at <= np.array(grey.shape[::-1]) - 1)).all(1)]
    odd = squares.sum(1) % 2 == 1
    if min(odd.sum(), (~odd).sum()) < 2:
        return 0.0
    levels = _levels(grey, H, squares).astype(float)
    return float(levels[odd].mean() - levels[~odd].mean())


def _levels(grey: Image, H: Image, squares: Image) -> Image:
    """Return the grey levels, (N,), at the middle of the squares (N, 2)."""
    at = cv2.perspectiveTransform(squares[:, None] + 0.5, H).astype(np.float32)
    return cv2.remap(grey, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).ravel()


def _discs(grey: Image) -> tuple[str | None, bool]:
    """Return the grid of discs, and True if there is at least a part of one."""
    discs = find_discs(grey)
    for dark in (True, False):
        some = sorted((d for d in discs if d.dark is dark), key=lambda d: -d.radius * abs(d.outside - d.inside))[:120]
        grid, part = any_grid(some)
        if grid is None:
            if part:
                return None, True
            continue
        kind, cells, order = grid
        if not _is_whole(cells, np.array([(some[k].x, some[k].y) for k in order]), grey.shape, 0.6):
            return None, True
        cols, rows = np.ptp(cells, 0) + 1
        size = f"{len(cells) // rows}x{rows}" if kind == "acircles" else f"{max(cols, rows)}x{min(cols, rows)}"
        return f"{kind}:{size}", True
    return None, False


def _is_whole(cells: Image, xy: Image, hw: tuple[int, ...], margin: float) -> bool:
    """Return True if the grid with a margin, in steps, lies inside the picture; otherwise a row may be outside."""
    H, _ = cv2.findHomography(cells.astype(float), xy)
    if H is None:
        return False
    (x0, y0), (x1, y1) = cells.min(0) - margin, cells.max(0) + margin
    outer = cv2.perspectiveTransform(np.array([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]], float), H)[0]
    return bool((outer > -0.5).all() and (outer < np.array(hw[::-1]) - 0.5).all())


class BoardDoubt:
    """Weighs guesses from pictures in which the wanted board was not found against the pictures in which it was."""

    def __init__(self, board: Board, live: bool) -> None:
        self._board, self._live = board, live
        self._votes: Counter[str] = Counter()
        self._pictures, self._found, self._next_ns = 0, 0, -(1 << 62)

    def look(self, moment: Moment, found: int = 0) -> None:
        """Count the `found` pictures of a moment that have the wanted board; without one, guess the board.

        At most `_MOST_PICTURES` are guessed in all, and none once the wanted board is seen regularly.
        """
        frames = [f for s in STREAMS if (f := moment.frame(s)) is not None]
        self._found += found
        best = max(self._votes.values(), default=0)
        regular = self._found >= _FOUND and self._found > best
        if found or regular or frames[0].t_ns < self._next_ns or self._pictures >= _MOST_PICTURES:
            return
        self._next_ns = frames[0].t_ns + (_GAP_LIVE_NS if self._live else _GAP_NS)
        for frame in frames:
            self._pictures += 1
            guess = guess_board(frame.image)
            if guess is not None and guess not in self._same():
                self._votes[guess] += 1

    def _same(self) -> Iterator[str]:
        """Yield the wanted board in the form of a guess, in both orientations."""
        b = self._board
        yield f"{b.kind}:{b.cols}x{b.rows}"
        yield f"{b.kind}:{b.rows}x{b.cols}"

    def _best(self) -> tuple[str, int]:
        """Return the board guessed most often, with its votes; a smaller board inside it votes for it.

        A larger board takes the votes of a smaller one only if it was guessed twice, because one guess may be wrong.
        """
        sums = {
            name: sum(n for other, n in self._votes.items() if other == name or (own > 1 and _inside(other, name)))
            for name, own in self._votes.items()
        }
        name = max(sums, key=lambda k: (sums[k], self._votes[k]))
        return name, sums[name]

    @property
    def sure(self) -> bool:
        """True once enough pictures, and nearly all, show one other board."""
        if not self._votes:
            return False
        _, best = self._best()
        return best >= (_VOTES_LIVE if self._live else _VOTES) and best >= 0.8 * (self._votes.total() + self._found)

    def hint(self) -> str:
        """Return the sentence about the board that the pictures seem to show; empty without a guess.

        Also empty if the wanted board was found in at least as many pictures.
        """
        if not self._votes:
            return ""
        name, count = self._best()
        if count <= self._found:
            return ""
        seen = f"{count} of {self._pictures + self._found} pictures seem to show {name}"
        sides = {self._board.cols - 1, self._board.rows - 1}
        if self._board.kind == "checkerboard" and name == f"checkerboard:{max(sides)}x{min(sides)}":
            return f"{seen}: --board counts inner corners, and {self._board.cols}x{self._board.rows} counts its squares"
        return (
            f"{seen}; if so, give it and its spacing as --board, otherwise uncover every row of {describe(self._board)}"
        )


def _inside(small: str, large: str) -> bool:
    """Return True if the board `small` is of the same kind as `large` and fits into it, both as KIND:COLSxROWS."""
    a, b = (_SIZE.fullmatch(name) for name in (small, large))
    if a is None or b is None or a["kind"] != b["kind"] or a["rest"] != b["rest"]:
        return False
    (a0, a1), (b0, b1) = (sorted((int(m["cols"]), int(m["rows"]))) for m in (a, b))
    return a0 <= b0 and a1 <= b1 and (a0, a1) != (b0, b1)
