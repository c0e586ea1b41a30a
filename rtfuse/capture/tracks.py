"""Choose the video track of a file: by number, by title, or by what the tracks show.

A number follows the file's name: `file.mkv?track=2`, or `file.mkv#2`; video tracks count from 1, attached pictures
(covers, thumbnails) do not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from rtfuse.capture.paths import exists, open_file
from rtfuse.errors import ConfigError, SourceNotFound, SourceUnreadable
from rtfuse.types import LABELS, Stream

_NUMBERED = re.compile(r"(.+?)(?:\?track=|#)(\d+)")
_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_TITLES: Mapping[Stream, re.Pattern[str]] = {
    "ir": re.compile(r"\b(thermal|ir|lwir|mwir|infra-?red|flir|heat)\b", re.IGNORECASE),
    "rgb": re.compile(r"\b(rgb|visible|vis|visual|colou?r|eo|photo)\b", re.IGNORECASE),
}
_LOOKED_AT, _PACKETS = 5, 600
"""Frames of each track that are looked at, and the most packets that are read for them."""
_CHROMA = 3.0
"""Mean distance of a picture's chroma from grey, in levels, from which it has colour."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A track: its `number` from 1, and the reason, None where there was nothing to choose; `sure`: False for a guess.

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
    """Return the video streams of a container without its attached pictures."""
    return [video for video in container.streams.video if not video.disposition & _PICTURES]


def described(tracks: Sequence[VideoStream]) -> str:
    """Return the tracks as text: number, codec, size, title."""
    parts = []
    for k, video in enumerate(tracks, start=1):
        coder, title = video.codec_context, video.metadata.get("title")
        parts.append(f"{k}: {coder.name} {coder.width}x{coder.height}" + (f" '{title}'" if title else ""))
    return ", ".join(parts)


def choose(
    container: InputContainer, stream: Stream, number: int | None, again: Callable[[], InputContainer] | None
) -> Choice | None:
    """Return the track for a stream; None if there is no video.

    `number`: the track that was asked for. `again`: opens the container once more, to look at the pictures; None: the
    first track is taken where titles do not tell. Raises ConfigError for a number that there is not.
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
    titled = [k for k, video in enumerate(tracks) if _TITLES[stream].search(video.metadata.get("title", ""))]
    if len(titled) == 1:
        return Choice(tracks[titled[0]], titled[0] + 1, "by its title")
    at, reason = (None, "") if again is None else _by_pictures(again, stream)
    if at is None:
        return Choice(tracks[0], 1, "the first one: neither titles nor pictures tell", sure=False)
    return Choice(tracks[at], at + 1, reason)


def numbered(uri: str, stream: Stream) -> str:
    """Return the address with the number of the stream's track, if it is a file of several tracks without one."""
    path, number = split_track(uri)
    try:
        with open_file(path) as container:
            several = number is None and len(video_tracks(container)) > 1
            choice = choose(container, stream, None, lambda: open_file(path)) if several else None
            return uri if choice is None else f"{path}?track={choice.number}"
    except (av.error.FFmpegError, OSError):
        return uri


def pair_in(uri: str) -> tuple[str, str, str]:
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
            choices = [choose(container, stream, None, lambda: open_file(path)) for stream in LABELS]
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


def _by_pictures(again: Callable[[], InputContainer], stream: Stream) -> tuple[int | None, str]:
    """Return the index of the stream's track and the reason; None if the pictures do not tell."""
    with again() as container:
        tracks = video_tracks(container)
        colour = _colours(container, tracks)
        areas = [video.codec_context.width * video.codec_context.height for video in tracks]
    grey = [k for k, (found, _) in enumerate(zip(colour, areas, strict=True)) if found is False]
    coloured = [k for k, found in enumerate(colour) if found]
    if grey and coloured:
        if stream == "ir":
            return grey[0], "by its pictures, which are grey"
        return max(coloured, key=lambda k: areas[k]), "by its pictures, which have colour"
    if min(areas) < max(areas):
        wanted = min(areas) if stream == "ir" else max(areas)
        return areas.index(wanted), f"by its size: the {'smaller' if stream == 'ir' else 'larger'} picture"
    return None, ""


def _colours(container: InputContainer, tracks: Sequence[VideoStream]) -> list[bool | None]:
    """Return, for each track, whether its first pictures have colour; None without a picture."""
    chroma: dict[int, list[float]] = {video.index: [] for video in tracks}
    try:
        for count, packet in enumerate(container.demux(*tracks)):
            seen = chroma[packet.stream_index]
            if len(seen) < _LOOKED_AT:
                seen += [_chroma(frame) for frame in packet.decode() if isinstance(frame, VideoFrame)]
            if count > _PACKETS or all(len(values) >= _LOOKED_AT for values in chroma.values()):
                break
    except av.error.FFmpegError:
        pass  # the track's own reading will say so
    return [max(chroma[video.index]) > _CHROMA if chroma[video.index] else None for video in tracks]


def _chroma(frame: VideoFrame) -> float:
    """Return the mean distance of a picture's chroma from grey, in levels of 8 bits; 0 for more than 8 bits of grey."""
    if frame.format.name.startswith("gray"):
        return 0.0
    _, cb, cr = frame.reformat(width=64, height=48, format="yuv444p").to_ndarray().astype(np.float32)
    return float(np.hypot(cb - 128, cr - 128).mean())
