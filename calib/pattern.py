"""Draw a board to print at true size, as SVG or PDF, with advice for thermal cameras."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np

from calib.targets import Board, describe
from rtfuse.errors import ConfigError
from rtfuse.outputs import write_whole

SUFFIXES = (".svg", ".pdf")
PAPERS_MM = {
    "A4": (210.0, 297.0),
    "A3": (297.0, 420.0),
    "A2": (420.0, 594.0),
    "A1": (594.0, 841.0),
    "A0": (841.0, 1189.0),
    "letter": (215.9, 279.4),
    "tabloid": (279.4, 431.8),
}
_EDGE_MM = 8.0
_TEXT_MM = 26.0
"""Height of the strip under the board for ruler and instructions."""
_DISC = {"circles": 0.6, "acircles": 0.8}
"""Default diameter of discs as a part of the spacing."""
_HOW = (
    "Print at 100 % on matt paper; the ruler must be 100 mm long. Glue the print flat onto foam or aluminium board.",
    "Thermal: ink and paper look alike at one temperature. Hold the board in the sun or under a heat lamp:",
    "dark ink stays warmer for some minutes. Or cut the dark parts out of a plate and hold it before a warm surface.",
    "Keep the board still for half a second at a time, whole in both pictures, everywhere, near and far, tilted.",
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Black rectangle, or a black disc inside it, in mm from the top left of the drawing."""

    x: float
    y: float
    w: float
    h: float
    disc: bool = False


def shapes(board: Board) -> tuple[list[Shape], tuple[float, float]]:
    """Return the black shapes of a board, and the width and height of the drawing in mm."""
    s = 1000 * board.spacing_m
    if board.discs:
        d = disc_mm(board)
        at = board.cells * s + s
        found = [Shape(float(x) - d / 2, float(y) - d / 2, d, d, disc=True) for x, y in at]
        w, h = at.max(0) + s
        return found, (float(w), float(h))
    if board.kind == "checkerboard":
        squares = [(i, j) for j in range(board.rows + 1) for i in range(board.cols + 1) if (i + j) % 2 == 0]
        return [Shape(i * s, j * s, s, s) for i, j in squares], ((board.cols + 1) * s, (board.rows + 1) * s)
    return list(_charuco(board)), (board.cols * s, board.rows * s)


def disc_mm(board: Board) -> float:
    """Return the drawn diameter of the discs, in mm."""
    return 1000 * (board.diameter_m or _DISC[board.kind] * board.spacing_m)


