"""Read and write a session: the folder with the boards found for one rig, shared by the commands.

`boards.json`: the points of the boards.
`views/`: the pictures, thermal stretched to 8 bits as `NAME.ir.png`, RGB as `NAME.rgb.jpg`.
`ir.yaml`, `rgb.yaml`: the cameras, written by `calib intrinsics`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import yaml

from calib.targets import Board, parse_board
from rtfuse.align.calibration import Camera, fault_of_camera
from rtfuse.errors import CalibrationError
from rtfuse.outputs import write_whole, write_yaml
from rtfuse.settings import parse_yaml
from rtfuse.types import LABELS, Image, Stream

BOARDS = "boards.json"
VIEWS = "views"
NAMES = LABELS
"""Names of the streams in messages."""


class BoardPoints(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Points of the board found in one picture.

    `ids`: indices of the board's points.
    `pixels`: positions of these points, (x, y).
    `sharpness`: steepest edge per pixel, as a part of the board's contrast.
    `ratio`: measured diameter of the discs as a part of their spacing; 0 for boards without discs.
    """

    ids: tuple[int, ...]
    pixels: tuple[tuple[float, float], ...]
    sharpness: float
    ratio: float = 0.0

    @property
    def xy(self) -> Image:
        """The pixels as (N, 2) float64."""
        return np.array(self.pixels, float).reshape(-1, 2)


def diameter_m(board: Board, found: Iterable[BoardPoints]) -> float:
    """Return the diameter of a board's discs in metres, as given or else as measured; 0 for boards without discs."""
    if board.diameter_m is not None or not board.discs:
        return board.diameter_m or 0.0
    return board.spacing_m * float(np.median([s.ratio for s in found]))


class View(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Moment: the points of the board for each camera, None without a board."""

    name: str
    ir: BoardPoints | None = None
    rgb: BoardPoints | None = None


class Session(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Content of `boards.json`.

    `board`: the board, as `describe` writes it.
    `ir_wh`, `rgb_wh`: image sizes, None for a missing stream.
    `together`: True if both cameras recorded at once, so that views are pairs.
    `views`: the views.
    """

    board: str
    ir_wh: tuple[int, int] | None = None
    rgb_wh: tuple[int, int] | None = None
    together: bool = False
    views: tuple[View, ...] = ()
    version: Literal[1] = 1

    @property
    def target(self) -> Board:
        """The board."""
        return parse_board(self.board)

    def size_wh(self, stream: Stream) -> tuple[int, int]:
        """Return the image size of a stream. Raises CalibrationError if the session lacks the stream."""
        size = self.ir_wh if stream == "ir" else self.rgb_wh
        if size is None:
            raise CalibrationError(f"this session has no {stream} pictures; run calib boards with --{stream}")
        return size

    def points(self, stream: Stream) -> dict[str, BoardPoints]:
        """Return the points of the board in the pictures of one camera, by the name of the view."""
        found = ((v.name, v.ir if stream == "ir" else v.rgb) for v in self.views)
        return {name: s for name, s in found if s is not None}


def load_session(folder: str | Path) -> Session:
    """Read a session. Raises CalibrationError that names the file and the fault."""
    path = Path(folder) / BOARDS
    try:
        return msgspec.json.decode(path.read_bytes(), type=Session)
    except OSError as e:
        raise CalibrationError(f"{path}: {e.strerror or e}; make it with calib boards") from e
    except (msgspec.ValidationError, msgspec.DecodeError) as e:
        raise CalibrationError(f"{path}: {e}") from e


def save_session(session: Session, folder: str | Path) -> None:
    """Write a session's `boards.json`. Raises OutputUnwritable."""
    write_whole(Path(folder) / BOARDS, msgspec.json.format(msgspec.json.encode(session), indent=1))


def load_camera(path: str | Path) -> Camera:
    """Read a camera (YAML). Raises CalibrationError that names the file and the fault."""
    try:
        camera = msgspec.convert(parse_yaml(Path(path).read_text(encoding="utf-8")), Camera)
    except OSError as e:
        raise CalibrationError(f"camera file {path}: {e.strerror or e}; make it with calib intrinsics") from e
    except (msgspec.ValidationError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as e:
        raise CalibrationError(f"camera file {path}: {' '.join(str(e).split())}") from e
    fault = fault_of_camera("camera", camera)
    if fault or camera.K is None:
        raise CalibrationError(f"camera file {path}: {fault or 'K is missing'}")
    return camera


def save_camera(camera: Camera, path: str | Path) -> None:
    """Write a camera (YAML). Raises CalibrationError if it is faulty, or OutputUnwritable."""
    if fault := fault_of_camera("camera", camera):
        raise CalibrationError(f"not written to {path}: {fault}")
    write_yaml(msgspec.to_builtins(camera), path)
