"""Measure fused images as the literature does; all measures take 8-bit luma, (H, W) uint8.

Each rewards something that a bad picture can have too (EN and SD reward noise and stretched contrast). Read them
together, and look at the pictures.

The values equal those of the evaluator that the papers use (`utils/Evaluator.py` of CDDFuse, Zhao et al., CVPR 2023) to
four decimals. Two of its measures have flaws, which are kept, because a table of a paper has them too:
Qabf takes the outside of a picture for black, so that every fused image keeps the strong "edge" along its border.
SSIM takes pictures of 0 to 255 for -1 to 1, so that its two constants no longer steady it where a picture is flat.
`Qabf_mirror` and `SSIM_gauss` are the same without the flaws; no paper has them.
"""

from __future__ import annotations

import cv2
import msgspec
import numpy as np

from rtfuse.types import Image

SMALLEST_PX = 17
"""The smallest width and height that all measures take: VIF's largest window."""


class Scores(msgspec.Struct, frozen=True):
    """All measures of one fused image; higher is better. Compare all up to SSIM with papers, and CC."""

    EN: float
    SD: float
    SF: float
    AG: float
    SCD: float
    VIF: float
    Qabf: float
    MI: float
    SSIM: float
    Qabf_mirror: float
    SSIM_gauss: float
    CC: float
    MS_SSIM: float


def measure(fused: Image, ir: Image, luma: Image) -> Scores:
    """Measure a fused image against its sources. Raises ValueError if the sizes differ or it is not uint8."""
    for image in (fused, ir, luma):
        if image.shape != fused.shape or image.dtype != np.uint8 or image.ndim != 2:
            raise ValueError(
                f"want three (H, W) uint8 images of one size, got {[(x.shape, x.dtype) for x in (fused, ir, luma)]}"
            )
    return Scores(
        EN=entropy(fused),
        SD=float(fused.std()),
        SF=spatial_frequency(fused),
        AG=average_gradient(fused),
        SCD=scd(fused, ir, luma),
        VIF=vif(ir, fused) + vif(luma, fused),
        Qabf=qabf(fused, ir, luma),
        MI=mutual_information(ir, fused) + mutual_information(luma, fused),
        SSIM=ssim(ir, fused) + ssim(luma, fused),
        Qabf_mirror=qabf(fused, ir, luma, mirror=True),
        SSIM_gauss=ssim_gauss(ir, fused) + ssim_gauss(luma, fused),
        CC=(_correlation(ir.astype(float), fused.astype(float)) + _correlation(luma.astype(float), fused.astype(float)))
        / 2,
        MS_SSIM=ms_ssim(ir, fused) + ms_ssim(luma, fused),
    )


def entropy(x: Image) -> float:
    """Return EN, the entropy of the 256-bin histogram, in bits."""
    p = np.bincount(x.ravel(), minlength=256) / x.size
    return float(-(p[p > 0] * np.log2(p[p > 0])).sum())


def spatial_frequency(x: Image) -> float:
    """Return SF, the root of the summed mean squares of horizontal and vertical first differences."""
    y = x.astype(float)
    return float(np.sqrt((np.diff(y, axis=1) ** 2).mean() + (np.diff(y, axis=0) ** 2).mean()))


def average_gradient(x: Image) -> float:
    """Return AG, the mean of √((gx² + gy²) / 2), by central differences, one-sided at the border."""
    gy, gx = np.gradient(x.astype(float))
    return float(np.sqrt((gx**2 + gy**2) / 2).mean())


def scd(fused: Image, ir: Image, luma: Image) -> float:
    """Return SCD = corr(F - V, I) + corr(F - I, V) (Aslantas and Bendes, AEÜ 69(12), 2015); -2 to 2."""
    f, i, v = (x.astype(float) for x in (fused, ir, luma))
    return _correlation(f - v, i) + _correlation(f - i, v)


def _correlation(a: Image, b: Image) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / norm) if norm > 0 else 0.0


