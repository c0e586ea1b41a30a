"""Measure how far thermal lies off RGB at each distance, by a rendered yard whose depth is known at every pixel.

    python tools/depth_cases.py --baseline 0.1 --planes 3 8 15 50
    python tools/depth_cases.py -o out/depth

prints a table of errors in RGB pixels: a row for each thing in the yard, a column for each distance of
registration, one for the ground with the distance of 15 m beyond it, and one by a depth camera. With `-o` it also
writes `ir.mkv`, `rgb.mkv` and `depth.mkv` (lossless, 30 fps, people who walk), `calibration.yaml` for them, and
`planes.png`: thermal's edges on RGB in each of these cases.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from calib.overlay import edges_on, write_picture
from rtfuse.align.aligner import Aligner
from rtfuse.align.calibration import Calibration, Camera, matrix3, save_calibration, vector3
from rtfuse.align.plane import MovingPlane
from rtfuse.align.settings import Align, DepthSettings, DepthStream, Ground
from rtfuse.capture.synthetic.solids import Truth, Yard, turn
from rtfuse.types import DepthFrame, Image

FPS = 30


def calibration_of(yard: Yard, plane_m: float) -> Calibration:
    """Return the yard's rig with this distance of registration."""
    ir, rgb = (Camera(size_wh=yard.camera(s).size_wh, K=matrix3(yard.camera(s).K)) for s in ("ir", "rgb"))
    R, t = matrix3(yard.R_rgb_from_ir), vector3(yard.t_rgb_from_ir_m)
    return Calibration(ir=ir, rgb=rgb, R_rgb_from_ir=R, t_rgb_from_ir_m=t, plane_m=plane_m)


def ground_of(yard: Yard) -> Ground:
    """Return the yard's ground as a user would measure it: height over it, and how far the rig leans against it."""
    slope = np.radians(yard.slope_deg)
    down = turn("x", -yard.pitch_deg) @ turn("y", -yard.yaw_deg) @ np.array([0, np.cos(slope), np.sin(slope)])
    pitch, roll = np.degrees([np.arcsin(down[2]), np.arctan2(down[0], down[1])])
    return Ground(height_m=float(yard.height_m * np.cos(slope)), pitch_deg=float(pitch), roll_deg=float(roll))


def aligner_of(yard: Yard, plane_m: float, ground: Ground | None = None) -> Aligner:
    """Return what rtfuse warps thermal by with these settings."""
    plane = MovingPlane(calibration_of(yard, plane_m), Align(seam_px=0, depth=DepthSettings(ground=ground)))
    return plane.fit(yard.ir_size_wh[::-1], yard.size_wh[::-1])


def counts_of(depth_m: Image) -> Image:
    """Return depth as a depth camera sends it: (H, W) uint16 in mm, 0 beyond 65 m."""
    mm = np.where(np.isfinite(depth_m), np.rint(1000 * depth_m), 0)
    return np.where(mm < 65536, mm, 0).astype(np.uint16)


def aligner_by_depth(yard: Yard, counts: Image) -> Aligner:
    """Return what rtfuse warps thermal by with a depth camera's frame, with the plane at 15 m."""
    settings = DepthSettings(source=DepthStream(uri=""))
    plane = MovingPlane(calibration_of(yard, 15.0), Align(seam_px=0, depth=settings))
    return plane.newest(plane.fit(yard.ir_size_wh[::-1], yard.size_wh[::-1]), DepthFrame(counts, 0))


def map_of(aligner: Aligner) -> Image:
    """Return where RGB pixels are taken from in thermal, (H, W, 2) in pixels."""
    assert aligner.grid is not None
    return (aligner.grid.astype(float) + 1) * (np.array(aligner.ir_hw[::-1]) - 1) / 2


def errors_px(yard: Yard, truth: Truth, map_px: Image) -> Image:
    """Return how far thermal lies off at each RGB pixel, (H, W) in RGB pixels; NaN where thermal cannot see it.

    `map_px`: (H, W, 2), where each RGB pixel is taken from in thermal.
    """
    scale = yard.camera("rgb").K[0, 0] / yard.camera("ir").K[0, 0]
    far = np.linalg.norm(map_px.astype(float) - truth.ir_xy, axis=-1) * scale
    return np.where(truth.visible & np.isfinite(truth.depth_m), far, np.nan)


