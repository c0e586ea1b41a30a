"""Write one self-contained page with the verdict on a calibration, its reasons, and pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from calib.adjust import Observation, lens_of, pose_of, project, without_bias
from calib.footage import Footage, sampled
from calib.overlay import aligned, checkerboard, edges_on
from calib.parallax import in_register, parallax_table
from calib.reasons import Reason, reasons
from calib.session import NAMES, VIEWS, Session, diameter_m, load_session
from rtfuse.align.calibration import Calibration, Camera, lifted, projected, rgb_pixels_of_ir, undistorted
from rtfuse.errors import CalibrationError
from rtfuse.outputs import write_whole
from rtfuse.pipeline.queues import STREAMS
from rtfuse.types import Image, Stream

_MAGNIFIED = 50
_SIDES: tuple[tuple[Stream, Stream, str], ...] = (("ir", "rgb", "png"), ("rgb", "ir", "jpg"))
_WIDEST = 1100

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a8a3a; --pass: #b07a00; --fail: #c62828; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem }
h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line) }
.verdict { font-size: 1.25rem; font-weight: 600; padding: .6rem 1rem; border-radius: .5rem; color: #fff }
.verdict { display: inline-block }
.good { background: var(--good) } .pass { background: var(--pass) } .fail, .unknown { background: var(--fail) }
figure { margin: 1rem 0 }
figcaption { opacity: .75; font-size: .9rem }
img { max-width: 100%; height: auto; border-radius: .3rem }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem }
@media (max-width: 45rem) { .two { grid-template-columns: 1fr } }
table { border-collapse: collapse }
td, th { padding: .15rem .9rem .15rem 0; text-align: left; border-bottom: 1px solid var(--line) }
td.n { text-align: right; font-variant-numeric: tabular-nums }
svg { max-width: 100% }
"""


def write_report(
    c: Calibration,
    path: Path,
    *,
    name: str,
    session: Path | None = None,
    ir: str | None = None,
    rgb: str | None = None,
) -> str:
    """Write the page and return the verdict: good, pass, fail or unknown.

    `name`: title of the page.
    `session`: session folder; adds the boards.
    `ir`, `rgb`: sources; add pictures of the scene.

    Raises CalibrationError if session or pictures do not fit the calibration, or OutputUnwritable.
    """
    found = load_session(session) if session else None
    if found is not None:
        _same_sizes(c, found)
    why = reasons(c, found)
    verdict = next((g for g in ("unknown", "fail", "pass", "good") if any(r.grade == g for r in why)), "unknown")
    parts = [_head(name, verdict, why)]
    if ir and rgb:
        with Footage(ir, rgb) as footage:
            parts.append(_scene(c, sampled(footage, 3)))
    if found is not None and session is not None:
        parts += _boards(c, found, session)
    parts += [_distances(c), _numbers(c)]
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(name)}: {verdict}</title><style>{_STYLE}</style><body>{''.join(parts)}</body></html>"
    )
    write_whole(path, page.encode(errors="replace"))  # of a name that is not text here
    return verdict


def _same_sizes(c: Calibration, session: Session) -> None:
    for name, camera, size in (("thermal", c.ir, session.ir_wh), ("RGB", c.rgb, session.rgb_wh)):
        if size is not None and camera.size_wh != size:
            raise CalibrationError(
                f"the session's {name} pictures are {size[0]}x{size[1]}, but the calibration is for "
                f"{camera.size_wh[0]}x{camera.size_wh[1]}; give the session that the calibration was made from"
            )


def _head(name: str, verdict: str, why: Sequence[Reason]) -> str:
    items = "".join(f"<li>{escape(r.text)}{'' if r.grade == 'note' else f': <b>{r.grade}</b>'}</li>" for r in why)
    legend = "good: below half an RGB pixel; pass: below one; fail: more"
    return f'<h1>{escape(name)}</h1><p class="verdict {verdict}">{verdict}</p><p>{legend}</p><ul>{items}</ul>'


