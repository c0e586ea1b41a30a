"""Grade a calibration: the reasons for and against it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calib.session import NAMES, Session
from rtfuse.align.calibration import Calibration
from rtfuse.pipeline.queues import STREAMS
from rtfuse.types import Stream


@dataclass(frozen=True, slots=True)
class Reason:
    """Reason for the verdict: a grade (good, pass, fail, unknown or note) and a sentence."""

    grade: str
    text: str


def reasons(c: Calibration, session: Session | None = None) -> list[Reason]:
    """Return the reasons for and against a calibration."""
    found = [_pair_reason(c)]
    for stream, camera in zip(STREAMS, (c.ir, c.rgb), strict=True):
        if camera.held_out_px is not None:
            grade = "good" if camera.held_out_px < 0.5 else "pass" if camera.held_out_px < 1 else "fail"
            text = f"the {NAMES[stream]} lens predicts held-out views to {camera.held_out_px:.2f} px"
            found.append(Reason(grade, text))
        elif camera.K is None:
            found.append(Reason("note", f"the {NAMES[stream]} lens was not calibrated, so its distortion remains"))
    if c.R_std_deg is not None:
        turn = float(np.hypot(*c.R_std_deg[:2]))
        px = float(np.radians(turn)) * c.rgb.matrix[0, 0]
        grade = "good" if px < 0.5 else "pass" if px < 1 else "fail"
        found.append(
            Reason(grade, f"the angle between the cameras is known to ± {turn:.3f}°, or ± {px:.2f} px at any distance")
        )
    if c.quality is not None and c.quality.distance_m and c.plane_m and c.plane_m > 3 * c.quality.distance_m[1]:
        near, far = c.quality.distance_m
        found.append(
            Reason(
                "note", f"the boards were {near:.1f} to {far:.1f} m away; {c.plane_m:g} m is extrapolated from there"
            )
        )
    if session is not None:
        for stream in STREAMS:
            missing = _uncovered(session, stream)
            if missing:
                found.append(Reason("note", f"no board was seen in the {missing} of the {NAMES[stream]} image"))
    return found


def _pair_reason(c: Calibration) -> Reason:
    q = c.quality
    if q is None:
        return Reason("unknown", "the error between the two pictures is unknown: no views were held out")
    if q.method == "register":
        text = f"the two pictures are about {q.pair_error_px:.2f} RGB pixels apart, estimated from {q.views} pairs"
        return Reason(q.verdict, text)
    views = {"boards": "board views", "points": "points"}[q.method]
    text = f"the two pictures are {q.pair_error_px:.2f} RGB pixels apart on {q.views} held-out {views}"
    return Reason(q.verdict, text)


def _uncovered(session: Session, stream: Stream) -> str:
    size = session.ir_wh if stream == "ir" else session.rgb_wh
    found = session.points(stream)
    if size is None or not found:
        return ""
    cells = np.concatenate([s.xy for s in found.values()]) / size * 3
    counts = np.zeros((3, 3), bool)
    x, y = np.clip(cells, 0, 2.99).astype(int).T
    counts[y, x] = True
    rows, columns = ("top", "middle", "bottom"), ("left", "centre", "right")
    return ", ".join(f"{rows[y]} {columns[x]}" for y, x in np.argwhere(~counts))
