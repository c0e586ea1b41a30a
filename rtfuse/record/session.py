"""`rtfuse record`: both streams into one file, as they come."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from rtfuse.capture.pacing import paced, timeline
from rtfuse.errors import RtfuseError
from rtfuse.record.raw import RawRecorder
from rtfuse.types import LABELS, Source, Stream

_JOIN_S = 2.0


@dataclass(frozen=True, slots=True)
class RecordSummary:
    """What was recorded: frames and losses by stream, seconds, parts, and why it ended, if not as asked."""

    frames: Mapping[str, int]
    losses: Mapping[str, int]
    seconds: float
    parts: tuple[Path, ...]
    stopped: str | None = None

    def table(self) -> Table:
        """Return the summary to print."""
        grid = Table(box=None, show_header=False, padding=(0, 2))
        for stream, name in LABELS.items():
            lost = self.losses.get(stream, 0)
            rate = self.frames.get(stream, 0) / self.seconds if self.seconds else 0.0
            grid.add_row(
                name, f"{self.frames.get(stream, 0)} frames, {rate:.1f}/s" + (f", {lost} lost" if lost else "")
            )
        size_mb = sum(part.stat().st_size for part in self.parts if part.exists()) / 1e6
        more = f" to {self.parts[-1]}" if len(self.parts) > 1 else ""
        grid.add_row("file", f"{self.parts[0]}{more}, {size_mb:.1f} MB" if self.parts else "nothing came")
        if self.stopped:
            grid.add_row("ended", self.stopped, style="yellow")
        return grid


def record(
    sources: Mapping[Stream, Source],
    recorder: RawRecorder,
    stop: threading.Event,
    *,
    duration_s: float | None = None,
    frames: int | None = None,
) -> RecordSummary:
    """Record until stopped, `duration_s`, `frames` of RGB, the sources' end, or the disk is full; closes everything.

    Recordings are played at their pace. Raises the RtfuseError of a source that fails.
    """
    over, start, errors = threading.Event(), time.monotonic(), list[RtfuseError]()
    counts: Counter[str] = Counter()
    open_streams = set(sources)
    start_ns, (origin_ns, _) = time.monotonic_ns(), timeline(s.info for s in sources.values())

    def follow(stream: Stream, source: Source) -> None:
        try:
            live = source.info.live
            for frame in source if live else paced(iter(source), time.monotonic_ns, over, start_ns, origin_ns):
                if over.is_set():
                    return
                recorder.write(frame.sent)
                counts[stream] += 1
                if frames is not None and stream == "rgb" and counts[stream] >= frames:
                    over.set()
        except RtfuseError as e:
            errors.append(e)
            over.set()
        finally:
            open_streams.discard(stream)
            if not open_streams:
                over.set()

    threads = [
        threading.Thread(target=follow, args=item, name=f"rtfuse-capture-{item[0]}", daemon=True)
        for item in sources.items()
    ]
    for thread in threads:
        thread.start()
    while not (over.is_set() or stop.is_set() or recorder.stopped):
        if duration_s is not None and time.monotonic() - start >= duration_s:
            break
        over.wait(0.05)
    over.set()
    for source in sources.values():
        source.close()
    for thread in threads:
        thread.join(_JOIN_S)
    recorder.close()
    if errors:
        raise errors[0]
    seconds = time.monotonic() - start
    return RecordSummary(dict(recorder.frames), dict(recorder.losses), seconds, tuple(recorder.parts), recorder.stopped)
