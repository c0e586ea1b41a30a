"""Registration of thermal to RGB from footage, without a board: pairs in, `H_rgb_from_ir` or a smooth field out.

1. `_search`: over turn, scale and shift at a low resolution, all shifts at once by Fourier transform.
2. `_refined`: every cell is compared under small displacements, and the model that the cells agree on is found, coarse
   to fine.
3. `_judged`: halves of the picture that share nothing are fitted apart; where they disagree, or cells do not point to
   the result more than chance would, it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from itertools import product

import cv2
import numpy as np

from calib.register.field import Messages, Model, Spline, least_area, messages, model_basis, model_matrix, solve
from calib.register.comparison import CELL, Comparison, framed, luma_of_counts
from rtfuse.align.structure import structure
from rtfuse.errors import CalibrationError
from rtfuse.types import Image

WORK_PX = 640
"""Longest side of the RGB picture (its part that thermal reaches) at the finest level."""
SEARCH_PX = 128
"""The same while searching, about."""
LEAST_OVERLAP = 0.4
"""Share of the smaller of the two frames that lies in the other one."""
MOST_FRAMES = 16
_SEARCH_FRAMES = 5
_FAR_CANDIDATES, _FAR_DOUBT = 6, 1.5
CONFIDENT = 0.5
"""The least confidence at which a registration is given out."""
SHARPNESS = 30.0
"""How many units of logarithmic likelihood a correlation of 1 is worth."""
BEND, PULL = 0.7, 0.5
"""How much the smooth field resists bending and leaving the matrix, in px⁻²: on average no worse than the matrix alone
where that is all there is to find, on street scenes, real and synthetic."""
LEAST_AREA = 0.3
"""No part of the smooth field shrinks an area below this share."""
_TURNS_DEG = (-9.0, -6.0, -3.0, 0.0, 3.0, 6.0, 9.0)
_NEAR = (0.87, 0.93, 1.0, 1.07, 1.15), _TURNS_DEG
_WIDE = tuple(np.geomspace(0.35, 1.75, 19)), (-8.0, -4.0, 0.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Local evidence for a registration's report.

    `at_px` (T, 2) float32: where in the RGB picture; `residual_px` (T, 2) float32: the shift (dx, dy) in RGB pixels
    that the tile still asks for; `weight` (T,) float32: how much structure it rests on, 0 to 1.
    """

    at_px: Image
    residual_px: Image
    weight: Image


@dataclass(frozen=True, slots=True)
class Registration:
    """How thermal pixels lie on the RGB picture; (0, 0) is the centre of the top-left pixel.

    `H_rgb_from_ir` (3, 3) float64. `field` (H, W, 2) float32, if it was asked for: where in the thermal image each RGB
    pixel lies, x and y in thermal pixels, the matrix included. `confidence`: 0 to 1, at least `CONFIDENT`. `error_px`:
    estimate of what remains, in RGB pixels: how far two halves of the picture, fitted apart, disagree.
    """

    H_rgb_from_ir: Image
    field: Image | None
    confidence: float
    error_px: float
    tiles: Tiles


