"""Every fault of tools/faults.py, played in real time on the real pipeline.

Times depend on the machine, so these tests allow several times the figures of docs/measurements.md. They are exact
about pairs: none is wrong, and no old picture is shown as new.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tools.faults import FAULTS, run, table

pytestmark = pytest.mark.slow

_AT_ONCE = 4
BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.fixture(scope="module")
def outcomes():
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(BY_NAME, pool.map(run, FAULTS), strict=True))


@pytest.mark.parametrize("name", BY_NAME)
def test_no_fault_makes_a_wrong_pair(outcomes, name):
    assert outcomes[name].wrong == 0
    assert outcomes[name].old == 0


@pytest.mark.parametrize("name", [n for n in BY_NAME if "both" not in n and n != "hold-both"])
def test_the_output_goes_on(outcomes, name):
    assert outcomes[name].gap_ms < 600


@pytest.mark.parametrize("name", [n for n, fault in BY_NAME.items() if fault.ends_s is not None])
def test_fusing_goes_on_within_a_second_of_the_return(outcomes, name):
    assert outcomes[name].recovery_ms < 1500


@pytest.mark.parametrize(
    ("name", "modes"),
    [
        ("none", {"fused"}),
        ("loss-of-thermal", {"fused", "rgb"}),
        ("loss-of-rgb", {"fused", "ir"}),
        ("stall-of-rgb", {"fused", "ir"}),
        ("frozen-rgb", {"fused", "ir"}),
        ("frozen-thermal", {"fused", "rgb"}),
    ],
)
def test_what_is_left_is_published_alone(outcomes, name, modes):
    assert modes <= set(outcomes[name].modes)
    assert set(outcomes[name].modes) <= modes | {"rgb", "ir"}


@pytest.mark.parametrize("name", [n for n, fault in BY_NAME.items() if fault.policy == "hold"])
def test_hold_shows_the_last_picture_on(outcomes, name):
    assert outcomes[name].modes["held"] >= 5
    assert set(outcomes[name].modes) == {"fused", "held"}


def test_what_went_wrong_is_counted(outcomes):
    def counted(name, where, cause):
        return outcomes[name].snapshot.drops.get((where, cause), 0)

    assert counted("loss-of-thermal", "ir", "lost") == 1
    assert counted("corrupt", "rgb", "corrupt") + counted("corrupt", "ir", "corrupt") >= 3
    assert counted("shutter", "ir", "frozen") >= 10
    assert outcomes["clock-ahead"].snapshot.streams["ir"].clock_steps == 1


def test_the_table_has_a_row_for_every_fault(outcomes):
    assert table(list(outcomes.values())).row_count == len(FAULTS)
