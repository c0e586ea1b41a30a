"""Settings of the registration of thermal on RGB."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rtfuse.settings import Positive, Section


class Ground(Section, frozen=True):
    """Plane of the ground under the rig.

    `height_m`: of the RGB camera, straight above the plane. `pitch_deg`: it looks down by this much; on a road that
    rises ahead, that much more. `roll_deg`: its right side is lower.
    """

    height_m: Annotated[float, msgspec.Meta(gt=0, le=10_000)]
    pitch_deg: Annotated[float, msgspec.Meta(ge=-90, le=90)] = 0.0
    roll_deg: Annotated[float, msgspec.Meta(ge=-180, le=180)] = 0.0


class DepthStream(Section, frozen=True):
    """Depth camera: a third stream of 16-bit counts, 0 where unknown, of the pixels of RGB at any scale.

    `uri`: as those of the other streams. `unit_mm`: millimetres of a count. `fps`: the rate of stills, RGB's otherwise.
    `offset_ms`: added to its times. `tolerance_ms`: most time between an RGB frame and its depth; null: half a period
    of the slower one.
    """

    uri: str
    unit_mm: Positive = 1.0
    fps: Positive | None = None
    offset_ms: float = 0.0
    tolerance_ms: Positive | None = None


class DepthSettings(Section, frozen=True):
    """Distance of registration; docs/depth.md says which calibrations know one.

    `plane_m`: exact at this distance in metres, in place of the calibration's own. `move_ms`: the time that a change
    takes while frames are fused; 0 changes at once. `ground`: exact on the ground too, up to that distance. `source`:
    exact wherever a depth camera knows the distance.
    """

    plane_m: Annotated[float, msgspec.Meta(gt=0)] | None = None
    move_ms: Annotated[float, msgspec.Meta(ge=0, le=60_000)] = 500
    ground: Ground | None = None
    source: DepthStream | None = None


class Align(Section, frozen=True):
    """Registration: a calibration file, and the width of the seam where thermal ends.

    `monitor`: with a calibration, look every two seconds whether thermal still lies where it lay at the start, and warn
    if it does not.
    """

    calib: str | None = None
    monitor: bool = True
    seam_px: Annotated[int, msgspec.Meta(ge=0)] = 16
    depth: DepthSettings = DepthSettings()
