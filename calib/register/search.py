"""Search the position of thermal in the RGB picture, over turn, scale and shift, at a low resolution.

One Fourier transform for each turn and scale compares all shifts at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np

from calib.register.view import View, positions, stretch_matrix, structure_at
from rtfuse.types import Image

SEARCH_PX = 128
"""Approximate longest side of the pictures during the search, in pixels."""
LEAST_OVERLAP = 0.4
"""Least part of the smaller frame that must lie inside the other one."""
_TURNS_DEG = (-9.0, -6.0, -3.0, 0.0, 3.0, 6.0, 9.0)
NEAR = (0.87, 0.93, 1.0, 1.07, 1.15), _TURNS_DEG
"""Scales and turns of the first search, about the start."""
WIDE = tuple(np.geomspace(0.35, 1.75, 19)), (-8.0, -4.0, 0.0, 4.0, 8.0)
"""Scales and turns of the second search, used after the first one failed."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Result of the search: the matrix from thermal to view pixels, its score, and the start that led to it."""

    view_from_ir: Image
    score: float
    start: Image


def starts(view: View, ir_hw: tuple[int, int], start: Image | None) -> list[Image]:
    """Return the matrices, thermal to view pixels, to search around.

    Returns the given start. Without one, returns thermal stretched over the RGB picture and, if that changes the
    aspect ratio, thermal fitted by width and by height.
    """
    if start is not None:
        return [np.linalg.inv(view.rgb_from_view) @ start]
    stretch = stretch_matrix(ir_hw, view.hw)
    sx, sy = stretch[0, 0], stretch[1, 1]
    if abs(np.log(sx / sy)) < 0.03:
        return [stretch]
    (h, w), (ih, iw) = view.hw, ir_hw
    fitted = [
        np.array([[s, 0, ((w - 1) - s * (iw - 1)) / 2], [0, s, ((h - 1) - s * (ih - 1)) / 2], [0, 0, 1]])
        for s in (sx, sy)
    ]
    return [stretch, *fitted]


def search(view: View, around: Sequence[Image], scales: Sequence[float], turns_deg: Sequence[float]) -> list[Candidate]:
    """Return candidates, best first, for every start, scale and turn, each at its best shift."""
    found = []
    spectra: dict[int, list[Image]] = {}
    for start, scale, turn in product(around, scales, turns_deg):
        # A small thermal frame needs a finer grid.
        level = max(0, round(np.log2(max(view.hw) * min(scale, 1.0) / SEARCH_PX)))
        h, w = hw = view.level_hw(level)
        size = cv2.getOptimalDFTSize(int(1.6 * h)), cv2.getOptimalDFTSize(int(1.6 * w))
        if level not in spectra:
            spectra[level] = [_spectra(x, np.ones(hw, np.float32), size) for x in view.rgb(level)]
        view_from_grid = view.view_from_level(level)
        guess = np.linalg.inv(view_from_grid) @ _turned(start, view.hw, scale, turn)
        sums = _correlations(view, spectra[level], np.linalg.inv(guess), hw, size)
        least = LEAST_OVERLAP * len(view.irs) * min(h * w, abs(np.linalg.det(guess)) * view.irs[0].size)
        (sx, sy), score = _best_shift(sums, least)
        # thermal(p + s) matches RGB(p), so thermal moves by -s.
        move = np.array([[1, 0, -sx], [0, 1, -sy], [0, 0, 1]], float)
        found.append(Candidate(view_from_grid @ move @ guess, score, start))
    return sorted(found, key=lambda f: -f.score)


def _correlations(
    view: View, spectra: Sequence[Image], ir_from_grid: Image, hw: tuple[int, int], size: tuple[int, int]
) -> Image:
    """Return four correlations at every shift, summed over frames, (4, *size) float32.

    They are: the structures; thermal's power inside RGB's frame; RGB's power inside thermal's frame; the overlap of
    the frames.
    """
    sums = np.zeros((4, *size), np.float32)
    for ir, mask, b in zip(view.irs, view.masks, spectra, strict=True):
        a = _spectra(structure_at(ir, mask, ir_from_grid, hw), _inside(ir, ir_from_grid, hw), size)
        products = [(a[:5] * b[:5].conj()).sum(0), a[5] * b[6].conj(), a[6] * b[5].conj(), a[6] * b[6].conj()]
        sums += np.fft.irfft2(np.stack(products), size).astype(np.float32)
    return sums


def _best_shift(sums: Image, least_overlap: float) -> tuple[tuple[int, int], float]:
    """Return the shift (x, y) with the highest score, in pixels of the level, and the score."""
    dot, power_ir, power_rgb, overlap = sums
    total = float(power_rgb.max())
    share = np.clip(power_rgb / total, 1e-6, 1)
    ncc = dot / np.sqrt(np.maximum(power_ir * power_rgb, 1e-3 * total * max(float(power_ir.max()), 1e-6)))
    # Chance correlation falls with the root of the overlap; the score compensates for it.
    score = np.where(overlap > least_overlap, ncc * np.sqrt(share * total), 0)
    y, x = np.unravel_index(int(score.argmax()), score.shape)
    sx, sy = (int(k) if k < n // 2 else int(k) - n for k, n in ((x, score.shape[1]), (y, score.shape[0])))
    return (sx, sy), float(score[y, x])


def distinct(found: Sequence[Candidate], hw: tuple[int, int]) -> list[Candidate]:
    """Return the candidates without those that nearly repeat a better one."""
    corners = np.array([[[0, 0]], [[hw[1], 0]], [[hw[1], hw[0]]], [[0, hw[0]]]], float)
    kept: list[tuple[Candidate, Image]] = []
    for f in found:
        at = cv2.perspectiveTransform(corners, np.linalg.inv(f.view_from_ir))
        at = at * np.sqrt(abs(np.linalg.det(f.view_from_ir[:2, :2])))
        if all(np.linalg.norm(at - other, axis=-1).mean() > 0.08 * max(hw) for _, other in kept):
            kept.append((f, at))
    return [f for f, _ in kept]


def _spectra(channels: Image, inside: Image, size: tuple[int, int]) -> Image:
    """Return the Fourier transforms of the five channels, of their power and of a mask, zero-padded to `size`."""
    power = np.einsum("chw,chw->hw", channels, channels)
    return np.fft.rfft2(np.concatenate([channels, power[None], inside[None]]), size)


def _inside(ir: Image, ir_from_grid: Image, hw: tuple[int, int]) -> Image:
    """Return the mask (H, W) float32 of the grid pixels that lie inside the thermal picture."""
    at, last = positions(ir_from_grid, hw), np.array(ir.shape[::-1], np.float32) - 1
    return np.asarray(((at >= 0) & (at <= last)).all(-1), np.float32)


def _turned(start: Image, hw: tuple[int, int], scale: float, turn_deg: float) -> Image:
    """Return the start, then scaled and turned about the picture's centre."""
    m = np.vstack([cv2.getRotationMatrix2D(((hw[1] - 1) / 2, (hw[0] - 1) / 2), turn_deg, scale), [0, 0, 1]])
    return m @ start
