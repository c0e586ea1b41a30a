"""Grids of discs in a picture: blobs of either polarity, joined into a lattice that may be bent by the lens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import cv2
import numpy as np

from rtfuse.types import Image

_MIN_AREA_PX = 20.0
_MIN_AXES = 0.25
_MAX_MISFIT, _SURE_MISFIT = 0.35, 0.02
_MOST = 120
"""How many blobs are tried, the largest and clearest: noise has thousands."""
_SMALL_PX = 3.0
_RAYS = 96
_CONTRAST = 4.0
"""Grey levels of the stretched picture between a disc and what is around it."""
Cell = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Disc:
    """A blob that may be a disc: its ellipse (middle, full axes in px, degrees), its grey and that around it."""

    x: float
    y: float
    axes: tuple[float, float]
    degrees: float
    inside: float = 0.0
    outside: float = 0.0

    @property
    def dark(self) -> bool:
        """Whether it is darker than what is around."""
        return self.inside < self.outside

    @property
    def radius(self) -> float:
        """The radius of a circle of the same area, px."""
        return float(np.sqrt(self.axes[0] * self.axes[1]) / 2)


def find_grid(grey: Image, cells: Image) -> tuple[Image, Image] | None:
    """Find discs that form the lattice `cells` (N, 2) int in a stretched picture (h, w) uint8.

    Returns their middles (N, 2) px, in the order of the cells, and their radii (N,) px; None if they are not all there,
    or the lattice goes on. The grid is never mirrored, and its first cell as near to the image's top left as it can be.
    """
    discs = _discs(grey)
    best: tuple[float, list[Disc]] = (_MAX_MISFIT, [])
    for dark in (True, False):
        some = sorted((d for d in discs if d.dark is dark), key=lambda d: -d.radius * abs(d.outside - d.inside))
        some = some[: max(_MOST, 3 * len(cells))]
        done: set[frozenset[int]] = set()
        for lattice in _lattices(some, len(cells)) if len(some) >= len(cells) else ():
            members = frozenset(lattice.values())
            if members in done:
                continue
            orders = [[some[k] for k in order] for order in _orders(lattice, cells)]
            fits = [(_misfit(cells, np.array([(d.x, d.y) for d in o])), o) for o in orders]
            least = min((error for error, _ in fits), default=np.inf)
            if np.isfinite(least):
                done.add(members)  # else its steps were other ones than the board's
            if least < best[0]:
                # Turns of one lattice fit alike: of them take the one that starts nearest to the top left.
                turns = [o for error, o in fits if error < 1.5 * least + 0.02]
                best = least, min(turns, key=lambda o: o[0].x + o[0].y)
            if best[0] < _SURE_MISFIT:
                break
    if not best[1]:
        return None
    chosen = _of_one_size(best[1], discs, cells)
    return np.array([_middle(grey, d) for d in chosen]), np.array([d.radius for d in chosen])


def _of_one_size(chosen: list[Disc], discs: list[Disc], cells: Image) -> list[Disc]:
    """Return for each place the disc whose size goes with the others': of some, only a part was round as well."""
    A = np.concatenate([cells, np.ones((len(cells), 1))], 1)
    sizes = np.log([d.radius for d in chosen])
    terms, *_ = np.linalg.lstsq(A, sizes, rcond=None)
    typical = np.abs(sizes - A @ terms) <= 2.5 * max(0.02, float(np.median(np.abs(sizes - A @ terms))))
    if typical.sum() > 3:
        terms, *_ = np.linalg.lstsq(A[typical], sizes[typical], rcond=None)
    settled = []
    for disc, want in zip(chosen, A @ terms, strict=True):
        here = [d for d in discs if d.dark is disc.dark and np.hypot(d.x - disc.x, d.y - disc.y) < 0.5 * np.exp(want)]
        settled.append(min(here, key=lambda d: abs(np.log(d.radius) - want), default=disc))
    return settled


