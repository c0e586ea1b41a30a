"""Calibrate a camera's lens from views of a board, with the lens model that predicts held-out views best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from calib.adjust import TERMS, Adjusted, Kind, Lens, Observation, adjust, pose_of, project, rms, without_bias
from calib.session import BoardPoints, diameter_m
from calib.targets import Board
from rtfuse.align.calibration import Camera
from rtfuse.errors import CalibrationError
from rtfuse.types import Image

KINDS: tuple[Kind, ...] = ("pinhole5", "fisheye", "pinhole8")
"""The lens models to try by default, simplest first."""
MIN_VIEWS = 6
_MIN_SPACING_PX = 6.0
_MIN_HULL = 0.2
_MIN_TILT_DEG = 8.0
_MAX_FOCAL_STD = 0.02
_MAX_REJECTED = 0.3
_MAX_ERROR = 1.25e-3
"""Largest median error, as a part of the image's width: 0.8 px at 640. A larger one means views of several lenses."""
_SUSPICIOUS = 4e-4
"""Suspicious error, as a part of the image's width: 0.26 px at 640. The views may be of two similar lenses."""
_WORSE = 1.03
"""Factor of error within which a simpler model is preferred to the best one."""
_NOT_ONE = (
    "the views do not fit one camera: the best lens leaves {:.1f} px of error, and {} of {} views disagree with the "
    "others; check that all pictures are of one camera and zoom, that the board is flat, and its kind and size"
)


@dataclass(frozen=True, slots=True)
class Fit:
    """Calibration of a camera, and its evidence.

    `camera`: the calibrated camera.
    `kind`: the chosen lens model.
    `held_out`: root mean square reprojection error of each model on held-out views, in pixels.
    `rms_px`: root mean square reprojection error on the fitted views, in pixels.
    `errors`: observed minus predicted pixels by view, (N, 2).
    `poses`: pose of the board by view, (6,).
    `rejected`: views that do not fit, with the reason.
    """

    camera: Camera
    kind: Kind
    held_out: dict[Kind, float]
    rms_px: float
    errors: dict[str, Image]
    poses: dict[str, Image]
    rejected: dict[str, str]


def fit_camera(
    found: Mapping[str, BoardPoints], board: Board, size_wh: tuple[int, int], kinds: Sequence[Kind] = KINDS
) -> Fit:
    """Calibrate a camera from the points of a board in each view.

    `kinds`: lens models to try, simplest first.

    Raises CalibrationError if the views are too few or not of one camera, or if the board is too small, always in one
    place, or never tilted.
    """
    _check_views(found, size_wh)
    observations = [Observation(0, name, board.points[list(s.ids)], s.xy) for name, s in found.items()]
    starts = {kind: _first_fit(observations, size_wh, kind) for kind in kinds}
    observations, rejected = _consistent(
        observations, min(starts.values(), key=lambda s: s.typical_px), _MAX_ERROR * size_wh[0]
    )
    diameter = diameter_m(board, found.values())
    held_out, fits = {}, {}
    for kind in kinds:
        lens = _refit(observations, starts[kind]).lenses[0]
        fits[kind] = _refit([without_bias(s, lens, diameter) for s in observations], starts[kind])
        held_out[kind] = _held_out([without_bias(s, fits[kind].lenses[0], diameter) for s in observations], fits[kind])
    best = min(held_out.values())
    if best > _MAX_ERROR * size_wh[0] or (
        best > _SUSPICIOUS * size_wh[0] and _two_cameras(observations, fits[kinds[0]])
    ):
        raise CalibrationError(_NOT_ONE.format(best, len(rejected), len(found)))
    kind = next(k for k in kinds if held_out[k] <= _WORSE * best)
    fit, lens = fits[kind], fits[kind].lenses[0]
    _check_fit(fit)
    return Fit(
        camera=lens.camera(size_wh, fit.std, held_out[kind]),
        kind=kind,
        held_out=held_out,
        rms_px=fit.rms_px,
        errors={s.view: e for s, e in zip(observations, fit.errors, strict=True)},
        poses=dict(fit.poses),
        rejected=rejected,
    )


def _check_views(found: Mapping[str, BoardPoints], size_wh: tuple[int, int]) -> None:
    if len(found) < MIN_VIEWS:
        raise CalibrationError(
            f"the board was found in {len(found)} views, at least {MIN_VIEWS} are needed (20 are good); "
            "take more, over the whole image, with the board tilted in different ways"
        )
    spacing = np.median([_spacing(s.xy) for s in found.values()])
    if spacing < _MIN_SPACING_PX:
        raise CalibrationError(
            f"the board is too small in the image: its points are {spacing:.1f} px apart, at least "
            f"{_MIN_SPACING_PX:.0f} are needed; hold it closer, or use a larger one"
        )
    xy = np.concatenate([s.xy for s in found.values()]).astype(np.float32)
    share = cv2.contourArea(cv2.convexHull(xy)) / (size_wh[0] * size_wh[1])
    if share < _MIN_HULL:
        raise CalibrationError(
            f"all views together cover {100 * share:.0f} % of the image, at least {100 * _MIN_HULL:.0f} % are needed; "
            "show the board in every part of the image"
        )


def _spacing(xy: Image) -> float:
    """Return the median distance between nearest neighbours, in pixels."""
    far = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    np.fill_diagonal(far, np.inf)
    return float(np.median(far.min(1)))


