"""Read labels of pictures: boxes as YOLO writes them, and names of their classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rtfuse.errors import ConfigError

Boxes = npt.NDArray[np.float64]
"""(N, 5): class, centre x, centre y, width, height; the last four as shares of the picture's sides, 0 to 1."""
_CLASSES = "classes.txt"
_SLACK = 1e-3
"""A box may reach this far beyond the picture: exporters round."""
_DARK = 60.0
"""A picture whose mean luma is below this counts as taken by night, where its name does not tell."""
_TIME = re.compile(r"\d([DN])$")


def read_labels(folder: Path, names: Sequence[str]) -> dict[str, Boxes]:
    """Return the boxes of each picture that has a label file `NAME.txt`; an empty file: no boxes.

    Raises ConfigError if the folder has no labels, if a label has no picture among `names`, or for a line that is not
    `class x y width height` in shares of 0 to 1.
    """
    if not folder.is_dir():
        raise ConfigError(f"--labels {folder} is not a folder; want one of NAME.txt, a line for each box")
    files = {path.stem: path for path in sorted(folder.glob("*.txt")) if path.name != _CLASSES}
    if not files:
        raise ConfigError(f"--labels {folder} has no .txt file; want NAME.txt beside each picture NAME")
    alone = sorted(files.keys() - set(names))
    if alone:
        raise ConfigError(
            f"--labels {folder}: {len(alone)} of {len(files)} label files have no pair of their name, "
            f"e.g. {files[alone[0]].name}"
        )
    return {name: _read(path) for name, path in files.items()}


def _read(path: Path) -> Boxes:
    rows = []
    for k, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) != 5 or row[0] != int(row[0]) or row[0] < 0:
            raise ConfigError(f"{path} line {k}: want 'class x y width height', got {line.strip()[:60]!r}")
        x, y, w, h = row[1:]
        inside = min(x - w / 2, y - h / 2) >= -_SLACK and max(x + w / 2, y + h / 2) <= 1 + _SLACK
        if not (inside and w > 0 and h > 0):
            raise ConfigError(f"{path} line {k}: the box lies outside 0 to 1, or has no area: {line.strip()[:60]!r}")
        rows.append(row)
    return np.array(rows, float).reshape(-1, 5)


@dataclass(frozen=True, slots=True)
class Classes:
    """Map label classes to class names of a detector.

    - `names`: for each label class that is measured, the detector's names that stand for it.
    """

    names: Mapping[int, tuple[str, ...]]

    def title(self, label: int) -> str:
        """Return the name of a label class: the first of the detector's names for it."""
        return self.names[label][0]

    def label_of(self) -> dict[str, int]:
        """Return the label class of each name of the detector."""
        return {name: label for label, names in self.names.items() for name in names}


def read_classes(text: str | None, folder: Path) -> Classes:
    """Read `0=person,1=bicycle,2=car+truck`, or a file of such lines or of bare names; None: the folder's classes.txt.

    Raises ConfigError for a missing file, an entry of another form, or a name given to two classes.
    """
    path = Path(text) if text is not None else folder / _CLASSES
    if text is not None and "=" in text:
        entries: Iterable[str] = text.split(",")
    elif path.is_file():
        entries = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    elif text is None:
        raise ConfigError(
            f"{folder} has no {_CLASSES}: name the label classes, e.g. --classes 0=person,1=bicycle,2=car"
        )
    else:
        raise ConfigError(f"--classes {text} is neither a file nor a list such as 0=person,1=bicycle,2=car")
    found: dict[int, tuple[str, ...]] = {}
    for k, entry in enumerate(entries):
        number, _, names = entry.partition("=") if "=" in entry else (str(k), "=", entry)
        if not number.strip().isdecimal() or not all(name.strip() for name in names.split("+")):
            raise ConfigError(f"--classes: want NUMBER=NAME or NUMBER=NAME+NAME, got {entry.strip()[:60]!r}")
        found[int(number)] = (*found.get(int(number), ()), *(name.strip() for name in names.split("+")))
    all_names = [name for names in found.values() for name in names]
    if twice := next((name for name in all_names if all_names.count(name) > 1), None):
        raise ConfigError(f"--classes gives {twice!r} to two label classes")
    return Classes(found)


def split_by_time(lumas: Mapping[str, float]) -> tuple[dict[str, str], str]:
    """Return `day` or `night` for each picture, and a line that says from where this is known.

    `lumas` holds the mean luma (0 to 255) of RGB by name. Names that all end in a digit and D or N decide (as in MSRS);
    otherwise a mean below 60 counts as night.
    """
    ends = {name: _TIME.search(name) for name in lumas}
    if all(ends.values()):
        times = {name: "night" if end and end[1] == "N" else "day" for name, end in ends.items()}
        return times, "day and night: by the D or N at the end of the pictures' names"
    times = {name: "night" if value < _DARK else "day" for name, value in lumas.items()}
    return times, f"day and night: guessed; RGB with a mean luma below {_DARK:.0f} counts as night"
