"""Put people and cars into pictures of the synthetic street."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np

from rtfuse.capture.synthetic.actors import Sprite, car, lamp, tree, walker
from rtfuse.capture.synthetic.street import CURB_M, LAMPS, View, draw_street, lamplight
from rtfuse.types import Image

PLANE_M = 15.0
"""The distance at which thermal and RGB agree by the scene's homography alone; the empty street agrees everywhere."""
_MARGIN_PX = 20
_PERIOD_S = 20.0
_STEPS = 16
"""Poses of a stride; with fewer the legs visibly jump."""
_CROSSINGS = ((-1.0, 12.8, 1), (3.0, 12.1, -1), (9.5, 27.0, 1))
"""Start in seconds, distance and direction of each person who crosses the street."""
_ALONG_M = 6, 46
"""Nearest and farthest distance of the people who walk along the street."""
_TREES = ((CURB_M + 1.0, 30.0), (-CURB_M - 1.0, 17.5))
"""Ground positions (X, Z)."""


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """Sprite at a place in the street."""

    kind: Literal["person", "car", "prop"]
    sprite: Sprite
    x_m: float
    z_m: float
    opacity: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Place things in a camera's image at one moment: `image_from_view` (2, 3) takes the resting view to its pixels."""

    view: View
    image_from_view: Image
    baseline_m: float

    def image_from_sprite(self, actor: Actor, level: int = 0) -> Image:
        """Return the (2, 3) transform from the pixels of a sprite's copy to those of the image."""
        w, h = actor.sprite.sizes_wh[level]
        scale = self.view.focal_px / actor.z_m * actor.sprite.height_m / h
        x, y = self.view.pixel(actor.x_m, 0.0, actor.z_m)
        x += self.view.focal_px * self.baseline_m * (1 / actor.z_m - 1 / PLANE_M)
        local = np.array([[scale, 0, x - scale * (w - 1) / 2], [0, scale, y - scale * (h - 0.5)], [0, 0, 1]])
        return self.image_from_view @ local

    def box(self, actor: Actor) -> tuple[float, float, float, float]:
        """Return the bounding box (left, top, right, bottom) of the sprite's visible part in the image."""
        left, top, right, bottom = actor.sprite.outline
        xy = np.array([[x, y, 1] for x in (left, right) for y in (top, bottom)]) @ self.image_from_sprite(actor).T
        low, high = xy.min(0), xy.max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


