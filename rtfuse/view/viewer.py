"""`rtfuse view`: watch a stream of fused frames in a window, as files, or as numbers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console

from rtfuse.client.look import silence
from rtfuse.client.subscriber import Received, Subscriber
from rtfuse.errors import ConfigError, OutputUnwritable
from rtfuse.observe.absence import Absence
from rtfuse.observe.stats import Histogram
from rtfuse.thermal.palettes import colourise
from rtfuse.thermal.palettes import palette as colours_of
from rtfuse.types import Image, Picture
from rtfuse.view.camera import CameraOutput
from rtfuse.view.pipe import Pipe
from rtfuse.view.window import Window as Window
from rtfuse.wire.message import Header, Spot

_POLL_S = 0.1


class Painter:
    """Add to a picture: colours for thermal alone, and the hottest and coldest point.

    Raises ConfigError for a palette that is not known.
    """

    def __init__(self, palette: str | None, spots: bool) -> None:
        self._palette, self._spots = palette, spots
        if palette is not None:
            colours_of(palette)

    def __call__(self, received: Received) -> Picture:
        """Return the picture to show; where nothing is added, with the planes that were received."""
        header, picture = received.header, _picture(received)
        thermal = header.plane in ("ir", "counts") or (header.plane == "fused" and header.mode == "ir")
        if self._palette is not None and thermal:
            picture = Picture.of_rgb(colourise(picture.luma, self._palette))
        if self._spots and header.hot is not None and header.cold is not None:
            image = picture.rgb.copy()
            _draw_spot(image, header.hot, (255, 96, 64))
            _draw_spot(image, header.cold, (96, 176, 255))
            picture = Picture.of_rgb(image)
        return picture


def _picture(received: Received) -> Picture:
    """Return the picture of any plane."""
    content = received.content
    if isinstance(content, Picture) or content.ndim == 3:
        return received.picture
    if content.dtype == np.uint16:  # counts: for the eye alone, from the lowest to the highest
        content = cv2.normalize(content, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    return Picture.of_luma(content)


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
    """Write frames as `SEQ.png` into a folder. Raises OutputUnwritable."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise OutputUnwritable(f"folder {folder} cannot be written: {e.strerror or e}") from e
        self._folder = folder

    def show(self, received: Received, picture: Picture) -> None:
        """Write one frame."""
        from rtfuse.record.images import write_image

        write_image(self._folder / f"{received.header.seq:08d}.png", picture.rgb)


