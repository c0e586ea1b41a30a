"""Measure the constant time offset between the two cameras, from footage with motion.

If the rig moves, both pictures move together. The motion of each stream is the one that most of its points agree on.
At the right offset, RGB's motion over the frame periods of the thermal camera predicts thermal's motion best. If the
rig stands still, the rate of change of the whole picture takes the place of its motion. The jackknife over pieces of
the footage gives the uncertainty (Efron, 1982).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from calib.footage import as_grey
from rtfuse.errors import CalibrationError
from rtfuse.types import Frame, Image

_WIDTH = 640
_SLOW_S = 0.6
_CROSSING_MS = 4.0
"""Uncertainty of an offset from changes: an object enters the two pictures at different moments."""
_PIECES = 8
_MIN_FRAMES = 60
_MIN_FIT = 0.25
"""Least share of thermal's motion that RGB's motion must explain."""
_MAX_STD_MS = 10.0


@dataclass(frozen=True, slots=True)
class Offset:
    """Measured time offset.

    `ms`: offset to add to the thermal camera's times.
    `std_ms`: its standard deviation.
    `fit`: share of thermal's motion that RGB's motion explains at this offset, 0 to 1.
    `by`: the moving part.
    `curve`: the fit at each tried offset in ms, (K, 2).
    """

    ms: float
    std_ms: float
    fit: float
    by: Literal["the rig", "things in the picture"]
    curve: Image


class Track:
    """Motion of one stream over time.

    `t_s`: times of the frames in seconds.
    `moves`: motion since the previous frame, (dx, dy, turn): shift of the centre as a part of the width, turn in
    radians.
    `changes`: mean absolute change since the previous frame, in grey levels.
    """

    def __init__(self) -> None:
        self.t_s: list[float] = []
        self.moves: list[Image] = []
        self.changes: list[float] = []
        self._last: Image | None = None

    def add(self, frame: Frame) -> None:
        """Add the next frame; ignore a repeated one (a shutter event)."""
        grey = _smooth(frame.image)
        if self._last is not None:
            if np.array_equal(grey, self._last):
                return
            self.moves.append(_move(self._last, grey))
            self.changes.append(float(cv2.absdiff(grey, self._last).mean()))
        self.t_s.append(frame.t_ns / 1e9)
        self._last = grey


def _smooth(image: Image) -> Image:
    """Return a picture as smooth, stretched grey, (h, w) uint8, at most about `_WIDTH` wide."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else as_grey(image)
    h, w = grey.shape
    if w > 1.5 * _WIDTH:
        grey = cv2.resize(grey, (_WIDTH, max(16, round(h * _WIDTH / w))), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), 1.5))


def _move(before: Image, after: Image) -> Image:
    """Return the motion (dx, dy, turn) that most points of a picture agree on, by the flow of Lucas and Kanade."""
    h, w = before.shape
    points = cv2.goodFeaturesToTrack(before, 300, 0.003, w / 60, blockSize=7)
    if points is None or len(points) < 8:
        return np.zeros(3)
    points = points.reshape(-1, 1, 2)
    to, ok, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None, winSize=(21, 21), maxLevel=3)
    good = ok.ravel() == 1
    if good.sum() < 8:
        return np.zeros(3)
    A, _ = cv2.estimateAffinePartial2D(points[good], to.reshape(-1, 1, 2)[good], ransacReprojThreshold=0.5 * w / 640)
    if A is None:
        return np.zeros(3)
    middle = np.array([w / 2, h / 2])
    shift = (A[:, :2] @ middle + A[:, 2] - middle) / w
    return np.array([*shift, np.arctan2(A[1, 0], A[0, 0])])


def within(frames: Iterable[Frame], duration_s: float) -> Iterator[Frame]:
    """Yield the frames of the first `duration_s`."""
    first: int | None = None
    for frame in frames:
        first = frame.t_ns if first is None else first
        if frame.t_ns - first > duration_s * 1e9:
            return
        yield frame


def time_offset(ir: Iterable[Frame], rgb: Iterable[Frame], *, limit_ms: float = 300.0) -> Offset:
    """Return the offset to add to the thermal camera's times.

    `limit_ms`: largest offset to search, in ms.

    Raises CalibrationError if the footage is too short, has too little motion, or the streams do not agree.
    """
    tracks = []
    for name, frames in (("thermal", ir), ("RGB", rgb)):
        track = Track()
        for frame in frames:
            track.add(frame)
        if len(track.moves) < _MIN_FRAMES:
            raise CalibrationError(
                f"the {name} stream has {len(track.moves) + 1} different frames, at least {_MIN_FRAMES} are needed; "
                "record ten seconds or more"
            )
        tracks.append(track)
    found = [way(tracks[0], tracks[1], limit_ms / 1e3) for way in (_by_motion, _by_change)]
    usable = [o for o in found if o.fit >= _MIN_FIT and o.std_ms <= _MAX_STD_MS and abs(o.ms) < 0.98 * limit_ms]
    if not usable:
        best = max(found, key=lambda o: o.fit)
        why = (
            f"RGB's motion explains {100 * best.fit:.0f} % of thermal's, at least {100 * _MIN_FIT:.0f} % are needed"
            if best.fit < _MIN_FIT
            else f"{best.ms:+.0f} ± {best.std_ms:.0f} ms, at most ± {_MAX_STD_MS:.0f} within {limit_ms:.0f} is allowed"
        )
        raise CalibrationError(
            f"this footage does not show the offset ({why}); turn the rig back and forth by hand for ten seconds, "
            "before a scene with edges"
        )
    return min(usable, key=lambda o: o.std_ms)


