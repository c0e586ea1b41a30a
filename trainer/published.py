"""List table 1 of EMMA (arXiv 2305.11443): EN, SD, SF, AG, SCD and VIF of published methods.

Its authors stretched each image to its own minimum and maximum: compare with `--protocol paper`.
"""

from __future__ import annotations

from rtfuse.errors import ConfigError

COLUMNS = ("EN", "SD", "SF", "AG", "SCD", "VIF")

METHODS = ("SDNet", "TarDAL", "DeFusion", "MetaFusion", "CDDFuse", "LRRNet", "MURF", "DDFM", "SegMIF", "EMMA")

_ROWS = {
    "msrs": """
        5.25 17.35 8.67 2.67 0.99 0.50
        5.28 25.22 5.98 1.83 0.71 0.42
        6.46 37.63 8.60 2.80 1.35 0.77
        5.65 24.97 9.99 3.40 1.14 0.31
        6.70 43.38 11.56 3.73 1.62 1.05
        6.19 31.78 8.46 2.63 0.79 0.54
        5.04 16.37 8.31 2.67 0.86 0.40
        6.19 29.26 7.44 2.51 1.45 0.73
        5.95 37.28 11.10 3.47 1.57 0.88
        6.71 44.13 11.56 3.76 1.63 0.97""",
    "roadscene": """
        7.30 44.06 14.58 5.80 1.37 0.61
        7.26 47.44 11.11 4.14 1.40 0.56
        7.36 47.03 10.99 4.38 1.62 0.63
        6.88 31.97 14.38 5.57 0.92 0.55
        7.52 54.42 14.97 5.81 1.65 0.66
        7.12 39.16 11.41 4.37 1.46 0.45
        6.91 33.34 13.88 5.37 1.04 0.52
        7.24 42.43 10.68 4.15 1.64 0.62
        7.29 46.14 14.47 5.57 1.61 0.65
        7.52 54.81 15.21 5.83 1.69 0.66""",
    "m3fd": """
        6.87 36.22 15.32 5.61 1.41 0.55
        6.80 41.77 8.65 3.17 1.35 0.51
        6.90 36.81 9.85 3.65 1.42 0.58
        6.73 30.56 16.48 6.02 1.31 0.65
        7.04 42.02 16.56 5.84 1.41 0.65
        6.58 30.28 11.83 4.21 1.34 0.54
        6.59 28.89 11.82 4.81 1.21 0.39
        6.82 32.68 10.07 3.71 1.35 0.60
        6.88 36.20 16.19 5.83 1.38 0.75
        7.12 44.01 16.92 6.23 1.48 0.66""",
    "harvard": """
        3.79 52.53 21.91 5.51 0.87 0.52
        4.74 55.73 18.02 5.35 0.86 0.31
        4.00 57.48 17.09 4.19 0.84 0.59
        3.90 65.18 28.69 6.29 1.33 0.54
        4.13 68.46 21.58 5.83 1.61 0.66
        4.15 45.71 17.39 4.47 0.23 0.51
        4.42 36.35 27.18 5.98 0.35 0.37
        3.97 59.81 16.43 4.11 1.49 0.63
        3.67 57.79 21.91 5.56 1.05 0.66
        4.81 69.42 22.15 6.02 1.64 0.66""",
}

PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    dataset: {
        method: dict(zip(COLUMNS, map(float, line.split()), strict=True))
        for method, line in zip(METHODS, rows.strip().splitlines(), strict=True)
    }
    for dataset, rows in _ROWS.items()
}
"""Data set → method → measure → value."""


def published(dataset: str) -> dict[str, dict[str, float]]:
    """Return the published measures of a data set, by method. Raises ConfigError if it has none."""
    if dataset not in PUBLISHED:
        raise ConfigError(f"no published rows for {dataset!r}; there are {', '.join(PUBLISHED)}")
    return PUBLISHED[dataset]
