"""Give each RGB frame of a recording the depth of its pixels, from a recording or pictures of a depth camera."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from rtfuse.align.settings import DepthStream
from rtfuse.capture import is_live, open_source
from rtfuse.capture.images import ImageReader
from rtfuse.capture.orientation import Orientation
from rtfuse.capture.prepared import Prepared
from rtfuse.capture.scenes.choosing import Chosen, choose
from rtfuse.capture.settings import PictureOptions
from rtfuse.capture.stills import is_stills
from rtfuse.config import Config
from rtfuse.errors import ConfigError, RtfuseError, SourceUnreadable
from rtfuse.observe.logs import event
from rtfuse.types import DepthFrame, Frame, Image, Source

_COUNTS = PictureOptions(unit="counts")
_NEAR_MM = 100.0
_log = logging.getLogger("rtfuse")


def check_depth(config: Config, replay: str | None) -> None:
    """Raise ConfigError for a depth stream that cannot be used, before anything is opened."""
    how = config.align.depth.source
    if how is None:
        return
    rgb, name = config.rgb.uri or "", "align.depth.source (--depth)"
    if replay is not None or any(is_live(uri) for uri in (how.uri, rgb)):
        raise ConfigError(f"{name} needs recordings or pictures of RGB and depth, found a camera, a stream or --replay")
    if any(uri.startswith("synthetic:") for uri in (how.uri, rgb)):
        raise ConfigError(
            f"{name}: the synthetic street has no depth; tools/depth_cases.py -o FOLDER writes one that has"
        )
    if Orientation.of("rgb", config.rgb):
        raise ConfigError(f"{name} has RGB's pixels as they come: leave out rgb.flip, rgb.rotate and rgb.crop")


def with_depth(config: Config, rgb: Source, chosen: Chosen | None) -> Source:
    """Return the RGB source whose frames have their depth; itself without a depth stream. Raises an RtfuseError."""
    how = config.align.depth.source
    return rgb if how is None else WithDepth(rgb, how, None if chosen is None else _chosen_with(config, how, chosen))


class WithDepth(Prepared):
    """Wrap the RGB source; its frames get the depth nearest in time, or that of their own still, `of_stills`.

    `losses` counts RGB frames without depth (`no_depth`). A line says so at the first one, and how many at the end.
    """

    def __init__(self, rgb: Source, how: DepthStream, of_stills: Mapping[int, tuple[str, int]] | None = None) -> None:
        self._lost, self._taken, self._checked = Counter[str](), 0, False
        self._unit_mm, self._of_stills = how.unit_mm, of_stills or {}
        self._timed = _Timed(how, rgb) if of_stills is None else None
        self._read = ImageReader("ir", _COUNTS)
        super().__init__(rgb, [self._step], ended=self._tell)

    @property
    def losses(self) -> Mapping[str, int]:
        """Losses of RGB, of depth (`depth_…`), and frames without depth."""
        own = Counter({f"depth_{cause}": n for cause, n in (self._timed.losses if self._timed else {}).items()})
        return Counter(self.source.losses) + self._lost + own

    def _step(self, frame: Frame) -> Frame:
        depth = self._timed(frame) if self._timed is not None else self._still(frame)
        self._taken += 1
        if depth is None:
            if not self._lost:
                text = f"no depth for RGB frame {frame.frame_id}: such frames are registered at the plane's distance"
                event(_log, logging.WARNING, "depth", text)
            self._lost["no_depth"] += 1
            return frame
        if not self._checked:
            self._check(depth.counts)
        return replace(frame, depth=depth)

    def _still(self, frame: Frame) -> DepthFrame | None:
        place = self._of_stills.get(frame.frame_id)
        image = None if place is None else self._read(*place)
        if place is None or image is None:
            return None
        if image.dtype != np.uint16:
            raise SourceUnreadable(_of_8_bits(place[0]))
        return DepthFrame(image, frame.t_ns)

    def _check(self, counts: Image) -> None:
        """Doubt a unit in which half of the scene would be nearer than 10 cm."""
        known = counts[counts > 0]
        self._checked = known.size > 0
        if self._checked and (middle := float(np.median(known)) * self._unit_mm) < _NEAR_MM:
            text = f"half of the scene is within {middle:.0f} mm by its depth: set align.depth.source.unit_mm"
            event(_log, logging.WARNING, "depth", text)

    def _tell(self) -> None:
        if missing := self._lost["no_depth"]:
            text = f"{missing} of {self._taken} RGB frames had no depth, and were registered at the plane's distance"
            event(_log, logging.WARNING, "depth", text)

    def close(self) -> None:
        """Close both sources."""
        super().close()
        if self._timed is not None:
            self._timed.close()


class _Timed:
    """Read a depth stream in step with RGB, whose times rise; return the nearest frame within the tolerance."""

    def __init__(self, how: DepthStream, rgb: Source) -> None:
        rate_hz = how.fps or rgb.info.rate_hz if is_stills(how.uri) else how.fps
        try:
            self._source = open_source(how.uri, "ir", fps=rate_hz, picture=_COUNTS)
        except RtfuseError as e:
            raise type(e)(str(e).replace("thermal", "depth", 1)) from e
        info = self._source.info
        if info.dtype != "uint16":
            self._source.close()
            raise SourceUnreadable(_of_8_bits(how.uri))
        rates = [rate for rate in (info.rate_hz, rgb.info.rate_hz) if rate]
        tolerance_ms = how.tolerance_ms or 500 / min(rates, default=30.0) + 1
        self._tolerance_ns, self._offset_ns = round(tolerance_ms * 1e6), round(how.offset_ms * 1e6)
        self._frames: Iterator[Frame] = iter(self._source)
        self._last: DepthFrame | None = None
        self._next = self._read()

    @property
    def losses(self) -> Mapping[str, int]:
        return self._source.losses

    def _read(self) -> DepthFrame | None:
        frame = next(self._frames, None)
        return None if frame is None else DepthFrame(frame.image, frame.t_ns + self._offset_ns)

    def __call__(self, rgb: Frame) -> DepthFrame | None:
        """Return the depth of an RGB frame; None without one near enough."""
        while self._next is not None and self._next.t_ns <= rgb.t_ns:
            self._last, self._next = self._next, self._read()
        around = [depth for depth in (self._last, self._next) if depth is not None]
        nearest = min(around, key=lambda depth: abs(depth.t_ns - rgb.t_ns), default=None)
        near = nearest is not None and abs(nearest.t_ns - rgb.t_ns) <= self._tolerance_ns
        return nearest if near else None

    def close(self) -> None:
        """Close the stream."""
        self._source.close()


def _chosen_with(config: Config, how: DepthStream, chosen: Chosen) -> dict[int, tuple[str, int]]:
    """Return file and page of the depth of each RGB still, paired by name as thermal is."""
    if not is_stills(how.uri):
        raise ConfigError(f"align.depth.source (--depth): RGB is stills, found {how.uri}; give a folder or an image")
    both = choose(how.uri, config.rgb.uri or "", config.stills, fps=config.rgb.fps, tolerance_ns=None)
    files = {rgb.path: (d.path, d.page) for d, rgb in zip(both.stills["ir"], both.stills["rgb"], strict=True)}
    return {k: files[still.path] for k, still in enumerate(chosen.stills["rgb"]) if still.path in files}


def _of_8_bits(uri: str) -> str:
    return f"depth {uri} has 8 bits; want 16-bit distances in millimetres (align.depth.source.unit_mm), 0: unknown"
