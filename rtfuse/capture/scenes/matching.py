"""Match two lists of names by their common parts; refuse an ambiguous match.

Names are read in steps, from strict to loose; a name that has found its partner keeps it:

1. the same name, suffix included;
2. the same except for the suffix, upper and lower case, leading zeros and Unicode forms (`a1.JPG`, `A001.png`);
3. the same without the words of streams (`FLIR_0001_rgb`, `thermal/0001`), one-letter words last (`DJI_0001_T`),
   where all names of a side have one (module `streams`);
4. the same without a time that differs by a second or two (`DJI_20240501123045_0001_T`);
5. where these match little: the same words or numbers after the part that a whole side shares (`IMG_0001`, `thm0001`).

Matches of the last two steps are guesses, and a line says so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise, takewhile

from rtfuse.capture.scenes.names import (
    CAMERA_WORDS,
    LONG_STREAM_WORDS,
    STREAM_WORDS,
    StreamPlaces,
    Tokens,
    are_decimal,
    bare,
    exact,
    in_order,
    is_number,
    tokens,
)
from rtfuse.capture.scenes.streams import shape_of, where_of
from rtfuse.capture.scenes.times import without_time
from rtfuse.errors import ConfigError

Reading = Callable[[str], Tokens]
"""Return the part of a name that its partner shares."""
Keyed = Mapping[Tokens, Sequence[str]]
"""Names by that part."""
_NEAR_NS = 2_000_000_000
"""One release of a camera with two sensors: the greatest difference of the times in its two names."""


@dataclass(slots=True)
class Matches:
    """Names of RGB by those of thermal, and lines about guesses."""

    rgb_of: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def left(self, ir: Sequence[str], rgb: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the names that have no partner yet."""
        taken = set(self.rgb_of.values())
        return [n for n in ir if n not in self.rgb_of], [n for n in rgb if n not in taken]


def match(ir: Sequence[str], rgb: Sequence[str]) -> Matches:
    """Match thermal names with RGB names. Raises ConfigError with both readings if one may belong to two others."""
    found = Matches()
    decimal = are_decimal(ir) and are_decimal(rgb)
    strict: list[Reading] = [lambda name: (exact(name),), lambda name: tokens(name, decimal=decimal)]
    for reading in strict:
        if any(found.left(ir, rgb)):
            found.rgb_of |= _matched(found, _keyed(ir, reading), _keyed(rgb, reading))
    for words in (LONG_STREAM_WORDS, STREAM_WORDS):
        if any(found.left(ir, rgb)):
            plain = _bare_readings(ir, rgb, words, {*found.rgb_of, *found.rgb_of.values()})
            made = _matched(found, _keyed(ir, plain.ir), _keyed(rgb, plain.rgb))
            found.rgb_of |= made if plain.sure else {}
    if all(found.left(ir, rgb)):
        _match_near_times(found, ir, rgb)
        left_ir, left_rgb = found.left(ir, rgb)
        left = _unlike(left_ir, found.rgb_of), _unlike(left_rgb, found.rgb_of.values())
        _guess(found, *left, _bare_readings(ir, rgb))
    return found


@dataclass(frozen=True, slots=True)
class _Readings:
    """Readings of both sides without the words of streams; `sure` is False if some of these words are in doubt."""

    ir: Reading
    rgb: Reading
    sure: bool = True


def _bare_readings(
    ir: Sequence[str],
    rgb: Sequence[str],
    words: frozenset[str] = STREAM_WORDS,
    matched: Set[str] = frozenset(),
) -> _Readings:
    """Return the readings of names without the words of streams."""
    decimal = are_decimal(ir) and are_decimal(rgb)
    where, sure = where_of(ir, rgb, words, matched, decimal=decimal)

    def reading(side: StreamPlaces) -> Reading:
        return cache(lambda name: bare(name, words, decimal=decimal, where=side))

    return _Readings(reading(where["ir"]), reading(where["rgb"]), sure)


def _keyed(names: Sequence[str], reading: Reading) -> Keyed:
    keyed = defaultdict[Tokens, list[str]](list)
    for name in names:
        if key := reading(name):
            keyed[key].append(name)
    return keyed


def _matched(found: Matches, irs: Keyed, rgbs: Keyed) -> dict[str, str]:
    """Return the names without a partner that have the same key. Raises ConfigError for a tie."""
    taken, made = set(found.rgb_of.values()), dict[str, str]()
    for key in (key for key in irs if key in rgbs):
        one, other = irs[key], rgbs[key]
        if all(n in found.rgb_of for n in one) and all(n in taken for n in other):
            continue
        if len(one) > 1 or len(other) > 1:
            raise _tie(one, other)
        made[one[0]] = other[0]
    return made


