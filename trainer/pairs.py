"""Read two folders or recordings as registered pairs, by the pairing, gain control and alignment of `rtfuse fuse`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from rtfuse.capture import open_source
from rtfuse.capture.images import ImageReader, is_image
from rtfuse.capture.paths import is_pattern
from rtfuse.capture.scenes.listing import list_pictures
from rtfuse.capture.scenes.matching import match
from rtfuse.capture.scenes.names import stream_of
from rtfuse.config import Align, Config, Fuse, Playback, SourceSettings, Stills
from rtfuse.errors import CalibrationError, ConfigError, RtfuseError, SourceNotFound
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.scenes import Scenes, stills_of
from rtfuse.types import LABELS, Image, Pair

NO_PARTNER, UNREADABLE = "no partner of this name", "unreadable"
SAME = "thermal is the RGB picture itself"
OTHER_SIZE = "a size that the calibration is not for"
_SUFFIX = re.compile(r"\.[^./#]+(#\d+)?$")
_OTHERS = (
    (
        (".h5", ".hdf5", ".mat", ".npy", ".npz", ".lmdb"),
        "holds arrays, as other training code makes them: name the folders of the pictures that they were made from",
    ),
    ((".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".rar", ".7z"), "is an archive: unpack it, and name its folders"),
)
"""Suffixes of files in which data sets are passed on, and what to do."""
_LOOKED_AT = 5
"""The pairs of a set whose colours are looked at."""
_GREY_LEVELS, _COLOUR_LEVELS, _COLOUR_SHARE = 8, 24, 0.01
"""A picture is grey if the channels of 99.9 % of its pixels differ by at most so many levels; it has colour if those of
so many pixels, as a share, differ by more."""


class Survey(msgspec.Struct):
    """Counts the pairs of a recipe's data, for its first line.

    - `taken`: pairs by the name of their set; `held_out`: pairs kept out for validation.
    - `refused`: pairs and patches left out, by reason; `examples`: a name of each.
    - `said`: lines about guesses.
    """

    taken: dict[str, int] = {}
    held_out: int = 0
    refused: dict[str, int] = {}
    examples: dict[str, str] = {}
    said: list[str] = []

    def note(self, reason: str, name: str) -> None:
        """Count one refusal."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
        self.examples.setdefault(reason, name)

    def summary(self) -> str:
        """Return one line about the pairs taken and left out."""
        sets = f" ({', '.join(f'{name} {n}' for name, n in self.taken.items())})" if len(self.taken) > 1 else ""
        kept = f", {self.held_out} kept out for validation" if self.held_out else ""
        left = ", ".join(f"{n} × {reason} (e.g. {self.examples[reason]})" for reason, n in self.refused.items())
        return f"{sum(self.taken.values())} pairs taken{sets}{kept}; left out: {left or 'none'}"

    def lines(self) -> list[str]:
        """Return the first lines of a command that reads the data."""
        return [f"data: {self.summary()}", *(f"note: {line}" for line in self.said)]


@dataclass(frozen=True, slots=True, eq=False)
class Registered:
    """Thermal (H, W) uint8 on the grid of RGB (H, W, 3) uint8.

    - `name`: that of RGB's picture below its folder without suffix; of recordings RGB's frame number, six digits.
    - `frame_id`: RGB's frame number.
    - `valid`: (H, W) uint8, 255 where thermal reaches; None: everywhere.
    - `stretched`: True if thermal was only resized to RGB's size, without a calibration.
    - `as_stored`: True if thermal's pixels are those of its file: 8 bits, of RGB's size, not warped.
    - `files`: the paths of both pictures, thermal first; None for recordings.
    """

    name: str
    ir: Image
    rgb: Image
    frame_id: int
    valid: Image | None
    stretched: bool
    as_stored: bool
    files: tuple[str, str] | None


