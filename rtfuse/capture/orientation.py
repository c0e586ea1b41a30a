"""Mirror, turn and crop pictures, as the settings of their stream say."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from rtfuse.capture.settings import SourceSettings
from rtfuse.errors import ConfigError
from rtfuse.types import Image, Stream

_FLIPS = {"horizontal": 1, "vertical": 0, "both": -1}
_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True, slots=True)
class Orientation:
    """Mirror pictures by `flip`, then turn them clockwise by `rotate` degrees, then cut out `crop` (x, y, w, h)."""

    stream: Stream
    flip: str = "none"
    rotate: int = 0
    crop: tuple[int, int, int, int] | None = None

    @classmethod
    def of(cls, stream: Stream, camera: SourceSettings) -> Orientation:
        """Return what the settings of a stream say."""
        return cls(stream, camera.flip, camera.rotate, camera.crop)

    def __bool__(self) -> bool:
        return self.flip != "none" or self.rotate != 0 or self.crop is not None

    @property
    def least_wh(self) -> tuple[int, int] | None:
        """The size of the smallest picture that holds `crop`; None without one."""
        if self.crop is None:
            return None
        x, y, w, h = self.crop
        return (x + w, y + h) if self.rotate % 180 == 0 else (y + h, x + w)

    def size_wh(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """Return the size of the result for a picture of this size. Raises ConfigError for a crop outside of it."""
        w, h = size_wh if self.rotate % 180 == 0 else size_wh[::-1]
        if self.crop is None:
            return w, h
        x, y, width, height = self.crop
        if x + width > w or y + height > h:
            turned = " after it is turned" if self.rotate % 180 else ""
            raise ConfigError(
                f"{self.stream}.crop: {x},{y},{width},{height} (left, top, width, height) reaches outside of the "
                f"picture, which is {w}x{h}{turned}"
            )
        return width, height

    def __call__(self, image: Image) -> Image:
        """Return the image, (H, W) or (H, W, 3), in its orientation; itself if nothing is set. Raises ConfigError."""
        if self.crop is not None:
            self.size_wh((image.shape[1], image.shape[0]))
        if self.flip != "none":
            image = cv2.flip(image, _FLIPS[self.flip])
        if self.rotate:
            image = cv2.rotate(image, _TURNS[self.rotate])
        if self.crop is not None:
            x, y, w, h = self.crop
            image = np.ascontiguousarray(image[y : y + h, x : x + w])
        return image
