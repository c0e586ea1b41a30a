"""Define the data that flows through the pipeline, `Frame` → `Moment` → `Fused`, and the protocols of its ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from typing import Literal, Protocol

import numpy as np

from rtfuse.picture import Image as Image
from rtfuse.picture import Picture as Picture
from rtfuse.redaction import redact
from rtfuse.thermal_data import Depth as Depth
from rtfuse.thermal_data import DepthFrame as DepthFrame
from rtfuse.thermal_data import PlacedSpot as PlacedSpot
from rtfuse.thermal_data import Radiometry as Radiometry
from rtfuse.thermal_data import Shutter as Shutter
from rtfuse.thermal_data import Spot as Spot
from rtfuse.thermal_data import Thermal as Thermal

Stream = Literal["ir", "rgb"]
LABELS: Mapping[Stream, str] = {"ir": "thermal", "rgb": "RGB"}
"""The name of each stream in prose."""
Clock = Callable[[], int]
"""Monotonic nanoseconds; `time.monotonic_ns` in production, a counter in tests."""


class Stamp(StrEnum):
    """Meaning of a frame's `t_ns`."""

    EXPOSURE = "start-of-exposure"
    END = "end-of-frame"
    ARRIVAL = "arrival"
    STREAM = "stream"
    """A network stream's own clock, mapped onto the local one: capture plus the shortest delay seen on the way."""
    PLAYBACK = "playback"
    """A recording's time, mapped onto the local monotonic clock by the player; a replay keeps the time."""
    MEDIA = "media"
    """A recording's own time: comparable between streams, not with the local clock."""

    @property
    def recorded(self) -> bool:
        """True for times of a recording: its frames have no age that would mean anything, and none is shown."""
        return self in (Stamp.PLAYBACK, Stamp.MEDIA)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Image of one stream.

    - `content`: for `ir` (H, W) uint8 or uint16 counts; for `rgb` a `Picture`, which an (H, W, 3) uint8 array in R, G,
      B order becomes.
    - `frame_id`: number of the frame in its stream from 0, including frames that the source itself had to skip.
    - `t_ns`: capture time in integer nanoseconds; `stamp` gives its meaning.
    - `arrival_ns`: local monotonic time at which the decoded image was ready.
    - `frozen`: True for an older picture, repeated bit for bit or while the camera's shutter is closed.
    - `thermal`: further data of a thermal frame.
    - `raw`: the content as the camera sent it, where it differs.
    - `depth`: that of an RGB frame's pixels, by a depth camera.

    Raises ValueError if the content's shape or dtype does not fit the stream.
    """

    stream: Stream
    content: Image | Picture
    frame_id: int
    t_ns: int
    stamp: Stamp
    arrival_ns: int
    frozen: bool = False
    thermal: Thermal | None = None
    raw: Image | Picture | None = None
    depth: DepthFrame | None = None

    def __post_init__(self) -> None:
        if isinstance(self.content, Picture):
            if self.stream == "ir":
                raise ValueError("ir frame must be (H, W) uint8 or uint16, got a picture with colours")
            return
        shape, dtype = self.content.shape, self.content.dtype
        if self.stream == "ir":
            fits = len(shape) == 2 and dtype in (np.uint8, np.uint16)
        else:
            fits = len(shape) == 3 and shape[2] == 3 and dtype == np.uint8
        if not fits:
            want = "(H, W) uint8 or uint16" if self.stream == "ir" else "(H, W, 3) uint8"
            raise ValueError(f"{self.stream} frame must be {want}, got {shape} {dtype}")
        if self.stream == "rgb":
            object.__setattr__(self, "content", Picture.of_rgb(self.content))

    @property
    def image(self) -> Image:
        """For `ir` (H, W) uint8 or uint16 counts; for `rgb` (H, W, 3) uint8 in R, G, B order, computed once."""
        return self.content.rgb if isinstance(self.content, Picture) else self.content

    @property
    def picture(self) -> Picture:
        """The colour picture of an `rgb` frame. Raises TypeError for `ir`."""
        if not isinstance(self.content, Picture):
            raise TypeError("a thermal frame has counts, no colour picture; see `image`")
        return self.content

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        if isinstance(self.content, Picture):
            return self.content.shape_hw
        return self.content.shape[0], self.content.shape[1]

    @property
    def dtype(self) -> str:
        """The type of a pixel's values: `uint8` or `uint16`."""
        return "uint8" if isinstance(self.content, Picture) else str(self.content.dtype)

    @property
    def sent(self) -> Frame:
        """The frame as the camera sent it."""
        return self if self.raw is None else replace(self, content=self.raw, raw=None)

    def age_ns(self, now_ns: int) -> int:
        """Return the nanoseconds from capture to `now_ns` (local monotonic).

        Of a recording (`Stamp.recorded`) it is the delay behind the player, which the control of load needs:
        `Stamp.MEDIA` counts from the moment of decoding, `Stamp.PLAYBACK` from the time at which the frame was due.
        """
        return now_ns - (self.arrival_ns if self.stamp is Stamp.MEDIA else self.t_ns)


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """Frames of one moment: a `Pair`, or the frame of one stream while the other is missing.

    `reused` is True if the IR frame was in an earlier moment. `skew_ns` is the capture time of IR minus that of RGB,
    after the cameras' constant offsets; None without both. Raises ValueError without a frame.
    """

    ir: Frame | None = None
    rgb: Frame | None = None
    reused: bool = False
    skew_ns: int | None = None

    def __post_init__(self) -> None:
        if self.ir is None and self.rgb is None:
            raise ValueError("a moment must have a frame of IR or RGB, got neither")

    @classmethod
    def alone(cls, frame: Frame) -> Moment:
        """Return the moment of one frame, whose partner is missing."""
        return Moment(ir=frame) if frame.stream == "ir" else Moment(rgb=frame)

    @property
    def complete(self) -> bool:
        """True if both frames are there."""
        return self.ir is not None and self.rgb is not None

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The frames that are there, IR first."""
        return tuple(frame for frame in (self.ir, self.rgb) if frame is not None)

    @property
    def leader(self) -> Frame:
        """The frame that gives the output its time: RGB's, or else IR's."""
        return self.frames[-1]

    def frame(self, stream: Stream) -> Frame | None:
        """Return the frame of a stream; None if it is missing."""
        return self.ir if stream == "ir" else self.rgb


@dataclass(frozen=True, slots=True, eq=False)
class Pair(Moment):
    """Moment with both frames: thermal and RGB that show the same scene."""

    ir: Frame
    rgb: Frame
    reused: bool = False
    skew_ns: int = 0


@dataclass(slots=True, eq=False)
class ThermalPicture:
    """Thermal frame as displayed, with its place on the RGB grid.

    - `image`: (h, w) uint8 or uint16.
    - `table`: (65536,) uint8, the display luma of every count; None for uint8.
    - `grid`: (H, W, 2) float32, the place of each RGB pixel in the thermal image, from -1 (centre of the first pixel)
      to 1 (centre of the last); None: the same pixel, or stretched.
    - `valid`: (H, W) uint8, 255 where thermal reaches; None: everywhere.
    - `warp`: computes the picture on the RGB grid, (H, W) uint8.
    - `aligned`: that picture, None until the first call.
    """

    image: Image
    table: Image | None
    grid: Image | None
    valid: Image | None
    warp: Callable[[], Image]
    aligned: Image | None = None

    def __call__(self) -> Image:
        """Return the picture on the RGB grid, (H, W) uint8, computed once."""
        if self.aligned is None:
            self.aligned = self.warp()
        return self.aligned


Mode = Literal["fused", "rgb", "ir", "held"]
"""The content of an output: both streams, one of them alone, or an earlier output repeated."""


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """Fused picture and the moment that it shows.

    - `picture`: on the RGB camera's grid; an (H, W, 3) uint8 RGB array becomes a `Picture`.
    - `aligned`: thermal on the same grid, (H, W) uint8; None where neither the fuser nor a sink needed it.
    - `pair`: the frames that were fused.
    - `valid`: (H, W) uint8, 255 where thermal reaches, 0 where the output is RGB alone, between them on the seam; None
      means thermal reaches everywhere.
    - `fuser`: the method's name.
    - `mode`: the streams that the picture shows.
    - `states`: the state of each stream (see `rtfuse.observe.health`).
    - `spots`: hottest and coldest pixel of a radiometric thermal frame, in pixels of the picture, possibly outside it.
    - `depth`: the distance of registration; None where nothing set it.
    """

    picture: Picture
    aligned: Image | None
    pair: Moment
    valid: Image | None
    fuser: str
    mode: Mode = "fused"
    states: Mapping[Stream, str] = field(default_factory=dict)
    spots: tuple[PlacedSpot, PlacedSpot] | None = None
    depth: Depth | None = None

    def __post_init__(self) -> None:
        given: Picture | Image = self.picture
        if not isinstance(given, Picture):
            object.__setattr__(self, "picture", Picture.of_rgb(given))

    @property
    def image(self) -> Image:
        """The picture as (H, W, 3) uint8 in R, G, B order, computed once for all sinks."""
        return self.picture.rgb

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.picture.shape_hw

    @property
    def ir(self) -> Image:
        """Thermal on RGB's grid, (H, W) uint8. Raises ValueError if it was not computed; see `Sink`."""
        if self.aligned is None:
            raise ValueError("this frame has no aligned thermal plane: the sink's `wants_aligned` was False")
        return self.aligned


