"""Choose the video track of a file: by number, by title, or by the tracks' content.

A number follows the file's name: `file.mkv?track=2`, or `file.mkv#2`; video tracks count from 1, attached pictures
(covers, thumbnails) do not count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from rtfuse.capture.paths import exists, open_file
from rtfuse.capture.settings import FalseColours
from rtfuse.errors import ConfigError, SourceNotFound, SourceUnreadable
from rtfuse.types import LABELS, Stream

_NUMBERED = re.compile(r"(.+?)(?:\?track=|#)(\d+)")
_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_TITLES: Mapping[Stream, re.Pattern[str]] = {
    "ir": re.compile(r"\b(thermal|ir|lwir|mwir|infra-?red|flir|heat)\b", re.IGNORECASE),
    "rgb": re.compile(r"\b(rgb|visible|vis|visual|colou?r|eo|photo)\b", re.IGNORECASE),
}
_LOOKED_AT, _PACKETS = (0, 1, 8, 16, 32), 600
"""Frames of each track that are looked at, as the first may be dark, and the most packets that are read for them."""
_CHROMA = 3.0
"""Mean distance of a picture's chroma from grey, in levels, from which it has colour."""
_COLOURED, _MARKS = 12.0, 0.2
"""The distance that shows a pixel's colour; the share of such pixels up to which a grey picture may have a scale."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Chosen track: its `number` from 1, and the reason, None if the file has no other; `sure` is False for a guess.

    `video` is the stream of the container.
    """

    video: VideoStream
    number: int
    reason: str | None = None
    sure: bool = True


def split_track(uri: str) -> tuple[str, int | None]:
    """Return the path and the number of the track in an address; a file of that very name wins."""
    found = _NUMBERED.fullmatch(uri)
    if found is None or Path(uri).exists() or not Path(found[1]).exists():
        return uri, None
    return found[1], int(found[2])


def video_tracks(container: InputContainer) -> list[VideoStream]:
    """Return the video streams of a container without its attached pictures, and those that no decoder reads."""
    videos = [video for video in container.streams.video if not video.disposition & _PICTURES]
    return [video for video in videos if cast("VideoCodecContext | None", video.codec_context) is not None]


def described(tracks: Sequence[VideoStream]) -> str:
    """Return the tracks as text: number, codec, size, title."""
    parts = []
    for k, video in enumerate(tracks, start=1):
        coder, title = video.codec_context, video.metadata.get("title")
        parts.append(f"{k}: {coder.name} {coder.width}x{coder.height}" + (f" '{title}'" if title else ""))
    return ", ".join(parts)


def choose(
    container: InputContainer,
    stream: Stream,
    number: int | None,
    reopen: Callable[[], InputContainer] | None,
    false_colours: FalseColours | None = None,
) -> Choice | None:
    """Return the track for a stream; None in a file without video.

    `number`: the track that was asked for. `reopen`: opens the container once more, to look at the pictures; None: the
    first track is taken where titles do not tell. `false_colours`: tells thermal in false colours from a scene.
    Raises ConfigError for a number that the file does not have.
    """
    tracks = video_tracks(container)
    if not tracks:
        return None
    if number is not None:
        if not 1 <= number <= len(tracks):
            raise ConfigError(f"{LABELS[stream]} track {number}: the file has {described(tracks)}; want one of these")
        return Choice(tracks[number - 1], number)
    if len(tracks) == 1:
        return Choice(tracks[0], 1)
    titled = _titled(tracks, stream)
    if len(titled) == 1:
        return Choice(tracks[titled[0]], titled[0] + 1, "by its title")
    other = _titled(tracks, "rgb" if stream == "ir" else "ir")
    if len(tracks) == 2 and len(other) == 1:
        return Choice(tracks[1 - other[0]], 2 - other[0], "by the title of the other one")
    at, reason = (None, "") if reopen is None else _by_pictures(reopen, stream, false_colours)
    if at is None:
        return Choice(tracks[0], 1, "the first one: neither titles nor pictures tell", sure=False)
    return Choice(tracks[at], at + 1, reason)


def _titled(tracks: Sequence[VideoStream], stream: Stream) -> list[int]:
    """Return the indices of the tracks whose titles name the stream."""
    return [k for k, video in enumerate(tracks) if _TITLES[stream].search(video.metadata.get("title", ""))]


def numbered(uri: str, stream: Stream, false_colours: FalseColours) -> str:
    """Return the address with the number of the stream's track, if it is a file of several tracks without one."""
    path, number = split_track(uri)
    try:
        with open_file(path) as container:
            several = number is None and len(video_tracks(container)) > 1
            choice = choose(container, stream, None, lambda: open_file(path), false_colours) if several else None
            return uri if choice is None else f"{path}?track={choice.number}"
    except (av.error.FFmpegError, OSError):
        return uri


