"""The soak in compressed time; `python tools/soak.py` runs the real command for an hour."""

from __future__ import annotations

import pytest

from tools.soak import Sample, compressed, grown


@pytest.mark.slow
def test_a_hundred_thousand_faulty_frames_leave_nothing_behind():
    samples = compressed(100_000)
    assert samples[-1].frames > 50_000
    assert grown(samples) == []


def test_growth_is_seen():
    """The soak itself must not be blind."""
    flat = [Sample(k, 100_000, 20, 9, 8.0) for k in range(20)]
    assert grown(flat) == []
    leaking = [Sample(k, 100_000 + 5_000 * k, 20, 9, 8.0) for k in range(20)]
    assert any("resident" in fault for fault in grown(leaking))
    lagging = [Sample(k, 100_000, 20, 9, 8.0 + 3 * k) for k in range(20)]
    assert any("age" in fault for fault in grown(lagging))
    hoarding = [Sample(k, 100_000, 20 + k, 9, 8.0) for k in range(20)]
    assert any("descriptors" in fault for fault in grown(hoarding))
