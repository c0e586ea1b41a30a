"""One camera's lens from views of a board, of the model that predicts views best which it was not fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from calib.adjust import TERMS, Adjusted, Kind, Lens, Sight, adjust, pose_of, project, rms, without_bias
from calib.session import Sighting, diameter_m
from calib.targets import Board
from rtfuse.align.calibration import Camera
from rtfuse.errors import CalibrationError
from rtfuse.types import Image

KINDS: tuple[Kind, ...] = ("pinhole5", "fisheye", "pinhole8")
"""The models that are tried unless one is asked for, simplest first."""
MIN_VIEWS = 6
_MIN_SPACING_PX = 6.0
_MIN_HULL = 0.2
_MIN_TILT_DEG = 8.0
_MAX_FOCAL_STD = 0.02
_MAX_REJECTED = 0.3
_MAX_ERROR = 1.25e-3
"""Of the image's width: 0.8 px at 640. Where views err by more in the median, they are not of one lens."""
_SUSPICIOUS = 4e-4
"""Of the image's width, 0.26 px at 640: a larger error may come of two lenses that one explains half-way."""
_WORSE = 1.03
"""A model with more freedom has to be better than a simpler one by more than this."""
_NOT_ONE = (
    "the views do not fit one camera: the best lens leaves {:.1f} px of error, and {} of {} views disagree with the "
    "others. Are pictures of different cameras or zooms mixed, or is the board bent, or its kind or size another one?"
)


@dataclass(frozen=True, slots=True)
class Fit:
    """A camera's calibration and what speaks for it.

    `held_out` is the root mean square reprojection error, px, of each model on views it was not fitted to; `errors`,
    (N, 2) px, found minus predicted, and `poses` are by view; `rejected` says which views do not fit, and why.
    """

    camera: Camera
    kind: Kind
    held_out: dict[Kind, float]
    rms_px: float
    errors: dict[str, Image]
    poses: dict[str, Image]
    rejected: dict[str, str]


def fit_camera(
    sightings: Mapping[str, Sighting], board: Board, size_wh: tuple[int, int], kinds: Sequence[Kind] = KINDS
) -> Fit:
    """Calibrate a camera from its sightings of a board.

    `kinds` are tried, simplest first.

    Raises CalibrationError that says what is wrong with the views: too few, the board too small, always in one place,
    never tilted, not of one camera.
    """
    _check_views(sightings, size_wh)
    sights = [Sight(0, name, board.points[list(s.ids)], s.xy) for name, s in sightings.items()]
    starts = {kind: _first_fit(sights, size_wh, kind) for kind in kinds}
    sights, rejected = _consistent(sights, min(starts.values(), key=lambda s: s.typical_px), _MAX_ERROR * size_wh[0])
    diameter = diameter_m(board, sightings.values())
    held_out, fits = {}, {}
    for kind in kinds:
        lens = _refit(sights, starts[kind]).lenses[0]
        fits[kind] = _refit([without_bias(s, lens, diameter) for s in sights], starts[kind])
        held_out[kind] = _held_out([without_bias(s, fits[kind].lenses[0], diameter) for s in sights], fits[kind])
    best = min(held_out.values())
    if best > _MAX_ERROR * size_wh[0] or (best > _SUSPICIOUS * size_wh[0] and _two_cameras(sights, fits[kinds[0]])):
        raise CalibrationError(_NOT_ONE.format(best, len(rejected), len(sightings)))
    kind = next(k for k in kinds if held_out[k] <= _WORSE * best)
    fit, lens = fits[kind], fits[kind].lenses[0]
    _check_fit(fit)
    return Fit(
        camera=lens.camera(size_wh, fit.std, held_out[kind]),
        kind=kind,
        held_out=held_out,
        rms_px=fit.rms_px,
        errors={s.view: e for s, e in zip(sights, fit.errors, strict=True)},
        poses=dict(fit.poses),
        rejected=rejected,
    )


def _check_views(sightings: Mapping[str, Sighting], size_wh: tuple[int, int]) -> None:
    if len(sightings) < MIN_VIEWS:
        raise CalibrationError(
            f"the board was found in {len(sightings)} views, at least {MIN_VIEWS} are needed (20 are good): "
            "take more, over the whole image, with the board tilted in different ways"
        )
    spacing = np.median([_spacing(s.xy) for s in sightings.values()])
    if spacing < _MIN_SPACING_PX:
        raise CalibrationError(
            f"the board is too small in the image: its points lie {spacing:.1f} px apart, at least "
            f"{_MIN_SPACING_PX:.0f} are needed: hold it closer, or take a larger one"
        )
    xy = np.concatenate([s.xy for s in sightings.values()]).astype(np.float32)
    share = cv2.contourArea(cv2.convexHull(xy)) / (size_wh[0] * size_wh[1])
    if share < _MIN_HULL:
        raise CalibrationError(
            f"all views together cover {100 * share:.0f} % of the image, at least {100 * _MIN_HULL:.0f} % are needed: "
            "show the board in every part of it"
        )


def _spacing(xy: Image) -> float:
    """Return how far a point's nearest neighbour is, px, in the median."""
    far = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    np.fill_diagonal(far, np.inf)
    return float(np.median(far.min(1)))


