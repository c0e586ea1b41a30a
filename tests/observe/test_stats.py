"""Counting a frame must cost nothing: it is done several times for each."""

from __future__ import annotations

import tracemalloc

import pytest

from rtfuse.observe.stats import Stats


def test_counting_a_stage_again_takes_no_memory():
    stats = Stats(lambda: 0)
    stats.took("fuse", 6_000_000)
    tracemalloc.start()
    try:
        for k in range(100):
            stats.took("fuse", k * 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def test_stages_are_counted_apart():
    stats = Stats(lambda: 0)
    for _ in range(3):
        stats.took("fuse", 6_000_000)
    stats.took("publish", 1_000_000)
    found = {name: (spread.sum_ms, sum(n for _, n in spread.bins)) for name, spread in stats.snapshot().stages.items()}
    assert found == {"fuse": pytest.approx((18.0, 3)), "publish": pytest.approx((1.0, 1))}
