"""Send the newest frame to each viewer: over WebSocket with one message in flight per viewer, or as MJPEG.

A message is the length of a JSON header (uint32, little-endian), the header, and the JPEG planes that it lists. The
viewer says `{"ack": seq}` when it begins to decode one; only then the next is made, of the frame that is
newest then, so that nothing queues up, however slow a viewer is.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import WSMsgType, web

from rtfuse.observe.logs import event
from rtfuse.types import Clock, Fused, PlacedSpot
from rtfuse.web.encode import Encoded, Encoder, PagePlane, QualityName, Shot, at_most
from rtfuse.web.patience import Patient

MAX_SAID_BYTES = 4096
"""Of one message of a viewer."""
_SAID_PER_S = 200
"""Messages of one viewer; more, and it is sent away."""
_LENGTH = struct.Struct("<I")
_AGAIN_S = 0.5
_GOODBYE_S = 0.3
_DEGREES: tuple[tuple[int, QualityName], ...] = ((1, "high"), (2, "medium"), (6, "low"))
"""Of how many frames a viewer gets one, and the best quality, by how far the page is lowered."""
_LEAST_NS = 500_000_000
"""A viewer gets a picture after this time, however far the page is lowered."""
_log = logging.getLogger("rtfuse.web")


class Want(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Choice of a viewer: planes and quality."""

    planes: Annotated[list[PagePlane], msgspec.Meta(max_length=3)]
    quality: QualityName = "medium"


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Message from a viewer."""

    ack: int | None = None
    want: Want | None = None


@dataclass(eq=False)
class Viewer:
    """Viewer: the frame it has, the frame on its way (`flying`), the text to send next."""

    want: Want
    seq: int = 0
    flying: int | None = None
    sent_ns: int = 0
    trip_ms: float | None = None
    text: str | None = None
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    socket: web.WebSocketResponse | None = None


class Live:
    """Keep the newest frame, and send it to the viewers.

    `write` stores a reference and wakes all viewers; nothing is encoded while nobody watches. `extras` gives
    what else goes into the header of a frame. All but `write` and `degree` is for the event loop.

    `degree`: how far the page is lowered while the rig has too little processor: 0 to `degrees`.
    """

    degrees = len(_DEGREES) - 1

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Clock = time.monotonic_ns,
        extras: Callable[[Fused], Mapping[str, Any]] | None = None,
    ) -> None:
        self._loop, self._clock, self._extras = loop, clock, extras
        self.shot: Shot | None = None
        self.encoder = Encoder()
        self.viewers: set[Viewer] = set()
        self.degree = 0
        self.worst_ns = 0
        """The greatest age of a frame when it came here, since somebody set this to 0; 0 for recordings."""

    def write(self, fused: Fused) -> None:
        """Keep the frame until the next one comes."""
        self.shot = Shot(self.shot.seq + 1 if self.shot else 1, fused)
        if not fused.pair.leader.stamp.recorded:
            self.worst_ns = max(self.worst_ns, fused.pair.leader.age_ns(self._clock()))
        if self.viewers:
            with suppress(RuntimeError):  # the loop may have ended
                self._loop.call_soon_threadsafe(self._stir)

    @property
    def watched(self) -> bool:
        """True if somebody watches."""
        return bool(self.viewers)

    def eased(self) -> str:
        """Return what viewers get at the present degree, in words."""
        every, quality = _DEGREES[self.degree]
        return (
            f"the page to one frame in {every}, {quality} quality"
            if self.degree
            else "the page to all that viewers want"
        )

    def _passed_over(self, viewer: Viewer, shot: Shot) -> bool:
        """Return True if the viewer has this frame already, or does not get it, as the page is lowered."""
        every, since_ns = _DEGREES[self.degree][0], time.monotonic_ns() - viewer.sent_ns
        return shot.seq <= viewer.seq or (0 < viewer.seq > shot.seq - every and since_ns < _LEAST_NS)

    def close(self) -> None:
        """Encode nothing more."""
        self.encoder.close()

    def _stir(self) -> None:
        for viewer in self.viewers:
            viewer.stirred.set()

    def tell(self, text: str) -> None:
        """Send a text to every viewer; it replaces an earlier text that a viewer has not received yet."""
        for viewer in self.viewers:
            viewer.text = text
            viewer.stirred.set()

    async def leave(self) -> None:
        """Disconnect all viewers as the rig ends; do not wait for those that do not answer."""
        sockets = [viewer.socket for viewer in self.viewers if viewer.socket is not None]
        goodbyes = [asyncio.create_task(s.close(code=1001, message=b"the rig has stopped")) for s in sockets]
        if goodbyes:
            for late in (await asyncio.wait(goodbyes, timeout=_GOODBYE_S))[1]:
                late.cancel()

    async def watch(self, socket: web.WebSocketResponse, hello: str) -> None:
        """Show frames to one viewer until it leaves."""
        viewer = Viewer(Want([]), socket=socket)
        self.viewers.add(viewer)
        speaking = asyncio.create_task(self._speak(viewer, socket, hello))
        try:
            await self._listen(viewer, socket)
        finally:
            self.viewers.discard(viewer)
            speaking.cancel()
            with suppress(asyncio.CancelledError):
                await speaking

    async def _listen(self, viewer: Viewer, socket: web.WebSocketResponse) -> None:
        decoder, second, heard = msgspec.json.Decoder(Said), 0, 0
        async for message in socket:
            now = int(time.monotonic())
            second, heard = (now, 1) if now != second else (second, heard + 1)
            try:
                if message.type is not WSMsgType.TEXT or heard > _SAID_PER_S:
                    raise ValueError("too much, or not text")
                said = decoder.decode(message.data)
            except (ValueError, RecursionError):  # msgspec's errors are ValueErrors too
                await socket.close(code=1008, message=b"not understood")
                return
            if said.ack is not None and said.ack == viewer.flying:
                viewer.flying, viewer.trip_ms = None, (time.monotonic_ns() - viewer.sent_ns) / 1e6
            if said.want is not None:
                viewer.want, viewer.seq = said.want, 0
            viewer.stirred.set()

    async def _speak(self, viewer: Viewer, socket: web.WebSocketResponse, hello: str) -> None:
        try:
            await socket.send_str(hello)
            while not socket.closed:
                await viewer.stirred.wait()
                viewer.stirred.clear()
                await self._say_newest(viewer, socket)
        except ConnectionError:
            return  # it has left
        except Exception as e:  # noqa: BLE001 - the viewer is sent away and may come back
            event(_log, logging.ERROR, "web", f"a picture could not be shown: {type(e).__name__}: {e}")
            await socket.close(code=1011, message=b"the rig failed to answer; see its log")

    async def _say_newest(self, viewer: Viewer, socket: web.WebSocketResponse) -> None:
        if viewer.text is not None:
            text, viewer.text = viewer.text, None
            await socket.send_str(text)
        shot = self.shot
        if shot is None or viewer.flying is not None or not viewer.want.planes or self._passed_over(viewer, shot):
            return
        viewer.seq = viewer.flying = shot.seq
        message = await self._message(shot, viewer)
        viewer.sent_ns = time.monotonic_ns()
        await socket.send_bytes(message)

    async def _message(self, shot: Shot, viewer: Viewer) -> bytes:
        planes: dict[str, Encoded] = {}
        quality = at_most(viewer.want.quality, _DEGREES[self.degree][1])
        for plane in dict.fromkeys(viewer.want.planes):
            if (made := await self.encoder.plane(shot, plane, quality)) is not None:
                planes[plane] = made
        fused, pair = shot.fused, shot.fused.pair
        header = {
            "seq": shot.seq,
            "age_ms": None if pair.leader.stamp.recorded else round(pair.leader.age_ns(self._clock()) / 1e6, 1),
            "trip_ms": viewer.trip_ms and round(viewer.trip_ms, 1),
            "skew_ms": round(pair.skew_ns / 1e6, 2) if pair.skew_ns is not None else None,
            "mode": fused.mode,
            "size": list(fused.shape_hw[::-1]),
            "planes": [[name, len(p.data), p.width, p.height] for name, p in planes.items()],
            "spots": spots_of(fused.spots),
            **(self._extras(fused) if self._extras else {}),
        }
        text = msgspec.json.encode(header)
        return b"".join([_LENGTH.pack(len(text)), text, *(p.data for p in planes.values())])

    async def stream(
        self, response: Patient, view: Literal["fused", "ir", "rgb"], quality: QualityName, palette: str
    ) -> None:
        """Write frame after frame as `multipart/x-mixed-replace` until the viewer leaves."""
        viewer = Viewer(Want([view], quality))
        viewer.stirred.set()
        self.viewers.add(viewer)
        try:
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(viewer.stirred.wait(), _AGAIN_S)
                viewer.stirred.clear()
                # Soon the old picture again: it fills the buffers of a viewer that does not read, which shows it.
                shot, waited_s = self.shot, (time.monotonic_ns() - viewer.sent_ns) / 1e9
                if shot is None or (self._passed_over(viewer, shot) and waited_s < _AGAIN_S):
                    continue
                viewer.seq, viewer.sent_ns = shot.seq, time.monotonic_ns()
                most = at_most(quality, _DEGREES[self.degree][1])
                if (made := await self.encoder.plane(shot, view, most, palette)) is not None:
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(made.data)}\r\n\r\n"
                    await response.write(head.encode() + made.data + b"\r\n")
        finally:
            self.viewers.discard(viewer)


def spots_of(spots: tuple[PlacedSpot, PlacedSpot] | None) -> list[dict[str, float]] | None:
    """Return the hottest and the coldest point for a header: x, y in pixels of the frame, k in kelvin."""
    return spots and [{"x": round(s.x, 1), "y": round(s.y, 1), "k": round(s.k, 2)} for s in spots]
