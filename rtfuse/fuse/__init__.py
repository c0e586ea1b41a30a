"""Fuse thermal and RGB on one pixel grid into one RGB image: `open_fuser(name)`.

`networks` are the networks, `engines` what runs them, `deflicker` what holds the fused picture still.
"""

from rtfuse.fuse.fuser import DEFAULT_FUSER, STUDENT_WEIGHTS, UFUSER_WEIGHTS, Engine, Fuser, Precision, ThermalPicture
from rtfuse.fuse.registry import FUSERS, open_fuser

__all__ = [
    "DEFAULT_FUSER",
    "FUSERS",
    "STUDENT_WEIGHTS",
    "UFUSER_WEIGHTS",
    "Engine",
    "Fuser",
    "Precision",
    "ThermalPicture",
    "open_fuser",
]
