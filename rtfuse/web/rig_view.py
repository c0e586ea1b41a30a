"""Describe the rig to the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rtfuse.observe.stats import Snapshot
from rtfuse.types import Clock
from rtfuse.web.metrics import Audience


class Changeable(Protocol):
    """Settings that can change while the rig runs: `rtfuse.pipeline.controls.Controls`."""

    def change(self, text: bytes) -> object: ...

    def now(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class RigView:
    """Give the server access to the rig: its counts now, and its description (the labels of `rtfuse_info`).

    causes: each cause of drops in words.
    controls: the settings that the page may change; None: nothing.
    audience: counts of subscribers.
    """

    snapshot: Callable[[], Snapshot]
    about: Callable[[], Mapping[str, str]]
    clock: Clock = time.monotonic_ns
    causes: Mapping[str, str] = field(default_factory=dict)
    controls: Changeable | None = None
    audience: Audience | None = None
