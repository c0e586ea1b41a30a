"""Read two recordings as registered pairs, with the pairing, thermal mapping and alignment of `rtfuse fuse`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge

from rtfuse.config import Align, Camera, Config, Fuse, Playback
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.rig import Rig
from rtfuse.pipeline.scenes import Scenes
from rtfuse.types import Image, Pair


@dataclass(frozen=True, slots=True, eq=False)
class Registered:
    """Thermal (H, W) uint8 on the grid of RGB (H, W, 3) uint8, at RGB's `frame_id`.

    `valid` is (H, W) uint8, 255 where thermal reaches; None means everywhere. `stretched` is True if thermal was only
    resized to RGB's size, without a calibration.
    """

    ir: Image
    rgb: Image
    frame_id: int
    valid: Image | None
    stretched: bool


def registered(ir: str, rgb: str, calib: str | None = None) -> Iterator[Registered]:
    """Yield every pair of two recordings (or `synthetic:` sources), as `rtfuse fuse` fuses them.

    Raises RtfuseError if a recording or the calibration cannot be opened or read.
    """
    rig = open_rig(
        Config(
            ir=Camera(uri=ir),
            rgb=Camera(uri=rgb),
            align=Align(calib=calib),
            fuse=Fuse(fuser="pyramid"),  # not used
            playback=Playback(speed="max"),
        ),
        scenes=Scenes(),
    )
    with rig:
        for frame in merge(rig.sources["ir"], rig.sources["rgb"], key=lambda frame: frame.t_ns):
            rig.pairer.push(frame)
            for pair in rig.pairer.pairs():
                yield _registered(rig, pair)
        for pair in rig.pairer.finish():
            yield _registered(rig, pair)


def _registered(rig: Rig, pair: Pair) -> Registered:
    aligned = rig.stages.thermal(pair.ir)()
    return Registered(aligned, pair.rgb.image, pair.rgb.frame_id, rig.aligner.valid, rig.aligner.stretched)
