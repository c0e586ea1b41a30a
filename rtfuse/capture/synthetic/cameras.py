"""Draw the pictures of the synthetic scene's two cameras."""

from __future__ import annotations

import cv2
import numpy as np

from rtfuse.capture.synthetic.scene import SyntheticScene
from rtfuse.types import Image

DISPLAY_C = (3.0, 36.0)
"""Temperatures that 8-bit thermal shows as 0 and 255."""


class ColourCamera:
    """Draw the RGB camera's picture, (H, W, 3) uint8."""

    def __init__(self, scene: SyntheticScene) -> None:
        self._scene, self._stage = scene, scene.stage
        w, h = scene.size
        # Two layers of bytes: OpenCV adds those many times faster than signed ones.
        self._lighter, self._darker = np.empty((2, h + 64, w + 64, 3), np.uint8)
        rng = np.random.default_rng(scene.seed + 1)
        for lighter, darker in zip(self._lighter, self._darker, strict=True):  # row by row: little memory
            grain = rng.normal(0, scene.noise, lighter.shape).round()
            lighter[:], darker[:] = grain.clip(0, 255), (-grain).clip(0, 255)

    def take(self, k: int, t_ns: int) -> Image:
        """Return the picture of the moment `t_ns`, with the grain of frame `k`."""
        stage, placement = self._stage, self._scene.placement("rgb", t_ns)
        image = stage.backdrop(stage.colour, placement, self._scene.size)
        for actor in stage.actors(t_ns / 1e9):
            stage.add_colour(image, actor, placement)
        if not self._scene.noise:
            return image
        y, x = (self._scene.draws("rgb", k)[2:] * 64).astype(int)
        h, w = image.shape[:2]
        cv2.add(image, self._lighter[y : y + h, x : x + w], dst=image)
        return cv2.subtract(image, self._darker[y : y + h, x : x + w], dst=image)


class ThermalCamera:
    """Draw the thermal camera's picture: (H, W) uint8 display luma or uint16 counts of 0.01 K."""

    def __init__(self, scene: SyntheticScene) -> None:
        self._scene, self._stage = scene, scene.stage
        (w, h), degrees = scene.size_wh("ir"), scene.noise * (DISPLAY_C[1] - DISPLAY_C[0]) / 255
        self._grain, rng = np.empty((h + 64, w + 64), np.float32), np.random.default_rng(scene.seed + 2)
        for row in self._grain:
            row[:] = rng.normal(0, degrees, row.shape)
        self._celsius = self._stage.celsius_for(w)
        self._held: tuple[int, Image] | None = None

    def take(self, k: int, t_ns: int) -> Image:
        """Return the picture of the moment `t_ns` with the noise of frame `k`; while that stands still, the same."""
        if self._held is not None and self._held[0] == t_ns:
            return self._held[1].copy()  # a consumer may keep or change its frame
        self._held = t_ns, self._draw(k, t_ns)
        return self._held[1]

    def _draw(self, k: int, t_ns: int) -> Image:
        scene, stage = self._scene, self._stage
        w, h = scene.size_wh("ir")
        placement = scene.placement("ir", t_ns)
        celsius = stage.backdrop(self._celsius, placement, (w, h))
        for actor in stage.actors(t_ns / 1e9):
            stage.add_heat(celsius, actor, placement)
        cv2.GaussianBlur(celsius, (0, 0), max(0.6, 0.9 * w / 640), dst=celsius)  # thermal optics are soft
        if scene.noise:
            y, x = (scene.draws("ir", k)[2:] * 64).astype(int)
            cv2.add(celsius, self._grain[y : y + h, x : x + w], dst=celsius)
        if scene.bits == 16:
            return ((celsius + 273.15) * 100 + 0.5).astype(np.uint16)
        cold, hot = DISPLAY_C
        celsius *= 255 / (hot - cold)
        celsius += 0.5 - cold * 255 / (hot - cold)
        return np.clip(celsius, 0, 255, out=celsius).astype(np.uint8)