def _first_fit(sights: Sequence[Sight], size_wh: tuple[int, int], kind: Kind) -> Adjusted:
    """Fit from several focal lengths, few terms first, and take what fits best."""
    w, h = size_wh
    best: Adjusted | None = None
    for factor in (0.5, 0.8, 1.3, 2.2):
        f = factor * max(w, h)
        lens = Lens(kind, np.array([f, f, (w - 1) / 2, (h - 1) / 2, *np.zeros(TERMS[kind])]))
        poses = {s.view: pose_of(s.points, s.pixels, lens) for s in sights}
        mask = np.zeros(len(lens.values), bool)
        mask[[0, 1, 4]] = True
        fit = adjust(sights, [lens], poses, free=[mask], steps=15)
        if (
            np.isfinite(fit.rms_px)
            and fit.lenses[0].values[0] > 0
            and (best is None or fit.typical_px < best.typical_px)
        ):
            best = fit
    if best is None:
        raise CalibrationError("no lens explains these views: are they all of one camera and of this board?")
    # By a lens that is about right, a view that was seen from the wrong side finds its place.
    return _refit(sights, replace(best, poses={s.view: pose_of(s.points, s.pixels, best.lenses[0]) for s in sights}))


def _refit(sights: Sequence[Sight], start: Adjusted) -> Adjusted:
    poses = {s.view: start.poses[s.view] for s in sights if s.view in start.poses}
    return adjust(sights, start.lenses, poses, free=[np.ones(len(start.lenses[0].values), bool)])


def _consistent(sights: Sequence[Sight], fit: Adjusted, most_px: float) -> tuple[list[Sight], dict[str, str]]:
    """Return the sights that agree with the fit, if need be without one wrong point, and what is wrong with others."""
    each = np.array([rms([e]) for e in fit.errors])
    middle = float(np.median(each))
    limit = max(0.3, 4 * middle)
    kept, rejected = [], {}
    for s, e in zip(sights, each, strict=True):
        sight = s if e <= limit else _without_worst(s, fit.lenses[0], limit)
        if sight is None:
            rejected[s.view] = f"{e:.2f} px of error where others have {middle:.2f}"
        else:
            kept.append(sight)
    if len(rejected) > _MAX_REJECTED * len(sights) or middle > most_px:
        raise CalibrationError(_NOT_ONE.format(middle, len(rejected), len(sights)))
    return kept, rejected


def _without_worst(sight: Sight, lens: Lens, limit: float) -> Sight | None:
    """Return a sight without the one point that was found wrongly, if the others agree then."""
    if len(sight.points) < 9:
        return None
    for k in range(len(sight.points)):
        rest = replace(sight, points=np.delete(sight.points, k, 0), pixels=np.delete(sight.pixels, k, 0))
        pose = pose_of(rest.points, rest.pixels, lens)
        if rms([rest.pixels - project(rest.points, pose, lens)[0]]) <= limit:
            return rest
    return None


def _two_cameras(sights: Sequence[Sight], fit: Adjusted, trials: int = 12) -> bool:
    """Tell whether some views, but not most, agree on a lens far better than all do together."""
    together, rng = fit.typical_px, np.random.default_rng(0)
    for _ in range(trials):
        some = [sights[k] for k in rng.choice(len(sights), min(6, len(sights)), replace=False)]
        lens = _refit(some, fit).lenses[0]
        each = np.array(
            [rms([s.pixels - project(s.points, pose_of(s.points, s.pixels, lens), lens)[0]]) for s in sights]
        )
        share = float((each < 0.6 * together).mean())
        if 0.25 < share < 0.8:
            return True
    return False


def _held_out(sights: Sequence[Sight], start: Adjusted, folds: int = 5) -> float:
    """Return the root mean square error, px, on views that a fit to the others did not see.

    The board's pose in such a view has to be found from the same points, which takes up 6 of their 2 N freedoms; the
    error is scaled accordingly.
    """
    folds, errors = min(folds, len(sights)), []
    for fold in range(folds):
        fit = _refit([s for k, s in enumerate(sights) if k % folds != fold], start)
        for s in sights[fold::folds]:
            found = s.pixels - project(s.points, pose_of(s.points, s.pixels, fit.lenses[0]), fit.lenses[0])[0]
            errors.append(found * np.sqrt(found.size / (found.size - 6)))
    return rms(errors)


def _check_fit(fit: Adjusted) -> None:
    normals = np.array([cv2.Rodrigues(p[:3])[0][:, 2] for p in fit.poses.values()])
    tilt = float(np.degrees(np.arccos(np.clip((normals @ normals.T).min(), -1, 1))))
    if tilt < _MIN_TILT_DEG:
        raise CalibrationError(
            f"all views are alike: the board's tilt differs by {tilt:.0f} degrees at most. Turn it to the left and "
            "right and tip it up and down by 30 degrees, or focal length and distance cannot be told apart"
        )
    values, std = fit.lenses[0].values, fit.std
    if (std[:2] > _MAX_FOCAL_STD * values[:2]).any():
        raise CalibrationError(
            f"the focal length is only known to {100 * float((std[:2] / values[:2]).max()):.1f} % (at most "
            f"{100 * _MAX_FOCAL_STD:.0f} %): the views are too alike; tilt the board more, and bring it closer"
        )
