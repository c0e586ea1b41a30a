"""Write the missing streams on the picture, for people who watch it without reading headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import cv2

from rtfuse.observe.health import Health, State
from rtfuse.types import LABELS, Fused, Picture, Stream

_SAID = {
    State.STARTING: "no {} yet",
    State.SHUTTER: "{} shutter closed",
    State.FROZEN: "{} frozen",
    State.STALLED: "{} stalled",
    State.LOST: "{} lost",
}


def marked(fused: Fused, health: Mapping[Stream, Health]) -> Fused:
    """Return the output with a line on its picture for each stream that shows nothing new; the same if all is well."""
    lines = []
    for stream, name in LABELS.items():
        now = health[stream].condition()
        if now.state in _SAID:
            lines.append(f"{_SAID[now.state].format(name)}  {now.for_s:.1f} s".upper())
    if not lines:
        return fused
    image = fused.image.copy()
    w = image.shape[1]
    scale = max(0.4, w / 1000)
    step, thick = round(34 * scale), max(1, round(2 * scale))
    shade = image[: step * len(lines) + step // 2]
    shade[:] = shade // 3
    for k, line in enumerate(lines):
        at = (round(14 * scale), step * (k + 1))
        cv2.putText(image, line, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 208, 64), thick, cv2.LINE_AA)
    return replace(fused, picture=Picture.of_rgb(image))
