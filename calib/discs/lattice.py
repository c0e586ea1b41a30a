"""Join discs into a lattice that the lens may bend, and match the lattice to a board."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Literal

import cv2
import numpy as np

from calib.discs.blobs import Disc
from rtfuse.types import Image

_LEAST_GRID, _GRID_MISFIT, _SEEDS = 9, 0.15, 8
_MOST_FILL = 0.68
"""Largest diameter of a disc, as a part of the distance to the next one."""
Cell = tuple[int, int]
"""Column and row of a disc in a lattice."""


def lattices(discs: list[Disc], count: int) -> Iterator[dict[Cell, int]]:
    """Yield lattices of `count` discs, as maps from cells to indices of `discs`; some more than once."""
    for lattice in _all_lattices(discs, count):
        if len(lattice) == count:
            yield lattice


def _all_lattices(discs: list[Disc], most: int, seeds: int | None = None) -> Iterator[dict[Cell, int]]:
    """Yield the lattices that grow from each of the first `seeds` discs along pairs of its neighbours.

    A lattice stops growing above `most` discs.
    """
    if len(discs) < 3:
        return
    xy = np.array([(d.x, d.y) for d in discs])
    radius = np.array([d.radius for d in discs])
    alike = _alike(discs)
    far = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    for seed in range(len(discs))[:seeds]:
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
            yield _grown(xy, alike, {(0, 0): seed, (1, 0): a, (0, 1): b}, most)


Grid = tuple[Literal["circles", "acircles"], Image, list[int]]
"""Kind of board, cells (N, 2) int as in `Board.cells`, and the index of the disc in each cell."""


def any_grid(discs: list[Disc]) -> tuple[Grid | None, bool]:
    """Return a complete grid of any size, at least 3 × 3, that discs form, and True if they form a part of one."""
    part = False
    done: set[frozenset[int]] = set()
    for lattice in _all_lattices(discs, 400, _SEEDS):
        members = frozenset(lattice.values())
        if len(lattice) < _LEAST_GRID or members in done:
            continue
        order = list(lattice.values())
        if not _is_alone(discs, order):
            done.add(members)
            continue
        part = True
        for kind, cells in _grid_shapes(np.array(list(lattice))):
            if misfit(cells, np.array([(discs[k].x, discs[k].y) for k in order])) < _GRID_MISFIT:
                return (kind, cells, order), True
    return None, part


def _is_alone(discs: list[Disc], order: list[int]) -> bool:
    """Return True if the discs of a grid keep apart, and no other disc of their size lies between them.

    The squares of a checkerboard look like discs in a blurred picture, but they touch each other.
    """
    xy, radius = np.array([(d.x, d.y) for d in discs]), np.array([d.radius for d in discs])
    hull = cv2.convexHull(xy[order].astype(np.float32))
    similar = np.abs(np.log(radius / np.median(radius[order]))) < 0.5
    inside = [cv2.pointPolygonTest(hull, (float(x), float(y)), False) >= 0 for x, y in xy]
    elsewhere = np.linalg.norm(xy[:, None] - xy[order], axis=2).min(1) > 0.5 * radius
    far = np.linalg.norm(xy[order][:, None] - xy[order], axis=2)
    np.fill_diagonal(far, np.inf)
    touching = np.median(2 * radius[order] / far.min(1)) > _MOST_FILL
    return not (touching or (similar & inside & elsewhere).any())


def _grid_shapes(steps: Image) -> Iterator[tuple[Literal["circles", "acircles"], Image]]:
    """Yield the kinds of board that lattice steps (N, 2) fill completely, and their cells (N, 2), not mirrored."""
    i, j = (steps - steps.min(0)).T
    for cells in (np.stack([i, j], 1), np.stack([j, i], 1)):
        if len(cells) == np.prod(cells.max(0) + 1) and cells.max(0).min() >= 2:
            yield "circles", cells
    for x, y in ((i + j, i - j), (i - j, i + j), (i + j, j - i), (j - i, i + j)):
        cells = np.stack([x - x.min(), y - y.min()], 1)
        rows = int(cells[:, 1].max()) + 1
        cols = len(cells) // rows
        for shift in (0, 1):
            wanted = {(2 * c + (r + shift) % 2, r) for r in range(rows) for c in range(cols)}
            if cols >= 2 and rows >= 3 and {(int(a), int(b)) for a, b in cells} == wanted:
                yield "acircles", cells


def _alike(discs: list[Disc]) -> Image:
    """Return the mask (N, N) bool of discs that may be neighbours on one board: similar size, grey and contrast."""
    radius, inside, outside = (np.array([getattr(d, n) for d in discs]) for n in ("radius", "inside", "outside"))
    size, contrast = radius[:, None] / radius, np.abs(outside - inside)
    share, least = contrast[:, None] / contrast, np.minimum(contrast[:, None], contrast)
    grey = np.abs(inside[:, None] - inside) < 0.6 * least
    return np.asarray((size > 0.5) & (size < 2.0) & (share > 0.4) & (share < 2.5) & grey)


def _grown(xy: Image, alike: Image, lattice: dict[Cell, int], count: int) -> dict[Cell, int]:
    """Return a lattice with all discs that can be reached from it; stops above `count` discs."""
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
    """Return the expected position of the next disc and the search radius, in pixels, from the nearest known steps."""
    (i, j), (di, dj) = at, step
    here = xy[lattice[at]]
    for side in ((dj, di), (-dj, -di)):  # the same step in the neighbouring rows
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
    # Perspective and distortion change the steps gradually.
    move = move + 0.8 * (move - (xy[lattice[back]] - xy[lattice[further]]))
    return here + move, 0.28 * float(np.linalg.norm(move))


def orders(lattice: dict[Cell, int], cells: Image) -> Iterator[list[int]]:
    """Yield the discs in the order of the board's `cells` (N, 2), for every turn and mirroring that fits them."""
    # A staggered grid is a square lattice turned by 45°: cell (x, y) is at steps (x + y) / 2 and (x - y) / 2.
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


def misfit(cells: Image, xy: Image) -> float:
    """Return the largest distance between a lattice and its model, in steps; infinity if the lattice is mirrored.

    The model is a homography. With at least 12 points, a low-order polynomial adds the lens's distortion.
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
