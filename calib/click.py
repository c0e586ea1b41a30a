"""Let a person click point pairs in two pictures, side by side in a window."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from calib.footage import as_grey
from rtfuse.errors import CalibrationError
from rtfuse.types import Image
from rtfuse.view.viewer import Window

_HEIGHT = 600
_COLOURS = ((255, 120, 0), (0, 200, 255), (160, 255, 60), (255, 80, 200), (255, 240, 60), (120, 140, 255))


class Clicks:
    """Points clicked in turn in the thermal picture, on the left, and the RGB picture, on the right."""

    def __init__(self, ir: Image, rgb: Image) -> None:
        grey = as_grey(ir)
        self._images = [cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), rgb]
        self._scales = [_HEIGHT / i.shape[0] for i in self._images]
        self._shown = [
            cv2.resize(i, (round(i.shape[1] * s), _HEIGHT), interpolation=cv2.INTER_AREA)
            for i, s in zip(self._images, self._scales, strict=True)
        ]
        self.points: list[list[tuple[float, float]]] = [[], []]

    def click(self, x: float, y: float) -> None:
        """Add the point at a pixel of `picture()`; ignore a click in the wrong picture. Thermal comes first."""
        side = 0 if x < self._shown[0].shape[1] else 1
        waiting = 0 if len(self.points[0]) == len(self.points[1]) else 1
        if side != waiting:
            return
        left = x - side * self._shown[0].shape[1]
        s = self._scales[side]
        self.points[side].append(((left + 0.5) / s - 0.5, (y + 0.5) / s - 0.5))

    def undo(self) -> None:
        """Remove the last point."""
        side = 1 if len(self.points[0]) == len(self.points[1]) else 0
        if self.points[side]:
            self.points[side].pop()

    def picture(self) -> Image:
        """Return both pictures with the points, (600, W, 3) uint8 RGB."""
        parts = [p.copy() for p in self._shown]
        for part, s, points in zip(parts, self._scales, self.points, strict=True):
            for k, (x, y) in enumerate(points):
                at = (round((x + 0.5) * s - 0.5), round((y + 0.5) * s - 0.5))
                cv2.drawMarker(part, at, _COLOURS[k % len(_COLOURS)], cv2.MARKER_CROSS, 15, 2)
                cv2.putText(part, str(k + 1), (at[0] + 8, at[1] - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
        return np.ascontiguousarray(np.hstack(parts))


def clicked(ir: Image, rgb: Image) -> tuple[Image, Image]:
    """Let a person click point pairs in thermal and RGB in turn; return both lists, (N, 2) in pixels.

    Backspace removes the last point; Return, or closing the window, ends. Raises NoDisplay, or CalibrationError if no
    pair was clicked.
    """
    clicks = Clicks(ir, rgb)
    title = "click a point in thermal, then in RGB; Backspace removes it, Return ends"
    window = Window(title, instead="write the points into a file for --points")
    try:
        while _handled(window, clicks):
            window.draw(clicks.picture())
    finally:
        window.close()
    count = len(clicks.points[1])
    if not count:
        raise CalibrationError("no point pair was clicked; click the same point in thermal, then in RGB")
    return np.array(clicks.points[0][:count]), np.array(clicks.points[1])


def _handled(window: Window, clicks: Clicks) -> bool:
    """Handle the next event of the window; return False to end."""
    import pygame

    event: Any = pygame.event.wait(100)
    if event.type == pygame.QUIT:
        return False
    if event.type == pygame.KEYDOWN:
        if event.key == pygame.K_BACKSPACE:
            clicks.undo()
        return event.key not in (pygame.K_RETURN, pygame.K_ESCAPE)
    if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
        clicks.click(*window.image_pixel(event.pos))
    return True
