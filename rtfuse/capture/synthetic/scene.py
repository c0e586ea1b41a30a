"""Simulate a street at night, seen by a thermal and an RGB camera whose every fault is known.

It is the demo and the tests' ground truth. Both cameras look at one world: people and cars are bright to the one and
dark to the other, lamps, signs and textures are there for the RGB camera alone. Everything is a pure function of the
scene's parameters and the frame's number.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec
import numpy as np

from rtfuse.capture.synthetic.stage import PLANE_M as PLANE_M
from rtfuse.capture.synthetic.stage import Placement, Stage
from rtfuse.errors import ConfigError
from rtfuse.types import Image, Stream

_STREAM_KEY = {"ir": 1, "rgb": 2}

Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
# Every number is bounded: that is also what refuses inf and nan.
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Offset = Annotated[float, msgspec.Meta(ge=-60_000, le=60_000)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=60_000)]
Grey = Annotated[float, msgspec.Meta(ge=0, le=64)]
Rate = Annotated[float, msgspec.Meta(gt=0, le=1000)]
Side = Annotated[int, msgspec.Meta(ge=16, le=8192)]


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """Hold the truth about one frame: its capture time, its stamp, and if it was lost or frozen."""

    true_ns: int
    t_ns: int
    dropped: bool
    shown_ns: int
    """The moment that the picture shows: `true_ns`, or earlier while the shutter holds an old picture."""


@dataclass(frozen=True, slots=True)
class WarmObject:
    """`person` or `car`: its boxes (left, top, right, bottom) in pixels of each image, and its distance."""

    kind: str
    box_rgb: tuple[float, float, float, float]
    box_ir: tuple[float, float, float, float]
    distance_m: float


class SyntheticScene(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Parameters of the scene; all are keys of a `synthetic:?key=value&…` source.

    `size` and `ir_size` are (w, h); `ir_size` None is `size`. `skew_ms`: the thermal camera exposes this much later
    than the RGB camera. `stamp_ms`: it stamps its frames this much too late. `jitter_ms`: capture times vary by up to
    this. `drop`: share of frames lost. `noise`: deviation in grey levels. Every `ffc_every_s` the thermal picture
    freezes for `ffc_s`. `baseline_m`: the cameras' distance, which gives near objects parallax; `warp`: how far
    `H_rgb_from_ir` is from a mere change of size (0 none, 1 plain to see). `motion`: sway of the cameras, 0 to 1
    and more. `bits`: 8, or 16 for counts of 0.01 K. `live`: a camera, that stamps
    its frames with the local clock and has no end, instead of a recording of `duration_s`.
    """

    seed: Seed = 0
    size: tuple[Side, Side] = (640, 480)
    ir_size: tuple[Side, Side] | None = None
    fps: Rate = 30.0
    ir_fps: Rate | None = None
    duration_s: Annotated[float, msgspec.Meta(gt=0, le=1e7)] = 10.0
    skew_ms: Offset = 0.0
    stamp_ms: Offset = 0.0
    jitter_ms: NotNegative = 0.0
    drop: Share = 0.0
    noise: Grey = 2.0
    ffc_every_s: NotNegative = 0.0
    ffc_s: NotNegative = 0.7
    baseline_m: Annotated[float, msgspec.Meta(ge=-10, le=10)] = 0.04
    warp: Annotated[float, msgspec.Meta(ge=-4, le=4)] = 0.0
    motion: Annotated[float, msgspec.Meta(ge=0, le=10)] = 1.0
    bits: Literal[8, 16] = 8
    live: bool = False

    def __post_init__(self) -> None:
        limit_ms = 500 / max(self.fps, self.ir_fps or self.fps)
        if self.jitter_ms >= limit_ms:  # else frames would be captured out of order
            raise ConfigError(f"jitter_ms: expected less than half a frame, {limit_ms:.4g}, found {self.jitter_ms:g}")
        if self.ffc_every_s and self.ffc_s >= self.ffc_every_s:  # else the picture would never move
            raise ConfigError(f"ffc_s: expected less than ffc_every_s, {self.ffc_every_s:g}, found {self.ffc_s:g}")

    @classmethod
    def from_uri(cls, uri: str) -> SyntheticScene:
        """Read `synthetic:` or `synthetic:?key=value&…`. Raises ConfigError with the key and its possible values."""
        keys = {f.name for f in msgspec.structs.fields(cls)}
        values: dict[str, object] = {}
        for key, text in parse_qsl(urlsplit(uri).query, keep_blank_values=True):
            if key not in keys:
                near = difflib.get_close_matches(key, keys, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(keys))}"
                raise ConfigError(f"source {uri}: unknown key {key}; {hint}")
            values[key] = text.split("x") if key in ("size", "ir_size") else text
        try:
            return msgspec.convert(values, cls, strict=False)
        except msgspec.ValidationError as e:
            fault, _, path = str(e).partition(" - at `$")
            if not path:  # __post_init__ named the key already
                raise ConfigError(f"source {uri}: {fault}") from e
            raise ConfigError(f"source {uri}: {path.strip('.`')}: {fault[:1].lower()}{fault[1:]}") from e

    @property
    def uri(self) -> str:
        """The `synthetic:` source that gives this scene again, without default values."""
        parts = []
        for f in msgspec.structs.fields(self):
            value = getattr(self, f.name)
            if value != f.default:
                parts.append(f"{f.name}={'x'.join(map(str, value)) if isinstance(value, tuple) else value}")
        return "synthetic:" + ("?" + "&".join(parts) if parts else "")

    def rate_hz(self, stream: Stream) -> float:
        """Return the stream's nominal frame rate."""
        return (self.ir_fps or self.fps) if stream == "ir" else self.fps

    def size_wh(self, stream: Stream) -> tuple[int, int]:
        """Return the stream's image size."""
        return (self.ir_size or self.size) if stream == "ir" else self.size

    def count(self, stream: Stream) -> int:
        """Return the number of frames that the camera takes, lost ones included."""
        return max(1, round(self.duration_s * self.rate_hz(stream)))

    def draws(self, stream: Stream, k: int) -> Image:
        """Return four fixed random numbers in [0, 1) for frame `k`."""
        bits = np.random.Philox(key=[self.seed % 2**63, _STREAM_KEY[stream]], counter=[k, 0, 0, 0])
        return np.random.Generator(bits).random(4)

    def frame(self, stream: Stream, k: int) -> FrameTruth:
        """Return the truth about frame `k`."""
        true_ns, lost = self._true_ns(stream, k), self.draws(stream, k)[1]
        stamped = true_ns + (round(self.stamp_ms * 1e6) if stream == "ir" else 0)
        return FrameTruth(true_ns, stamped, bool(lost < self.drop), self._shown_ns(stream, k, true_ns))

    def _true_ns(self, stream: Stream, k: int) -> int:
        late_ms = self.skew_ms if stream == "ir" else 0.0
        jitter_ms = (2 * self.draws(stream, k)[0] - 1) * self.jitter_ms
        return round(k * 1e9 / self.rate_hz(stream) + (late_ms + jitter_ms) * 1e6)

    def _shown_ns(self, stream: Stream, k: int, true_ns: int) -> int:
        every_ns = round(self.ffc_every_s * 1e9)
        if stream == "rgb" or not every_ns or true_ns < every_ns or true_ns % every_ns >= self.ffc_s * 1e9:
            return true_ns
        start_ns = true_ns - true_ns % every_ns
        # The last frame before the shutter closed; jitter is below half a frame, so it is at most two from here.
        k = min(k, int((start_ns - self.skew_ms * 1e6) * self.rate_hz(stream) / 1e9) + 2)
        while k > 0 and true_ns >= start_ns:
            k -= 1
            true_ns = self._true_ns(stream, k)
        return true_ns

    @cached_property
    def H_rgb_from_ir(self) -> Image:
        """The true homography (3, 3) from thermal to RGB pixels, for the distance `PLANE_M`."""
        (w, h), (iw, ih) = self.size, self.ir_size or self.size
        scale = np.array([[w / iw, 0, (w / iw - 1) / 2], [0, h / ih, (h / ih - 1) / 2], [0, 0, 1]])
        angle, zoom = np.radians(1.2 * self.warp), 1 + 0.06 * self.warp
        c, s = zoom * np.cos(angle), zoom * np.sin(angle)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        centre, shift = np.array([w / 2, h / 2]), self.warp * np.array([0.02 * w, -0.015 * h])
        turn[:2, 2] = centre - turn[:2, :2] @ centre + shift
        return turn @ scale

    def objects(self, t_ns: int) -> list[WarmObject]:
        """Return every person and car at the true time `t_ns`, near ones last, also those outside the image."""
        rgb, ir = self.placement("rgb", t_ns), self.placement("ir", t_ns)
        return [
            WarmObject(a.kind, rgb.box(a), ir.box(a), a.z_m)
            for a in self.stage.actors(t_ns / 1e9)
            if a.kind != "prop" and a.opacity > 0.99
        ]

    @property
    def stage(self) -> Stage:
        """The scene's drawings; its two streams share them."""
        ir_from_rgb = np.linalg.inv(self.H_rgb_from_ir)[:2, :2]
        sway = 1 + 0.01 * self.motion
        return _stage(self.seed, tuple(self.size), sway * max(1.0, float(np.linalg.norm(ir_from_rgb, 2))))

    def placement(self, stream: Stream, t_ns: int) -> Placement:
        """Return how the stream's camera stands at the true time `t_ns`."""
        sway = self.stage.sway(t_ns / 1e9, self.motion)
        if stream == "rgb":
            return Placement(self.stage.view, sway[:2], 0.0)
        return Placement(self.stage.view, (np.linalg.inv(self.H_rgb_from_ir) @ sway)[:2], self.baseline_m)


@lru_cache(maxsize=2)
def _stage(seed: int, size_wh: tuple[int, int], enlarged: float) -> Stage:
    return Stage(seed, size_wh, enlarged)
