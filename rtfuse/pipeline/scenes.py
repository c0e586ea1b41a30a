"""Open stills of both streams as the sources of a rig, paired by their names before a picture is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec

from rtfuse.capture import is_live
from rtfuse.capture.prepared import Prepared
from rtfuse.capture.scenes.choosing import Chosen, choose
from rtfuse.capture.stills import Stills, is_stills
from rtfuse.config import Config
from rtfuse.pipeline.photos import Refine
from rtfuse.pipeline.queues import STREAMS
from rtfuse.pipeline.rig import Rig
from rtfuse.pipeline.sources import picture_options
from rtfuse.sync.pairer import Pairer
from rtfuse.types import Clock, Source, Stream

_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Scenes:
    """Take stills as scenes that have nothing to do with each other.

    - `mixed`: they may differ in size and depth.
    - `refine`: improves the calibration of pictures whose file tells their place; see `own_calibrations`.
    """

    mixed: bool = False
    refine: Refine | None = None


def chosen_stills(config: Config) -> Chosen | None:
    """Pair the stills of both streams; None if one of them is not stills. Raises what `choose` raises."""
    ir, rgb, tolerance_ms = config.ir.uri, config.rgb.uri, config.sync.tolerance_ms
    if not ir or not rgb or not (_are_stills(ir) and _are_stills(rgb)):
        return None
    tolerance_ns = None if tolerance_ms is None else round(tolerance_ms * _MS)
    return choose(ir, rgb, config.stills, fps=config.rgb.fps or config.ir.fps, tolerance_ns=tolerance_ns)


def _are_stills(uri: str) -> bool:
    return not uri.startswith("synthetic:") and not is_live(uri) and is_stills(uri)


def openers(
    chosen: Chosen, config: Config, clock: Clock, scenes: Scenes | None = None
) -> dict[Stream, Callable[[], Source]]:
    """Return the functions that open both streams; `scenes` as for `open_rig`."""
    mixed, alone = scenes is not None and scenes.mixed, scenes is not None and not config.stills.sequence
    return {
        stream: partial(
            Stills,
            camera.uri or "",
            stream,
            picture=picture_options(camera, stream, alone=alone),
            fps=chosen.rate_hz[stream],
            chosen=chosen.stills[stream],
            left_out=chosen.left_out.get(stream, 0),
            alike=not mixed,
            clock=clock,
        )
        for stream, camera in zip(STREAMS, (config.ir, config.rgb), strict=True)
    }


def for_stills(config: Config) -> Config:
    """Return the settings for stills: one that repeats another is a picture of its own, unless the user says else."""
    cameras = (msgspec.structs.replace(c, freeze=bool(c.freeze)) for c in (config.ir, config.rgb))
    return msgspec.structs.replace(config, **dict(zip(STREAMS, cameras, strict=True)))


def pairer_of(chosen: Chosen) -> Pairer | None:
    """Return the pairer of pictures that are paired already; None if their times decide."""
    return None if chosen.timed else Pairer(policy="strict", tolerance_ns=0)


def stills_of(rig: Rig, stream: Stream) -> Stills | None:
    """Return the stills that a stream is read from; None for other sources."""
    source = rig.sources[stream]
    source = source.source if isinstance(source, Prepared) else source
    return source if isinstance(source, Stills) else None
