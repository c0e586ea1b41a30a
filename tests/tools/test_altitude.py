"""Heights by NMEA and MAVLink move the distance of registration of a rig; what cannot be read is said."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from live import free_port

from rtfuse.publish.control import ControlEndpoint

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "altitude.py"
GGA = "$GPGGA,092750.000,5321.6802,N,00630.3372,W,1,8,1.03,61.7,M,55.2,M,,*76\n"


def with_checksum(body):
    value = 0
    for c in body.encode():
        value ^= c
    return f"${body}*{value:02X}\n"


@pytest.fixture
def rig():
    """A control endpoint that notes the requests."""
    asked = []
    with ControlEndpoint("tcp://127.0.0.1:*", asked.append, dict) as endpoint:
        yield endpoint, asked


def test_nmea_from_a_pipe_moves_the_plane_and_bad_lines_are_said(rig):
    endpoint, asked = rig
    lines = "noise\n" + GGA + "$GPRMC,1,V*00\n" + with_checksum("GNGGA,1,,,,,0,,,,M,,M,,")
    done = subprocess.run(
        [sys.executable, TOOL, "nmea", "-", "--ground-m", "41.7", "--pitch-deg", "30", "--control", endpoint.name],
        input=lines,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert asked == [b'{"plane_m":40.0}']
    assert "1 lines cannot be read, the last: 'noise' is not a sentence of NMEA 0183" in done.stderr


def test_a_rig_that_does_not_answer_is_said():
    done = subprocess.run(
        [sys.executable, TOOL, "nmea", "-", "--ground-m", "0", "--control", f"tcp://127.0.0.1:{free_port()}"],
        input=GGA,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "61.7 m was not taken: tcp://127.0.0.1:" in done.stderr
    assert "does not answer within 2 s" in done.stderr


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["nmea", "-"], "--ground-m belongs to nmea"),
        (["nmea", "/no/such/port", "--ground-m", "1"], "No such file"),
        (["mavlink", "udpin:127.0.0.1:1", "--pitch-deg", "0"], "--pitch-deg: want more than 0"),
    ],
)
def test_wrong_options_are_one_line(options, fault):
    done = subprocess.run([sys.executable, TOOL, *options], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert fault in done.stderr
    assert "Traceback" not in done.stderr


def test_mavlink_moves_the_plane_and_the_rangefinder_comes_first(rig):
    """Needs pymavlink, which is not among the project's packages."""
    mavutil = pytest.importorskip("pymavlink.mavutil")
    endpoint, asked = rig
    port = free_port()
    command = [sys.executable, TOOL, "mavlink", f"udpin:127.0.0.1:{port}", "--control", endpoint.name]
    over = threading.Event()
    with subprocess.Popen(command, env=dict(os.environ)) as tool:
        link = mavutil.mavlink_connection(f"udpout:127.0.0.1:{port}", source_system=1)
        end_s = time.monotonic() + 30
        while b'{"plane_m":12.5}' not in asked and time.monotonic() < end_s and not over.wait(0.05):
            link.mav.global_position_int_send(0, 0, 0, 0, 12_500, 0, 0, 0, 0)
        while b'{"plane_m":7.31}' not in asked and time.monotonic() < end_s and not over.wait(0.05):
            link.mav.distance_sensor_send(0, 20, 5000, 731, 0, 0, 25, 0)
            link.mav.global_position_int_send(0, 0, 0, 0, 99_000, 0, 0, 0, 0)
        tool.terminate()
    assert asked[0] == b'{"plane_m":12.5}'
    assert b'{"plane_m":7.31}' in asked
    assert b'{"plane_m":99.0}' not in asked
