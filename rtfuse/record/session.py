"""Run `rtfuse record`: capture both streams and record them into one file."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from rtfuse.capture.pacing import Playhead, timeline
from rtfuse.errors import RtfuseError
from rtfuse.record.raw import RawRecorder
from rtfuse.types import LABELS, Frame, Source, Stream

_JOIN_S = 2.0


@dataclass(frozen=True, slots=True)
class RecordSummary:
    """Summarise a recording. `frames` and `losses` count by stream."""

    frames: Mapping[str, int]
    losses: Mapping[str, int]
    seconds: float
    parts: tuple[Path, ...]
    stopped: str | None = None
    """The reason why the recording ended early; None if it ended as asked."""

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
        grid.add_row("file", Text(f"{self.parts[0]}{more}, {size_mb:.1f} MB") if self.parts else "nothing came")
        if self.stopped:
            grid.add_row("ended", Text(self.stopped), style="yellow")
        return grid


def record(
    sources: Mapping[Stream, Source],
    recorder: RawRecorder,
    stop: threading.Event,
    *,
    duration_s: float | None = None,
    frames: int | None = None,
) -> RecordSummary:
    """Record until `stop`, `duration_s`, `frames` of RGB, the sources' end or a full disk; close everything.

    Recordings are played at their own speed. Raises the RtfuseError of a source that fails.
    """
    capture, start = _Capture(sources, recorder, frames), time.monotonic()
    while not (capture.over.is_set() or stop.is_set() or recorder.stopped):
        if duration_s is not None and time.monotonic() - start >= duration_s:
            break
        capture.over.wait(0.05)
    capture.close()
    recorder.close()
    if capture.errors:
        raise capture.errors[0]
    seconds = time.monotonic() - start
    return RecordSummary(dict(recorder.frames), dict(recorder.losses), seconds, tuple(recorder.parts), recorder.stopped)


class _Capture:
    """Hand the frames of all sources to the recorder, each source in its own thread.

    `over` is set when the sources have ended, one has failed (see `errors`), or `frames` of RGB have come.
    """

    def __init__(self, sources: Mapping[Stream, Source], recorder: RawRecorder, frames: int | None) -> None:
        self.over, self.errors = threading.Event(), list[RtfuseError]()
        self._sources, self._recorder, self._frames = sources, recorder, frames
        self._open_streams = set(sources)
        played = [stream for stream, source in sources.items() if not source.info.live]
        origin_ns, _ = timeline(source.info for source in sources.values())
        self._playhead = Playhead(played, time.monotonic_ns, self.over, origin_ns)
        self._threads = [
            threading.Thread(target=self._follow, args=item, name=f"rtfuse-capture-{item[0]}", daemon=True)
            for item in sources.items()
        ]
        for thread in self._threads:
            thread.start()

    def _follow(self, stream: Stream, source: Source) -> None:
        try:
            for count, frame in enumerate(self._timed(stream, source), start=1):
                if self.over.is_set():
                    return
                self._recorder.write(frame.sent)
                if self._frames is not None and stream == "rgb" and count >= self._frames:
                    self.over.set()
        except RtfuseError as e:
            self.errors.append(e)
            self.over.set()
        finally:
            self._open_streams.discard(stream)
            if not self._open_streams:
                self.over.set()

    def _timed(self, stream: Stream, source: Source) -> Iterable[Frame]:
        return source if source.info.live else self._playhead.play(stream, iter(source))

    def close(self) -> None:
        """Close the sources and end the threads."""
        self.over.set()
        for source in self._sources.values():
            source.close()
        for thread in self._threads:
            thread.join(_JOIN_S)
