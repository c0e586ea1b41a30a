"""Read the tensors of a weights file: safetensors, or a checkpoint as training programs save it with torch.

Nothing in a checkpoint is executed. Its table of tensors may lie in another one (`state_dict`, `model`, `net`) beside
the state of an optimizer, be of half precision, and have names that begin with those of wrappers (`module.`).
"""

from __future__ import annotations

import errno
import struct
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from warnings import catch_warnings, simplefilter
from zipfile import is_zipfile

import numpy as np
import torch
from torch import Tensor

from rtfuse.errors import WeightsMissing

_TABLES = ("state_dict", "model_state_dict", "model", "net", "network", "generator", "params", "weights", "task")
"""Names under which programs put the network's table, the likeliest first."""
_DEPTH = 3
_KNOWN = (
    ("DIDF_Encoder.", "CDDFuse"),
    ("vis_rgbd1.", "SeAFusion"),
    ("conv3.bn.running_mean", "IFCNN"),
    ("dense.0.0.weight", "TarDAL"),
    ("up_sample5.0.weight", "EMMA's sensing nets (Ai.pth, Av.pth; its fusion net is EMMA.pth)"),
    ("thermal.down.0.0.weight", "the sensing nets of a training run (its fusion net is in fusion.ckpt)"),
    ("guide.context.down.weight", "a student"),
    ("context.down.weight", "a student of before December 2026, of another form (trainer refine trains a new one)"),
    ("encoder_ir.blocks.0.embed.weight", "U-Fuser"),
    ("V_en_1.embed.weight", "U-Fuser (EMMA)"),
)
"""Parts of the names of tensors that tell a network, and its name."""
_OTHERS = (
    (b"version https://git-lfs", "are a pointer of Git LFS: fetch the file itself with git lfs pull"),
    (b"<", "are a web page, not a file of weights: download it again"),
    (b"\x89HDF", "are HDF5, which other libraries write: save the network's state_dict with torch"),
    (b"\x93NUMPY", "are an array of NumPy: save the network's state_dict with torch"),
)
"""Beginnings of files of other kinds, and the words for each."""
_PROGRAMS = (".onnx", ".plan", ".engine", ".xml", ".tflite", ".pb")
_SAFE = (Namespace, np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32)), type(np.dtype(np.int64)))
"""Types in checkpoints beside tensors, such as options and the best score; making them does nothing else."""

_CUT = "it is damaged or cut short, or no file of weights: get or write it again"
_DAMAGED = ("central directory", "deserializing header", "ran out of input", "not a ZIP archive", "unexpected EOF")
_UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError, struct.error)
"""Errors of torch for files that it cannot read; for an old checkpoint cut short it gives almost any."""


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a file by their names, on the processor; floating ones in float32.

    Raises WeightsMissing if the file is absent or cannot be read, or if a number in it is not finite.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightsMissing(
            f"weights {path} is a folder: name the file in it, for example {path / 'ufuser.safetensors'}"
        )
    if not path.is_file():
        raise WeightsMissing(f"weights not found: {path}; give a .safetensors file, or a checkpoint of torch")
    tensors = {name: _dense(x, f"weights {path}: {name}") for name, x in _read(path).items()}
    refuse_infinite(tensors, f"weights {path}")
    if not any(bool(x.any()) for x in tensors.values()):
        raise WeightsMissing(f"weights {path} are all zero: were they saved before the training?")
    return tensors


def _dense(x: Tensor, name: str) -> Tensor:
    """Return a tensor as it is computed with, floating ones in float32. Raises WeightsMissing for other kinds."""
    kinds = (x.is_meta, "without values"), (x.is_quantized, "quantized"), (x.is_complex(), "complex")
    kind = next((words for wrong, words in kinds if wrong), None if x.layout == torch.strided else "sparse")
    if kind:
        raise WeightsMissing(f"{name} is a tensor {kind}; save the trained network's state_dict, dense and in floats")
    return x.float() if x.is_floating_point() else x