def table(yard: Yard, planes_m: list[float]) -> list[tuple[str, list[tuple[float, float]]]]:
    """Return for each thing its name, and the median and the 95th percentile of its errors.

    They are those at each distance, those of the ground with 15 m, and last those by depth.
    """
    truth = yard.truth()
    aligners = [*(aligner_of(yard, m) for m in planes_m), aligner_of(yard, 15.0, ground_of(yard))]
    aligners.append(aligner_by_depth(yard, counts_of(truth.depth_m)))
    errors = [errors_px(yard, truth, map_of(aligner)) for aligner in aligners]
    hidden = aligners[-1].valid
    assert hidden is not None
    errors[-1] = np.where(hidden == 0, np.nan, errors[-1])
    names = dict.fromkeys(face.name for face in yard.world().faces)
    rows = []
    for name in names:
        here = (truth.name == name) & np.isfinite(errors[0])
        if here.sum() >= 20:
            rows.append((name, [(float(np.nanmedian(e[here])), float(np.nanpercentile(e[here], 95))) for e in errors]))
    return rows


def overlays(yard: Yard, planes_m: list[float]) -> Image:
    """Return thermal's edges on RGB at each distance, one beside the other, on the ground with 15 m, and by depth."""
    world = yard.world()
    ir, rgb = world.picture(yard.camera("ir"), "ir"), world.picture(yard.camera("rgb"), "rgb")
    panels = []
    by_depth = aligner_by_depth(yard, counts_of(world.seen(yard.camera("rgb"))[0]))
    for aligner in (*(aligner_of(yard, m) for m in planes_m), aligner_of(yard, 15.0, ground_of(yard)), by_depth):
        reached = np.ones(rgb.shape[:2], bool) if aligner.valid is None else aligner.valid > 0
        panels.append(edges_on(aligner(ir), reached, rgb))
    return np.hstack(panels)


def record(yard: Yard, frames: int, folder: Path) -> None:
    """Write both cameras' pictures as `ir.mkv` and `rgb.mkv`, and the depth of RGB's as `depth.mkv`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, stream, stored, given in (
        ("ir", "ir", "gray", "gray"),
        ("rgb", "rgb", "bgr0", "rgb24"),
        ("depth", "rgb", "gray16le", "gray16le"),
    ):
        camera = yard.camera("ir" if stream == "ir" else "rgb")
        with av.open(str(folder / f"{name}.mkv"), "w") as container:
            video = container.add_stream("ffv1", rate=FPS)
            assert isinstance(video, av.VideoStream)
            (video.width, video.height), video.pix_fmt = camera.size_wh, stored
            video.time_base = Fraction(1, FPS)
            for k in range(frames):
                world = yard.world(k / FPS)
                if name == "depth":
                    image = counts_of(world.seen(camera)[0])
                else:
                    image = world.picture(camera, "ir" if stream == "ir" else "rgb")
                frame = VideoFrame.from_ndarray(image, format=given)
                frame.pts = k
                container.mux(video.encode(frame))
            container.mux(video.encode(None))


def main() -> None:
    """Print the table, and write what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=float, default=0.1, help="metres between the cameras")
    parser.add_argument("--planes", type=float, nargs="+", default=[3.0, 8.0, 15.0, 50.0], help="metres")
    parser.add_argument("--slope", type=float, default=0.0, help="degrees by which the ground rises")
    parser.add_argument("--yaw", type=float, default=0.0, help="degrees by which the rig is turned to the right")
    parser.add_argument("--pitch", type=float, default=0.0, help="degrees by which the rig looks down")
    parser.add_argument("--size", type=int, default=640, help="width of both pictures; the height is three quarters")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("-o", "--output", type=Path, help="folder for recordings, calibration and picture")
    given = parser.parse_args()
    size_wh = given.size, given.size * 3 // 4
    yard = Yard(size_wh=size_wh, ir_size_wh=size_wh, baseline_m=given.baseline, toe_deg=0.5)
    yard = replace(yard, slope_deg=given.slope, yaw_deg=given.yaw, pitch_deg=given.pitch)
    print(
        "error in RGB px, median / 95 %".ljust(32)
        + "".join(f"{f'plane {m:g} m':>16}" for m in given.planes)
        + f"{'ground, 15 m':>16}{'source':>16}"
    )
    for name, pairs in table(yard, given.planes):
        print(name.ljust(32) + "".join(f"{f'{median:.1f} / {most:.1f}':>16}" for median, most in pairs))
    if given.output is not None:
        record(yard, given.frames, given.output)
        save_calibration(calibration_of(yard, 15.0), given.output / "calibration.yaml")
        write_picture(given.output / "planes.png", overlays(yard, given.planes))


if __name__ == "__main__":
    main()
