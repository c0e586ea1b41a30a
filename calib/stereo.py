"""Find the pose between the two cameras, and the error between their pictures on held-out views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from calib.adjust import Adjusted, Lens, Observation, adjust, compose, lens_of, pose_of, rms, typical, without_bias
from calib.session import BoardPoints, diameter_m
from calib.targets import Board
from rtfuse.align.calibration import Calibration, Camera, Quality, lifted, matrix3, projected, undistorted, vector3
from rtfuse.errors import CalibrationError
from rtfuse.types import Image

MIN_PAIRS = 5
_MAX_REJECTED = 0.4
_MAX_ERROR = 1.25e-3
"""Largest median error, as a part of the RGB image's width: 0.8 px at 640. A larger one means several poses."""
_MAX_TURN_DEG = 60.0


BothPoints = tuple[BoardPoints | None, BoardPoints | None]
"""Points of the board in the thermal and in the RGB picture of a view, None without a board."""


@dataclass(frozen=True, slots=True)
class StereoFit:
    """Calibration of a rig, and its evidence.

    `calibration`: the calibration.
    `pair_errors`: errors by held-out view, (N, 2) RGB pixels: mapped thermal point minus RGB point.
    `rejected`: views that do not fit, with the reason.
    `turned`: views in which one camera numbered a symmetric board from the other end.
    """

    calibration: Calibration
    pair_errors: dict[str, Image]
    rejected: dict[str, str]
    turned: tuple[str, ...]


def fit_stereo(views: Mapping[str, BothPoints], board: Board, ir: Camera, rgb: Camera, plane_m: float) -> StereoFit:
    """Find the pose of the thermal camera relative to the RGB camera.

    `views`: points of the board (thermal, RGB) by view, None for a camera that does not see the board.
    `ir`, `rgb`: cameras with intrinsics.
    `plane_m`: distance in metres at which registration is exact.

    Fits both lenses together with the pose, so the standard deviations of the pose include the lenses'. Views of one
    camera alone improve the lenses. Raises CalibrationError if the views are too few, not simultaneous, or not of one
    rig.
    """
    names = [n for n, (a, b) in views.items() if a and b and len(set(a.ids) & set(b.ids)) >= 6]
    if len(names) < MIN_PAIRS:
        raise CalibrationError(
            f"both cameras see the board in {len(names)} views, at least {MIN_PAIRS} are needed (15 are good); hold it "
            "still, whole in both pictures, at several distances"
        )
    lenses = (lens_of(rgb), lens_of(ir))
    observations = {
        (n, camera): Observation(camera, n, board.points[list(s.ids)], s.xy)
        for n, (a, b) in views.items()
        for camera, s in enumerate((b, a))
        if s
    }
    for camera, lens in enumerate(lenses):
        seen = [s for pair in views.values() if (s := pair[1 - camera])]
        diameter = diameter_m(board, seen) if seen else 0.0
        observations |= {key: without_bias(s, lens, diameter) for key, s in observations.items() if key[1] == camera}
    poses = {key: pose_of(s.points, s.pixels, lenses[s.camera]) for key, s in observations.items()}
    ends = {n: [_relative(poses[n, 0], p) for p in _both_ends(observations[n, 1], board, lenses[1])] for n in names}
    start, turned = _most_common(ends)
    for n in turned:
        observations[n, 1] = replace(observations[n, 1], points=_other_end(observations[n, 1].points, board))
    seen_by_ir = {n: compose(pose, _inverse(start))[0] for (n, camera), pose in poses.items() if camera}
    first = seen_by_ir | {n: pose for (n, camera), pose in poses.items() if not camera}
    fit, rejected = _consistent(list(observations.values()), lenses, first, start, names, _MAX_ERROR * rgb.size_wh[0])
    assert fit.relative is not None
    angle = float(np.degrees(np.linalg.norm(fit.relative[:3])))
    if angle > _MAX_TURN_DEG:
        raise CalibrationError(
            f"the two cameras would look {angle:.0f} degrees apart; check that the pictures belong to each other, and "
            "that the board is the same way up in both"
        )
    kept = [s for s in observations.values() if s.view not in rejected]
    errors = _held_out(kept, [n for n in names if n not in rejected], fit)
    return StereoFit(_calibration(fit, (ir, rgb), plane_m, errors), errors, rejected, tuple(turned))


