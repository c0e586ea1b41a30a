"""Find things in the frames of a rig and publish their boxes: `rtfuse detect`.

`detector` finds warm spots, `yolo` runs a model, `watching` has the loop.
"""

from rtfuse.detect.detector import Detector, Warm
from rtfuse.detect.watching import Report, Watch, watch

__all__ = ["Detector", "Report", "Warm", "Watch", "watch"]
