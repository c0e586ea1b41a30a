"""Bundle adjustment: fit lenses and board poses to the observed points of a board.

Damped least squares (Levenberg, 1944; Marquardt, 1963) on reprojection errors, with Cauchy weights against outliers
and covariances from the normal equations. Works for one camera, or for two cameras fixed to each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from rtfuse.align.calibration import Camera, matrix3, undistorted
from rtfuse.errors import CalibrationError
from rtfuse.types import Image

Kind = Literal["pinhole4", "pinhole5", "fisheye", "pinhole8"]
TERMS: dict[Kind, int] = {"pinhole4": 4, "pinhole5": 5, "fisheye": 4, "pinhole8": 8}
"""Number of distortion coefficients of each lens model; `pinhole4`, without k3, is Kalibr's radtan."""
_CAUCHY = 2.385
"""Error at which the weight is one half, in standard deviations; 95 % efficient for normal errors."""


@dataclass(frozen=True, slots=True)
class Lens:
    """Intrinsics as a vector: fx, fy, cx, cy in pixels, then OpenCV's distortion coefficients."""

    kind: Kind
    values: Image

    @property
    def K(self) -> Image:
        """The (3, 3) camera matrix."""
        fx, fy, cx, cy = self.values[:4]
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])

    def camera(self, size_wh: tuple[int, int], std: Image | None = None, held_out_px: float | None = None) -> Camera:
        """Return the lens as a camera of a calibration file.

        `std`: standard deviations of the values.
        `held_out_px`: error on held-out views.
        """
        deviations = None if std is None else [float(x) for x in std]
        return Camera(
            size_wh=size_wh,
            K=matrix3(self.K),
            dist=tuple(float(x) for x in self.values[4:]),
            model="fisheye" if self.kind == "fisheye" else "pinhole",
            K_std=None if deviations is None else (deviations[0], deviations[1], deviations[2], deviations[3]),
            dist_std=() if deviations is None else tuple(deviations[4:]),
            held_out_px=held_out_px,
        )


def lens_of(camera: Camera) -> Lens:
    """Return the lens of a calibrated camera. Raises CalibrationError if it has more than 8 distortion coefficients."""
    terms = max(4, len(camera.dist))
    pinhole: dict[int, Kind] = {4: "pinhole4", 5: "pinhole5", 8: "pinhole8"}
    if camera.model == "pinhole" and terms not in pinhole:
        raise CalibrationError(f"dist has {terms} coefficients; calib works with 4, 5 or 8")
    kind: Kind = "fisheye" if camera.model == "fisheye" else pinhole[terms]
    dist = np.zeros(TERMS[kind])
    dist[: len(camera.dist)] = camera.dist
    K = camera.matrix
    return Lens(kind, np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2], *dist]))