def register(
    pairs: Sequence[tuple[Image, Image]],
    *,
    model: Model = "homography",
    start: Image | None = None,
    smooth: bool = False,
) -> Registration:
    """Register thermal to RGB from one or several pairs of a fixed rig.

    A pair is thermal (h, w) uint8 or uint16 and RGB (H, W, 3) uint8. `start` (3, 3) is a guess of `H_rgb_from_ir`;
    without one, thermal is first stretched over the RGB picture. If nothing is found near it, scales from 0.35 to 1.75
    of it and all shifts are searched. `smooth` asks for a smooth field as well.
    Raises CalibrationError where the pictures do not fit, hold too little, or do not agree.
    """
    pairs = _checked(pairs, start)
    view = _whole(pairs)
    starts = _starts(view, pairs, start)
    near = _search(view.few(_SEARCH_FRAMES), starts, *_NEAR)
    result = _best(pairs, view, near[:3], model)
    if result[0].confidence < CONFIDENT:
        far = _apart(_search(view.few(_SEARCH_FRAMES), starts, *_WIDE), view.hw)
        for candidate in far[:_FAR_CANDIDATES]:
            # A similarity is a special case of the larger models, and far from the start less easily led astray.
            simple: Model = "shift" if model == "shift" else "similarity"
            other = _best(pairs, view, [candidate], simple, _FAR_DOUBT)
            if other[0].confidence > result[0].confidence:
                result = other
            if result[0].confidence >= CONFIDENT:
                result = _better(result, model)
                break
    verdict, view, view_from_ir = result
    if verdict.confidence < CONFIDENT:
        raise CalibrationError(
            f"thermal and RGB could not be registered: {verdict.support:.0%} of {verdict.independent:.0f} independent "
            f"tiles point to the best place that was found, and its halves disagree by {verdict.error_px:.1f} px "
            f"(confidence {verdict.confidence:.2f}, {CONFIDENT} is needed); see that both show the same scene at the "
            "same time, give several pairs with edges all over the picture, or a start"
        )
    H = view.rgb_from_view @ view_from_ir
    return Registration(
        H / H[2, 2],
        _field(view, view_from_ir, pairs[0][1].shape[:2]) if smooth else None,
        verdict.confidence,
        verdict.error_px * float(view.rgb_from_view[0, 0]),
        _tiles(view, verdict),
    )


_Result = tuple["_Verdict", "_View", Image]
"""What was found: its verdict, the view of what thermal covers, and the matrix from thermal to view pixels."""


def _best(
    pairs: Sequence[tuple[Image, Image]], whole: _View, found: Sequence[_Found], model: Model, doubt: float = 0.0
) -> _Result:
    """The candidate whose cells correlate best at the coarsest level, refined and judged."""
    views = [_closer(pairs, whole, f.view_from_ir) for f in found]
    coarse = [(*_coarse(closer, start, model), closer) for closer, start in views]
    view_from_ir, _, closer = max(coarse, key=lambda c: c[1])
    refined = _refined(closer, view_from_ir, model, _SCHEDULE[1:])
    return _judged(closer, refined, model, doubt), closer, refined


def _better(result: _Result, model: Model) -> _Result:
    """The result with the larger model fitted from there, if cells agree on that as much."""
    before, view, view_from_ir = result
    refined = _refined(view, view_from_ir, model, _SCHEDULE[2:])
    after = _judged(view, refined, model, _FAR_DOUBT)
    return (after, view, refined) if after.support >= before.support else result


def _checked(pairs: Sequence[tuple[Image, Image]], start: Image | None) -> list[tuple[Image, Image]]:
    """At most `MOST_FRAMES` of the pairs, evenly chosen; raises CalibrationError for what cannot be registered."""
    if not pairs:
        raise CalibrationError("no pair of pictures was given to register; give at least one of thermal and RGB")
    for ir, rgb in pairs:
        if ir.ndim != 2 or ir.dtype not in (np.uint8, np.uint16) or rgb.ndim != 3 or rgb.dtype != np.uint8:
            raise CalibrationError(
                "registration takes thermal (h, w) uint8 or uint16 and RGB (H, W, 3) uint8, "
                f"but got {ir.shape} {ir.dtype} and {rgb.shape} {rgb.dtype}"
            )
        if (ir.shape, rgb.shape) != (pairs[0][0].shape, pairs[0][1].shape):
            raise CalibrationError(
                f"the pairs of one rig have one size, but got thermal {pairs[0][0].shape} with RGB {pairs[0][1].shape} "
                f"and thermal {ir.shape} with RGB {rgb.shape}; register them apart"
            )
        if min(*ir.shape, *rgb.shape[:2]) < 64:
            raise CalibrationError(f"pictures of {ir.shape} and {rgb.shape} are too small to register; 64 is the least")
    if start is not None and (start.shape != (3, 3) or abs(np.linalg.det(start)) < 1e-12):
        raise CalibrationError("the start of a registration is a matrix (3, 3) that can be inverted")
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), MOST_FRAMES)).round().astype(int))
    kept = [pairs[k] for k in chosen if all(np.ptp(x) >= 8 for x in pairs[k])]
    if not kept:
        raise CalibrationError(
            "every pair has a picture that is constant (a closed shutter, a lens cap, a dark night?): there is nothing "
            "to register; give pairs with edges in both"
        )
    return kept


