"""Choose the views of a board to keep: sharp, at rest, and as different from each other as possible."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from calib.boards import Finding, find_board
from calib.footage import Moment, is_colourless
from calib.session import NAMES, BoardPoints
from calib.targets import Board
from rtfuse.pipeline.queues import STREAMS
from rtfuse.types import Image, Stream

_STILL = 2.5e-3
"""Largest motion of a board at rest between two moments, as a part of the image's width: 1.6 px at 640."""
_NEW = 0.12
"""Least difference of a new view from every other one."""
_SHARPER = 1.15
_REGIONS = (("top", "middle", "bottom"), ("left", "centre", "right"))
_TILTED = 0.06


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """View that is kept.

    `moment`: its frames.
    `found`: the board in each picture.
    `place`: position, size, turn and tilts of the board in both pictures, (12,) or (6,).
    `rest`: number of the period of rest in which it was seen.
    """

    moment: Moment
    found: dict[Stream, Finding]
    place: Image
    rest: int

    @property
    def sharpness(self) -> float:
        """The sharpness of the less sharp picture."""
        return min(f.sharpness for f in self.found.values())


@dataclass(slots=True)
class Chooser:
    """Searches moment after moment and keeps the best views.

    `board`: the board.
    `limit`: largest number of views.
    `still`: keep views of a board at rest only.
    `kept`: the kept views.
    `seen`: number of moments with the board, by stream.
    `looked`: number of moments searched.
    `colourless`: number of moments with an RGB picture without colour.
    """

    board: Board
    limit: int = 40
    still: bool = True
    kept: list[Kept] = field(default_factory=list)
    seen: dict[Stream, int] = field(default_factory=lambda: {"ir": 0, "rgb": 0})
    looked: int = 0
    colourless: int = 0
    _before: dict[Stream, Finding] = field(default_factory=dict)
    _resting: dict[Stream, list[Finding]] = field(default_factory=dict)
    _rest: int = 0

    def look(self, moment: Moment) -> dict[Stream, Finding]:
        """Search a moment's pictures for the board, keep the view if it is useful, and return the board by stream."""
        self.looked += 1
        found: dict[Stream, Finding] = {}
        for stream in STREAMS:
            frame = moment.frame(stream)
            finding = None if frame is None else find_board(frame.image, self.board)
            if finding is not None:
                found[stream] = finding
                self.seen[stream] += 1
        if moment.rgb is not None and is_colourless(moment.rgb.image):
            self.colourless += 1
        wanted = [s for s in STREAMS if moment.frame(s) is not None]
        at_rest = not self.still or all(_at_rest(f, self._before.get(s), moment, s) for s, f in found.items())
        if not (self.still and at_rest) or found.keys() != self._resting.keys():
            self._rest, self._resting = self._rest + 1, {s: [f] for s, f in found.items()}
        else:
            for s, f in found.items():
                self._resting[s].append(f)
        if found and at_rest:
            found = {s: _mean(self._resting[s]) for s in found}
            place = np.concatenate([_place(found, s, moment, self.board) for s in wanted])
            self._consider(Kept(moment, found, place, self._rest))
        self._before = found
        return found

    def _consider(self, view: Kept) -> None:
        """Keep a view that differs from all others or improves on a similar one; above the limit, drop a common one."""
        far = [_difference(view, other) for other in self.kept]
        if far and min(far) < _NEW:
            like = int(np.argmin(far))
            old = self.kept[like]
            more = len(view.found) - len(old.found)
            longer = view.rest == old.rest  # a mean over more moments
            if more > 0 or longer or (more == 0 and view.sharpness > _SHARPER * old.sharpness):
                self.kept[like] = view
            return
        self.kept.append(view)
        if len(self.kept) > self.limit:
            pairs = np.array([[_difference(a, b) if a is not b else np.inf for b in self.kept] for a in self.kept])
            crowded = list(np.unravel_index(int(pairs.argmin()), pairs.shape))
            value = [(len(self.kept[k].found), self.kept[k].sharpness) for k in crowded]
            del self.kept[int(crowded[0] if value[0] < value[1] else crowded[1])]

    def coverage(self, stream: Stream, size_wh: tuple[int, int]) -> Image:
        """Return the number of kept views in each ninth of the image, (3, 3) int."""
        counts = np.zeros((3, 3), int)
        for view in self.kept:
            if stream in view.found:
                cells = np.clip(view.found[stream].pixels / size_wh * 3, 0, 2.999).astype(int)
                for x, y in np.unique(cells, axis=0):
                    counts[y, x] += 1
        return counts

    def lacks(self, stream: Stream, size_wh: tuple[int, int]) -> list[str]:
        """Return the views still missing, as advice for the person who holds the board; empty if none are."""
        views = [v for v in self.kept if stream in v.found]
        counts = self.coverage(stream, size_wh)
        missing = [f"{_REGIONS[0][y]} {_REGIONS[1][x]}" for y, x in np.argwhere(counts == 0)]
        advice = [f"the board in the {', '.join(missing)} of the {NAMES[stream]} image"] if missing else []
        tilts = np.array([_tilt(v.found[stream], self.board) for v in views]).reshape(-1, 2)
        for axis, words in ((0, "with its left or right edge nearer"), (1, "with its upper or lower edge nearer")):
            if not len(tilts) or np.abs(tilts[:, axis]).max() < _TILTED:
                advice.append(f"the board turned, {words} ({NAMES[stream]})")
        if len(views) < 15:
            advice.append(f"{15 - len(views)} more views ({NAMES[stream]})")
        return advice