class Stage:
    """Drawings of one scene: the empty street, its people and its cars.

    seed: chooses the street.
    size_wh: size of the RGB camera's pictures.
    enlarged: how many times larger than in those the figures are at most shown.

    `colour` is (H + 2m, W + 2m, 3) uint8 RGB and `celsius` the same shape in °C, with a margin of m pixels for the
    camera's sway.
    """

    def __init__(self, seed: int, size_wh: tuple[int, int], enlarged: float = 1.0) -> None:
        w, h = size_wh
        rng = np.random.default_rng(seed)
        self.view = View(size_wh, 0.9 * max(w, 0.75 * h), (w * 0.5 - 0.5, h * 0.44))
        self.margin_px = max(4, round(_MARGIN_PX * w / 640))
        if w * h <= 1_000_000:
            self.colour, self.celsius = draw_street(self.view.enlarged(self.margin_px, 2.0), rng, shrink=2)
        else:
            drawn = draw_street(self.view.enlarged(self.margin_px, 1.25), rng)
            canvas_wh = (w + 2 * self.margin_px, h + 2 * self.margin_px)
            self.colour, self.celsius = (cv2.resize(x, canvas_wh, interpolation=cv2.INTER_AREA) for x in drawn)
        closest_px = enlarged * self.view.focal_px
        self._across = _stride(True, (0.11, 0.12, 0.17), closest_px / min(z for _, z, _ in _CROSSINGS))
        self._along = _stride(False, (0.13, 0.09, 0.08), closest_px / _ALONG_M[0])
        self._back = [sprite.turned() for sprite in self._across]
        self._cars = car(front=True, paint=(0.26, 0.04, 0.05)), car(front=False, paint=(0.13, 0.14, 0.18))
        lamps = {side: _seen_at(lamp(side), closest_px / min(z for _, z in LAMPS)) for side in (-1, 1)}
        self._props = [Actor("prop", lamps[int(np.sign(x))], x, z) for x, z in LAMPS if z < 60]
        for x, z in _TREES:
            self._props.append(Actor("prop", _seen_at(tree(rng), closest_px / z), x, z))
        self._starts = rng.uniform(0, 1, 8)

    def celsius_for(self, width: int) -> Image:
        """Return the temperatures, shrunk for a camera of that many columns so that nothing aliases."""
        share = width / self.view.size_wh[0]
        if share >= 1:
            return self.celsius
        return cv2.resize(self.celsius, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)

    def actors(self, t_s: float) -> list[Actor]:
        """Return everything that stands in the street at this time, far ones first."""
        return sorted([*self._props, *self._people(t_s), *self._traffic(t_s)], key=lambda a: -a.z_m)

    def _people(self, t_s: float) -> Iterator[Actor]:
        """Yield the people: some cross the road, some walk along it; all fade in and out at the ends of their way."""
        for start_s, z, way in _CROSSINGS:
            steps = self._across if way > 0 else self._back
            walked = 1.45 * ((t_s - start_s) % _PERIOD_S)
            if walked < 11.8:
                yield Actor("person", _step(steps, walked), way * (walked - 5.9), z, _fade(walked, 11.8))
        for k, (x, way) in enumerate(((4.7, -1), (-5.2, 1), (5.3, 1), (-4.6, -1), (4.9, -1))):
            near, far = _ALONG_M
            length = far - near
            walked = ((1.2 + 0.05 * k) * t_s + length * (0.2 * k + 0.5 * self._starts[k])) % length
            z = far - walked if way < 0 else near + walked
            yield Actor("person", _step(self._along, walked), x, z, _fade(walked, length))

    def _traffic(self, t_s: float) -> Iterator[Actor]:
        """Yield the cars: one comes, another one goes; neither while somebody crosses before it."""
        for sprite, start_s, x, speed in ((self._cars[0], 0.5, -1.8, -8.0), (self._cars[1], 16.5, 1.8, 7.0)):
            driven = abs(speed) * ((t_s - start_s) % _PERIOD_S)
            if driven < 80:
                far = driven if speed < 0 else 80 - driven
                yield Actor("car", sprite, x, 81.5 - driven if speed < 0 else 1.5 + driven, _fade(far, 1e9, 6.0))

    def sway(self, t_s: float, motion: float) -> Image:
        """Return where the swaying cameras' view, (3, 3) in RGB pixels, has moved from its resting place."""
        unit = motion * self.view.size_wh[0] / 640
        dx = unit * (2.6 * np.sin(1.9 * t_s) + 1.1 * np.sin(5.3 * t_s + 1))
        dy = unit * (1.4 * np.sin(2.7 * t_s + 2) + 0.8 * np.sin(6.1 * t_s))
        angle, zoom = np.radians(0.18 * motion * np.sin(1.3 * t_s)), 1 + 0.004 * motion * np.sin(0.9 * t_s)
        c, s = zoom * np.cos(angle), zoom * np.sin(angle)
        cx, cy = self.view.vanish_px
        return np.array([[c, -s, cx + dx - c * cx + s * cy], [s, c, cy + dy - s * cx - c * cy], [0, 0, 1]])

    def backdrop(self, canvas: Image, placement: Placement, size_wh: tuple[int, int]) -> Image:
        """Return the empty street as the camera sees it; `canvas` is `colour` or `celsius_for` its width."""
        share = canvas.shape[1] / self.celsius.shape[1]
        offset = (0.5 / share - 0.5) - self.margin_px
        view_from_canvas = np.array([[1 / share, 0, offset], [0, 1 / share, offset], [0, 0, 1]])
        transform = placement.image_from_view @ view_from_canvas
        return cv2.warpAffine(canvas, transform, size_wh, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def add_colour(self, image: Image, actor: Actor, placement: Placement) -> None:
        """Put an actor into an RGB picture, lit by the lamps around, or shining."""
        found = _cut_out(actor, placement, image.shape)
        if found is None:
            return
        (part, transform, size_wh, level), sprite = found, actor.sprite
        layer = cv2.warpAffine(sprite.placed(sprite.colour, level), transform, size_wh, flags=cv2.INTER_LINEAR)
        light = 0.12 + 0.95 * _light(round(actor.x_m, 1), round(actor.z_m, 1))
        cover = cv2.convertScaleAbs(cv2.extractChannel(layer, 3), alpha=actor.opacity)
        rest = cv2.cvtColor(cv2.bitwise_not(cover), cv2.COLOR_GRAY2RGB)
        lit = cv2.convertScaleAbs(cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB), alpha=light * actor.opacity)
        view = image[part]
        cv2.add(cv2.multiply(view, rest, scale=1 / 255), lit, dst=lit)
        if sprite.shine:
            glow = cv2.warpAffine(sprite.placed(sprite.shine, level), transform, size_wh, flags=cv2.INTER_LINEAR)
            cv2.add(lit, cv2.convertScaleAbs(glow, alpha=actor.opacity), dst=lit)
        view[:] = lit

    def add_heat(self, celsius: Image, actor: Actor, placement: Placement) -> None:
        """Put an actor into a picture of temperatures."""
        found = _cut_out(actor, placement, celsius.shape)
        if found is None:
            return
        (part, transform, size_wh, level), sprite = found, actor.sprite
        layer = cv2.warpAffine(sprite.placed(sprite.heat, level), transform, size_wh, flags=cv2.INTER_LINEAR)
        celsius[part] += actor.opacity * (layer[..., 0] - layer[..., 1] * celsius[part])


