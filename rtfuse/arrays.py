"""Fuse two arrays as `rtfuse fuse a.png b.png` fuses two files: the public function `rtfuse.fuse`."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from rtfuse.align.aligner import Aligner
from rtfuse.align.calibration import Calibration, fault_of, load_calibration
from rtfuse.align.doubts import doubts
from rtfuse.config import load_config
from rtfuse.errors import CalibrationError, SourceUnreadable
from rtfuse.fuse.fuser import DEFAULT_FUSER, Fuser
from rtfuse.fuse.registry import open_fuser
from rtfuse.pipeline.stages import Stages
from rtfuse.thermal.false_colour import FalseColour
from rtfuse.thermal.preprocessing import ThermalFront
from rtfuse.types import LABELS, Frame, Image, Moment, Stamp, Stream

_COLOUR_LEVELS, _COLOUR_SHARE = 24, 0.02
"""An image has colour if more than this share of its pixels has channels further apart than this many levels."""
_WANTED: dict[Stream, str] = {"ir": "(H, W) uint8 or uint16", "rgb": "(H, W, 3) uint8 in R, G, B order"}
_lock = threading.Lock()
"""A fuser fuses one pair at a time."""


def fuse(
    ir: npt.ArrayLike,
    rgb: npt.ArrayLike,
    *,
    fuser: str = "auto",
    calibration: str | Path | Calibration | None = None,
    keep_hot: float | None = None,
) -> Image:
    """Fuse a thermal and an RGB image of one moment; return (H, W, 3) uint8 RGB on the RGB image's grid.

    The result equals that of `rtfuse fuse ir.png rgb.png -o fused.png`, bit for bit.

    - `ir`: (h, w) uint8, or uint16 counts, which the gain control maps to 8 bits. (h, w, 1) is the same. (h, w, 3 or 4)
      in R, G, B order in the false colours of a camera is turned back into brightness; of other colours only the
      brightness is used. Both are warned of.
    - `rgb`: (H, W, 3) uint8 in R, G, B order. OpenCV's images are B, G, R: reverse them with `image[..., ::-1]`. Alpha
      is dropped, a grey image gets three channels, and of 16 bits the upper eight are used.
    - `fuser`: a name of `open_fuser`. `auto` is `ufuser`, as for `rtfuse fuse`: one picture may take its time.
    - `calibration`: a file of `calib`, or a loaded `Calibration`. Without it thermal is stretched to (H, W).
    - `keep_hot`: the share of thermal's pixels, at most 0.25, whose luma is thermal's: the hottest ones, so that hotter
      is brighter there. None: off.

    The fuser stays open, so that the next call is fast. Calls may come from any thread; they fuse one after another.
    Neither array is changed.

    Raises SourceUnreadable (also a ValueError) for an array that is not an image of 8 or 16 bits, CalibrationError for
    a calibration of other sizes or one that cannot be right, ConfigError for a share out of range, UnknownFuser,
    WeightsMissing or EngineUnavailable.
    """
    config = load_config(None, options={"fuse.keep_hot": None if keep_hot is None else float(keep_hot)})
    said = list[str]()
    given_ir, given_rgb = _array("ir", ir), _array("rgb", rgb)
    thermal, colour = _image("ir", given_ir, said.append), _image("rgb", given_rgb, said.append)
    _warn_of_doubts(given_ir, given_rgb, said, stretched=calibration is None)
    frame = ThermalFront(freeze=False)(Frame("ir", thermal, 0, 0, Stamp.MEDIA, 0))
    moment = Moment(frame, Frame("rgb", colour, 0, 0, Stamp.MEDIA, 0))
    aligner = Aligner(frame.shape_hw, (colour.shape[0], colour.shape[1]), _loaded(calibration))
    with _lock:
        stages = Stages(aligner, _opened(DEFAULT_FUSER if fuser == "auto" else fuser), config, scenes=True)
        stages.prepare()
        return stages.process(moment, aligned=False).image


@lru_cache(maxsize=8)
def _opened(name: str) -> Fuser:
    return open_fuser(name)


def _loaded(calibration: str | Path | Calibration | None) -> Calibration | None:
    """Return a calibration, loaded if it is a file's name; warn of each doubt. Raises CalibrationError."""
    if calibration is None:
        return None
    loaded = calibration if isinstance(calibration, Calibration) else load_calibration(calibration)
    if fault := fault_of(loaded):
        raise CalibrationError(f"the calibration: {fault}")
    for doubt in doubts(loaded):
        warnings.warn(f"the calibration: {doubt}", stacklevel=4)
    return loaded


