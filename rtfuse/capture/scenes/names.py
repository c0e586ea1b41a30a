"""Split the names of pictures into words and numbers, order them, and take the name of the stream away.

A name is a path relative to its folder, with `/` between the parts. Upper and lower case, leading zeros, Unicode forms
and the suffix of the last part make no difference to its tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

Tokens = tuple[str, ...]
"""Words, numbers without leading zeros, separators as they are, and `/`."""
Place = tuple[int, int]
"""A part of a path and a word in it, each counted from the start (0, 1 …) or from the end (-1, -2 …)."""
Where: TypeAlias = "StreamPlaces | None"

_THERMAL = "ir irs thermal thermals therm thermo thermography infrared infra lwir mwir swir nir fir tir flir heat t"
_CAMERA = "cam camera ch channel sensor stream video lens port dev device head"
_RGB = "rgb rgbs vis vi visible visual visuals viz color colour optical photo dc eo daylight tv wide zoom v w z"
THERMAL_WORDS, RGB_WORDS = frozenset(_THERMAL.split()), frozenset(_RGB.split())
CAMERA_WORDS = frozenset(_CAMERA.split())
"""Words before the number of a camera."""
STREAM_WORDS = THERMAL_WORDS | RGB_WORDS
LONG_STREAM_WORDS = frozenset(word for word in STREAM_WORDS if len(word) > 1)

_SEPARATORS = r"\s_\-.,;+=~()\[\]{}"
_MINUS = r"(?<![^\s_(\[=/])-(?=\d)"
"""A sign: a minus between a separator and a number (`pan_-30`), or before the first number (`-30`)."""
_TOKEN = re.compile(rf"/|(?:{_MINUS})?\d+|(?:(?!{_MINUS})[{_SEPARATORS}])+|[^\d/{_SEPARATORS}]+")
_SEPARATOR = re.compile(rf"[{_SEPARATORS}]+")
_SUFFIX = re.compile(r"\.[^\W\d_][^./\s]*$")
_LAST_SUFFIX = re.compile(r"\.[^\W\d_][^./\s#]*(#\d+)?$")
_DECIMAL = re.compile(rf"(?<![\d.])(?:{_MINUS})?(?<!\d)\d+\.(\d+)(?![\d.])")
_ISO_LETTER = re.compile(r"(?<=\d)[TZ](?=\d|\W|$)")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def stem_of(name: str) -> str:
    """Return a name without the suffix of its last part, in Unicode's form NFKC."""
    return unicodedata.normalize("NFKC", _SUFFIX.sub("", name))


def exact(name: str) -> str:
    """Return a name in Unicode's form NFC: file systems differ in the form that they keep."""
    return unicodedata.normalize("NFC", name)


def are_decimal(names: Iterable[str]) -> bool:
    """Return True if the names have decimal fractions, such as `12.5`, and not chapters, such as `12.10`."""
    digits = [m[1] for name in names for m in _DECIMAL.finditer(stem_of(name))]
    of_one_length = len({len(d) for d in digits}) == 1
    return bool(digits) and (of_one_length or not any(len(d) > 1 and d.endswith("0") for d in digits))


@lru_cache(maxsize=1 << 12)
def is_number(token: str) -> bool:
    """Return True for a token that is a number."""
    return token.removeprefix("-")[:1].isdecimal()


def tokens(name: str, *, decimal: bool = False) -> Tokens:
    """Split a name; `decimal` makes `12.50` one number, 12.5."""
    return tuple(plain(token) for token in _split(name, decimal))


def _split(name: str, decimal: bool) -> list[str]:
    """Return the parts of a name as they are written."""
    stem = stem_of(name)
    if not decimal:
        return _TOKEN.findall(stem)
    found, end = list[str](), 0
    for match in _DECIMAL.finditer(stem):
        found += [*_TOKEN.findall(stem[end : match.start()]), match[0]]
        end = match.end()
    return found + _TOKEN.findall(stem[end:])


def plain(token: str) -> str:
    """Return a token without its case, or a number without the zeros that do not count."""
    if not is_number(token):
        return token.casefold()
    whole, _, fraction = token.partition(".")
    fraction = fraction.rstrip("0")
    sign = "-" if whole.startswith("-") and (fraction or int(whole)) else ""
    whole = f"{sign}{abs(int(whole))}"
    return f"{whole}.{fraction}" if fraction else whole


def bare(name: str, words: frozenset[str] = STREAM_WORDS, *, decimal: bool = False, where: Where = None) -> Tokens:
    """Split a name and leave out the words of streams, each with the separator that follows it or else precedes it.

    where: the places of these words in all names of a side; None: words at any place. A minus behind a word stays
    with its number if `where` says that it is a sign.
    """
    if where is not None and not where.places:
        return tokens(name, decimal=decimal)
    parts = parts_of(name, decimal=decimal)
    kept = list[str]()
    for depth, part in enumerate(parts):
        count, at, flags = sum(1 for t in part if not is_separator(t)), 0, list[bool | None]()
        for token in part:
            flags.append(None if is_separator(token) else _is_at(where, places(len(parts), depth, count, at)))
            at += not is_separator(token)
        left = _bare_part(part, words, flags, signed=where is not None and where.signed)
        kept += ["/", *left] if kept and left else left
    return tuple(kept)


