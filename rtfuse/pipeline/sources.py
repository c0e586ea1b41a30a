"""Open the sources of a `Config`, with the steps that each frame passes before it is paired."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rtfuse.capture import is_live, open_source
from rtfuse.capture.orientation import Orientation
from rtfuse.capture.paths import is_device, is_pipe
from rtfuse.capture.prepared import Prepared, Step
from rtfuse.capture.reconnect import Absent, Reconnecting, Reopenable
from rtfuse.capture.settings import CameraOptions, PictureOptions
from rtfuse.config import Config, SourceSettings
from rtfuse.errors import ConfigError, DeviceUnavailable, SourceLost, SourceNotFound
from rtfuse.observe.health import Health, of_stream
from rtfuse.observe.logs import event
from rtfuse.observe.watchdog import Watchdog
from rtfuse.pipeline.queues import STREAMS
from rtfuse.pipeline.stages import hot_of
from rtfuse.record.replay import Replay
from rtfuse.thermal.cameras import camera_named
from rtfuse.thermal.false_colour import FalseColour
from rtfuse.thermal.likeness import in_false_colours
from rtfuse.thermal.preprocessing import FreezeWatch, ThermalFront
from rtfuse.types import LABELS, Clock, Frame, Source, SourceInfo, Stream

_log = logging.getLogger("rtfuse")


@dataclass(frozen=True, slots=True)
class SourceOpener:
    """Opens the source of a stream, with the steps that its frames pass before they are paired.

    `given` opens others in place of the configured ones; `replay` is a recording of `rtfuse record` to read from.
    """

    config: Config
    clock: Clock = time.monotonic_ns
    given: Mapping[Stream, Callable[[], Source]] = field(default_factory=dict)
    replay: str | None = None
    _said: set[str] = field(default_factory=set)
    """Palettes that the log has named: a camera that comes back is not announced again."""

    def check(self) -> None:
        """Raise ConfigError for an error that can be found before any device is opened."""
        camera_named(self.config.thermal.camera)
        ThermalFront(self.config.thermal)
        FalseColour(self.config.ir.palette)
        hot_of(self.config)
        if self.config.rgb.palette != "auto" or self.config.rgb.unit is not None:
            raise ConfigError("rgb.palette and rgb.unit have no effect; for thermal, set ir.palette and ir.unit")
        for stream in STREAMS:
            if self.replay is None and stream not in self.given and not self.camera(stream).uri:
                raise ConfigError(f"{stream}.uri: no source given; use --{stream} URI or set it in the config file")
        self._check_pipes()

    def _check_pipes(self) -> None:
        """Raise ConfigError for a pipe that would have to be read twice."""
        pipes = [uri for stream in STREAMS if (uri := self.camera(stream).uri) and is_pipe(uri)]
        if pipes and self.config.playback.loop:
            raise ConfigError(f"{pipes[0]} is a pipe, which can be read once: it cannot be played in a loop")
        if len(pipes) == 2 and Path(pipes[0]).samefile(pipes[1]):
            raise ConfigError(f"both streams name the pipe {pipes[0]}, which can be read once; give each its own")

    def open(self, stream: Stream) -> Source:
        """Open the source."""
        if self.replay is not None:
            return self._prepared(stream, Replay(self.replay, stream, clock=self.clock))
        return self._prepared(stream, self._bare(stream))

    def open_or_wait(self, stream: Stream) -> Source:
        """Open the source; a camera that is absent gets a placeholder, if `degraded.start` allows it."""
        try:
            return self.open(stream)
        except (DeviceUnavailable, SourceNotFound, SourceLost) as e:
            camera, how = self.camera(stream), self.config.degraded
            known = stream in self.given or (camera.uri is not None and is_live(camera.uri))
            if how.start == "both" or how.policy == "stop" or self.replay is not None or not known:
                raise
            size = camera.size or Orientation.of(stream, camera).least_wh or (640, 480)
            _log.warning("%s is not there yet: %s", LABELS[stream], e)
            dtype = "uint16" if stream == "ir" else "uint8"
            info = SourceInfo(camera.uri or stream, stream, size, dtype, live=True, rate_hz=camera.fps)
            return self._prepared(stream, Absent(info, e))

    def keep_open(self, source: Source, health: Health | None = None, watchdog: Watchdog | None = None) -> None:
        """Reopen a live source each time that it is lost; others are unchanged.

        `health` and `watchdog` follow it; without them the log says when it is lost, why, and when it is back.
        """
        if not isinstance(source, Prepared) or not source.info.live:
            return
        bare, stream = source.source, source.info.stream
        reopen = bare.reopen if isinstance(bare, Reopenable) else partial(self._bare, stream)
        if health is None or watchdog is None:
            source.source = Reconnecting(bare, reopen, watcher=_Told(stream))
        else:
            source.source = Reconnecting(bare, reopen, watcher=health, alive=watchdog.beat)

    def camera(self, stream: Stream) -> SourceSettings:
        """Return the settings of a stream."""
        return self.config.ir if stream == "ir" else self.config.rgb

    def _bare(self, stream: Stream) -> Source:
        """Open the source without the steps."""
        if stream in self.given:
            return self.given[stream]()
        camera, kind = self.camera(stream), camera_named(self.config.thermal.camera)
        assert camera.uri is not None
        return open_source(
            camera.uri,
            stream,
            fps=camera.fps,
            camera=CameraOptions(
                size_wh=camera.size,
                pixel_format=camera.format,
                controls=camera.controls,
                packed_counts=kind.words if kind is not None and stream == "ir" else None,
            ),
            picture=picture_options(camera, stream, said=self._said),
            timeout_s=camera.timeout_ms / 1000,
            transport=camera.transport,
            clock=self.clock,
        )

    def _prepared(self, stream: Stream, source: Source) -> Source:
        """Return the source with its steps: plausible times, telemetry, dead pixels, orientation, frozen pictures."""
        info, steps = source.info, list[Step]()
        freeze, recorded = self.camera(stream).freeze, not info.live and self.replay is None
        if freeze is None and not recorded:
            # a compressed stream, or a drawing, may repeat a picture of a scene at rest
            freeze = info.dtype == "uint16" or is_device(info.uri)
        orient = Orientation.of(stream, self.camera(stream))
        if stream == "rgb":
            if freeze:
                steps.append(_watched(FreezeWatch()))
            if orient:
                steps.append(partial(_oriented, orient))
            prepared = Prepared(source, steps, lambda raw: replace(raw, size_wh=orient.size_wh(raw.size_wh)))
            return prepared if steps or info.live else source
        repeats = _Repeats(stream) if recorded and freeze is None else None
        watched = bool(freeze) or (repeats is not None and info.dtype == "uint16")
        front = ThermalFront(self.config.thermal, freeze=watched, orient=orient if orient else None)

        def size_wh(raw: SourceInfo) -> tuple[int, int]:
            return orient.size_wh(front.size_wh(raw.size_wh, raw.dtype))

        def described(raw: SourceInfo) -> SourceInfo:
            return replace(raw, size_wh=size_wh(raw))

        if repeats is None:
            return Prepared(source, [*steps, front], described)
        return Prepared(source, [*steps, front, repeats], described, repeats.tell)


class _Told:
    """Log that a source is lost, each new reason, and that it is back."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._why = stream, ""

    def lost(self, why: str) -> None:
        """Log the reason, if it is new."""
        if why != self._why:
            self._why = why
            event(_log, logging.WARNING, "lost", of_stream(self._stream, why), stream=self._stream)

    def found(self) -> None:
        """Log the return."""
        self._why = ""
        event(_log, logging.INFO, "back", f"{LABELS[self._stream]} is back", stream=self._stream)