@dataclass(frozen=True, slots=True)
class Observation:
    """Camera's observation of the board.

    `camera`: 0 or 1.
    `view`: name of the view.
    `points`: points of the board, (N, 3) in metres.
    `pixels`: observed positions of these points, (N, 2).
    """

    camera: int
    view: str
    points: Image
    pixels: Image


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Result of an adjustment.

    `lenses`: the lens of each camera.
    `relative`: pose that takes camera 0 to camera 1, (6,); None for one camera.
    `poses`: pose of the board in camera 0 by view: rotation vector, then translation in metres, (6,).
    `errors`: observed minus predicted pixels of each observation, (N, 2).
    `std`: standard deviations of the adjusted values: each free lens, then `relative`.
    """

    lenses: tuple[Lens, ...]
    relative: Image | None
    poses: Mapping[str, Image]
    errors: list[Image]
    std: Image

    @property
    def rms_px(self) -> float:
        """The root mean square distance between observed and predicted points."""
        return rms(self.errors)

    @property
    def typical_px(self) -> float:
        """The median distance between observed and predicted points; a few wrong views do not change it."""
        return typical(self.errors)


def rms(errors: Sequence[Image]) -> float:
    """Return the root mean square length of (N, 2) errors."""
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2) * 2))


def typical(errors: Sequence[Image]) -> float:
    """Return the median length of (N, 2) errors, in pixels."""
    return float(np.median(np.linalg.norm(np.concatenate(errors), axis=1)))


def project(points: Image, pose: Image, lens: Lens) -> tuple[Image, Image, Image]:
    """Project points (N, 3); return pixels (N, 2) and their derivatives by pose (2N, 6) and lens (2N, 4 + terms)."""
    if lens.kind == "fisheye":
        pixels, J = cv2.fisheye.projectPoints(
            points[:, None], pose[:3].copy(), pose[3:].copy(), lens.K, lens.values[4:]
        )
        return pixels.reshape(-1, 2), J[:, 8:14], J[:, :8]
    pixels, J = cv2.projectPoints(points, pose[:3].copy(), pose[3:].copy(), lens.K, lens.values[4:].copy())
    return pixels.reshape(-1, 2), J[:, :6], J[:, 6 : 10 + TERMS[lens.kind]]


def compose(first: Image, second: Image) -> tuple[Image, Image, Image]:
    """Return the pose `first` followed by `second`, and its derivatives (6, 6) by each."""
    r, t, *d = cv2.composeRT(
        first[:3].copy(), first[3:].copy(), second[:3].copy(), second[3:].copy()
    )  # dr3dr1 dr3dt1 dr3dr2 dr3dt2 dt3dr1 dt3dt1 dt3dr2 dt3dt2
    return (
        np.concatenate([r.ravel(), t.ravel()]),
        np.block([[d[0], d[1]], [d[4], d[5]]]),
        np.block([[d[2], d[3]], [d[6], d[7]]]),
    )


def pose_of(points: Image, pixels: Image, lens: Lens) -> Image:
    """Return the pose (6,) of a flat board with `points` (N, 3) in metres that a camera observes at `pixels` (N, 2)."""
    ideal = undistorted(pixels, lens.camera((1, 1)))[:, None]
    best: tuple[float, Image] = (np.inf, np.array([0, 0, 0, 0, 0, 1.0]))
    # A distant board has two poses that look nearly the same (Collins and Bartoli, 2014); tries both.
    _, rs, ts, _ = cv2.solvePnPGeneric(points, ideal, np.eye(3), None, flags=cv2.SOLVEPNP_IPPE)
    for r, t in zip(rs, ts, strict=True):
        start = np.concatenate([r.ravel(), t.ravel()])
        if np.isfinite(start).all() and start[5] > 0:
            pose, cost = _pose_refined(points, pixels, lens, start)
            best = min(best, (cost, pose), key=lambda found: found[0])
    return best[1]


def without_bias(observation: Observation, lens: Lens, diameter_m: float) -> Observation:
    """Return an observation of discs with the bias of their centres removed.

    The projection of a tilted disc has its centre of mass away from the projected centre, and distortion adds to it
    (Heikkilä, 2000). The bias is the centre of mass of the projected outline less the projected centre.
    """
    if not diameter_m:
        return observation
    around = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    ring = diameter_m / 2 * np.stack([np.cos(around), np.sin(around), np.zeros(48)], 1)
    pixels = observation.pixels
    for _ in range(2):
        pose = pose_of(observation.points, pixels, lens)
        outlines = project((observation.points[:, None] + ring).reshape(-1, 3), pose, lens)[0].reshape(-1, 48, 2)
        following = np.roll(outlines, -1, axis=1)
        cross = outlines[..., 0] * following[..., 1] - following[..., 0] * outlines[..., 1]
        seen = ((outlines + following) * cross[..., None]).sum(1) / (3 * cross.sum(1))[:, None]
        pixels = observation.pixels - (seen - project(observation.points, pose, lens)[0])
    return replace(observation, pixels=pixels)


def _pose_refined(points: Image, pixels: Image, lens: Lens, pose: Image) -> tuple[Image, float]:
    """Return the pose refined by damped least squares, and the sum of squared errors, in px²."""
    cost, damping = np.inf, 1e-3
    for _ in range(20):
        at, J, _ = project(points, pose, lens)
        error = (pixels - at).ravel()
        cost = float(error @ error)
        A = J.T @ J
        step = _solved(A + damping * np.diag(np.diag(A)), J.T @ error)
        new = float(np.sum((pixels - project(points, pose + step, lens)[0]) ** 2))
        if not new < cost:
            damping *= 10
            if damping > 1e6:
                break
            continue
        pose, damping = pose + step, damping / 10
        if cost - new < 1e-12 * cost:
            break
    return pose, cost


def _solved(A: Image, b: Image) -> Image:
    """Return the solution of damped normal equations; the caller rejects a step that does not lower the cost."""
    try:
        return np.linalg.solve(A, b)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(A, b, rcond=None)[0]


def adjust(
    observations: Sequence[Observation],
    lenses: Sequence[Lens],
    poses: Mapping[str, Image],
    relative: Image | None = None,
    *,
    free: Sequence[Image | None],
    fix_relative: bool = False,
    robust: bool = True,
    steps: int = 50,
) -> Adjusted:
    """Fit poses, and the free parts of lenses and relative pose, to the observations.

    `lenses`, `poses`, `relative`: start of the fit, as in `Adjusted`.
    `free`: for each lens the mask of its free values, or None for a fixed lens.
    `fix_relative`: keep the relative pose.
    `robust`: weigh errors by Cauchy's function, against outliers.
    `steps`: largest number of iterations.
    """
    problem = _Problem(observations, lenses, poses, relative, free, fix_relative)
    state, damping, sigma = problem.start, 1e-4, None
    errors, A, b = problem.equations(state, sigma)
    for _ in range(steps):
        sigma = _scale(errors) if robust else None
        errors, A, b = problem.equations(state, sigma)
        cost = _cost(errors, sigma)
        for _ in range(12):
            step = _solved(A + damping * np.diag(np.diag(A) + 1e-12), b)
            candidate = problem.moved(state, step)
            found = problem.errors(candidate)
            if np.isfinite(found[0]).all() and _cost(found, sigma) < cost:
                break
            damping *= 8
        else:
            break
        gain, state, errors, damping = cost - _cost(found, sigma), candidate, found, max(damping / 8, 1e-12)
        if gain < 1e-9 * cost:
            break
    _, A, _ = problem.equations(state, _scale(errors) if robust else None)
    shared, count = problem.shared, sum(e.size for e in errors)
    variance = _scale(errors) ** 2 * count / max(1, count - len(A))
    std = np.sqrt(np.maximum(np.diag(np.linalg.pinv(A, hermitian=True))[:shared], 0) * variance)
    return replace(state, errors=errors, std=std)


def _scale(errors: Sequence[Image]) -> float:
    """Return the standard deviation of one coordinate, estimated from the median, in pixels."""
    return max(1e-6, 1.4826 * float(np.median(np.abs(np.concatenate(errors)))))


def _cost(errors: Sequence[Image], sigma: float | None) -> float:
    """Return the cost of the errors, in px²: Cauchy's with a deviation `sigma`, otherwise the sum of squares."""
    squares = np.concatenate([(e**2).sum(1) for e in errors])
    if sigma is None:
        return float(squares.sum())
    c = (_CAUCHY * sigma) ** 2
    return float(c * np.log1p(squares / c).sum())