def _array(stream: Stream, given: npt.ArrayLike) -> Image:
    """Return the given value of a stream as an array, checked. Raises SourceUnreadable."""
    try:
        image = np.asarray(given)
    except (TypeError, ValueError) as e:  # a ragged list, or a tensor on a GPU
        raise SourceUnreadable(
            f"{LABELS[stream]} must be {_WANTED[stream]}, got a {type(given).__name__} that NumPy makes no array of: "
            f"{' '.join(str(e).split())}"
        ) from e
    _check(stream, image)
    return image


def _image(stream: Stream, image: Image, say: Callable[[str], None]) -> Image:
    """Return an image that a `Frame` of the stream takes, contiguous; `say` what is done."""
    image = np.ascontiguousarray(image, image.dtype.newbyteorder("="))
    if stream == "ir":
        plane = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
        if plane.ndim == 3 and has_colour(plane):
            eight = plane if plane.dtype == np.uint8 else (plane >> 8).astype(np.uint8)
            if (luma := FalseColour(say=say)(np.ascontiguousarray(eight[..., :3]))) is not None:
                return luma
        return plane if plane.ndim == 2 else _decoded(plane, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
        return image
    return cv2.cvtColor(_decoded(image, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _check(stream: Stream, image: Image) -> None:
    """Raise SourceUnreadable for an array that is not an image, saying what to do."""
    name, shape = LABELS[stream], image.shape
    found = f"{name} must be {_WANTED[stream]}, got {shape} {image.dtype}"
    if 0 in shape:
        raise SourceUnreadable(f"{found}: the array is empty")
    if image.ndim == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4):
        raise SourceUnreadable(f"{found}: put the channels last, for example with numpy.moveaxis(image, 0, -1)")
    if image.ndim not in (2, 3) or (image.ndim == 3 and shape[2] not in (1, 3, 4)):
        raise SourceUnreadable(f"{found}: give one image")
    if image.dtype.kind != "u" or image.dtype.itemsize > 2:
        hint = "scale its range to 0 to 255 and convert with .astype(numpy.uint8)"
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            hint = f"it has values that are not finite; replace them, {hint}"
        raise SourceUnreadable(f"{found}: {hint}" + (", or give the camera's counts as uint16" * (stream == "ir")))


def _decoded(image: Image, flags: int) -> Image:
    """Return an RGB, RGBA or grey image as OpenCV reads a PNG file of it, which converts it on the way."""
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}.get(image.shape[2] if image.ndim == 3 else 1)
    done, png = cv2.imencode(".png", image if order is None else cv2.cvtColor(image, order))
    decoded = cv2.imdecode(png, flags)
    assert done
    assert decoded is not None
    return decoded


def _warn_of_doubts(ir: Image, rgb: Image, said: Sequence[str], *, stretched: bool) -> None:
    """Warn of images that look swapped or turned, and of thermal in colour, with what was `said` of it."""
    (h, w), (rows, columns) = ir.shape[:2], rgb.shape[:2]
    if stretched and (w - h) * (columns - rows) < 0:
        sizes = f"thermal is {w}x{h} and RGB {columns}x{rows}"
        warnings.warn(f"{sizes}: one of them seems to be turned by 90 degrees, and thermal is stretched", stacklevel=4)
    if has_colour(ir) and not has_colour(rgb):
        warnings.warn("RGB has no colour and thermal has: the call is rtfuse.fuse(ir, rgb)", stacklevel=4)
        return
    for text in said:
        warnings.warn(f"{text}; give counts or white-hot luma", stacklevel=4)


def has_colour(image: Image) -> bool:
    """Return True if an image, uint8 or uint16, has more colour than a grey one that was coded with loss."""
    if image.ndim == 2 or image.shape[2] == 1:
        return False
    small = image[::4, ::4, :3].astype(np.int32) >> (8 * (image.dtype.itemsize - 1))
    return float((small.max(axis=2) - small.min(axis=2) > _COLOUR_LEVELS).mean()) > _COLOUR_SHARE
