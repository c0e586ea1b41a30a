"""Prepare thermal frames: cut out the picture, read temperatures, replace dead pixels, mark frozen frames."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from rtfuse.errors import ConfigError
from rtfuse.thermal.cameras import Layout, layout_of
from rtfuse.thermal.planck import kelvin_of_counts
from rtfuse.thermal.settings import Thermal as ThermalSettings
from rtfuse.types import Frame, Image, Radiometry, Spot, Thermal

_log = logging.getLogger("rtfuse.thermal")
_NEIGHBOURS = 8


class FreezeWatch:
    """Find pictures that repeat the one before, bit for bit.

    A sensor's noise never repeats; a picture of one value throughout (a closed lens, overexposure) may.
    """

    def __init__(self) -> None:
        self._last: Image | None = None

    def __call__(self, image: Image) -> bool:
        """Return True if `image`, which must not be changed afterwards, repeats the last one."""
        last, self._last = self._last, image
        if last is None or last.shape != image.shape or not np.array_equal(last, image):
            return False
        return not bool(np.all(image == image.flat[0]))


class DeadPixels:
    """Replace dead pixels by the mean of their nearest live neighbours.

    `path` is an image of the sensor's size that is not black where a pixel is dead, or a text file of `x y` lines
    (`#` begins a comment). Raises ConfigError if it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.size_wh, self._xy = _read_map(path)
        self._fit_wh: tuple[int, int] | None = None
        self._dead: Image = np.empty(0, np.intp)
        self._near: Image = np.empty((0, _NEIGHBOURS), np.intp)

    def check(self, size_wh: tuple[int, int]) -> None:
        """Raise ConfigError if the map does not fit pictures of this size."""
        (w, h), found = size_wh, self.size_wh or size_wh
        if found != size_wh:
            raise ConfigError(f"thermal.dead_pixels: {self._path} is {found[0]}x{found[1]}, the picture is {w}x{h}")
        if len(self._xy) and (self._xy.min() < 0 or np.any(self._xy >= (w, h))):
            raise ConfigError(f"thermal.dead_pixels: {self._path} names pixels outside of {w}x{h}")

    def __call__(self, image: Image) -> Image:
        """Return a copy with the dead pixels replaced; the picture itself without any, or if it has another size."""
        size_wh = image.shape[1], image.shape[0]
        if size_wh != self._fit_wh:
            self._fit(size_wh)
        if not len(self._dead):
            return image
        made = image.copy()
        flat = made.reshape(-1)
        flat[self._dead] = flat[self._near].mean(axis=1).round().astype(image.dtype)
        return made

    def _fit(self, size_wh: tuple[int, int]) -> None:
        """Find every dead pixel's nearest live neighbours."""
        self._fit_wh = size_wh
        self._dead = np.empty(0, np.intp)
        try:
            self.check(size_wh)
        except ConfigError as e:
            _log.error("%s; dead pixels stay", e)
            return
        (w, h), dead = size_wh, {(int(x), int(y)) for x, y in self._xy}
        near = [_nearest_live(x, y, w, h, dead) for x, y in dead]
        self._dead = np.array([y * w + x for x, y in dead], np.intp)
        self._near = np.array(near, np.intp).reshape(-1, _NEIGHBOURS)


