"""Configuration: YAML and `key=value` into frozen structs; an unknown key or a wrong type is refused by its path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from rtfuse.errors import ConfigError
from rtfuse.fuse import Engine, Precision
from rtfuse.settings import Count, NotNegative, Positive, Quality, Share, read_yaml, to_struct
from rtfuse.sync.pairer import Policy
from rtfuse.wire.names import Encoding, Plane


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all sections: keyword-only, immutable, unknown keys refused."""


class Camera(_Section, frozen=True):
    """One stream. `offset_ms` is added to its capture times; `fps`, `size` (w, h) and `format` are asked of it.

    `controls` are set on a V4L2 camera by their names (`rtfuse probe` lists them). `timeout_ms` without a frame makes a
    live source be opened again. `freeze`: take pictures repeated bit for bit for a frozen camera's; null: where the
    source is a camera or has 16 bits, as a compressed stream may repeat a scene at rest. `transport` is RTSP's.
    """

    uri: str | None = None
    offset_ms: float = 0.0
    fps: Positive | None = None
    size: tuple[Count, Count] | None = None
    format: str | None = None
    controls: dict[str, int | bool | str] = {}
    timeout_ms: Positive = 5000.0
    freeze: bool | None = None
    transport: Literal["tcp", "udp"] = "tcp"


class Sync(_Section, frozen=True):
    """How frames become pairs; see `rtfuse.sync.pairer.Pairer`. `queue` is the frames kept per camera when fusing lags.

    `tolerance_ms: null` takes half a frame period of the slower stream, or 20 ms where no rate is known.
    """

    policy: Policy = "lead"
    tolerance_ms: NotNegative | None = None
    max_reuse_ms: NotNegative = 150.0
    wait_ms: NotNegative = 20.0
    queue: Count = 8


class Agc(_Section, frozen=True):
    """How 16-bit counts become 8-bit brightness; see `rtfuse.thermal.agc.Agc`.

    `tails` are the shares of pixels that may clip to black and to white. `plateau` caps a histogram bin, in multiples
    of the mean occupied bin; `max_gain` is in grey levels per count. `tau_ms` is the time constant of the smoothing;
    `region` (left, top, width, height), shares of the picture from 0 to 1, is what the mapping is made for. `freeze`:
    keep the first mapping.
    """

    method: Literal["plateau", "linear", "clahe"] = "plateau"
    tails: tuple[Share, Share] = (0.001, 0.001)
    plateau: Positive = 2.0
    max_gain: Positive = 1.5
    midpoint: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    tau_ms: NotNegative = 700.0
    region: tuple[Share, Share, Share, Share] | None = None
    freeze: bool = False


class Thermal(_Section, frozen=True):
    """What the thermal camera sends, and how it is shown; see `rtfuse.thermal`.

    `camera` is a layout of `rtfuse.thermal.cameras`, or `auto`, which goes by the picture's size. `k_per_count` makes a
    radiometric camera of any other (0.01 for centikelvin). `polarity` is the one in which the camera delivers its
    picture. `dead_pixels` is an image of its size, not black where a pixel is dead, or a text file of `x y` lines.
    """

    camera: str = "auto"
    k_per_count: Positive | None = None
    polarity: Literal["white-hot", "black-hot"] = "white-hot"
    dead_pixels: str | None = None
    agc: Agc = Agc()


class Degraded(_Section, frozen=True):
    """What is published while a stream is lost, stalled or frozen.

    `policy`: `passthrough` publishes the other stream alone, `hold` the last fused picture again and again, `stop` ends
    the run. A stream counts as missing when its last picture is older than `after_ms` (null: 100 ms, or two of its
    periods where that is longer; for `strict` pairing two of the slower stream's). While the thermal shutter is closed
    its last picture goes on being fused for `shutter_ms`. `mark` writes on the picture what is missing.
    `start`: `both` cameras must be there when a run starts; with `any`, for rigs that come up by themselves, one that
    is not there is waited for as if it had been lost (not under the policy `stop`).
    """

    policy: Literal["passthrough", "hold", "stop"] = "passthrough"
    start: Literal["both", "any"] = "both"
    after_ms: Positive | None = None
    shutter_ms: NotNegative = 1000.0
    mark: bool = False