def vif(reference: Image, x: Image) -> float:
    """Return VIF in the pixel domain, 4 scales, σ_n² = 2 (Sheikh and Bovik, IEEE TIP 15(2), 2006); 1 if equal."""
    a, b, noise, tiny = reference.astype(float), x.astype(float), 2.0, 1e-10
    numerator = denominator = 0.0
    for scale in range(4):
        side = 2 ** (4 - scale) + 1
        if scale:
            a, b = _smooth(a, side)[::2, ::2], _smooth(b, side)[::2, ::2]
        if min(a.shape) < side:
            break
        mean_a, mean_b = _smooth(a, side), _smooth(b, side)
        var_a = np.maximum(_smooth(a * a, side) - mean_a**2, 0)
        var_b = np.maximum(_smooth(b * b, side) - mean_b**2, 0)
        cov = _smooth(a * b, side) - mean_a * mean_b
        gain = cov / (var_a + tiny)
        rest = var_b - gain * cov
        gain, rest = np.where(var_a < tiny, 0, gain), np.where(var_a < tiny, var_b, rest)
        var_a = np.where(var_a < tiny, 0, var_a)
        gain, rest = np.where(var_b < tiny, 0, gain), np.where(var_b < tiny, 0, rest)
        gain, rest = np.maximum(gain, 0), np.maximum(np.where(gain < 0, var_b, rest), tiny)
        numerator += float(np.log10(1 + gain**2 * var_a / (rest + noise)).sum())
        denominator += float(np.log10(1 + var_a / noise).sum())
    return numerator / denominator if denominator > 0 else 1.0


def _smooth(x: Image, side: int, sigma: float | None = None) -> Image:
    """Smooth by a Gaussian window of `side` pixels (σ = side / 5 unless given); drop pixels whose window is cut."""
    kernel = cv2.getGaussianKernel(side, side / 5 if sigma is None else sigma)
    half = side // 2
    return cv2.sepFilter2D(x, cv2.CV_64F, kernel, kernel)[half : x.shape[0] - half, half : x.shape[1] - half]


def qabf(fused: Image, ir: Image, luma: Image, *, mirror: bool = False) -> float:
    """Return Q^AB/F: the edges kept, weighted by the sources' edges (Xydeas and Petrovic, 2000); 0 to 1.

    As in the evaluator, the outside is black, and an edge as strong as its source's counts by that strength in place of
    1. `mirror` reflects the pictures at their borders and counts such an edge as 1.
    """
    border = cv2.BORDER_REFLECT_101 if mirror else cv2.BORDER_CONSTANT
    strength_f, angle_f = _edges(fused, border)
    weighted = total = 0.0
    for source in (ir, luma):
        strength, angle = _edges(source, border)
        larger, smaller = np.maximum(strength, strength_f), np.minimum(strength, strength_f)
        relative = np.divide(smaller, larger, out=np.ones_like(larger), where=larger > 0)
        if not mirror:
            relative = np.where(strength == strength_f, strength, relative)
        turned = 1 - np.abs(angle - angle_f) / (np.pi / 2)
        kept = 0.9994 / (1 + np.exp(-15 * (relative - 0.5))) * 0.9879 / (1 + np.exp(-22 * (turned - 0.8)))
        weighted += float((kept * strength).sum())
        total += float(strength.sum())
    return weighted / total if total > 0 else 0.0


def _edges(x: Image, border: int) -> tuple[Image, Image]:
    """Return strength and angle of the edges by Sobel's kernels; its x points to the left, as in the evaluator."""
    right, down = (cv2.Sobel(x, cv2.CV_64F, *d, ksize=3, borderType=border) for d in ((1, 0), (0, 1)))
    slope = np.divide(down, -right, out=np.zeros_like(down), where=right != 0)
    return np.sqrt(right * right + down * down), np.where(right == 0, np.pi / 2, np.arctan(slope))


def mutual_information(a: Image, b: Image) -> float:
    """Return MI of two images' grey levels, 256 × 256 bins, in nats."""
    joint = np.bincount((a.astype(np.int64) * 256 + b).ravel(), minlength=65536).reshape(256, 256) / a.size
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / independent[there])).sum())


def ssim(reference: Image, x: Image) -> float:
    """Return SSIM as the evaluator does: 7×7 means, sample covariance, K = (0.01, 0.03), L = 2, in float32.

    scikit-image 0.19, which it calls, takes 2 for the range of pictures in float32. In a flat region the rounding of
    float32 is then as large as the constants, so it is part of the value.
    """
    a, b = reference.astype(np.float32), x.astype(np.float32)
    sample = np.float32(49 / 48)
    mean_a, mean_b = _boxed(a), _boxed(b)
    var_a, var_b = (sample * (_boxed(z * z) - mean * mean) for z, mean in ((a, mean_a), (b, mean_b)))
    cov = sample * (_boxed(a * b) - mean_a * mean_b)
    return _similarity(mean_a, mean_b, var_a, var_b, cov, 2)


