"""Find the words that name a stream by all names of a folder: `_T` is one where the others have it too, `tv_1` is not.

A word counts at its place, from the start or from the end of a part of the path.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache

from rtfuse.capture.scenes.names import (
    STREAM_WORDS,
    Place,
    StreamPlaces,
    Tokens,
    is_number,
    is_separator,
    parts_of,
    places,
    plain,
    stream_of_word,
    tokens,
    without_words,
)
from rtfuse.types import LABELS, Stream


@dataclass(frozen=True, slots=True)
class _Word:
    """Word that is or has the word of a stream: its part of the path, its places, and the separator after it."""

    text: str
    depth: int
    at: int
    places: list[Place]
    behind: str


@lru_cache(maxsize=1 << 16)
def _words(name: str, words: frozenset[str], *, decimal: bool) -> Sequence[_Word]:
    found = list[_Word]()
    parts = parts_of(name, decimal=decimal)
    for depth, part in enumerate(parts):
        indices = [k for k, token in enumerate(part) if not is_separator(token)]
        for at, k in enumerate(indices):
            behind = part[k + 1] if k + 1 < len(part) and is_separator(part[k + 1]) else ""
            if not is_number(part[k]) and without_words(part[k], words) != part[k]:
                found.append(_Word(part[k], depth, at, places(len(parts), depth, len(indices), at), behind))
    return found


@lru_cache(maxsize=1 << 16)
def shape_of(name: str, *, decimal: bool) -> Tokens:
    """Return the tokens of a name with every word and every number replaced by a mark."""
    return tuple(
        "#" if is_number(t) else t if t == "/" or is_separator(t) else "w" for t in tokens(name, decimal=decimal)
    )


@dataclass(slots=True)
class _Votes:
    """Names that have a word of a stream at a place, and the words."""

    names: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)


def stream_places(
    names: Sequence[str], words: frozenset[str], matched: Set[str] = frozenset(), *, decimal: bool = False
) -> tuple[frozenset[Place], bool]:
    """Return the places where the words of streams stand, and False if they are in doubt.

    A place counts if half of the names, or nearly as many as at the best place, have such a word there; if other names
    of the same shape have no other word there (`chair_1` beside `tv_1`); and if few names are `matched`, that is, have
    found their partner with all of their words. A word that changes (`V1_T`, `W1_T`) counts only where none is the same
    throughout. In doubt: some names with such a word are matched.
    """
    votes = defaultdict[Place, _Votes](_Votes)
    for name in names:
        for word in _words(name, words, decimal=decimal):
            for place in word.places:
                votes[place].names.add(name)
                votes[place].words.add(word.text.casefold())
    if not votes:
        return frozenset(), True
    good = dict[Place, _Votes]()
    for place, vote in votes.items():
        others = [name for name in names if name not in vote.names]
        shapes = {shape_of(name, decimal=decimal) for name in vote.names} if others else set[Tokens]()
        contrary = sum(1 for name in others if shape_of(name, decimal=decimal) in shapes)
        at_rest = sum(1 for name in others if name in matched)
        if 2 * len(vote.names) >= len(names) and 4 * contrary <= len(vote.names) >= 2 * at_rest:
            good[place] = vote
    most = max((len(vote.names) for vote in good.values()), default=0)
    good = {place: vote for place, vote in good.items() if 5 * len(vote.names) >= 4 * most}
    constant = {place: vote for place, vote in good.items() if len(vote.words) == 1}
    sure = not any(name in matched for vote in good.values() for name in vote.names)
    return frozenset(constant or good), sure


def are_signed(names: Sequence[str], words: frozenset[str], found: frozenset[Place], *, decimal: bool = False) -> bool:
    """Return True if a minus follows the words of streams in some names and not in others: it is a sign."""
    minus = {
        word.behind.endswith("-")
        for name in names
        for word in _words(name, words, decimal=decimal)
        if not found.isdisjoint(word.places)
    }
    return len(minus) > 1


def where_of(
    ir: Sequence[str], rgb: Sequence[str], words: frozenset[str], matched: Set[str], *, decimal: bool
) -> tuple[dict[Stream, StreamPlaces], bool]:
    """Return the places of the words of streams on each side, and False if they are in doubt."""
    sides: dict[Stream, Sequence[str]] = {"ir": ir, "rgb": rgb}
    found = {s: stream_places(names, words, matched, decimal=decimal) for s, names in sides.items()}
    signed = any(are_signed(names, words, found[s][0], decimal=decimal) for s, names in sides.items())
    return {s: StreamPlaces(one, signed) for s, (one, _) in found.items()}, all(sure for _, sure in found.values())


def divided(names: Sequence[str]) -> dict[Stream, list[str]] | None:
    """Divide the names of one folder by the words of the streams; None unless both streams occur.

    The place decides at which most scenes differ by such a word alone, then the one with the most names on the smaller
    side, then a folder before the end of the file's name, then long words.
    """
    by_place = defaultdict[Place, dict[str, str]](dict)
    scenes = defaultdict[Place, dict[Tokens, set[str]]](lambda: defaultdict(set))
    rank = dict[Place, tuple[bool, bool, bool]]()
    for name in names:
        parts = parts_of(name)
        for word in _words(name, STREAM_WORDS, decimal=False):
            stream = stream_of_word(word.text)
            if stream is None:
                continue
            part = [t for t in parts[word.depth] if not is_separator(t)]
            rest = _rest(parts, word)
            kind = len(part) == 1 and len(parts) > 1, word.at == len(part) - 1, len(word.text) > 1
            for place in word.places:
                by_place[place][name] = stream
                scenes[place][rest].add(stream)
                rank[place] = min(rank.get(place, kind), kind)
    both = {place: found for place, found in by_place.items() if len(set(found.values())) == 2}
    if not both:
        return None

    def score(place: Place) -> tuple[int, int, tuple[bool, bool, bool], Place]:
        smaller = min(Counter(both[place].values()).values())
        return sum(len(s) == 2 for s in scenes[place].values()), smaller, rank[place], place

    chosen = both[max(both, key=score)]
    return {s: [name for name in names if chosen.get(name) == s] for s in LABELS}


def _rest(parts: Sequence[Sequence[str]], word: _Word) -> Tokens:
    """Return the tokens of a name with one word replaced by a mark."""
    rest = list[str]()
    for depth, part in enumerate(parts):
        at = 0
        for token in part:
            marked = depth == word.depth and not is_separator(token) and at == word.at
            rest.append("?" if marked else plain(token))
            at += not is_separator(token)
        rest.append("/")
    return tuple(rest)
