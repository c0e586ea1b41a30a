"""Parse the arguments of the command line: sources, sizes, addresses, `key=value`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rtfuse.config import Config, load_config
from rtfuse.errors import ConfigError

_SIZE = re.compile(r"(\d+)x(\d+)")


def source_of(text: str) -> str:
    """Return a source's URI: a number is /dev/videoN, `synthetic` is `synthetic:`, `-` is the standard input.

    A file of that name wins.
    """
    if Path(text).exists():
        return f"./{text}" if text.startswith("synthetic:") else text
    if text.isascii() and text.isdigit():
        return f"/dev/video{text}"
    return {"synthetic": "synthetic:", "-": "/dev/stdin"}.get(text, text)


def size_of(text: str) -> tuple[int, int]:
    """Return WIDTHxHEIGHT as numbers. Raises ConfigError."""
    found = _SIZE.fullmatch(text)
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if width < 1 or height < 1:
        raise ConfigError(f"size {text!r}: want WIDTHxHEIGHT, for example 640x480")
    return width, height


def address_of(text: str) -> str:
    """Return the page's address; `:8083` is that port of this machine."""
    return text[1:] if re.fullmatch(r":\d+", text) else text


def speed_of(text: str) -> float | str:
    """Return a playback speed as a number, or the word as it is."""
    try:
        return float(text)
    except ValueError:
        return text


def starts_of(aligned: bool) -> dict[str, str]:
    """Return the setting of `--align-starts`."""
    return {"sync.starts": "same"} if aligned else {}


READ: dict[str, Callable[[str], Any]] = {
    "ir.uri": source_of,
    "rgb.uri": source_of,
    "align.depth.source.uri": source_of,
    "ir.size": size_of,
    "rgb.size": size_of,
    "web.address": address_of,
    "playback.speed": speed_of,
}
"""The settings whose text on the command line means more than YAML makes of it."""


def override(item: str) -> str:
    """Return `key=value` with a value that YAML reads: `rgb.size=640x480`, `ir.uri=0`, `web.address=:8083`."""
    key, separator, text = item.partition("=")
    if not separator or key not in READ or text[:1] in ("[", "{", '"', "'") or text in ("", "null", "~"):
        return item
    if key.endswith(".size") and not _SIZE.fullmatch(text):
        raise ConfigError(f"override {item!r}: want {key}=WIDTHxHEIGHT, for example {key}=640x480")
    return f"{key}={json.dumps(READ[key](text))}"


def endpoints(publish: list[str] | None) -> list[str]:
    """Return the overrides for the endpoints of `--publish`: they take the place of all others."""
    if not publish:
        return []
    one = None if publish == ["off"] else publish[0]
    several = [{"endpoint": endpoint} for endpoint in publish] if len(publish) > 1 else []
    return [f"publish.endpoint={json.dumps(one)}", f"publish.endpoints={json.dumps(several)}"]


def settings_of(
    given: Mapping[str, Any],
    keys: Mapping[str, tuple[str, ...]],
    *,
    more: Iterable[str] = (),
    fixed: Mapping[str, Any] | None = None,
) -> Config:
    """Return the settings of a command line.

    given: the command's parameters by name, `config` and `overrides` among them.
    keys: the settings that each parameter sets.
    more: overrides that follow those of the user.
    fixed: settings that the command itself needs.

    A flag or list that was not given changes nothing. Raises ConfigError.
    """
    options: dict[str, Any] = dict(fixed or {})
    for name, names in keys.items():
        value = given[name]
        if value is None or value is False or value == []:
            continue
        for key in names:
            options[key] = READ[key](value) if key in READ else str(value) if isinstance(value, Path) else value
    overrides = [override(item) for item in given["overrides"] or []]
    return load_config(given["config"], [*overrides, *more], options)
