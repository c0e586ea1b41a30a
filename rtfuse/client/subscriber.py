"""Receive frames from a ZeroMQ endpoint: the client that detectors, displays and recorders import.

Importing it loads neither torch nor OpenCV nor FFmpeg, nor asyncio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import zmq

from rtfuse.client.arrivals import Arrivals, Reception
from rtfuse.client.base import BaseSubscriber
from rtfuse.client.connection import Keys
from rtfuse.types import Image, Picture
from rtfuse.wire.message import MAX_MESSAGE_BYTES, Header, pixels, split

_H264_QUEUE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """Hold one received frame.

    `content`: its picture as it came: a `Picture` of planes for raw `yuv420p` and `nv12`, and for H.264 of even size;
    else an array like `image`.
    `header`: its numbers and times.
    `gap`: the number of frames that were lost just before it.
    """

    content: Image | Picture
    header: Header
    gap: int

    @property
    def image(self) -> Image:
        """The picture as an array, read-only: (H, W, 3) uint8 RGB, or (H, W) uint8 or uint16 of a gray plane.

        RGB of YUV planes is computed when first asked for.
        """
        if not isinstance(self.content, Picture):
            return self.content
        image = self.content.rgb
        image.flags.writeable = False
        return image

    @property
    def picture(self) -> Picture:
        """The picture with its planes: YUV as it was sent, or RGB. Raises TypeError for a gray plane."""
        if isinstance(self.content, Picture):
            return self.content
        if self.content.ndim != 3:
            raise TypeError(f"the plane {self.header.plane} has one value per pixel, no colour picture; see `image`")
        return Picture.of_rgb(self.content)


class Subscriber(BaseSubscriber[Received]):
    """Receive the frames of one publisher. Iterate over it, or call `recv`, or `recv_async` with `await`.

    `latest`: True returns the newest frame, however slow the receiver is; False queues frames, and loses those beyond
    `queue`.
    `max_bytes`: larger messages and images are refused unread: ZeroMQ drops the connection and tries again.
    `context`: a ZeroMQ context to share, which its owner ends.
    `keys`: the file of `rtfuse keys new client`, for a publisher that encrypts.
    `received`, `lost` (by sequence number), `malformed` (skipped messages), `restarts`: counters; `reception` returns
    them with rate, delay and age.

    It waits for a publisher that does not run yet, and reconnects to one that restarts. Raw pixels and planes are views
    of the message, which lives as long as they do. H.264 begins with a key frame, also after a gap; there, `latest`
    returns the newest frame that has arrived. Use it from one thread, or one task; it is a context manager.
    Raises ConfigError for an invalid endpoint, KeysUnusable for the file.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5555",
        *,
        topic: str = "fused",
        latest: bool = True,
        queue: int = 32,
        max_bytes: int = MAX_MESSAGE_BYTES,
        context: zmq.Context[Any] | None = None,
        keys: Keys = None,
    ) -> None:
        self.received = self.lost = self.restarts = 0
        self._session: str | None = None
        self._next_seq = 0
        self._arrivals = Arrivals()
        self._max_bytes, self._latest = max_bytes, latest
        self._h264: Any = None
        waiting = None if latest else queue
        super().__init__(endpoint, topic, max_bytes=max_bytes, queue=waiting, keys=keys, context=context)

    def reception(self) -> Reception:
        """Return the counters, and the rate, delay and age of the newest frames."""
        arrivals = self._arrivals
        return Reception(
            received=self.received,
            lost=self.lost,
            malformed=self.malformed,
            restarts=self.restarts,
            rate_hz=arrivals.rate_hz(),
            transport_ms=arrivals.transport_ms(),
            age_ms=arrivals.age_ms(),
        )

    def _decode(self, message: memoryview) -> Received | None:
        """Decode a message; None for an H.264 unit that cannot be shown. Raises WireError."""
        _, header, payload = split(message, max_bytes=self._max_bytes)
        if header.encoding != "h264":
            return Received(pixels(header, payload), header, self._count(header))
        if self._h264 is None:
            from rtfuse.wire.h264 import H264Decoder

            self._h264 = H264Decoder()
            if self._latest:  # a picture depends on those before it: the newest alone cannot be decoded
                self._socket.close()
                self._socket = self._connect(queue=_H264_QUEUE)
        content = self._h264(header, payload)
        if content is None or (self._latest and self._socket.poll(0)):
            return None
        return Received(content, header, self._count(header))

    def _count(self, header: Header) -> int:
        if header.session != self._session:
            self.restarts += self._session is not None
            self._session, gap = header.session, 0
        else:
            gap = max(0, header.seq - self._next_seq)
        self._next_seq = header.seq + 1
        self.received += 1
        self.lost += gap
        age_ns = None if header.recorded else header.age_ns
        self._arrivals.add(header.published_ns, header.published_unix_ms, age_ns)
        return gap
