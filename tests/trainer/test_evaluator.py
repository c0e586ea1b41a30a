"""The measures against the values of the papers' evaluator, computed here from its definitions, in plain NumPy."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest

from rtfuse.fuse.pyramid import fuse_pyramid
from trainer import cli
from trainer.metrics import measure

PAIRS = [("roadscene", "FLIR_00006"), ("roadscene", "FLIR_00018"), ("msrs", "00115D")]
NAMES = ("EN", "SD", "SF", "AG", "SCD", "VIF", "Qabf", "MI", "SSIM")


def windows(x, weights):
    """Return the weighted sums of all whole windows; the window is the outer product of `weights` with itself."""
    for _ in range(2):  # columns, then rows
        size = x.shape[0] - len(weights) + 1
        x = sum(w * x[k : k + size] for k, w in enumerate(weights)).T
    return x


def visual_information(source, fused):
    """Sheikh and Bovik's VIF of pixels at four scales, noise variance 2."""
    a, b, top, bottom = source.astype(np.float64), fused.astype(np.float64), 0.0, 0.0
    for side in (17, 9, 5, 3):
        at = np.arange(side) - side // 2
        w = np.exp(-(at**2) / (2 * (side / 5) ** 2))
        w /= w.sum()
        if side < 17:
            a, b = windows(a, w)[::2, ::2], windows(b, w)[::2, ::2]
        ma, mb = windows(a, w), windows(b, w)
        va = np.maximum(windows(a * a, w) - ma * ma, 0)
        vb = np.maximum(windows(b * b, w) - mb * mb, 0)
        cov = windows(a * b, w) - ma * mb
        gain = cov / (va + 1e-10)
        rest = vb - gain * cov
        still, empty = va < 1e-10, vb < 1e-10
        gain[still], rest[still], va[still] = 0, vb[still], 0
        gain[empty], rest[empty] = 0, 0
        rest[gain < 0] = vb[gain < 0]
        gain = np.maximum(gain, 0)
        rest = np.maximum(rest, 1e-10)
        top += np.log10(1 + gain**2 * va / (rest + 2)).sum()
        bottom += np.log10(1 + va / 2).sum()
    return top / bottom


def edges(x):
    """Sobel's edges by convolution, with zeros around the picture: strength, and angle of a line through it."""
    p = np.pad(x.astype(np.float64), 1)
    sums = p[:-2] + 2 * p[1:-1] + p[2:]
    across = sums[:, :-2] - sums[:, 2:]
    sums = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
    down = sums[2:] - sums[:-2]
    with np.errstate(divide="ignore", invalid="ignore"):
        angle = np.where(across == 0, np.pi / 2, np.arctan(down / across))
    return np.sqrt(across**2 + down**2), angle


def edges_kept(fused, *sources):
    """Xydeas and Petrovic's measure; where both edges are equally strong, the evaluator takes the strength itself."""
    (g, a), top, bottom = edges(fused), 0.0, 0.0
    for source in sources:
        gs, angle = edges(source)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(gs > g, g / gs, gs / g)
        ratio[gs == g] = g[gs == g]
        turn = 1 - np.abs(angle - a) / (np.pi / 2)
        strength = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5)))
        top += (strength * 0.9879 / (1 + np.exp(-22 * (turn - 0.8))) * gs).sum()
        bottom += gs.sum()
    return top / bottom


def similarity(fused, source):
    """SSIM as scikit-image 0.19 computes it of float32 without a range: 7 x 7 means, sample covariance, range 2."""

    def means(x):
        for _ in range(2):
            size = x.shape[0] - 6
            x = (sum(x[k : k + size].astype(np.float64) for k in range(7)) / 7).astype(np.float32).T
        return x

    x, y = fused.astype(np.float32), source.astype(np.float32)
    ux, uy, norm = means(x), means(y), 49 / 48
    vx, vy, vxy = (norm * (means(a * b) - ma * mb) for a, b, ma, mb in ((x, x, ux, ux), (y, y, uy, uy), (x, y, ux, uy)))
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    s = ((2 * ux * uy + c1) * (2 * vxy + c2)) / ((ux**2 + uy**2 + c1) * (vx + vy + c2))
    return s.mean(dtype=np.float64)