def _first_fit(observations: Sequence[Observation], size_wh: tuple[int, int], kind: Kind) -> Adjusted:
    """Return the best of several fits that start from different focal lengths, with few distortion terms at first."""
    w, h = size_wh
    best: Adjusted | None = None
    for factor in (0.5, 0.8, 1.3, 2.2):
        f = factor * max(w, h)
        lens = Lens(kind, np.array([f, f, (w - 1) / 2, (h - 1) / 2, *np.zeros(TERMS[kind])]))
        poses = {s.view: pose_of(s.points, s.pixels, lens) for s in observations}
        mask = np.zeros(len(lens.values), bool)
        mask[[0, 1, 4]] = True
        fit = adjust(observations, [lens], poses, free=[mask], steps=15)
        if (
            np.isfinite(fit.rms_px)
            and fit.lenses[0].values[0] > 0
            and (best is None or fit.typical_px < best.typical_px)
        ):
            best = fit
    if best is None:
        raise CalibrationError("no lens fits these views; check that they are all of one camera and of this board")
    # With an approximate lens, a view whose pose had the wrong tilt gets the right one.
    return _refit(
        observations, replace(best, poses={s.view: pose_of(s.points, s.pixels, best.lenses[0]) for s in observations})
    )


def _refit(observations: Sequence[Observation], start: Adjusted) -> Adjusted:
    poses = {s.view: start.poses[s.view] for s in observations if s.view in start.poses}
    return adjust(observations, start.lenses, poses, free=[np.ones(len(start.lenses[0].values), bool)])


def _consistent(
    observations: Sequence[Observation], fit: Adjusted, most_px: float
) -> tuple[list[Observation], dict[str, str]]:
    """Return the observations that agree with the fit, and the reasons against the others, by view.

    An observation may agree after the removal of one wrong point. Raises CalibrationError if too many disagree, or the
    median error is above `most_px`.
    """
    each = np.array([rms([e]) for e in fit.errors])
    middle = float(np.median(each))
    limit = max(0.3, 4 * middle)
    kept, rejected = [], {}
    for s, e in zip(observations, each, strict=True):
        observation = s if e <= limit else _without_worst(s, fit.lenses[0], limit)
        if observation is None:
            rejected[s.view] = f"{e:.2f} px of error where others have {middle:.2f}"
        else:
            kept.append(observation)
    if len(rejected) > _MAX_REJECTED * len(observations) or middle > most_px:
        raise CalibrationError(_NOT_ONE.format(middle, len(rejected), len(observations)))
    return kept, rejected


def _without_worst(observation: Observation, lens: Lens, limit: float) -> Observation | None:
    """Return the observation without the one point whose removal makes the others agree; None if no point does."""
    if len(observation.points) < 9:
        return None
    for k in range(len(observation.points)):
        rest = replace(
            observation, points=np.delete(observation.points, k, 0), pixels=np.delete(observation.pixels, k, 0)
        )
        pose = pose_of(rest.points, rest.pixels, lens)
        if rms([rest.pixels - project(rest.points, pose, lens)[0]]) <= limit:
            return rest
    return None


def _two_cameras(observations: Sequence[Observation], fit: Adjusted, trials: int = 12) -> bool:
    """Return True if a part of the views, but not most, agrees on a lens far better than all views together."""
    together, rng = fit.typical_px, np.random.default_rng(0)
    for _ in range(trials):
        some = [observations[k] for k in rng.choice(len(observations), min(6, len(observations)), replace=False)]
        lens = _refit(some, fit).lenses[0]
        each = np.array(
            [rms([s.pixels - project(s.points, pose_of(s.points, s.pixels, lens), lens)[0]]) for s in observations]
        )
        share = float((each < 0.6 * together).mean())
        if 0.25 < share < 0.8:
            return True
    return False


def _held_out(observations: Sequence[Observation], start: Adjusted, folds: int = 5) -> float:
    """Return the root mean square error on held-out views, in pixels.

    The board's pose in a held-out view is fitted to the same N points, which uses 6 of their 2 N degrees of freedom;
    the error is scaled to compensate.
    """
    folds, errors = min(folds, len(observations)), []
    for fold in range(folds):
        fit = _refit([s for k, s in enumerate(observations) if k % folds != fold], start)
        for s in observations[fold::folds]:
            found = s.pixels - project(s.points, pose_of(s.points, s.pixels, fit.lenses[0]), fit.lenses[0])[0]
            errors.append(found * np.sqrt(found.size / (found.size - 6)))
    return rms(errors)


def _check_fit(fit: Adjusted) -> None:
    normals = np.array([cv2.Rodrigues(p[:3])[0][:, 2] for p in fit.poses.values()])
    tilt = float(np.degrees(np.arccos(np.clip((normals @ normals.T).min(), -1, 1))))
    if tilt < _MIN_TILT_DEG:
        raise CalibrationError(
            f"all views are alike: the board's tilt differs by {tilt:.0f} degrees at most, and focal length and "
            "distance cannot be separated; turn the board left and right and tip it up and down by 30 degrees"
        )
    values, std = fit.lenses[0].values, fit.std
    if (std[:2] > _MAX_FOCAL_STD * values[:2]).any():
        raise CalibrationError(
            f"the focal length is only known to {100 * float((std[:2] / values[:2]).max()):.1f} % (at most "
            f"{100 * _MAX_FOCAL_STD:.0f} %), because the views are too alike; tilt the board more, and bring it closer"
        )
