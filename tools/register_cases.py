"""Cases of registration whose truth is known: real pairs and the synthetic street, thermal warped."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from rtfuse.capture import open_source
from rtfuse.capture.synthetic.scene import SyntheticScene
from rtfuse.types import Image

Pairs = list[tuple[Image, Image]]
_CUT_PX = 40
_BLOCK = 8
"""Pairs that follow each other in a folder, and may show one scene: all of them are in the same half."""


@dataclass(frozen=True, slots=True)
class Case:
    """Pairs of one rig, and where in thermal the RGB pixels lie, (H, W, 2), NaN outside; None: nowhere.

    `straight`: thermal (H, W) before the warp, on the RGB grid, if known.
    """

    name: str
    pairs: Pairs
    truth: Image | None
    straight: Image | None = None


def grid(hw: tuple[int, ...]) -> Image:
    """Return the positions (x, y) of all pixels, (H, W, 2) float32."""
    return np.stack(np.meshgrid(np.arange(hw[1]), np.arange(hw[0])), -1).astype(np.float32)


def inverse(offset: Image) -> Image:
    """Return p (H, W, 2) with p + offset(p) = x for every pixel x; NaN outside the picture."""
    at = still = grid(offset.shape)
    for _ in range(50):
        at = (at + still - cv2.remap(offset, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)) / 2
    outside = (at < 0).any(-1) | (at > np.array(offset.shape[1::-1]) - 1).any(-1)
    return np.where(outside[..., None], np.nan, at)


def read(data: Path, folder: str, name: str) -> tuple[Image, Image]:
    """Return the registered pair of a name: thermal (H, W) and RGB (H, W, 3)."""
    ir, rgb = (next((data / folder / s).glob(f"{name}.*")) for s in ("ir", "rgb"))
    return cv2.imread(str(ir), cv2.IMREAD_GRAYSCALE), cv2.imread(str(rgb))[..., ::-1].copy()


def names(data: Path, folder: str, count: int) -> list[str]:
    """Return `count` names of registered pairs, spread evenly over a folder."""
    every = sorted(p.stem for p in (data / folder / "ir").iterdir())
    return [every[k] for k in np.linspace(0, len(every) - 1, count).round().astype(int)]


def misaligned(data: Path) -> Iterator[Case]:
    """Yield the real pairs with a known smooth warp."""
    folder = data / "misaligned"
    for path in sorted((folder / "offset").iterdir(), key=lambda p: int(p.stem)):
        rgb = cv2.imread(str(folder / "rgb" / f"{path.stem}.png"))[..., ::-1].copy()
        ir = cv2.imread(str(folder / "ir_warped" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        straight = cv2.imread(str(folder / "ir" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        yield Case(path.stem, [(ir, rgb)], inverse(np.load(path)["offset_px"].astype(np.float32)), straight)


def turned(data: Path, count: int = 40) -> Iterator[Case]:
    """Yield registered pairs that `misaligned` does not hold, turned, scaled, moved and bent at random.

    Turns deviate by 5 degrees, every second one sheared as a turn of the square that is stretched to the picture;
    bends are of 0.5 to 2 px on average and 12 to 48 px long. What is moved in from outside is black.
    """
    known = [thumbnail(cv2.imread(str(p))) for p in (data / "misaligned" / "rgb").iterdir()]
    rng = np.random.default_rng(20)
    for name in names(data, "pairs/roadscene", count):
        ir, rgb = read(data, "pairs/roadscene", name)
        if any(np.abs(thumbnail(rgb) - x).mean() < 5 for x in known):
            continue
        h, w = ir.shape
        turn, length = np.deg2rad(rng.normal(0, 5)), rng.uniform(12, 48)
        aspect = (w / h) ** rng.choice((0, 1))
        c, s = np.cos(turn), np.sin(turn)
        about = (np.array([w, h]) - 1) / 2
        m = rng.uniform(0.97, 1.03) * np.array([[c, -s * aspect], [s / aspect, c]])
        noise = rng.normal(size=(h, w, 2))
        bend = cv2.GaussianBlur(noise, (0, 0), length / np.sqrt(2))
        bend *= rng.uniform(0.5, 2) / np.linalg.norm(bend, axis=-1).mean()
        moved = ((grid((h, w)) - about) @ m.T + about + rng.uniform(-0.03, 0.03, 2) * w + bend).astype(np.float32)
        yield Case(name, [(cv2.remap(ir, moved, None, cv2.INTER_LINEAR), rgb)], inverse(moved - grid((h, w))), ir)


def thumbnail(picture: Image) -> Image:
    """Return the grey picture at 32 x 16 pixels, by which copies of a picture are told."""
    grey = picture.astype(np.float32).mean(-1)
    return cv2.resize(grey, (32, 16), interpolation=cv2.INTER_AREA)


def bent(pairs: Pairs, rng: np.random.Generator) -> tuple[Pairs, Image]:
    """Return the pairs with thermal warped at random, their edges cut off, and the truth of `Case`.

    Turns by up to 2.5 degrees, scales by up to 4 % and moves by up to 3 % of the width; every second time also bends
    smoothly by 2 px on average.
    """
    h, w = pairs[0][0].shape
    m = cv2.getRotationMatrix2D((w / 2, h / 2), rng.uniform(-2.5, 2.5), rng.uniform(0.96, 1.04))
    m[:, 2] += rng.uniform(-0.03, 0.03, 2) * w
    moved = cv2.transform(grid((h, w)), m)
    if rng.random() < 0.5:
        knots = cv2.resize(rng.normal(size=(5, 7, 2)), (w, h), interpolation=cv2.INTER_CUBIC)
        moved = moved + 2 * knots / np.linalg.norm(knots, axis=-1).mean()
    return _cut(pairs, moved.astype(np.float32))


def warped(data: Path, count: int = 16) -> Iterator[Case]:
    """Yield registered pairs and clips of several datasets, thermal warped."""
    rng = np.random.default_rng(7)
    for folder in ("pairs/msrs", "pairs/roadscene"):
        for name in names(data, folder, count):
            yield Case(f"{folder[6:]} {name}", *bent([read(data, folder, name)], rng))
    for clip in ("0113_1714", "0117_1605", "1230_1202"):
        frames = [frames_of(str(data / "clips" / clip / f"{s}.mp4"), s, every=16, count=12) for s in ("ir", "rgb")]
        for k in (0, 6):
            pairs = list(zip(*frames, strict=True))
            yield Case(f"{clip} frame {16 * k}", *bent([pairs[k]], rng))
        yield Case(f"{clip} 12 frames", *bent(pairs, rng))


def frames_of(uri: str, stream: str, every: int, count: int) -> list[Image]:
    """Return the images of every so many frames."""
    source = open_source(uri, stream)
    found = [frame.image for frame in islice(source, 0, every * count, every)]
    source.close()
    return [x if stream == "rgb" or x.ndim == 2 else x[..., 1].copy() for x in found]


def synthetic(_: Path) -> Iterator[Case]:
    """Yield the street with a baseline of 0, by several seeds, sizes and warps."""
    for keys in ("", "&ir_size=320x240", "&ir_size=160x120", "&bits=16&ir_size=320x256&size=960x540"):
        for seed in (1, 2, 3):
            warp = (0.5, 1, 1.5)[seed - 1]
            uri = f"synthetic:?warp={warp}&baseline_m=0&motion=0&duration_s=4&seed={seed}{keys}"
            pairs = list(zip(*(frames_of(uri, s, 20, 3) for s in ("ir", "rgb")), strict=True))
            xy = grid(pairs[0][1].shape)
            H = np.linalg.inv(SyntheticScene.from_uri(uri).H_rgb_from_ir)
            truth = cv2.perspectiveTransform(xy.reshape(-1, 1, 2).astype(float), H).reshape(xy.shape)
            inside = ((truth >= 0) & (truth <= np.array(pairs[0][0].shape[::-1]) - 1)).all(-1)
            for some in (pairs[:1], pairs):
                yield Case(f"{seed}{keys} {len(some)} frames", some, np.where(inside[..., None], truth, np.nan))


def scenes(data: Path, half: int = 1) -> Iterator[Case]:
    """Yield one half of the registered pairs that `misaligned` does not hold, each warped, or left as it is (one in 5).

    The estimate of the error was fitted to half 0. The order is random, so that the first cases are of both datasets.
    """
    known = [thumbnail(cv2.imread(str(p))) for p in (data / "misaligned" / "rgb").iterdir()]
    every = []
    for folder in ("pairs/msrs", "pairs/roadscene"):
        for k, path in enumerate(sorted((data / folder / "ir").iterdir())):
            if k // _BLOCK % 2 == half:
                every.append((folder, path.stem))
    for k in np.random.default_rng(1).permutation(len(every)):
        folder, name = every[k]
        ir, rgb = read(data, folder, name)
        if any(np.abs(thumbnail(rgb) - x).mean() < 5 for x in known):
            continue
        seed = zlib.crc32(name.encode())
        if seed % 5 == 4:
            yield Case(f"{folder[6:]} {name}", [(ir, rgb)], grid(ir.shape))
        else:
            yield Case(f"{folder[6:]} {name}", *projected(ir, rgb, seed))


def projected(ir: Image, rgb: Image, seed: int) -> tuple[Pairs, Image]:
    """Return the pair with thermal under a random homography, and the truth of `Case`.

    Turns by 3 degrees, shears by 1 % and tilts by 1.2 % (deviations), scales by up to 5 % and moves by up to 3.5 % of
    the width. Seeds of 1 and 3 modulo 5 also bend it smoothly by 0.5 to 2 px on average. What is moved in from outside
    is black by seeds of 0 and 1 modulo 5; by the others, the edges are cut off.
    """
    rng = np.random.default_rng(seed)
    kind = seed % 5
    h, w = ir.shape
    about = (np.array([w, h]) - 1) / 2
    turn = np.deg2rad(rng.normal(0, 3))
    scale = rng.uniform(0.95, 1.05)
    c, s = np.cos(turn), np.sin(turn)
    m = scale * np.array([[c, -s], [s, c]]) + rng.normal(0, 0.01, (2, 2))
    x = grid((h, w)).astype(float) - about
    z = 1 + x @ (rng.normal(0, 0.012, 2) / (max(h, w) / 2))
    moved = (x @ m.T) / z[..., None] + about + rng.uniform(-0.035, 0.035, 2) * w
    if kind % 2:
        bend = cv2.GaussianBlur(rng.normal(size=(h, w, 2)), (0, 0), rng.uniform(0.03, 0.12) * w / np.sqrt(2))
        moved += bend * rng.uniform(0.5, 2) / np.linalg.norm(bend, axis=-1).mean()
    moved = moved.astype(np.float32)
    if kind < 2:
        return [(cv2.remap(ir, moved, None, cv2.INTER_LINEAR), rgb)], inverse(moved - grid((h, w)))
    return _cut([(ir, rgb)], moved)


def _cut(pairs: Pairs, moved: Image) -> tuple[Pairs, Image]:
    """Return the pairs with thermal taken from the positions `moved`, the edges cut off, and the truth of `Case`."""
    h, w = pairs[0][0].shape
    c = _CUT_PX if w > 600 else _CUT_PX // 2
    cut = np.s_[c:-c, c:-c]
    warped: Pairs = []
    for ir, rgb in pairs:
        bent_ir = cv2.remap(ir, moved, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        warped.append((np.ascontiguousarray(bent_ir[cut]), np.ascontiguousarray(rgb[cut])))
    truth = inverse(moved - grid((h, w)))[cut] - c
    inside = ((truth >= 0) & (truth <= np.array([w, h]) - 2 * c - 1)).all(-1)
    return warped, np.where(inside[..., None], truth, np.nan)


def unrelated(data: Path, count: int = 24) -> Iterator[Case]:
    """Yield thermal and RGB of two different scenes."""
    for folder in ("pairs/msrs", "pairs/roadscene"):
        found = [read(data, folder, name) for name in names(data, folder, count)]
        for k, (ir, _) in enumerate(found):
            rgb = found[(k + count // 2) % count][1]
            yield Case(f"{folder[6:]} {k}", [(cv2.resize(ir, rgb.shape[1::-1]), rgb)], None)


SETS: dict[str, Callable[[Path], Iterator[Case]]] = {
    "misaligned": misaligned,
    "turned": turned,
    "warped": warped,
    "scenes": scenes,
    "fitted": lambda data: scenes(data, 0),
    "synthetic": synthetic,
    "unrelated": unrelated,
}
