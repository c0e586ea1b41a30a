"""`trainer eval`: measure methods over a set of pairs, with intervals, published rows and a contact sheet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

import cv2
import msgspec
import numpy as np
from torch import nn

from rtfuse.capture import open_source
from rtfuse.capture.stills import is_stills
from rtfuse.errors import ConfigError
from rtfuse.fuse.deflicker import Deflicker
from rtfuse.fuse.engines.eager import EagerEngine
from rtfuse.fuse.luma_fuser import luma, with_luma
from rtfuse.fuse.raw_fuser import RawFuser
from rtfuse.types import Frame, Image
from trainer.measures.artefacts import Artefacts, look
from trainer.measures.video import Steadiness, VideoMeter
from trainer.metrics import SMALLEST_PX, Flicker, Scores, measure, stretched
from trainer.pairs import SAME, Pairs, Registered, Survey, by_name

FuseLuma = Callable[[Image, Image], Image]


def by_network(weights: Path | nn.Module) -> FuseLuma:
    """Return a function that fuses thermal and luma, (H, W) uint8 each, by the network as published, in eager torch."""
    fuser = RawFuser("ufuser", EagerEngine(weights))

    def fuse(ir: Image, luma: Image) -> Image:
        fused: Image = fuser(ir, cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB))[..., 0]
        return fused

    return fuse


MEASURES = [f.name for f in msgspec.structs.fields(Scores)]


@dataclass(frozen=True, slots=True)
class Result:
    """Scores and artefacts by method and pair name, and the survey of the pairs.

    For recordings also, by method, the flicker of the fused images, and `shown` after `rtfuse.fuse.deflicker`;
    `steadiness` by stream: `rgb`, `thermal`, each method, and `METHOD steady` after that stage.
    """

    scores: dict[str, dict[str, Scores]]
    survey: Survey
    flicker: dict[str, float] = field(default_factory=dict)
    shown: dict[str, float] = field(default_factory=dict)
    artefacts: dict[str, dict[str, Artefacts]] = field(default_factory=dict)
    steadiness: dict[str, Steadiness] = field(default_factory=dict)

    def mean(self, method: str, name: str) -> tuple[float, float]:
        """Return the mean of a measure and the half-width of its 95 % interval (1.96 standard errors)."""
        values = [getattr(s, name) for s in self.scores[method].values()]
        half = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        return float(np.mean(values)), half

    def artefact(self, method: str, name: str) -> float:
        """Return the mean of an artefact over the pairs that have it; NaN if none has."""
        values = np.array([getattr(a, name) for a in self.artefacts[method].values()])
        return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else float("nan")


class Watcher(Protocol):
    """Looks at each pair with its fused images, such as `trainer.measures.detection.Detection`."""

    def add(self, name: str, ir: Image, rgb: Image, fused: Mapping[str, Image], /) -> None: ...


_WORKERS = 2


def method_name(folder: Path) -> str:
    """Name a folder of fused images: `METHOD/dataset` or `METHOD` by its last two parts."""
    return "/".join(folder.resolve().parts[-2:])


def are_pictures(uri: str) -> bool:
    """Return True for folders, patterns and image files; False for recordings."""
    return not uri.startswith("synthetic:") and is_stills(uri)


def read_grey(path: str | Path) -> Image | None:
    """Read a picture as the evaluator of the papers does, (H, W) uint8; None if it cannot be read.

    It converts colours in float32 and rounds. `rtfuse.fuse.luma_fuser` computes in integers, and thermal in a colour
    JPEG is the luma that is stored: single pixels differ by a grey level or two.
    """
    try:
        bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None
    if bgr is None:
        return None
    return np.rint(cv2.cvtColor(bgr.astype(np.float32), cv2.COLOR_BGR2GRAY)).astype(np.uint8)


def evaluate(
    ir: str,
    rgb: str,
    folders: Mapping[str, Path],
    fusers: Mapping[str, FuseLuma],
    *,
    calib: str | None = None,
    only: set[str] | None = None,
    paper: bool = False,
    watchers: Sequence[Watcher] = (),
) -> Result:
    """Measure stored images (`folders`) and running fusers on the pairs of two folders.

    `only` limits the pairs to these names. `watchers` see each pair as well. `paper` stretches every fused image to
    its own minimum and maximum first, as the published tables did. Raises ConfigError if no pair is left, and what
    `Pairs` raises.
    """
    pairs = Pairs(ir, rgb, calib, only=None if only is None else only.__contains__)
    stored = {method: by_name(folder, pairs.names) for method, folder in folders.items()}
    scores: dict[str, dict[str, Scores]] = {m: {} for m in (*fusers, *folders)}
    artefacts: dict[str, dict[str, Artefacts]] = {m: {} for m in scores}
    for name in sorted((only or set()) - set(pairs.names)):
        pairs.survey.note("listed name without a pair", name)
    waiting = deque[Waiting]()
    with ProcessPoolExecutor(_WORKERS) as pool:
        for pair, i, v in _measurable(pairs):
            whole: dict[str, Image] = {}
            for method, image in _fused(pair, stored, fusers):
                if image is None or image.shape != v.shape:
                    lacks = "of this name" if image is None else "of the pair's size"
                    pairs.survey.note(f"no fused image {lacks}", f"{method}: {pair.name}")
                    continue
                whole[method] = image
                colours = _colours(pair, image, stored.get(method, {}).get(pair.name))
                shown = stretched(image) if paper else image
                waiting.append((method, pair.name, pool.submit(_measured, shown, i, v, colours)))
            for watcher in watchers:
                watcher.add(pair.name, i, pair.rgb, whole)
            while len(waiting) > 4 * _WORKERS:
                _take(waiting, scores, artefacts)
        while waiting:
            _take(waiting, scores, artefacts)
    scores = {m: s for m, s in scores.items() if s}
    if not scores:
        raise ConfigError(f"nothing to evaluate: no pair of {ir} and {rgb} has a fused image; {pairs.survey.summary()}")
    return Result(scores, pairs.survey, artefacts={m: artefacts[m] for m in scores})


def _measurable(pairs: Pairs) -> Iterator[tuple[Registered, Image, Image]]:
    """Yield each pair that can be measured, with its thermal and luma; the survey counts them, and names the others."""
    pairs.survey.taken[""] = 0
    for pair in pairs:
        if pair.stretched or min(pair.rgb.shape[:2]) < SMALLEST_PX:
            reason = "two sizes, and no --calib" if pair.stretched else f"smaller than {SMALLEST_PX} px"
            pairs.survey.note(reason, pair.name)
            continue
        ir, visible = _sources(pair)
        if np.array_equal(ir, visible):
            pairs.survey.note(SAME, pair.name)
            continue
        pairs.survey.taken[""] += 1
        yield pair, ir, visible


Waiting = tuple[str, str, "Future[tuple[Scores, Artefacts]]"]
"""Method, pair and measures to come."""


def _take(
    waiting: deque[Waiting], scores: dict[str, dict[str, Scores]], artefacts: dict[str, dict[str, Artefacts]]
) -> None:
    method, name, future = waiting.popleft()
    scores[method][name], artefacts[method][name] = future.result()


def _measured(fused: Image, ir: Image, visible: Image, colours: tuple[Image, Image] | None) -> tuple[Scores, Artefacts]:
    return measure(fused, ir, visible), look(fused, ir, visible, colours)


def _colours(pair: Registered, fused: Image, path: Path | None) -> tuple[Image, Image] | None:
    """Return the fused picture in colour and RGB, (H, W, 3) uint8 RGB each; None for a stored picture in grey.

    Fused luma gets RGB's chroma, as rtfuse does; a stored picture has its own.
    """
    if path is None:
        return with_luma(pair.rgb, luma(pair.rgb), fused), pair.rgb
    bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None or ((bgr[..., 0] == bgr[..., 1]).all() and (bgr[..., 1] == bgr[..., 2]).all()):
        return None
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), pair.rgb


def _sources(pair: Registered) -> tuple[Image, Image]:
    """Return thermal and luma of a pair, (H, W) uint8 each, as the evaluator would read them where it can."""
    assert pair.files is not None
    thermal, visible = (read_grey(path) for path in pair.files)
    fits = pair.as_stored and thermal is not None and thermal.shape == pair.ir.shape
    i = thermal if fits and thermal is not None else pair.ir
    return i, luma(pair.rgb) if visible is None or visible.shape != i.shape else visible


def evaluate_recordings(
    ir: str,
    rgb: str,
    recordings: Mapping[str, str],
    fusers: Mapping[str, FuseLuma],
    *,
    calib: str | None = None,
    every: int = 10,
    frames: int | None = None,
) -> Result:
    """Measure two recordings: flicker and steadiness over all pairs or the first `frames`, the rest every n-th pair.

    `recordings` are outputs of `rtfuse fuse` for the two: a frame for each pair, in order. Raises ConfigError if one
    has fewer frames or another size, or without pairs.
    """
    pairs = Pairs(ir, rgb, calib)
    stored = {method: iter(open_source(uri, "rgb")) for method, uri in recordings.items()}
    scores: dict[str, dict[str, Scores]] = {m: {} for m in (*fusers, *recordings)}
    meters, shown = ({method: Flicker() for method in scores} for _ in range(2))
    steadies = {method: Deflicker() for method in scores}
    artefacts: dict[str, dict[str, Artefacts]] = {m: {} for m in scores}
    motion, single = VideoMeter(), {f"{m} steady": m for m in scores}
    for k, pair in enumerate(islice(pairs, frames)):
        pairs.survey.taken[""] = k + 1
        v = luma(pair.rgb)
        images = {method: fuse(pair.ir, v) for method, fuse in fusers.items()}
        images |= {method: _next_luma(source, v.shape, recordings[method], k) for method, source in stored.items()}
        steadied = {method: steadies[method](image, k) for method, image in images.items()}
        motion.add(pair.ir, v, {**images, **{f"{m} steady": x for m, x in steadied.items()}}, single)
        for method, image in images.items():
            meters[method].add(image, pair.ir, v)
            shown[method].add(steadied[method], pair.ir, v)
            if k % every == 0:
                name = f"{pair.frame_id:06d}"
                scores[method][name], artefacts[method][name] = _measured(image, pair.ir, v, None)
    if not all(scores.values()):
        raise ConfigError(f"nothing to evaluate: {ir} and {rgb} have no pair of frames")
    flicker, held = ({method: meter.value for method, meter in each.items()} for each in (meters, shown))
    return Result(scores, pairs.survey, flicker, held, artefacts, motion.result())


def _next_luma(source: Iterator[Frame], shape: tuple[int, ...], name: str, k: int) -> Image:
    frame = next(source, None)
    if frame is None or frame.image.shape[:2] != shape:
        found = "has ended" if frame is None else f"is {frame.image.shape[1]}x{frame.image.shape[0]}"
        raise ConfigError(
            f"{name} {found} at pair {k}, where RGB is {shape[1]}x{shape[0]}; fuse these recordings again"
        )
    return luma(frame.image)


def _fused(
    pair: Registered, stored: Mapping[str, Mapping[str, Path]], fusers: Mapping[str, FuseLuma]
) -> Iterator[tuple[str, Image | None]]:
    v = luma(pair.rgb)
    for method, fuse in fusers.items():
        yield method, fuse(pair.ir, v)
    for method, files in stored.items():
        yield method, read_grey(files[pair.name]) if pair.name in files else None


def contact_sheet(
    result: Result,
    ir: str,
    rgb: str,
    folders: Mapping[str, Path],
    fusers: Mapping[str, FuseLuma],
    *,
    calib: str | None = None,
    rows: int = 6,
    width: int = 320,
) -> Image:
    """Return evenly chosen pairs as rows, and thermal, RGB and every method as columns, (H, W, 3) uint8 BGR."""
    names = sorted(next(iter(result.scores.values())))
    rows = min(rows, len(names))
    chosen = {names[k * len(names) // rows] for k in range(rows)}
    pairs = Pairs(ir, rgb, calib, only=chosen.__contains__)
    stored = {method: by_name(folder, pairs.names) for method, folder in folders.items()}
    lines = [_titles(["thermal", "RGB", *fusers, *folders], width)]
    for pair in pairs:
        images = [pair.ir, pair.rgb, *(x for _, x in _fused(pair, stored, fusers))]
        height = round(width * pair.ir.shape[0] / pair.ir.shape[1])
        lines.append(np.hstack([_thumb(x, (width, height)) for x in images]))
    return np.vstack(lines)


def _thumb(image: Image | None, size_wh: tuple[int, int]) -> Image:
    if image is None:
        return np.full((size_wh[1], size_wh[0], 3), 64, np.uint8)
    small = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_GRAY2BGR if small.ndim == 2 else cv2.COLOR_RGB2BGR)


def _titles(titles: list[str], width: int) -> Image:
    head = np.full((26, width * len(titles), 3), 32, np.uint8)
    for k, title in enumerate(titles):
        cv2.putText(head, title, (k * width + 6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (240,) * 3, 1, cv2.LINE_AA)
    return head