def _whole(pairs: Sequence[tuple[Image, Image]]) -> _View:
    """The whole RGB pictures, and thermal ready to be compared."""
    ir_hw, (h, w) = pairs[0][0].shape, pairs[0][1].shape[:2]
    scale = min(1.0, _work_px(ir_hw) / max(h, w))
    size = round(h * scale), round(w * scale)
    rgbs = [_shrunk(rgb, size) for _, rgb in pairs]
    return _View([luma_of_counts(ir) for ir, _ in pairs], [framed(ir) for ir, _ in pairs], rgbs, _stretch(size, (h, w)))


def _work_px(ir_hw: tuple[int, ...]) -> int:
    """Longest side worked on: much finer than thermal there is nothing to compare."""
    return min(WORK_PX, max(256, 4 * max(ir_hw)))


def _shrunk(x: Image, hw: tuple[int, int]) -> Image:
    return x if x.shape[:2] == hw else cv2.resize(x, hw[::-1], interpolation=cv2.INTER_AREA)


def _starts(view: _View, pairs: Sequence[tuple[Image, Image]], start: Image | None) -> list[Image]:
    """Where to search about, thermal to view pixels: the start, or thermal stretched and, if that bends, fitted."""
    if start is not None:
        return [np.linalg.inv(view.rgb_from_view) @ start]
    stretch = _stretch(pairs[0][0].shape, view.hw)
    sx, sy = stretch[0, 0], stretch[1, 1]
    if abs(np.log(sx / sy)) < 0.03:
        return [stretch]
    (h, w), (ih, iw) = view.hw, pairs[0][0].shape
    fitted = [
        np.array([[s, 0, ((w - 1) - s * (iw - 1)) / 2], [0, s, ((h - 1) - s * (ih - 1)) / 2], [0, 0, 1]])
        for s in (sx, sy)
    ]
    return [stretch, *fitted]


def _coarse(view: _View, view_from_ir: Image, model: Model) -> tuple[Image, float]:
    """A candidate, refined at the coarsest level, and how well cells correlate there."""
    level, radius, window, sigmas = _SCHEDULE[0]
    simple: Model = "affine" if model == "homography" else model
    for _ in range(2):
        view_from_ir = _refined(view, view_from_ir, simple, [(level, radius, window, sigmas)])
    comparison = _compared(view, level, 1, view_from_ir)
    weight = comparison.weight(window)
    # As in the search: chance correlates the more, the less overlaps.
    return view_from_ir, float(comparison.ncc(window)[4] @ weight) / float(np.sqrt(max(weight.sum(), 1e-9)))


def _closer(pairs: Sequence[tuple[Image, Image]], view: _View, view_from_ir: Image) -> tuple[_View, Image]:
    """Where thermal covers but a part of the RGB picture: a view of that part, finer, and the matrix onto it."""
    (h, w), (ih, iw) = pairs[0][1].shape[:2], pairs[0][0].shape
    corners = np.array([[[0, 0]], [[iw - 1, 0]], [[iw - 1, ih - 1]], [[0, ih - 1]]], float)
    reach = cv2.perspectiveTransform(corners, view.rgb_from_view @ view_from_ir)[:, 0]
    margin = 0.08 * np.ptp(reach, axis=0).max()
    x0, y0 = np.maximum(reach.min(0) - margin, 0).astype(int)
    x1, y1 = np.minimum(reach.max(0) + margin + 1, (w, h)).astype(int)
    if min(x1 - x0, y1 - y0) < 64 or (x1 - x0) * (y1 - y0) > 0.7 * w * h:
        return view, view_from_ir
    scale = min(1.0, _work_px((ih, iw)) / max(x1 - x0, y1 - y0))
    size = round((y1 - y0) * scale), round((x1 - x0) * scale)
    rgb_from_view = _stretch(size, (y1 - y0, x1 - x0))
    rgb_from_view[:2, 2] += x0, y0
    rgbs = [_shrunk(np.ascontiguousarray(rgb[y0:y1, x0:x1]), size) for _, rgb in pairs]
    closer = _View(view.irs, view.masks, rgbs, rgb_from_view)
    return closer, np.linalg.inv(rgb_from_view) @ view.rgb_from_view @ view_from_ir


