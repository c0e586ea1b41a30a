"""Settings of pairing."""

from __future__ import annotations

from typing import Literal

from rtfuse.settings import Count, NotNegative, Section

Policy = Literal["lead", "strict"]


class Sync(Section, frozen=True):
    """How frames become pairs; see `rtfuse.sync.pairer.Pairer`. `queue` is the frames kept per camera when fusing lags.

    `tolerance_ms: null` takes half a frame period of the slower stream, or 20 ms where no rate is known.
    """

    policy: Policy = "lead"
    tolerance_ms: NotNegative | None = None
    max_reuse_ms: NotNegative = 150.0
    wait_ms: NotNegative = 20.0
    queue: Count = 8