def _tie(ir: Sequence[str], rgb: Sequence[str]) -> ConfigError:
    """Return the error for names that read the same."""
    one, many, side, other = (ir[0], rgb, "thermal", "RGB") if len(rgb) > 1 else (rgb[0], ir, "RGB", "thermal")
    first, second = in_order(many)[:2]
    return ConfigError(
        f"{side} {one} may belong to {other} {first} or to {second}: leave one of them out (a pattern such as "
        "'folder/*_rgb.png' chooses files), or pair by position with --pair order"
    )


def _match_near_times(found: Matches, ir: Sequence[str], rgb: Sequence[str]) -> None:
    """Match names that differ in their time alone, by a second or two, and have a number of their own."""
    parts = {name: part for name in {*ir, *rgb} if (part := without_time(name)) is not None}
    rests = [[parts[name][1] for name in side if name in parts] for side in (ir, rgb)]
    plain = _bare_readings(rests[0], rests[1])

    def rest(name: str, reading: Reading) -> Tokens:
        left = reading(parts[name][1]) if name in parts else ()
        return left if any(map(is_number, left)) else ()

    irs, rgbs = _keyed(ir, lambda name: rest(name, plain.ir)), _keyed(rgb, lambda name: rest(name, plain.rgb))
    left_ir, left_rgb = map(set, found.left(ir, rgb))
    made = {
        irs[key][0]: rgbs[key][0]
        for key in irs.keys() & rgbs.keys()
        if len(irs[key]) == len(rgbs[key]) == 1 and irs[key][0] in left_ir and rgbs[key][0] in left_rgb
    }
    made = {a: b for a, b in made.items() if abs(parts[a][0] - parts[b][0]) <= _NEAR_NS}
    if made:
        found.rgb_of |= made
        a = in_order(made)[0]
        found.said.append(f"{len(made)} paired by number, though their times differ a little: {a} with {made[a]}")


def _unlike(left: Sequence[str], matched: Iterable[str]) -> list[str]:
    """Return the names left over that are not built as those that found a partner: these need all of their words."""
    shapes = {shape_of(name, decimal=False) for name in matched}
    return [name for name in left if shape_of(name, decimal=False) not in shapes]


def _have_classes(names: Sequence[str], reading: Reading) -> bool:
    """Return True if names with the same words (`tv_1`, `tv_2`) have others like them (`lamp_3`): kinds of scenes."""
    forms = Counter(tuple("#" if is_number(t) else t for t in reading(name)) for name in names)
    kinds = defaultdict[Tokens, list[int]](list)
    for form, count in forms.items():
        kinds[tuple("w" if t[:1].isalpha() else t for t in form)].append(count)
    return any(len(counts) > 1 and max(counts) > 1 for counts in kinds.values())


def _guess(found: Matches, ir: Sequence[str], rgb: Sequence[str], plain: _Readings) -> None:
    """Match the names left over by what differs on their side, if that matches more names than before."""
    ties, best = list[ConfigError](), dict[str, str]()
    classes = _have_classes(ir, plain.ir) and _have_classes(rgb, plain.rgb)
    for guess in (_middles, _without_cameras, *(() if classes else (_all_numbers, _varying_numbers))):
        try:
            made = _matched(Matches(), *guess(ir, rgb, plain))
        except ConfigError as e:
            ties.append(e)
            continue
        best = max(best, made, key=len)
    if len(best) > len(found.rgb_of):
        found.rgb_of |= best
        a = in_order(best)[0]
        found.said.append(f"paired by the part of the names that differs on each side: {a} with {best[a]}")
    elif ties and not found.rgb_of:
        raise ties[0]


def _middles(ir: Sequence[str], rgb: Sequence[str], plain: _Readings) -> tuple[Keyed, Keyed]:
    """Key names by what stands between the words that all of their side begin and end with."""

    def keyed(names: Sequence[str], reading: Reading) -> Keyed:
        split = [reading(name) for name in names]
        if len(names) < 2 or not all(split):
            return {}
        head, tail = _common(split), _common([t[::-1] for t in split])
        return _keyed(names, lambda name: reading(name)[head : len(reading(name)) - tail])

    return keyed(ir, plain.ir), keyed(rgb, plain.rgb)


def _common(split: Sequence[Tokens]) -> int:
    """Return the number of first tokens, none of them a number, that all share."""
    columns = takewhile(lambda column: len(set(column)) == 1 and not is_number(column[0]), zip(*split, strict=False))
    return sum(1 for _ in columns)


