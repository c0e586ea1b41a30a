"""`--register`: find how thermal lies on RGB from the footage itself, before it is fused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console

from rtfuse.capture import is_live
from rtfuse.capture.settings import Playback
from rtfuse.capture.stills import is_stills
from rtfuse.cli.signals import Signals
from rtfuse.config import Config
from rtfuse.errors import CalibrationError, ConfigError, Interrupted, OutputExists
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.rig import Rig
from rtfuse.pipeline.run import Pipeline
from rtfuse.pipeline.scenes import Scenes
from rtfuse.types import Fused, Image

_PAIRS = 12
_LOOKED_AT = 5
_BESIDE, _LEAST_SIDE = 0.01, 64
"""From which share of the width thermal is said to lie beside RGB, and the smallest picture that is looked at."""
_JOIN_S = 5.0
"""The longest wait at the end for a look: a thread left behind in native code could abort Python at its end."""
_FRAMES, _LIVE_FRAMES = 600, 60
"""Frames from which the pairs are taken: of files, and of live sources."""


@dataclass(slots=True)
class _Pairs:
    """Keep the images of some frames, spread over all of them; at least `_PAIRS` if there are as many.

    Once `interrupted` is set, the next frame sets `stop`.
    """

    interrupted: threading.Event
    stop: threading.Event = field(default_factory=threading.Event)
    kept: list[tuple[Image, Image]] = field(default_factory=list)
    _every: int = 1
    _count: int = 0

    def wants_aligned(self) -> bool:
        """Return False: the images are taken as they came."""
        return False

    def write(self, fused: Fused) -> None:
        """Keep the images of a frame, if it is one of those."""
        if self.interrupted.is_set():
            self.stop.set()
        ir, rgb = fused.pair.ir, fused.pair.rgb
        if ir is None or rgb is None:
            return
        if self._count % self._every == 0:
            self.kept.append((ir.image.copy(), rgb.image.copy()))
        self._count += 1
        if len(self.kept) > 2 * _PAIRS:
            self.kept, self._every = self.kept[::2], 2 * self._every

    def close(self) -> None:
        """Keep what there is."""


def check_register(settings: Config, beside: Path, *, force: bool) -> tuple[Path, Path]:
    """Return the files that `registered` writes beside an output: calibration and picture.

    Raises ConfigError if a calibration is given too, OutputExists without `force`.
    """
    if settings.align.calib:
        raise ConfigError(f"--register makes a calibration, and {settings.align.calib} is one: give one of the two")
    calibration, picture = (
        beside.with_name(f"{beside.stem}{end}") for end in ("-calibration.yaml", "-registration.jpg")
    )
    if calibration.exists() and not force:
        raise OutputExists(f"{calibration} exists: use it with --calib {calibration}, or replace it with --force")
    return calibration, picture


def registered(
    settings: Config,
    beside: Path,
    signals: Signals,
    console: Console,
    *,
    replay: str | None = None,
    scenes: Scenes | None = None,
    force: bool = False,
) -> Config:
    """Return the settings with a calibration that is found from the footage, and written beside an output.

    `beside`: the output; the files are its name with `-calibration.yaml` and `-registration.jpg`. Raises what
    `check_register` does, and CalibrationError if the registration is uncertain.
    """
    calibration, picture = check_register(settings, beside, force=force)
    from calib.register.files import write_registration

    pairs = _pairs(settings, signals, replay, scenes)
    console.print(f"registering from {len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} of pictures", soft_wrap=True)
    try:
        made = write_registration(pairs, calibration, picture)
    except CalibrationError as e:
        raise CalibrationError(f"--register: {e}; without it thermal is stretched over RGB") from e
    error_px = made.quality.pair_error_px if made.quality is not None else None
    about = f", estimated error {error_px:.1f} RGB px" if error_px is not None else ""
    console.print(f"{calibration} written{about}; look at {picture}", soft_wrap=True, markup=False, highlight=False)
    return _with(settings, calib=str(calibration))


def beside_watch(config: Config, rig: Rig, note: Callable[[str], None]) -> BesideWatch | None:
    """Return a watch over the pictures of files; None with a calibration, for cameras, and for a picture and a video.

    The frames of a recording may be of another moment than a picture that is given with it. In a live run, the drawn
    scene is not looked at: it is known to fit, and the look takes a share of the processor.
    """
    uris = [uri for uri in (config.ir.uri, config.rgb.uri) if uri]
    single = [Path(uri).is_file() and is_stills(uri) for uri in uris]
    drawn = config.playback.speed != "max" and any(uri.startswith("synthetic:") for uri in uris)
    placed = config.align.calib or rig.stages.placed_by_files or drawn
    return None if placed or rig.live or any(single) != all(single) else BesideWatch(note)


class BesideWatch:
    """Look at some pairs of a run without a calibration, and note once if thermal does not lie on RGB.

    A sink of the pipeline: it takes a copy of a pair, and compares the two pictures in a thread. Pair 1 is compared,
    and later ones ever further apart, until one tells; `_LOOKED_AT` pairs at most. No frame waits for it. `note` gets
    the line, from the thread.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note, self._left = note, _LOOKED_AT
        self._count, self._next = 0, 1
        self._look: threading.Thread | None = None

    def wants_aligned(self) -> bool:
        """Return False: the images are taken as they came."""
        return False

    def write(self, fused: Fused) -> None:
        """Start to look at a frame if it is due, and no other look is going on."""
        ir, rgb = fused.pair.ir, fused.pair.rgb
        if not self._left or ir is None or rgb is None:
            return
        self._count += 1
        if self._count < self._next or (self._look is not None and self._look.is_alive()):
            return
        self._left, self._next = self._left - 1, 4 * self._count
        images = ir.image.copy(), rgb.image.copy()
        self._look = threading.Thread(target=self._compare, args=images, name="rtfuse-beside", daemon=True)
        self._look.start()

    def close(self) -> None:
        """Wait for the look that is going on."""
        self._left = 0
        if self._look is not None:
            self._look.join(_JOIN_S)

    def _compare(self, ir: Image, rgb: Image) -> None:
        """Compare the pictures of a pair; the first pair that tells ends the watch."""
        from calib.register.shift import beside_px

        if min(*ir.shape, *rgb.shape[:2]) < _LEAST_SIDE or (off_px := beside_px(ir, rgb)) is None:
            return
        self._left = 0
        if off_px >= _BESIDE * rgb.shape[1]:
            self._note(f"thermal seems to lie {off_px:.0f} px beside RGB: --register finds where it belongs")


def _pairs(settings: Config, signals: Signals, replay: str | None, scenes: Scenes | None) -> list[tuple[Image, Image]]:
    """Return some pairs of images, as the run itself would pair them. Raises CalibrationError without any."""
    quick = msgspec.structs.replace(settings, fuse=msgspec.structs.replace(settings.fuse, fuser="pyramid"))
    if not any(is_live(camera.uri) for camera in (settings.ir, settings.rgb) if camera.uri):
        quick = msgspec.structs.replace(quick, playback=Playback(speed="max"))
    sink = _Pairs(signals.stop)
    with open_rig(quick, replay=replay, scenes=scenes) as rig:
        frames = _LIVE_FRAMES if rig.live else _FRAMES
        Pipeline(rig, {"pairs": sink}, age_at="pairs", stop=sink.stop).run(frames=frames)
    if signals.fired:
        raise Interrupted("interrupted while registering; nothing was written")
    if not sink.kept:
        raise CalibrationError("--register: no two pictures of these streams are of the same moment")
    return sink.kept[:: max(1, len(sink.kept) // _PAIRS)]


def _with(settings: Config, *, calib: str) -> Config:
    return msgspec.structs.replace(settings, align=msgspec.structs.replace(settings.align, calib=calib))
