"""Where the time of single frames goes: every stage's begin and end, as Chrome trace JSON (opens in Perfetto).

The format is an array of events (Trace Event Format), written as a stream: one that was cut off by a kill still opens,
as the viewers do not ask for the closing bracket. Times are microseconds on the machine's monotonic clock.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rtfuse.errors import OutputExists, OutputUnwritable
from rtfuse.types import Frame, Fused, Moment, Stamp

_FLUSH_NS = 500_000_000
_LOCAL = {Stamp.EXPOSURE, Stamp.END, Stamp.ARRIVAL, Stamp.STREAM}
"""What a frame's time means where it is on this machine's clock."""


class Trace:
    """Writes events into a file; any thread may. Raises OutputExists or OutputUnwritable when it is opened.

    A disk that fills up later ends the trace, not the run.
    """

    def __init__(self, path: str | Path, *, force: bool = False) -> None:
        try:
            self._file = Path(path).open("w" if force else "x", encoding="utf-8")  # noqa: SIM115 - closed by `close`
        except FileExistsError as e:
            raise OutputExists(f"trace {path} is already there; choose another, or remove it") from e
        except OSError as e:
            raise OutputUnwritable(f"trace {path} cannot be written: {e.strerror or e}") from e
        self._lock, self._flushed_ns = threading.Lock(), 0
        self._pid, self._tids, self._dropped = os.getpid(), dict[str, int](), Counter[tuple[str, str]]()
        self._open = True
        self._write(
            "[\n" + json.dumps({"ph": "M", "name": "process_name", "pid": self._pid, "args": {"name": "rtfuse"}})
        )

    def captured(self, frame: Frame) -> None:
        """Note a frame that has arrived: from its capture, where that is on this machine's clock, to its arrival."""
        begun_ns = frame.t_ns if frame.stamp in _LOCAL else frame.arrival_ns
        begun_ns = min(begun_ns, frame.arrival_ns)
        self.span("capture", f"capture {frame.stream}", begun_ns, frame.arrival_ns, id=frame.frame_id)

    def span(self, name: str, thread: str, begun_ns: int, ended_ns: int, **known: Any) -> None:
        """Note what took from `begun_ns` to `ended_ns` in a thread."""
        self._event(
            thread, {"ph": "X", "name": name, "ts": begun_ns / 1e3, "dur": (ended_ns - begun_ns) / 1e3, "args": known}
        )

    def stage(self, name: str, thread: str, moment: Moment, begun_ns: int, ended_ns: int) -> None:
        """Note a stage of a moment."""
        self.span(name, thread, begun_ns, ended_ns, **{frame.stream: frame.frame_id for frame in moment.frames})

    def written(self, sink: str, fused: Fused, spent_ns: int) -> None:
        """Note that a sink has just taken a frame, which took `spent_ns`."""
        now = time.monotonic_ns()
        self.stage(sink, sink, fused.pair, now - spent_ns, now)

    def drops(self, *counts: Mapping[Any, int]) -> None:
        """Note what was dropped since the last call, given all counts by where and cause."""
        total = Counter[tuple[str, str]]()
        for part in counts:
            total.update(dict(part))
        for (where, cause), n in total.items():
            if more := n - self._dropped[where, cause]:
                self._dropped[where, cause] = n
                now = time.monotonic_ns() / 1e3
                event = {"ph": "i", "s": "p", "name": f"dropped: {where} {cause}", "ts": now, "args": {"frames": more}}
                self._event("drops", event)

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the array and close the file; a second call does nothing."""
        with self._lock:
            if self._open:
                self._open = False
                with suppress(OSError):  # a full disk: what is there opens as it is
                    self._file.write("\n]\n")
                    self._file.close()

    def _event(self, thread: str, event: dict[str, Any]) -> None:
        tid = self._tids.get(thread)
        if tid is None:
            tid = self._tids.setdefault(thread, len(self._tids) + 1)
            name = {"ph": "M", "name": "thread_name", "pid": self._pid, "tid": tid, "args": {"name": thread}}
            self._write(",\n" + json.dumps(name))
        self._write(",\n" + json.dumps(event | {"pid": self._pid, "tid": tid}))

    def _write(self, text: str) -> None:
        with self._lock:
            if not self._open:
                return
            try:
                self._file.write(text)
                now = time.monotonic_ns()
                if now - self._flushed_ns > _FLUSH_NS:
                    self._file.flush()
                    self._flushed_ns = now
            except OSError:
                self._open = False
