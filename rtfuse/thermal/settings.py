"""Settings of the thermal stream: the camera's frames, and the mapping of counts to brightness."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from rtfuse.settings import NotNegative, Positive, Section, Share

Method = Literal["plateau", "linear", "clahe"]
Polarity = Literal["white-hot", "black-hot"]


class AgcSettings(Section, frozen=True):
    """Mapping of 16-bit counts to 8-bit brightness; see `rtfuse.thermal.agc.Agc`.

    - `tails`: the shares of pixels that may clip to black and to white.
    - `plateau`: the cap of a histogram bin, in multiples of the mean occupied bin.
    - `max_gain`: the steepest rise, in grey levels per count.
    - `midpoint`: the grey level of the scene's mean where levels are left over; null: 128.
    - `tau_ms`: the time constant of the smoothing.
    - `region`: left, top, width, height of the part that sets the mapping, as shares of the picture from 0 to 1.
    - `freeze`: keep the current table, or the first one computed.
    """

    method: Method = "plateau"
    tails: tuple[Share, Share] = (0.001, 0.001)
    plateau: Positive = 2.0
    max_gain: Positive = 1.5
    midpoint: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    tau_ms: NotNegative = 700.0
    region: tuple[Share, Share, Share, Share] | None = None
    freeze: bool = False


class Thermal(Section, frozen=True):
    """Settings of the thermal camera's frames, and of their display; see `rtfuse.thermal`.

    - `camera`: a layout of `rtfuse.thermal.cameras`, or `auto`, which goes by the picture's size.
    - `k_per_count`: the scale of any other radiometric camera (0.01 for centikelvin).
    - `polarity`: the one in which the camera delivers its picture.
    - `dead_pixels`: an image of the camera's size, not black where a pixel is dead, or a text file of `x y` lines.
    """

    camera: str = "auto"
    k_per_count: Positive | None = None
    polarity: Polarity = "white-hot"
    dead_pixels: str | None = None
    agc: AgcSettings = AgcSettings()