def _both_ends(observation: Observation, board: Board, lens: Lens) -> list[Image]:
    """Return the board's pose in the thermal camera, and its pose if numbered from the other end.

    A grid looks the same after half a turn, so the two pictures may number it from different ends.
    """
    orders = [observation.points]
    if board.kind != "charuco":
        other = _other_end(observation.points, board)
        orders += [other] if all(np.abs(observation.points - p).max(1).min() < 1e-6 for p in other) else []
    return [pose_of(points, observation.pixels, lens) for points in orders]


def _other_end(points: Image, board: Board) -> Image:
    """Return the points of a board, numbered from its other end."""
    return np.asarray(board.points.min(0) + board.points.max(0) - points)


def _relative(rgb_pose: Image, ir_pose: Image) -> Image:
    """Return the pose (6,) that takes the RGB camera's system to the thermal camera's."""
    R1, R2 = (cv2.Rodrigues(p[:3])[0] for p in (rgb_pose, ir_pose))
    R = R2 @ R1.T
    return np.concatenate([cv2.Rodrigues(R)[0].ravel(), ir_pose[3:] - R @ rgb_pose[3:]])


def _inverse(pose: Image) -> Image:
    R = cv2.Rodrigues(pose[:3])[0]
    return np.concatenate([-pose[:3], -R.T @ pose[3:]])


def _most_common(ends: Mapping[str, Sequence[Image]]) -> tuple[Image, list[str]]:
    """Return the pose that most views agree with, and the views that agree only from the board's other end."""
    places = {n: [_place(p) for p in poses] for n, poses in ends.items()}

    def disagreement(at: Image) -> float:
        return float(np.median([min(np.linalg.norm(q - at) for q in qs) for qs in places.values()]))

    best = min((at for qs in places.values() for at in qs), key=disagreement)
    choice = {n: int(np.argmin([np.linalg.norm(q - best) for q in qs])) for n, qs in places.items()}
    return np.median([ends[n][k] for n, k in choice.items()], axis=0), [n for n, k in choice.items() if k]


def _place(pose: Image) -> Image:
    """Return three points a metre away after a pose, (9,), for the comparison of poses."""
    probe = np.array([[0, 0, 1.0], [0.5, 0, 1], [0, 0.5, 1]])
    return np.asarray((probe @ cv2.Rodrigues(pose[:3])[0].T + pose[3:]).ravel())


def _fit(
    observations: Sequence[Observation], lenses: Sequence[Lens], poses: Mapping[str, Image], start: Image
) -> Adjusted:
    mine = {s.view: poses[s.view] for s in observations}
    return adjust(observations, lenses, mine, start, free=[np.ones(len(lens.values), bool) for lens in lenses])