@dataclass
class _View:
    """What is worked on: the RGB pictures on a grid of `hw` pixels, and where that grid lies in them.

    `rgb_from_view` (3, 3); thermal pictures stay as they are.
    """

    irs: list[Image]
    masks: list[Image]
    rgbs: list[Image]
    rgb_from_view: Image
    _levels: dict[int, list[Image]] = dataclass_field(default_factory=dict)

    @property
    def hw(self) -> tuple[int, int]:
        return self.rgbs[0].shape[0], self.rgbs[0].shape[1]

    def few(self, count: int) -> _View:
        """The same with at most `count` of its frames."""
        every = -(-len(self.irs) // count)
        return _View(self.irs[::every], self.masks[::every], self.rgbs[::every], self.rgb_from_view)

    def level_hw(self, level: int) -> tuple[int, int]:
        return -(-self.hw[0] >> level), -(-self.hw[1] >> level)

    def rgb(self, level: int) -> list[Image]:
        """Structure of the RGB pictures, 2^-level the size."""
        if level not in self._levels:
            h, w = self.level_hw(level)
            self._levels[level] = [
                structure(cv2.resize(x, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32)) for x in self.rgbs
            ]
        return self._levels[level]

    def view_from_level(self, level: int) -> Image:
        (h, w), (lh, lw) = self.hw, self.level_hw(level)
        return _stretch((lh, lw), (h, w))

    def ir(self, level: int, ir_from_view: Image, displacement: Image | None = None) -> list[Image]:
        """Structure of the thermal pictures, brought onto the level's grid by a matrix and a displacement there."""
        h, w = self.level_hw(level)
        ir_from_level = ir_from_view @ self.view_from_level(level)
        return [_structure_at(*x, ir_from_level, (h, w), displacement) for x in zip(self.irs, self.masks, strict=True)]


def _stretch(src_hw: tuple[int, int], dst_hw: tuple[int, int]) -> Image:
    """Matrix (3, 3) that stretches a picture's pixels onto those of another size, outer edges on outer edges."""
    sy, sx = dst_hw[0] / src_hw[0], dst_hw[1] / src_hw[1]
    return np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])


def _positions(ir_from_grid: Image, hw: tuple[int, int], displacement: Image | None = None) -> Image:
    """Where each grid pixel, displaced (H, W, 2), lies in the thermal picture: (H, W, 2) float32."""
    xs, ys = np.meshgrid(np.arange(hw[1], dtype=np.float32), np.arange(hw[0], dtype=np.float32))
    if displacement is not None:
        xs, ys = xs + displacement[..., 0], ys + displacement[..., 1]
    a = ir_from_grid.astype(np.float32)
    z = a[2, 0] * xs + a[2, 1] * ys + a[2, 2]
    z = np.where(np.abs(z) > 1e-6, z, 1e-6)
    return np.stack([(r[0] * xs + r[1] * ys + r[2]) / z for r in a[:2]], -1, dtype=np.float32)


