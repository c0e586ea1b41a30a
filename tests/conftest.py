"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOOTAGE = Path(os.environ.get("RTFUSE_FOOTAGE", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def footage():
    """The folder of real recordings; skips where it is absent, fails if RTFUSE_REQUIRE_FOOTAGE is set."""
    if not (FOOTAGE / "clips").is_dir():
        if os.environ.get("RTFUSE_REQUIRE_FOOTAGE"):
            pytest.fail(f"RTFUSE_REQUIRE_FOOTAGE is set, but there is no real footage in {FOOTAGE}")
        pytest.skip("needs the real recordings in ../shared/data")
    return FOOTAGE
