"""Render a world of flat, textured faces as two pinhole cameras see it, with the true depth of every pixel.

The street of `scene` has parallax for its figures alone; here everything has: a sloping ground, walls, and people as
boxes. Each pixel's ray is cut with each face, so that depth is exact to rounding. World and cameras have OpenCV's
axes: x right, y down, z forward, in metres.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rtfuse.types import Image, Stream

_NEAR_M = 0.05
"""Faces are cut off in front of this depth."""
_SKY = {"rgb": (96.0, 116.0, 150.0), "ir": (20.0,)}


@dataclass(frozen=True, slots=True, eq=False)
class Pinhole:
    """Camera without distortion: its picture's size, `K` (3, 3), and its place and direction in the world."""

    size_wh: tuple[int, int]
    K: Image
    R_camera_from_world: Image
    centre_m: Image

    def project(self, points: Image) -> tuple[Image, Image]:
        """Return the pixels (N, 2) and the depths (N,) in metres of points (N, 3); pixels behind it mean nothing."""
        seen = (points - self.centre_m) @ self.R_camera_from_world.T
        depth = seen[:, 2]
        flat = seen / np.where(np.abs(depth) < 1e-12, 1e-12, depth)[:, None]
        return (flat @ self.K.T)[:, :2], depth

    def lifted(self, pixels: Image, depth_m: Image) -> Image:
        """Return the points (N, 3) of pixels (N, 2) at depths (N,)."""
        return self.rays(pixels) * depth_m[:, None] + self.centre_m

    def rays(self, pixels: Image) -> Image:
        """Return the directions (N, 3) of pixels (N, 2) in the world; a step of 1 along one is 1 m of depth."""
        ones = np.concatenate([pixels, np.ones((len(pixels), 1))], 1)
        return np.asarray(ones @ np.linalg.inv(self.K).T @ self.R_camera_from_world)


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """Parallelogram with a texture of tiles: from `corner`, along `across` and `down` (3,), all in metres.

    `colour` is its mean RGB, `grey` its mean level in thermal, `contrast` how far tiles differ from them at most.
    `name` tells the thing that it belongs to.
    """

    name: str
    corner: Image
    across: Image
    down: Image
    colour: tuple[float, float, float]
    grey: float
    contrast: float = 40.0
    tile_m: float = 0.5

    def crossed(self, rays: Image, centre_m: Image) -> tuple[Image, Image, Image]:
        """Return depth, and the place along `across` and `down` in their lengths, of rays (N, 3); depth inf: missed."""
        normal = np.cross(self.across, self.down)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = ((self.corner - centre_m) @ normal) / (rays @ normal)
            at = rays * depth[:, None] + (centre_m - self.corner)
        dual = np.linalg.pinv(np.stack([self.across, self.down], 1))
        u, v = np.nan_to_num(dual @ at.T, nan=-1, posinf=-1, neginf=-1)
        missed = ~((depth > _NEAR_M) & (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1))
        return np.where(missed, np.inf, depth), u, v

    def texture(self, u: Image, v: Image, stream: Stream) -> Image:
        """Return the levels (N, 3) or (N, 1) at places on the face: tiles whose edges both cameras see."""
        i = np.floor(u * np.linalg.norm(self.across) / self.tile_m).astype(np.int64)
        j = np.floor(v * np.linalg.norm(self.down) / self.tile_m).astype(np.int64)
        salt = sum(self.name.encode()) * 7919 + (104729 if stream == "ir" else 0)
        mean = np.array(self.colour if stream == "rgb" else (self.grey,))
        return mean + (self.contrast * (2 * _hashed(i, j, salt) - 1))[:, None]


def _hashed(i: Image, j: Image, salt: int) -> Image:
    """Return a fixed number in [0, 1) for each pair of integers: a multiplicative hash of 32 bits."""
    with np.errstate(over="ignore"):
        x = i.astype(np.uint32) * np.uint32(0x9E3779B1) ^ j.astype(np.uint32) * np.uint32(0x85EBCA77) ^ np.uint32(salt)
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return np.asarray((x ^ (x >> np.uint32(16))) / 2**32)


def box(
    name: str,
    middle: Sequence[float],
    size: Sequence[float],
    colour: tuple[float, float, float],
    grey: float,
    tile_m: float = 0.25,
) -> Iterator[Face]:
    """Yield the sides of a box whose ground's centre is `middle`: `size` is its width, height and length in metres."""
    (x, y, z), (w, h, d) = middle, size
    low, right, up, far = np.array([x - w / 2, y, z - d / 2]), *np.diag([w, -h, d])
    for corner, across, down in (
        (low, right, up),
        (low + far, right, up),
        (low, far, up),
        (low + right, far, up),
        (low + up, right, far),
    ):
        yield Face(name, corner, across, down, colour, grey, 25.0, tile_m)


