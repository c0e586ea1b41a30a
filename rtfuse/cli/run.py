"""`rtfuse run`, `rtfuse record` and `rtfuse config`: live streams, and the settings they run with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtfuse.cli.app import close, err, log_to, out
from rtfuse.cli.arguments import endpoints, override, settings_of, starts_of
from rtfuse.cli.options import (
    AlignStarts,
    Calib,
    ConfigFile,
    DepthUri,
    Duration,
    Force,
    Fps,
    Frames,
    FuserName,
    Insecure,
    Ir,
    IrSize,
    Keys,
    Log,
    Overrides,
    PairWay,
    Recursive,
    Register,
    Rgb,
    Size,
)
from rtfuse.config import Config, dump_config, load_config

if TYPE_CHECKING:
    from rtfuse.cli.signals import Signals
    from rtfuse.observe.stats import Snapshot
    from rtfuse.view.window import FusedWindow

_CAMERAS = {
    "ir": ("ir.uri",),
    "rgb": ("rgb.uri",),
    "ir_size": ("ir.size",),
    "size": ("rgb.size",),
    "fps": ("ir.fps", "rgb.fps"),
    "duration": ("duration_s",),
}
_RUN = _CAMERAS | {
    "calib": ("align.calib",),
    "depth": ("align.depth.source.uri",),
    "fuser": ("fuse.fuser",),
    "encoding": ("publish.encoding",),
    "web": ("web.address",),
    "boxes": ("web.detections",),
    "boxes_keys": ("web.detections_keys",),
    "stream": ("stream.uris",),
    "record": ("record.path",),
    "record_raw": ("raw.path",),
    "frames": ("frames",),
    "speed": ("playback.speed",),
    "loop": ("playback.loop",),
    "keys": ("publish.keys",),
    "insecure": ("publish.insecure", "web.insecure"),
    "log": ("log",),
    "trace": ("trace",),
    "pair": ("stills.pair",),
    "recursive": ("stills.recursive",),
    "force": ("record.force", "raw.force"),
}
_RECORD = _CAMERAS | {
    "output": ("raw.path",),
    "codec": ("raw.rgb_codec",),
    "split_s": ("raw.split_s",),
    "split_mb": ("raw.split_mb",),
    "force": ("raw.force",),
}

config_app = typer.Typer(no_args_is_help=True, help="Show the settings of a rig.")


def run(
    context: typer.Context,
    overrides: Overrides = None,
    ir: Ir = None,
    rgb: Rgb = None,
    size: Size = None,
    ir_size: IrSize = None,
    fps: Fps = None,
    config: ConfigFile = None,
    calib: Calib = None,
    depth: DepthUri = None,
    fuser: FuserName = None,
    show: Annotated[bool, typer.Option("--show", help="Show the fused picture in a window.")] = False,
    publish: Annotated[
        list[str] | None, typer.Option(help="ZeroMQ endpoint; may be repeated; 'off' publishes nothing.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of pictures: raw, jpeg, png or h264.")] = None,
    keys: Keys = None,
    insecure: Insecure = False,
    web: Annotated[
        str | None, typer.Option(metavar="[ADDR:PORT]", help="Serve a page for browsers, and metrics.")
    ] = None,
    boxes: Annotated[
        list[str] | None, typer.Option(help="Draw the boxes of this detector's endpoint on the page.")
    ] = None,
    boxes_keys: Annotated[str | None, typer.Option(help="Client key file for detectors that encrypt.")] = None,
    stream: Annotated[
        list[str] | None, typer.Option(help="Stream to rtsp://, udp:// or tcp://; may be repeated.")
    ] = None,
    record: Annotated[str | None, typer.Option(help="Record fused video to this file.")] = None,
    record_raw: Annotated[str | None, typer.Option(help="Record both streams, unfused, to this file.")] = None,
    replay: Annotated[str | None, typer.Option(help="Replay a recording of rtfuse record.")] = None,
    speed: Annotated[str | None, typer.Option(help="Speed of recordings: multiple of real time, or 'max'.")] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Start recordings again at their end.")] = False,
    align_starts: AlignStarts = False,
    register: Register = False,
    pair: PairWay = None,
    recursive: Recursive = False,
    frames: Frames = None,
    duration: Duration = None,
    log: Log = None,
    trace: Annotated[str | None, typer.Option(help="Trace every frame into this file (Chrome JSON).")] = None,
    force: Force = False,
) -> None:
    """Fuse two live streams, or recordings at their own pace, and publish the result over ZeroMQ.

    Example: rtfuse run --ir /dev/video1 --rgb /dev/video0
    """
    settings = settings_of(context.params, _RUN, more=endpoints(publish), fixed=starts_of(align_starts))
    _run(settings, replay, show=show, register=register)


def _run(settings: Config, replay: str | None, *, show: bool, register: bool) -> None:
    """Run until the end, and print the summary."""
    from rtfuse.cli.addresses import check_web
    from rtfuse.cli.commands import run_live
    from rtfuse.cli.signals import interruptible

    log_to(err, settings.log)
    check_web(settings.web)
    window = _window(settings.rig) if show else None
    idle = window.idle if window is not None else None

    def job(signals: Signals) -> Snapshot:
        found = _registered(settings, signals, replay) if register else settings
        return run_live(found, signals, out, replay, window=window)

    result = interruptible(job, idle)
    paths = {"recorded": settings.record.path, "streams": settings.raw.path}
    close(result, {name: path for name, path in paths.items() if path and Path(path).exists()})


def _registered(settings: Config, signals: Signals, replay: str | None) -> Config:
    """Return the settings with a calibration that is found from the first seconds."""
    from rtfuse.cli.registering import check_register, registered
    from rtfuse.pipeline.outputs import check_outputs

    beside = Path(settings.record.path or settings.raw.path or "rtfuse")
    check_register(settings, beside, force=settings.record.force)  # what it kept is told before an output that exists
    check_outputs(settings)
    return registered(settings, beside, signals, out, replay=replay, force=settings.record.force)


def _window(rig: str) -> FusedWindow:
    from rtfuse.view.window import FusedWindow

    return FusedWindow(f"rtfuse {rig}")


def record(
    context: typer.Context,
    output: Annotated[Path, typer.Option("-o", "--output", help="Matroska file (.mkv).")],
    overrides: Overrides = None,
    ir: Ir = None,
    rgb: Rgb = None,
    size: Size = None,
    ir_size: IrSize = None,
    fps: Fps = None,
    config: ConfigFile = None,
    codec: Annotated[str | None, typer.Option(help="Codec of RGB: h264, ffv1 (lossless) or mjpeg.")] = None,
    split_s: Annotated[float | None, typer.Option(help="Begin a new part after this many seconds.")] = None,
    split_mb: Annotated[float | None, typer.Option(help="Begin a new part after this many megabytes.")] = None,
    duration: Duration = None,
    force: Force = False,
) -> None:
    """Record both streams as they come, thermal without loss, with their true times; fuse them with run --replay.

    Example: rtfuse record --ir /dev/video1 --rgb /dev/video0 -o flight.mkv
    """
    settings = settings_of(context.params, _RECORD)
    from rtfuse.cli.commands import record_raw
    from rtfuse.cli.signals import interruptible

    log_to(err, settings.log)
    out.print(interruptible(lambda signals: record_raw(settings, signals, out)).table())


@config_app.command(name="show")
def config_show(overrides: Overrides = None, config: ConfigFile = None) -> None:
    """Print all settings as YAML: the defaults, the file and the KEY=VALUE together; passwords are left out.

    Example: rtfuse config show --config rig.yaml sync.tolerance_ms=15
    """
    settings = load_config(config, [override(item) for item in overrides or []])
    out.print(dump_config(settings).rstrip(), soft_wrap=True, markup=False, highlight=False)
