"""Show pictures in a window: of a stream that is received, or of a rig that runs in this process."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Protocol

from rtfuse.errors import NoDisplay
from rtfuse.hints import install_hint
from rtfuse.types import Fused, Image


class Window:
    """Show RGB images in a window; q, Esc or its close button end it, f fills the screen, s saves a picture.

    Raises NoDisplay without a display or without the `view` extra; the error advises to do `instead`.
    """

    def __init__(self, title: str, instead: str = "use --stats or --save DIR") -> None:
        if sys.platform == "linux" and not any(
            os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
        ):
            raise NoDisplay(f"a window needs a display, found none (DISPLAY, WAYLAND_DISPLAY); {instead}")
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            import pygame
        except ImportError as e:
            raise NoDisplay(f"a window needs {e.name}: {install_hint('view')}; or {instead}") from e
        self._pygame: Any = pygame
        try:
            pygame.display.init()
            pygame.display.set_caption(title)
            self._screen = pygame.display.set_mode((640, 480), pygame.RESIZABLE)
        except pygame.error as e:
            raise NoDisplay(f"no window can be opened ({e}); {instead}") from e
        self._image_wh: tuple[int, int] | None = None

    def draw(self, image: Image) -> None:
        """Draw an image (H, W, 3) uint8 RGB, as large as the window allows without distortion."""
        pygame = self._pygame
        wh = (image.shape[1], image.shape[0])
        if self._image_wh != wh:
            self._image_wh = wh
            self._screen = pygame.display.set_mode(wh, pygame.RESIZABLE)
        picture = pygame.image.frombuffer(image.data, wh, "RGB")
        width, height = self._screen.get_size()
        scale = min(width / wh[0], height / wh[1])
        fitted = (round(wh[0] * scale), round(wh[1] * scale))
        if fitted != wh:
            picture = pygame.transform.smoothscale(picture, fitted)
        self._screen.fill((0, 0, 0))
        self._screen.blit(picture, ((width - fitted[0]) // 2, (height - fitted[1]) // 2))
        pygame.display.flip()

    def image_pixel(self, position: tuple[int, int]) -> tuple[float, float]:
        """Return the pixel (x, y) of the last image at a position in the window."""
        assert self._image_wh is not None
        (width, height), (w, h) = self._screen.get_size(), self._image_wh
        scale = min(width / w, height / h)
        left, top = (width - round(w * scale)) // 2, (height - round(h * scale)) // 2
        return (position[0] - left + 0.5) / scale - 0.5, (position[1] - top + 0.5) / scale - 0.5

    def closed(self) -> bool:
        """Handle keys and window events; returns True when the user has closed it."""
        pygame = self._pygame
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                return True
            if event.type == pygame.KEYDOWN:
                if event.key in (pygame.K_q, pygame.K_ESCAPE):
                    return True
                if event.key == pygame.K_f:
                    pygame.display.toggle_fullscreen()
                if event.key == pygame.K_s:
                    pygame.image.save(self._screen, time.strftime("rtfuse-%Y%m%d-%H%M%S.png"))
        return False

    def close(self) -> None:
        """Close the window."""
        self._pygame.display.quit()


class Stopping(Protocol):
    """Call that ends the run."""

    def __call__(self) -> None: ...


class FusedWindow:
    """Keep the newest fused picture, and show it in a window.

    `write` may be called in any thread; `idle` belongs to the thread that made the window. Raises NoDisplay.
    """

    def __init__(self, title: str) -> None:
        self._window = Window(title, instead="run without --show")
        self._newest: Fused | None = None

    def write(self, fused: Fused) -> None:
        """Keep a picture until it is drawn, or until the next one."""
        self._newest = fused

    def close(self) -> None:
        """Keep nothing."""
        self._newest = None

    def idle(self, stop: Stopping) -> None:
        """Handle keys, draw the newest picture, and call `stop` when the user has closed the window."""
        if self._window.closed():
            stop()
            return
        newest, self._newest = self._newest, None
        if newest is not None:
            self._window.draw(newest.image)