class Solids:
    """World of faces; near ones hide far ones."""

    def __init__(self, faces: Iterable[Face]) -> None:
        self.faces = list(faces)

    def seen(self, camera: Pinhole, fine: int = 1) -> tuple[Image, Image, Image]:
        """Return depth (h, w) float64 in metres, the number of the face (-1: none), and the place on it (h, w, 2).

        There are `fine` × `fine` rays a pixel; with one, it goes through the pixel's centre. Depth is along the
        camera's axis, inf where there is nothing.
        """
        w, h = (n * fine for n in camera.size_wh)
        depth, number, place = np.full((h, w), np.inf), np.full((h, w), -1), np.zeros((h, w, 2))
        for k, face in enumerate(self.faces):
            rows, columns = _reached(face, camera, fine)
            if rows.start >= rows.stop or columns.start >= columns.stop:
                continue
            y, x = np.mgrid[rows, columns]
            pixels = (np.stack([x.ravel(), y.ravel()], 1) + 0.5) / fine - 0.5
            found, u, v = (n.reshape(x.shape) for n in face.crossed(camera.rays(pixels), camera.centre_m))
            nearer = found < depth[rows, columns]
            depth[rows, columns][nearer], number[rows, columns][nearer] = found[nearer], k
            place[rows, columns][nearer] = np.stack([u, v], -1)[nearer]
        return depth, number, place

    def picture(self, camera: Pinhole, stream: Stream, fine: int = 2) -> Image:
        """Return the picture: (H, W, 3) uint8 of `rgb`, (H, W) uint8 of `ir`; means of `fine` × `fine` rays a pixel."""
        _, number, place = self.seen(camera, fine)
        sky = np.array(_SKY[stream])
        levels = np.empty((*number.shape, len(sky)))
        levels[:] = sky
        for k, face in enumerate(self.faces):
            here = number == k
            if here.any():
                u, v = place[here].T
                levels[here] = face.texture(u, v, stream)
        w, h = camera.size_wh
        mean = levels.reshape(h, fine, w, fine, -1).mean((1, 3))
        image = np.rint(mean.clip(0, 255)).astype(np.uint8)
        return image if stream == "rgb" else image[..., 0]


