"""Export the pipeline's counts as Prometheus metrics (text exposition format, by prometheus_client)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from rtfuse.observe.health import State
from rtfuse.observe.stats import Snapshot, Spread

_Labels = tuple[str, ...]


class Audience(Protocol):
    """Counts of subscribers: `rtfuse.publish.publisher.Publisher`. Both may be called from any thread."""

    @property
    def refused(self) -> Mapping[str, int]:
        """Peers that were not let in, by cause."""
        ...

    def subscribers(self) -> Mapping[tuple[str, str], int]:
        """Yield the subscriptions by endpoint and topic."""
        ...


def exposition(
    snapshot: Snapshot, about: Mapping[str, str], audience: Audience | None = None, viewers: int = 0
) -> bytes:
    """Return all metrics as text; `about` are the labels of `rtfuse_info`: rig, fuser, version.

    `viewers` watch the page; those of the process itself (memory, processor, files) come with them.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(lambda: _families(snapshot, about)))
    registry.register(_Once(lambda: _listening(audience, viewers)))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def _listening(audience: Audience | None, viewers: int) -> Iterator[Metric]:
    yield _gauge("rtfuse_viewers", "Browsers that watch the page.", {(): float(viewers)}, [])
    if audience is None:
        return
    there: dict[_Labels, float] = {key: float(n) for key, n in audience.subscribers().items()}
    yield _gauge("rtfuse_subscribers", "Subscriptions to published topics.", there, ["endpoint", "topic"])
    refused = CounterMetricFamily("rtfuse_refused_peers", "Peers that were not let in, by cause.", labels=["cause"])
    for cause, n in sorted(audience.refused.items()):
        refused.add_metric([cause], n)
    yield refused


class _Once(Collector):
    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return self._families()

    def describe(self) -> list[Metric]:
        return []


def _families(s: Snapshot, about: Mapping[str, str]) -> Iterator[Metric]:
    info = GaugeMetricFamily("rtfuse_info", "What runs here; always 1.", labels=list(about))
    info.add_metric(list(about.values()), 1)
    yield info
    yield _gauge("rtfuse_frame_rate_hz", "Frames published per second, over the last seconds.", {(): s.recent_hz}, [])
    frames = CounterMetricFamily("rtfuse_frames", "Frames published, by what they showed.", labels=["mode"])
    for mode in ("fused", "rgb", "ir", "held"):
        frames.add_metric([mode], s.modes.get(mode, 0))
    yield frames
    yield CounterMetricFamily("rtfuse_frames_reused", "Fused with a thermal frame used before.", value=s.reused)
    drops = CounterMetricFamily("rtfuse_dropped_frames", "Frames not used, by cause.", labels=["where", "cause"])
    for (where, cause), n in sorted(s.drops.items()):
        drops.add_metric([where, cause], n)
    yield drops
    yield _histogram("rtfuse_age_seconds", "From the leading frame's capture to its publication.", {(): s.age}, [])
    yield _histogram("rtfuse_skew_seconds", "Capture of thermal minus capture of RGB, in a pair.", {(): s.skew}, [])
    stages: dict[_Labels, Spread] = {(name,): spread for name, spread in s.stages.items()}
    yield _histogram("rtfuse_stage_seconds", "How long one frame takes in a stage.", stages, ["stage"])
    yield _gauge("rtfuse_lowered", "Parts lowered for lack of processor.", {(): float(len(s.lowered))}, [])
    overload: dict[_Labels, float] = {(): float(s.overload is not None)}
    yield _gauge("rtfuse_overload", "1 while frames stay late although lowering parts does not help.", overload, [])
    queues: dict[_Labels, float] = {(name,): float(n) for name, n in s.queues.items()}
    yield _gauge("rtfuse_queue_depth", "Frames that wait before a stage.", queues, ["stage"])
    yield from _streams(s)
    if s.spots is not None:
        spots: dict[_Labels, float] = {("hot",): s.spots[0].k, ("cold",): s.spots[1].k}
        yield _gauge("rtfuse_temperature_kelvin", "Hottest and coldest point of the newest frame.", spots, ["spot"])


def _streams(s: Snapshot) -> Iterator[Metric]:
    states: dict[_Labels, float] = {
        (name, state.value): float(c.state is state) for name, c in s.streams.items() for state in State
    }
    yield _gauge("rtfuse_stream_state", "1 for what a stream is doing now, else 0.", states, ["stream", "state"])
    known = [
        ("rtfuse_stream_rate_hz", "Frames per second, as measured.", "rate_hz", 1.0),
        ("rtfuse_stream_latency_seconds", "From capture to arrival, median of the last frames.", "latency_ms", 1e-3),
        ("rtfuse_stream_drift_ppm", "How much faster the stream's own clock runs.", "drift_ppm", 1.0),
    ]
    for metric, text, key, unit in known:
        values: dict[_Labels, float] = {
            (name,): getattr(c, key) * unit for name, c in s.streams.items() if getattr(c, key) is not None
        }
        yield _gauge(metric, text, values, ["stream"])
    for metric, text, key in (
        ("rtfuse_stream_clock_steps", "How often the stream's own clock jumped.", "clock_steps"),
        ("rtfuse_stream_reconnects", "How often the source came back.", "reconnects"),
    ):
        counter = CounterMetricFamily(metric, text, labels=["stream"])
        for name, c in s.streams.items():
            counter.add_metric([name], getattr(c, key))
        yield counter


def _gauge(name: str, text: str, values: Mapping[_Labels, float], labels: list[str]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family


def _histogram(name: str, text: str, spreads: Mapping[_Labels, Spread], labels: list[str]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, spread in spreads.items():
        if not spread.bins:  # the age of a recording
            continue
        edges = ["+Inf" if edge == float("inf") else repr(edge / 1e3) for edge, _ in spread.bins]
        below = accumulate(n for _, n in spread.bins)
        family.add_metric(list(key), list(zip(edges, map(float, below), strict=True)), spread.sum_ms / 1e3)
    return family