def _all_numbers(ir: Sequence[str], rgb: Sequence[str], plain: _Readings) -> tuple[Keyed, Keyed]:
    """Key names that share their words with others by their numbers."""
    return _by_numbers(_rows(ir, plain.ir), set()), _by_numbers(_rows(rgb, plain.rgb), set())


def _varying_numbers(ir: Sequence[str], rgb: Sequence[str], plain: _Readings) -> tuple[Keyed, Keyed]:
    """Key names that share their words with others by the numbers that are not the same on the whole side.

    Where each side has such a number that the other has not (two days, two runs), they show different scenes.
    """
    sides = _rows(ir, plain.ir), _rows(rgb, plain.rgb)
    shared = [_shared(rows) for rows in sides]
    if shared[0] - shared[1] and shared[1] - shared[0]:
        return {}, {}
    ir_keyed, rgb_keyed = (_by_numbers(rows, numbers) for rows, numbers in zip(sides, shared, strict=True))
    return ir_keyed, rgb_keyed


def _without_cameras(ir: Sequence[str], rgb: Sequence[str], plain: _Readings) -> tuple[Keyed, Keyed]:
    """Key names by their text without the number of the camera (`cam0_0001`), if another number is left."""

    def rest(split: Tokens) -> Tokens:
        for k, (word, number) in enumerate(pairwise(split)):
            if word in CAMERA_WORDS and is_number(number) and len(number) < 3:
                left = split[:k] + split[k + 2 :]
                return left if any(map(is_number, left)) else ()
        return ()

    return _keyed(ir, lambda name: rest(plain.ir(name))), _keyed(rgb, lambda name: rest(plain.rgb(name)))


def _rows(names: Sequence[str], reading: Reading) -> dict[str, Tokens]:
    """Return the numbers of the names whose words others have too; of all, if all have the same words."""
    forms = _keyed(names, lambda name: tuple("#" if is_number(t) else t for t in reading(name)))
    groups = [group for group in forms.values() if len(group) > 1 or len(forms) == 1]
    return {name: tuple(filter(is_number, reading(name))) for group in groups for name in group}


def _shared(rows: Mapping[str, Tokens]) -> set[str]:
    """Return the numbers that stand at the same place in all rows."""
    columns = zip(*rows.values(), strict=False) if len(rows) > 1 else ()
    return {column[0] for column in columns if len(set(column)) == 1}


def _by_numbers(rows: Mapping[str, Tokens], dropped: set[str]) -> Keyed:
    constant = [k for k, column in enumerate(zip(*rows.values(), strict=False)) if set(column) <= dropped]
    return _keyed(list(rows), lambda name: tuple(n for k, n in enumerate(rows[name]) if k not in constant))


def refuse_shift(ir: Sequence[str], rgb: Sequence[str]) -> None:
    """Raise ConfigError if names of both sides are numbered without a gap, and alike except for where they start.

    This compares whole sides, and the names that are alike except for their last number (of one folder, of one place).
    """
    plain = _bare_readings(ir, rgb)
    irs, rgbs = _series(ir, plain.ir), _series(rgb, plain.rgb)
    alike = [(irs[key], rgbs[key]) for key in irs if key in rgbs]
    for one, other in [(ir, rgb), *alike]:
        a, b = _run(_rows(one, plain.ir), len(one)), _run(_rows(other, plain.rgb), len(other))
        if len(a) > 1 and len(a) == len(b) and a != b and len({y - x for run in (a, b) for x, y in pairwise(run)}) == 1:
            raise ConfigError(
                f"thermal is numbered {a[0]} to {a[-1]} and RGB {b[0]} to {b[-1]}: by number {len({*a} & {*b})} of "
                f"{len(a)} belong together, by position all, beginning with {in_order(one)[0]} and "
                f"{in_order(other)[0]}; say which: --pair name or --pair order"
            )


def _series(names: Sequence[str], reading: Reading) -> Keyed:
    """Key names by their tokens without the last number."""

    def rest(split: Tokens) -> Tokens:
        last = max((k for k, token in enumerate(split) if is_number(token)), default=None)
        return () if last is None else (*split[:last], "#", *split[last + 1 :])

    return _keyed(names, lambda name: rest(reading(name)))


def _run(rows: Mapping[str, Tokens], count: int) -> list[int]:
    """Return the numbers of a whole side, if one number tells its names apart; an empty list if not."""
    columns = [c for c in zip(*rows.values(), strict=False) if len(set(c)) > 1] if len(rows) == count else []
    if len(columns) != 1 or any("." in n for n in columns[0]):
        return []
    return sorted(map(int, columns[0]))
