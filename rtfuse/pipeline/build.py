"""Open the parts of a pipeline from a `Config`; a wrong configuration is an error before any device is opened."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial

from rtfuse.align.calibration import Calibration, load_calibration
from rtfuse.align.doubts import doubts
from rtfuse.align.plane import MovingPlane
from rtfuse.capture.pacing import Playback
from rtfuse.capture.scenes.choosing import Chosen
from rtfuse.capture.tracks import split_track
from rtfuse.config import Config
from rtfuse.errors import ConfigError
from rtfuse.fuse import DEFAULT_FUSER, Fuser, open_fuser
from rtfuse.fuse.auto import open_stepping
from rtfuse.observe.health import Health
from rtfuse.observe.trace import Trace
from rtfuse.observe.watchdog import Supervisor, Watchdog
from rtfuse.pipeline.depth import check_depth, with_depth
from rtfuse.pipeline.origins import Placement, placed
from rtfuse.pipeline.photos import own_calibrations
from rtfuse.pipeline.queues import STREAMS
from rtfuse.pipeline.rig import Order, Rig, StageTrace
from rtfuse.pipeline.scenes import Scenes, chosen_stills, for_stills, openers, pairer_of
from rtfuse.pipeline.sources import SourceOpener
from rtfuse.pipeline.stages import Place, Stages
from rtfuse.record.replay import recorded_rates
from rtfuse.sync.pairer import Pairer
from rtfuse.types import Clock, Source, Stream

_MS = 1_000_000
_OPEN_S = 5.0
"""The longest time that opening a network stream may take, for the watchdog."""
_RECORDED_MS = 50.0
"""The largest default tolerance of recordings: half a period at 1 Hz is too long to be one moment."""
_log = logging.getLogger("rtfuse")


def open_rig(
    config: Config,
    *,
    replay: str | None = None,
    clock: Clock = time.monotonic_ns,
    sources: Mapping[Stream, Callable[[], Source]] | None = None,
    trace: Trace | None = None,
    status: Callable[[], str] | None = None,
    scenes: Scenes | None = None,
) -> Rig:
    """Open calibration, fuser and sources. Raises the `RtfuseError` of the part that fails, and closes the others.

    - `replay`: a recording of `rtfuse record` to take the frames from, at the times of their arrival.
    - `sources`: openers that replace the configured ones.
    - `trace`: gets every frame's stages; the caller closes it. `status`: a line for `systemctl status`.
    - `scenes`: stills have nothing to do with each other, unless the configuration says that they are a sequence.
    """
    calibration = load_calibration(config.align.calib) if config.align.calib else None
    plane = MovingPlane(calibration, config.align)
    chosen = chosen_stills(config) if replay is None and not sources else None
    if chosen is not None:
        config, sources = for_stills(config), openers(chosen, config, clock, scenes)
    opener = SourceOpener(config, clock, dict(sources or {}), replay)
    opener.check()
    check_depth(config, replay)
    order, speed = _pace(config, replay)
    traced = StageTrace(trace) if trace is not None else None
    with ExitStack() as stack:
        fuser, bare = _open_both(config, order, opener, stack)
        placement = placed({s: bare[s].info for s in STREAMS}, config.sync.starts) if not replay else Placement()
        opened = {s: placement.apply(s, source) for s, source in bare.items()}
        opened["rgb"] = stack.enter_context(closing(with_depth(config, opened["rgb"], chosen)))
        place = own_calibrations(config, scenes.refine if scenes is not None else None)
        alone = scenes is not None and chosen is not None and not config.stills.sequence
        stages = _stages(config, opened, calibration, fuser, traced, plane=plane, scenes=alone, place=place)
        fuser.aim((opened["rgb"].info.rate_hz or 30) * (1.0 if replay else speed or 1.0))
        if place is None:
            stages.prepare()
        pairer = (chosen and pairer_of(chosen)) or _pairer(config, opened, calibration, order)
        supervisor = Supervisor(limit_s=config.supervise.limit_s, status=status)
        rig = _rig(opener, placement, opened, pairer, stages, supervisor=supervisor, traced=traced, chosen=chosen)
        stack.pop_all()
    return rig


def _rig(
    opener: SourceOpener,
    placement: Placement,
    sources: dict[Stream, Source],
    pairer: Pairer,
    stages: Stages,
    *,
    supervisor: Supervisor,
    traced: StageTrace | None,
    chosen: Chosen | None,
) -> Rig:
    """Fit the opened parts together, with the health and the watchdogs of the sources."""
    config, (order, speed) = opener.config, _pace(opener.config, opener.replay)
    clock = _replayed(sources, opener.clock, speed or 1.0) if opener.replay else opener.clock
    health = _health(config, sources, clock)

    def reopen(stream: Stream) -> Source:
        source = placement.apply(stream, opener.open(stream))
        return with_depth(config, source, chosen) if stream == "rgb" else source

    return Rig(
        sources=sources,
        pairer=pairer,
        stages=stages,
        playback=Playback(speed, config.playback.loop),
        order=order,
        queue=config.sync.queue,
        policy=config.degraded.policy,
        limit_ns=round(max(config.ir.timeout_ms, config.rgb.timeout_ms) * _MS),
        lowers=config.load.step and speed is not None,
        mark=config.degraded.mark,
        reopen=reopen,
        remark=placement.remark,
        health=health,
        supervisor=supervisor,
        watchdogs=_keep_open(opener, sources, health, supervisor),
        trace=traced,
        chosen=chosen,
        clock=clock,
    )


def _pace(config: Config, replay: str | None) -> tuple[Order, float | None]:
    """Return the order in which frames are taken, and how many times as fast as they came; None: as fast as can be."""
    speed = None if config.playback.speed == "max" else config.playback.speed
    return "replay" if replay else "lossless" if speed is None else "live", speed


def _open_both(
    config: Config, order: Order, opener: SourceOpener, stack: ExitStack
) -> tuple[Fuser, dict[Stream, Source]]:
    """Open the fuser and the sources at the same time.

    The fuser's error comes first: cameras that cannot be opened today may be there tomorrow.
    """
    with ThreadPoolExecutor(1, "rtfuse-fuser") as pool:
        fuser = pool.submit(_fuser, config, order)
        try:
            bare = {s: stack.enter_context(closing(opener.open_or_wait(s))) for s in STREAMS}
        finally:
            fuser.result()
    if order == "lossless" and any(source.info.live for source in bare.values()):
        raise ConfigError("playback.speed: 'max' is for recordings; a camera gives its frames at its own pace")
    return fuser.result(), bare


def _fuser(config: Config, order: Order) -> Fuser:
    how = config.fuse
    name = DEFAULT_FUSER if how.fuser == "auto" and order == "lossless" else how.fuser
    named = partial(open_fuser, name, weights=how.weights, engine=how.engine, precision=how.precision, plan=how.plan)
    return open_stepping(name, named) if config.load.fuser and order != "lossless" else named()


def _stages(
    config: Config,
    sources: Mapping[Stream, Source],
    calibration: Calibration | None,
    fuser: Fuser,
    traced: StageTrace | None,
    *,
    plane: MovingPlane,
    scenes: bool,
    place: Place | None,
) -> Stages:
    """Fit the stages to the sources."""
    (iw, ih), (w, h) = (sources[s].info.size_wh for s in STREAMS)
    done = traced.done if traced is not None else None
    aligner = plane.fit((ih, iw), (h, w))
    for doubt in doubts(calibration, aligner.reach) if calibration is not None else ():
        _log.warning("calibration %s: %s", config.align.calib, doubt)
    return Stages(aligner, fuser, config, fit=plane.fit, scenes=scenes, place=place, done=done, plane=plane)


def _keep_open(
    opener: SourceOpener, sources: Mapping[Stream, Source], health: Mapping[Stream, Health], supervisor: Supervisor
) -> dict[Stream, Watchdog]:
    """Make live sources reopen when they are lost; return the signs of life of their threads."""
    watchdogs: dict[Stream, Watchdog] = {}
    for stream, source in sources.items():
        if opener.config.degraded.policy != "stop" and source.info.live:
            patience_s = opener.camera(stream).timeout_ms / 1000 + 2 * _OPEN_S
            watchdogs[stream] = supervisor.watchdog(f"capture-{stream}", patience_s=patience_s)
            opener.keep_open(source, health[stream], watchdogs[stream])
    return watchdogs


def _health(config: Config, sources: Mapping[Stream, Source], clock: Clock) -> dict[Stream, Health]:
    quiet_ns = _quiet_ns(config, sources)
    return {s: Health(s, quiet_ns=max(quiet_ns[s], 150 * _MS), clock=clock) for s in STREAMS}


def _quiet_ns(config: Config, sources: Mapping[Stream, Source]) -> dict[Stream, int]:
    """Return, for each stream, the time without a new picture after which it counts as missing."""
    if config.degraded.after_ms is not None:
        return dict.fromkeys(STREAMS, round(config.degraded.after_ms * _MS))
    rates = {s: sources[s].info.rate_hz for s in STREAMS}
    slowest = min((rate for rate in rates.values() if rate), default=None)
    quiet = {}
    for stream in STREAMS:
        rate = slowest if config.sync.policy == "strict" else rates[stream]
        quiet[stream] = max(100 * _MS, round(2e9 / rate) if rate else 0)
    return quiet


def _pairer(
    config: Config,
    sources: Mapping[Stream, Source],
    calibration: Calibration | None,
    order: Order,
) -> Pairer:
    ir_offset_ms = config.ir.offset_ms + ((calibration and calibration.ir_offset_ms) or 0.0)
    live = order == "replay" or any(source.info.live for source in sources.values())
    tolerance_ms = _tolerance_ms(config, sources, live=live)
    passes = live and config.degraded.policy == "passthrough"
    return Pairer(
        policy=config.sync.policy,
        tolerance_ns=round(tolerance_ms * _MS),
        max_reuse_ns=round(config.sync.max_reuse_ms * _MS),
        wait_ns=None if order == "lossless" else round(config.sync.wait_ms * _MS),
        offset_ns={"ir": round(ir_offset_ms * _MS), "rgb": round(config.rgb.offset_ms * _MS)},
        alone_after_ns=_quiet_ns(config, sources) if passes else None,
        shutter_ns=round(config.degraded.shutter_ms * _MS) if live else 0,
    )


def _tolerance_ms(config: Config, sources: Mapping[Stream, Source], *, live: bool) -> float:
    """Return the tolerance: that of the settings, or half a period of the slower stream, of recordings at most 50 ms.

    A recording of `rtfuse record` has the tolerance of its cameras, whether it is fused or replayed.
    """
    if config.sync.tolerance_ms is not None:
        return config.sync.tolerance_ms
    rates = [source.info.rate_hz for source in sources.values()]
    files = {split_track(config.ir.uri or "")[0], split_track(config.rgb.uri or "")[0]}
    recorded = recorded_rates(files.pop()) if not live and len(files) == 1 else None
    if recorded is not None:
        live, rates = True, list(recorded.values())
    half_ms = 500 / min(r for r in rates if r) if all(rates) else 20.0
    return half_ms if live else min(half_ms, _RECORDED_MS)


def _replayed(sources: Mapping[Stream, Source], clock: Clock, speed: float) -> Clock:
    """Return a clock that now stands at the recording's first frame, and runs at this speed."""
    first_ns = min((s.info.start_ns for s in sources.values() if s.info.start_ns is not None), default=0)
    begun_ns = clock()
    return lambda: first_ns + round((clock() - begun_ns) * speed)
