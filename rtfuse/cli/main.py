"""The command line: `rtfuse run | fuse | record | probe | view | detect | bench | engines | keys | proxy`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rtfuse.cli.app import add_version, err, log_to, out, run_app
from rtfuse.cli.detect import detect
from rtfuse.cli.keys import app as keys_app
from rtfuse.cli.proxy import proxy
from rtfuse.config import dump_config, load_config
from rtfuse.observe.stats import Snapshot

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Real-time fusion of a thermal and an RGB stream: capture, sync, align, fuse, publish.",
)
add_version(app, "rtfuse")

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. sync.tolerance_ms=15")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file; the command line wins over it.")]
Calib = Annotated[str | None, typer.Option(help="Calibration file (YAML).")]
FuserName = Annotated[str | None, typer.Option("--fuser", help="auto, ufuser, student (fast) or pyramid.")]
Fps = Annotated[float | None, typer.Option(help="Rate of stills, and the rate asked of cameras.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing outputs.")]


def main() -> None:
    """Run `rtfuse`."""
    run_app(app)


@app.command()
def run(
    overrides: Overrides = None,
    ir: Annotated[str | None, typer.Option(help="Thermal source: device, URL, recording, stills, synthetic:")] = None,
    rgb: Annotated[str | None, typer.Option(help="RGB source.")] = None,
    config: ConfigFile = None,
    calib: Calib = None,
    fuser: FuserName = None,
    publish: Annotated[
        list[str] | None, typer.Option(help="ZeroMQ endpoint to bind, may be repeated; or 'off'.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="raw, jpeg, png or h264.")] = None,
    replay: Annotated[str | None, typer.Option(help="Take both streams from a file of `rtfuse record`.")] = None,
    web: Annotated[str | None, typer.Option(metavar="[ADDR:PORT]", help="A page for browsers, and metrics.")] = None,
    boxes: Annotated[list[str] | None, typer.Option(help="Endpoint of a detector, drawn on the page.")] = None,
    boxes_keys: Annotated[str | None, typer.Option(help="A client's key file for detectors that encrypt.")] = None,
    record: Annotated[str | None, typer.Option(help="Record fused video to this file.")] = None,
    record_raw: Annotated[str | None, typer.Option(help="Record both streams, unfused, to this file.")] = None,
    frames: Annotated[int | None, typer.Option(help="End after this many fused frames.")] = None,
    duration: Annotated[float | None, typer.Option(help="End after this many seconds.")] = None,
    speed: Annotated[str | None, typer.Option(help="Recordings: times real time, or 'max'.")] = None,
    loop: Annotated[bool | None, typer.Option("--loop", help="Recordings: start again at the end.")] = None,
    fps: Fps = None,
    keys: Annotated[str | None, typer.Option(help="Encrypt with this folder of keys; see rtfuse keys.")] = None,
    insecure: Annotated[bool | None, typer.Option("--insecure", help="Allow plain text beyond this machine.")] = None,
    log: Annotated[str | None, typer.Option(help="text or json.")] = None,
    trace: Annotated[str | None, typer.Option(help="Every frame's stages into this file (Chrome JSON).")] = None,
    force: Force = False,
) -> None:
    """Fuse two live streams (or recordings at their own pace) and publish the result over ZeroMQ.

    Example: rtfuse run --ir /dev/video1 --rgb /dev/video0
    """
    options = {
        "ir.uri": ir,
        "rgb.uri": rgb,
        "ir.fps": fps,
        "rgb.fps": fps,
        "align.calib": calib,
        "fuse.fuser": fuser,
        "publish.encoding": encoding,
        "publish.keys": keys,
        "publish.insecure": insecure,
        "web.address": web,
        "web.insecure": insecure,
        "web.detections": boxes or None,
        "web.detections_keys": boxes_keys,
        "record.path": record,
        "record.force": force or None,
        "raw.path": record_raw,
        "raw.force": force or None,
        "log": log,
        "trace": trace,
        "frames": frames,
        "duration_s": duration,
        "playback.speed": _speed(speed),
        "playback.loop": loop,
    }
    settings = load_config(config, [*(overrides or []), *_endpoints(publish)], options)
    out.print(f"[dim]{_escape_lines(dump_config(settings))}[/]", soft_wrap=True)
    from rtfuse.cli.commands import run_live
    from rtfuse.cli.signals import interruptible

    log_to(err, settings.log)
    result = interruptible(lambda signals: run_live(settings, signals, out, replay))
    _close(result, {"recorded": settings.record.path} if settings.record.path else {})


@app.command()
def record(
    output: Annotated[Path, typer.Option("-o", "--output", help="Matroska file (.mkv).")],
    overrides: Overrides = None,
    ir: Annotated[str | None, typer.Option(help="Thermal source.")] = None,
    rgb: Annotated[str | None, typer.Option(help="RGB source.")] = None,
    config: ConfigFile = None,
    codec: Annotated[str | None, typer.Option(help="Of RGB: h264, ffv1 (lossless) or mjpeg.")] = None,
    split_s: Annotated[float | None, typer.Option(help="Begin a new part after this many seconds.")] = None,
    split_mb: Annotated[float | None, typer.Option(help="Begin a new part after this many megabytes.")] = None,
    duration: Annotated[float | None, typer.Option(help="End after this many seconds.")] = None,
    fps: Fps = None,
    force: Force = False,
) -> None:
    """Record both streams as they come, thermal without loss, with their true times; fuse them with run --replay.

    Example: rtfuse record --ir /dev/video1 --rgb /dev/video0 -o flight.mkv
    """
    options = {
        "ir.uri": ir,
        "rgb.uri": rgb,
        "ir.fps": fps,
        "rgb.fps": fps,
        "raw.path": str(output),
        "raw.rgb_codec": codec,
        "raw.split_s": split_s,
        "raw.split_mb": split_mb,
        "raw.force": force or None,
        "duration_s": duration,
    }
    settings = load_config(config, overrides or [], options)
    from rtfuse.cli.commands import record_raw
    from rtfuse.cli.signals import interruptible

    log_to(err, settings.log)
    out.print(interruptible(lambda signals: record_raw(settings, signals, out)).table())


@app.command()
def probe(
    save: Annotated[Path | None, typer.Option(help="Write a snapshot of every camera into this folder.")] = None,
    controls: Annotated[bool, typer.Option("--controls", help="Also list the cameras' controls.")] = False,
) -> None:
    """List cameras: formats, sizes, rates, names that stay, and which one is likely thermal.

    Example: rtfuse probe --save out/cameras
    """
    from rtfuse.cli.probe import probe

    probe(out, save=save, controls=controls)


def _escape_lines(text: str) -> str:
    return text.rstrip().replace("[", r"\[")


def _endpoints(publish: list[str] | None) -> list[str]:
    """Return the overrides for endpoints given on the command line: they take the place of all others."""
    if not publish:
        return []
    one = None if publish == ["off"] else publish[0]
    several = [{"endpoint": endpoint} for endpoint in publish] if len(publish) > 1 else []
    return [f"publish.endpoint={json.dumps(one)}", f"publish.endpoints={json.dumps(several)}"]


def _speed(speed: str | None) -> Any:
    try:
        return None if speed is None else float(speed)
    except ValueError:
        return speed


@app.command()
def fuse(
    ir: Annotated[str, typer.Argument(metavar="IR", help="Thermal recording, folder, pattern or image.")],
    rgb: Annotated[str, typer.Argument(metavar="RGB", help="RGB recording, folder, pattern or image.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Video, image, or folder (no suffix).")],
    overrides: Overrides = None,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Thermal | RGB | fused.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Also write one side-by-side picture.")] = None,
    config: ConfigFile = None,
    calib: Calib = None,
    fuser: FuserName = None,
    fps: Fps = None,
    force: Force = False,
) -> None:
    """Fuse two recordings, folders or images completely, in order, with the RGB stream's times.

    Example: rtfuse fuse thermal.mp4 rgb.mp4 -o fused.mp4
    """
    options = {
        "ir.uri": ir,
        "rgb.uri": rgb,
        "ir.fps": fps,
        "rgb.fps": fps,
        "align.calib": calib,
        "fuse.fuser": fuser,
        "playback.speed": "max",
        "playback.loop": False,
    }
    settings = load_config(config, overrides or [], options)
    from rtfuse.cli.commands import fuse_recordings
    from rtfuse.cli.signals import interruptible

    result = interruptible(
        lambda signals: fuse_recordings(
            settings, signals, out, output, side_by_side=side_by_side, picture=picture, force=force
        )
    )
    _close(result, {"fused": str(output), **({"picture": str(picture)} if picture else {})})
    lost = {key: n for key, n in result.drops.items() if key[1] in ("corrupt", "truncated")}
    if lost:
        what = ", ".join(f"{n} {where} frames {cause}" for (where, cause), n in lost.items())
        err.print(f"[bold yellow]incomplete input:[/] {what}; the rest was fused into {output}", soft_wrap=True)
        raise typer.Exit(2)


def _close(result: Snapshot, paths: dict[str, str]) -> None:
    from rtfuse.cli.status import summary

    out.print(summary(result, paths))


@app.command()
def view(
    endpoint: Annotated[str, typer.Argument(help="Where rtfuse run publishes.")] = "tcp://127.0.0.1:5555",
    save: Annotated[Path | None, typer.Option(help="Write every frame into this folder, or .mkv, .mp4.")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Print rate, age, skew and gaps instead.")] = False,
    pipe: Annotated[
        str | None, typer.Option(help="Write video to standard output (y4m, raw, mjpeg), or into /dev/videoN.")
    ] = None,
    rate: Annotated[float, typer.Option(min=1, max=1000, help="The frame rate that y4m announces.")] = 30.0,
    topic: Annotated[str, typer.Option(help="Topic to watch.")] = "fused",
    keys: Annotated[Path | None, typer.Option(help="The file of rtfuse keys new client, if it is encrypted.")] = None,
    palette: Annotated[str | None, typer.Option(help="Colours for pictures of thermal alone, e.g. iron.")] = None,
    spots: Annotated[bool, typer.Option("--spots", help="Draw the hottest and the coldest point.")] = False,
    frames: Annotated[int | None, typer.Option(help="End after this many frames.")] = None,
    duration: Annotated[float | None, typer.Option(help="End after this many seconds.")] = None,
    force: Force = False,
) -> None:
    """Watch a stream: in a window (q ends, f fills the screen, s saves), as files, as numbers, or through a pipe.

    Example: rtfuse view tcp://127.0.0.1:5555 --stats
    """
    from rtfuse.cli.signals import Signals
    from rtfuse.view.viewer import view

    say = err if pipe and "/" not in pipe else out
    with Signals().caught() as signals:
        seen = view(
            endpoint,
            say,
            stopped=signals.stop.is_set,
            topic=topic,
            keys=keys,
            save=save,
            stats=stats,
            palette=palette,
            spots=spots,
            frames=frames,
            duration_s=duration,
            pipe=pipe,
            rate_hz=rate,
            force=force,
        )
    say.print(f"{seen} frames received" + (f", saved in {save}" if save and seen else ""))


@app.command()
def bench(
    ir: Annotated[str | None, typer.Option(help="Thermal recording; else the synthetic scene, recorded.")] = None,
    rgb: Annotated[str | None, typer.Option(help="RGB recording.")] = None,
    fuser: FuserName = None,
    weights: Annotated[str | None, typer.Option(help="Network weights.")] = None,
    engines: Annotated[str | None, typer.Option(help="Compare engines: eager,openvino:float32,…")] = None,
    frames: Annotated[int, typer.Option(min=30, help="Frames to measure.")] = 300,
    size: Annotated[str, typer.Option(help="Size of the synthetic scene; of engines, several: 640x480,1280x720")] = (
        "640x480"
    ),
    batch: Annotated[str, typer.Option(help="Engines: frames at once, several: 1,4")] = "1",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
) -> None:
    """Measure what every stage costs per frame, in wall and processor milliseconds; or the network's engines.

    Example: rtfuse bench --engines eager,openvino:float32,openvino:bfloat16
    """
    from rtfuse.cli.commands import bench_and_print

    bench_and_print(
        out,
        ir,
        rgb,
        fuser=fuser,
        weights=weights,
        engines=engines,
        frames=frames,
        size=size,
        batch=batch,
        json_file=json_file,
    )


app.add_typer(keys_app, name="keys")
app.command(name="proxy")(proxy)
app.command(name="detect")(detect)

engines_app = typer.Typer(no_args_is_help=True, help="What computes the network: kept, built, removed.")
app.add_typer(engines_app, name="engines")


@engines_app.command(name="list")
def engines_list() -> None:
    """Show the engines that are kept, for what, and when they were last used."""
    from rtfuse.cli.commands import list_engines

    list_engines(out)


@engines_app.command(name="clear")
def engines_clear() -> None:
    """Remove all engines that are kept; they are built again when they are needed."""
    from rtfuse.cli.commands import clear_engines

    clear_engines(out)


@engines_app.command(name="build")
def engines_build(
    engine: Annotated[str, typer.Option(help="auto, tensorrt, cuda, openvino or eager.")] = "auto",
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of RGB.")] = "640x480",
    ir_size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of thermal, if another.")] = None,
    weights: Annotated[str | None, typer.Option(help="Network weights.")] = None,
) -> None:
    """Build, or load, the engine for frames of a size, and check it, so that the first run does not wait.

    Example: rtfuse engines build --size 1280x720 --ir-size 640x512
    """
    from rtfuse.cli.commands import build_engine

    build_engine(out, engine, weights, size, ir_size)
