"""Watch a stream of fused frames: in a window, as files, as numbers, as a virtual camera.

`viewer` is `rtfuse view`; `camera` and `pipe` are outputs for other programs.
"""

from rtfuse.view.viewer import view

__all__ = ["view"]
