"""Draw the synthetic street without anyone in it, once: colours by lamplight, and temperatures.

Everything is computed from where each pixel's ray meets the world: the ground plane, the facades on both sides, or the
sky. World coordinates are metres: X to the right, Y up from the ground, Z along the street from the camera.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from rtfuse.types import Image

EYE_M = 1.6
"""Height of the camera above the ground."""
CURB_M = 3.6
"""Distance of the curbs from the middle of the road."""
FACADE_M = 6.2
"""Distance of the facades from the middle of the road."""
END_M = 75.0
LAMPS = tuple((side * (CURB_M + 0.4), z) for z in (9.0, 23.0, 37.0, 51.0, 65.0) for side in (-1, 1))
"""Ground positions (X, Z) of the street lamps."""
LAMP_M = 5.2
_LAMP_COLOUR = np.array([1.0, 0.74, 0.42], np.float32)
_AMBIENT = np.array([0.034, 0.044, 0.072], np.float32)
_TOWERS = ((-0.11, -0.05, -0.10), (-0.055, 0.02, -0.075), (0.015, 0.07, -0.125), (0.06, 0.12, -0.085))
"""Left, right and top edge of each far tower, as tangents of the ray."""
_STRIP_ROWS = 16
"""Rows that are drawn at a time: small arrays stay in the processor's cache, and each core draws strips of its own."""
_SIGNS = ("HOTEL", "CAFE", "METRO", "BAKERY", "OPEN", "TAXI", "BOOKS", "24H")


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Pinhole camera that looks along the street: focal length and vanishing point in pixels."""

    size_wh: tuple[int, int]
    focal_px: float
    vanish_px: tuple[float, float]

    def pixel(self, x_m: float, y_m: float, z_m: float) -> tuple[float, float]:
        """Return where the world point is seen."""
        scale = self.focal_px / z_m
        return self.vanish_px[0] + x_m * scale, self.vanish_px[1] + (EYE_M - y_m) * scale

    def enlarged(self, margin_px: int, factor: float) -> View:
        """Return this view with a margin on each side and `factor` times the pixels."""
        w, h = self.size_wh
        return View(
            (round((w + 2 * margin_px) * factor), round((h + 2 * margin_px) * factor)),
            self.focal_px * factor,
            # (0, 0) is the centre of the top-left pixel, so scaling turns about (-0.5, -0.5)
            tuple((v + margin_px + 0.5) * factor - 0.5 for v in self.vanish_px),  # type: ignore[arg-type]
        )


def lamplight(x: Image | float, y: Image | float, z: Image | float) -> Image:
    """Return the light of all lamps at a world point, about 1 under a lamp."""
    light = np.zeros(np.broadcast_shapes(np.shape(x), np.shape(y), np.shape(z)), np.float32)
    for lamp_x, lamp_z in LAMPS:
        reach_x = lamp_x - 0.9 * np.sign(lamp_x)
        distance2 = (x - reach_x) ** 2 + (z - lamp_z) ** 2 + 0.5 * (np.asarray(y) - LAMP_M) ** 2
        falloff = 15.0 + 1.6 * distance2
        light += 15.0 / (falloff * np.sqrt(np.sqrt(falloff))) * 15**0.25 * 1.9  # falloff to the power of -1.25
    return light


@dataclass(frozen=True, slots=True, eq=False)
class _Textures:
    """Hold the random parts of a street: tileable noise of each surface, brightness of each far tower's windows."""

    sky: Image
    towers: tuple[float, ...]
    plaster: Image
    road: Image
    grain: Image

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Textures:
        """Draw all of them, always in the same order: a seed is a street."""
        sky, towers = _texture(rng), tuple(rng.uniform(0.7, 1) for _ in _TOWERS)
        return cls(sky, towers, _texture(rng), _texture(rng), _texture(rng, octaves=7))