def _boxed(x: Image, side: int = 7) -> Image:
    """Return the means of all whole windows, float32; rounded after the columns and after the rows, as by SciPy."""
    half = side // 2
    for shape in ((side, 1), (1, side)):
        x = cv2.filter2D(x.astype(np.float64), -1, np.full(shape, 1 / side)).astype(np.float32)
    return x[half:-half, half:-half]


def ssim_gauss(reference: Image, x: Image) -> float:
    """Return SSIM: 11×11 Gaussian window, σ = 1.5, K = (0.01, 0.03), L = 255 (Wang et al., IEEE TIP 13(4), 2004)."""
    return _similarity(*_moments(reference.astype(float), x.astype(float)), 255)


def ms_ssim(reference: Image, x: Image) -> float:
    """Return MS-SSIM (Wang, Simoncelli and Bovik, Asilomar 2003, eq. 7), `ssim_gauss` at 5 scales; 0 to 1.

    Each scale is the 2×2 mean of the one before. A picture too small for all five uses the first ones, with their
    weights scaled to a sum of 1. A negative mean counts as 0.
    """
    a, b, value = reference.astype(float), x.astype(float), 1.0
    scales = [k for k in range(len(_SCALES)) if min(a.shape) >> k >= 11]
    for k in scales:
        moments = _moments(a, b)
        share = _similarity(*moments, 255) if k == scales[-1] else _structure(*moments[2:], 255)
        value *= max(share, 0.0) ** (_SCALES[k] / sum(_SCALES[: len(scales)]))
        a, b = (_halved(z) for z in (a, b))
    return value


_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""The published weights of the scales, finest first."""


def _halved(x: Image) -> Image:
    even = x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2]
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4


def _moments(a: Image, b: Image) -> tuple[Image, Image, Image, Image, Image]:
    """Return means, variances and covariance of two float images under the 11×11 Gaussian window."""
    mean_a, mean_b = _smooth(a, 11, 1.5), _smooth(b, 11, 1.5)
    var_a, var_b = _smooth(a * a, 11, 1.5) - mean_a**2, _smooth(b * b, 11, 1.5) - mean_b**2
    return mean_a, mean_b, var_a, var_b, _smooth(a * b, 11, 1.5) - mean_a * mean_b


def _structure(var_a: Image, var_b: Image, cov: Image, span: float) -> float:
    """Return the mean of contrast times structure, the second factor of SSIM."""
    c2 = (0.03 * span) ** 2
    return float(((2 * cov + c2) / (var_a + var_b + c2)).mean())


def _similarity(mean_a: Image, mean_b: Image, var_a: Image, var_b: Image, cov: Image, span: float) -> float:
    """Return the mean of SSIM over all windows (Wang et al., eq. 13), of pictures with values up to `span`."""
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return float((top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean(dtype=np.float64))


def stretched(x: Image) -> Image:
    """Stretch an image to its own minimum and maximum, as published tables did. Do not use it for video."""
    low, high = int(x.min()), int(x.max())
    return x if high == low else np.rint((x.astype(float) - low) * (255 / (high - low))).astype(np.uint8)


class Flicker:
    """Measures how much more a fused stream changes than its sources, in grey levels a frame; 0 is steady.

    It takes the pixels at which both sources change by at most `still` from one frame to the next, and subtracts the
    larger of the sources' mean absolute changes from that of the fused image. `value` is the mean over all frames, at
    least 0.
    """

    def __init__(self, still: int = 2) -> None:
        self.still = still
        self._before: tuple[Image, Image, Image] | None = None
        self._excess: list[float] = []

    def add(self, fused: Image, ir: Image, luma: Image) -> None:
        """Take the next frame: (H, W) uint8 each."""
        now = (fused, ir, luma)
        if self._before is not None:
            changes = [cv2.absdiff(a, b) for a, b in zip(self._before, now, strict=True)]
            static = (changes[1] <= self.still) & (changes[2] <= self.still)
            if static.any():
                own, *sources = (float(c[static].mean()) for c in changes)
                self._excess.append(own - max(sources))
        self._before = now

    @property
    def value(self) -> float:
        """The flicker of the frames added until now."""
        return max(0.0, float(np.mean(self._excess))) if self._excess else 0.0
