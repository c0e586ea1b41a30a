"""Fixtures of all tests."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

# Threads of a numeric library that wait for each other on small matrices cost a busy machine more than they save: each
# test process, and what it starts, has one, and two such processes share two cores (before anything imports NumPy).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

FOOTAGE = Path(os.environ.get("RTFUSE_FOOTAGE", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def footage():
    """The folder of real recordings; skips where it is absent, fails if RTFUSE_REQUIRE_FOOTAGE is set."""
    if not (FOOTAGE / "clips").is_dir():
        if os.environ.get("RTFUSE_REQUIRE_FOOTAGE"):
            pytest.fail(f"RTFUSE_REQUIRE_FOOTAGE is set, but there is no real footage in {FOOTAGE}")
        pytest.skip("needs the real recordings in ../shared/data")
    return FOOTAGE


def pytest_collection_modifyitems(items):
    """Files of slow tests go first, the longest before all, so that processes that share the files end together.

    One process alone keeps the order that it was given: with real cameras, the last file unplugs them.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    longest = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        given_s = limit.args[0] if limit else 300 if item.get_closest_marker("slow") else 0
        longest[item.path] = max(given_s, longest.get(item.path, 0))
    items.sort(key=lambda item: -longest[item.path])


def pytest_runtest_logreport(report):
    """Name a test that failed at once: a run that is cut off later never prints its summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.when} failed: {report.nodeid}\n{report.longreprtext}", file=sys.__stdout__, flush=True)


@pytest.fixture(autouse=True)
def _no_thread_stays():
    """Fail a test that leaves a thread of the product running: it would disturb another test, much later."""
    before = set(threading.enumerate())
    yield
    end = time.monotonic() + 5

    def staying():
        return [t for t in set(threading.enumerate()) - before if t.name.startswith("rtfuse-")]

    while staying() and time.monotonic() < end:
        time.sleep(0.02)
    assert not staying()


@pytest.fixture
def open_():
    """Open publishers and subscribers that are closed at the end."""
    opened = []

    def open_one(kind, *args, **kwargs):
        opened.append(kind(*args, **kwargs))
        return opened[-1]

    yield open_one
    for one in reversed(opened):
        one.close()
