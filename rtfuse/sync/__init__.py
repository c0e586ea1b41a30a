"""Pair two streams by capture time.

`pairer` decides from the times of the frames and of their arrival alone, so that a replay decides the same; it counts
each frame that it leaves out, with the cause.
"""

from rtfuse.sync.pairer import Pairer
from rtfuse.sync.settings import PairingPolicy

__all__ = ["Pairer", "PairingPolicy"]
