"""Counts to temperatures: the inverse of what a camera sees, and what a camera displayed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtfuse.capture import flir
from rtfuse.thermal.planck import kelvin_of_counts
from rtfuse.thermal.preprocessing import ThermalFront
from rtfuse.types import Frame, Stamp, Thermal
from tests.flirs import RADIOMETRY


def seen(object_k, how):
    """Return a camera's count of an object at this temperature, from the model's own sum."""
    r1, b, f, o, r2 = how.planck
    alpha1, alpha2, beta1, beta2, x = how.air

    def signal(k):
        return r1 / (r2 * (math.exp(b / k) - f)) - o

    c = how.air_k - 273.15
    water = how.humidity * math.exp(1.5587 + 0.06939 * c - 0.00027816 * c * c + 0.00000068455 * c**3)
    d = math.sqrt(how.distance_m / 2)
    t = x * math.exp(-d * (alpha1 + beta1 * math.sqrt(water)))
    t += (1 - x) * math.exp(-d * (alpha2 + beta2 * math.sqrt(water)))
    leaves = how.emissivity * signal(object_k) + (1 - how.emissivity) * signal(how.reflected_k)
    at_window = t * leaves + (1 - t) * signal(how.air_k)
    behind = how.window_transmission * at_window + (1 - how.window_transmission) * signal(how.window_k)
    return t * behind + (1 - t) * signal(how.air_k)


@settings(max_examples=40, deadline=None)
@given(
    st.floats(280, 420),
    st.floats(0.3, 1.0),
    st.floats(0.5, 1.0),
    st.floats(0, 50),
    st.floats(0, 1),
    st.tuples(*[st.floats(260, 320)] * 3),
)
def test_the_temperature_is_that_of_the_object_that_was_seen(k, emissivity, window, distance_m, humidity, around):
    how = replace(
        RADIOMETRY,
        emissivity=emissivity,
        window_transmission=window,
        distance_m=distance_m,
        humidity=humidity,
        reflected_k=around[0],
        air_k=around[1],
        window_k=around[2],
    )
    counts = seen(k, how)
    if not 0 <= counts < 65535:
        return
    below = int(counts)
    low, high = kelvin_of_counts(how)[below : below + 2].astype(float)
    assert low + (high - low) * (counts - below) == pytest.approx(k, abs=0.02)


def test_counts_below_the_curve_have_no_temperature():
    table = kelvin_of_counts(replace(RADIOMETRY, planck=(14866.5, 1395.7, 1.0, 20000.0, 0.0110865)))
    known = np.isfinite(table)
    assert known.any()
    assert np.all(np.diff(table[known]) >= 0)
    assert (table[known] > 0).all()
    assert np.isfinite(kelvin_of_counts(RADIOMETRY)[16000:30000]).all()


def test_the_hottest_and_the_coldest_point_of_a_frame():
    counts = np.full((6, 8), 18000, np.uint16)
    counts[2, 5], counts[4, 1] = 21000, 16500
    front = ThermalFront(freeze=False)
    frame = Frame("ir", counts, 0, 0, Stamp.MEDIA, 0, thermal=Thermal(radiometry=RADIOMETRY))
    said = front(frame).thermal
    assert ((said.hot.x, said.hot.y), (said.cold.x, said.cold.y)) == ((5, 2), (1, 4))
    assert seen(said.hot.k, RADIOMETRY) == pytest.approx(21000, abs=0.5)
    assert seen(said.cold.k, RADIOMETRY) == pytest.approx(16500, abs=0.5)
    warmer = Thermal(radiometry=replace(RADIOMETRY, emissivity=0.6))
    assert front(replace(frame, thermal=warmer)).thermal.hot.k > said.hot.k + 3


def test_a_camera_displayed_the_same(footage):
    found = flir.read(footage / "rjpeg" / "FLIR_E40.jpg")
    kelvin = kelvin_of_counts(found.radiometry)[found.counts()]
    assert np.median(kelvin[58:63, 78:83]) - 273.15 == pytest.approx(20.9, abs=0.1)  # "Spot 20.9 °C" in its middle


@pytest.mark.parametrize("name", ["FLIR_E40.jpg", "FLIR_T640.jpg"])
def test_real_temperatures_are_those_whose_counts_were_seen(footage, name):
    found = flir.read(footage / "rjpeg" / name)
    counts = found.counts()
    kelvin = kelvin_of_counts(found.radiometry)[counts]
    back = np.array([seen(float(k), found.radiometry) for k in kelvin[::40, ::40].ravel()])
    assert np.abs(back - counts[::40, ::40].ravel()).max() < 0.5