def draw_street(view: View, rng: np.random.Generator, shrink: int = 1) -> tuple[Image, Image]:
    """Return the empty street: (H, W, 3) uint8 RGB, and temperatures (H, W) float32 in °C.

    With `shrink`, H and W are that many times smaller than the view, and each pixel is the mean of those it stands for.
    """
    w, h = (side // shrink for side in view.size_wh)
    textures, colour, celsius = _Textures.draw(rng), np.empty((h, w, 3), np.uint8), np.empty((h, w), np.float32)

    def draw(top: int) -> None:
        rows = slice(top, min(top + _STRIP_ROWS // shrink, h))
        seen, warmth = _strip(view, textures, rows.start * shrink, rows.stop * shrink)
        size_wh = w, rows.stop - rows.start
        cv2.resize(seen, size_wh, dst=colour[rows], interpolation=cv2.INTER_AREA)
        cv2.resize(warmth, size_wh, dst=celsius[rows], interpolation=cv2.INTER_AREA)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(draw, range(0, h, _STRIP_ROWS // shrink)))
    return colour, celsius


def _strip(view: View, textures: _Textures, top: int, bottom: int) -> tuple[Image, Image]:
    """Return the rows `top` to `bottom` of the street, as `draw_street` does."""
    columns, rows = np.arange(view.size_wh[0], dtype=np.float32), np.arange(top, bottom, dtype=np.float32)
    u, v = np.meshgrid(columns, rows)
    dx = (u - view.vanish_px[0]) / view.focal_px
    dy = (v - view.vanish_px[1]) / view.focal_px
    colour, celsius = _sky(dx, dy, textures.sky)
    _far_block(colour, celsius, dx, dy, textures.towers)
    _facades(colour, celsius, dx, dy, textures.plaster)
    _ground(colour, celsius, dx, dy, textures)
    _halos(colour, view, u, v)
    return (colour.clip(0, 1) ** (1 / 1.5) * 255).astype(np.uint8), celsius


def _texture(rng: np.random.Generator, size: int = 512, octaves: int = 5) -> Image:
    """Draw tileable cloudy noise, (size, size) float32 of mean 0 and deviation 1."""
    total = np.zeros((size, size), np.float32)
    for k in range(octaves):
        coarse = rng.normal(size=(4 << k, 4 << k)).astype(np.float32)
        wrapped = np.pad(coarse, 2, mode="wrap")
        step = size // (4 << k)
        large = cv2.resize(wrapped, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        total += large[2 * step : 2 * step + size, 2 * step : 2 * step + size] / (1 + 0.6 * k)
    return total / total.std()


def _look_up(texture: Image, a: Image, b: Image, per_m: float) -> Image:
    """Sample a tileable texture at world coordinates."""
    size = texture.shape[0]
    return texture[(b * per_m).astype(np.int32) % size, (a * per_m).astype(np.int32) % size]


def _sky(dx: Image, dy: Image, texture: Image) -> tuple[Image, Image]:
    up = np.clip(-dy / 0.5, 0, 1)[..., None]
    glow, night = np.array([0.085, 0.060, 0.055], np.float32), np.array([0.008, 0.011, 0.024], np.float32)
    colour = glow * (1 - up) ** 2 + night * (1 - (1 - up) ** 2)
    clouds = _look_up(texture, dx, dy * 3, 160)
    colour = colour * (1 + 0.18 * clouds[..., None])
    # Clouded: a far colder sky would blacken the blurred edges of what stands before it.
    celsius = 3.6 - 32 * np.clip(-dy / 0.6, 0, 1) ** 2.5 + 0.6 * clouds
    return colour.astype(np.float32), celsius.astype(np.float32)


def _far_block(colour: Image, celsius: Image, dx: Image, dy: Image, brightness: tuple[float, ...]) -> None:
    """Close the street at its end with a few towers."""
    for (left, right, top), bright in zip(_TOWERS, brightness, strict=True):
        inside = (dx > left) & (dx < right) & (dy > top) & (dy < 0.03)
        if not inside.any():
            continue
        columns, rows = np.floor(dx / 0.0075), np.floor(dy / 0.009)
        lit = (_hash(columns, rows) < 0.22) & (np.mod(dx, 0.0075) > 0.002) & (np.mod(dy, 0.009) > 0.004)
        colour[inside] = (0.020, 0.021, 0.030)
        colour[inside & lit] = np.array([0.42, 0.31, 0.16]) * bright
        celsius[inside] = 5.5
        celsius[inside & lit] = 9.0


def _hash(a: Image, b: Image) -> Image:
    """Return a fixed random number in [0, 1) for every pair of whole numbers."""
    x = np.sin(a * 12.9898 + b * 78.233) * 43758.5453
    return x - np.floor(x)


def _facades(colour: Image, celsius: Image, dx: Image, dy: Image, texture: Image) -> None:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z = np.where(np.abs(dx) > 1e-6, FACADE_M / np.abs(dx), np.inf)
        y = EYE_M - dy * z
    side = np.sign(dx)
    house = np.floor(np.minimum(z, 1e4) / 9.0) * side + 0.5 * side
    names = {float(x) for x in np.unique(house[0][z[0] < END_M])}  # the same in every row
    height = 7.0 + 6.5 * _hash(house, house + 3)
    wall = (z < END_M) & (y > 0) & (y < height)
    if not wall.any():
        return
    z, y, house, height = z[wall], y[wall], house[wall], height[wall]
    tone = np.stack([0.24 + 0.11 * _hash(house, np.full_like(house, k)) for k in (1, 1.3, 2)], -1)
    plaster = _look_up(texture, z, y, 60)
    near = np.clip(9 / z, 0, 1)
    courses = 1 - 0.25 * near * ((np.mod(y, 0.35) < 0.05) | (np.mod(z + 0.5 * np.floor(y / 0.35), 1.0) < 0.04))
    albedo = tone * (courses * (1 + 0.10 * plaster))[:, None]
    light = lamplight(np.sign(house) * FACADE_M, y, z)[:, None] * _LAMP_COLOUR
    seen = albedo * (_AMBIENT + 0.5 * light)
    warmth = 8.5 + 3.0 * _hash(house, house + 7) + 0.3 * plaster + 0.8 * (y < 0.6)

    column, floor = np.floor(z / 2.25), np.floor(y / 3.0)
    across, up = np.mod(z, 2.25) - 1.1, np.mod(y, 3.0) - 1.75
    window = (np.abs(across) < 0.55) & (np.abs(up) < 0.75) & (y < height - 0.8) & (floor > 0)
    shop = (floor == 0) & (y > 0.5) & (y < 2.4) & (np.abs(np.mod(z, 4.5) - 2.25) < 1.75)
    chance = _hash(column + 31 * house, floor)
    frame = window & ((np.abs(across) > 0.48) | (np.abs(up) > 0.68) | (np.abs(across) < 0.04))
    lit = window & (chance < 0.30)
    shades = np.stack([np.full_like(chance, c) for c in (1.0, 0.72, 0.38)], -1)
    shades[chance < 0.06] = (0.45, 0.62, 1.0)  # someone watches television
    curtain = 0.55 + 0.45 * np.clip(np.abs(across) * 2.2, 0, 1)
    seen[window] = seen[window] * 0.25 + (0.012, 0.014, 0.02)
    seen[lit] = (shades * (0.35 + 0.45 * _hash(chance, house))[:, None] * curtain[:, None])[lit]
    open_shop = shop & (_hash(np.floor(z / 4.5), house) < 0.45)
    seen[shop] = seen[shop] * 0.3 + 0.01
    goods = 0.55 + 0.45 * _hash(np.floor(z / 0.45), np.floor(y / 0.6) + house)
    seen[open_shop] = (goods[:, None] * np.array([0.80, 0.66, 0.46]))[open_shop] * 0.62
    seen[frame] = albedo[frame] * 0.3 * (_AMBIENT + light[frame])
    warmth[window] = 6.5  # glass reflects the cold sky
    warmth[lit] = 11.5
    warmth[open_shop] = 13.0
    warmth[frame] += 0.7
    vent = (floor > 0) & (np.abs(across - 0.9) < 0.22) & (np.abs(up + 0.4) < 0.2) & (_hash(column, house) < 0.25)
    warmth[vent] = 21.0
    _signs(seen, z, y, house, names)
    colour[wall], celsius[wall] = seen, warmth


def _signs(seen: Image, z: Image, y: Image, house: Image, names: set[float]) -> None:
    """Put a lit name on every second house: there for the eye, not for the thermal camera."""
    hues = ((1.0, 0.25, 0.3), (0.35, 0.95, 0.6), (0.4, 0.7, 1.0), (1.0, 0.8, 0.35))
    for k, name in enumerate(sorted(names, key=abs)):
        if k % 3 == 2:
            continue
        text = _SIGNS[k % len(_SIGNS)]
        plate = np.zeros((64, 40 * len(text) + 24), np.uint8)
        cv2.putText(plate, text, (12, 48), cv2.FONT_HERSHEY_DUPLEX, 1.6, 255, 4, cv2.LINE_AA)
        mine = house == name
        start = (abs(name) - 0.5) * 9.0 + 2.0
        along = (z[mine] - start) / 4.6
        along = along if name < 0 else 1 - along  # read from left to right on both sides
        down = (3.35 - y[mine]) / 0.75
        board = (along >= 0) & (along < 1) & (down >= 0) & (down < 1)
        rows, columns = ((share[board] * n).astype(int) for share, n in zip((down, along), plate.shape, strict=True))
        part = seen[mine]
        part[board] = 0.015 + plate[rows, columns, None] / 255.0 * np.array(hues[k % len(hues)])
        seen[mine] = part


def _ground(colour: Image, celsius: Image, dx: Image, dy: Image, textures: _Textures) -> None:
    below = (dy > EYE_M / END_M) & (np.abs(dx) * EYE_M / np.maximum(dy, 1e-6) < FACADE_M)
    if not below.any():
        return
    z = EYE_M / dy[below]
    x = dx[below] * z
    near = np.clip(7 / z, 0, 1)
    patches = _look_up(textures.road, x, z, 30)
    fine = _look_up(textures.grain, x, z, 160) * near
    road = np.abs(x) < CURB_M
    curb = np.abs(np.abs(x) - CURB_M - 0.08) < 0.09
    joint = ~road & ((np.mod(z, 0.8) < 0.035) | (np.mod(x, 0.8) < 0.035))
    albedo = np.where(road, 0.20, 0.34) * (1 + 0.07 * patches + 0.10 * fine)
    albedo = np.where(joint, albedo * (1 - 0.45 * near), albedo)
    albedo = np.where(curb, 0.5, albedo)
    dash = (np.abs(x) < 0.07) & (np.mod(z, 6) < 3)
    edge = np.abs(np.abs(x) - CURB_M + 0.35) < 0.05
    zebra = (np.abs(z - 12.8) < 1.5) & (np.mod(x + 0.25, 1.0) < 0.5) & (np.abs(x) < CURB_M - 0.5)
    paint = dash | edge | zebra
    albedo = np.where(paint, 0.62 * (1 + 0.06 * fine), albedo)
    light = lamplight(x, 0.0, z)[:, None] * _LAMP_COLOUR
    seen = albedo[:, None] * (_AMBIENT * 0.8 + 0.62 * light)
    # A damp road: the lamps stretch into it towards the viewer.
    for lamp_x, lamp_z in LAMPS:
        mirror = np.exp(-(((x / z - (lamp_x * 0.78) / lamp_z) * 46) ** 2)) * (z < lamp_z) * np.exp((z - lamp_z) / 7)
        seen += (0.22 * mirror * road * (1 + 0.35 * patches))[:, None] * _LAMP_COLOUR
    warmth = np.where(road, 9.0, 10.4) + 0.25 * patches + np.where(curb, 0.7, 0.0) + np.where(paint, 0.25, 0.0)
    tracks = np.exp(-(((np.abs(np.abs(x) - 1.8) - 0.75) / 0.16) ** 2))
    colour[below], celsius[below] = seen, warmth + 1.1 * tracks * road


def _halos(colour: Image, view: View, u: Image, v: Image) -> None:
    """Add the lamps' glow in the air."""
    top, bottom = int(v[0, 0]), int(v[-1, 0]) + 1
    for x, z in LAMPS:
        cx, cy = view.pixel(x - 0.9 * np.sign(x), LAMP_M, z)
        radius = 1.1 * view.focal_px / z + 2
        lo_u, hi_u = (int(np.clip(cx + s * 5 * radius, 0, u.shape[1])) for s in (-1, 1))
        lo_v, hi_v = (int(np.clip(cy + s * 5 * radius, top, bottom)) - top for s in (-1, 1))
        part = np.s_[lo_v:hi_v, lo_u:hi_u]
        r2 = ((u[part] - cx) ** 2 + (v[part] - cy) ** 2) / radius**2
        colour[part] += (0.16 * np.exp(-r2 * 0.7) + 0.05 / (1 + 3 * r2) * np.exp(-r2 / 12))[..., None] * _LAMP_COLOUR
