"""Refuse pairs that rest on a word that may name the stream or the scene: `heat_pump_1` with `pump_1`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from rtfuse.capture.scenes.names import (
    STREAM_WORDS,
    capitalised,
    is_number,
    is_separator,
    parts_of,
    plain,
    stream_of_word,
)
from rtfuse.errors import ConfigError
from rtfuse.types import LABELS, Stream

_OF_SCENES = frozenset(["heat", "tv", "photo", "zoom", "wide", "daylight", "optical"])
"""Words of streams that are as common in the names of scenes."""
_SIDES: tuple[tuple[Stream, Stream], ...] = (("ir", "rgb"), ("rgb", "ir"))


def refuse_word_of_scene(rgb_of: Mapping[str, str]) -> None:
    """Raise ConfigError with both readings if one name of a pair is the other and such a word before another word."""
    for ir, rgb in rgb_of.items():
        names: dict[Stream, str] = {"ir": ir, "rgb": rgb}
        for stream, other in _SIDES:
            one, rest = _words(names[stream]), _words(names[other])
            at = _ambiguous(one, stream)
            if at is not None and one[at] not in rest and _alike(one[:at] + one[at + 1 :], rest):
                raise ConfigError(
                    f"{LABELS[stream]} {names[stream]} may be the same scene as {LABELS[other]} {names[other]}, if "
                    f"'{one[at]}' names the stream, or another one, '{one[at]} {one[at + 1]}'; say which: --pair name "
                    "reads it as the stream's name; otherwise, rename the files or use --pair order"
                )


def _alike(one: list[str], other: list[str]) -> bool:
    """Return True if two names have the same words, except for as many words of streams."""
    plain_one, plain_other = ([w for w in words if w not in STREAM_WORDS] for words in (one, other))
    return plain_one == plain_other and len(one) == len(other)


def _words(name: str) -> list[str]:
    """Return the words and numbers of a name, with `/` between the parts of its path."""
    parts = parts_of(name)
    split = [["/"] * (k > 0) + [t for t in part if not is_separator(t)] for k, part in enumerate(parts)]
    return [plain(word) for part in split for token in part for word in capitalised(token)]


def _ambiguous(words: list[str], stream: Stream) -> int | None:
    """Return the place of the word that may be the scene's: before another word, and common or the other stream's."""
    for k, (word, after) in enumerate(pairwise(words)):
        if word not in STREAM_WORDS or after == "/" or is_number(after) or after in STREAM_WORDS or len(word) == 1:
            continue
        if word in _OF_SCENES or stream_of_word(word) != stream:
            return k
    return None
