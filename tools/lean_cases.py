"""Measure how fusers lean where one source has failed: real pairs, one source spoilt, as a whole or in its left half.

    python tools/lean_cases.py ../shared/data                                   # pyramid and student
    python tools/lean_cases.py ../shared/data --no-lean                         # without `fuse.lean`
    python tools/lean_cases.py ../shared/data --fuser pyramid --sheet lean.jpg  # and a sheet of pictures

Each case has a good source; where the other one has failed, the fused picture should be that source. The table has the
mean over the pairs, in the spoilt part alone:

- r: correlation of the fused luma with the good source's; 1 is best.
- VIF: of the good source in the fused luma; 1 is the good source alone.
- contrast: deviation of the fused luma over that of the good source.
- halo: overshoot beside strong edges, beyond both sources, in grey levels (`trainer.measures.artefacts.halo`).
- noise: fused noise over the good source's, where that is flat (`trainer.measures.artefacts.noise_gain`); 1 adds none.

`none` is the pair as it is, measured against each source.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from rtfuse.align.aligner import Aligner
from rtfuse.config import Config, Fuse
from rtfuse.fuse import Fuser, open_fuser
from rtfuse.picture import luma_of
from rtfuse.pipeline.stages import Stages
from rtfuse.types import Frame, Image, Pair, Stamp
from trainer.measures.artefacts import halo, noise_gain
from trainer.metrics import vif

Spoil = Callable[[Image, np.random.Generator], Image]
PAIRS = (
    *("msrs/00115D", "msrs/00420D", "msrs/00706N", "msrs/01000N", "msrs/01331N"),
    *("roadscene/FLIR_00122", "roadscene/FLIR_04997", "roadscene/FLIR_07427"),
)
"""Of `configs/validation.txt`: no network has learnt from them."""
_SEAM_PX = 16
_SHIFT_PX = 12
NAMES = ("r", "VIF", "contrast", "halo", "noise")


def _noise(image: Image, deviation: float, rng: np.random.Generator) -> Image:
    return np.clip(np.rint(image + rng.normal(0, deviation, image.shape)), 0, 255).astype(np.uint8)


def _flat(level: int, deviation: float) -> Spoil:
    """Return a source without a scene: one value with noise."""
    return lambda image, rng: _noise(np.full(image.shape, float(level)), deviation, rng)


def _saturated(image: Image, _: np.random.Generator) -> Image:
    """Raise brightness until 60 % of the picture is white."""
    return cv2.add(image, np.full_like(image, 255 - int(np.quantile(image, 0.4))))


def _scaled(gain: float, offset: float, deviation: float) -> Spoil:
    return lambda image, rng: _noise(np.clip(gain * image.astype(float) + offset, 0, 255), deviation, rng)


def _shifted(image: Image, _: np.random.Generator) -> Image:
    return cv2.copyMakeBorder(image[:, :-_SHIFT_PX], 0, 0, _SHIFT_PX, 0, cv2.BORDER_REPLICATE)


CASES: dict[str, tuple[str, Spoil]] = {
    "thermal of one value": ("ir", _flat(128, 0)),
    "thermal noise alone, σ 3": ("ir", _flat(128, 3)),
    "thermal noise alone, σ 12": ("ir", _flat(128, 12)),
    "thermal 60 % white": ("ir", _saturated),
    "thermal shifted by 12 px": ("ir", _shifted),
    "thermal of another scene": ("ir", lambda image, _: image),
    "RGB black, noise σ 1.5": ("rgb", _scaled(0.02, 2, 1.5)),
    "RGB blown": ("rgb", _scaled(3, 140, 1)),
    "RGB in fog": ("rgb", _scaled(0.2, 150, 1)),
}
"""Name → the source that is spoilt, and how; the other source is the good one."""


def read(data: Path, name: str) -> tuple[Image, Image]:
    """Return thermal and luma of a registered pair `set/name`, (H, W) uint8 each, cut to multiples of 8."""
    folder, stem = name.split("/")
    paths = [next((data / "pairs" / folder / s).glob(f"{stem}.*")) for s in ("ir", "rgb")]
    ir, bgr = cv2.imread(str(paths[0]), cv2.IMREAD_GRAYSCALE), cv2.imread(str(paths[1]))
    assert ir is not None
    assert bgr is not None
    h, w = (side - side % 8 for side in ir.shape)
    return ir[:h, :w].copy(), luma_of(np.ascontiguousarray(bgr[:h, :w, ::-1]))


def spoilt(case: str, pair: tuple[Image, Image], other: Image, *, half: bool) -> tuple[Image, Image]:
    """Return thermal and luma of the case; with `half` the right half is intact. `other`: thermal of another scene."""
    stream, spoil = CASES[case]
    at = 0 if stream == "ir" else 1
    taken = cv2.resize(other, pair[0].shape[::-1]) if case == "thermal of another scene" else pair[at]
    bad = spoil(taken, np.random.default_rng(7))
    if half:
        bad[:, bad.shape[1] // 2 :] = pair[at][:, bad.shape[1] // 2 :]
    return (bad, pair[1]) if at == 0 else (pair[0], bad)


def measures(fused: Image, sources: tuple[Image, Image], good: int, *, half: bool) -> tuple[float, ...]:
    """Return the measures of `NAMES` in the spoilt part, without the pixels near its seam.

    `sources` are thermal and luma, `good` the index of the good one.
    """
    part = np.s_[:, : fused.shape[1] // 2 - _SEAM_PX] if half else np.s_[:]
    f, *both = (np.ascontiguousarray(x[part]) for x in (fused, *sources))
    g = both[good]
    r = np.corrcoef(f.ravel(), g.ravel())[0, 1] if f.std() and g.std() else np.nan
    return float(r), vif(g, f), float(f.std() / max(g.std(), 1e-6)), halo(f, *both), noise_gain(f, g, g)


def fused_by(fuser: Fuser, ir: Image, luma: Image, *, lean: bool = True) -> Image:
    """Fuse thermal and luma on one grid, (H, W) uint8 each, as `rtfuse fuse` does."""
    stages = Stages(Aligner(ir.shape, luma.shape), fuser, Config(fuse=Fuse(lean=lean)), scenes=True)  # type: ignore[arg-type]
    rgb = cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB)
    fused = stages.process(Pair(Frame("ir", ir, 0, 0, Stamp.MEDIA, 0), Frame("rgb", rgb, 0, 0, Stamp.MEDIA, 0)))
    return fused.picture.luma


def rows(fuser: Fuser, pairs: list[tuple[Image, Image]], *, lean: bool) -> Iterator[tuple[str, str, tuple[float, ...]]]:
    """Yield case, `whole` or `half`, and the means of the measures."""
    plain = [fused_by(fuser, *pair, lean=lean) for pair in pairs]
    for at, stream in enumerate(("thermal", "RGB")):
        found = [measures(f, pair, at, half=False) for f, pair in zip(plain, pairs, strict=True)]
        yield "none", f"to {stream}", tuple(np.nanmean(found, axis=0))
    for case, (stream, _) in CASES.items():
        for half in (False, True):
            found = []
            for k, pair in enumerate(pairs):
                sources = spoilt(case, pair, pairs[k - 1][0], half=half)
                fused = fused_by(fuser, *sources, lean=lean)
                found.append(measures(fused, sources, 1 if stream == "ir" else 0, half=half))
            yield case, "half" if half else "whole", tuple(np.nanmean(found, axis=0))


def sheet(fusers: list[Fuser], pair: tuple[Image, Image], other: Image, width: int, *, lean: bool) -> Image:
    """Return a row for each case: thermal, luma and every fuser's picture, the left half spoilt; (H, W) uint8."""
    h = round(width * pair[0].shape[0] / pair[0].shape[1])
    lines = []
    for case in CASES:
        ir, luma = spoilt(case, pair, other, half=True)
        images = [ir, luma, *(fused_by(fuser, ir, luma, lean=lean) for fuser in fusers)]
        line = np.hstack([cv2.resize(x, (width, h), interpolation=cv2.INTER_AREA) for x in images])
        cv2.putText(line, case.replace("σ", "sigma"), (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255, 1, cv2.LINE_AA)
        lines.append(line)
    return np.vstack(lines)


def main() -> None:
    """Print a table for each fuser, and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with pairs/msrs and pairs/roadscene")
    parser.add_argument("--fuser", action="append", help="fuser; may be repeated (default: pyramid, student)")
    parser.add_argument("--pairs", type=int, default=len(PAIRS), help="number of pairs")
    parser.add_argument("--sheet", type=Path, help="picture to write: every case of one pair")
    parser.add_argument("--of", default="roadscene/FLIR_04997", help="pair of the sheet")
    parser.add_argument("--no-lean", action="store_true", help="without `fuse.lean`")
    given = parser.parse_args()
    logging.getLogger("rtfuse").setLevel(logging.ERROR)  # a line for each case, otherwise
    lean = not given.no_lean
    names = given.fuser or ["pyramid", "student"]
    fusers = [open_fuser(name) for name in names]
    pairs = [read(given.data, name) for name in PAIRS[: given.pairs]]
    for name, fuser in zip(names, fusers, strict=True):
        print(f"\n| {name}: case | part | {' | '.join(NAMES)} |\n|---|---|{'---|' * len(NAMES)}")
        for case, part, values in rows(fuser, pairs, lean=lean):
            print(f"| {case} | {part} | {' | '.join(f'{v:.2f}' for v in values)} |", flush=True)
    if given.sheet:
        made = sheet(fusers, read(given.data, given.of), read(given.data, PAIRS[0])[0], 220, lean=lean)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 62] if given.sheet.suffix in (".jpg", ".jpeg") else []
        cv2.imwrite(str(given.sheet), made, quality)


if __name__ == "__main__":
    main()
