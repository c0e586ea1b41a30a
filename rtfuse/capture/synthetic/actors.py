"""Draw the figures of the synthetic street: people, cars, lamps and trees, as small pictures placed by distance.

Every figure has two faces, one for light and one for heat, drawn from the same outline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from rtfuse.types import Image

Colour = tuple[float, float, float]
_SUPER = 2
"""Figures are drawn this much larger and then shrunk, which smooths their edges."""


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """Figure, standing at the middle of its lower edge, in a row of copies, each half as large as the one before.

    height_m: height of the whole picture.
    outline: left, top, right and bottom of the visible part, in pixels of the largest copy.
    sizes_wh: size of each copy, also of those that `up_to` has left out.
    colour: each copy (h, w, 4) uint8, RGB premultiplied by alpha.
    heat: each copy (h, w, 2) float32, premultiplied temperature in °C, and alpha.
    shine: each copy (h, w, 3) uint8, light that the figure itself gives; None if it gives none.
    mirrored: the copies are turned when they are placed; that costs less memory than a second set.
    """

    height_m: float
    outline: tuple[int, int, int, int]
    sizes_wh: list[tuple[int, int]]
    colour: list[Image]
    heat: list[Image]
    shine: list[Image] | None = None
    mirrored: bool = False

    @property
    def largest(self) -> int:
        """Return the level of the largest copy that is kept."""
        return len(self.sizes_wh) - len(self.heat)

    def level(self, scale: float) -> int:
        """Return the smallest copy that need not be enlarged to show the figure `scale` times its full size."""
        return int(np.clip(np.floor(-np.log2(max(scale, 1e-6))), self.largest, len(self.sizes_wh) - 1))

    def placed(self, copies: list[Image], level: int) -> Image:
        """Return one of the copies, from left to right as it is seen."""
        copy = copies[level - self.largest]
        return cv2.flip(copy, 1) if self.mirrored else copy

    def up_to(self, scale: float) -> Sprite:
        """Return the sprite without the copies that it needs only where it is shown larger than `scale` times."""
        left_out = self.level(scale) - self.largest
        shine = self.shine[left_out:] if self.shine else None
        return replace(self, colour=self.colour[left_out:], heat=self.heat[left_out:], shine=shine)

    def turned(self) -> Sprite:
        """Return the figure as it looks the other way round."""
        left, top, right, bottom = self.outline
        width = self.sizes_wh[0][0]
        return replace(self, outline=(width - 1 - right, top, width - 1 - left, bottom), mirrored=not self.mirrored)


class _Canvas:
    """Draws one figure's outline into light, heat and shine at once. Coordinates are those of the finished picture."""

    def __init__(self, width: int, height: int) -> None:
        shape = (height * _SUPER, width * _SUPER)
        self.colour = np.zeros((*shape, 3), np.float32)
        self.alpha = np.zeros(shape, np.float32)
        self.heat = np.zeros(shape, np.float32)
        self.shine: Image | None = None

    def paint(self, colour: Colour, celsius: float, shape: Callable[[Image], object]) -> None:
        """Lay a shape, drawn white by `shape`, over the figure."""
        mask = np.zeros(self.alpha.shape, np.uint8)
        shape(mask)
        x, y, w, h = cv2.boundingRect(mask)
        part = np.s_[y : y + h, x : x + w]
        inside = mask[part] > 127
        self.colour[part][inside], self.heat[part][inside], self.alpha[part][inside] = colour, celsius, 1.0

    def oval(self, colour: Colour, celsius: float, x: float, y: float, rx: float, ry: float) -> None:
        """Paint an upright ellipse."""
        centre, axes = _at((x, y)), _at((rx, ry))
        self.paint(colour, celsius, lambda m: cv2.ellipse(m, centre, axes, 0, 0, 360, 255, -1))

    def stroke(self, colour: Colour, celsius: float, width: float, *points: tuple[float, float]) -> None:
        """Paint a line with round ends."""
        line = [np.array([_at(p) for p in points], np.int32)]
        self.paint(colour, celsius, lambda m: cv2.polylines(m, line, False, 255, round(width * _SUPER)))

    def area(self, colour: Colour, celsius: float, *points: tuple[float, float]) -> None:
        """Paint a polygon."""
        outline = np.array([_at(p) for p in points], np.int32)
        self.paint(colour, celsius, lambda m: cv2.fillPoly(m, [outline], 255))

    def light(self, colour: Colour, x: float, y: float, radius: float, strength: float = 1.0) -> None:
        """Add a glowing point."""
        rows, columns = np.ogrid[: self.alpha.shape[0], : self.alpha.shape[1]]
        r2 = ((columns / _SUPER - x) ** 2 + (rows / _SUPER - y) ** 2) / radius**2
        glow = (strength * (np.exp(-2 * r2) + 0.10 * np.exp(-r2 / 6)))[..., None] * np.array(colour, np.float32)
        self.shine = glow.astype(np.float32) if self.shine is None else self.shine + glow.astype(np.float32)

    def sprite(self, height_m: float) -> Sprite:
        """Finish: shrink, premultiply, and make the smaller copies."""
        shape = (self.alpha.shape[1] // _SUPER, self.alpha.shape[0] // _SUPER)
        layers = [self.colour * self.alpha[..., None], self.alpha, self.heat * self.alpha]
        colour, alpha, heat = (cv2.resize(x, shape, interpolation=cv2.INTER_AREA) for x in layers)
        shine = None
        if self.shine is not None:
            shine = _copies(_bytes(cv2.resize(_fading(self.shine), shape, interpolation=cv2.INTER_AREA)))
        warm = _copies(np.dstack([heat, alpha]))
        rows, columns = (np.flatnonzero((alpha > 0.5).any(axis)) for axis in (1, 0))
        outline = int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
        sizes_wh = [(x.shape[1], x.shape[0]) for x in warm]
        return Sprite(height_m, outline, sizes_wh, _copies(_bytes(np.dstack([colour, alpha]))), warm, shine)


def _copies(image: Image) -> list[Image]:
    """Return an image and ever smaller copies of it."""
    copies = [image]
    while min(copies[-1].shape[:2]) > 12:
        copies.append(cv2.resize(copies[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return copies


def _fading(shine: Image) -> Image:
    """Let a glow end before its picture does: it would show the picture's edge."""
    fades = [np.minimum(np.arange(n), np.arange(n)[::-1]) / (0.2 * n) for n in shine.shape[:2]]
    fade = np.minimum(1, fades[0])[:, None] * np.minimum(1, fades[1])
    return (shine * fade[..., None] ** 1.5).astype(np.float32)


def _at(point: tuple[float, float]) -> tuple[int, int]:
    return round(point[0] * _SUPER), round(point[1] * _SUPER)


def _bytes(x: Image) -> Image:
    return (x.clip(0, 1) * 255).round().astype(np.uint8)


def walker(swing: float, *, across: bool, coat: Colour, trousers: Colour, bag: bool) -> Sprite:
    """Draw a person 1.75 m tall, from the side or from the front; legs and arms are at `swing` (-1 to 1) of a step."""
    c = _Canvas(120, 240)
    x, hip, shoulder = 60.0, 128.0, 62.0
    skin: Colour = (0.55, 0.40, 0.32)
    stride = 26.0 if across else 5.0
    for side in (-1, 1):
        s = side * swing
        width = 0.0 if across else 8.0 * side
        knee = (x + width + 0.7 * stride * s + (5 if across else 0), 176 - (4 * max(s, 0) if across else 7 * max(s, 0)))
        foot = (x + width + stride * s, 230 - (5 if across else 12) * max(s * (1 if across else side * side), 0))
        c.stroke(trousers, 22.0, 19, (x + width * 0.6, hip), knee)
        c.stroke(trousers, 21.0, 15, knee, foot)
        c.stroke((0.05, 0.05, 0.05), 17.0, 12, foot, (foot[0] + (9 if across else 0), foot[1] + 3))
        if side < 0:
            _arm(c, (x, shoulder), -s, stride, across, side, coat, skin)
    c.area(coat, 25.0, (x - 21, 66), (x + 21, 66), (x + 19, 140), (x - 19, 140))
    c.oval(coat, 25.5, x, 70, 23, 16)
    c.oval(coat, 24.0, x, 138, 20, 12)
    c.stroke(skin, 32.0, 12, (x, 46), (x, 58))
    c.oval(skin, 33.5, x + (2 if across else 0), 30, 14.5, 18)
    c.oval((0.10, 0.07, 0.05), 27.5, x - (2 if across else 0), 22, 15, 13)
    c.oval(skin, 33.8, x + (5 if across else 0), 33, 10.5, 13)
    _arm(c, (x, shoulder), swing, stride, across, 1, coat, skin)
    if bag:
        c.area((0.16, 0.05, 0.05), 14.0, (x - 26, 78), (x - 8, 74), (x - 8, 122), (x - 24, 124))
    return c.sprite(1.75 * 240 / 222)


def _arm(
    c: _Canvas,
    shoulder: tuple[float, float],
    s: float,
    stride: float,
    across: bool,
    side: int,
    coat: Colour,
    skin: Colour,
) -> None:
    x, y = shoulder
    out = 0.0 if across else 24.0 * side
    hand = (x + out + stride * 0.9 * s, y + 68)
    c.stroke(coat, 24.0, 13, (x + out * 0.85, y + 6), (x + out + stride * 0.4 * s - 2, y + 38), hand)
    c.oval(skin, 31.0, hand[0], hand[1] + 3, 6.5, 8)


def car(*, front: bool, paint: Colour) -> Sprite:
    """Draw a car 1.8 m wide and 1.5 m tall, from the front or from behind, engine warm, lights on."""
    c, dark = _Canvas(300, 240), (0.03, 0.03, 0.035)
    for x in (70, 230):
        c.area((0.015, 0.015, 0.015), 24.0, (x - 24, 170), (x + 24, 170), (x + 24, 232), (x - 24, 232))
    c.area(paint, 12.5, (88, 66), (212, 66), (244, 132), (56, 132))
    c.area(dark, 9.5 if front else 8.5, (96, 76), (204, 76), (226, 128), (74, 128))
    if front:
        c.oval((0.05, 0.05, 0.05), 27.0, 118, 116, 13, 17)  # the driver's head behind glass
    c.area(paint, 24.0 if front else 13.5, (52, 128), (248, 128), (272, 158), (272, 206), (28, 206), (28, 158))
    c.area(dark, 30.0 if front else 14.0, (92, 172), (208, 172), (204, 198), (96, 198))
    c.area((0.05, 0.05, 0.05), 16.0, (30, 200), (270, 200), (262, 218), (38, 218))
    c.area((0.5, 0.5, 0.48), 15.0, (124, 178), (176, 178), (176, 192), (124, 192))
    if front:
        for x in (60, 240):
            c.oval((0.9, 0.9, 0.85), 31.0, x, 164, 20, 11)
            c.light((1.0, 0.96, 0.86), x, 164, 26, 1.25)
    else:
        for x in (50, 250):
            c.area((0.45, 0.02, 0.02), 16.0, (x - 18, 146), (x + 18, 146), (x + 16, 168), (x - 16, 168))
            c.light((1.0, 0.10, 0.07), x, 157, 19, 0.9)
        c.oval((0.06, 0.06, 0.06), 62.0, 84, 214, 9, 6)  # exhaust
        c.oval(dark, 33.0, 100, 212, 20, 6)
    return c.sprite(1.5 * 240 / 166)


def lamp(side: int) -> Sprite:
    """Draw a street lamp 5.4 m tall whose arm reaches over the road."""
    c = _Canvas(120, 480)
    x = 60 + 18 * side
    arm = x - 74 * side
    c.stroke((0.07, 0.07, 0.08), 8.0, 7, (x, 478), (x, 30))
    c.stroke((0.07, 0.07, 0.08), 8.0, 12, (x, 478), (x, 420))
    c.stroke((0.07, 0.07, 0.08), 8.5, 5, (x, 32), (arm, 16))
    c.stroke((0.10, 0.10, 0.10), 15.0, 11, (arm - 9, 16), (arm + 9, 16))
    c.stroke((1.0, 0.86, 0.60), 24.0, 6, (arm - 7, 21), (arm + 7, 21))
    return c.sprite(5.4)  # its glow is part of the street, where it stands still


def tree(rng: np.random.Generator) -> Sprite:
    """Draw a street tree 6 m tall: cool leaves, a trunk that keeps the day's warmth."""
    c = _Canvas(240, 320)
    c.stroke((0.10, 0.075, 0.05), 11.5, 13, (120, 318), (118, 190))
    for branch in ((80, 150), (160, 140), (120, 110)):
        c.stroke((0.10, 0.075, 0.05), 10.5, 7, (118, 200), branch)
    for _ in range(260):
        angle, r = rng.uniform(0, 2 * np.pi), 92 * np.sqrt(rng.uniform())
        x, y = 120 + r * np.cos(angle) * 1.05, 108 + r * np.sin(angle) * 0.92
        shade = 0.7 + 0.5 * rng.uniform() - 0.002 * (y - 60)
        leaf = (0.08 * shade, 0.13 * shade, 0.05 * shade)
        c.oval(leaf, 7.6 + rng.uniform(-0.5, 0.5), x, y, rng.uniform(5, 11), rng.uniform(4, 9))
    return c.sprite(6.0)
