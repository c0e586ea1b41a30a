"""The pose between the two cameras, and the error between their pictures on views that it was not fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from calib.adjust import Adjusted, Lens, Sight, adjust, compose, lens_of, pose_of, rms, typical, without_bias
from calib.session import Sighting, diameter_m
from calib.targets import Board
from rtfuse.align.calibration import Calibration, Camera, Quality, lifted, matrix3, projected, undistorted, vector3
from rtfuse.errors import CalibrationError
from rtfuse.types import Image

MIN_PAIRS = 5
_MAX_REJECTED = 0.4
_MAX_ERROR = 1.25e-3
"""Of the RGB image's width: 0.8 px at 640. Where views err by more in the median, they are not of one pose."""
_MAX_TURN_DEG = 60.0


@dataclass(frozen=True, slots=True)
class StereoFit:
    """A rig's calibration and what speaks for it.

    `pair_errors` are by view, (N, 2) RGB pixels: where thermal lands by a pose that was not fitted to this view, minus
    where RGB found the same point. `rejected` says which views do not fit, and why. `turned` are the views in which one
    camera counted a symmetric board's points from its other end.
    """

    calibration: Calibration
    pair_errors: dict[str, Image]
    rejected: dict[str, str]
    turned: tuple[str, ...]


def fit_stereo(
    views: Mapping[str, tuple[Sighting | None, Sighting | None]], board: Board, ir: Camera, rgb: Camera, plane_m: float
) -> StereoFit:
    """Find how the thermal camera stands to the RGB camera from views (thermal, RGB) of a board.

    Both lenses are adjusted along with the pose, so that its deviations hold what is uncertain about them; views that
    one camera alone has help. `plane_m` is the distance that the registration is to be exact for. Raises
    CalibrationError that says what is wrong with the views: too few, not simultaneous, of another rig.
    """
    names = [n for n, (a, b) in views.items() if a and b and len(set(a.ids) & set(b.ids)) >= 6]
    if len(names) < MIN_PAIRS:
        raise CalibrationError(
            f"both cameras see the board in {len(names)} views, at least {MIN_PAIRS} are needed (15 are good): hold it "
            "still where both see the whole of it, at several distances"
        )
    lenses = (lens_of(rgb), lens_of(ir))
    sights = {
        (n, camera): Sight(camera, n, board.points[list(s.ids)], s.xy)
        for n, (a, b) in views.items()
        for camera, s in enumerate((b, a))
        if s
    }
    for camera, lens in enumerate(lenses):
        seen = [s for pair in views.values() if (s := pair[1 - camera])]
        diameter = diameter_m(board, seen) if seen else 0.0
        sights |= {key: without_bias(s, lens, diameter) for key, s in sights.items() if key[1] == camera}
    poses = {key: pose_of(s.points, s.pixels, lenses[s.camera]) for key, s in sights.items()}
    ends = {n: [_relative(poses[n, 0], p) for p in _both_ends(sights[n, 1], board, lenses[1])] for n in names}
    start, turned = _most_common(ends)
    for n in turned:
        sights[n, 1] = replace(sights[n, 1], points=_other_end(sights[n, 1].points, board))
    seen_by_ir = {n: compose(pose, _inverse(start))[0] for (n, camera), pose in poses.items() if camera}
    first = seen_by_ir | {n: pose for (n, camera), pose in poses.items() if not camera}
    fit, rejected = _consistent(list(sights.values()), lenses, first, start, names, _MAX_ERROR * rgb.size_wh[0])
    assert fit.relative is not None
    angle = float(np.degrees(np.linalg.norm(fit.relative[:3])))
    if angle > _MAX_TURN_DEG:
        raise CalibrationError(
            f"the two cameras would look {angle:.0f} degrees apart: do the pictures belong to each other, and is the "
            "board the same way up in both?"
        )
    kept = [s for s in sights.values() if s.view not in rejected]
    errors = _held_out(kept, [n for n in names if n not in rejected], fit)
    return StereoFit(_calibration(fit, (ir, rgb), plane_m, errors), errors, rejected, tuple(turned))


def _both_ends(sight: Sight, board: Board, lens: Lens) -> list[Image]:
    """Return the thermal camera's pose, and the one that it has if it counted the points from the board's other end.

    Grids look the same when turned by half, and the two pictures need not agree on which end is up.
    """
    orders = [sight.points]
    if board.kind != "charuco":
        other = _other_end(sight.points, board)
        orders += [other] if all(np.abs(sight.points - p).max(1).min() < 1e-6 for p in other) else []
    return [pose_of(points, sight.pixels, lens) for points in orders]


