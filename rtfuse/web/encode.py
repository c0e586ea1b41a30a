"""Encode pictures for browsers, in a thread: each plane of a frame becomes a JPEG once for all viewers."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import cv2

from rtfuse.thermal.palettes import colourise
from rtfuse.types import Fused, Picture
from rtfuse.wire.images import compress
from rtfuse.wire.planes import content_of

PagePlane = Literal["fused", "ir", "rgb"]
QualityName = Literal["low", "medium", "high"]
_NICE = 5


@dataclass(frozen=True, slots=True)
class Quality:
    """Settings of an encoded plane: JPEG quality 1 to 100, and the largest width in pixels (None: not resized)."""

    jpeg: int
    width: int | None


QUALITIES: dict[QualityName, Quality] = {
    "low": Quality(60, 480),
    "medium": Quality(82, 960),
    "high": Quality(92, None),
}


def at_most(quality: QualityName, most: QualityName) -> QualityName:
    """Return the lower one of two qualities."""
    return min(quality, most, key=list(QUALITIES).index)


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """Frame and its number on the page, from 1."""

    seq: int
    fused: Fused


@dataclass(frozen=True, slots=True)
class Encoded:
    """Plane as JPEG, and its size in pixels."""

    data: bytes
    width: int
    height: int


_Key = tuple[int, PagePlane, QualityName, str | None]


class Encoder:
    """Encodes each requested plane of a frame once. Use it from one event loop.

    `made` counts what was encoded, by plane. The thread has a lower priority than the pipeline's, where the system
    knows priorities of threads.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "rtfuse-web-encode", initializer=_yielding)
        self._asked: dict[_Key, asyncio.Future[Encoded | None]] = {}
        self.made: Counter[str] = Counter()

    async def plane(
        self, shot: Shot, plane: PagePlane, quality: QualityName = "medium", palette: str | None = None
    ) -> Encoded | None:
        """Return a plane of the frame as JPEG; None if it is not there, as its stream is missing.

        `ir` is grey, on RGB's grid, or in the colours of `palette`.
        """
        key = (shot.seq, plane, quality, palette if plane == "ir" else None)
        if key not in self._asked:
            for old in [k for k in self._asked if k[0] < shot.seq - 1]:
                del self._asked[old]
            loop = asyncio.get_running_loop()
            self._asked[key] = loop.run_in_executor(self._pool, self._encode, shot.fused, *key[1:])
        # A viewer that leaves must not take the picture from the others.
        return await asyncio.shield(self._asked[key])

    def _encode(self, fused: Fused, plane: PagePlane, quality: QualityName, palette: str | None) -> Encoded | None:
        content, how = content_of(fused, plane), QUALITIES[quality]
        if content is None:
            return None
        h, w = content.shape_hw if isinstance(content, Picture) else content.shape
        if how.width is not None and w > how.width:
            w, h = how.width, round(h * how.width / w)
            if isinstance(content, Picture):
                content = content.resized((w, h))
            else:
                content = cv2.resize(content, (w, h), interpolation=cv2.INTER_AREA)
        if palette is not None and not isinstance(content, Picture):
            content = colourise(content, palette)
        data = compress(content, "jpeg", how.jpeg)
        self.made[plane] += 1
        return Encoded(data.tobytes(), w, h)

    def close(self) -> None:
        """Encode nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _yielding() -> None:
    """Give this thread a lower priority than the pipeline's."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
