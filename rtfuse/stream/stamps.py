"""Write and read the capture time of a picture in its stream: as KLV (MISB ST 0601) and in H.264 itself (ST 0604)."""

from __future__ import annotations

_KEY = bytes.fromhex("060e2b34020b01010e01030101000000")
"""The universal key of the UAS Datalink Local Set (MISB ST 0601)."""
_CHECKSUM, _TIME, _VERSION = 1, 2, 65
_ST0601 = 19
"""The revision of the standard that the set follows."""
_UUID = b"MISPmicrosectime"
_UNKNOWN_LOCK = 0x9F
"""Time status (MISB ST 0603): nothing is known about the lock of the clock; no jump."""


def klv(utc_us: int) -> bytes:
    """Return a local set with the time in microseconds of UTC since 1970: tags 2, 65 and the checksum 1."""
    body = bytes([_TIME, 8]) + utc_us.to_bytes(8, "big") + bytes([_VERSION, 1, _ST0601, _CHECKSUM, 2])
    data = _KEY + bytes([len(body) + 2]) + body
    return data + _sum(data).to_bytes(2, "big")


def time_of_klv(data: bytes) -> int:
    """Return the time of a local set in microseconds. Raises ValueError for another set, or a wrong checksum."""
    if data[:16] != _KEY or len(data) < 21 or data[16] != len(data) - 17:
        raise ValueError("not a whole local set of MISB ST 0601")
    if _sum(data[:-2]) != int.from_bytes(data[-2:], "big"):
        raise ValueError("the checksum of the local set is wrong")
    at = 17
    while at + 2 <= len(data):
        tag, size = data[at], data[at + 1]
        if tag == _TIME:
            return int.from_bytes(data[at + 2 : at + 2 + size], "big")
        at += 2 + size
    raise ValueError("the local set has no time")


def _sum(data: bytes) -> int:
    """Return the checksum of ST 0601: the sum of its words of 16 bits."""
    return sum(value << 8 if k % 2 == 0 else value for k, value in enumerate(data)) & 0xFFFF


def stamped(unit: bytes, utc_us: int) -> bytes:
    """Return an access unit of H.264 (Annex B) with its capture time as an SEI message before the first slice."""
    time = utc_us.to_bytes(8, "big")
    spaced = b"\xff".join(time[k : k + 2] for k in range(0, 8, 2))  # so that no start code can occur
    payload = _UUID + bytes([_UNKNOWN_LOCK]) + spaced
    message = b"\0\0\0\1\x06\x05" + bytes([len(payload)]) + payload + b"\x80"
    at = _first_slice(unit)
    return unit[:at] + message + unit[at:]


def _first_slice(unit: bytes) -> int:
    """Return the index of the start code before the first slice; 0 without one."""
    at = unit.find(b"\0\0\1")
    while 0 <= at < len(unit) - 3:
        if 1 <= unit[at + 3] & 31 <= 5:
            return at - 1 if at and unit[at - 1] == 0 else at
        at = unit.find(b"\0\0\1", at + 3)
    return 0


def time_of_sei(payload: bytes) -> int | None:
    """Return the time in an unregistered SEI payload (UUID and data) in microseconds; None for another one."""
    if payload[:16] != _UUID or len(payload) < 28:
        return None
    return int.from_bytes(b"".join(payload[k : k + 2] for k in (17, 20, 23, 26)), "big")