def _charuco(board: Board) -> Iterator[Shape]:
    """Yield the squares without a marker, and the black cells of the markers."""
    drawn, s = board.charuco(), 1000 * board.spacing_m
    dictionary = drawn.getDictionary()
    side = dictionary.markerSize + 2
    taken = set()
    for found, name in zip(drawn.getObjPoints(), np.ravel(drawn.getIds()), strict=True):
        corners = np.asarray(found)
        x, y = 1000 * corners[:, :2].min(0)
        taken.add((int(x // s), int(y // s)))
        cell = 1000 * float(np.ptp(corners[:, 0])) / side
        picture = cv2.aruco.generateImageMarker(dictionary, int(name), side)
        for row, column in np.argwhere(picture == 0):
            yield Shape(float(x) + column * cell, float(y) + row * cell, cell, cell)
    for j in range(board.rows):
        for i in range(board.cols):
            if (i, j) not in taken:
                yield Shape(i * s, j * s, s, s)


def write_pattern(board: Board, path: Path, *, paper: str = "A4") -> None:
    """Write a board as `.svg` or `.pdf`, one page at true size, in portrait if it fits, otherwise in landscape.

    Raises ConfigError if the board does not fit the paper, or paper or suffix are unknown, or OutputUnwritable.
    """
    paper = next((name for name in PAPERS_MM if name.lower() == paper.lower()), paper)
    if paper not in PAPERS_MM:
        raise ConfigError(f"paper {paper} is unknown; choose from {', '.join(PAPERS_MM)}")
    drawn, size = shapes(board)
    need = (size[0] + 2 * _EDGE_MM, size[1] + 2 * _EDGE_MM + _TEXT_MM)
    short, long = PAPERS_MM[paper]
    page = next((p for p in ((short, long), (long, short)) if need[0] <= p[0] and need[1] <= p[1]), None)
    if page is None:
        fits = [n for n, (a, b) in PAPERS_MM.items() if any(need[0] <= w and need[1] <= h for w, h in ((a, b), (b, a)))]
        raise ConfigError(
            f"{describe(board)} with margin and text needs {need[0]:.0f} x {need[1]:.0f} mm, but {paper} has "
            f"{short:.0f} x {long:.0f}; {'take --paper ' + fits[0] if fits else 'choose a smaller board'}"
        )
    left, top = (page[0] - size[0]) / 2, _EDGE_MM
    placed = [Shape(s.x + left, s.y + top, s.w, s.h, s.disc) for s in drawn]
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path} has an unknown suffix; choose a name that ends in {' or '.join(SUFFIXES)}")
    drawing = _svg if path.suffix.lower() == ".svg" else _pdf
    write_whole(path, drawing(board, placed, page, top + size[1] + 5))


def _ruler(page: tuple[float, float], y: float) -> list[Shape]:
    """Return a ruler of 100 mm with a mark every 10 mm, as thin rectangles."""
    x = (page[0] - 100) / 2
    marks = [Shape(x + 10 * k - 0.1, y, 0.2, 3.0 if k % 5 == 0 else 2.0) for k in range(11)]
    return [Shape(x, y, 100, 0.2), *marks]


def _svg(board: Board, placed: list[Shape], page: tuple[float, float], below: float) -> bytes:
    w, h = page
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w:g}mm" height="{h:g}mm" viewBox="0 0 {w:g} {h:g}">',
        f'<title>{escape(describe(board))}</title><rect width="{w:g}" height="{h:g}" fill="#fff"/><g id="board">',
    ]
    for s in placed:
        if s.disc:
            parts.append(f'<circle cx="{s.x + s.w / 2:.4f}" cy="{s.y + s.h / 2:.4f}" r="{s.w / 2:.4f}"/>')
        else:
            parts.append(f'<rect x="{s.x:.4f}" y="{s.y:.4f}" width="{s.w:.4f}" height="{s.h:.4f}"/>')
    parts.append('</g><g id="ruler">')
    parts += [f'<rect x="{s.x:.3f}" y="{s.y:.3f}" width="{s.w:g}" height="{s.h:g}"/>' for s in _ruler(page, below)]
    parts.append('</g><g font-family="Helvetica, Arial, sans-serif" font-size="2.7" text-anchor="middle">')
    for k, line in enumerate((f"{describe(board)}   |   ruler: 100 mm", *_HOW)):
        parts.append(f'<text x="{w / 2:g}" y="{below + 6.5 + 3.6 * k:.2f}">{escape(line)}</text>')
    return "\n".join([*parts, "</g></svg>\n"]).encode()


def _pdf(board: Board, placed: list[Shape], page: tuple[float, float], below: float) -> bytes:
    """Return a PDF of one page: catalogue, page, font, one stream of drawing, and the table of their offsets."""
    pt = 72 / 25.4
    w, h = page[0] * pt, page[1] * pt
    lines = ["0 g"]
    for s in [*placed, *_ruler(page, below)]:
        x, y, sw, sh = s.x * pt, h - (s.y + s.h) * pt, s.w * pt, s.h * pt
        lines.append(_pdf_disc(x + sw / 2, y + sh / 2, sw / 2) if s.disc else f"{x:.4f} {y:.4f} {sw:.4f} {sh:.4f} re f")
    for k, line in enumerate((f"{describe(board)}   |   ruler: 100 mm", *_HOW)):
        size = 2.7 * pt
        x, y = w / 2 - 0.235 * size * len(line), h - (below + 6.5 + 3.6 * k) * pt
        text = line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        lines.append(f"BT /F1 {size:.2f} Tf {x:.2f} {y:.2f} Td ({text}) Tj ET")
    stream = "\n".join(lines).encode("ascii")
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {w:.3f} {h:.3f}] /Contents 5 0 R "
        "/Resources << /Font << /F1 4 0 R >> >> >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    data, offsets = b"%PDF-1.4\n", []
    for k, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (k, body)
    table = b"".join(b"%010d 00000 n \n" % o for o in offsets)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    return data + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)


def _pdf_disc(x: float, y: float, r: float) -> str:
    """Return a disc as four cubic Bézier curves, which differ from a circle by 0.03 % of the radius."""
    k = 0.5522848 * r
    return (
        f"{x + r:.4f} {y:.4f} m {x + r:.4f} {y + k:.4f} {x + k:.4f} {y + r:.4f} {x:.4f} {y + r:.4f} c "
        f"{x - k:.4f} {y + r:.4f} {x - r:.4f} {y + k:.4f} {x - r:.4f} {y:.4f} c "
        f"{x - r:.4f} {y - k:.4f} {x - k:.4f} {y - r:.4f} {x:.4f} {y - r:.4f} c "
        f"{x + k:.4f} {y - r:.4f} {x + r:.4f} {y - k:.4f} {x + r:.4f} {y:.4f} c f"
    )
