"""Bundle adjustment: the lenses and board poses that best explain where the board's points were found.

Damped least squares (Levenberg, 1944; Marquardt, 1963) on reprojection errors, with Cauchy's weights against outliers
and covariances from the normal equations. One camera, or two that are fixed to each other.
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
"""How many distortion coefficients a lens of each kind has; `pinhole4`, without k3, is what Kalibr calls radtan."""
_CAUCHY = 2.385
"""Where the weight has fallen to a half, in standard deviations: 95 % efficient for normal errors."""


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
        """Return it as part of a calibration file."""
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
    """Return a calibrated camera's lens. Raises CalibrationError if it has more distortion terms than 8."""
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
class Sight:
    """One camera's sight of the board: which `camera` (0 or 1), which `view`, points (N, 3) m at `pixels` (N, 2)."""

    camera: int
    view: str
    points: Image
    pixels: Image


@dataclass(frozen=True, slots=True)
class Adjusted:
    """What explains the sights best.

    `poses` are (rotation vector, translation in m) of each view's board in camera 0, `relative` takes camera 0 to
    camera 1. `errors` are (N, 2) px, found minus predicted, per sight. `std` are standard deviations in the order of
    the adjusted values: each free lens, then `relative`.
    """

    lenses: tuple[Lens, ...]
    relative: Image | None
    poses: Mapping[str, Image]
    errors: list[Image]
    std: Image

    @property
    def rms_px(self) -> float:
        """Root mean square distance between found and predicted points."""
        return rms(self.errors)

    @property
    def typical_px(self) -> float:
        """Median distance between found and predicted points: what a few wrong views do not change."""
        return typical(self.errors)


def rms(errors: Sequence[Image]) -> float:
    """Return the root mean square length of (N, 2) errors."""
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2) * 2))


def typical(errors: Sequence[Image]) -> float:
    """Return the median length of (N, 2) errors, px."""
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
    """Return the pose `second` after `first`, and its derivatives (6, 6) by each."""
    r, t, *d = cv2.composeRT(
        first[:3].copy(), first[3:].copy(), second[:3].copy(), second[3:].copy()
    )  # dr3dr1 dr3dt1 dr3dr2 dr3dt2 dt3dr1 dt3dt1 dt3dr2 dt3dt2
    return (
        np.concatenate([r.ravel(), t.ravel()]),
        np.block([[d[0], d[1]], [d[4], d[5]]]),
        np.block([[d[2], d[3]], [d[6], d[7]]]),
    )


def pose_of(points: Image, pixels: Image, lens: Lens) -> Image:
    """Return the pose (6,) of a plane board of which one camera sees `points` (N, 3) at `pixels` (N, 2)."""
    ideal = undistorted(pixels, lens.camera((1, 1)))[:, None]
    best: tuple[float, Image] = (np.inf, np.array([0, 0, 0, 0, 0, 1.0]))
    # A far board looks nearly the same from two sides (Collins and Bartoli, 2014); both are tried.
    _, rs, ts, _ = cv2.solvePnPGeneric(points, ideal, np.eye(3), None, flags=cv2.SOLVEPNP_IPPE)
    for r, t in zip(rs, ts, strict=True):
        start = np.concatenate([r.ravel(), t.ravel()])
        if np.isfinite(start).all() and start[5] > 0:
            pose, cost = _pose_refined(points, pixels, lens, start)
            best = min(best, (cost, pose), key=lambda found: found[0])
    return best[1]


def without_bias(sight: Sight, lens: Lens, diameter_m: float) -> Sight:
    """Return a sight of discs with their middles where the lens shows the discs' middles.

    A tilted disc's middle is not in the middle of its picture, still less through a lens that bends (Heikkilä, 2000).
    The difference is that between the centre of mass of the disc's outline, projected, and its middle, projected.
    """
    if not diameter_m:
        return sight
    around = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    ring = diameter_m / 2 * np.stack([np.cos(around), np.sin(around), np.zeros(48)], 1)
    pixels = sight.pixels
    for _ in range(2):
        pose = pose_of(sight.points, pixels, lens)
        outlines = project((sight.points[:, None] + ring).reshape(-1, 3), pose, lens)[0].reshape(-1, 48, 2)
        following = np.roll(outlines, -1, axis=1)
        cross = outlines[..., 0] * following[..., 1] - following[..., 0] * outlines[..., 1]
        seen = ((outlines + following) * cross[..., None]).sum(1) / (3 * cross.sum(1))[:, None]
        pixels = sight.pixels - (seen - project(sight.points, pose, lens)[0])
    return replace(sight, pixels=pixels)


def _pose_refined(points: Image, pixels: Image, lens: Lens, pose: Image) -> tuple[Image, float]:
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
    """Return the step by damped normal equations; one that is poor for want of digits does not lower the cost."""
    try:
        return np.linalg.solve(A, b)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(A, b, rcond=None)[0]


def adjust(
    sights: Sequence[Sight],
    lenses: Sequence[Lens],
    poses: Mapping[str, Image],
    relative: Image | None = None,
    *,
    free: Sequence[Image | None],
    fix_relative: bool = False,
    robust: bool = True,
    steps: int = 50,
) -> Adjusted:
    """Adjust poses, and what of lenses and of the cameras' relation is free, to the sights.

    `free` holds for each lens a mask of its values, or None for a lens that is known.
    """
    problem = _Problem(sights, lenses, poses, relative, free, fix_relative)
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
    """Return the standard deviation of one coordinate, from the median, so that outliers do not count."""
    return max(1e-6, 1.4826 * float(np.median(np.abs(np.concatenate(errors)))))


def _cost(errors: Sequence[Image], sigma: float | None) -> float:
    squares = np.concatenate([(e**2).sum(1) for e in errors])
    if sigma is None:
        return float(squares.sum())
    c = (_CAUCHY * sigma) ** 2
    return float(c * np.log1p(squares / c).sum())


class _Problem:
    """Where every adjusted value stands in the vector of unknowns."""

    def __init__(
        self,
        sights: Sequence[Sight],
        lenses: Sequence[Lens],
        poses: Mapping[str, Image],
        relative: Image | None,
        free: Sequence[Image | None],
        fix_relative: bool,
    ) -> None:
        self._sights = sights
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
        """Return found minus predicted pixels of every sight."""
        return [s.pixels - project(s.points, self._pose(state, s)[0], state.lenses[s.camera])[0] for s in self._sights]

    def _pose(self, state: Adjusted, sight: Sight) -> tuple[Image, Image | None, Image | None]:
        pose = state.poses[sight.view]
        if sight.camera == 0:
            return pose, None, None
        assert state.relative is not None
        return compose(pose, state.relative)

    def equations(self, state: Adjusted, sigma: float | None) -> tuple[list[Image], Image, Image]:
        """Return errors and the weighted normal equations."""
        A, b, errors = np.zeros((self._count, self._count)), np.zeros(self._count), []
        for s in self._sights:
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
