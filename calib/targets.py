"""Define calibration boards: their names as text, and the positions of their points."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Literal

import cv2
import msgspec
import numpy as np

from rtfuse.errors import ConfigError
from rtfuse.types import Image

Count = Annotated[int, msgspec.Meta(ge=2, le=100)]
Metres = Annotated[float, msgspec.Meta(gt=0, le=10)]
_LEAST = {"checkerboard": 3, "charuco": 4, "circles": 2, "acircles": 2}
"""Fewest columns and rows: OpenCV finds no smaller board."""
_MARKERS = 250
"""Markers of the dictionary."""
_UNITS = {"mm": 1e-3, "cm": 1e-2, "m": 1.0}
_WANT = (
    "expected KIND:COLSxROWS:SPACING with a unit, e.g. checkerboard:9x6:25mm (inner corners, side of a square), "
    "circles:7x5:30mm or acircles:4x11:20mm (centre to centre; a diameter may follow), charuco:7x5:30mm:22mm (squares, "
    "their side, the markers' side)"
)


class Board(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """Flat board.

    Kinds:
    `checkerboard`: `cols` × `rows` inner corners; `spacing_m` is the side of a square.
    `circles`: a grid of discs; `spacing_m` is the distance between centres.
    `acircles`: OpenCV's staggered grid, `rows` of `cols` discs, every second row moved by half a step; `spacing_m` is
    half the distance within a row, and the distance between rows.
    `charuco`: `cols` × `rows` squares with markers of `dictionary`; `spacing_m` is the side of a square, `marker_m`
    the side of a marker.

    `diameter_m`: diameter of the discs in metres; None takes it from the pictures.
    """

    kind: Literal["checkerboard", "charuco", "circles", "acircles"]
    cols: Count
    rows: Count
    spacing_m: Metres
    marker_m: Metres | None = None
    diameter_m: Metres | None = None
    dictionary: str = "DICT_5X5_250"

    def __post_init__(self) -> None:
        least = _LEAST[self.kind]
        if min(self.cols, self.rows) < least:
            raise ConfigError(
                f"a {self.kind} board of {self.cols}x{self.rows} is too small; want {least}x{least} or more"
            )
        if self.kind == "charuco" and (self.marker_m is None or self.marker_m >= self.spacing_m):
            raise ConfigError("a charuco board needs a marker side below the side of its squares")
        if self.kind == "charuco" and self.cols * self.rows // 2 > _MARKERS:
            raise ConfigError(
                f"a charuco board of {self.cols}x{self.rows} needs more than {_MARKERS} different markers"
            )
        if self.diameter_m is not None and self.diameter_m >= 1.4 * self.spacing_m:
            raise ConfigError(f"discs of {1000 * self.diameter_m:g} mm would touch each other")

    @property
    def discs(self) -> bool:
        """True if the points are centres of discs."""
        return self.kind in ("circles", "acircles")

    @cached_property
    def cells(self) -> Image:
        """The points (N, 2) int, x and y in spacings, in the order of their ids: row by row."""
        cols, rows = (self.cols - 1, self.rows - 1) if self.kind == "charuco" else (self.cols, self.rows)
        x, y = np.meshgrid(np.arange(cols), np.arange(rows))
        if self.kind == "acircles":
            x = 2 * x + y % 2
        return np.stack([x.ravel(), y.ravel()], -1)

    @cached_property
    def points(self) -> Image:
        """The points (N, 3) float64 in metres, z = 0, x to the right and y down, from the first point."""
        return np.concatenate([self.cells * self.spacing_m, np.zeros((len(self.cells), 1))], 1)

    def charuco(self) -> cv2.aruco.CharucoBoard:
        """Return OpenCV's board, for `charuco`."""
        assert self.marker_m is not None
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))
        return cv2.aruco.CharucoBoard((self.cols, self.rows), self.spacing_m, self.marker_m, dictionary)


def parse_board(text: str) -> Board:
    """Read a board from text, as `describe` writes it. Raises ConfigError that describes the format."""
    kind, *rest = text.split(":")
    found = re.fullmatch(r"(\d+)x(\d+)", rest[0]) if rest else None
    lengths = [_metres(t) for t in rest[1:]]
    if not found or not lengths or None in lengths or len(lengths) > 2 or (kind == "checkerboard" and len(lengths) > 1):
        raise ConfigError(f"board {text!r}: {_WANT}")
    if kind not in _LEAST:
        raise ConfigError(f"board {text!r}: there is no {kind}, only {', '.join(_LEAST)}; {_WANT}")
    more = {"charuco": "marker_m", "circles": "diameter_m", "acircles": "diameter_m"}.get(kind, "")
    given = {"kind": kind, "cols": int(found[1]), "rows": int(found[2]), "spacing_m": lengths[0]}
    try:
        return msgspec.convert(given | ({more: lengths[1]} if len(lengths) > 1 else {}), Board)
    except msgspec.ValidationError as e:
        fault = re.sub(r"Expected `\w+` (.*) - at `\$\.(\w+)`", r"\2: want \1", str(e))
        raise ConfigError(f"board {text!r}: {fault}; {_WANT}") from e


def describe(board: Board) -> str:
    """Return a board as text, in the form that `parse_board` reads."""
    lengths = [board.spacing_m, board.marker_m or board.diameter_m]
    sizes = ":".join(f"{round(1000 * length, 6):g}mm" for length in lengths if length is not None)
    return f"{board.kind}:{board.cols}x{board.rows}:{sizes}"


def _metres(text: str) -> float | None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(mm|cm|m)", text)
    return float(found[1]) * _UNITS[found[2]] if found else None