def _consistent(
    observations: Sequence[Observation],
    lenses: Sequence[Lens],
    poses: Mapping[str, Image],
    start: Image,
    names: Sequence[str],
    most_px: float,
) -> tuple[Adjusted, dict[str, str]]:
    """Return the fit to the views that agree on a pose and, for each rejected view, the reason.

    Raises CalibrationError if too many disagree, or the median error is above `most_px`.
    """
    both = [s for s in observations if s.view in names]
    # With fixed lenses, a wrong view cannot bend them.
    known = adjust(both, lenses, {n: poses[n] for n in names}, start, free=[None, None])
    each = {n: rms([e for s, e in zip(both, known.errors, strict=True) if s.view == n]) for n in names}
    median = float(np.median(list(each.values())))
    bad = [n for n, e in each.items() if e > max(0.4, 3 * median)]
    if len(bad) > _MAX_REJECTED * len(names) or median > most_px:
        raise CalibrationError(
            f"the views do not agree on one pose of the cameras: the median error is {median:.1f} px, {len(bad)} of "
            f"{len(names)} views disagree; hold the board still, and check that all pictures are of one rig, that "
            "pairs are of one moment, and that the streams are not swapped"
        )
    assert known.relative is not None
    rejected = {n: f"{each[n]:.2f} px of error where others have {median:.2f}" for n in bad}
    # A view of one camera alone starts from its pose in that camera.
    fit = _fit([s for s in observations if s.view not in bad], lenses, {**poses, **known.poses}, known.relative)
    return fit, rejected


def _held_out(
    observations: Sequence[Observation], names: Sequence[str], fit: Adjusted, folds: int = 5
) -> dict[str, Image]:
    """Return the pair error (N, 2) of each view, with lenses and pose fitted to other views."""
    assert fit.relative is not None
    errors: dict[str, Image] = {}
    folds = min(folds, len(names))
    of = {(s.view, s.camera): s for s in observations}
    for fold in range(folds):
        test = names[fold::folds]
        without = _fit([s for s in observations if s.view not in test], fit.lenses, fit.poses, fit.relative)
        assert without.relative is not None
        errors |= {n: pair_error(of[n, 0], of[n, 1], without.lenses, without.relative) for n in test}
    return {n: errors[n] for n in names}


def pair_error(rgb: Observation, ir: Observation, lenses: Sequence[Lens], relative: Image) -> Image:
    """Return the error of thermal points mapped to RGB through the board's plane, (N, 2) RGB pixels.

    `lenses`: the lenses of RGB and thermal.
    `relative`: pose (6,) that takes the RGB camera's system to the thermal camera's.
    """
    cameras = [lens.camera((1, 1)) for lens in lenses]
    pose = pose_of(rgb.points, rgb.pixels, lenses[0])
    i, j = np.nonzero((np.abs(rgb.points[:, None] - ir.points) < 1e-9).all(2))
    R, t = cv2.Rodrigues(relative[:3])[0], relative[3:]
    rays = lifted(undistorted(ir.pixels[j], cameras[1])) @ R  # from the thermal camera, in the RGB camera's system
    centre, normal = -R.T @ t, cv2.Rodrigues(pose[:3])[0][:, 2]
    depth = ((pose[3:] - centre) @ normal) / (rays @ normal)
    return np.asarray(projected(centre + rays * depth[:, None], cameras[0]) - rgb.pixels[i])


def _calibration(
    fit: Adjusted, cameras: tuple[Camera, Camera], plane_m: float, errors: Mapping[str, Image]
) -> Calibration:
    assert fit.relative is not None
    (ir, rgb), (rgb_lens, ir_lens) = cameras, fit.lenses
    rgb_std, ir_std, pose_std = np.split(fit.std, np.cumsum([len(rgb_lens.values), len(ir_lens.values)]))
    R, t = cv2.Rodrigues(fit.relative[:3])[0], fit.relative[3:]
    depths = [float(fit.poses[n][5]) for n in errors]
    return Calibration(
        ir=ir_lens.camera(ir.size_wh, ir_std, ir.held_out_px),
        rgb=rgb_lens.camera(rgb.size_wh, rgb_std, rgb.held_out_px),
        R_rgb_from_ir=matrix3(R.T),
        t_rgb_from_ir_m=vector3(-R.T @ t),
        plane_m=plane_m,
        R_std_deg=vector3(np.degrees(pose_std[:3])),
        t_std_m=vector3(pose_std[3:]),
        quality=Quality(
            method="boards",
            pair_error_px=typical(list(errors.values())),
            views=len(errors),
            distance_m=(min(depths), max(depths)),
        ),
    )
