"""The verdicts of tools/bench_load.py about a phase."""

from __future__ import annotations

import numpy as np

from tools.bench_load import Phase, fault

FLAT, GROWING = np.full(300, 40.0), np.linspace(10, 190, 300)
LINE = "WARNING  too little processor (frames are 101 ms old): the fuser to pyramid"


def phase(ages_ms, seconds=20.0, said=()):
    return Phase("a phase", ages_ms, seconds, list(said))


def test_one_core_passes_at_the_least_rate_with_a_flat_age():
    assert fault(phase(FLAT), 15, one_core=True) is None
    assert fault(phase(FLAT), 30, one_core=True) is None


def test_one_core_must_not_lose_its_rate_its_age_or_its_flatness_in_silence():
    for bad in (phase(FLAT, seconds=22), phase(FLAT * 6), phase(GROWING), phase(FLAT[:0])):
        assert "want 14.2, 200 and 1.5" in fault(bad, 15, one_core=True)
        bad.said.append(LINE)
        assert fault(bad, 15, one_core=True) is None


def test_a_crowd_must_keep_p99_within_three_periods_whatever_the_log_says():
    assert fault(phase(FLAT), 30, one_core=False) is None
    assert "240 ms, want at most 100" in fault(phase(FLAT * 6, said=[LINE]), 30, one_core=False)
