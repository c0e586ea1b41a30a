"""Settings of the fuser and of the deflicker."""

from __future__ import annotations

from rtfuse.fuse.fuser import Engine, Precision
from rtfuse.settings import Section


class Fuse(Section, frozen=True):
    """Which fuser; for the networks, a weights file in place of the shipped one, and what computes them.

    `auto` is `ufuser` where it holds the camera's rate, else `student`; for recordings that are fused completely it is
    `ufuser`.
    `plan` is a TensorRT engine that `trainer export` wrote for this GPU and these sizes; null builds one where needed.
    `steady` holds pixels that change by one level, against flicker (`rtfuse.fuse.deflicker`).
    """

    fuser: str = "auto"
    weights: str | None = None
    engine: Engine = "auto"
    precision: Precision = "auto"
    plan: str | None = None
    steady: bool = True