class Film:
    """Write frames into a video file, each at its capture time; the file appears under its name when it is complete.

    Raises OutputExists without `force`, OutputUnwritable.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        from rtfuse.record.video import VideoWriter, open_writer

        writer = open_writer(path, force=force)
        assert isinstance(writer, VideoWriter)
        self._writer, self._session, self._offset_ns, self._last_ns = writer, "", 0, 0

    def show(self, received: Received, picture: Picture) -> None:
        """Write one frame. A publisher that was restarted goes on where the last one ended."""
        header = received.header
        t_ns = header.ir_t_ns if header.mode == "ir" else header.rgb_t_ns
        if header.session != self._session:
            self._offset_ns = self._last_ns - t_ns if self._session else 0
            self._session = header.session
        self._last_ns = t_ns + self._offset_ns
        self._writer.add(picture, self._last_ns)

    def close(self) -> None:
        """Complete the file."""
        self._writer.close()


class Report:
    """Print, once a second, the rate, the age at publish (of cameras), the absolute skew, the size and the gaps."""

    def __init__(self, console: Console, subscriber: Subscriber, every_s: float = 1.0) -> None:
        self._console, self._subscriber, self._every_s = console, subscriber, every_s
        self._begin()

    def _begin(self) -> None:
        self._since, self._frames = time.monotonic(), 0
        self._age, self._skew = Histogram(), Histogram()

    def show(self, received: Received) -> None:
        """Count one frame."""
        self._frames += 1
        if not received.header.recorded:
            self._age.add(received.header.age_ns)
        if received.header.mode == "fused":
            self._skew.add(received.header.skew_ns)
        elapsed = time.monotonic() - self._since
        if elapsed < self._every_s:
            return
        h, s = received.header, self._subscriber
        near, far = self._skew.percentiles_ms(50, 95, absolute=True)
        young, old = self._age.percentiles_ms(50, 95)
        age = f"age at publish p50 {young:.1f} p95 {old:.1f} ms, " if self._age.total else ""
        skew = f"skew p50 {near:.1f} p95 {far:.1f} ms, " if self._skew.total else ""
        self._console.print(
            f"{h.rig}: {h.width}x{h.height} {h.encoding} {_contents(h)}, {self._frames / elapsed:.1f} frames/s, "
            f"{age}{skew}"
            f"lost {s.lost}, malformed {s.malformed}",
            soft_wrap=True,
        )
        self._begin()


def _contents(header: Header) -> str:
    """Return the way a picture was made, and the streams that are not live, in words."""
    said = (
        f"by {header.fuser}" if header.mode == "fused" else f"{header.mode} alone" if header.mode != "held" else "held"
    )
    wrong = [f"{s} {state}" for s, state in (("ir", header.ir_state), ("rgb", header.rgb_state)) if state != "live"]
    return said + (f" ({', '.join(wrong)})" if wrong else "")


@dataclass(frozen=True, slots=True)
class View:
    """Name a stream to watch, and the way to show it.

    endpoint, topic: the stream.
    keys: the client's key file, for a rig that encrypts.
    save: a folder for PNG files, or a video file; `force` overwrites it.
    stats: print numbers instead of opening a window.
    palette: colours for thermal alone. spots: draw the hottest and the coldest point.
    frames, duration_s: end after this many frames, or seconds.
    pipe: `y4m`, `raw` or `mjpeg` to standard output, or the path of a V4L2 output; `rate_hz` is y4m's.
    """

    endpoint: str
    topic: str = "fused"
    keys: Path | None = None
    save: Path | None = None
    stats: bool = False
    palette: str | None = None
    spots: bool = False
    frames: int | None = None
    duration_s: float | None = None
    pipe: str | None = None
    rate_hz: float = 30.0
    force: bool = False


def view(how: View, console: Console, *, stopped: Callable[[], bool]) -> int:
    """Receive frames until stopped, `frames`, `duration_s`, or the end of the pipe's reader; returns their number.

    Says once that the stream is gone, and once that it is back; of one that never came also why (`silence`).
    """
    if how.pipe and how.save:
        raise ConfigError("--pipe shows the newest frame and --save keeps every one: run rtfuse view twice")
    end = time.monotonic() + how.duration_s if how.duration_s else float("inf")
    paint, seen = Painter(how.palette, how.spots), 0

    def over() -> bool:
        return stopped() or time.monotonic() >= end

    with ExitStack() as stack:
        outputs = _Outputs(how, console, stack, over)
        absence = _absence(how, console, over)
        while not over() and seen != how.frames and outputs.open:
            received = outputs.subscriber.recv(_POLL_S)
            if outputs.window is not None and outputs.window.closed():
                break
            if received is None:
                absence.nothing()
                continue
            absence.frame()
            seen += 1
            outputs.show(received, paint(received))
    return seen


def _absence(how: View, console: Console, over: Callable[[], bool]) -> Absence:
    say = partial(console.print, soft_wrap=True, highlight=False, markup=False)
    unseen = partial(silence, how.endpoint, how.topic, how.keys, stopped=over)
    return Absence(f"the rig on {how.endpoint}", say, unseen=unseen)


class _Outputs:
    """Outputs of a view, and its subscriber; the stack closes them."""

    def __init__(self, how: View, console: Console, stack: ExitStack, over: Callable[[], bool]) -> None:
        self.subscriber = stack.enter_context(
            Subscriber(how.endpoint, topic=how.topic, latest=how.save is None, keys=how.keys)
        )
        self.window = None
        if not (how.save or how.stats or how.pipe):
            self.window = Window(f"rtfuse {how.endpoint}")
            stack.callback(self.window.close)
        self._saver = _saver(how.save, stack, force=how.force) if how.save else None
        self._piped = None if how.pipe is None else _piped(how.pipe, stack, over, how.rate_hz)
        self._report = Report(console, self.subscriber) if how.stats else None

    @property
    def open(self) -> bool:
        """False once the reader of the pipe has gone."""
        return self._piped is None or self._piped.open

    def show(self, received: Received, picture: Picture) -> None:
        """Give a frame, and its picture, to every output."""
        if self._report is not None:
            self._report.show(received)
        if self.window is not None:
            self.window.draw(picture.rgb)
        if self._saver is not None:
            self._saver.show(received, picture)
        if self._piped is not None:
            self._piped.show(picture)


def _piped(pipe: str, stack: ExitStack, stopped: Callable[[], bool], rate_hz: float) -> Pipe | CameraOutput:
    """Return the output for `--pipe`: a device if it is a path, else standard output."""
    if "/" not in pipe:
        return Pipe(pipe, sys.stdout.fileno(), stopped=stopped, rate_hz=rate_hz)
    output = CameraOutput(pipe)
    stack.callback(output.close)
    return output


def _saver(path: Path, stack: ExitStack, *, force: bool) -> Saver | Film:
    """Return the output for `--save`: a video if the name has its suffix, else a folder."""
    from rtfuse.record.video import VIDEO_CODECS

    if path.suffix.lower() not in VIDEO_CODECS:
        return Saver(path)
    film = Film(path, force=force)
    stack.callback(film.close)
    return film