def _reached(face: Face, camera: Pinhole, fine: int) -> tuple[slice, slice]:
    """Return the rows and columns of rays that may meet the face."""
    ends = face.corner + np.array([face.across * 0, face.across, face.down, face.across + face.down])
    (w, h), (pixels, depth) = camera.size_wh, camera.project(ends)
    if (depth < _NEAR_M).all():
        return slice(0, 0), slice(0, 0)
    if (depth < _NEAR_M).any():
        return slice(0, h * fine), slice(0, w * fine)
    low = np.clip(np.floor(pixels.min(0)) - 1, 0, (w, h)).astype(int) * fine
    high = np.clip(np.ceil(pixels.max(0)) + 2, 0, (w, h)).astype(int) * fine
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Yard:
    """Yard with walls and people at several distances, before a rig of two cameras.

    - `baseline_m`: thermal is this far to the right of RGB; `lower_m`: and this far below.
    - `height_m`: of the RGB camera above the ground under it; `pitch_deg`: the rig looks down by this much.
    - `slope_deg`: the ground rises away from the rig; `yaw_deg`: the rig is turned to the right.
    - `toe_deg`: the thermal camera is turned to the left against RGB.
    - `people_m`: distances of the people, along the yard; they walk to and fro across it.
    """

    size_wh: tuple[int, int] = (640, 480)
    ir_size_wh: tuple[int, int] = (640, 480)
    focal: float = 0.9
    """Focal length of both cameras in widths of their pictures."""
    baseline_m: float = 0.1
    lower_m: float = 0.0
    height_m: float = 1.8
    pitch_deg: float = 0.0
    slope_deg: float = 0.0
    yaw_deg: float = 0.0
    toe_deg: float = 0.0
    people_m: tuple[float, ...] = (3.0, 5.0, 8.0, 14.0, 25.0)

    def camera(self, stream: Stream) -> Pinhole:
        """Return a camera of the rig; the world's origin is the RGB camera."""
        R_rgb = turn("x", -self.pitch_deg) @ turn("y", -self.yaw_deg)
        if stream == "rgb":
            return Pinhole(self.size_wh, self._K(self.size_wh), R_rgb, np.zeros(3))
        R = self.R_rgb_from_ir.T @ R_rgb
        return Pinhole(self.ir_size_wh, self._K(self.ir_size_wh), R, R_rgb.T @ self.t_rgb_from_ir_m)

    def _K(self, size_wh: tuple[int, int]) -> Image:
        w, h = size_wh
        return np.array([[self.focal * w, 0, (w - 1) / 2], [0, self.focal * w, (h - 1) / 2], [0, 0, 1]])

    @property
    def R_rgb_from_ir(self) -> Image:
        """The rotation (3, 3) from thermal's system to RGB's."""
        return turn("y", -self.toe_deg)

    @property
    def t_rgb_from_ir_m(self) -> Image:
        """The thermal camera's place (3,) in RGB's system, in metres."""
        return np.array([self.baseline_m, self.lower_m, 0.0])

    def world(self, t_s: float = 0.0) -> Solids:
        """Return the world at a time in seconds."""
        return Solids([*self._yard(), *self._people(t_s)])

    def ground_m(self, z_m: float) -> float:
        """Return how far below the RGB camera the ground is, at a distance along the yard."""
        return float(self.height_m - np.tan(np.radians(self.slope_deg)) * z_m)

    def _yard(self) -> Iterator[Face]:
        far, half, near, tall = 60.0, 12.0, -2.0, 5.0
        back, front = self.ground_m(far), self.ground_m(near)
        forth = np.array([0, back - front, far - near])
        low, up, right = np.array([-half, front, near]), np.array([0, -tall, 0.0]), np.array([2 * half, 0, 0.0])
        yield Face("ground", low, right, forth, (90, 84, 76), 78, 30, 1.0)
        yield Face("left wall", low, forth, up, (120, 100, 90), 96, 40, 1.0)
        yield Face("right wall", low + right, forth, up, (100, 106, 112), 90, 40, 1.0)
        yield Face("back wall", low + forth, right, up, (110, 112, 104), 104, 45, 1.5)

    def _people(self, t_s: float) -> Iterator[Face]:
        for k, z in enumerate(self.people_m):
            reach = min(0.30 / self.focal * z, 8.0)
            x = reach * np.sin(2.4 * k + (0.6 if k % 2 else -0.5) * t_s) + np.tan(np.radians(self.yaw_deg)) * z
            y = self.ground_m(z)
            yield from box(f"person at {z:g} m", (x, y, z), (0.5, 1.35, 0.3), (60, 62, 80), 196)
            yield from box(f"person at {z:g} m", (x, y - 1.35, z), (0.24, 0.3, 0.22), (150, 120, 104), 226, 0.12)

    def truth(self, t_s: float = 0.0) -> Truth:
        """Return the truth of a moment for the pixels of the RGB picture."""
        world, rgb, ir = self.world(t_s), self.camera("rgb"), self.camera("ir")
        depth, number, _ = world.seen(rgb)
        w, h = self.size_wh
        pixels = np.stack(np.meshgrid(np.arange(w, dtype=float), np.arange(h, dtype=float)), -1).reshape(-1, 2)
        far = np.where(np.isfinite(depth), depth, 1e6).ravel()
        points = rgb.lifted(pixels, far)
        xy, ir_depth = ir.project(points)
        hit = _first_hit(world, ir.centre_m, points)
        inside = ((xy >= 0) & (xy <= np.array(self.ir_size_wh) - 1)).all(1) & (ir_depth > 0)
        names = np.array([face.name for face in world.faces] + ["sky"])[number]
        return Truth(depth, names, xy.reshape(h, w, 2), (inside & hit).reshape(h, w))


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """True geometry of one RGB picture.

    - `depth_m`: (H, W) float64 along RGB's axis, inf in the sky. `name`: (H, W) the thing that is seen.
    - `ir_xy`: (H, W, 2) float64, where the same point lies in thermal's picture, in pixels.
    - `visible`: (H, W) bool, True where thermal sees that point too: inside its picture, and nothing hides it.
    """

    depth_m: Image
    name: Image
    ir_xy: Image
    visible: Image


def _first_hit(world: Solids, centre_m: Image, points: Image) -> Image:
    """Return True for points (N, 3) that a camera at `centre_m` sees: no face lies before them."""
    free, rays = np.ones(len(points), bool), points - centre_m
    for face in world.faces:
        free &= face.crossed(rays, centre_m)[0] > 1 - 1e-6  # in lengths of the ray: 1 is the point itself
    return free


def turn(axis: Literal["x", "y"], degrees: float) -> Image:
    """Return the rotation (3, 3) about x (positive: down) or y (positive: right) of OpenCV's axes."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
