"""Compare the picture of an engine with the reference."""

from __future__ import annotations

import numpy as np

from rtfuse.errors import EngineUnavailable
from rtfuse.types import Image


def check(name: str, fused: Image, reference: Image, precision: str, *, chooses: bool = False) -> None:
    """Raise EngineUnavailable if an engine's picture differs from the reference by more than its roundings.

    Noise, gradients, black, white and constant parts are in it; a number that is not finite would come out as black.
    `chooses`: the network is below bands of details (`rtfuse.fuse.bands`); a few values may differ by much, where a
    rounding decides between two details of one strength.
    """
    error = np.abs(fused.astype(int) - reference)
    allowed, share = tolerance(precision, chooses=chooses)
    if (error > allowed).mean() > share or (not chooses and error.max() > 8 * allowed):
        raise EngineUnavailable(
            f"engine {name!r} differs from the reference by up to {error.max()} grey levels on this machine "
            f"({100 * (error > allowed).mean():.2f} % of values by more than {allowed})"
        )


def tolerance(precision: str, *, chooses: bool = False) -> tuple[int, float]:
    """Return by how many grey levels an engine may differ, and the share of values that may differ by more."""
    allowed, share = (1, 0.0) if precision in ("float32", "float64") else (3, 1e-3)
    return allowed, 6e-3 if chooses else share
