"""Draw where a frame's time goes, in microseconds, from a trace of `rtfuse run --trace`, as SVG.

    python tools/trace_picture.py docs/frame_time.svg                      # of the live street, the student, 20 s
    python tools/trace_picture.py frame_time.svg --trace out/trace.json    # of a trace that you have

A row is a span of work, or the wait between two. Its bar begins at the median of the begins, counted from the capture
of RGB, and is as long as the median of the durations; the thin line is as long as their p95. Prints the same numbers.
Frames without a partner, and those of the first second, are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from rtfuse.client.subscriber import Subscriber

STREET = "synthetic:?live=1&size=640x480"
_FIRST_US = 1e6
_ROW, _LEFT, _AXIS, _RIGHT, _TOP = 26, 150, 540, 200, 58
_COLOURS = {"work": "#2f6db5", "capture": "#8a8f98", "wait": "#e0a33a"}
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """Span of every frame: `begins_us` after the capture of RGB, and `lasts_us`, both (N,).

    `kind` is `capture`, `wait` or `work`.
    """

    name: str
    kind: str
    begins_us: np.ndarray
    lasts_us: np.ndarray

    @property
    def begin_us(self) -> float:
        """Median of the begins."""
        return float(np.median(self.begins_us))

    def __str__(self) -> str:
        p50, p95, p99 = np.percentile(self.lasts_us, [50, 95, 99])
        return f"{self.name:22} {self.kind:8} from {self.begin_us:8.0f}  for {p50:8.0f} / {p95:8.0f} / {p99:8.0f}"


def rows_of(events: list[Event]) -> list[Row]:
    """Return the spans of complete frames, in the order in which they begin. Raises ValueError if there is none."""
    threads = {one["tid"]: one["args"]["name"] for one in events if one["name"] == "thread_name"}
    spans = [one for one in events if one["ph"] == "X"]
    captured = {(threads[one["tid"]], one["args"]["id"]): one for one in spans if one["name"] == "capture"}
    frames = defaultdict[tuple[int, int], list[Event]](list)
    for one in spans:
        if {"ir", "rgb"} <= one["args"].keys():
            frames[one["args"]["ir"], one["args"]["rgb"]].append(one)
    first_us = min((one["ts"] for one in spans), default=0.0) + _FIRST_US
    found = defaultdict[tuple[str, str], list[tuple[float, float]]](list)
    for (ir, rgb), parts in frames.items():
        both = captured.get(("capture ir", ir)), captured.get(("capture rgb", rgb))
        if both[0] is None or both[1] is None or (zero_us := both[1]["ts"]) < first_us:
            continue
        for key, begin_us, last_us in _frame(parts, both[0], both[1], threads):
            found[key].append((begin_us - zero_us, last_us))
    if not found:
        raise ValueError("the trace has no pair that was fused after its first second")
    rows = [Row(*key, *np.array(spans).T) for key, spans in found.items()]
    return sorted(rows, key=lambda row: row.begin_us)


def _frame(
    parts: list[Event], ir: Event, rgb: Event, threads: dict[int, str]
) -> list[tuple[tuple[str, str], float, float]]:
    """Return the rows of one frame: (name, kind), begin and duration."""
    rows = [((f"capture {name}", "capture"), one["ts"], one["dur"]) for name, one in (("ir", ir), ("RGB", rgb))]
    fused_us = max(one["ts"] + one["dur"] for one in parts if threads[one["tid"]] == "fuse")
    for one in parts:
        thread, name = threads[one["tid"]], one["name"]
        if thread == "pair":
            rows.append((("wait for the pair", "wait"), one["ts"], one["dur"]))
            continue
        if thread != "fuse":
            rows.append(((f"wait for {name}", "wait"), fused_us, max(0.0, one["ts"] - fused_us)))
        rows.append(((name, "work"), one["ts"], one["dur"]))
    return rows


def draw(rows: list[Row], title: str) -> str:
    """Return the rows as SVG."""
    ends_us = [row.begin_us + float(np.percentile(row.lasts_us, 95)) for row in rows]
    step_us = next(step for step in (100, 500, 1000, 2000, 5000, 10_000, 20_000, 1e9) if max(ends_us) < 12 * step)
    first_us = min(*(row.begin_us for row in rows), 0)
    scale = _AXIS / (max(ends_us) - first_us)
    width, height = _LEFT + _AXIS + _RIGHT, _TOP + _ROW * len(rows) + 14

    def x(us: float) -> float:
        return _LEFT + (us - first_us) * scale

    bottom = height - 10
    parts = [f'<text x="10" y="20" font-size="14" font-weight="bold">{escape(title)}</text>']
    for us in np.arange(0, max(ends_us), step_us):
        parts.append(f'<path d="M{x(us):.1f} {_TOP - 8}V{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(us):.1f}" y="{_TOP - 12}" text-anchor="middle" fill="#666">{us:,.0f}</text>')
    right = _LEFT + _AXIS + 36
    parts.append(f'<text x="{right}" y="{_TOP - 12}" fill="#666">µs: p50 / p95 / p99</text>')
    for k, (row, end_us) in enumerate(zip(rows, ends_us, strict=True)):
        y, (p50, p95, p99) = _TOP + _ROW * k, np.percentile(row.lasts_us, [50, 95, 99])
        colour, begin = _COLOURS[row.kind], row.begin_us
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 15}" text-anchor="end">{escape(row.name)}</text>')
        parts.append(f'<path d="M{x(begin):.1f} {y + 10.5}H{x(end_us):.1f}" stroke="{colour}"/>')
        bar = f'x="{x(begin):.1f}" y="{y + 3}" width="{max(p50 * scale, 1):.1f}" height="15"'
        parts.append(f'<rect {bar} fill="{colour}"/>')
        parts.append(f'<text x="{right}" y="{y + 15}">{p50:,.0f} / {p95:,.0f} / {p99:,.0f}</text>')
    style = 'font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {style}>'
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="white"/>', *parts, "</svg>\n"])


def traced(trace: Path, seconds: float, fuser: str) -> None:
    """Run the live street with a subscriber of raw planes, and write its trace. Raises SystemExit if the rig fails."""
    endpoint = f"ipc://{trace.parent}/rig"
    command = [sys.executable, "-m", "rtfuse", "run", "--ir", STREET, "--rgb", STREET, "--fuser", fuser]
    command += [
        "--publish",
        endpoint,
        "publish.pixel_format=yuv420p",
        "--trace",
        str(trace),
        "--duration",
        str(seconds),
    ]
    log = trace.parent / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out) as rig,
        Subscriber(endpoint) as stream,
    ):
        try:
            while rig.poll() is None:
                stream.recv(0.2)
        finally:
            rig.terminate()
    if rig.returncode:
        raise SystemExit(f"the rig ended with {rig.returncode}: {log.read_text()[-500:]}")


def main() -> None:
    """Draw the picture and print its numbers."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("picture", type=Path, metavar="PICTURE.svg")
    options.add_argument("--trace", type=Path, help="draw this trace; otherwise run the live street")
    options.add_argument("--seconds", type=float, default=20, help="of the live street")
    options.add_argument("--fuser", default="student", help="of the live street")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trace, title = asked.trace, str(asked.trace)
        if trace is None:
            trace = Path(folder, "trace.json")
            traced(trace, asked.seconds, asked.fuser)
            title = f"A frame of the live street, 640×480, 30 Hz, {asked.fuser}"
        rows = rows_of(json.loads(trace.read_text("utf-8")))
    title += f"; {len(rows[0].lasts_us)} frames, load {os.getloadavg()[0]:.1f}" if asked.trace is None else ""
    asked.picture.write_text(draw(rows, title), "utf-8")
    print("microseconds after the capture of RGB, and p50 / p95 / p99 of the durations")
    print("\n".join(map(str, rows)))


if __name__ == "__main__":
    main()
