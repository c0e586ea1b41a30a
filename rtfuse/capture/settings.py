"""Define the settings of cameras, recordings and playback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from rtfuse.settings import Count, Positive, Section
from rtfuse.types import Image

Unit = Literal["counts", "kelvin", "celsius"]
Uncolour = Callable[[Image], Image | None]
"""Take a thermal picture in colour, (H, W, 3) uint8 RGB; return its luma, (H, W) uint8, None for a picture that is grey
or has colours of another kind."""
FalseColours = Callable[[Image], bool | None]
"""Say of a picture, (H, W, 3) uint8 RGB, whether it is in false colours; None: perhaps."""
NotBelowZero = Annotated[int, msgspec.Meta(ge=0)]


class SourceSettings(Section, frozen=True):
    """Configure one stream.

    - `uri`: the source; see `rtfuse.capture.sources`.
    - `offset_ms`: added to its capture times.
    - `fps`, `size` (w, h), `format`: asked of the camera; `fps` is also the rate of a recording without times.
    - `controls`: values of a V4L2 camera's controls by their names (`rtfuse probe` lists them).
    - `timeout_ms`: a live source without a frame for this long is opened again.
    - `freeze`: take pictures repeated bit for bit for those of a frozen camera; null: only from a camera or a stream
      with 16 bits, as a compressed stream may repeat a scene at rest, and never in a recording.
    - `transport`: RTSP's.
    - `flip`: mirror the picture left to right (`horizontal`), top to bottom (`vertical`), or `both`.
    - `rotate`: then turn it clockwise by so many degrees.
    - `crop`: then cut out left, top, width, height, in pixels of the turned picture.
    - `byteorder`: `swapped` for 16-bit image files whose two bytes are in the wrong order.
    - `unit`: that of the values in thermal image files; null: decided by their range.
    - `palette`: the false colours of thermal, a name of `rtfuse.thermal.false_colour`; `none` takes the brightness.
    """

    uri: str | None = None
    offset_ms: float = 0.0
    fps: Positive | None = None
    size: tuple[Count, Count] | None = None
    format: str | None = None
    controls: dict[str, int | bool | str] = msgspec.field(default_factory=dict)
    timeout_ms: Positive = 5000.0
    freeze: bool | None = None
    transport: Literal["tcp", "udp"] = "tcp"
    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    rotate: Literal[0, 90, 180, 270] = 0
    crop: tuple[NotBelowZero, NotBelowZero, Count, Count] | None = None
    byteorder: Literal["native", "swapped"] = "native"
    unit: Unit | None = None
    palette: str = "auto"


class Playback(Section, frozen=True):
    """Play recordings at `speed` times real time, or as fast as possible (`max`); again and again if `loop`."""

    speed: Positive | Literal["max"] = 1.0
    loop: bool = False


PairBy = Literal["name", "order", "time"]


class Stills(Section, frozen=True):
    """Pair the pictures of two folders or patterns; see `rtfuse.capture.scenes`.

    - `pair`: by `name`, by `order`, or by the `time` in the names; null: by name, where that is not in doubt.
    - `sequence`: the pictures are a video, and not scenes that have nothing to do with each other.
    - `recursive`: take the pictures of subfolders too.
    """

    pair: PairBy | None = None
    sequence: bool = False
    recursive: bool = False


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """Ask a V4L2 camera for a mode; None leaves the choice to rtfuse and the driver.

    `size_wh`: the size in pixels.
    `pixel_format`: the V4L2 fourcc.
    `controls`: values by name, set in this order.
    `packed_counts`: True if YUYV carries 16-bit counts; None: if the size is that of a thermal camera that sends them.
    """

    size_wh: tuple[int, int] | None = None
    pixel_format: str | None = None
    controls: Mapping[str, int | bool | str] = field(default_factory=dict)
    packed_counts: bool | None = None


@dataclass(frozen=True, slots=True)
class PictureOptions:
    """Say how the pixels of a source are to be read.

    `unit`: the unit of thermal values in image files; None: by their range.
    `swapped`: True if the bytes of 16-bit image files are in the wrong order.
    `uncolour`: turns thermal in false colours back into luma; None: the picture's own luma is taken.
    `false_colours`: tells thermal in false colours, to choose among a recording's tracks.
    `alone`: True if each image file is read as if it were the only one; otherwise unit and depth hold for all of them.
    """

    unit: Unit | None = None
    swapped: bool = False
    uncolour: Uncolour | None = None
    false_colours: FalseColours | None = None
    alone: bool = False
