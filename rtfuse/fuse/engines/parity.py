"""Compare the picture of an engine with the reference."""

from __future__ import annotations

import numpy as np

from rtfuse.errors import EngineUnavailable
from rtfuse.types import Image


def check(name: str, fused: Image, reference: Image, precision: str) -> None:
    """Raise EngineUnavailable if an engine's picture differs from the reference by more than its roundings.

    Noise, gradients, black, white and constant parts are in it; a number that is not finite would come out as black.
    A few values may differ by much: where two details are equally strong, a rounding decides which one a student shows.
    """
    error = np.abs(fused.astype(int) - reference)
    allowed, share = tolerance(precision)
    if (error > allowed).mean() > share:
        raise EngineUnavailable(
            f"engine {name!r} differs from the reference by up to {error.max()} grey levels on this machine "
            f"({100 * (error > allowed).mean():.2f} % of values by more than {allowed})"
        )


def tolerance(precision: str) -> tuple[int, float]:
    """Return by how many grey levels an engine may differ, and the share of values that may differ by more."""
    return (1 if precision in ("float32", "float64") else 3), 3e-3
