"""Change settings of a running rig, from the page and from other programs, within limits."""

from __future__ import annotations

import threading
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from rtfuse.pipeline.rig import Rig
from rtfuse.thermal.settings import AgcSettings, Method

_Tail = Annotated[float, msgspec.Meta(ge=0, le=0.05)]


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Change of some settings of the gain control (see `rtfuse.thermal.agc.Agc`), and of the rig.

    `mark`: the mark on the picture. `plane_m`: the distance of registration in metres; null: the calibration's own.
    """

    method: Method | UnsetType = UNSET
    plateau: Annotated[float, msgspec.Meta(ge=1, le=20)] | UnsetType = UNSET
    max_gain: Annotated[float, msgspec.Meta(ge=0.01, le=10)] | UnsetType = UNSET
    tails: tuple[_Tail, _Tail] | UnsetType = UNSET
    tau_ms: Annotated[float, msgspec.Meta(ge=0, le=10_000)] | UnsetType = UNSET
    freeze: bool | UnsetType = UNSET
    mark: bool | UnsetType = UNSET
    plane_m: Annotated[float, msgspec.Meta(gt=0)] | UnsetType | None = UNSET


class Controls:
    """Read and change the settings of a running rig, from any thread; they take effect with the next frame."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self._lock = rig, threading.Lock()

    def change(self, text: bytes) -> Change:
        """Carry out a change, JSON, wholly or not at all, and return it. Raises ValueError, or RecursionError."""
        wanted = msgspec.json.decode(text, type=Change)
        given = {k: v for k, v in msgspec.structs.asdict(wanted).items() if v is not UNSET}
        with self._lock:
            if "plane_m" in given:
                self._move(given.pop("plane_m"))  # it alone may be refused, so it comes first
            if (mark := given.pop("mark", None)) is not None:
                self._rig.mark = mark
            if given:
                self._rig.agc.settings = msgspec.structs.replace(self._rig.agc.settings, **given)
        return wanted

    def now(self) -> dict[str, Any]:
        """Return the settings as they are."""
        agc: AgcSettings = self._rig.agc.settings
        names = ("method", "plateau", "max_gain", "tails", "tau_ms", "freeze")
        plane_m = self._rig.plane.target_m if self._rig.plane is not None else None
        return {name: getattr(agc, name) for name in names} | {"mark": self._rig.mark, "plane_m": plane_m}

    def _move(self, plane_m: float | None) -> None:
        if self._rig.plane is None:
            raise ValueError("plane_m: this rig's distance of registration cannot be changed")
        self._rig.plane.move(plane_m)
