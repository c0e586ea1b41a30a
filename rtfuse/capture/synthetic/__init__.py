"""Render a synthetic street as two streams, with known geometry, times and losses.

`scene` has the parameters and the source; `stage` places the `actors` on the `street`.
"""

from rtfuse.capture.synthetic.scene import PLANE_M, SyntheticScene, SyntheticSource

__all__ = ["PLANE_M", "SyntheticScene", "SyntheticSource"]
