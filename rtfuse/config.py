"""Compose the stages' settings into `Config`, from YAML and `key=value`; an unknown key or a wrong type is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from rtfuse.align.settings import Align
from rtfuse.capture.settings import Playback, SourceSettings, Stills
from rtfuse.errors import ConfigError
from rtfuse.fuse.settings import Fuse
from rtfuse.publish.settings import Control, Endpoint, Publish
from rtfuse.record.settings import Raw, Record
from rtfuse.settings import Count, NotNegative, Positive, Section, parse_yaml, read_yaml, to_struct
from rtfuse.stream.settings import Streaming
from rtfuse.sync.settings import Sync
from rtfuse.thermal.settings import Thermal
from rtfuse.web.settings import Detector, Web

__all__ = [
    "Align",
    "Config",
    "Control",
    "Degraded",
    "Detector",
    "Endpoint",
    "Fuse",
    "Load",
    "Playback",
    "Publish",
    "Raw",
    "Record",
    "SourceSettings",
    "Stills",
    "Streaming",
    "Supervise",
    "Sync",
    "Thermal",
    "Web",
    "dump_config",
    "load_config",
]


class Degraded(Section, frozen=True):
    """Settings of the output while a stream is lost, stalled or frozen.

    - `policy`: `passthrough` publishes the other stream alone, `hold` repeats the last fused picture, `stop` ends the
      run.
    - `start`: `both` cameras must be there when a run starts; with `any` an absent one is awaited as if it had been
      lost (not under the policy `stop`).
    - `after_ms`: a stream is missing when its last picture is older; null: 100 ms, or two of its periods where that is
      longer (for `strict` pairing two of the slower stream's).
    - `shutter_ms`: the last thermal picture is fused for this long while the shutter is closed.
    - `mark`: write the missing stream on the picture.
    """

    policy: Literal["passthrough", "hold", "stop"] = "passthrough"
    start: Literal["both", "any"] = "both"
    after_ms: Positive | None = None
    shutter_ms: NotNegative = 1000.0
    mark: bool = False


class Load(Section, frozen=True):
    """Stepping down while a live rig has too little processor: the page, previews, then the fuser (docs/live.md).

    - `step`: lower and lift these parts; false: nothing is lowered, only frames are dropped.
    - `fuser`: also change a fuser that was chosen by name to a cheaper one; `auto` always changes.
    - `nice`: niceness of a rig with cameras, -20 (first) to 0 (unchanged), where the system allows it.
    """

    step: bool = True
    fuser: bool = False
    nice: Annotated[int, msgspec.Meta(ge=-20, le=0)] = -10


class Supervise(Section, frozen=True):
    """Settings of the watchdog: after `limit_s` at one task it reports the stage and its stack, and ends the run."""

    limit_s: Positive = 20.0


class Config(Section, frozen=True):
    """Everything `rtfuse run` needs. `frames` and `duration_s` end the run early; `trace` names a file."""

    rig: str = "rig"
    ir: SourceSettings = SourceSettings()
    rgb: SourceSettings = SourceSettings()
    stills: Stills = Stills()
    sync: Sync = Sync()
    thermal: Thermal = Thermal()
    align: Align = Align()
    fuse: Fuse = Fuse()
    publish: Publish = Publish()
    control: Control = Control()
    web: Web = Web()
    stream: Streaming = Streaming()
    record: Record = Record()
    raw: Raw = Raw()
    playback: Playback = Playback()
    degraded: Degraded = Degraded()
    load: Load = Load()
    supervise: Supervise = Supervise()
    log: Literal["text", "json"] = "text"
    trace: str | None = None
    frames: Count | None = None
    duration_s: Positive | None = None


def load_config(
    file: str | Path | None = None,
    overrides: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Config:
    """Merge defaults, then the YAML `file`, then `key.sub=value` overrides, then command-line `options`.

    Values in `options` that are None were not given and change nothing. Raises ConfigError naming the file or
    override, the key's path, what was found and what is possible.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        tree = read_yaml(file)
        to_struct(tree, Config, f"config {file}")
    for item in overrides:
        override(tree, item, Config, "sync.tolerance_ms=15")
    for key, value in (options or {}).items():
        if value is not None:
            _assign(tree, key, value, key)
    return to_struct(tree, Config, "options")


def override(tree: dict[str, Any], item: str, kind: type[msgspec.Struct], example: str) -> None:
    """Set `key.sub=value` in a tree of plain values that the struct `kind` takes.

    Raises ConfigError naming the override, the key's path, what was found and what is possible.
    """
    key, separator, text = item.partition("=")
    if not separator or not key:
        raise ConfigError(f"override {item!r}: want key=value, for example {example}")
    _assign(tree, key, _parse(text, item), f"override {item!r}")
    to_struct(tree, kind, f"override {item!r}")


def dump_config(config: Config) -> str:
    """Return the configuration as YAML, without credentials in any text and without the token."""
    from rtfuse.errors import redact

    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shown(item) for key, item in value.items()}
        if isinstance(value, list):
            return [shown(item) for item in value]
        return redact(value) if isinstance(value, str) else value

    tree = shown(msgspec.to_builtins(config))
    tree["web"] |= {"token": None, "link_token": None}
    return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=100)


def _parse(text: str, item: str) -> Any:
    if " #" in text:  # a comment to YAML, part of a name here
        return text
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as e:
        raise ConfigError(f"override {item!r}: the value is not valid YAML") from e
    # `synthetic:` is a source here, not the mapping that YAML sees in it.
    return text if isinstance(value, dict) and not text.lstrip().startswith("{") else value


def _assign(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    *parents, last = key.split(".")
    for name in parents:
        if tree.get(name) is None:
            tree[name] = {}
        tree = tree[name]
        if not isinstance(tree, dict):
            raise ConfigError(f"{where}: {name} is a value, not a section")
    tree[last] = value
