"""Describe the rig to the server: what it may ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rtfuse.observe.stats import Snapshot
from rtfuse.types import Clock
from rtfuse.web.controls import Adjustable
from rtfuse.web.metrics import Audience


@dataclass(frozen=True, slots=True)
class RigView:
    """What the server may ask of the rig: its counts now, and what it is (the labels of `rtfuse_info`).

    `causes` says in words why frames are dropped; `adjustable` is what the page may change (None: nothing); `audience`
    is who listens elsewhere.
    """

    snapshot: Callable[[], Snapshot]
    about: Callable[[], Mapping[str, str]]
    clock: Clock = time.monotonic_ns
    causes: Mapping[str, str] = field(default_factory=dict)
    adjustable: Adjustable | None = None
    audience: Audience | None = None