class Supervise(_Section, frozen=True):
    """A stage that works on one thing for longer than `limit_s` is reported with its stack, and the process ends."""

    limit_s: Positive = 20.0


class Align(_Section, frozen=True):
    """Registration: a calibration file, and the width of the seam where thermal ends.

    `monitor`: with a calibration, look every two seconds whether thermal still lies where it lay at the start, and warn
    if it does not.
    """

    calib: str | None = None
    monitor: bool = True
    seam_px: Annotated[int, msgspec.Meta(ge=0)] = 16


class Fuse(_Section, frozen=True):
    """Which fuser; for the networks, a weights file in place of the shipped one, and what computes them.

    `auto` is `ufuser` where it holds the camera's rate, else `student`; for recordings that are fused completely it is
    `ufuser`.
    `plan` is a TensorRT engine that `trainer export` wrote for this GPU and these sizes; null builds one where needed.
    `steady` holds pixels that change by one level, against flicker (`rtfuse.fuse.deflicker`).
    """

    fuser: str = "auto"
    weights: str | None = None
    engine: Engine = "auto"
    precision: Precision = "auto"
    plan: str | None = None
    steady: bool = True


class Endpoint(_Section, frozen=True):
    """One of several endpoints; what it does not say is as `Publish` says."""

    endpoint: str
    encoding: Encoding | None = None
    planes: tuple[Plane, ...] | None = None
    topic: str | None = None
    jpeg_quality: Quality | None = None
    h264_kbps: Count | None = None


class Publish(_Section, frozen=True):
    """The ZeroMQ output; `endpoint: null` publishes nothing. `endpoints`, where there are any, take its place.

    `planes` are published each under its own topic, `topic` is the fused picture's. `h264_kbps: null` keeps the quality
    constant instead of the rate. See docs/publishing.md. `keys` is a folder of `rtfuse keys`: with it TCP is encrypted,
    and for its clients alone. `rig_topics`: topics begin with the rig's name, `truck-1/fused`, so that `rtfuse proxy`
    can join several rigs.
    """

    endpoint: str | None = "tcp://127.0.0.1:5555"
    encoding: Encoding = "raw"
    planes: tuple[Plane, ...] = ("fused",)
    topic: str = "fused"
    jpeg_quality: Quality = 90
    h264_kbps: Count | None = None
    endpoints: list[Endpoint] = []
    rig_topics: bool = False
    keys: str | None = None
    insecure: bool = False


class Detector(_Section, frozen=True):
    """Where a detector publishes its boxes, and the file of `rtfuse keys new client` for it, if it encrypts."""

    endpoint: str
    keys: str | None = None


class Web(_Section, frozen=True):
    """Where the rig answers over HTTP (`ADDR:PORT` or a port of this machine alone); `address: null` does not.

    The page at `/`, numbers for Prometheus at `/metrics`, `/healthz`, `/readyz`. Beyond this machine it needs the token
    (null: a random one, printed at the start), and a certificate (`cert` and `key`, PEM files) or `insecure`. `hosts`
    are further names that the rig goes by. `viewers` may watch at once; `controls`: they may change the gain control.
    `detections` are ZeroMQ endpoints of boxes to draw; `detections_keys` is the client's key file for those that have
    none of their own.
    """

    address: str | None = None
    insecure: bool = False
    token: Annotated[str, msgspec.Meta(min_length=12, max_length=200)] | None = None
    cert: str | None = None
    key: str | None = None
    hosts: tuple[str, ...] = ()
    viewers: Count = 8
    controls: bool = True
    detections: tuple[str | Detector, ...] = ()
    detections_keys: str | None = None