def refuse_infinite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise WeightsMissing naming the tensors with a number that is infinite or not a number."""
    bad = [name for name, x in tensors.items() if not bool(torch.isfinite(x).all())]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise WeightsMissing(f"{what} are damaged: {bad[0]}{more} holds NaN or infinity; was the training diverging?")


def _read(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with path.open("rb") as file:
            start = file.read(32)
        _refuse_other(path, start)
        if start[8:9] == b"{" or not start.startswith((b"PK", b"\x80")):  # the two of torch: an archive, or a pickle
            return load_file(path)
        # As an open file: of a path, torch goes by the suffix.
        with path.open("rb") as file, torch.serialization.safe_globals([*_SAFE, *_scalars()]), catch_warnings():
            simplefilter("ignore", UserWarning)
            thing = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as e:
        if start.startswith(b"PK") and not is_zipfile(path):
            raise WeightsMissing(f"weights {path} cannot be read: {_CUT}") from e
        raise WeightsMissing(
            f"weights {path} hold objects of another program, which are not loaded: save the network's state_dict alone"
        ) from e
    except (SafetensorError, *_UNREADABLE) as e:
        raise WeightsMissing(f"weights {path} cannot be read: {fault_of(e)}") from e
    table = _table(thing)
    if table is None:
        raise WeightsMissing(f"weights {path} hold no table of named tensors: save the network's state_dict alone")
    return table


def _refuse_other(path: Path, start: bytes) -> None:
    """Raise WeightsMissing for a file of another kind, by its beginning or its suffix."""
    words = next((words for begins, words in _OTHERS if start.startswith(begins)), None if start else "are empty")
    if words is None and path.suffix.lower() in _PROGRAMS:
        words = "are a program for another engine: give the weights that it was made of"
    if words:
        raise WeightsMissing(f"weights {path} {words}")


def fault_of(e: Exception) -> str:
    """Say in a few words why torch or safetensors could not read a file."""
    text = " ".join(str(e).split())
    if "TorchScript" in text:
        return "a TorchScript program: save the network's state_dict"
    if "not in a subdirectory" in text:
        return "an archive that torch has not written (of NumPy?): save the network's state_dict with torch"
    cut = isinstance(e, EOFError | IndexError | struct.error) or (isinstance(e, OSError) and e.errno == errno.EINVAL)
    if cut or not text or any(words in text for words in _DAMAGED):
        return _CUT
    return text[:200]


def _scalars() -> list[tuple[Any, str]]:
    """Return NumPy's function that makes a number out of bytes, under the names of it in all versions."""
    make = np.float64(0).__reduce__()[0]
    return [(make, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]


def _table(thing: Any, depth: int = _DEPTH) -> dict[str, Tensor] | None:
    """Return the table of named tensors of a checkpoint; None if it has no such table."""
    if not isinstance(thing, Mapping) or not depth:
        return None
    tensors = {k: v for k, v in thing.items() if isinstance(k, str) and torch.is_tensor(v)}
    inside = {k: t for k, v in thing.items() if isinstance(k, str) and (t := _table(v, depth - 1))}
    for name in _TABLES:
        if name in inside:
            return inside[name]
    if not inside:
        return tensors or None
    if len(inside) == 1 and not tensors:
        return next(iter(inside.values()))
    return tensors | {f"{part}.{k}": x for part, table in inside.items() for k, x in table.items()}


def part_of(tensors: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor] | None:
    """Return the tensors of these names without their common beginning, such as `module.`; None if some are missing.

    If they have none, the table may hold no other tensors. Raises WeightsMissing if the table holds two that differ.
    """
    names = list(wanted)
    parts: dict[str, dict[str, Tensor]] = {}
    for before in _beginnings(tensors, names[0]):
        found = {name: tensors[before + name] for name in names if before + name in tensors}
        if len(found) == len(names) and (before or len(tensors) == len(names)):
            parts[before] = found
    if not parts:
        return None
    (one, part), *others = parts.items()
    for other, found in others:
        if not all(torch.equal(part[name], x) for name, x in found.items()):
            raise WeightsMissing(f"the weights hold the network twice, as {one}… and as {other}…: save one of them")
    return part


def _beginnings(tensors: Mapping[str, Tensor], name: str) -> Iterator[str]:
    """Yield what stands before a name in the table, shortest first."""
    ends = sorted((key for key in tensors if key == name or key.endswith(f".{name}")), key=len)
    yield from (key[: len(key) - len(name)] for key in ends)


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the wrappers' names at the beginning of all names."""
    plain = dict(tensors)
    for before in ("module.", "_orig_mod.", "model.", "net.") * 2:
        if plain and all(k.startswith(before) for k in plain):
            plain = {k.removeprefix(before): v for k, v in plain.items()}
    return plain


def below(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor] | None:
    """Return the tensors beside the one of this name, without what stands before them; None if it is not there."""
    before = next(_beginnings(tensors, name), None)
    if before is None:
        return None
    return {k.removeprefix(before): x for k, x in tensors.items() if k.startswith(before)}


def known_network(tensors: Iterable[str]) -> str | None:
    """Return the name of the network whose tensors have these names; None for an unknown one."""
    names = [f".{name}" for name in tensors]
    return next((network for part, network in _KNOWN if any(f".{part}" in name for name in names)), None)
