"""Read YAML into frozen structs; an unknown key or a wrong type is refused by its path."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import msgspec
import yaml

from rtfuse.errors import ConfigError
from rtfuse.folders import expanded

S = TypeVar("S", bound=msgspec.Struct)


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all settings: keyword-only, immutable, unknown keys refused."""


Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Quality = Annotated[int, msgspec.Meta(ge=1, le=100)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


_MOST_ALIASES = 40
"""References to other parts of a YAML file; nested ones grow to any size."""


class _Loader(yaml.SafeLoader):
    """Load YAML as `yaml.safe_load` does, but refuse a key that occurs twice, of which YAML keeps the last one.

    Numbers are those of YAML 1.2: `1e-3` is one; `5:60` (300 + 60 in YAML 1.1), `1_0` and dates are texts, `010` is 10.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._aliases += self.check_event(yaml.AliasEvent)
        if self._aliases > _MOST_ALIASES:
            raise yaml.YAMLError(f"it has more than {_MOST_ALIASES} aliases")
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set[Any]()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key != "<<" and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} occurs twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_NUMBERS = {
    "tag:yaml.org,2002:int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "tag:yaml.org,2002:float": r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
    r"|\.(?:nan|NaN|NAN)",
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag not in (*_NUMBERS, "tag:yaml.org,2002:timestamp")]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _form in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(f"(?:{_form})$"), list("-+.0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_yaml(text: str) -> Any:
    """Parse YAML into plain values.

    Raises yaml.YAMLError, also for a key that occurs twice, for nesting that is too deep, and for a tag that does not
    fit its value.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except RecursionError as e:
        raise yaml.YAMLError("it is nested too deep") from e
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:  # of `!!float x`, 5000 digits
        raise yaml.YAMLError(f"a value cannot be read: {e}") from e
    finally:
        loader.dispose()


def read_yaml(file: str | Path) -> dict[str, Any]:
    """Read a YAML file of keys and values, `~` at the start of a text expanded.

    Raises ConfigError naming the file and the fault.
    """
    try:
        tree = at_home(parse_yaml(Path(expanded(str(file))).read_text(encoding="utf-8")))
    except OSError as e:
        raise ConfigError(f"config {file}: {e.strerror or e}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"config {file} is not valid YAML: {_fault(e)}") from e
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"config {file}: want keys and values at the top, found {type(tree).__name__}")
    return tree


def _fault(e: yaml.YAMLError | UnicodeDecodeError) -> str:
    """Return the fault and its place, without the line itself, which may hold a password."""
    if isinstance(e, yaml.MarkedYAMLError) and e.problem_mark is not None:
        return f"{e.problem}, in line {e.problem_mark.line + 1}, column {e.problem_mark.column + 1}"
    return " ".join(str(e).split())


def at_home(tree: Any) -> Any:
    """Return plain values in which every text that begins with `~/` or `~NAME/` is the path in that home folder."""
    if isinstance(tree, Mapping):
        return {key: at_home(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [at_home(value) for value in tree]
    return expanded(tree) if isinstance(tree, str) else tree


def to_struct(tree: Mapping[str, Any], kind: type[S], where: str) -> S:
    """Turn plain values into the struct `kind`, with `~` expanded as by `at_home`.

    Raises ConfigError naming `where`, the key's path and the fault.
    """
    tree = at_home(tree)
    _refuse_unknown(tree, kind, where, "")
    refuse_infinite(tree, where, "")
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as e:
        fault, _, path = str(e).partition(" - at `$")
        path = path.strip(".`")
        fault = f"{fault[:1].lower()}{fault[1:]}{_choices(kind, path) if 'enum' in fault else ''}"
        if fault.startswith("expected `array`"):
            fault += f"; write a list as '{path or 'key'}=[one, two]'"
        if re.match(r"expected `str\b.*`, got `(int|float|bool)`", fault):
            fault += "; put it in quotes, as YAML takes it for a number, or for true or false"
        found = _number_at(tree, path)
        if found is not None and "got" not in fault:
            fault += f", found {found}"
        raise ConfigError(f"{where}: {path or 'value'}: {fault}") from e


def _number_at(tree: Any, path: str) -> float | None:
    """Return the number at a key's path; None for anything else, which may be a secret."""
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, int | float) and not isinstance(tree, bool) else None


def _choices(kind: Any, path: str) -> str:
    """Say what a key that takes words takes, from its type."""
    for name in re.split(r"\.|(?=\[)", path):
        if name.startswith("["):  # of a list, whose type names that of its items first
            kind = next(iter(get_args(kind)), str)
            continue
        fields = msgspec.structs.fields(kind) if hasattr(kind, "__struct_fields__") else ()
        kind = next((f.type for f in fields if f.name == name), str)
    words = [w for part in (kind, *get_args(kind)) for w in get_args(part) if isinstance(w, str)]
    numbers = " or a number" if float in get_args(kind) or Positive in get_args(kind) else ""
    return f"; want {', '.join(words)}{numbers}" if words else ""


def refuse_infinite(tree: Mapping[Any, Any] | Sequence[Any], where: str, path: str) -> None:
    """Raise ConfigError naming the path of a number that is infinite or not a number, in plain values."""
    for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
        if isinstance(value, Mapping | list):
            refuse_infinite(value, where, f"{path}{key}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{where}: {path}{key}: want a finite number, found {value}")


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
