"""`rtfuse view`: watch a stream of fused frames in a window, as files, or as numbers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console

from rtfuse.client.subscriber import Received, Subscriber
from rtfuse.errors import ConfigError, NoDisplay, OutputUnwritable
from rtfuse.hints import install_hint
from rtfuse.observe.stats import Histogram
from rtfuse.thermal.palettes import colourise
from rtfuse.thermal.palettes import palette as colours_of
from rtfuse.types import Image
from rtfuse.view.camera import CameraOutput
from rtfuse.view.pipe import Pipe
from rtfuse.wire.message import Header, Spot

_POLL_S = 0.1


class Window:
    """A window that shows RGB images; q, Esc or its close button end it, f fills the screen, s saves a picture.

    Raises NoDisplay where there is no display, or the `view` extra is not installed.
    """

    def __init__(self, title: str) -> None:
        if sys.platform == "linux" and not any(
            os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
        ):
            raise NoDisplay("there is no display here for a window; use --stats or --save DIR")
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            import pygame
        except ImportError as e:
            raise NoDisplay(f"a window needs {e.name}: {install_hint('view')}; or use --stats") from e
        self._pygame: Any = pygame
        try:
            pygame.display.init()
            pygame.display.set_caption(title)
            self._screen = pygame.display.set_mode((640, 480), pygame.RESIZABLE)
        except pygame.error as e:
            raise NoDisplay(f"no window can be opened ({e}); use --stats or --save DIR") from e
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
        """Return which pixel (x, y) of the image that was drawn last lies at a position in the window."""
        assert self._image_wh is not None
        (width, height), (w, h) = self._screen.get_size(), self._image_wh
        scale = min(width / w, height / h)
        left, top = (width - round(w * scale)) // 2, (height - round(h * scale)) // 2
        return (position[0] - left + 0.5) / scale - 0.5, (position[1] - top + 0.5) / scale - 0.5

    def closed(self) -> bool:
        """Handle keys and window events; returns whether the user has ended it."""
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


class Painter:
    """What a viewer adds to a picture: colours for thermal alone, and the hottest and coldest point.

    Raises ConfigError for a palette that is not known.
    """

    def __init__(self, palette: str | None, spots: bool) -> None:
        self._palette, self._spots = palette, spots
        if palette is not None:
            colours_of(palette)

    def __call__(self, received: Received) -> Image:
        """Return the picture to show, (H, W, 3) uint8 RGB."""
        image, header = received.image, received.header
        if image.dtype == np.uint16:  # counts: for the eye alone, from the lowest to the highest
            image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
        thermal = header.plane in ("ir", "counts") or (header.plane == "fused" and header.mode == "ir")
        if self._palette is not None and thermal:
            image = colourise(image if image.ndim == 2 else image[..., 0], self._palette)
        if image.ndim == 2:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        if self._spots and header.hot is not None and header.cold is not None:
            image = image.copy()
            _draw_spot(image, header.hot, (255, 96, 64))
            _draw_spot(image, header.cold, (96, 176, 255))
        return image


def _draw_spot(image: Image, spot: Spot, colour: tuple[int, int, int]) -> None:
    """Draw a cross with its temperature into the picture, if it lies there."""
    h, w = image.shape[:2]
    x, y = round(spot.x), round(spot.y)
    if not (0 <= x < w and 0 <= y < h):
        return
    scale = max(0.4, w / 1200)
    cv2.drawMarker(image, (x, y), (0, 0, 0), cv2.MARKER_CROSS, round(26 * scale), 3)
    cv2.drawMarker(image, (x, y), colour, cv2.MARKER_CROSS, round(24 * scale), 1)
    text, font = f"{spot.k - 273.15:.1f} C", cv2.FONT_HERSHEY_SIMPLEX
    (tw, th), _ = cv2.getTextSize(text, font, scale, 1)
    at = (min(x + 8, w - tw - 2), max(y - 8, th + 2))
    cv2.putText(image, text, at, font, scale, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, text, at, font, scale, colour, 1, cv2.LINE_AA)


class Saver:
    """Writes frames as `SEQ.png` into a folder. Raises OutputUnwritable."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise OutputUnwritable(f"folder {folder} cannot be written: {e.strerror or e}") from e
        self._folder = folder

    def show(self, received: Received, image: Image) -> None:
        """Write one frame."""
        from rtfuse.record.video import write_image

        write_image(self._folder / f"{received.header.seq:08d}.png", image)


