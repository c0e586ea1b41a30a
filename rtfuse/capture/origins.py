"""Read when a recording began: UTC or a time code in its metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime

from av.container import InputContainer

_S = 1_000_000_000
_CODE = re.compile(r"(\d\d):(\d\d):(\d\d)[:;.](\d\d+)")
_UTC_KEYS = ("com.apple.quicktime.creationdate", "creation_time")
_CREDIBLE = datetime.fromisoformat("2001-01-02T00:00:00+00:00").timestamp()
"""Clocks that were never set begin in 1904, 1970, 1980 or 2000."""


def _metadata(container: InputContainer) -> Iterator[Mapping[str, str]]:
    yield container.metadata
    for stream in container.streams:
        yield stream.metadata


def utc_ns(container: InputContainer) -> int | None:
    """Return the UTC time of the first frame, in nanoseconds since 1970, by the file's metadata; None: not credible.

    Most formats store whole seconds.
    """
    if container.start_time_realtime and container.start_time_realtime / 1e6 > _CREDIBLE:
        return container.start_time_realtime * 1000
    for key in _UTC_KEYS:
        for tags in _metadata(container):
            try:
                began = datetime.fromisoformat(tags.get(key, ""))
            except ValueError:
                continue
            if began.tzinfo is not None and began.timestamp() > _CREDIBLE:
                return int(began.replace(microsecond=0).timestamp()) * _S + began.microsecond * 1000
    return None


def is_exact(container: InputContainer) -> bool:
    """Return True if `utc_ns` is known to less than a second: it has a fraction, or the format would have kept one."""
    return bool((utc_ns(container) or 0) % _S) or "matroska" in container.format.name


def timecode_ns(container: InputContainer, rate_hz: float | None) -> int | None:
    """Return the time of day of the first frame, in nanoseconds, by the file's SMPTE time code; None without one."""
    for tags in _metadata(container):
        found = _CODE.fullmatch(tags.get("timecode", ""))
        if found is not None:
            hours, minutes, seconds, frames = (int(n) for n in found.groups())
            within = frames / max(round(rate_hz or 0), frames + 1)
            return (hours * 3600 + minutes * 60 + seconds) * _S + round(within * _S)
    return None