def _picture(image: Image, caption: str) -> str:
    if image.shape[1] > _WIDEST:
        scale = _WIDEST / image.shape[1]
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    text = base64.b64encode(data.tobytes()).decode()
    return (
        f'<figure><img src="data:image/jpeg;base64,{text}" alt=""><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _scene(c: Calibration, pairs: Sequence[tuple[Image, Image]]) -> str:
    parts = ["<h2>The scene</h2>"]
    for ir, rgb in pairs:
        before, after = aligned(ir, rgb, None), aligned(ir, rgb, c)
        parts.append(
            '<div class="two">'
            + _picture(edges_on(*before, rgb), "Thermal's edges on RGB, before")
            + _picture(edges_on(*after, rgb), "after")
            + _picture(checkerboard(*before, rgb), "RGB and thermal in turn, before")
            + _picture(checkerboard(*after, rgb), "after: lines continue from square to square")
            + "</div>"
        )
    return "".join(parts)


def _boards(c: Calibration, session: Session, folder: Path) -> list[str]:
    parts = ["<h2>The boards</h2>", '<div class="two">']
    for stream, camera in zip(STREAMS, (c.ir, c.rgb), strict=True):
        if camera.K is not None and session.points(stream):
            image, rms_px = _arrows(session, stream, camera)
            caption = (
                f"{NAMES[stream]}: observed points, with errors (root mean square {rms_px:.2f} px) drawn "
                f"{_MAGNIFIED} times as long"
            )
            parts.append(_picture(image, caption))
    parts.append("</div>")
    both = [v for v in session.views if v.ir and v.rgb]
    if both and c.ir.K is not None and c.rgb.K is not None and c.R_rgb_from_ir is not None:
        parts.append("<h2>Epipolar lines</h2>")
        for view in (both[0], both[len(both) // 2]):
            pictures = _epipolar(c, session, view.name, folder)
            captions = ("thermal, with the lines of RGB's points", "RGB, with the lines of thermal's points")
            shown = zip(pictures, captions, strict=True)
            parts.append('<div class="two">' + "".join(_picture(p, t) for p, t in shown) + "</div>")
        parts.append("<p>Crosses mark the observed points; the lines must pass through them.</p>")
    return parts


def _arrows(session: Session, stream: Stream, camera: Camera) -> tuple[Image, float]:
    """Return a picture of every observed point with its error, and the root mean square error in pixels."""
    w, h = camera.size_wh
    scale = max(1.0, 640 / w)
    picture = np.full((round(h * scale), round(w * scale), 3), 24, np.uint8)
    board, lens, errors = session.target, lens_of(camera), []
    diameter = diameter_m(board, session.points(stream).values())
    for name, found in session.points(stream).items():
        observation = without_bias(Observation(0, name, board.points[list(found.ids)], found.xy), lens, diameter)
        error = (
            observation.pixels
            - project(observation.points, pose_of(observation.points, observation.pixels, lens), lens)[0]
        )
        errors.append(error)
        if np.abs(error).max() > 5:
            continue  # a view that was rejected by the fit
        hull = cv2.convexHull((found.xy * scale).astype(np.int32))
        cv2.polylines(picture, [hull], True, (70, 70, 80), 1, cv2.LINE_AA)
        for p, e in zip(found.xy * scale, error * scale * _MAGNIFIED, strict=True):
            start, end = p.round().astype(int), (p + e).round().astype(int)
            cv2.arrowedLine(
                picture, tuple(map(int, start)), tuple(map(int, end)), (255, 170, 60), 1, cv2.LINE_AA, 0, 0.25
            )
    middle = [e for e in errors if np.abs(e).max() <= 5] or errors
    return picture, float(np.sqrt(np.mean(np.concatenate(middle) ** 2) * 2))


def _epipolar(c: Calibration, session: Session, name: str, folder: Path) -> tuple[Image, Image]:
    """Return the thermal and the RGB picture of a view, each with the epipolar lines of the other's points."""
    R, t = np.array(c.R_rgb_from_ir), np.array(c.t_rgb_from_ir_m)
    pictures = []
    for stream, other, suffix in _SIDES:
        path = folder / VIEWS / f"{name}.{stream}.{suffix}"
        picture = cv2.imread(str(path))
        if picture is None:
            raise CalibrationError(f"{path} is missing; keep the pictures in the session's folder")
        scale = max(1.0, 640 / picture.shape[1])
        picture = cv2.cvtColor(cv2.resize(picture, None, fx=scale, fy=scale), cv2.COLOR_BGR2RGB)
        camera, far = (c.ir, c.rgb) if stream == "ir" else (c.rgb, c.ir)
        seen, there = (session.points(s)[name].xy for s in (stream, other))
        depths = np.geomspace(0.1, 1000, 400)
        for k in np.unique(np.linspace(0, len(there) - 1, 9).astype(int)):
            ray = lifted(undistorted(there[k : k + 1], far))[0]
            points = depths[:, None] * ray
            points = (points - t) @ R if stream == "ir" else points @ R.T + t
            line = projected(points, camera)
            inside = ((line > -200) & (line < np.array(camera.size_wh) + 200.0)).all(1)
            cv2.polylines(
                picture, [(scale * line[inside]).round().astype(np.int32)], False, (255, 170, 60), 1, cv2.LINE_AA
            )
        for x, y in seen:
            cv2.drawMarker(
                picture, (round(scale * x), round(scale * y)), (60, 220, 255), cv2.MARKER_CROSS, 9, 1, cv2.LINE_AA
            )
        pictures.append(picture)
    return pictures[0], pictures[1]


def _distances(c: Calibration) -> str:
    if c.R_rgb_from_ir is None:
        plane = f"It is exact at {c.plane_m:g} m." if c.plane_m else "Its distance was not given."
        return (
            f"<h2>Distances</h2><p>A homography registers one distance. {plane} The error at another distance is "
            "f b |1/distance - 1/plane|, with the baseline b in metres and RGB's focal length f in pixels.</p>"
        )
    near, far = in_register(c)
    reach = "any distance" if np.isinf(far) else f"{far:.2g} m"
    table = parallax_table(c)
    rows = "".join(f'<tr><td class="n">{d:g}</td><td class="n">{e:.1f}</td></tr>' for d, e in table)
    baseline = 1000 * float(np.linalg.norm(np.array(c.t_rgb_from_ir_m)))
    return (
        f"<h2>Parallax</h2><p>Baseline {baseline:.1f} mm, registered for {c.plane_m:g} m: within one RGB pixel from "
        f"{near:.2g} m to {reach}.</p>"
        f'<div class="two"><table><tr><th>distance, m</th><th>error, RGB px</th></tr>{rows}</table>'
        f"{_chart(table)}</div>"
    )


def _chart(table: Sequence[tuple[float, float]]) -> str:
    """Return a chart of error against distance as SVG, both logarithmic."""
    w, h, left, below = 440, 300, 46, 34
    d, e = np.array(table).T
    e = np.clip(e, 0.05, 200)
    x = left + (np.log10(d) - np.log10(d[0])) / (np.log10(d[-1]) - np.log10(d[0])) * (w - left - 24)
    low, high = np.log10(0.05), np.log10(200)
    y = (h - below) - (np.log10(e) - low) / (high - low) * (h - below - 10)
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    marks = []
    for value in (0.1, 1, 10, 100):
        at = (h - below) - (np.log10(value) - low) / (high - low) * (h - below - 10)
        marks.append(
            f'<line x1="{left}" x2="{w - 24}" y1="{at:.1f}" y2="{at:.1f}" stroke="currentColor" opacity=".2"/>'
        )
        marks.append(f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
    for distance, at in zip(d, x, strict=True):
        if distance in (0.5, 1, 2, 5, 10, 30, 100, 1000):
            marks.append(f'<text x="{at:.1f}" y="{h - below + 16}" text-anchor="middle">{distance:g}</text>')
    return (
        f'<svg viewBox="0 0 {w} {h}" width="{w}" font-size="11" fill="currentColor" role="img" '
        f'aria-label="error against distance">{"".join(marks)}'
        f'<polyline points="{line}" fill="none" stroke="#e07b00" stroke-width="2"/>'
        f'<text x="{w - 24}" y="{h - 2}" text-anchor="end">distance, m</text>'
        f'<text x="{left}" y="10">error, RGB px</text></svg>'
    )


def _numbers(c: Calibration) -> str:
    rows: list[tuple[str, str]] = []
    for stream, camera in (("thermal", c.ir), ("RGB", c.rgb)):
        rows.append((f"{stream} size", f"{camera.size_wh[0]}x{camera.size_wh[1]}"))
        if camera.K is None:
            continue
        K, std = camera.matrix, camera.K_std
        values = (K[0, 0], K[1, 1], K[0, 2], K[1, 2])
        shown = [f"{v:.2f}" + (f" ± {s:.2f}" if std else "") for v, s in zip(values, std or (0.0,) * 4, strict=True)]
        rows += [(f"{stream} fx, fy, px", ", ".join(shown[:2])), (f"{stream} cx, cy, px", ", ".join(shown[2:]))]
        deviations = camera.dist_std or (None,) * len(camera.dist)
        dist = [f"{v:.4f}" + ("" if s is None else f" ± {s:.4f}") for v, s in zip(camera.dist, deviations, strict=True)]
        rows.append((f"{stream} distortion ({camera.model})", ", ".join(dist)))
    if c.R_rgb_from_ir is not None and c.t_rgb_from_ir_m is not None:
        turn = np.degrees(cv2.Rodrigues(np.array(c.R_rgb_from_ir))[0].ravel())
        rows.append(("thermal's axes about RGB's x, y, z, degrees", _with_std(turn, c.R_std_deg, 3)))
        std_mm = None if c.t_std_m is None else [1000 * s for s in c.t_std_m]
        rows.append(
            ("thermal camera right, below, before RGB, mm", _with_std(1000 * np.array(c.t_rgb_from_ir_m), std_mm, 2))
        )
    if c.H_rgb_from_ir is not None:
        w, h = c.ir.size_wh
        corners = rgb_pixels_of_ir(np.array([[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]], float), c)
        rows.append(("thermal's corners in RGB, px", ", ".join(f"({x:.1f}, {y:.1f})" for x, y in corners)))
    if c.ir_offset_ms is not None:
        known = "" if c.ir_offset_std_ms is None else f" ± {c.ir_offset_std_ms:.1f}"
        rows.append(("offset added to thermal's times, ms", f"{c.ir_offset_ms:+.1f}{known}"))
    body = "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in rows)
    return f"<h2>Numbers</h2><table>{body}</table>"


def _with_std(values: Image, std: Sequence[float] | None, digits: int) -> str:
    shown = zip(values, std or (None,) * len(values), strict=True)
    return ", ".join(f"{v:+.{digits}f}" + ("" if s is None else f" ± {s:.{digits}f}") for v, s in shown)