@lru_cache(maxsize=10_000)
def _light(x_m: float, z_m: float) -> float:
    return float(lamplight(x_m, 1.0, z_m))


def _stride(across: bool, coat: tuple[float, float, float], px_per_m: float) -> list[Sprite]:
    """Return the poses of a stride, shown at `px_per_m` at most. Legs pass a swing twice: both poses are one sprite."""
    swings = [round(float(np.sin(2 * np.pi * k / _STEPS)), 9) for k in range(_STEPS)]
    trousers = (0.07, 0.07, 0.09)
    poses = {
        swing: _seen_at(walker(swing, across=across, coat=coat, trousers=trousers, bag=across), px_per_m)
        for swing in set(swings)
    }
    return [poses[swing] for swing in swings]


def _seen_at(sprite: Sprite, px_per_m: float) -> Sprite:
    """Return the sprite with the copies that it needs where a metre has at most that many pixels."""
    return sprite.up_to(px_per_m * sprite.height_m / sprite.sizes_wh[0][1])


def _step(steps: list[Sprite], walked_m: float) -> Sprite:
    return steps[int(walked_m / 1.4 * _STEPS) % _STEPS]


def _fade(walked: float, length: float, over: float = 0.8) -> float:
    return float(np.clip(min(walked, length - walked) / over, 0, 1))


def _cut_out(
    actor: Actor, placement: Placement, shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], Image, tuple[int, int], int] | None:
    """Return the part of the image that the actor covers, and how to warp which copy of it into that part."""
    if actor.opacity <= 0:
        return None
    full = placement.image_from_sprite(actor)
    level = actor.sprite.level(float(np.hypot(full[0, 0], full[1, 0])))
    transform = placement.image_from_sprite(actor, level)
    w, h = actor.sprite.sizes_wh[level]
    corners = np.array([[-1, -1, 1], [w, -1, 1], [-1, h, 1], [w, h, 1]]) @ transform.T
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, shape[1::-1])
    if x0 >= x1 or y0 >= y1:
        return None
    moved = transform - np.array([[0, 0, x0], [0, 0, y0]])
    return (slice(y0, y1), slice(x0, x1)), moved, (int(x1 - x0), int(y1 - y0)), level