def _structure_at(
    ir: Image, mask: Image, ir_from_grid: Image, hw: tuple[int, int], displacement: Image | None = None
) -> Image:
    """Structure of a thermal picture seen on a grid; shrunk beforehand where the grid is coarser."""
    coarser = float(np.sqrt(abs(np.linalg.det(ir_from_grid[:2, :2]))))
    if coarser > 1.3:
        small = max(8, round(ir.shape[0] / coarser)), max(8, round(ir.shape[1] / coarser))
        ir_from_grid = np.linalg.inv(_stretch(small, ir.shape)) @ ir_from_grid
        ir, mask = (cv2.resize(x, small[::-1], interpolation=cv2.INTER_AREA) for x in (ir, mask))
    at = _positions(ir_from_grid, hw, displacement)
    picture = cv2.remap(ir, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    seen = cv2.remap(mask, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    # Smoothing brings the outside in: keep off by two pixels.
    return structure(picture, cv2.erode(seen, None, iterations=2))


# --- 1. search ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """A place that the search found: thermal pixels to view pixels, and how much it stands out."""

    view_from_ir: Image
    score: float


def _search(view: _View, starts: Sequence[Image], scales: Sequence[float], turns_deg: Sequence[float]) -> list[_Found]:
    """Candidates, best first, over scales and turns about the starts (thermal to view pixels) and all shifts."""
    found = []
    spectra: dict[int, list[Image]] = {}
    for start, scale, turn in product(starts, scales, turns_deg):
        # Small in the RGB picture, thermal needs a finer grid to be seen.
        level = max(0, round(np.log2(max(view.hw) * min(scale, 1.0) / SEARCH_PX)))
        h, w = hw = view.level_hw(level)
        size = cv2.getOptimalDFTSize(int(1.6 * h)), cv2.getOptimalDFTSize(int(1.6 * w))
        if level not in spectra:
            spectra[level] = [_spectra(x, np.ones(hw, np.float32), size) for x in view.rgb(level)]
        view_from_grid = view.view_from_level(level)
        guess = np.linalg.inv(view_from_grid) @ _turned(start, view.hw, scale, turn)
        ir_from_grid = np.linalg.inv(guess)
        sums = np.zeros((4, *size), np.float32)
        for ir, mask, b in zip(view.irs, view.masks, spectra[level], strict=True):
            a = _spectra(_structure_at(ir, mask, ir_from_grid, hw), _inside(ir, ir_from_grid, hw), size)
            # Correlations: of the structures; of each one's power with the other's frame; of the frames.
            products = [(a[:5] * b[:5].conj()).sum(0), a[5] * b[6].conj(), a[6] * b[5].conj(), a[6] * b[6].conj()]
            sums += np.fft.irfft2(np.stack(products), size).astype(np.float32)
        dot, power_ir, power_rgb, overlap = sums
        total = float(power_rgb.max())
        share = np.clip(power_rgb / total, 1e-6, 1)
        ncc = dot / np.sqrt(np.maximum(power_ir * power_rgb, 1e-3 * total * max(float(power_ir.max()), 1e-6)))
        # What chance correlates falls with the root of how much overlaps: count that in.
        least = LEAST_OVERLAP * len(view.irs) * min(h * w, abs(np.linalg.det(guess)) * view.irs[0].size)
        score = np.where(overlap > least, ncc * np.sqrt(share * total), 0)
        y, x = np.unravel_index(int(score.argmax()), score.shape)
        # thermal(p + s) meets RGB(p): thermal is to be moved by -s.
        sx, sy = (int(k) if k < n // 2 else int(k) - n for k, n in ((x, size[1]), (y, size[0])))
        move = np.array([[1, 0, -sx], [0, 1, -sy], [0, 0, 1]], float)
        found.append(_Found(view_from_grid @ move @ guess, float(score[y, x])))
    return sorted(found, key=lambda f: -f.score)


def _apart(found: Sequence[_Found], hw: tuple[int, int]) -> list[_Found]:
    """The same candidates without those that nearly repeat a better one."""
    corners = np.array([[[0, 0]], [[hw[1], 0]], [[hw[1], hw[0]]], [[0, hw[0]]]], float)
    kept: list[tuple[_Found, Image]] = []
    for f in found:
        at = cv2.perspectiveTransform(corners, np.linalg.inv(f.view_from_ir))
        at = at * np.sqrt(abs(np.linalg.det(f.view_from_ir[:2, :2])))
        if all(np.linalg.norm(at - other, axis=-1).mean() > 0.08 * max(hw) for _, other in kept):
            kept.append((f, at))
    return [f for f, _ in kept]


def _spectra(channels: Image, inside: Image, size: tuple[int, int]) -> Image:
    """Fourier transforms of the five channels, of their power and of the mask `inside`, zero-padded to `size`."""
    power = np.einsum("chw,chw->hw", channels, channels)
    return np.fft.rfft2(np.concatenate([channels, power[None], inside[None]]), size)


def _inside(ir: Image, ir_from_grid: Image, hw: tuple[int, int]) -> Image:
    """Mask (H, W) float32 of the grid's pixels that lie in the thermal picture."""
    at, last = _positions(ir_from_grid, hw), np.array(ir.shape[::-1], np.float32) - 1
    return np.asarray(((at >= 0) & (at <= last)).all(-1), np.float32)


def _turned(start: Image, hw: tuple[int, int], scale: float, turn_deg: float) -> Image:
    """The start, then scaled and turned about the picture's centre."""
    m = np.vstack([cv2.getRotationMatrix2D(((hw[1] - 1) / 2, (hw[0] - 1) / 2), turn_deg, scale), [0, 0, 1]])
    return m @ start


# --- 2. refine ---------------------------------------------------------------------------------------------------

_Step = tuple[int, int, float, tuple[float, ...]]
_SCHEDULE: tuple[_Step, ...] = (
    (2, 8, 24.0, (6.0, 4.0, 3.0)),
    (2, 6, 20.0, (3.0, 2.0)),
    (1, 5, 24.0, (3.0, 2.0)),
    (0, 4, 28.0, (2.0, 1.5)),
)
"""Level, radius of the comparison, window and the deviations that are expected in turn, in pixels of the level."""


def _compared(view: _View, level: int, radius: int, view_from_ir: Image, u: Image | None = None) -> Comparison:
    comparison = Comparison(view.level_hw(level), radius)
    for ir, rgb in zip(view.ir(level, np.linalg.inv(view_from_ir), u), view.rgb(level), strict=True):
        comparison.add(ir, rgb)
    return comparison


def _refined(view: _View, view_from_ir: Image, model: Model, schedule: Sequence[_Step] = _SCHEDULE) -> Image:
    """The matrix, thermal to view pixels, with the model's motion that the cells agree on put before it."""
    for level, radius, window, sigmas in schedule:
        comparison = _compared(view, level, radius, view_from_ir)
        points, hw = comparison.centres(), comparison.hw
        centre, half = (np.array(hw[::-1]) - 1) / 2, max(hw) / 2
        basis = model_basis(model, points - centre, half)
        ncc = comparison.ncc(window)
        p = _fitted(basis, ncc, comparison.shifts, sigmas)
        moved = view.view_from_level(level) @ model_matrix(model, p, centre, half)
        view_from_level_new = moved @ np.linalg.inv(view.view_from_level(level))
        # What lay at x + u(x) of the warped thermal picture shall lie at x.
        view_from_ir = np.linalg.inv(view_from_level_new) @ view_from_ir
        view_from_ir = view_from_ir / view_from_ir[2, 2]
    return view_from_ir


def _fitted(basis: Image, ncc: Image, shifts: Image, sigmas: Sequence[float], prior: Image | None = None) -> Image:
    """Coefficients (P,) of `basis` that the cells' correlations (S, T) agree on, ever closer about the last ones."""
    p = np.zeros(basis.shape[2])
    prior = 0.01 * np.eye(len(p)) if prior is None else prior
    for sigma in sigmas:
        p = solve(basis, messages(ncc, shifts, (basis @ p).astype(np.float32), sigma, SHARPNESS), prior)
    return p


def _bent(view: _View, view_from_ir: Image) -> tuple[Spline, Image]:
    """Smooth displacement on the view, on top of the matrix: the spline and its coefficients."""
    spline = Spline(view.hw, max(view.hw) / 10)
    coefficients = np.zeros(spline.size)
    for level, radius, window, sigmas in ((1, 6, 20.0, (4.0, 3.0, 2.0)), (0, 5, 24.0, (3.0, 2.0))):
        hw = view.level_hw(level)
        to_view = view.view_from_level(level)
        scale = np.diag(to_view)[:2]
        xs, ys = (to_view[k, k] * np.arange(n) + to_view[k, 2] for k, n in ((0, hw[1]), (1, hw[0])))
        comparison = _compared(view, level, radius, view_from_ir, spline.dense(coefficients, xs, ys) / scale)
        basis = spline.basis(comparison.centres() * scale + to_view[:2, 2]) / scale[:, None]
        ncc = comparison.ncc(window)
        before = basis @ coefficients
        now = coefficients
        for sigma in sigmas:
            heard = messages(ncc, comparison.shifts, (basis @ now - before).astype(np.float32), sigma, SHARPNESS)
            pull = heard.pull + np.einsum("tij,tj->ti", heard.information, before)
            now = solve(basis, Messages(heard.information, pull), spline.prior(BEND, PULL))
        coefficients = now
    ys, xs = (np.arange(0, n, 4) for n in view.hw)
    while least_area(spline.dense(coefficients, xs, ys), 4) < LEAST_AREA:
        coefficients = coefficients / 2
    return spline, coefficients


def _field(view: _View, view_from_ir: Image, rgb_hw: tuple[int, int]) -> Image:
    """Where in the thermal picture each RGB pixel lies, (H, W, 2) float32."""
    spline, coefficients = _bent(view, view_from_ir)
    scale, offset = np.diag(view.rgb_from_view)[:2], view.rgb_from_view[:2, 2]
    xs, ys = ((np.arange(n) - o) / s for n, o, s in zip(rgb_hw[::-1], offset, scale, strict=True))
    u = spline.dense(coefficients, xs, ys) * scale.astype(np.float32)
    return _positions(np.linalg.inv(view.rgb_from_view @ view_from_ir), rgb_hw, u)


# --- 3. judge ----------------------------------------------------------------------------------------------------

_JUDGE_LEVEL, _JUDGE_RADIUS, _JUDGE_WINDOW = 1, 8, 14.0
_NEAR_PX = 2.3
_CHANCE = 0.1
"""A tile points to any place within `_NEAR_PX` of 0 about this often when the pictures have nothing in common."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What the cells say of a result; pixels are the view's."""

    confidence: float
    support: float
    independent: float
    error_px: float
    at: Image
    residual: Image
    weight: Image


def _judged(view: _View, view_from_ir: Image, model: Model, doubt: float) -> _Verdict:
    """Compare once more, wider than needed: how many cells point to the result, and do halves agree on it?

    `doubt` is taken off the logarithm of the odds.
    """
    level = _JUDGE_LEVEL
    comparison = _compared(view, level, _JUDGE_RADIUS, view_from_ir)
    shifts, points, hw = comparison.shifts, comparison.centres(), comparison.hw
    ncc, weight = comparison.ncc(_JUDGE_WINDOW), comparison.weight(_JUDGE_WINDOW)
    peak = shifts[ncc.argmax(0)]
    total = max(float(weight.sum()), 1e-9)
    support = float((np.hypot(*peak.T) <= _NEAR_PX) @ weight) / total
    # Windows overlap: so many of them would hold as much without sharing any.
    independent = total * CELL**2 / (4 * np.pi * _JUDGE_WINDOW**2)
    simple: Model = "affine" if model == "homography" else model
    basis = model_basis(simple, points - (np.array(hw[::-1]) - 1) / 2, max(hw) / 2)
    rows, columns = np.mgrid[: comparison.grid[0], : comparison.grid[1]]
    board = (rows * 3 // comparison.grid[0] + columns * 4 // comparison.grid[1]) % 2
    fits = [
        _fitted(basis, comparison.ncc(_JUDGE_WINDOW, (board == k).astype(np.float32)), shifts, (4.0, 3.0, 2.0))
        for k in (0, 1)
    ]
    apart = float(np.linalg.norm(basis @ (fits[0] - fits[1]), axis=-1) @ weight) / total
    scale = np.diag(view.view_from_level(level))[:2]
    apart *= float(scale[0])
    # Logistic regression on true and unrelated pairs of street scenes, near half of them at night.
    logit = 5.1 * (support - _CHANCE) * np.sqrt(independent) - 1.7 * np.log(max(apart, 0.6)) - 2.5
    # Not in the regression: a few tiles are no witness, and where more places were tried, one fits by chance.
    logit -= 0.7 * max(8 - independent, 0) + doubt
    return _Verdict(float(1 / (1 + np.exp(-logit))), support, independent, apart, points * scale, peak * scale, weight)


def _tiles(view: _View, verdict: _Verdict) -> Tiles:
    scale, offset = np.diag(view.rgb_from_view)[:2], view.rgb_from_view[:2, 2]
    return Tiles(
        (verdict.at * scale + offset).astype(np.float32),
        (verdict.residual * scale).astype(np.float32),
        verdict.weight.astype(np.float32),
    )