def points_of(finding: Finding) -> BoardPoints:
    """Return a finding in the form of a session."""
    pixels = tuple((float(x), float(y)) for x, y in finding.pixels)
    return BoardPoints(tuple(int(i) for i in finding.ids), pixels, float(finding.sharpness), float(finding.ratio))


def _mean(findings: list[Finding]) -> Finding:
    """Return the last finding with the mean positions of all findings that have the same points."""
    last = findings[-1]
    alike = [f.pixels for f in findings if np.array_equal(f.ids, last.ids)]
    return replace(last, pixels=np.mean(alike, axis=0))


def _at_rest(found: Finding, before: Finding | None, moment: Moment, stream: Stream) -> bool:
    if before is None:
        return False
    _, now, then = np.intersect1d(found.ids, before.ids, return_indices=True)
    frame = moment.frame(stream)
    assert frame is not None
    moved = np.linalg.norm(found.pixels[now] - before.pixels[then], axis=1) if len(now) else np.array([np.inf])
    return bool(np.median(moved) < _STILL * frame.shape_hw[1])


def _place(found: dict[Stream, Finding], stream: Stream, moment: Moment, board: Board) -> Image:
    """Return the board's place in a picture, (6,): centre (x, y), size, turn and two tilts; NaN without the board."""
    finding, frame = found.get(stream), moment.frame(stream)
    if finding is None or frame is None:
        return np.full(6, np.nan)
    w = frame.shape_hw[1]
    middle, size = (
        finding.pixels.mean(0) / w,
        np.sqrt(cv2.contourArea(cv2.convexHull(finding.pixels.astype(np.float32)))) / w,
    )
    along = finding.pixels[-1] - finding.pixels[0]
    return np.array([*middle, size, 0.5 * np.arctan2(along[1], along[0]), *(1.5 * _tilt(finding, board))])


def _tilt(finding: Finding, board: Board) -> Image:
    """Return the tilt of the board, (2,): nearness of right against left and of bottom against top; 0 is frontal."""
    points = board.points[finding.ids][:, :2]
    low, high = points.min(0), points.max(0)
    unit = (2 * points - low - high) / np.maximum(high - low, 1e-9).max()
    H, _ = cv2.findHomography(unit, finding.pixels)
    return np.zeros(2) if H is None else -np.asarray(H[2, :2] / H[2, 2])


def _difference(a: Kept, b: Kept) -> float:
    """Return the distance between the places of two views, over the streams that both have."""
    apart = np.abs(a.place - b.place)
    return float(np.linalg.norm(apart[np.isfinite(apart)])) if np.isfinite(apart).any() else np.inf
