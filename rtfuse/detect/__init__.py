"""Find things in the frames of a rig and publish their boxes: `rtfuse detect`.

`detector` has the loop and the detector of warm spots, `yolo` the detector that runs a model.
"""

from rtfuse.detect.detector import Detector, Warm, detect

__all__ = ["Detector", "Warm", "detect"]
