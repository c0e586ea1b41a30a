"""Trace single frames: the begin and end of every stage, as Chrome trace JSON (opens in Perfetto).

The format is an array of events (Trace Event Format). The file is complete after every write, twice a second: the next
events go over its closing bracket. Times are microseconds on the machine's monotonic clock.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rtfuse.errors import OutputExists, OutputUnwritable
from rtfuse.observe.logs import event
from rtfuse.types import Frame, Fused, Moment

_FLUSH_NS = 500_000_000
_CLOSING = b"\n]\n"
"""Meanings of a frame's time that refer to this machine's clock."""
_log = logging.getLogger("rtfuse.trace")


class Trace:
    """Write events into a file, from any thread. Raises OutputExists or OutputUnwritable when it is opened.

    A disk that becomes full later ends the trace, which a line in the log says, not the run. A pipe gets the closing
    bracket at the end only.
    """

    def __init__(self, path: str | Path, *, force: bool = False) -> None:
        try:
            self._file = Path(path).open("wb" if force else "xb", buffering=0)  # noqa: SIM115 - closed by `close`
        except FileExistsError as e:
            raise OutputExists(f"trace {path} exists; choose another name, or remove it") from e
        except OSError as e:
            raise OutputUnwritable(f"trace {path} cannot be written: {e.strerror or e}") from e
        self._path, self._lock, self._flushed_ns = path, threading.Lock(), 0
        self._waiting, self._end, self._seekable = list[str](), 0, self._file.seekable()
        self._pid, self._tids, self._dropped = os.getpid(), dict[str, int](), Counter[tuple[str, str]]()
        self._open = True
        self._write(
            "[\n" + json.dumps({"ph": "M", "name": "process_name", "pid": self._pid, "args": {"name": "rtfuse"}})
        )

    def captured(self, frame: Frame) -> None:
        """Note the span of a frame from its capture, if that is a time of this machine's clock, to its arrival."""
        begun_ns = frame.arrival_ns if frame.stamp.recorded else frame.t_ns
        begun_ns = min(begun_ns, frame.arrival_ns)
        self.span("capture", f"capture {frame.stream}", begun_ns, frame.arrival_ns, id=frame.frame_id)

    def span(self, name: str, thread: str, begun_ns: int, ended_ns: int, **known: Any) -> None:
        """Note a span of work in a thread, with more fields for the viewer."""
        self._event(
            thread, {"ph": "X", "name": name, "ts": begun_ns / 1e3, "dur": (ended_ns - begun_ns) / 1e3, "args": known}
        )

    def stage(self, name: str, thread: str, moment: Moment, begun_ns: int, ended_ns: int) -> None:
        """Note a stage of a moment."""
        self.span(name, thread, begun_ns, ended_ns, **{frame.stream: frame.frame_id for frame in moment.frames})

    def written(self, sink: str, fused: Fused, spent_ns: int) -> None:
        """Note that a sink has just written a frame, in `spent_ns`."""
        now = time.monotonic_ns()
        self.stage(sink, sink, fused.pair, now - spent_ns, now)

    def drops(self, *counts: Mapping[Any, int]) -> None:
        """Note the frames dropped since the last call; `counts` are all drops by (where, cause)."""
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
        """Write the last events and close the file; a second call does nothing."""
        with self._lock:
            if self._open:
                self._flush(last=True)
            self._open = False
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
            self._waiting.append(text)
            now = time.monotonic_ns()
            if now - self._flushed_ns > _FLUSH_NS:
                self._flushed_ns = now
                self._flush()

    def _flush(self, *, last: bool = False) -> None:
        """Write the events that wait over the closing bracket, and a new one; if they do not fit, end the trace."""
        data = "".join(self._waiting).encode(errors="backslashreplace")
        self._waiting.clear()
        try:
            self._put(data + (_CLOSING if self._seekable or last else b""))
            self._end += len(data)
        except OSError as e:
            self._open = False
            with suppress(OSError):
                self._put(_CLOSING if self._end else b"[]\n")
                self._file.truncate()
            why = e.strerror or e
            event(_log, logging.WARNING, "trace", f"the trace {self._path} has ended, the run goes on: {why}")

    def _put(self, data: bytes) -> None:
        """Write bytes from the end of the last event on. Raises OSError."""
        if self._seekable:
            self._file.seek(self._end)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
