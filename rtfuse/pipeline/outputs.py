"""Check and open the outputs of a `Config`: the ZeroMQ endpoints, and the files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import rtfuse
from rtfuse.capture.prepared import Prepared
from rtfuse.config import Config, Endpoint, dump_config
from rtfuse.errors import ConfigError, OutputUnwritable
from rtfuse.folders import expanded
from rtfuse.outputs import check_output
from rtfuse.pipeline.controls import Controls
from rtfuse.pipeline.queues import STREAMS
from rtfuse.pipeline.rig import Rig
from rtfuse.publish.control import ControlEndpoint
from rtfuse.publish.planes import Offer
from rtfuse.publish.publisher import About, Publisher, States, Statistics
from rtfuse.record.raw import RawRecorder, check_raw
from rtfuse.record.video import check_writer
from rtfuse.stream.settings import check_streams
from rtfuse.stream.streamer import Streamer
from rtfuse.types import Clock, Source, SourceInfo, Stream
from rtfuse.wire.description import CameraAbout


def check_outputs(config: Config) -> None:
    """Check the outputs before anything is opened.

    Raises OutputExists or OutputUnwritable for a file that cannot be written, ConfigError for a stream's address.
    """
    check_streams(config.stream)
    if config.stream.uris and config.playback.speed == "max":
        raise ConfigError("playback.speed: 'max' has no pace; a stream needs that of real time")
    record, raw, trace = config.record, config.raw, config.trace
    named = [os.path.realpath(expanded(path)) for path in (record.path, raw.path, trace) if path]
    if len(named) != len(set(named)):
        raise OutputUnwritable("two of record.path, raw.path and trace name the same file; give each its own")
    if record.path:
        check_writer(record.path, force=record.force)
    if raw.path:
        check_raw(Path(raw.path), reserve_bytes=_reserve_bytes(config), force=raw.force)
    if trace:
        check_output(Path(trace), force=record.force)


def _reserve_bytes(config: Config) -> int:
    return round(config.raw.reserve_mb * 1e6)


def open_publisher(
    config: Config,
    *,
    statistics: Statistics | None = None,
    states: States | None = None,
    about: Callable[[], About] | None = None,
    clock: Clock = time.monotonic_ns,
) -> Publisher | None:
    """Bind the ZeroMQ endpoints of the configuration; None if it has none.

    The providers (see `Publisher`) and `clock` are called once frames are written: the rig may be opened after this.
    """
    offers = _offers(config)
    if not offers:
        return None
    p = config.publish
    return Publisher(
        offers,
        rig=config.rig,
        statistics=statistics,
        states=states,
        about=about,
        allow_remote=p.insecure,
        keys=p.keys,
        clock=clock,
    )


def _offers(config: Config) -> list[Offer]:
    """Return the planes of each endpoint."""
    p = config.publish
    listed = p.endpoints or ([Endpoint(endpoint=p.endpoint)] if p.endpoint is not None else [])
    return [
        Offer(
            e.endpoint,
            encoding=e.encoding or p.encoding,
            planes=e.planes if e.planes is not None else p.planes,
            topic=p.topic if e.topic is None else e.topic,
            pixel_format=e.pixel_format or p.pixel_format,
            jpeg_quality=e.jpeg_quality or p.jpeg_quality,
            h264_kbps=e.h264_kbps or p.h264_kbps,
            prefix=f"{config.rig}/" if p.rig_topics else "",
        )
        for e in listed
    ]


def describing(config: Config, rig: Rig) -> Callable[[], About]:
    """Return a provider that describes the rig: version, fuser at work, cameras, calibration."""
    calibration = Path(config.align.calib).read_text(encoding="utf-8") if config.align.calib else ""
    software = rtfuse.__version__

    def about() -> About:
        return About(software, str(rig.fuser), {s: _camera(rig.sources[s].info) for s in STREAMS}, calibration)

    return about


def _camera(info: SourceInfo) -> CameraAbout:
    w, h = info.size_wh
    return CameraAbout(
        uri=info.uri,
        width=w,
        height=h,
        dtype=info.dtype,
        live=info.live,
        rate_hz=info.rate_hz,
        coding=info.coding,
    )


def open_control(config: Config, controls: Sequence[Controls]) -> ControlEndpoint | None:
    """Bind the endpoint at which programs change settings; None if the configuration has none.

    `controls` holds those of the rig once it is open; requests before are refused.
    """
    how = config.control
    if how.endpoint is None:
        return None

    def change(request: bytes) -> object:
        if not controls:
            raise ValueError("the rig is starting; ask again")
        return controls[0].change(request)

    publish = config.publish
    return ControlEndpoint(
        how.endpoint, change, lambda: controls[0].now(), keys=publish.keys, allow_remote=publish.insecure
    )


def open_streams(config: Config, rig: Rig) -> dict[str, Streamer]:
    """Open the streams to servers and players, by the names of their threads. Raises ConfigError for the encoder."""
    how = config.stream
    if not how.uris:
        return {}
    from rtfuse.stream.session import encoder_of

    encoder, rate_hz = encoder_of(how.encoder), rig.sources["rgb"].info.rate_hz or 30.0
    return {
        f"stream-{k}": Streamer(uri, how, encoder=encoder, rate_hz=rate_hz, clock=rig.clock)
        for k, uri in enumerate(how.uris, 1)
    }


def open_raw(config: Config, sources: Mapping[Stream, Source]) -> RawRecorder:
    """Open the file that both streams are recorded to, as their cameras send them."""
    infos = {s: (source.source if isinstance(source, Prepared) else source).info for s, source in sources.items()}
    raw = config.raw
    assert raw.path is not None
    calib = config.align.calib
    return RawRecorder(
        raw.path,
        infos,
        rgb_codec=raw.rgb_codec,
        split_s=raw.split_s,
        split_bytes=round(raw.split_mb * 1e6) if raw.split_mb else None,
        reserve_bytes=_reserve_bytes(config),
        metadata={"config": dump_config(config), "calibration": Path(calib).read_text() if calib else ""},
        force=raw.force,
    )
