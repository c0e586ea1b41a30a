"""Parse the calibration files of other tools into plain values.

YAML and JSON, also of OpenCV's FileStorage and of printed ROS messages; OpenCV's and Agisoft's XML; `ost.txt` of ROS's
camera_calibration; assignments in MATLAB's language; NumPy's archives.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from zipfile import BadZipFile

import numpy as np
import yaml

from rtfuse.errors import CalibrationError
from rtfuse.settings import parse_yaml

Tree = dict[str, Any]
_MATLAB = (b"MATLAB 5.0", b"MATLAB 7.", b"\x89HDF")
_BINARY = {
    b"\x93NUMPY": "holds one array of NumPy: save matrix and coefficients together, np.savez(path, mtx=mtx, dist=dist)",
    b"\x80": "is a pickle of Python, which is not loaded: save it with np.savez(path, mtx=mtx, dist=dist)",
    b"\xff\xd8\xff": "is a picture; give a calibration file of another tool",
    b"\x89PNG": "is a picture; give a calibration file of another tool",
}
_NOT_PRINTED = re.compile(r"(?m)^(?:A message was lost.*|\t.*|WARNING: .*)$")
"""Lines that `ros2 topic echo` and `rostopic echo` print between messages."""
_ASSIGNMENT = re.compile(r"(?m)^[ \t]*(\w+)[ \t]*=[ \t]*(\[[^\]]*\]|[-+.0-9eE]+)[ \t]*;?[ \t]*$")


def parsed(path: Path) -> list[Tree]:
    """Return the documents of a file, equal ones once: a file of one camera or rig has one.

    Raises CalibrationError that names the file and the fault.
    """
    data = _bytes(path)
    text = "" if data.startswith(b"PK") else _text(path, data)
    try:
        found = _documents(text) if text else [_arrays(data)] if data else []
    except (BadZipFile, yaml.YAMLError, ElementTree.ParseError, ValueError, RecursionError) as e:
        raise CalibrationError(f"{path} cannot be read: {' '.join(str(e).split()) or type(e).__name__}") from e
    if not found or not all(isinstance(tree, dict) and tree for tree in found):
        raise CalibrationError(f"{path} holds no keys and values; give a calibration file of another tool")
    return found


def plain(tree: Tree) -> Tree:
    """Return the tree with its own keys in lower case and without separators. Raises ValueError if two are the same."""
    made: Tree = {}
    for key, value in tree.items():
        name = re.sub(r"[^a-z0-9]", "", str(key).lower())
        if name in made:
            raise ValueError(f"{key} occurs twice")
        made[name] = value
    return made


def _bytes(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except (OSError, RuntimeError) as e:
        raise CalibrationError(f"{path}: {getattr(e, 'strerror', None) or e}") from e


def _arrays(data: bytes) -> Tree:
    """Return the arrays of numbers in NumPy's archive, `np.savez(path, mtx=…, dist=…)`, as OpenCV's tutorial writes it.

    Objects in it are left out: to read them could run code.
    """
    found: Tree = {}
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        for name in archive.files:
            with suppress(ValueError):
                found[name] = archive[name].tolist()
    return found


def _text(path: Path, data: bytes) -> str:
    for start, words in _BINARY.items():
        if data.startswith(start):
            raise CalibrationError(f"{path} {words}")
    if data.startswith(_MATLAB):
        raise CalibrationError(
            f"{path} is in MATLAB's binary format; in MATLAB write it as text with "
            "writelines(jsonencode(toStruct(params)), 'calibration.json')"
        )
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as e:
        raise CalibrationError(f"{path} is not a text file: {e}") from e


def _documents(text: str) -> list[Any]:
    start = text.lstrip()
    if start.startswith("<"):
        return [_xml(start)]
    if start.startswith("{"):
        try:
            return [json.loads(text, object_pairs_hook=_once)]
        except json.JSONDecodeError:  # or YAML in braces
            return [parse_yaml(text)]
    if re.search(r"(?m)^\[image\][ \t\r]*$", text):
        return list(_ost(text))
    without = re.sub(r"%.*", "", text)
    if start.startswith("%YAML") or not _ASSIGNMENT.search(without):
        return _yaml(text)
    return [{name: _numbers(value.strip("[]")) for name, value in _ASSIGNMENT.findall(without)}]


def _once(pairs: Iterable[tuple[str, Any]]) -> Tree:
    made: Tree = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {key} occurs twice")
        made[key] = value
    return made


def _yaml(text: str) -> list[Any]:
    """Return the documents of a YAML text, OpenCV's too; of messages, those that differ in more than their header."""
    text = _NOT_PRINTED.sub("", re.sub(r"!!opencv-[\w-]+", "", re.sub(r"(?m)^%.*$", "", text)))
    found: list[Any] = []
    for part in re.split(r"(?m)^(?:---|\.\.\.)[ \t\r]*(?:#.*)?$", text):
        tree = parse_yaml(part)
        if isinstance(tree, dict):
            tree.pop("header", None)
        if tree is not None and tree not in found:
            found.append(tree)
    return found


def _xml(text: str) -> Any:
    if "<!" in re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL):
        raise ValueError("it has a document type or a section of raw text; want elements only")
    return _element(ElementTree.fromstring(text))


def _element(element: ElementTree.Element) -> Any:
    if not len(element):
        text = (element.text or "").strip()
        try:
            found = _numbers(text)
        except ValueError:
            return text
        return found if len(found) != 1 else found[0]
    made: Tree = {}
    for child in element:
        if child.tag in made:
            raise ValueError(f"the element {child.tag} occurs twice")
        made[child.tag] = _element(child)
    return made


def _ost(text: str) -> Iterable[Tree]:
    """Yield the cameras of an `ost.txt`: names on lines of their own, numbers below them."""
    tree: Tree = {}
    key = ""
    for line in (line.partition("#")[0].strip() for line in text.splitlines()):
        if line == "[image]":
            if tree:
                yield tree
            tree = {}
        elif line and not line.startswith("["):
            try:
                tree.setdefault(key, []).extend(_numbers(line))
            except ValueError:
                key = line
                if key in tree:
                    raise ValueError(f"{key} occurs twice") from None
    yield tree


def _numbers(text: str) -> list[float]:
    return [float(word) for word in re.split(r"[\s,;]+", text.strip()) if word]
