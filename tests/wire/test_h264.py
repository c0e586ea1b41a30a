"""H.264: late joiners and those that lost messages begin again at a key frame; what is no such stream is refused."""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
import pytest
from scenes import picture

from rtfuse.errors import ConfigError, WireError
from rtfuse.picture import Coding, Picture
from rtfuse.wire import h264
from rtfuse.wire.h264 import H264Decoder, H264Encoder
from rtfuse.wire.message import Header


def header(unit, key, image, session="s"):
    numbers = dict.fromkeys(("ir_id", "rgb_id", "ir_t_ns", "rgb_t_ns", "skew_ns", "age_ns", "published_ns"), 0)
    return Header(
        **numbers,
        **dict.fromkeys(("rig", "mode", "fuser", "stamp"), "x"),
        published_unix_ms=0,
        session=session,
        seq=unit,
        unit=unit,
        key_frame=key,
        width=image.shape[1],
        height=image.shape[0],
        encoding="h264",
        pixel_format="rgb24" if image.ndim == 3 else "gray8",
    )


def stream(images, *, encoder=None, rate_hz=30.0, joins=()):
    """Encode pictures; yields header, payload and picture. Somebody joins before those numbered in `joins`."""
    encoder = encoder or H264Encoder()
    for k, image in enumerate(images):
        if k in joins:
            encoder.want_key()
        payload, key = encoder(image, 5 + k / rate_hz)
        yield header(k, key, image), memoryview(payload), image


def pictures(count, size_wh=(64, 48)):
    return [picture(k, size_wh) for k in range(count)]


def array(content):
    """Return a decoder's frame as an array."""
    return content.rgb if isinstance(content, Picture) else content


@pytest.mark.parametrize("size_wh", [(64, 48), (63, 47), (2, 2), (641, 361)])
@pytest.mark.parametrize("gray", [False, True])
def test_every_unit_gives_its_picture_at_once(size_wh, gray):
    decoder = H264Decoder()
    images = [np.ascontiguousarray(p[..., 1]) if gray else p for p in pictures(8, size_wh)]
    for head, payload, image in stream(images):
        content = decoder(head, payload)
        got = array(content)
        assert got.shape == image.shape
        for array_ in content.planes[:1] if isinstance(content, Picture) else (content,):
            assert not array_.flags.writeable
        if gray:  # colours are at half the resolution
            assert np.abs(got.astype(int) - image).mean() < 6


def test_colours_and_levels_are_kept():
    for colour in [(200, 40, 90), (0, 0, 0), (255, 255, 255), (10, 240, 30)]:
        image = np.empty((32, 48, 3), np.uint8)
        image[:] = colour
        ((head, payload, _),) = stream([image])
        assert np.abs(array(H264Decoder()(head, payload)).astype(int) - image).max() <= 6
    ramp = np.tile(np.arange(0, 256, 2, np.uint8), (32, 1))
    ((head, payload, _),) = stream([ramp])
    got = H264Decoder()(head, payload).astype(int)
    assert np.abs(got - ramp).max() <= 8
    assert (got[:, :2].max(), got[:, -2:].min()) == (pytest.approx(0, abs=4), pytest.approx(254, abs=4))


def test_planes_are_those_of_the_decoder_and_stay(monkeypatch):
    frames, decoder = [], H264Decoder()
    kept = []
    plain = h264._content
    monkeypatch.setattr(h264, "_content", lambda frame, head: frames.append(frame.to_ndarray()) or plain(frame, head))
    for head, payload, _ in stream(pictures(20)):
        kept.append(decoder(head, payload))
    for planar, content in zip(frames, kept, strict=True):
        assert content.coding == Coding()
        assert np.array_equal(np.concatenate([plane.ravel() for plane in content.i420()]), planar.ravel())
        assert np.array_equal(content.rgb, cv2.cvtColor(planar, cv2.COLOR_YUV2RGB_I420))