def _discs(grey: Image) -> list[Disc]:
    """Return blobs that look like discs, each once, at many thresholds: fixed ones, and such as follow the light."""
    h, w = grey.shape
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    masks = [smooth > level for level in range(16, 250, 18)]
    for share in (16, 8, 4, 2):
        side = max(11, min(h, w) // share) | 1
        mean = cv2.blur(smooth.astype(np.float32), (side, side))
        masks += [smooth > mean - 8.0, smooth > mean + 8.0]
    found: list[tuple[float, Disc]] = []
    for mask in masks:
        contours, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        # What has a parent is a hole: its contour runs through the bright pixels around it.
        for contour, (*_, parent) in zip(contours, tree[0] if tree is not None else (), strict=True):
            scored = _as_disc(contour, smooth, dark=parent >= 0)
            if scored is not None:
                found.append(scored)
    return _distinct(found)


def _as_disc(contour: Image, grey: Image, *, dark: bool) -> tuple[float, Disc] | None:
    """Return how little a contour differs from an ellipse, and the disc; None if it is none."""
    if len(contour) < 10:
        return None
    area = cv2.contourArea(contour)
    h, w = grey.shape
    if not _MIN_AREA_PX < area < 0.1 * h * w:
        return None
    x, y, bw, bh = cv2.boundingRect(contour)
    if x <= 0 or y <= 0 or x + bw >= w or y + bh >= h or area < 0.6 * (np.pi / 4) * bw * bh * _MIN_AXES:
        return None
    (cx, cy), axes, degrees = cv2.fitEllipseDirect(contour)
    small, large = min(axes), max(axes)
    if not np.isfinite([cx, cy, small, large]).all() or small < _MIN_AXES * large or small < 3:
        return None
    full = np.pi / 4 * axes[0] * axes[1]
    perimeter = len(contour)
    roundness = abs(area - full) / full
    hull = cv2.contourArea(cv2.convexHull(contour))
    if roundness > 0.12 or area < 0.9 * hull - 0.5 * perimeter**0.5:
        return None
    rim = -1.0 if dark else 1.0
    disc = Disc(float(cx), float(cy), (float(axes[0]) + rim, float(axes[1]) + rim), float(degrees))
    inside, outside = _levels(grey, disc)
    if (outside - inside if dark else inside - outside) < _CONTRAST:
        return None
    return roundness, replace(disc, inside=inside, outside=outside)


def _levels(grey: Image, disc: Disc) -> tuple[float, float]:
    """Return the median grey of a disc's inner part, and of a ring around it."""
    patch, far = _around(grey, disc, 1.7)
    inside, ring = patch[far < 0.7], patch[(far > 1.25) & (far < 1.6)]
    return (float(np.median(inside)), float(np.median(ring))) if inside.size and ring.size else (0.0, 0.0)


def _around(grey: Image, disc: Disc, reach: float) -> tuple[Image, Image]:
    """Return the pixels around a disc and how far each is from its middle, 1 on its edge."""
    half = int(np.ceil(reach * max(disc.axes) / 2)) + 1
    x0, y0 = max(0, int(disc.x) - half), max(0, int(disc.y) - half)
    patch = grey[y0 : int(disc.y) + half + 1, x0 : int(disc.x) + half + 1].astype(np.float32)
    y, x = np.mgrid[: patch.shape[0], : patch.shape[1]]
    dx, dy = x + x0 - disc.x, y + y0 - disc.y
    c, s = np.cos(np.radians(disc.degrees)), np.sin(np.radians(disc.degrees))
    far = np.hypot((c * dx + s * dy) / (disc.axes[0] / 2), (-s * dx + c * dy) / (disc.axes[1] / 2))
    return patch, far.astype(np.float32)


def _middle(grey: Image, disc: Disc) -> Image:
    """Return a disc's middle to a fraction of a pixel: the centre of mass of its outline.

    The outline is where, ray by ray, grey is half-way between inside and outside, so that light that falls off across
    the disc does not move it; a smooth curve through those places passes over reflections. Small discs have no outline
    to speak of: theirs is the centre of mass of what is nearer to their grey than to that around.
    """
    if disc.radius < _SMALL_PX:
        return _centre_of_mass(grey, disc)
    smooth = cv2.GaussianBlur(grey, (0, 0), 0.7).astype(np.float32)
    angles, share = np.linspace(0, 2 * np.pi, _RAYS, endpoint=False), np.linspace(0.5, 1.5, 61)
    for _ in range(2):
        turn = np.radians(disc.degrees)
        axes = np.stack([np.cos(angles) * disc.axes[0] / 2, np.sin(angles) * disc.axes[1] / 2], -1)
        rays = axes @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        places = (np.array([disc.x, disc.y]) + share[None, :, None] * rays[:, None]).astype(np.float32)
        seen = cv2.remap(smooth, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        at, good = _half_way(seen, share)
        if good.sum() < 0.5 * _RAYS:
            return _centre_of_mass(grey, disc)
        outline = np.array([disc.x, disc.y]) + _smooth_curve(angles, at, good)[:, None] * rays
        x, y = _centre_of_outline(outline)
        disc = replace(disc, x=float(x), y=float(y))
    return np.array([disc.x, disc.y])


def _half_way(seen: Image, share: Image) -> tuple[Image, Image]:
    """Return where along each ray (R, S) grey is half-way between its two ends, (R,), and which rays have an edge."""
    inside, outside = seen[:, share < 0.75].mean(1), seen[:, share > 1.25].mean(1)
    contrast = float(np.median(outside - inside))
    relative = (seen - inside[:, None]) / np.where(np.abs(outside - inside) < 1, 1, outside - inside)[:, None]
    crossing = (relative[:, :-1] < 0.5) & (relative[:, 1:] >= 0.5)
    # Of several crossings the one nearest to where the edge ought to be.
    off = np.where(crossing, np.abs(share[:-1] - 1), np.inf)
    k = off.argmin(1)
    rows = np.arange(len(seen))
    a, b = relative[rows, k], relative[rows, k + 1]
    at = share[k] + (0.5 - a) / np.where(b > a, b - a, 1) * (share[1] - share[0])
    good = np.isfinite(off[rows, k]) & ((outside - inside) / contrast > 0.35)
    return at, good & (np.abs(at - np.median(at[good])) < 0.12) if good.any() else good


def _smooth_curve(angles: Image, at: Image, good: Image) -> Image:
    """Return the radius at every angle by Fourier terms up to the third, fitted without what lies far off."""
    A = np.stack([f(k * angles) for k in range(4) for f in (np.cos, np.sin) if k or f is np.cos], 1)
    for _ in range(3):
        terms, *_ = np.linalg.lstsq(A[good], at[good], rcond=None)
        off = np.abs(at - A @ terms)
        kept = good & (off < max(0.004, 3 * float(np.median(off[good]))))
        if kept.sum() < 12 or (kept == good).all():
            break
        good = kept
    return np.asarray(A @ terms)


def _centre_of_outline(outline: Image) -> Image:
    following = np.roll(outline, -1, axis=0)
    cross = outline[:, 0] * following[:, 1] - following[:, 0] * outline[:, 1]
    return np.asarray(((outline + following) * cross[:, None]).sum(0) / (3 * cross.sum()))


def _centre_of_mass(grey: Image, disc: Disc) -> Image:
    """Return the centre of mass of what is nearer to the disc's grey than to a plane through its surroundings."""
    for _ in range(3):
        patch, far = _around(grey, disc, 1.6)
        half = int(np.ceil(1.6 * max(disc.axes) / 2)) + 1
        x0, y0 = max(0, int(disc.x) - half), max(0, int(disc.y) - half)
        y, x = np.mgrid[: patch.shape[0], : patch.shape[1]].astype(np.float32)
        ring, core = (far > 1.25) & (far < 1.55), far < 0.65
        A = np.stack([x[ring], y[ring], np.ones(int(ring.sum()), np.float32)], 1)
        plane, *_ = np.linalg.lstsq(A, patch[ring], rcond=None)
        flat = patch - (plane[0] * x + plane[1] * y + plane[2])
        depth = float(np.median(flat[core]))
        weight = np.clip((flat / (depth or 1.0) - 0.2) / 0.6, 0, 1) * (far < 1.3)
        total = float(weight.sum())
        if total <= 0:
            break
        moved = (x0 + float((weight * x).sum()) / total, y0 + float((weight * y).sum()) / total)
        near = np.hypot(moved[0] - disc.x, moved[1] - disc.y)
        disc = replace(disc, x=moved[0], y=moved[1])
        if near < 0.01:
            break
    return np.array([disc.x, disc.y])


def _distinct(found: list[tuple[float, Disc]]) -> list[Disc]:
    """Return each disc once, at the threshold where it was roundest; what lies around or within it is another one."""
    kept: list[Disc] = []
    known = np.zeros((0, 4))
    for _, disc in sorted(found, key=lambda f: f[0]):
        near = np.hypot(known[:, 0] - disc.x, known[:, 1] - disc.y) < 0.5 * np.minimum(known[:, 2], disc.radius)
        size = known[:, 2] / disc.radius
        if not (near & (size > 0.6) & (size < 1.7) & (known[:, 3] == disc.dark)).any():
            kept.append(disc)
            known = np.vstack([known, [disc.x, disc.y, disc.radius, disc.dark]])
    return kept


def _lattices(discs: list[Disc], count: int) -> Iterator[dict[Cell, int]]:
    """Yield lattices of `count` discs, grown from every disc along pairs of its neighbours: one may come often."""
    xy = np.array([(d.x, d.y) for d in discs])
    radius = np.array([d.radius for d in discs])
    alike = _alike(discs)
    far = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    for seed in range(len(discs)):
        near = [int(k) for k in np.argsort(far[seed])[1:] if alike[seed, k]][:8]
        near = [k for k in near if far[seed, k] > 1.05 * (radius[k] + radius[seed])][:6]
        for a, b in combinations(near, 2):
            u, v = xy[a] - xy[seed], xy[b] - xy[seed]
            lengths = np.linalg.norm(u), np.linalg.norm(v)
            if (
                abs(u[0] * v[1] - u[1] * v[0]) < 0.4 * lengths[0] * lengths[1]
                or not 0.4 < lengths[0] / lengths[1] < 2.5
            ):
                continue
            lattice = _grown(xy, alike, {(0, 0): seed, (1, 0): a, (0, 1): b}, count)
            if len(lattice) == count:
                yield lattice


def _alike(discs: list[Disc]) -> Image:
    """Tell which discs may be neighbours on one board, (N, N) bool: of like size, grey and contrast."""
    radius, inside, outside = (np.array([getattr(d, n) for d in discs]) for n in ("radius", "inside", "outside"))
    size, contrast = radius[:, None] / radius, np.abs(outside - inside)
    share, least = contrast[:, None] / contrast, np.minimum(contrast[:, None], contrast)
    grey = np.abs(inside[:, None] - inside) < 0.6 * least
    return np.asarray((size > 0.5) & (size < 2.0) & (share > 0.4) & (share < 2.5) & grey)


def _grown(xy: Image, alike: Image, lattice: dict[Cell, int], count: int) -> dict[Cell, int]:
    """Return a lattice with every disc that it leads to; it ends early when there are more than `count`."""
    taken = set(lattice.values())
    queue = list(lattice)
    while queue and len(lattice) <= count:
        i, j = queue.pop(0)
        for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            cell = (i + di, j + dj)
            guess = None if cell in lattice else _expected(xy, lattice, (i, j), (di, dj))
            if guess is None:
                continue
            place, reach = guess
            off = np.linalg.norm(xy - place, axis=1)
            for k in np.argsort(off)[:2]:
                if off[k] < reach and alike[lattice[i, j], k] and int(k) not in taken:
                    lattice[cell] = int(k)
                    taken.add(int(k))
                    queue.append(cell)
                    break
    return lattice


def _expected(xy: Image, lattice: dict[Cell, int], at: Cell, step: Cell) -> tuple[Image, float] | None:
    """Return where the next disc would be by its nearest steps, and within which distance, px, it has to be found."""
    (i, j), (di, dj) = at, step
    here = xy[lattice[at]]
    for side in ((dj, di), (-dj, -di)):  # the same step beside this one
        a, b = (i + side[0], j + side[1]), (i + side[0] + di, j + side[1] + dj)
        if a in lattice and b in lattice:
            move = xy[lattice[b]] - xy[lattice[a]]
            return here + move, 0.33 * float(np.linalg.norm(move))
    back, further = (i - di, j - dj), (i - 2 * di, j - 2 * dj)
    if back not in lattice:
        return None
    move = here - xy[lattice[back]]
    if further not in lattice:
        return here + move, 0.4 * float(np.linalg.norm(move))
    # Perspective and distortion change steps steadily.
    move = move + 0.8 * (move - (xy[lattice[back]] - xy[lattice[further]]))
    return here + move, 0.28 * float(np.linalg.norm(move))


def _orders(lattice: dict[Cell, int], cells: Image) -> Iterator[list[int]]:
    """Yield the discs in the order of the board's cells, for every turn of the lattice onto them."""
    # A staggered grid is a square lattice on its edge: cells at (x, y) are (x + y) / 2 and (x - y) / 2 steps.
    staggered = bool(((cells[:, 0] + cells[:, 1]) % 2 == 0).all() and len(np.unique(cells[:, 0] % 2)) == 2)
    wanted = [((x + y) // 2, (x - y) // 2) for x, y in cells] if staggered else [(x, y) for x, y in cells]
    low = np.min(wanted, axis=0)
    wanted = [(int(a - low[0]), int(b - low[1])) for a, b in wanted]
    for turn in (
        (1, 0, 0, 1),
        (-1, 0, 0, -1),
        (0, 1, -1, 0),
        (0, -1, 1, 0),
        (1, 0, 0, -1),
        (-1, 0, 0, 1),
        (0, 1, 1, 0),
        (0, -1, -1, 0),
    ):
        a, b, c, d = turn
        turned = {(a * i + b * j, c * i + d * j): k for (i, j), k in lattice.items()}
        low = np.min(list(turned), axis=0)
        placed = {(i - int(low[0]), j - int(low[1])): k for (i, j), k in turned.items()}
        if placed.keys() == set(wanted):
            yield [placed[cell] for cell in wanted]


def _misfit(cells: Image, xy: Image) -> float:
    """Return the largest misfit of a lattice to a plane seen through a lens, in steps; large if it is mirrored.

    A homography, and of what it leaves a low-order polynomial where there are points enough: distortion.
    """
    H, _ = cv2.findHomography(cells.astype(float), xy)
    if H is None or not np.isfinite(H).all() or np.linalg.det(H) * np.sign(H[2, 2]) <= 0:
        return np.inf
    at = cv2.perspectiveTransform(cells[:, None].astype(float), H)[:, 0]
    step = float(np.median(np.linalg.norm(np.diff(at[:2], axis=0), axis=1)))
    left = xy - at
    if len(cells) >= 12:
        u = (cells - cells.mean(0)) / np.maximum(np.ptp(cells, 0), 1)
        r = u[:, 0] ** 2 + u[:, 1] ** 2
        A = np.stack([u[:, 0] * r, u[:, 1] * r, r, u[:, 0], u[:, 1], np.ones(len(u))], 1)
        left = left - A @ np.linalg.lstsq(A, left, rcond=None)[0]
    return float(np.linalg.norm(left, axis=1).max() / max(step, 1e-6))
