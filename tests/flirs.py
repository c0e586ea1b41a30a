"""Radiometric files made on the spot, as FLIR's cameras write them: records, FFF, the segments of a JPEG."""

from __future__ import annotations

import struct

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame

from rtfuse.types import Radiometry

PIXELS, PHOTO, CAMERA, PALETTE, PIP = 0x01, 0x0E, 0x20, 0x22, 0x2A
RADIOMETRY = Radiometry(
    planck=(14866.5, 1395.7, 1.0, -5859.0, 0.0110865),
    air=(0.006569, 0.01262, -0.002276, -0.00667, 1.9),
    emissivity=0.95,
    distance_m=2.0,
    reflected_k=294.14,
    air_k=287.14,
    window_k=292.14,
    window_transmission=0.98,
    humidity=0.49,
)


def encoded(counts, how):
    """Counts (H, W) uint16 as a camera stores them: raw< raw> png (bytes swapped, as FLIR does) png> or jpegls."""
    if how in ("raw<", "raw>"):
        return counts.astype(f"{how[-1]}u2").tobytes()
    if how == "jpegls":
        encoder = av.CodecContext.create("jpegls", "w")
        encoder.height, encoder.width = counts.shape
        encoder.pix_fmt, encoder.time_base = "gray16le", 1
        packets = encoder.encode(VideoFrame.from_ndarray(counts, format="gray16le")) + encoder.encode(None)
        return b"".join(map(bytes, packets))
    return cv2.imencode(".png", counts if how == "png>" else counts.byteswap())[1].tobytes()


def pixels(counts, how="raw<", order="<"):
    """The record of counts: (type, subtype, contents)."""
    h, w = counts.shape
    subtype = {"raw>": 1, "raw<": 2}.get(how, 3)
    return PIXELS, subtype, struct.pack(f"{order}3H26x", 2, w, h) + encoded(counts, how)


def photo(rgb, how="jpeg", order="<"):
    """The record of a photo (H, W, 3) uint8 RGB: jpeg, png (Y Cb Cr) or bytes (Y Cb Cr)."""
    h, w = rgb.shape[:2]
    ycc = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    data = {
        "jpeg": lambda: cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes(),
        "png": lambda: cv2.imencode(".png", ycc[..., ::-1])[1].tobytes(),
        "bytes": ycc.tobytes,
    }[how]()
    return PHOTO, 5, struct.pack(f"{order}3H26x", 3, w, h) + data


def camera(size_wh, how=RADIOMETRY, *, order="<", zoom=1.0, seconds=1365762241, ms=131, rate_hz=30):
    """The record of the camera's constants, of its names, its display's zoom and the time."""
    record = bytearray(0x9A0)
    struct.pack_into(f"{order}3H", record, 0, 2, *size_wh)
    scene = (how.emissivity, how.distance_m, how.reflected_k, how.air_k, how.window_k, how.window_transmission)
    struct.pack_into(f"{order}6f", record, 0x20, *scene)
    struct.pack_into(f"{order}f", record, 0x3C, how.humidity)
    r1, b, f, o, r2 = how.planck
    struct.pack_into(f"{order}3f", record, 0x58, r1, b, f)
    struct.pack_into(f"{order}5f", record, 0x70, *how.air)
    struct.pack_into(f"{order}if", record, 0x308, round(o), r2)
    struct.pack_into(f"{order}2f", record, 0x368, 1.0, zoom)
    struct.pack_into(f"{order}2I", record, 0x384, seconds, ms)
    struct.pack_into(f"{order}H", record, 0x464, rate_hz)
    struct.pack_into(f"{order}f", record, 0x1B4, 25.0)
    record[0xD4:0xDD] = b"FLIR T640"
    record[0x170:0x175] = b"FOL25"
    return CAMERA, 1, bytes(record)


def pip(real_to_ir, offset_xy, box=(0, 0, 0, 0)):
    """The record of the place of thermal in the photo."""
    return PIP, 1, struct.pack("<f6h", real_to_ir, *offset_xy, *box) + bytes(80)


def fff(*records, order=">", magic=b"FFF\0"):
    """Records as one FFF, its directory after the header, with one unused entry."""
    at, entries, body = 64 + 32 * (len(records) + 1), b"", b""
    for kind, subtype, data in records:
        entries += struct.pack(f"{order}2H7I", kind, subtype, 100, 1, at + len(body), len(data), 0, 0, 0)
        body += data
    head = magic + bytes(16) + struct.pack(f"{order}4I", 100, 64, len(records) + 1, 2) + bytes(28)
    return head + entries + bytes(32) + body


def rjpeg(data, screenshot=None, part=65524):
    """An FFF inside a JPEG: APP1 segments with a mark, 1, number and last number, behind the first marker."""
    if screenshot is None:
        screenshot = np.full((120, 160, 3), 90, np.uint8)
    shown = cv2.imencode(".jpg", screenshot)[1].tobytes()
    parts = [data[k : k + part] for k in range(0, len(data), part)]
    segments = b""
    for number, piece in enumerate(parts):
        inside = b"FLIR\0\x01" + bytes([number, len(parts) - 1]) + piece
        segments += b"\xff\xe1" + struct.pack(">H", len(inside) + 2) + inside
    return shown[:2] + segments + shown[2:]