class _Problem:
    """Normal equations of an adjustment, and the position of every value in the vector of unknowns."""

    def __init__(
        self,
        observations: Sequence[Observation],
        lenses: Sequence[Lens],
        poses: Mapping[str, Image],
        relative: Image | None,
        free: Sequence[Image | None],
        fix_relative: bool,
    ) -> None:
        self._observations = observations
        self.start = Adjusted(tuple(lenses), relative, dict(poses), [], np.zeros(0))
        self._masks = [np.zeros(0, int) if m is None else np.flatnonzero(m) for m in free]
        ends = np.cumsum([0, *(len(m) for m in self._masks)])
        self._lens_at = [np.arange(a, b) for a, b in itertools.pairwise(ends)]
        count = int(ends[-1])
        self._relative_at = np.arange(count, count + (6 if relative is not None and not fix_relative else 0))
        self.shared = count + len(self._relative_at)
        self._pose_at = {v: np.arange(6) + self.shared + 6 * k for k, v in enumerate(poses)}
        self._count = self.shared + 6 * len(poses)

    def errors(self, state: Adjusted) -> list[Image]:
        """Return observed minus predicted pixels of every observation."""
        return [
            s.pixels - project(s.points, self._pose(state, s)[0], state.lenses[s.camera])[0] for s in self._observations
        ]

    def _pose(self, state: Adjusted, observation: Observation) -> tuple[Image, Image | None, Image | None]:
        """Return the board's pose in the observation's camera, and its derivatives by pose and by `relative`."""
        pose = state.poses[observation.view]
        if observation.camera == 0:
            return pose, None, None
        assert state.relative is not None
        return compose(pose, state.relative)

    def equations(self, state: Adjusted, sigma: float | None) -> tuple[list[Image], Image, Image]:
        """Return errors and the weighted normal equations."""
        A, b, errors = np.zeros((self._count, self._count)), np.zeros(self._count), []
        for s in self._observations:
            pose, by_pose, by_relative = self._pose(state, s)
            at, J_pose, J_lens = project(s.points, pose, state.lenses[s.camera])
            error = s.pixels - at
            errors.append(error)
            parts = [(self._lens_at[s.camera], J_lens[:, self._masks[s.camera]])]
            parts.append((self._pose_at[s.view], J_pose if by_pose is None else J_pose @ by_pose))
            if by_relative is not None and len(self._relative_at):
                parts.append((self._relative_at, J_pose @ by_relative))
            places, J = np.concatenate([p for p, _ in parts]), np.concatenate([j for _, j in parts], 1)
            weight = np.ones(len(error))
            if sigma is not None:
                weight = 1 / (1 + (error**2).sum(1) / (_CAUCHY * sigma) ** 2)
            weighted = J * np.repeat(weight, 2)[:, None]
            A[np.ix_(places, places)] += weighted.T @ J
            b[places] += weighted.T @ error.ravel()
        return errors, A, b

    def moved(self, state: Adjusted, step: Image) -> Adjusted:
        """Return the state after a step."""
        lenses = []
        for lens, mask, at in zip(state.lenses, self._masks, self._lens_at, strict=True):
            values = lens.values.copy()
            values[mask] += step[at]
            lenses.append(Lens(lens.kind, values))
        relative = state.relative
        if relative is not None and len(self._relative_at):
            relative = relative + step[self._relative_at]
        poses = {v: pose + step[self._pose_at[v]] for v, pose in state.poses.items()}
        return replace(state, lenses=tuple(lenses), relative=relative, poses=poses)
