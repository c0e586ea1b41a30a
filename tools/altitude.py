"""Move the distance of registration of a running rig with a drone's height or a rangefinder, by MAVLink or NMEA 0183.

    rtfuse run … --calib calibration.yaml control.endpoint=tcp://127.0.0.1:5556
    python tools/altitude.py mavlink udpin:127.0.0.1:14550
    python tools/altitude.py nmea /dev/ttyUSB0 --ground-m 431

MAVLink: DISTANCE_SENSOR as it is; without one, ALTITUDE's terrain clearance, or the height over home of
GLOBAL_POSITION_INT. NMEA: the altitude of GGA less that of the ground, `--ground-m`; stty sets a serial port's speed.
A camera that looks down by `--pitch-deg` sees the ground at height / sin(pitch) along its axis.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterable, Iterator
from functools import reduce
from operator import xor

from rtfuse.client import Control
from rtfuse.errors import RtfuseError

_STEP, _PAUSE_S = 0.02, 0.2
"""A distance is sent if it differs from the last one by this share, at most each 0.2 s."""
_SILENT_S, _FRESH_S = 5.0, 2.0
"""Silence that is said; time for which a rangefinder's reading comes before a height."""
_NEAREST_M = 0.1


def altitude_of(sentence: str) -> float | None:
    """Return the altitude over the sea in metres of a GGA sentence; None for another one, or one without a fix.

    Raises ValueError for a sentence that is not NMEA 0183, or whose checksum is wrong.
    """
    start, (body, star, given) = sentence.strip()[:1], sentence.strip()[1:].partition("*")
    if star and reduce(xor, body.encode(), 0) != int(given, 16):
        raise ValueError(f"the checksum of {sentence.strip()!r} is wrong")
    fields = body.split(",")
    if start != "$" or len(fields[0]) != 5 or not fields[0].isalnum():
        raise ValueError(f"{sentence.strip()!r} is not a sentence of NMEA 0183")
    if fields[0][2:] != "GGA" or len(fields) < 11 or fields[6] in ("", "0") or not fields[9]:
        return None
    return float(fields[9])


def nmea(lines: Iterable[bytes], ground_m: float) -> Iterator[float]:
    """Yield heights over the ground in metres; sentences that cannot be read are counted and said once."""
    bad = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            altitude = altitude_of(line.decode("ascii"))
        except ValueError as e:
            bad += 1
            if bad in (1, 100, 10_000):
                print(f"{bad} lines cannot be read, the last: {e}", file=sys.stderr, flush=True)
            continue
        if altitude is not None:
            yield altitude - ground_m


def mavlink(connection: str) -> Iterator[tuple[bool, float]]:
    """Yield (True, distance along the axis by a rangefinder) or (False, height), in metres."""
    try:
        from pymavlink import mavutil
    except ImportError as e:
        raise SystemExit("MAVLink needs pymavlink: pip install pymavlink") from e
    try:
        link = mavutil.mavlink_connection(connection)
    except (OSError, ValueError, TypeError) as e:
        raise SystemExit(f"{connection}: {e}; want for example udpin:127.0.0.1:14550 or /dev/ttyACM0") from e
    ranged_s = -math.inf
    while True:
        m = link.recv_match(
            type=["DISTANCE_SENSOR", "ALTITUDE", "GLOBAL_POSITION_INT"], blocking=True, timeout=_SILENT_S
        )
        now_s = time.monotonic()
        if m is None:
            print(f"{connection}: nothing for {_SILENT_S:g} s; the distance stays", file=sys.stderr, flush=True)
        elif m.get_type() == "DISTANCE_SENSOR":
            if m.min_distance <= m.current_distance <= m.max_distance:
                ranged_s = now_s
                yield True, m.current_distance / 100
        elif now_s - ranged_s < _FRESH_S:
            continue
        elif m.get_type() == "ALTITUDE":
            if math.isfinite(m.bottom_clearance) and m.bottom_clearance > 0:
                yield False, float(m.bottom_clearance)
        else:
            yield False, m.relative_alt / 1000


def follow(distances_m: Iterable[float], control: Control) -> None:
    """Send each distance that differs enough from the last; a refused one is said, and the next is tried."""
    sent_m, sent_s, said = None, -math.inf, ""
    for distance_m in distances_m:
        wanted_m, now_s = max(distance_m, _NEAREST_M), time.monotonic()
        if now_s - sent_s < _PAUSE_S or (sent_m is not None and abs(wanted_m / sent_m - 1) < _STEP):
            continue
        try:
            control.change(plane_m=round(wanted_m, 3))
            text = ""
        except (RtfuseError, ValueError) as e:
            text = str(e)
        if text and text != said:
            print(f"{wanted_m:g} m was not taken: {text}", file=sys.stderr, flush=True)
        if said and not text:
            print("the rig takes distances again", file=sys.stderr, flush=True)
        said, sent_s, sent_m = text, now_s, None if text else wanted_m


def main() -> None:
    """Run until the source ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("mavlink", "nmea"))
    parser.add_argument("source", help="connection of pymavlink; or serial port or file of NMEA, - for standard input")
    parser.add_argument("--control", default="tcp://127.0.0.1:5556", help="control.endpoint of the rig")
    parser.add_argument("--keys", help="client key file, for a rig that encrypts")
    parser.add_argument("--ground-m", type=float, help="altitude of the ground over the sea, for NMEA")
    parser.add_argument("--pitch-deg", type=float, default=90.0, help="the camera looks down by this much")
    given = parser.parse_args()
    if not 0 < given.pitch_deg <= 90:
        parser.error(f"--pitch-deg: want more than 0 and at most 90, found {given.pitch_deg:g}")
    if (given.ground_m is None) == (given.kind == "nmea"):
        parser.error("--ground-m belongs to nmea, which needs it: GGA tells heights over the sea")
    slant = 1 / math.sin(math.radians(given.pitch_deg))
    try:
        with Control(given.control, keys=given.keys) as control:
            if given.kind == "mavlink":
                follow((m if ranged else m * slant for ranged, m in mavlink(given.source)), control)
            else:
                with sys.stdin.buffer if given.source == "-" else open(given.source, "rb") as lines:
                    follow((m * slant for m in nmea(lines, given.ground_m)), control)
    except (OSError, RtfuseError) as e:
        raise SystemExit(f"error: {e}") from e
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