class Film:
    """Writes frames into a video file, each at its capture time; whole under its name or not at all.

    Raises OutputExists without `force`, OutputUnwritable.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        from rtfuse.record.video import VideoWriter, open_writer

        writer = open_writer(path, force=force)
        assert isinstance(writer, VideoWriter)
        self._writer, self._session, self._offset_ns, self._last_ns = writer, "", 0, 0

    def show(self, received: Received, image: Image) -> None:
        """Write one frame. A publisher that was restarted goes on where the last one ended."""
        header = received.header
        t_ns = header.ir_t_ns if header.mode == "ir" else header.rgb_t_ns
        if header.session != self._session:
            self._offset_ns = self._last_ns - t_ns if self._session else 0
            self._session = header.session
        self._last_ns = t_ns + self._offset_ns
        self._writer.add(image, self._last_ns)

    def close(self) -> None:
        """Complete the file."""
        self._writer.close()


class Report:
    """Prints, once a second, the rate, the age at publish, the size and the gaps of the stream."""

    def __init__(self, console: Console, subscriber: Subscriber, every_s: float = 1.0) -> None:
        self._console, self._subscriber, self._every_s = console, subscriber, every_s
        self._since, self._frames, self._age = time.monotonic(), 0, Histogram()

    def show(self, received: Received) -> None:
        """Count one frame."""
        self._frames += 1
        self._age.add(received.header.age_ns)
        elapsed = time.monotonic() - self._since
        if elapsed < self._every_s:
            return
        h, s = received.header, self._subscriber
        p50, p95 = self._age.percentiles_ms(50, 95)
        self._console.print(
            f"{h.rig}: {h.width}x{h.height} {h.encoding} {_what(h)}, {self._frames / elapsed:.1f} frames/s, "
            f"age at publish p50 {p50:.1f} p95 {p95:.1f} ms, skew {h.skew_ns / 1e6:+.1f} ms, "
            f"lost {s.lost}, malformed {s.malformed}",
            soft_wrap=True,
        )
        self._since, self._frames, self._age = time.monotonic(), 0, Histogram()


def _what(header: Header) -> str:
    """Say what the picture shows, and what is wrong with a stream."""
    said = (
        f"by {header.fuser}" if header.mode == "fused" else f"{header.mode} alone" if header.mode != "held" else "held"
    )
    wrong = [f"{s} {state}" for s, state in (("ir", header.ir_state), ("rgb", header.rgb_state)) if state != "live"]
    return said + (f" ({', '.join(wrong)})" if wrong else "")


def view(
    endpoint: str,
    console: Console,
    *,
    stopped: Callable[[], bool],
    topic: str = "fused",
    keys: Path | None = None,
    save: Path | None = None,
    stats: bool = False,
    palette: str | None = None,
    spots: bool = False,
    frames: int | None = None,
    duration_s: float | None = None,
    pipe: str | None = None,
    rate_hz: float = 30.0,
    force: bool = False,
) -> int:
    """Receive frames until stopped, `frames`, `duration_s` or nobody reads the pipe; returns how many were received."""
    end, paint = time.monotonic() + duration_s if duration_s else float("inf"), Painter(palette, spots)
    seen, waiting_since, told = 0, time.monotonic(), False
    if pipe and save:
        raise ConfigError("--pipe shows the newest frame and --save keeps every one: run rtfuse view twice")

    def over() -> bool:
        return stopped() or time.monotonic() >= end

    with ExitStack() as stack:
        window = None
        if not (save or stats or pipe):
            window = Window(f"rtfuse {endpoint}")
            stack.callback(window.close)
        subscriber = stack.enter_context(Subscriber(endpoint, topic=topic, latest=save is None, keys=keys))
        saver = _saver(save, stack, force=force) if save else None
        piped = None if pipe is None else _piped(pipe, stack, over, rate_hz)
        report = Report(console, subscriber) if stats else None
        while not over() and seen != frames and (piped is None or piped.open):
            received = subscriber.recv(_POLL_S)
            if window is not None and window.closed():
                break
            if received is None:
                if not told and not seen and time.monotonic() - waiting_since > 2:
                    which = "and does it know this key" if keys else "and in plain text"
                    console.print(
                        f"nothing from {endpoint} yet; is `rtfuse run` publishing there, {which}?", soft_wrap=True
                    )
                    told = True
                continue
            seen += 1
            if report is not None:
                report.show(received)
            image = paint(received)
            if window is not None:
                window.draw(image)
            if saver is not None:
                saver.show(received, image)
            if piped is not None:
                piped.show(image)
    return seen


def _piped(pipe: str, stack: ExitStack, stopped: Callable[[], bool], rate_hz: float) -> Pipe | CameraOutput:
    """Return what writes pictures into a device, if it is the path of one, or to standard output."""
    if "/" not in pipe:
        return Pipe(pipe, sys.stdout.fileno(), stopped=stopped, rate_hz=rate_hz)
    output = CameraOutput(pipe)
    stack.callback(output.close)
    return output


def _saver(path: Path, stack: ExitStack, *, force: bool) -> Saver | Film:
    """Return what writes pictures into a folder, or a video if the name has its suffix."""
    from rtfuse.record.video import VIDEO_CODECS

    if path.suffix.lower() not in VIDEO_CODECS:
        return Saver(path)
    film = Film(path, force=force)
    stack.callback(film.close)
    return film
