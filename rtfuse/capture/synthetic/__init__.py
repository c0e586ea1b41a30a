"""Render a synthetic street as two streams, with known geometry, times and losses.

`scene` has the parameters, `source` plays a stream, `cameras` draw; `stage` places the `actors` on the `street`.
`solids` is another world, of flat faces, with the true depth of every pixel.
"""

from rtfuse.capture.synthetic.scene import PLANE_M, SyntheticScene
from rtfuse.capture.synthetic.source import SyntheticSource

__all__ = ["PLANE_M", "SyntheticScene", "SyntheticSource"]