def _nearest_live(x: int, y: int, w: int, h: int, dead: set[tuple[int, int]]) -> list[int]:
    """Return the flat indices of the live pixels nearest to a dead one, repeated to a fixed number."""
    for reach in range(1, max(w, h)):
        rows, columns = range(max(y - reach, 0), min(y + reach + 1, h)), range(max(x - reach, 0), min(x + reach + 1, w))
        live = [(v, u) for v in rows for u in columns if (u, v) not in dead]
        if len(live) >= 2:
            live.sort(key=lambda at: (at[0] - y) ** 2 + (at[1] - x) ** 2)
            count = next(n for n in (8, 4, 2) if n <= len(live))
            return [v * w + u for v, u in live[:count]] * (_NEIGHBOURS // count)
    raise ConfigError("thermal.dead_pixels: no live pixel is left")


def _read_map(path: str) -> tuple[tuple[int, int] | None, Image]:
    """Return the size of the map, if it has one, and the dead pixels as (n, 2) x, y."""
    try:
        data = Path(path).read_bytes()
    except OSError as e:
        raise ConfigError(f"thermal.dead_pixels: {path}: {e.strerror or e}") from e
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if image is not None:
        return (image.shape[1], image.shape[0]), np.argwhere(image)[:, ::-1]
    try:
        lines = [line.partition("#")[0].replace(",", " ").split() for line in data.decode().splitlines()]
        xy = [(int(x), int(y)) for x, y in filter(None, lines)]
    except ValueError as e:
        raise ConfigError(f"thermal.dead_pixels: {path} is neither an image nor lines of `x y`") from e
    return None, np.array(xy, np.intp).reshape(-1, 2)


class ThermalFront:
    """Cut the thermal picture out of each frame, repair it, and read its temperatures and telemetry.

    `orient` mirrors, turns or crops the picture after its dead pixels are replaced.
    `settings.k_per_count` takes the place of the camera's own scale; with `black-hot` every picture is inverted, so
    that hot is bright from here on. With `freeze`, pictures that repeat are marked. Raises ConfigError for a wrong
    camera or dead pixel map.
    """

    def __init__(
        self,
        settings: ThermalSettings | None = None,
        *,
        freeze: bool = True,
        orient: Callable[[Image], Image] | None = None,
    ) -> None:
        self._orient = orient
        settings = settings or ThermalSettings()
        self._camera, self._k_per_count = settings.camera, settings.k_per_count
        self._inverted = settings.polarity == "black-hot"
        self._dead = DeadPixels(settings.dead_pixels) if settings.dead_pixels else None
        self._repeats = FreezeWatch() if freeze else None
        self._known: tuple[Radiometry, Image] | None = None
        self._layout: Layout | None = None
        self._layout_of: tuple[tuple[int, int], str] | None = None

    def size_wh(self, sent_wh: tuple[int, int], dtype: str) -> tuple[int, int]:
        """Return the size of the thermal picture, as sent, in a frame of this size and depth. Raises ConfigError."""
        size_wh = layout_of(self._camera, sent_wh, dtype).size_wh(sent_wh)
        if self._dead is not None:
            self._dead.check(size_wh)
        return size_wh

    def __call__(self, frame: Frame) -> Frame:
        """Return the frame with its thermal picture, telemetry, temperatures, and whether it is frozen."""
        layout = self._laid_out(frame.image)
        image, said = layout.picture(frame.image), layout.read(frame.image) or frame.thermal
        closed = said is not None and said.shutter == "closed"
        frozen = (self._repeats is not None and self._repeats(image)) or closed
        if self._dead is not None:
            image = self._dead(image)
        if self._orient is not None:
            image = self._orient(image)
        scale = self._k_per_count or layout.k_per_count or (said.k_per_count if said else None)
        if image.dtype == np.uint16:
            if scale is not None:
                said = _measured(image, lambda count: count * scale, replace(said or Thermal(), k_per_count=scale))
            elif said is not None and said.radiometry is not None:
                said = _measured(image, self._curve(said.radiometry), said)
        if self._inverted:
            image = cv2.bitwise_not(image)
        if image is frame.image and not frozen and said is frame.thermal:
            return frame
        return replace(frame, content=image, frozen=frame.frozen or frozen, thermal=said)

    def _curve(self, how: Radiometry) -> Callable[[float], float]:
        """Return the function from counts to kelvin of a radiometric camera, kept until its constants change."""
        if self._known is None or self._known[0] != how:
            self._known = how, kelvin_of_counts(how)
        table = self._known[1]
        return lambda count: float(table[int(count)])

    def _laid_out(self, image: Image) -> Layout:
        now = ((image.shape[1], image.shape[0]), str(image.dtype))
        if self._layout is None or now != self._layout_of:
            self._layout, self._layout_of = layout_of(self._camera, *now), now
        return self._layout


def _measured(image: Image, kelvin: Callable[[float], float], said: Thermal) -> Thermal:
    """Return the thermal data with the hottest and the coldest pixel; `kelvin` turns counts into temperatures."""
    low, high, low_xy, high_xy = cv2.minMaxLoc(image)
    cold_k, hot_k = kelvin(low), kelvin(high)
    if not np.isfinite([cold_k, hot_k]).all():  # beyond the camera's curve
        return said
    return replace(said, hot=Spot(high_xy[0], high_xy[1], hot_k), cold=Spot(low_xy[0], low_xy[1], cold_k))
