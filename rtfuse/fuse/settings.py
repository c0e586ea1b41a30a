"""Settings of the fuser and of the deflicker."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rtfuse.fuse.fuser import Engine, Precision
from rtfuse.settings import Section, Share

SmallShare = Annotated[float, msgspec.Meta(gt=0, le=0.25)]
Celsius = Annotated[float, msgspec.Meta(ge=-273.15)]


class Fuse(Section, frozen=True):
    """Settings of the fuser, and of the deflicker after it.

    - `fuser`: `auto` is `ufuser` where it holds the camera's rate, else `student`, and a cheaper one under load; for
      recordings that are fused completely it is `ufuser`.
    - `weights`: a file in place of the shipped one, for the networks; `engine`, `precision`: the engine for them.
    - `plan`: a TensorRT engine that `trainer export` wrote for this GPU and these sizes; null builds one where needed.
    - `thermal_weight`: 1 shows the fused picture, 0 RGB alone, and values between them a mixture of both lumas.
    - `lean`: show RGB alone where thermal has no scene, but one value or noise (`rtfuse.fuse.lean`).
    - `keep_hot`: show thermal's brightness in this share of its pixels, the hottest, so that hotter is brighter there
      (`rtfuse.fuse.hot`); null: off. `keep_hot_c`: the same from this temperature in °C, for radiometric cameras.
    - `steady`: hold pixels that change by one level, against flicker (`rtfuse.fuse.deflicker`).
    """

    fuser: str = "auto"
    weights: str | None = None
    engine: Engine = "auto"
    precision: Precision = "auto"
    plan: str | None = None
    thermal_weight: Share = 1.0
    lean: bool = True
    keep_hot: SmallShare | None = None
    keep_hot_c: Celsius | None = None
    steady: bool = True
