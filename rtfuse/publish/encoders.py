"""Encode planes into messages, once for all endpoints that send the same kind (plane, encoding, setting)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import zmq

from rtfuse.publish.endpoint import Endpoint
from rtfuse.publish.planes import Offer
from rtfuse.types import Fused, Image, Picture
from rtfuse.wire.images import compress
from rtfuse.wire.message import Header, check_image, check_size, encode, message
from rtfuse.wire.names import Encoding, PixelFormat, Plane
from rtfuse.wire.planes import LASTING, content_of

if TYPE_CHECKING:
    from rtfuse.wire.h264 import H264Encoder

Finish = Callable[[Header], Header]
"""Return the header with its time of publishing."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Identify the output of an encoder; endpoints with the same kind share one."""

    plane: Plane
    encoding: Encoding
    pixel_format: PixelFormat
    setting: int | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Name the destination of an encoder's messages: an endpoint, and the topic there."""

    endpoint: Endpoint
    topic: str

    @property
    def wanted(self) -> bool:
        """True if the topic has a subscriber."""
        return self.endpoint.subscribers().get(self.topic, 0) > 0


@dataclass(frozen=True, slots=True)
class _Job:
    header: Header
    fused: Fused
    finish: Finish
    to: Sequence[Outgoing]


def kind_of(offer: Offer, plane: Plane) -> Kind:
    """Return the kind of a plane's messages on an endpoint."""
    encoding = offer.encoding_of(plane)
    setting = {"jpeg": offer.jpeg_quality, "h264": offer.h264_kbps}.get(encoding)
    return Kind(plane, encoding, offer.pixel_format_of(plane), setting)


class Encoder:
    """Encode and send the messages of one kind, if they have a subscriber.

    Raw pictures are sent in the thread of the caller of `offer` (`direct`), others in the encoder's own thread. One
    picture waits for it; a newer one replaces it. `drops` counts the replaced ones for each endpoint.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.to: list[Outgoing] = []
        self._drops: Counter[tuple[str, str]] = Counter()
        self.direct = kind.encoding == "raw" and kind.plane != "ir"
        self._h264: H264Encoder | None = None
        self._unit = 0
        self._last: tuple[Image, Image] | None = None
        self._changed = threading.Condition()
        self._waiting: _Job | None = None
        self._over = False
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    @property
    def drops(self) -> dict[tuple[str, str], int]:
        """Pictures that were not encoded, by endpoint and topic, and cause; from any thread."""
        with self._changed:
            return dict(self._drops)

    def offer(self, header: Header, fused: Fused, finish: Finish) -> None:
        """Take a picture; never waits. Raises the exception that ended the encoder's thread."""
        to = [one for one in self.to if one.wanted]
        if not to:
            return
        job = _Job(header, fused, finish, to)
        if self.direct:
            self._send(job)
            return
        with self._changed:
            if self._error is not None:
                raise self._error
            if self._waiting is not None:
                self._drops.update((f"{one.endpoint.name} {one.topic}", "encoder") for one in self._waiting.to)
            self._waiting = job
            if self._thread is None:
                name = f"rtfuse-{self.kind.plane}-{self.kind.encoding}"
                self._thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def joined(self, topic: str, endpoint: Endpoint) -> None:
        """Note a new subscriber: H.264 needs a key frame."""
        if self._h264 is not None and any(one.topic == topic and one.endpoint is endpoint for one in self.to):
            self._h264.want_key()

    def finish(self) -> None:
        """End the thread after the waiting picture."""
        with self._changed:
            self._over = True
            self._changed.notify()

    def join(self, timeout_s: float) -> None:
        """Wait for the last picture to be sent."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _work(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting is not None or self._over)
                    job, self._waiting = self._waiting, None
                if job is None:
                    return
                self._send(job)
        except Exception as e:  # noqa: BLE001 - raised again by `offer`
            with self._changed:
                self._error = e

    def _send(self, job: _Job) -> None:
        """Encode and send, one message for all endpoints with the same topic."""
        kind, content = self.kind, content_of(job.fused, self.kind.plane)
        if content is None:
            return
        h, w = content.shape_hw if isinstance(content, Picture) else content.shape
        header: Header = msgspec.structs.replace(
            job.header,
            plane=kind.plane,
            pixel_format=kind.pixel_format,
            encoding=kind.encoding,
            width=w,
            height=h,
        )
        made: dict[str, zmq.Frame] = {}
        header, payload = self._coded(header, content, job)
        for one in job.to:
            if one.topic not in made:
                whole: Any
                if payload is None:
                    whole = encode(one.topic, header, content if header.yuv else _pixels(content))
                else:
                    whole = message(one.topic, header, payload)
                made[one.topic] = zmq.Frame(whole, copy=False)
            one.endpoint.send(made[one.topic])

    def _coded(self, header: Header, content: Picture | Image, job: _Job) -> tuple[Header, Image | None]:
        """Return the final header and the payload, None for raw pixels, which are copied into the message only."""
        kind = self.kind
        if kind.encoding == "raw":
            return job.finish(header), None
        check_size(header)
        if kind.encoding == "h264":
            if self._h264 is None:
                from rtfuse.wire.h264 import H264Encoder

                self._h264 = H264Encoder(kind.setting)
            data, key = self._h264(content, header.published_ns / 1e9)
            header = msgspec.structs.replace(job.finish(header), key_frame=key, unit=self._unit)
            self._unit += 1
            return header, np.frombuffer(data, np.uint8)
        if isinstance(content, Picture):
            payload = compress(content, kind.encoding, kind.setting or 0)
            return job.finish(header), payload
        check_image(header, content)
        lasting = kind.plane in LASTING
        if lasting and self._last is not None and self._last[0] is content:
            return job.finish(header), self._last[1]
        payload = compress(content, kind.encoding, kind.setting or 0)
        self._last = (content, payload) if lasting else None
        return job.finish(header), payload


def _pixels(content: Picture | Image) -> Image:
    """Return the array of a plane; RGB is computed once for all encoders."""
    return content.rgb if isinstance(content, Picture) else content
