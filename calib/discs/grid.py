"""Find a grid of discs in a picture."""

from __future__ import annotations

import numpy as np

from calib.discs.blobs import Disc, find_discs
from calib.discs.centre import centre_of
from calib.discs.lattice import lattices, misfit, orders
from rtfuse.types import Image

_MAX_MISFIT, _SURE_MISFIT = 0.35, 0.02
_MOST = 120
"""Number of blobs that are tried, the largest and clearest; noise has thousands."""


def find_grid(grey: Image, cells: Image) -> tuple[Image, Image] | None:
    """Find the discs of the lattice `cells` (N, 2) int in a stretched picture (h, w) uint8.

    Returns the centres (N, 2) in the order of the cells and the radii (N,), both in pixels. Returns None if a disc is
    missing or the lattice has more discs. The grid is never mirrored, and its first cell is as near to the top left
    of the image as possible.
    """
    discs = find_discs(grey)
    best: tuple[float, list[Disc]] = (_MAX_MISFIT, [])
    for dark in (True, False):
        some = sorted((d for d in discs if d.dark is dark), key=lambda d: -d.radius * abs(d.outside - d.inside))
        some = some[: max(_MOST, 3 * len(cells))]
        done: set[frozenset[int]] = set()
        for lattice in lattices(some, len(cells)) if len(some) >= len(cells) else ():
            members = frozenset(lattice.values())
            if members in done:
                continue
            ordered = [[some[k] for k in order] for order in orders(lattice, cells)]
            fits = [(misfit(cells, np.array([(d.x, d.y) for d in o])), o) for o in ordered]
            least = min((error for error, _ in fits), default=np.inf)
            if np.isfinite(least):
                done.add(members)  # otherwise the same discs may form another lattice
            if least < best[0]:
                # Turns of one lattice fit equally well; keeps the one that starts nearest to the top left.
                turns = [o for error, o in fits if error < 1.5 * least + 0.02]
                best = least, min(turns, key=lambda o: o[0].x + o[0].y)
            if best[0] < _SURE_MISFIT:
                break
    if not best[1]:
        return None
    chosen = _of_one_size(best[1], discs, cells)
    return np.array([centre_of(grey, d) for d in chosen]), np.array([d.radius for d in chosen])


def _of_one_size(chosen: list[Disc], discs: list[Disc], cells: Image) -> list[Disc]:
    """Return, for each position, the disc whose size agrees with its neighbours'.

    A reflection can make a part of a disc look like a smaller disc at the same position.
    """
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
