"""Settings of the two recordings: fused video, and both streams as the cameras send them."""

from __future__ import annotations

from typing import Literal

from rtfuse.settings import NotNegative, Positive, Section


class Record(Section, frozen=True):
    """A file to record fused video to; `side_by_side` puts both sources next to it."""

    path: str | None = None
    side_by_side: bool = False
    force: bool = False


class Raw(Section, frozen=True):
    """A file to record both streams to as the cameras send them, for `--replay`; see `rtfuse.record.raw.RawRecorder`.

    Thermal is lossless; `rgb_codec` is RGB's. A new part is begun after `split_s` or `split_mb`; recording ends when
    less than `reserve_mb` is free on the disk.
    """

    path: str | None = None
    rgb_codec: Literal["h264", "ffv1", "mjpeg"] = "h264"
    split_s: Positive | None = None
    split_mb: Positive | None = None
    reserve_mb: NotNegative = 500.0
    force: bool = False
