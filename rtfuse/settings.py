"""Read YAML into frozen structs; an unknown key or a wrong type is refused by its path."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import msgspec
import yaml

from rtfuse.errors import ConfigError

S = TypeVar("S", bound=msgspec.Struct)


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all settings: keyword-only, immutable, unknown keys refused."""


Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Quality = Annotated[int, msgspec.Meta(ge=1, le=100)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


def read_yaml(file: str | Path) -> dict[str, Any]:
    """Read a YAML file of keys and values. Raises ConfigError naming the file and the fault."""
    try:
        tree = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(f"config {file}: {e.strerror or e}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"config {file} is not valid YAML: {' '.join(str(e).split())}") from e
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"config {file}: want keys and values at the top, found {type(tree).__name__}")
    return tree


def to_struct(tree: Mapping[str, Any], kind: type[S], where: str) -> S:
    """Turn plain values into the struct `kind`. Raises ConfigError naming `where`, the key's path and the fault."""
    _refuse_unknown(tree, kind, where, "")
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as e:
        fault, _, path = str(e).partition(" - at `$")
        path = path.strip(".`")
        fault = f"{fault[:1].lower()}{fault[1:]}{_choices(kind, path) if 'enum' in fault else ''}"
        raise ConfigError(f"{where}: {path or 'value'}: {fault}") from e


def _choices(kind: Any, path: str) -> str:
    """Say what a key that takes words takes, from its type."""
    for name in path.split("."):
        fields = msgspec.structs.fields(kind) if hasattr(kind, "__struct_fields__") else ()
        kind = next((f.type for f in fields if f.name == name), str)
    words = [w for part in (kind, *get_args(kind)) for w in get_args(part) if isinstance(w, str)]
    numbers = " or a number" if float in get_args(kind) or Positive in get_args(kind) else ""
    return f"; want {', '.join(words)}{numbers}" if words else ""


def _refuse_unknown(tree: Mapping[str, Any], kind: type[msgspec.Struct], where: str, path: str) -> None:
    fields = {f.name: f.type for f in msgspec.structs.fields(kind)}
    for key, value in tree.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)
            hint = f"did you mean {path}{near[0]}?" if near else f"there are {', '.join(fields)}"
            raise ConfigError(f"{where}: unknown key {path}{key}; {hint}")
        section = fields[key]
        if isinstance(section, type) and issubclass(section, msgspec.Struct) and isinstance(value, Mapping):
            _refuse_unknown(value, section, where, f"{path}{key}.")
