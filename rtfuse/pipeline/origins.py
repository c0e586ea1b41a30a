"""Put two recordings on one time axis: by their metadata, by their own times, or by their first frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import av

from rtfuse.capture.paths import open_file
from rtfuse.capture.prepared import Prepared
from rtfuse.capture.tracks import split_track, video_tracks
from rtfuse.sync.settings import Starts
from rtfuse.types import Frame, Source, SourceInfo, Stream

_S = 1_000_000_000
_DAY_NS = 86_400 * _S
_SHARE = 0.5
"""Share of the shorter recording that must lie in the other one before metadata is believed."""
_FEW = 10
"""The least frames of recordings whose equal number means something."""
_OTHERWISE = "sync.starts=own keeps the files' own times, --align-starts takes their first frames as one moment"


@dataclass(frozen=True, slots=True)
class Placement:
    """`shift_ns` is added to thermal's times; `remark` is a line for the user, or None."""

    shift_ns: int = 0
    remark: str | None = None

    def apply(self, stream: Stream, source: Source) -> Source:
        """Return the source with its times shifted, if it is thermal's."""
        return shifted(source, self.shift_ns) if stream == "ir" and self.shift_ns else source


def shifted(source: Source, shift_ns: int) -> Source:
    """Return a source whose frames, and whose start and end, are `shift_ns` later."""

    def later(frame: Frame) -> Frame:
        return replace(frame, t_ns=frame.t_ns + shift_ns)

    def described(info: SourceInfo) -> SourceInfo:
        start_ns, end_ns = (None if t is None else t + shift_ns for t in (info.start_ns, info.end_ns))
        return replace(info, start_ns=start_ns, end_ns=end_ns)

    return Prepared(source, [later], described)


def placed(infos: Mapping[Stream, SourceInfo], how: Starts) -> Placement:
    """Return the placement of thermal's times on RGB's; none for cameras, and for two tracks of one file."""
    ir, rgb = infos["ir"], infos["rgb"]
    if ir.live or rgb.live or ir.start_ns is None or rgb.start_ns is None:
        return Placement()
    placement = _placed(ir, rgb, ir.start_ns - rgb.start_ns, how)
    lines = [placement.remark, _same_track(ir, rgb), _same_count(ir, rgb)]
    return replace(placement, remark="; ".join(filter(None, lines)) or None)


def _placed(ir: SourceInfo, rgb: SourceInfo, apart_ns: int, how: Starts) -> Placement:
    """Return the placement of two recordings whose own times begin `apart_ns` apart."""
    if how == "same":
        moved = "are the same moment" + (f": thermal's times move by {-apart_ns / _S:+.3f} s" if apart_ns else "")
        return Placement(-apart_ns, f"the first frames of thermal and RGB {moved}")
    if split_track(ir.uri)[0] == split_track(rgb.uri)[0]:
        return Placement()
    by_metadata = _by_metadata(ir, rgb) if how == "auto" else None
    return by_metadata or _by_own_times(ir, rgb, apart_ns)


def _same_track(ir: SourceInfo, rgb: SourceInfo) -> str | None:
    """Return a line if both streams are one track of one recording."""
    (path, track), (other, number) = split_track(ir.uri), split_track(rgb.uri)
    if ir.coding is None or not Path(path).is_file() or not Path(other).is_file() or not Path(path).samefile(other):
        return None
    same = number == track if track and number else _tracks_of(path) == 1
    return "thermal and RGB are the same video of the same file: name another one for RGB" if same else None


def _tracks_of(path: str) -> int:
    """Return the number of video tracks of a recording; 0 if it cannot be read."""
    try:
        with open_file(path) as container:
            return len(video_tracks(container))
    except (av.error.FFmpegError, OSError):
        return 0


