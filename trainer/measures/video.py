"""Measure how steady a stream is where things move: optical flow of the sources explains the change, or it does not.

The measures are those of TemCoCo and VF-Bench by name and idea; this is code of its own, with OpenCV's DIS flow
(Kroeger et al., ECCV 2016, preset medium) instead of a network's. Compare values only with values of the same command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from rtfuse.types import Image

Flow = npt.NDArray[np.float32]
"""(H, W, 2) px: a pixel at (x, y) of the later picture was at (x, y) + flow in the other."""
_AGREE_PX = 1.0
_MOVES_PX = 1.0
_SHARPEST = 90


class Steadiness(msgspec.Struct, frozen=True):
    """Means over all frames of one stream; lower is steadier. NaN with too few frames, or where nothing moves.

    - `flowD`: mean difference between a frame and the one before, warped by the flow of RGB, in grey levels.
    - `BiSWE`: the same to both neighbours, where the flows forward and backward agree within 1 px in both sources.
    - `MS2R`: mean distance of the stream's own flow from that of RGB and of thermal (mean of both), in px.
    - `trailing`: sharpness of moving edges over that of the same frame fused alone; 1: nothing trails. NaN for streams
      that are not derived from another.
    """

    flowD: float
    BiSWE: float
    MS2R: float
    trailing: float


@dataclass(slots=True)
class _Sums:
    flow_d: list[float] = field(default_factory=list)
    bi_swe: list[float] = field(default_factory=list)
    ms2r: list[float] = field(default_factory=list)
    sharp: list[tuple[float, float]] = field(default_factory=list)


class VideoMeter:
    """Measures several streams of one scene at once: `rgb`, `thermal`, and the fused ones."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._last: dict[str, Image] = {}
        self._before: dict[str, Image] = {}
        self._trusted: tuple[Flow, npt.NDArray[np.bool_]] | None = None
        self._sums: dict[str, _Sums] = {}

    def add(self, ir: Image, luma: Image, fused: Mapping[str, Image], single: Mapping[str, str] | None = None) -> None:
        """Take the next frame of all streams, (H, W) uint8 each.

        `single` names, for a steadied stream, the stream of the same frames fused alone.
        """
        now = {"rgb": luma, "thermal": ir, **fused}
        if self._last:
            self._step(now, single or {})
        self._before, self._last = self._last, now

    def _step(self, now: Mapping[str, Image], single: Mapping[str, str]) -> None:
        last = self._last
        back = {name: self._flow(now[name], last[name]) for name in now}
        ahead = {name: self._flow(last[name], now[name]) for name in ("rgb", "thermal")}
        here, there = _inside(back["rgb"]), _agree(ahead, back) & _inside(ahead["rgb"])
        moves = np.maximum(*(np.hypot(back[n][..., 0], back[n][..., 1]) for n in ("rgb", "thermal"))) > _MOVES_PX
        for name, image in now.items():
            sums = self._sums.setdefault(name, _Sums())
            _note(sums.flow_d, cv2.absdiff(image, _warped(last[name], back["rgb"])), here)
            away = [np.hypot(*np.moveaxis(back[name] - back[source], -1, 0)) for source in ("rgb", "thermal")]
            sums.ms2r.append(float(np.mean(away)))
            if self._trusted is not None:
                to_before, good = self._trusted
                good = good & there
                both = (
                    cv2.absdiff(last[name], _warped(self._before[name], to_before)).astype(np.float32)
                    + cv2.absdiff(last[name], _warped(image, ahead["rgb"]))
                ) / 2
                _note(sums.bi_swe, both, good)
            if name in single and (pair := _sharpness(image, now[single[name]], moves)) is not None:
                sums.sharp.append(pair)
        self._trusted = back["rgb"], _agree(back, ahead) & here

    def _flow(self, later: Image, earlier: Image) -> Flow:
        return self._dis.calc(later, earlier, None)

    def result(self) -> dict[str, Steadiness]:
        """Return the values of each stream until now."""
        return {
            name: Steadiness(
                _mean(s.flow_d),
                _mean(s.bi_swe),
                _mean(s.ms2r),
                sum(a for a, _ in s.sharp) / max(sum(b for _, b in s.sharp), 1e-9) if s.sharp else float("nan"),
            )
            for name, s in self._sums.items()
        }


def ratios(result: Mapping[str, Steadiness]) -> dict[str, dict[str, float]]:
    """Return each fused stream's flowD, BiSWE and MS2R over those of the worse source; at most 1 is steady."""
    worse = {m: max(getattr(result[s], m) for s in ("rgb", "thermal")) for m in ("flowD", "BiSWE", "MS2R")}
    return {
        name: {m: getattr(row, m) / value if value > 0 else float("nan") for m, value in worse.items()}
        for name, row in result.items()
        if name not in ("rgb", "thermal")
    }


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _note(values: list[float], difference: Image, where: npt.NDArray[np.bool_]) -> None:
    if where.any():
        values.append(float(difference[where].mean()))


def _grid(flow: Flow) -> tuple[Flow, Flow]:
    h, w = flow.shape[:2]
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    return x + flow[..., 0], y + flow[..., 1]


def _inside(flow: Flow) -> npt.NDArray[np.bool_]:
    x, y = _grid(flow)
    return (x >= 0) & (y >= 0) & (x <= flow.shape[1] - 1) & (y <= flow.shape[0] - 1)


def _warped(image: Image | Flow, flow: Flow) -> Image:
    return cv2.remap(image, *_grid(flow), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _agree(one: Mapping[str, Flow], other: Mapping[str, Flow]) -> npt.NDArray[np.bool_]:
    """Return True where a way forth and back ends within 1 px of its start, by the flow of each source."""
    good = []
    for name in ("rgb", "thermal"):
        error = one[name] + _warped(other[name], one[name])
        good.append(np.hypot(error[..., 0], error[..., 1]) <= _AGREE_PX)
    return good[0] & good[1]


def _sharpness(steady: Image, single: Image, moves: npt.NDArray[np.bool_]) -> tuple[float, float] | None:
    """Return the summed gradients of both pictures at the sharpest tenth of the moving pixels of `single`."""
    if not moves.any():
        return None
    gradients = [
        cv2.magnitude(*(cv2.Sobel(x, cv2.CV_32F, *d, ksize=3) for d in ((1, 0), (0, 1)))) for x in (steady, single)
    ]
    edges = moves & (gradients[1] >= max(float(np.percentile(gradients[1][moves], _SHARPEST)), 1.0))
    return (float(gradients[0][edges].sum()), float(gradients[1][edges].sum())) if edges.any() else None