def _other_end(points: Image, board: Board) -> Image:
    return np.asarray(board.points.min(0) + board.points.max(0) - points)


def _relative(rgb_pose: Image, ir_pose: Image) -> Image:
    """Return the pose that takes the RGB camera's system to the thermal camera's."""
    R1, R2 = (cv2.Rodrigues(p[:3])[0] for p in (rgb_pose, ir_pose))
    R = R2 @ R1.T
    return np.concatenate([cv2.Rodrigues(R)[0].ravel(), ir_pose[3:] - R @ rgb_pose[3:]])


def _inverse(pose: Image) -> Image:
    R = cv2.Rodrigues(pose[:3])[0]
    return np.concatenate([-pose[:3], -R.T @ pose[3:]])


def _most_common(ends: Mapping[str, Sequence[Image]]) -> tuple[Image, list[str]]:
    """Return the pose that most views agree with, and which views agree from the board's other end alone."""
    places = {n: [_place(p) for p in poses] for n, poses in ends.items()}

    def disagreement(at: Image) -> float:
        return float(np.median([min(np.linalg.norm(q - at) for q in qs) for qs in places.values()]))

    best = min((at for qs in places.values() for at in qs), key=disagreement)
    choice = {n: int(np.argmin([np.linalg.norm(q - best) for q in qs])) for n, qs in places.items()}
    return np.median([ends[n][k] for n, k in choice.items()], axis=0), [n for n, k in choice.items() if k]


def _place(pose: Image) -> Image:
    """Return where a pose takes three points a metre away: what poses are compared by."""
    probe = np.array([[0, 0, 1.0], [0.5, 0, 1], [0, 0.5, 1]])
    return np.asarray((probe @ cv2.Rodrigues(pose[:3])[0].T + pose[3:]).ravel())


def _fit(sights: Sequence[Sight], lenses: Sequence[Lens], poses: Mapping[str, Image], start: Image) -> Adjusted:
    mine = {s.view: poses[s.view] for s in sights}
    return adjust(sights, lenses, mine, start, free=[np.ones(len(lens.values), bool) for lens in lenses])


def _consistent(
    sights: Sequence[Sight],
    lenses: Sequence[Lens],
    poses: Mapping[str, Image],
    start: Image,
    names: Sequence[str],
    most_px: float,
) -> tuple[Adjusted, dict[str, str]]:
    """Return the fit to the views that agree on a pose, and what is wrong with the others."""
    both = [s for s in sights if s.view in names]
    known = adjust(both, lenses, {n: poses[n] for n in names}, start, free=[None, None])  # wrong views cannot bend them
    each = {n: rms([e for s, e in zip(both, known.errors, strict=True) if s.view == n]) for n in names}
    median = float(np.median(list(each.values())))
    bad = [n for n, e in each.items() if e > max(0.4, 3 * median)]
    if len(bad) > _MAX_REJECTED * len(names) or median > most_px:
        raise CalibrationError(
            f"the views do not agree on one pose of the cameras: {median:.1f} px of error in the median, {len(bad)} of "
            f"{len(names)} views disagree. Did the board move while one camera looked (hold it still), are pictures of "
            "different rigs or moments mixed, or are the streams swapped?"
        )
    assert known.relative is not None
    rejected = {n: f"{each[n]:.2f} px of error where others have {median:.2f}" for n in bad}
    # What one camera saw alone starts from where that camera puts it now.
    fit = _fit([s for s in sights if s.view not in bad], lenses, {**poses, **known.poses}, known.relative)
    return fit, rejected


def _held_out(sights: Sequence[Sight], names: Sequence[str], fit: Adjusted, folds: int = 5) -> dict[str, Image]:
    """Return, by view, the error between the two pictures by lenses and a pose that were fitted to other views."""
    assert fit.relative is not None
    errors: dict[str, Image] = {}
    folds = min(folds, len(names))
    of = {(s.view, s.camera): s for s in sights}
    for fold in range(folds):
        test = names[fold::folds]
        without = _fit([s for s in sights if s.view not in test], fit.lenses, fit.poses, fit.relative)
        assert without.relative is not None
        errors |= {n: pair_error(of[n, 0], of[n, 1], without.lenses, without.relative) for n in test}
    return {n: errors[n] for n in names}


def pair_error(rgb: Sight, ir: Sight, lenses: Sequence[Lens], relative: Image) -> Image:
    """Return (N, 2) RGB pixels: where thermal's points land, on the board's plane, minus where RGB found them.

    `lenses` are RGB's and thermal's, `relative` takes the RGB camera's system to the thermal camera's.
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
