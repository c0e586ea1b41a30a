"""Put the state of a running pipeline, and its summary, into words and tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from rtfuse.cli.screen import status
from rtfuse.hints import install_hint
from rtfuse.observe.health import State
from rtfuse.observe.stats import Snapshot
from rtfuse.pipeline.rig import Rig

CAUSES = {
    "no_ir": "no thermal frame near enough",
    "no_rgb": "no RGB frame near enough",
    "superseded": "another frame was nearer",
    "no_partner": "without a partner in the other folder",
    "late": "arrived after its moment",
    "queue": "waited too long for the fuser",
    "frozen": "repeats an older picture (shutter, or a frozen camera)",
    "size": "the calibration does not hold for its size",
    "lost": "times that the source was lost",
    "busy": "skipped for a newer one, the fuser is slow",
    "slow": "the output did not keep up",
    "away": "the stream had no connection",
    "spared": "left out of a preview, there is too little processor",
    "ended": "came after the recording had ended, the disk is full",
    "encoder": "the encoder was busy",
    "no_depth": "registered at the plane, without depth near enough",
    "corrupt": "could not be decoded, or were coded from a lost frame",
    "damaged": "decoded with errors, or from a part with a wrong check sum",
    "truncated": "missing at the end of the file",
    "driver": "lost by the camera driver",
    "stale": "skipped for a newer one, capture is slow",
    "dropped": "lost by the (synthetic) camera",
}


_MODES = {"rgb": "of RGB alone", "ir": "of thermal alone", "held": "that repeat the one before"}


def sources_line(rig: Rig) -> str:
    """Return two lines about the rig.

    The first has coding, size, depth and rate of both streams, and the tolerance; the second has the fuser, the share
    of the RGB picture that thermal reaches, and where the calibration tells them, the errors at several distances.
    """
    parts = []
    for stream, source in rig.sources.items():
        info = source.info
        rate = f" {info.rate_hz:.4g} Hz" if info.rate_hz else " unknown rate"
        coding = f" {info.coding}" if info.coding else ""
        rate = "" if rig.stages.scenes else rate
        parts.append(f"{stream}{coding} {info.size_wh[0]}x{info.size_wh[1]} {info.dtype}{rate}")
    if rig.chosen is not None and not rig.chosen.timed:
        count = rig.sources["rgb"].info.frames
        parts.append("1 pair" if count == 1 else f"{count} pairs by {rig.chosen.by}")
    else:
        parts.append(f"paired within {rig.pairer.tolerance_ns / 1e6:.1f} ms")
    reach = f"thermal reaches {rig.aligner.reach:.0%}"
    if rig.stages.placed_by_files:
        reach = "the files tell where thermal lies on their photos"
    elif rig.aligner.stretched:
        reach = "no calibration (--calib): thermal is stretched over RGB"
    return f"{'; '.join(parts)}\nfused by {rig.fuser}; {reach}{_errors(rig)}"


def _errors(rig: Rig) -> str:
    """Return the distance of registration, and the errors at other ones; empty where the rig knows none."""
    if rig.plane is None or rig.stages.placed_by_files or not (errors := rig.plane.errors_px()):
        return ""
    off = ", ".join(f"{px:.{1 if px < 10 else 0}f} px at {m:g} m" for m, px in errors.items())
    ground = "on the ground and " if rig.plane.on_ground else ""
    if rig.plane.by_depth:
        return f", exact where depth is known, elsewhere {ground}at {rig.plane.target_m:g} m: there off by {off}"
    return f", exact {ground}at {rig.plane.target_m:g} m: {'above it ' if ground else ''}off by {off}"


def slow_fuser(fuser: str) -> str:
    """Return the cause of a fuser that is too slow, and the remedy; `fuser` is its text, engine included."""
    what = fuser.partition(": ")[0]
    if "(torch" in what and "GPU" not in what:
        why = "the log says why"
        if find_spec("openvino") is None:
            why = f"it is not installed: {install_hint('openvino')}"
        return f"{what} is many times slower than OpenVINO, which does not run here: {why}"
    if what.startswith("ufuser"):
        return f"{what} is too slow for these pictures: --fuser student is several times as fast, auto chooses"
    if what.startswith("student"):
        return (
            f"{what} is too slow for these pictures, and it is the fastest network and engine here: take smaller "
            "ones, fewer a second, or --fuser pyramid"
        )
    return f"{what} is too slow for these pictures on this machine: take smaller ones, or fewer a second"


def drops_line(s: Snapshot) -> str:
    """Return the drops by stream and cause in one line, or `none`."""
    return ", ".join(f"{where} {cause} {n}" for (where, cause), n in sorted(s.drops.items())) or "none"


def drop_lines(s: Snapshot) -> list[str]:
    """Return a line for each stream and cause of drops, in words and with its code; `none` alone without drops."""
    lines = [f"{n} {where}: {CAUSES.get(cause, cause)} ({cause})" for (where, cause), n in sorted(s.drops.items())]
    return lines or ["none"]


def one_line(s: Snapshot) -> str:
    """Return the state as one log line."""
    age = "" if s.recorded else f"age_ms={_triple(s.age_ms)} "
    return (
        f"frames={s.frames} rate={s.recent_hz:.1f}Hz {age}"
        f"skew_ms={_triple(s.skew_ms)} {streams_line(s)} drops: {drops_line(s)}"
        + (f" lowered: {', '.join(s.lowered)}" if s.lowered else "")
        + (f" {s.overload}" if s.overload else "")
    )


def streams_line(s: Snapshot) -> str:
    """Return the state, rate and clock drift of each stream in one line."""
    parts = []
    for name, c in s.streams.items():
        detail = [c.state.value + (f" {c.for_s:.1f} s" if c.state not in (State.LIVE, State.ENDED) else "")]
        if c.rate_hz and c.state is State.LIVE:
            detail.append(f"{c.rate_hz:.1f} Hz")
        if c.drift_ppm is not None:
            detail.append(f"{c.drift_ppm:+.0f} ppm")
        if c.reconnects:
            detail.append(f"back {c.reconnects}x")
        parts.append(f"{name}={','.join(detail)}".replace(" ", ""))
    return " ".join(parts)


def _triple(values: tuple[float, ...]) -> str:
    return "/".join("-" if math.isnan(v) else f"{v:.1f}" for v in values)


def live_table(s: Snapshot) -> Table:
    """Return the state as a table of one row that fits into 80 columns."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    age = {} if s.recorded else {"age p50/95/99": f"{_triple(s.age_ms)} ms"}
    row = {"frames": str(s.frames), "rate": f"[bold]{s.recent_hz:.1f}[/] Hz", **age}
    row["skew p50/95/99"] = f"{_triple(s.skew_ms)} ms"
    for name in row:
        table.add_column(name, no_wrap=True)
    table.add_row(*row.values())
    return table


