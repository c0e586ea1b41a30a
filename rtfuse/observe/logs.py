"""Log events with a name, a sentence and fields, and limit the rate of each kind."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from rtfuse.errors import redact

_FIELDS = "rtfuse_fields"
_silent = ContextVar("silent", default=False)


def event(log: logging.Logger, level: int, name: str, message: str, **fields: Any) -> None:
    """Log that `name` happened, with a sentence for people and fields for programs."""
    if _silent.get():
        return
    log.log(level, "%s", message, extra={_FIELDS: {"event": name, **fields}})


@contextmanager
def silence() -> Iterator[None]:
    """Log no events of this thread while the block runs: for a second look at a source that has been announced."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


class RateLimit(logging.Filter):
    """Pass at most `count` events of one name, stream and stage in `per_s` seconds.

    The next one contains the number of suppressed ones. Other log lines pass.
    """

    def __init__(self, count: int = 5, per_s: float = 10.0) -> None:
        super().__init__()
        self._count, self._per_s = count, per_s
        self._lock = threading.Lock()
        self._passed: dict[tuple[Any, ...], deque[float]] = {}
        self._held: dict[tuple[Any, ...], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        fields = getattr(record, _FIELDS, None)
        if fields is None:
            return True
        key = tuple(fields.get(k) for k in ("event", "stream", "stage"))
        with self._lock:
            now, passed = time.monotonic(), self._passed.setdefault(key, deque(maxlen=self._count))
            if len(passed) == self._count and now - passed[0] < self._per_s:
                self._held[key] = self._held.get(key, 0) + 1
                return False
            passed.append(now)
            if held := self._held.pop(key, 0):
                fields["suppressed"] = held
        return True


class TextFormatter(logging.Formatter):
    """Format the sentence, then the fields as key=value, then a stack on separate lines; credentials are left out."""

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, _FIELDS, {}))
        stack = fields.pop("stack", "")
        fields.pop("event", None)
        shown = " ".join(f"{key}={_shown(value)}" for key, value in fields.items() if value is not None)
        line = " ".join(record.getMessage().split())
        return redact(f"{line}{'  ' + shown if shown else ''}") + (f"\n{redact(stack.rstrip())}" if stack else "")


class JsonFormatter(logging.Formatter):
    """Format one JSON object a line: time (UTC), level, event, message and the fields; credentials are left out."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, _FIELDS, {"event": "log"})
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry = {"time": when, "level": record.levelname.lower(), "message": record.getMessage(), **fields}
        shown = {key: redact(value) if isinstance(value, str) else value for key, value in entry.items()}
        return json.dumps(shown, default=lambda value: redact(str(value)))


def _shown(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return json.dumps(text) if " " in text or not text else text