class Pairs:
    """Open two recordings (or `synthetic:` sources), or two folders paired by the names in them; iterate once.

    `only`, of folders: read the pairs of these names alone. `survey` counts the others by reason; `prefix` begins their
    names in it. Raises RtfuseError if a side or the calibration cannot be opened, ConfigError for names in doubt, for
    thermal and RGB that are swapped, and for formats that hold no pictures.
    """

    def __init__(
        self,
        ir: str,
        rgb: str,
        calib: str | None = None,
        *,
        only: Callable[[str], bool] | None = None,
        survey: Survey | None = None,
        prefix: str = "",
    ) -> None:
        self.survey, self._prefix = Survey() if survey is None else survey, prefix
        for path in (ir, rgb, *([calib] if calib else [])):
            _check_path(path)
        if Path(ir).is_file() and not is_image(Path(ir)) and Path(rgb).is_file() and Path(ir).samefile(rgb):
            raise ConfigError(f"thermal and RGB are the same recording, {ir}: name two")
        deeper = [_deeper(uri, self.survey.said) for uri in (ir, rgb)]
        config = Config(
            ir=SourceSettings(uri=ir),
            rgb=SourceSettings(uri=rgb),
            stills=Stills(recursive=any(deeper)),
            align=Align(calib=calib),
            fuse=Fuse(fuser="pyramid"),  # not used
            playback=Playback(speed="max"),
        )
        self._rig = open_rig(config, scenes=Scenes(mixed=True))
        try:
            self._names = self._paired(config)
            self._check_swapped(ir, rgb)
        except RtfuseError:
            self._rig.close()
            raise
        if only is not None:
            for source in self._stills.values():
                source.stills = [still for still, name in zip(source.stills, self._names, strict=True) if only(name)]
            self._names = [name for name in self._names if only(name)]

    @property
    def names(self) -> Sequence[str]:
        """The names of the pairs of two folders; none of recordings."""
        return self._names

    def __iter__(self) -> Iterator[Registered]:
        rig = self._rig
        with rig:
            for frame in merge(*rig.sources.values(), key=lambda frame: frame.t_ns):
                rig.pairer.push(frame)
                yield from self._registered(rig.pairer.pairs())
            yield from self._registered(rig.pairer.finish())
        for place in sorted({k for source in self._stills.values() for k in source.damaged}):
            self._note(UNREADABLE, self._names[place])

    def _note(self, reason: str, name: str) -> None:
        self.survey.note(reason, self._prefix + name)

    def _registered(self, pairs: Iterable[Pair]) -> Iterator[Registered]:
        stages = self._rig.stages
        for pair in pairs:
            k = pair.rgb.frame_id
            name = self._names[k] if self._names else f"{k:06d}"
            try:
                stages.fit(pair)
            except CalibrationError:
                self._note(OTHER_SIZE, name)
                continue
            ir, aligner = stages.thermal(pair.ir)(), stages.aligner
            files = None if not self._names else (self._stills["ir"].stills[k].path, self._stills["rgb"].stills[k].path)
            stored = ir is pair.ir.image
            yield Registered(name, ir, pair.rgb.image, k, aligner.valid, aligner.stretched, stored, files)

    def _paired(self, config: Config) -> list[str]:
        """Note the pictures without a partner; return the names of the pairs of two folders."""
        chosen = self._rig.chosen
        if chosen is None:
            self._stills = {}
            return []
        self._stills = {s: source for s in LABELS if (source := stills_of(self._rig, s)) is not None}
        self.survey.said += [line for line in chosen.said if "without a partner" not in line]  # `survey` counts them
        for stream in LABELS:
            uri = config.ir.uri if stream == "ir" else config.rgb.uri
            taken = {still.name.partition("#")[0] for still in chosen.stills[stream]}
            for name in list_pictures(uri or "", stream, recursive=config.stills.recursive).names:
                if name not in taken:
                    self._note(NO_PARTNER, stem(name))
        return [stem(still.name) for still in chosen.stills["rgb"]]

    def _check_swapped(self, ir: str, rgb: str) -> None:
        """Raise ConfigError if thermal has colour and RGB has none; say so if the names of the folders are swapped."""
        looks = [(_look(a), _look(b)) for a, b in self._samples(ir, rgb)]
        if looks and all(a == "colour" and b == "grey" for a, b in looks):
            raise ConfigError(
                f"thermal {ir} has colour and RGB {rgb} has none: are the two swapped? (thermal in false colours would "
                "have to be saved in grey)"
            )
        natural = any(a == "grey" and b == "colour" for a, b in looks)
        if not natural and [stream_of(Path(uri).resolve().name) for uri in (ir, rgb)] == ["rgb", "ir"]:
            self.survey.said.append(f"thermal is {ir} and RGB is {rgb}: are the two swapped?")

    def _samples(self, ir: str, rgb: str) -> Iterator[tuple[Image | None, Image | None]]:
        """Yield some pairs as pictures in colour, (H, W, 3) uint8 each; None if one cannot be read."""
        if self._names:
            count, in_colour = len(self._names), ImageReader("rgb", quiet=True)
            for k in sorted({n * count // _LOOKED_AT for n in range(_LOOKED_AT)}):
                a, b = (self._stills[s].stills[k] for s in LABELS)
                yield in_colour(a.path, a.page), in_colour(b.path, b.page)
        elif Path(ir).is_file() and Path(rgb).is_file():
            yield _first(ir), _first(rgb)


def stem(name: str) -> str:
    """Return the name of a picture without its suffix; the number of a page (`a.tif#2`) stays."""
    return _SUFFIX.sub(r"\1", name)


def by_name(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the pictures of a folder, such as fused ones, by the names of the pairs that they belong to.

    The same names without suffix, or else those that `rtfuse fuse` would pair with RGB's; one picture fits one pair.
    A pattern or a single picture will do, and pictures one folder deeper are found. Raises SourceNotFound for a folder
    that is not there, ConfigError for names in doubt.
    """
    uri = str(folder)
    if not folder.exists() and not is_pattern(uri):
        raise SourceNotFound(f"folder {folder} does not exist")
    if folder.is_dir() and not any(is_image(path) for path in folder.rglob("*")):
        return {}
    listed = list_pictures(uri, "rgb", recursive=_deeper(uri, []))
    files = {stem(name): Path(listed.path(name)) for name in sorted(listed.names)}
    if files.keys() & set(names):
        return files
    if len(files) == len(names) == 1:
        return dict(zip(names, files.values(), strict=True))
    try:
        return {name: files[file] for file, name in match(list(files), list(names)).rgb_of.items()}
    except ConfigError as e:
        raise ConfigError(
            f"the pictures of {folder} fit the pairs in more than one way: name the folder of one method"
        ) from e


def _check_path(path: str) -> None:
    """Raise ConfigError for a file that holds no pictures as they are."""
    kind = next((words for suffixes, words in _OTHERS if path.lower().endswith(suffixes)), None)
    if kind is not None and Path(path).is_file():
        raise ConfigError(f"{path} {kind}")


def _deeper(uri: str, said: list[str]) -> bool:
    """Return True for a folder whose pictures lie in its subfolders; say where both have some."""
    if not Path(uri).is_dir():
        return False
    here = any(is_image(path) for path in Path(uri).iterdir())
    below = any(is_image(path) for path in Path(uri).glob("*/**/*"))
    if here and below:
        said.append(f"{uri}: pictures of its subfolders are left out")
    return below and not here


def _first(uri: str) -> Image | None:
    """Return the first frame of a recording in colour; None without a frame."""
    with closing(open_source(uri, "rgb")) as source:
        return next((frame.image for frame in source), None)


def _look(rgb: Image | None) -> Literal["grey", "colour", "between"]:
    """Say whether a picture, (H, W, 3) uint8, has colour."""
    if rgb is None:
        return "between"
    spread = np.ptp(rgb[::2, ::2].reshape(-1, 3), axis=1)
    if float((spread > _COLOUR_LEVELS).mean()) > _COLOUR_SHARE:
        return "colour"
    return "grey" if np.percentile(spread, 99.9) <= _GREY_LEVELS else "between"