def _same_count(ir: SourceInfo, rgb: SourceInfo) -> str | None:
    """Return a line if recordings of equally many frames have rates that part frame k from frame k."""
    count = ir.frames
    if count is None or count < _FEW or count != rgb.frames or not ir.rate_hz or not rgb.rate_hz:
        return None
    if None in (ir.coding, rgb.coding, ir.time_base, rgb.time_base):
        return None
    drift_s = abs(count / ir.rate_hz - count / rgb.rate_hz)
    if drift_s < 0.5 / max(ir.rate_hz, rgb.rate_hz):
        return None
    return (
        f"both have {count} frames, but thermal at {ir.rate_hz:.5g} Hz and RGB at {rgb.rate_hz:.5g} Hz, so frame k is "
        f"not paired with frame k ({drift_s:.2f} s apart at the end); if a rate is wrong: copies without times "
        "(ffmpeg -i IN -c copy OUT.h264, .hevc or .mjpeg) are paired frame by frame with --fps"
    )


def _by_metadata(ir: SourceInfo, rgb: SourceInfo) -> Placement | None:
    """Return the placement by time codes, or else by creation times; None if both recordings have neither."""
    if ir.timecode_ns is not None and rgb.timecode_ns is not None:
        later_ns = (ir.timecode_ns - rgb.timecode_ns + _DAY_NS // 2) % _DAY_NS - _DAY_NS // 2
        return _believed(ir, rgb, later_ns, "time codes", exact=True)
    if ir.utc_ns is not None and rgb.utc_ns is not None:
        exact = ir.utc_exact and rgb.utc_exact and bool(ir.utc_ns % _S or rgb.utc_ns % _S)
        return _believed(ir, rgb, ir.utc_ns - rgb.utc_ns, "creation times", exact=exact)
    return None


def _believed(ir: SourceInfo, rgb: SourceInfo, later_ns: int, name: str, *, exact: bool) -> Placement | None:
    """Return the placement with thermal's first frame `later_ns` after RGB's; None if it says nothing new.

    Metadata under which the recordings hardly overlap are not believed.
    """
    assert ir.start_ns is not None
    assert rgb.start_ns is not None
    shift_ns = rgb.start_ns + later_ns - ir.start_ns
    if abs(shift_ns) < (_step_ns(ir, rgb) // 2 if exact else _S):
        return Placement() if exact or abs(later_ns) >= _S else None  # it confirms the files' own times
    told = f"by their {name}, thermal began {_after(later_ns)} RGB"
    ir_ns, rgb_ns = (0 if i.end_ns is None or i.start_ns is None else i.end_ns - i.start_ns for i in (ir, rgb))
    if not _overlap(later_ns, ir_ns or rgb_ns, rgb_ns or ir_ns):
        own = _by_own_times(ir, rgb, ir.start_ns - rgb.start_ns)
        unused = f"{told}: not used, as the recordings would hardly overlap; ir.offset_ms={shift_ns / 1e6:.0f} takes it"
        return replace(own, remark="; ".join(filter(None, [unused, own.remark])))
    doubt = "" if exact else " (whole seconds: pairs may be up to 1 s off; ir.offset_ms corrects that)"
    return Placement(shift_ns, f"{told}, and their frames are paired so{doubt}; {_OTHERWISE}")


def _overlap(later_ns: int, ir_ns: int, rgb_ns: int) -> bool:
    """Return True if enough of the shorter recording lies in the other; thermal's start is `later_ns` after RGB's."""
    shared = min(later_ns + ir_ns, rgb_ns) - max(later_ns, 0)
    return shared >= max(1, _SHARE * min(ir_ns, rgb_ns))


def _by_own_times(ir: SourceInfo, rgb: SourceInfo, apart_ns: int) -> Placement:
    """Return no shift, with a line if the files' times begin so far apart that other frames would be paired."""
    if abs(apart_ns) < _step_ns(ir, rgb) // 2:
        return Placement()
    return Placement(
        0,
        f"by the files' own times, thermal began {_after(apart_ns)} RGB (at {(ir.start_ns or 0) / _S:.3f} and "
        f"{(rgb.start_ns or 0) / _S:.3f} s); if both began together: --align-starts",
    )


def _step_ns(ir: SourceInfo, rgb: SourceInfo) -> int:
    """Return the shorter period of the two."""
    return round(_S / max(info.rate_hz or 25 for info in (ir, rgb)))


def _after(later_ns: int) -> str:
    return f"{abs(later_ns) / _S:.3f} s {'after' if later_ns > 0 else 'before'}"
