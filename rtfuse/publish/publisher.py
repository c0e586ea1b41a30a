"""Publish fused frames, their planes, and the rig's statistics, states and description on ZeroMQ sockets."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import msgspec
import zmq

from rtfuse.publish.auth import Authenticator
from rtfuse.publish.encoders import Encoder, Kind, Outgoing, kind_of
from rtfuse.publish.endpoint import Endpoint, check
from rtfuse.publish.planes import Offer
from rtfuse.types import Clock, Fused, Stream
from rtfuse.types import Depth as Registered
from rtfuse.wire.description import (
    CameraAbout,
    Description,
    PlaneAbout,
    StateChange,
    StreamState,
    encode_description,
    encode_state,
)
from rtfuse.wire.message import Depth, Header, Spot, check_names
from rtfuse.wire.names import ABOUT_TOPIC, STATE_TOPIC, STATISTICS_TOPIC, YuvFormat
from rtfuse.wire.statistics import Statistics as StatisticsMessage
from rtfuse.wire.statistics import encode_statistics

_SECOND_NS = 1_000_000_000
_LAST_S = 1.0
"""Longest time for encoders to finish the last pictures."""


Statistics = Callable[[], Mapping[str, Any]]
"""Return the fields of `wire.Statistics`."""
States = Callable[[], Mapping[str, tuple[str, str | None]]]
"""Return the state of each stream, and the reason where it is lost."""


@dataclass(frozen=True, slots=True)
class About:
    """Describe a rig: `software` its version, `fuser` the method, its cameras, the text of its calibration file."""

    software: str
    fuser: str
    streams: Mapping[str, CameraAbout]
    calibration: str = ""


class Publisher:
    """Publish every frame, each plane as one message part; see `rtfuse.wire.message`.

    A slow, stuck or dead subscriber loses frames and delays nothing: a few frames wait for each, no more. A plane is
    encoded only for subscribers, and once for all of them; frames that an encoder could not take in time are counted in
    `drops`.

    - `endpoint`: one endpoint, for raw fused frames, or several offers with one `prefix`.
    - `rig`: the name in every message.
    - `statistics`: called by `tick` once a second, and published.
    - `states`: called by `tick`, and published when a state, or the reason of a lost stream, changes.
    - `about`: called by `tick` once a second, and published to new subscribers and when it changes.
    - `allow_remote`: permits an endpoint beyond this machine without `keys`.
    - `keys`: a folder of `rtfuse.wire.keys`; TCP is then encrypted, for authorised clients only.

    `refused` counts by cause the peers that were refused. `sent` counts frames, with or without subscribers. Use it
    from one thread; `subscribers`, `wants_aligned` and `drops` may be read from any. Raises ConfigError for an argument
    that makes no sense, EndpointUnavailable for an endpoint that cannot be bound.
    """

    def __init__(
        self,
        endpoint: str | Sequence[Offer],
        *,
        rig: str = "rig",
        statistics: Statistics | None = None,
        states: States | None = None,
        about: Callable[[], About] | None = None,
        allow_remote: bool = False,
        keys: str | Path | None = None,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        if isinstance(endpoint, str):
            endpoint = [Offer(endpoint)]
        for offer in endpoint:
            check(offer.endpoint, encrypted=keys is not None, allow_remote=allow_remote)
            check_names(offer.topic_of("fused"), offer.encoding, rig)
        self.sent = 0
        self._clock, self._rig, self._session = clock, rig, secrets.token_hex(8)
        self._statistics, self._states, self._about = statistics, states, about
        self._next_statistics_ns = 0
        self._told_states: Mapping[str, tuple[str, str | None]] = {}
        self._told_about: About | None = None
        self._next_about_ns = 0
        self._shown: dict[Stream, tuple[int, int]] = {}
        self._offers = list(endpoint)
        self._endpoints: list[Endpoint] = []
        self._encoders: dict[Kind, Encoder] = {}
        self._own = {topic: endpoint[0].prefix + topic for topic in (STATISTICS_TOPIC, STATE_TOPIC, ABOUT_TOPIC)}
        self._context: zmq.Context[Any] = zmq.Context()
        self._authenticator = Authenticator(self._context, keys)
        self.refused = self._authenticator.refused
        try:
            for offer in self._offers:
                self._add(offer)
        except Exception:
            self.close()
            raise
        self._ordered = sorted(self._encoders.values(), key=lambda encoder: encoder.direct)

    def _add(self, offer: Offer) -> None:
        topics = [offer.topic_of(plane) for plane in offer.planes]
        bound = Endpoint(self._context, self._authenticator, offer.endpoint, [*topics, *self._own.values()])
        self._endpoints.append(bound)
        for plane in dict.fromkeys(offer.planes):
            kind = kind_of(offer, plane)
            self._encoders.setdefault(kind, Encoder(kind)).to.append(Outgoing(bound, offer.topic_of(plane)))

    @property
    def endpoint(self) -> str:
        """The first endpoint."""
        return self._endpoints[0].name

    @property
    def endpoints(self) -> list[str]:
        """All endpoints."""
        return [bound.name for bound in self._endpoints]

    def lines(self) -> list[str]:
        """Return a line for each endpoint: its topics and address."""
        said = []
        for offer, bound in zip(self._offers, self._endpoints, strict=True):
            kinds = {offer.topic_of(plane): kind_of(offer, plane) for plane in offer.planes}
            topics = [topic + _said(kind) for topic, kind in kinds.items()]
            said.append(f"{', '.join(topics)} on {bound.name}")
        return said

    @property
    def sent_bytes(self) -> int:
        """Number of bytes handed to ZeroMQ."""
        return sum(bound.sent_bytes for bound in self._endpoints)

    @property
    def drops(self) -> Mapping[tuple[str, str], int]:
        """Number of frames that encoders could not take, by endpoint and topic, and cause."""
        drops: Counter[tuple[str, str]] = Counter()
        for encoder in self._encoders.values():
            drops.update(encoder.drops)
        return drops

    def subscribers(self) -> dict[tuple[str, str], int]:
        """Return how many subscribers each endpoint and topic has."""
        return {(bound.name, topic): n for bound in self._endpoints for topic, n in bound.subscribers().items()}

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wants_aligned(self) -> bool:
        """Return True if somebody subscribes to the aligned thermal plane."""
        return any(one.wanted for kind, encoder in self._encoders.items() if kind.plane == "ir" for one in encoder.to)

    def write(self, fused: Fused) -> None:
        """Publish one frame; never waits for a subscriber or an encoder. Raises ConfigError if it is too large."""
        self._listen()
        header, leader = self.header(fused), fused.pair.leader

        def finish(header: Header) -> Header:
            now = self._clock()
            return msgspec.structs.replace(header, age_ns=leader.age_ns(now), **_published(now))

        for encoder in self._ordered:  # those with threads of their own first: they begin while raw is copied
            encoder.offer(header, fused, finish)
        self.sent += 1

    def tick(self) -> None:
        """Publish statistics, states and the description when they are due, also while no frame comes."""
        now = self._clock()
        self._listen()
        if self._statistics is not None and now >= self._next_statistics_ns:
            self._next_statistics_ns = now + _SECOND_NS
            told = msgspec.convert({**self._statistics(), **self._of_us(now)}, StatisticsMessage)
            self._say(encode_statistics(self._own[STATISTICS_TOPIC], told), self._endpoints)
        if self._states is not None:
            self._follow(self._states())
        if self._about is not None and now >= self._next_about_ns:
            self._next_about_ns = now + _SECOND_NS
            about = self._about()
            if about != self._told_about:
                self._told_about = about
                for offer, bound in zip(self._offers, self._endpoints, strict=True):
                    self._describe(offer, bound)

    def _listen(self) -> None:
        """Send the description, the states and a key frame to new subscribers."""
        for offer, bound in zip(self._offers, self._endpoints, strict=True):
            joined = bound.joined()
            if self._own[ABOUT_TOPIC] in joined:
                self._describe(offer, bound)
            if self._own[STATE_TOPIC] in joined and self._told_states:
                self._say(self._state(None, None), [bound])
            for topic in joined:
                for encoder in self._encoders.values():
                    encoder.joined(topic, bound)

    def _follow(self, states: Mapping[str, tuple[str, str | None]]) -> None:
        before, self._told_states = self._told_states, dict(states)
        for stream, (state, why) in states.items():
            was, was_why = before.get(stream, (None, None))
            if state != was or why not in (None, was_why):
                self._say(self._state(stream, was), self._endpoints)

    def _state(self, stream: str | None, before: str | None) -> bytes:
        streams = {name: StreamState(state=state, why=why) for name, (state, why) in self._told_states.items()}
        change = StateChange(stream=stream, before=before, streams=streams, **self._of_us(self._clock()))
        return encode_state(self._own[STATE_TOPIC], change)

    def _describe(self, offer: Offer, bound: Endpoint) -> None:
        about = self._told_about
        if about is None:
            return
        kinds = {plane: kind_of(offer, plane) for plane in offer.planes}
        planes = [
            PlaneAbout(
                topic=offer.topic_of(plane),
                plane=plane,
                pixel_format=kind.pixel_format,
                encoding=kind.encoding,
                jpeg_quality=kind.setting if kind.encoding == "jpeg" else None,
                h264_kbps=kind.setting if kind.encoding == "h264" else None,
            )
            for plane, kind in kinds.items()
        ]
        description = Description(
            software=about.software,
            fuser=about.fuser,
            streams=dict(about.streams),
            planes=planes,
            **self._of_us(self._clock()),
        )
        self._say(encode_description(self._own[ABOUT_TOPIC], description, about.calibration), [bound])

    def _of_us(self, now: int) -> dict[str, Any]:
        return {"session": self._session, "rig": self._rig, **_published(now)}

    def _say(self, message: bytes, to: Sequence[Endpoint]) -> None:
        for bound in to:
            bound.send(zmq.Frame(message))

    def header(self, fused: Fused) -> Header:
        """Return the header that the fused plane would be published with now."""
        pair, now = fused.pair, self._clock()
        for frame in pair.frames:
            self._shown[frame.stream] = frame.frame_id, frame.t_ns
        (ir_id, ir_t_ns), (rgb_id, rgb_t_ns) = (self._shown.get(stream, (0, 0)) for stream in ("ir", "rgb"))
        hot, cold = [Spot(round(s.x, 1), round(s.y, 1), round(s.k, 2)) for s in fused.spots or ()] or (None, None)
        return Header(
            session=self._session,
            seq=self.sent,
            rig=self._rig,
            mode=fused.mode,
            fuser=fused.fuser,
            ir_id=ir_id,
            rgb_id=rgb_id,
            ir_t_ns=ir_t_ns,
            rgb_t_ns=rgb_t_ns,
            stamp=pair.leader.stamp.value,
            ir_reused=pair.reused,
            skew_ns=ir_t_ns - rgb_t_ns if pair.skew_ns is None else pair.skew_ns,
            ir_state=fused.states.get("ir", "live"),
            rgb_state=fused.states.get("rgb", "live"),
            hot=hot,
            cold=cold,
            age_ns=pair.leader.age_ns(now),
            published_ns=now,
            published_unix_ms=time.time_ns() // 1_000_000,
            width=fused.shape_hw[1],
            height=fused.shape_hw[0],
            encoding=self._offers[0].encoding,
            depth=_depth(fused.depth),
        )

    def close(self) -> None:
        """Give the last frames a moment to leave, then close."""
        until = time.monotonic() + _LAST_S
        for encoder in self._encoders.values():
            encoder.finish()
        for encoder in self._encoders.values():
            encoder.join(max(0.0, until - time.monotonic()))
        for bound in self._endpoints:
            bound.close()
        self._authenticator.close()
        self._context.term()


def _said(kind: Kind) -> str:
    """Return the encoding, or the pixel format of raw YUV, in brackets; nothing for other raw planes."""
    if kind.encoding != "raw":
        return f" ({kind.encoding})"
    return f" ({kind.pixel_format})" if kind.pixel_format in get_args(YuvFormat) else ""


def _depth(depth: Registered | None) -> Depth | None:
    if depth is None:
        return None
    known = None if depth.known is None else round(depth.known, 3)
    plane_m, target_m = (float(f"{m:.4g}") for m in (depth.plane_m, depth.target_m))
    return Depth(depth.mode, plane_m, target_m, known)


def _published(now: int) -> dict[str, int]:
    return {"published_ns": now, "published_unix_ms": time.time_ns() // 1_000_000}