def _by_motion(ir: Track, rgb: Track, limit_s: float) -> Offset:
    """Return the offset from the motion of the whole picture.

    The shift is one complex number, so the cameras may be turned against each other.
    """
    parts = [(m[:, :1] + 1j * m[:, 1:2], m[:, 2:] + 0j) for m in (np.array(ir.moves), np.array(rgb.moves))]
    return _best(ir, rgb, list(zip(*parts, strict=True)), limit_s, "the rig")


def _by_change(ir: Track, rgb: Track, limit_s: float) -> Offset:
    """Return the offset from the rate of change of the whole picture, without its slow drift."""
    a, b = (_quick(t) for t in (ir, rgb))
    offset = _best(ir, rgb, [(a, b)], limit_s, "things in the picture")
    return replace(offset, std_ms=float(np.hypot(offset.std_ms, _CROSSING_MS)))


def _quick(track: Track) -> Image:
    """Return the changes of a stream above their median and without slow parts, (K, 1)."""
    change = np.array(track.changes)
    x = np.sqrt(np.maximum(change - np.median(change), 0))[:, None]
    window = max(3, round(_SLOW_S / float(np.median(np.diff(track.t_s)))) | 1)
    return np.asarray(x - cv2.blur(x, (1, window)) + 0j)


def _best(
    ir: Track,
    rgb: Track,
    signals: Sequence[tuple[Image, Image]],
    limit_s: float,
    by: Literal["the rig", "things in the picture"],
) -> Offset:
    """Return the offset at which RGB's signals, summed over thermal's frame periods, explain thermal's signals best."""
    t_ir, t_rgb = np.array(ir.t_s), np.array(rgb.t_s)
    splines = [_Spline(t_rgb, np.concatenate([np.zeros((1, b.shape[1])), np.cumsum(b, 0)])) for _, b in signals]
    pieces = np.arange(len(t_ir) - 1) * _PIECES // (len(t_ir) - 1)
    step = 0.25 * min(float(np.median(np.diff(t))) for t in (t_ir, t_rgb))

    def moments(tau_s: float) -> Image:
        return np.stack([_moments(t_ir + tau_s, a, b, pieces) for (a, _), b in zip(signals, splines, strict=True)])

    coarse = np.arange(-limit_s, limit_s + step, step)
    sums = [moments(tau).sum(1) for tau in coarse]
    at = coarse[int(np.argmax([_likelihood(s) for s in sums]))]
    fine = np.arange(at - 2 * step, at + 2 * step, 0.0005)
    close = [moments(tau) for tau in fine]
    whole = _peak(fine, [_likelihood(m.sum(1)) for m in close])
    without = [_peak(fine, [_likelihood(m.sum(1) - m[:, k]) for m in close]) for k in range(_PIECES)]
    std = float(np.sqrt((_PIECES - 1) / _PIECES * np.sum((np.array(without) - np.mean(without)) ** 2)))
    fits = np.array([_explained(s[0]) for s in sums])
    return Offset(1000 * whole, 1000 * std, float(fits.max()), by, np.stack([1000 * coarse, fits], 1))


def _moments(times: Image, a: Image, b: _Spline, pieces: Image) -> Image:
    """Return the sums of |a|², a p* and |p|² for each piece of the footage, (pieces, 3); p is RGB's prediction."""
    inside = (times[:-1] >= b.t[0]) & (times[1:] <= b.t[-1])
    predicted, found = np.diff(b(np.clip(times, b.t[0], b.t[-1])), axis=0)[inside], a[inside]
    sums = np.zeros((_PIECES, 3), complex)
    for k, x in enumerate((found * found.conj(), found * predicted.conj(), predicted * predicted.conj())):
        np.add.at(sums[:, k], pieces[inside], x.sum(1))
    return sums


def _explained(sums: Image) -> float:
    """Return the share of thermal's signal that a multiple of the prediction explains, 0 to 1."""
    aa, ab, bb = sums
    return float(min(abs(ab) ** 2 / max(abs(aa) * abs(bb), 1e-30), 1 - 1e-9)) if ab.real > 0 else 0.0


def _likelihood(sums: Image) -> float:
    """Return the logarithmic likelihood of an offset from the sums of each signal."""
    return -sum(float(np.log(1 - _explained(s))) for s in sums)


def _peak(x: Image, y: Sequence[float]) -> float:
    """Return the position of the top of the parabola through the highest point and its neighbours."""
    k = int(np.clip(np.argmax(y), 1, len(y) - 2))
    below, top, above = y[k - 1 : k + 2]
    bend = below - 2 * top + above
    return float(x[k] + (0.5 * (below - above) / bend if bend < 0 else 0.0) * (x[1] - x[0]))


class _Spline:
    """Cubic spline through points (K, C) at times (K,), with Catmull-Rom tangents for uneven steps."""

    def __init__(self, t: Image, y: Image) -> None:
        self.t, self._y, self._slope = t, y, np.gradient(y, t, axis=0)

    def __call__(self, t: Image) -> Image:
        k = np.clip(np.searchsorted(self.t, t, side="right") - 1, 0, len(self.t) - 2)
        h = (self.t[k + 1] - self.t[k])[:, None]
        u = (t[:, None] - self.t[k][:, None]) / h
        a, b, da, db = self._y[k], self._y[k + 1], self._slope[k] * h, self._slope[k + 1] * h
        return np.asarray(a + u * (da + u * (3 * (b - a) - 2 * da - db + u * (2 * (a - b) + da + db))))