class _Repeats:
    """Let the repeated pictures of a recording pass as pictures, so that they cost no RGB frame, and count them."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._all, self._repeated = stream, 0, 0

    def __call__(self, frame: Frame) -> Frame:
        self._all += 1
        self._repeated += frame.frozen
        return replace(frame, frozen=False) if frame.frozen else frame

    def tell(self) -> None:
        """Log the number of repeated pictures, if there were any."""
        if self._repeated:
            text = (
                f"{self._repeated} of {self._all} {LABELS[self._stream]} pictures repeat the one before (shutter, or a "
                f"slower camera): fused as recorded; {self._stream}.freeze=true leaves them out"
            )
            event(_log, logging.INFO, "repeats", text, stream=self._stream)


def picture_options(
    camera: SourceSettings, stream: Stream, *, alone: bool = False, said: set[str] | None = None
) -> PictureOptions:
    """Return how the pixels of a stream are to be read, by its settings; `alone`, `said`: as for `FalseColour`."""
    uncolour = FalseColour(camera.palette, alone=alone, said=said) if stream == "ir" else None
    swapped = camera.byteorder == "swapped"
    return PictureOptions(
        unit=camera.unit, swapped=swapped, uncolour=uncolour, false_colours=in_false_colours, alone=alone
    )


def _watched(watch: FreezeWatch) -> Step:
    def step(frame: Frame) -> Frame:
        return replace(frame, frozen=True) if watch(frame.picture.planes[0]) else frame

    return step


def _oriented(orient: Orientation, frame: Frame) -> Frame:
    return replace(frame, content=orient(frame.image))


def open_lasting(config: Config, stream: Stream, *, clock: Clock = time.monotonic_ns) -> Source:
    """Open a stream's source alone; a live one is opened again each time that it is lost."""
    opener = SourceOpener(config, clock)
    opener.check()
    source = opener.open(stream)
    opener.keep_open(source)
    return source