class Record(_Section, frozen=True):
    """A file to record fused video to; `side_by_side` puts both sources next to it."""

    path: str | None = None
    side_by_side: bool = False
    force: bool = False


class Raw(_Section, frozen=True):
    """A file to record both streams to as the cameras send them, for `--replay`; see `rtfuse.record.raw.RawRecorder`.

    Thermal is lossless; `rgb_codec` is RGB's. A new part is begun after `split_s` or `split_mb`; recording ends when
    less than `reserve_mb` is free on the disk.
    """

    path: str | None = None
    rgb_codec: Literal["h264", "ffv1", "mjpeg"] = "h264"
    split_s: Positive | None = None
    split_mb: Positive | None = None
    reserve_mb: NotNegative = 500.0
    force: bool = False


class Playback(_Section, frozen=True):
    """How recordings are played: times real time, or `max`; and whether they start again at their end."""

    speed: Positive | Literal["max"] = 1.0
    loop: bool = False


class Config(_Section, frozen=True):
    """Everything `rtfuse run` needs. `frames` and `duration_s` end the run early; `trace` names a file."""

    rig: str = "rig"
    ir: Camera = Camera()
    rgb: Camera = Camera()
    sync: Sync = Sync()
    thermal: Thermal = Thermal()
    align: Align = Align()
    fuse: Fuse = Fuse()
    publish: Publish = Publish()
    web: Web = Web()
    record: Record = Record()
    raw: Raw = Raw()
    playback: Playback = Playback()
    degraded: Degraded = Degraded()
    supervise: Supervise = Supervise()
    log: Literal["text", "json"] = "text"
    trace: str | None = None
    frames: Count | None = None
    duration_s: Positive | None = None


def load_config(
    file: str | Path | None = None,
    overrides: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Config:
    """Merge defaults, then the YAML `file`, then `key.sub=value` overrides, then command-line `options`.

    Values in `options` that are None were not given and change nothing. Raises ConfigError naming the file or
    override, the key's path, what was found and what is possible.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        tree = read_yaml(file)
        to_struct(tree, Config, f"config {file}")
    for item in overrides:
        override(tree, item, Config, "sync.tolerance_ms=15")
    for key, value in (options or {}).items():
        if value is not None:
            _assign(tree, key, value, key)
    return to_struct(tree, Config, "options")


def override(tree: dict[str, Any], item: str, kind: type[msgspec.Struct], example: str) -> None:
    """Set `key.sub=value` in a tree of plain values that the struct `kind` takes.

    Raises ConfigError naming the override, the key's path, what was found and what is possible.
    """
    key, separator, text = item.partition("=")
    if not separator or not key:
        raise ConfigError(f"override {item!r}: want key=value, for example {example}")
    _assign(tree, key, _parse(text, item), f"override {item!r}")
    to_struct(tree, kind, f"override {item!r}")


def dump_config(config: Config) -> str:
    """Return the configuration as YAML, without credentials in URIs and without the token."""
    from rtfuse.errors import redact

    tree = msgspec.to_builtins(config)
    for camera in (tree["ir"], tree["rgb"]):
        camera["uri"] = camera["uri"] and redact(camera["uri"])
    tree["web"]["token"] = None
    return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=100)


def _parse(text: str, item: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ConfigError(f"override {item!r}: the value is not valid YAML") from e
    # `synthetic:` is a source here, not the mapping that YAML sees in it.
    return text if isinstance(value, dict) and not text.lstrip().startswith("{") else value


def _assign(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    *parents, last = key.split(".")
    for name in parents:
        if tree.get(name) is None:
            tree[name] = {}
        tree = tree[name]
        if not isinstance(tree, dict):
            raise ConfigError(f"{where}: {name} is a value, not a section")
    tree[last] = value