def test_a_key_frame_comes_every_second_and_for_whoever_joins_but_not_for_each_of_a_crowd():
    keys = [head.unit for head, _, _ in stream(pictures(70), joins=(10, 11, 12, 13))]
    assert keys == list(range(70))
    keys = [head.unit for head, _, _ in stream(pictures(70), joins=(10, 11, 12, 13)) if head.key_frame]
    assert keys == [0, 10, 16, 46]


def test_every_key_frame_is_enough_to_begin_with():
    units = list(stream(pictures(40), joins=(10, 20)))
    for first in range(len(units)):
        decoder = H264Decoder()
        shown = [head.unit for head, payload, _ in units[first:] if decoder(head, payload) is not None]
        begin = next((head.unit for head, _, _ in units[first:] if head.key_frame), None)
        assert shown == ([] if begin is None else list(range(begin, 40)))


def test_after_lost_units_the_next_key_frame_begins_again():
    decoder = H264Decoder()
    units = [unit for unit in stream(pictures(60), joins=(20,)) if unit[0].unit not in (5, 6, 25)]
    shown = [head.unit for head, payload, _ in units if decoder(head, payload) is not None]
    assert shown == [*range(5), *range(20, 25), *range(50, 60)]


def test_another_size_and_another_session_begin_again():
    encoder, decoder = H264Encoder(), H264Decoder()
    small, large = pictures(3), pictures(3, (96, 64))
    for k, image in enumerate([*small, *large]):
        payload, key = encoder(image, k / 30)
        assert key == (k in (0, 3))
        assert decoder(header(k, key, image), memoryview(payload)).shape_hw == image.shape[:2]
    other = list(stream(small))
    head, payload, _ = other[1]
    assert decoder(msgspec.structs.replace(head, session="t", unit=6), payload) is None
    head, payload, _ = other[0]
    assert decoder(msgspec.structs.replace(head, session="t", unit=7), payload) is not None


def test_the_rate_is_bounded_where_asked_for():
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (120, 160, 3), np.uint8) for _ in range(60)]
    free, bound = (sum(len(payload) for _, payload, _ in stream(noise, encoder=H264Encoder(k))) for k in (None, 300))
    assert bound * 8 / 2 < 400_000
    assert free > 5 * bound


def test_what_is_no_such_unit_is_refused_before_it_is_decoded():
    (head, payload, image), (next_head, next_payload, _) = stream(pictures(2))
    replace = msgspec.structs.replace
    for wrong_head, wrong, words in [
        (head, b"", "start code"),
        (head, b"\0\0\1", "parameter sets"),
        (head, next_payload, "without its parameter sets"),
        (head, b"\0\0\1" * 2000 + bytes(payload), "too many parts"),
        (replace(head, pixel_format="gray16le"), payload, "gray16le"),
        (replace(head, width=16_000, height=1000), payload, "at most"),
        (replace(head, width=60), payload, "64x48"),
        (replace(head, width=640, height=480), payload, "64x48"),
        (head, bytes(payload)[:60] + b"\0\0\1\x65garbage", "cannot be decoded|holds 0"),
    ]:
        with pytest.raises(WireError, match=words):
            H264Decoder()(wrong_head, memoryview(bytes(wrong)))
    decoder = H264Decoder()
    assert array(decoder(head, payload)).shape == image.shape
    with pytest.raises(WireError, match="not a key frame"):
        decoder(next_head, memoryview(bytes(payload)))
    assert decoder(next_head, next_payload) is None  # it waits for a key frame


def test_a_small_unit_cannot_become_a_huge_picture():
    head, payload, _ = next(stream(pictures(1, (1920, 1080))))
    small = msgspec.structs.replace(head, width=64, height=48)
    with pytest.raises(WireError, match="cannot be decoded"):
        H264Decoder()(small, payload)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 64), (2400, 4200)])
def test_sizes_that_cannot_be_coded_are_refused(shape):
    with pytest.raises(ConfigError, match="cannot be sent as h264"):
        H264Encoder()(np.zeros(shape, np.uint8), 0.0)