def information(x, y):
    """Mutual information of two pictures' grey levels, in nats."""
    joint = np.histogram2d(x.ravel(), y.ravel(), bins=256, range=((0, 256), (0, 256)))[0] / x.size
    rows, columns = np.nonzero(joint)
    p = joint[rows, columns]
    return (p * np.log(p / (joint.sum(1)[rows] * joint.sum(0)[columns]))).sum()


def expected(fused, ir, luma):
    """Return the evaluator's values; the pictures are (H, W) float32 of whole grey levels."""
    f, i, v = (x.astype(np.float64) for x in (fused, ir, luma))
    p = np.bincount(f.astype(np.uint8).ravel(), minlength=256) / f.size
    dy, dx = np.gradient(f)
    return {
        "EN": -(p[p > 0] * np.log2(p[p > 0])).sum(),
        "SD": f.std(),
        "SF": np.sqrt((np.diff(f, axis=0) ** 2).mean() + (np.diff(f, axis=1) ** 2).mean()),
        "AG": np.sqrt((dx**2 + dy**2) / 2).mean(),
        "SCD": np.corrcoef((f - v).ravel(), i.ravel())[0, 1] + np.corrcoef((f - i).ravel(), v.ravel())[0, 1],
        "VIF": visual_information(ir, fused) + visual_information(luma, fused),
        "Qabf": edges_kept(fused, ir, luma),
        "MI": information(f, i) + information(f, v),
        "SSIM": similarity(fused, ir) + similarity(fused, luma),
    }


def read(path):
    """Read a picture as the evaluator does: colours to grey in float32, rounded."""
    return np.round(cv2.cvtColor(cv2.imread(str(path)).astype("float32"), cv2.COLOR_BGR2GRAY))


@pytest.mark.parametrize("seed", range(3))
def test_measures_are_the_evaluators(seed):
    rng = np.random.default_rng(seed)
    ir, luma = (cv2.GaussianBlur(rng.integers(0, 256, (70, 90), np.uint8), (0, 0), 1 + seed) for _ in range(2))
    ir[:20, :30], luma[40:, 50:] = 0, 255  # flat regions, in which the rounding of float32 counts
    fused = fuse_pyramid(ir, luma)
    fused[50:, :20] = ir[50:, :20]  # edges of equal strength
    want, got = expected(fused, ir, luma), measure(fused, ir, luma)
    assert {name: getattr(got, name) for name in NAMES} == pytest.approx(want, abs=5e-5)


def test_the_other_variants_are_not_the_evaluators():
    rng = np.random.default_rng(0)
    ir, luma = (cv2.GaussianBlur(rng.integers(0, 256, (70, 90), np.uint8), (0, 0), 2) for _ in range(2))
    got = measure(fuse_pyramid(ir, luma), ir, luma)
    assert got.Qabf > got.Qabf_mirror + 0.01  # the border counts as an edge that is kept
    assert got.SSIM_gauss > got.SSIM


@pytest.mark.parametrize(("dataset", "name"), PAIRS)
def test_eval_gives_the_evaluators_values_for_real_pairs(footage, tmp_path, dataset, name):
    pairs, fused = footage / "pairs" / dataset, footage / "pseudo" / "ifcnn" / dataset
    (tmp_path / "one.txt").write_text(f"{dataset}/{name}\n")
    cli.evaluate(ir=str(pairs / "ir"), rgb=str(pairs / "rgb"), fused=[str(fused)], only=tmp_path / "one.txt",
                 csv=tmp_path / "s.csv")  # fmt: skip
    with (tmp_path / "s.csv").open() as file:
        row = next(csv.DictReader(file))
    want = expected(*(read(folder / f"{name}.jpg") for folder in (fused, pairs / "ir", pairs / "rgb")))
    assert row["pair"] == name
    assert {key: float(row[key]) for key in NAMES} == pytest.approx(want, abs=5e-5)
