"""Settings of pairing."""

from __future__ import annotations

from typing import Literal

from rtfuse.settings import Count, NotNegative, Section

PairingPolicy = Literal["lead", "strict"]
Starts = Literal["auto", "own", "same"]


class Sync(Section, frozen=True):
    """Pairing by capture time; see `rtfuse.sync.pairer.Pairer`.

    - `policy`: `lead` gives every RGB frame its nearest thermal frame, `strict` uses no frame twice.
    - `tolerance_ms`: the largest skew; null: half a frame period of the slower stream, of recordings at most 50 ms, or
      20 ms without a known rate.
    - `max_reuse_ms`: the greatest age of a thermal frame that is used again.
    - `wait_ms`: the longest wait of an RGB frame for a nearer thermal frame.
    - `starts`: how the times of two recordings are compared: `auto` by their time codes or creation times, where both
      have them and overlap by them, else as `own`; `own` by the files' own times; `same` takes the first frames as one
      moment (`--align-starts`).
    - `queue`: the most moments that wait when fusing lags.
    """

    policy: PairingPolicy = "lead"
    tolerance_ms: NotNegative | None = None
    max_reuse_ms: NotNegative = 150.0
    wait_ms: NotNegative = 20.0
    starts: Starts = "auto"
    queue: Count = 8