def pair_in(uri: str, false_colours: FalseColours) -> tuple[str, str, str]:
    """Return the addresses of the thermal and the RGB track of one file, and a line that says how they were told apart.

    A track in `uri` is the thermal one. Raises SourceNotFound, SourceUnreadable if the file cannot be read, and
    ConfigError if it does not hold two tracks that can be told apart.
    """
    path, number = split_track(uri)
    if not exists(path):
        raise SourceNotFound(f"recording not found: {path}")
    try:
        with open_file(path) as container:
            tracks = video_tracks(container)
            said, count = described(tracks), len(tracks)
            choices = [choose(container, stream, None, lambda: open_file(path), false_colours) for stream in LABELS]
    except (av.error.FFmpegError, OSError) as e:
        raise SourceUnreadable(f"{path} cannot be read as a recording of both streams") from e
    if count < 2:
        raise ConfigError(f"{path} has {count or 'no'} video track: give a second file for RGB")
    ir, rgb = choices
    assert ir is not None
    assert rgb is not None
    thermal, colour, reason = ir.number, rgb.number, ir.reason
    if number is not None or (ir.sure != rgb.sure and count == 2):
        thermal = number or (ir.number if ir.sure else 3 - rgb.number)
        reason = "as named" if number else ir.reason if ir.sure else rgb.reason
        colour = rgb.number if rgb.sure and rgb.number != thermal else 3 - thermal if count == 2 else 0
    elif not (ir.sure and rgb.sure):
        colour = thermal
    if not 1 <= thermal <= count or colour in (0, thermal):
        example = f"'{path}?track=1' '{path}?track=2'"
        raise ConfigError(f"{path} has tracks {said}: which is thermal and which RGB is unclear; name both: {example}")
    line = f"{path} has tracks {said}: thermal is {thermal}, RGB is {colour} ({reason}); '?track=N' names others"
    return f"{path}?track={thermal}", f"{path}?track={colour}", line


_COUNTS, _FALSE, _GREY, _PERHAPS, _SCENE = "counts", "false colours", "grey", "few colours", "colour"
"""Kinds of pictures, in the order in which they are more likely thermal; `_PERHAPS`: false colours or a scene's."""
_RANKS = {_COUNTS: 3, _FALSE: 2, _GREY: 1, _PERHAPS: 1, _SCENE: 0}
_TOLD = {
    _COUNTS: "which are grey of more than 8 bits",
    _FALSE: "which are in false colours",
    _GREY: "which are grey",
    _PERHAPS: "which have few colours",
    _SCENE: "which have colour",
}


def _by_pictures(
    reopen: Callable[[], InputContainer], stream: Stream, false_colours: FalseColours | None
) -> tuple[int | None, str]:
    """Return the index of the stream's track and the reason; None if the pictures do not tell.

    The smaller picture is thermal where colours do not decide.
    """
    with reopen() as container:
        tracks = video_tracks(container)
        kinds = _kinds(container, tracks, false_colours)
        sizes = {k: _area(tracks[k]) for k in kinds}
    if len(kinds) < 2:
        return next(iter(kinds), None), "the only one with a picture"
    ranks = {k: _RANKS[kind] for k, kind in kinds.items()}
    sure = min(ranks.values()) < max(ranks.values())
    wanted = (max if stream == "ir" else min)(ranks.values())
    likely = [k for k in kinds if ranks[k] == wanted] if sure else list(kinds)
    if sure and (stream == "rgb" or len(likely) == 1):
        at = max(likely, key=lambda k: sizes[k])
        return at, f"by its pictures, {_TOLD[kinds[at]]}"
    if len({sizes[k] for k in likely}) > 1:
        at = (min if stream == "ir" else max)(likely, key=lambda k: sizes[k])
        return at, f"by its size: the {'smaller' if stream == 'ir' else 'larger'} picture"
    if sure or {*kinds.values()} == {_GREY, _PERHAPS}:
        kind = _PERHAPS if stream == "rgb" and not sure else kinds[likely[0]] if sure else _GREY
        at = next(k for k in likely if kinds[k] == kind)
        return at, f"by its pictures, {_TOLD[kind]}{'' if sure else ', which is not sure'}"
    return None, ""


def _kinds(
    container: InputContainer, tracks: Sequence[VideoStream], false_colours: FalseColours | None
) -> dict[int, str]:
    """Return the kind of pictures of each track, by its index, by the picture with most colour of those looked at.

    Tracks without a picture are left out.
    """
    at = {video.index: k for k, video in enumerate(tracks)}
    counts, found = Counter[int](), dict[int, str]()
    try:
        for count, packet in enumerate(container.demux(*tracks)):
            if counts[k := at[packet.stream_index]] <= _LOOKED_AT[-1]:
                for frame in _decoded(packet):
                    if counts[k] in _LOOKED_AT and found.get(k) not in (_COUNTS, _FALSE):
                        found[k] = _more(found.get(k), _kind(frame, false_colours))
                    counts[k] += 1
            if count > _PACKETS or all(counts[k] > _LOOKED_AT[-1] for k in at.values()):
                break
    except av.error.FFmpegError:
        pass  # the track's own reading will say so
    return dict(sorted(found.items()))


def _decoded(packet: Packet[Any]) -> list[VideoFrame]:
    """Return the pictures of a packet; none of a damaged one."""
    try:
        return [frame for frame in packet.decode() if isinstance(frame, VideoFrame)]
    except av.error.InvalidDataError:
        return []


def _more(before: str | None, now: str) -> str:
    """Return the kind of a track by two of its pictures: one of a scene tells more than one that is dark."""
    order = (None, _GREY, _PERHAPS, _SCENE, _FALSE, _COUNTS)
    return now if order.index(now) > order.index(before) else str(before)


def _kind(frame: VideoFrame, false_colours: FalseColours | None) -> str:
    """Return the kind of a picture."""
    if len(frame.format.components) < 3 and not frame.format.has_palette:
        return _COUNTS if frame.format.components[0].bits > 8 else _GREY
    small = frame.reformat(width=64, height=48, format="yuv444p").to_ndarray()[1:].astype(np.float32)
    chroma = np.hypot(*(small - 128))
    if float(chroma.mean()) <= _CHROMA:
        return _GREY
    if float((chroma > _COLOURED).mean()) < _MARKS and float(np.median(chroma)) <= _CHROMA:
        return _PERHAPS
    sure = false_colours(frame.to_ndarray(format="rgb24")) if false_colours is not None else False
    return _FALSE if sure else _SCENE if sure is False else _PERHAPS


def _area(video: VideoStream) -> int:
    return video.codec_context.width * video.codec_context.height