@dataclass(slots=True, eq=False)
class Work:
    """Moment on its way through the stages; each stage reads it, and fills in or exchanges a part.

    - `moment`: the frames.
    - `aligned_wanted`: True if the result must have the aligned thermal plane.
    - `thermal`: the thermal picture for display; None without a thermal frame.
    - `luma`: the fused luma, (H, W) uint8 of full range; None where RGB is shown alone, as it came.
    """

    moment: Moment
    aligned_wanted: bool = True
    thermal: ThermalPicture | None = None
    luma: Image | None = None


Stage = Callable[[Work], None]


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Description of a source before its first frame; None means unknown.

    - `uri`: without credentials.
    - `size_wh`: pixels.
    - `rate_hz`: nominal.
    - `frames`: the number in the container's header.
    - `start_ns`, `end_ns`: bounds of a recording's capture times; `end_ns` includes the last frame's period.
    - `time_base`: seconds per tick; None: the recording stores no times.
    - `utc_ns`, `timecode_ns`: UTC (since 1970) and time of day of a recording's first frame, by its metadata.
    - `utc_exact`: True if `utc_ns` is known to less than a second.
    - `coding`: the pixel format of a camera, or the codec of a stream.
    """

    uri: str
    stream: Stream
    size_wh: tuple[int, int]
    dtype: str
    live: bool
    rate_hz: float | None = None
    frames: int | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    time_base: Fraction | None = None
    coding: str | None = None
    utc_ns: int | None = None
    utc_exact: bool = False
    timecode_ns: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", redact(self.uri))


class Source(Protocol):
    """Give frames: a camera, a recording, a folder, a network stream or the synthetic scene.

    Iterating yields frames until the source ends; it raises an `RtfuseError` if it fails. `close()` may
    be called from another thread, more than once, and makes an iteration in progress end soon.
    `losses` counts frames that the source knows were lost, by cause (`corrupt`, `truncated`, `driver`, …).
    """

    @property
    def info(self) -> SourceInfo: ...

    @property
    def losses(self) -> Mapping[str, int]: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None: ...


class Sink(Protocol):
    """Take fused frames: a ZeroMQ endpoint, a file, memory.

    A sink may have `wants_aligned() -> bool`, asked for every frame from another thread: False if it does not need
    `Fused.aligned`.
    """

    def write(self, fused: Fused) -> None: ...

    def close(self) -> None: ...