def live_view(s: Snapshot) -> Group:
    """Return the state as a table, the drops, and a line for each stream that is not live."""
    lines = [
        Text(f"  {name}: {c.state.value} for {c.for_s:.1f} s" + (f", {c.why}" if c.why else ""), style="bold red")
        for name, c in s.streams.items()
        if c.state not in (State.LIVE, State.ENDED)
    ]
    if s.lowered:
        lines.append(Text(f"  too little processor, lowered: {', '.join(s.lowered)}", style="bold yellow"))
    if s.overload:
        lines.append(Text(f"  {s.overload}", style="bold red"))
    drops = Text(f"  drops: {drops_line(s)}", style="yellow" if s.drops else "green")
    return Group(live_table(s), drops, *lines)


def summary(s: Snapshot, paths: dict[str, str] | None = None) -> Table:
    """Return the closing table: frames, rate, age (of live frames only), skew, drops by cause, paths of the outputs."""
    table = Table.grid(padding=(0, 2))
    reused = f" ({s.reused} with a thermal frame used before)" if s.reused else ""
    table.add_row("frames", f"{s.frames} in {s.elapsed_s:.1f} s{reused}")
    alone = [f"{n} {_MODES[mode]}" for mode, n in s.modes.items() if mode in _MODES]
    if alone:
        table.add_row("", ", ".join(alone))
    if s.frames > 1:
        table.add_row("rate", f"{s.rate_hz:.1f} frames/s")
    for name, values in (() if s.recorded else (("age", s.age_ms),)) + (("skew", s.skew_ms),):
        if not any(math.isnan(value) for value in values):  # without a pair there is none
            table.add_row(name, "p50 {:.1f}  p95 {:.1f}  p99 {:.1f} ms".format(*values))
    for k, line in enumerate(drop_lines(s)):
        table.add_row("" if k else "drops", line)
    for name, path in (paths or {}).items():
        table.add_row(name, Text(path, style="bold"))
    return table


def watching(console: Console, snapshot: Callable[[], Snapshot], every_s: float = 5.0) -> AbstractContextManager[None]:
    """Show the state while the block runs: a table in place on a terminal of its own, else a line every `every_s`."""
    return status(console, lambda: live_view(snapshot()), lambda: one_line(snapshot()), every_s)