@dataclass(frozen=True, slots=True)
class StreamPlaces:
    """Hold the places at which the names of a side have the words of streams.

    - `places`: places as `places` numbers them.
    - `signed`: True if a minus behind such a word is the sign of a number: some names have it and others not.
    """

    places: frozenset[Place]
    signed: bool = False


def _is_at(where: Where, found: Iterable[Place]) -> bool:
    return where is None or any(place in where.places for place in found)


def parts_of(name: str, *, decimal: bool = False) -> list[list[str]]:
    """Return the tokens of each part of a path, as they are written."""
    parts: list[list[str]] = [[]]
    for token in _split(name, decimal):
        if token == "/":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def places(depths: int, depth: int, count: int, at: int) -> list[Place]:
    """Return the places of the word or number `at` of `count` in part `depth` of `depths`: from both ends of both."""
    return [(d, k) for d in (depth, depth - depths) for k in (at, at - count)]


def _bare_part(part: Sequence[str], words: frozenset[str], flags: Sequence[bool | None], *, signed: bool) -> list[str]:
    """Return the tokens of one part of a path without the words of streams where `flags` are True."""
    kept, dropped = list[str](), False
    for token, at_place in zip(part, flags, strict=True):
        if at_place is None:
            if not dropped:
                kept.append(token)
            elif signed and token.endswith("-"):
                kept.append("-")
            continue
        left = token if is_number(token) or not at_place else without_words(token, words)
        dropped = not left
        if left:
            kept.append(plain(left))
    if dropped and kept and is_separator(kept[-1]):
        kept.pop()
    return kept


@lru_cache(maxsize=1 << 12)
def is_separator(token: str) -> bool:
    """Return True for a token of separators alone."""
    return _SEPARATOR.fullmatch(token) is not None


def capitalised(word: str) -> list[str]:
    """Split a word where capital letters begin another (`heatPump`)."""
    return _CAMEL.split(word)


def without_words(word: str, words: frozenset[str]) -> str:
    """Return a word without the words of streams: those that it is, or that capital letters mark (`thermalImage`)."""
    if word.casefold() in words:
        return ""
    parts = _CAMEL.split(word)
    left = [p for p in parts if p.casefold() not in words or len(p) == 1]
    return "".join(left) if len(left) < len(parts) else word


def stream_of_word(word: str, words: frozenset[str] = STREAM_WORDS) -> str | None:
    """Return the stream that a token names, `ir` or `rgb`; None if it names none or both."""
    found = {p.casefold() for p in (word, *(p for p in _CAMEL.split(word) if len(p) > 1))} & words
    thermal, rgb = bool(found & THERMAL_WORDS), bool(found & RGB_WORDS)
    return None if thermal == rgb else "ir" if thermal else "rgb"


def stream_of(name: str) -> str | None:
    """Return the stream whose words a name has, `ir` or `rgb`; None if it has none, or those of both."""
    found = set(tokens(_ISO_LETTER.sub(" ", name)))
    for words in (LONG_STREAM_WORDS, STREAM_WORDS):
        thermal, rgb = bool(found & words & THERMAL_WORDS), bool(found & words & RGB_WORDS)
        if thermal != rgb:
            return "ir" if thermal else "rgb"
    return None


def natural(name: str, *, decimal: bool = False) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts numbers by their value: 2 before 10, and with `decimal` 0.125 before 0.5."""
    key = list[tuple[int, int, str]]()
    for part in _split(name, decimal):
        if is_number(part):
            whole, _, fraction = part.partition(".")
            key.append((1, int(whole), fraction))
        else:
            key.append((0 if part != "/" else -1, 0, part.casefold()))
    return (*key, (-2, 0, name))


def in_order(names: Iterable[str]) -> list[str]:
    """Sort names in natural order."""
    listed = list(names)
    decimal = are_decimal(listed)
    return sorted(listed, key=lambda name: natural(name, decimal=decimal))


def png_names(names: Sequence[str]) -> list[str]:
    """Return a PNG's name for each picture, no two alike: its own, and with its suffix where two would be one.

    `a.jpg` gives `a.png`, beside `a.bmp` it gives `a.jpg.png`; page 3 of `a.tif` (`a.tif#3`) gives `a#3.png`.
    """
    plain = [_LAST_SUFFIX.sub(r"\1.png", name) if _LAST_SUFFIX.search(name) else f"{name}.png" for name in names]
    counts = Counter(name.casefold() for name in plain)
    taken = {name for name, count in counts.items() if count == 1}
    for k, name in enumerate(names):
        if counts[plain[k].casefold()] > 1:
            tries = (f"{name}{'' if n == 1 else f'-{n}'}.png" for n in range(1, len(names) + 2))
            plain[k] = next(wanted for wanted in tries if wanted.casefold() not in taken)
            taken.add(plain[k].casefold())
    return plain
