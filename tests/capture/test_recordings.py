"""Recordings and network streams: every frame, its time, its depth, and honest words about damage."""

from __future__ import annotations

import io
import socket
import threading
import time
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count

import av
import numpy as np
import pytest
import strips
from av.video.frame import VideoFrame
from live import free_port
from PIL import Image, ImageOps
from scenes import picture, write_video

from rtfuse.capture import open_source
from rtfuse.capture.network import NetworkStream
from rtfuse.capture.recordings import Recording
from rtfuse.errors import DeviceUnavailable, SourceLost, SourceNotFound, SourceUnreadable
from rtfuse.types import Stamp


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "mpeg4"), ("mkv", "libx264"), ("avi", "mpeg4"), ("ts", "libx264")]
)
@pytest.mark.parametrize("fps", [22, 30, 30000 / 1001])
def test_every_frame_comes_in_order_with_its_time(tmp_path, suffix, codec, fps):
    source = open_source(str(write_video(tmp_path / f"v.{suffix}", 40, fps=fps, codec=codec)), "rgb")
    frames = list(source)
    assert [f.frame_id for f in frames] == list(range(40))
    start = frames[0].t_ns
    assert [(f.t_ns - start) / 1e9 for f in frames] == pytest.approx([k / fps for k in range(40)], abs=1.1e-3)
    assert source.info.rate_hz == pytest.approx(fps, rel=0.01)
    assert source.info.size_wh == (64, 48)
    assert frames[0].stamp is Stamp.MEDIA
    assert not source.losses


def test_pictures_are_those_that_were_recorded(tmp_path):
    path = str(write_video(tmp_path / "v.mp4", 10, codec="libx264", size_wh=(128, 96)))
    for k, frame in enumerate(Recording(path, "rgb")):
        assert np.abs(frame.image.astype(int) - picture(k, (128, 96))).mean() < 12
    gray = str(write_video(tmp_path / "g.mp4", 10, codec="libx264", gray=True, size_wh=(128, 96)))
    for k, frame in enumerate(Recording(gray, "ir")):
        assert np.abs(frame.image.astype(int) - picture(k, (128, 96), 1)).mean() < 6


def test_sixteen_bit_thermal_video_keeps_its_counts(tmp_path):
    counts = (np.arange(48 * 64, dtype=np.uint16) * 21).reshape(48, 64)
    with av.open(str(tmp_path / "t.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=9)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray16le"
        container.mux(stream.encode(VideoFrame.from_ndarray(counts, format="gray16le")))
        container.mux(stream.encode(None))
    source = Recording(str(tmp_path / "t.mkv"), "ir")
    (frame,) = source
    assert source.info.dtype == "uint16"
    assert np.array_equal(frame.image, counts)


def test_a_late_start_is_kept(tmp_path):
    source = Recording(str(write_video(tmp_path / "v.mkv", 10, start_s=3.0)), "rgb")
    assert source.info.start_ns == pytest.approx(3e9, abs=2e6)
    assert next(iter(source)).t_ns == pytest.approx(3e9, abs=2e6)


def test_a_cut_file_gives_what_is_readable_and_counts_the_rest(tmp_path):
    path = write_video(tmp_path / "v.mkv", 90, codec="libx264", size_wh=(128, 96))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = Recording(str(path), "rgb")
    seen = len(list(source))
    assert 10 < seen < 80
    assert source.losses["truncated"] == pytest.approx(90 - seen, abs=3)


def test_damage_in_the_middle_is_survived(tmp_path):
    path = write_video(tmp_path / "v.avi", 90, size_wh=(128, 96))
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at : at + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)
    seen = len(list(Recording(str(path), "rgb")))
    assert 40 < seen <= 90


@pytest.mark.parametrize(("codec", "b_frames"), [("mpeg4", 0), ("mpeg4", 2), ("libx264", 0), ("libx264", 3)])
def test_the_empty_places_of_an_avi_stay_between_the_same_frames(tmp_path, codec, b_frames):
    """The container has the order of packets alone: with B-frames, its places are those of frames shown earlier."""
    kept = [k for k in range(80) if k % 7 != 3 and not 30 < k < 40]
    times = [k / 30 for k in kept]
    path = strips.write(tmp_path / "v.avi", kept, times, codec=codec, b_frames=b_frames, base=Fraction(1, 30))
    got = [(strips.number_in(frame.image), round(frame.t_ns * 30 / 1e9)) for frame in Recording(str(path), "rgb")]
    assert got == [(k, k) for k in kept[: len(got)]]
    assert len(got) == len(kept)


def test_packets_that_damage_hides_in_an_avi_are_counted_and_the_others_keep_their_places(tmp_path):
    path = strips.write(
        tmp_path / "v.avi", range(60), strips.steady(60), codec="mjpeg", pix_fmt="yuvj420p", base=Fraction(1, 30)
    )
    data, size = path.read_bytes(), path.stat().st_size
    path.write_bytes(data[: size // 2] + bytes(size // 12) + data[size // 2 + size // 12 :])
    source = Recording(str(path), "rgb")
    got = [(strips.number_in(frame.image), round(frame.t_ns * 30 / 1e9)) for frame in source]
    assert 40 < len(got) < 59
    assert len(got) + source.losses["corrupt"] == 60
    assert all(number == place for number, place in got)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("v.avi", "mjpeg", "yuvj420p"), ("v.mkv", "mjpeg", "yuvj420p"), ("v.mkv", "ffv1", "gray")],
)
def test_damaged_pictures_are_counted_and_never_shown(tmp_path, name, codec, pix_fmt):
    path = strips.write(
        tmp_path / name, range(40), strips.steady(40), codec=codec, pix_fmt=pix_fmt, gray=codec == "ffv1",
        base=Fraction(1, 30), options={"level": "3", "g": "8"} if codec == "ffv1" else None,
    )  # fmt: skip
    whole = [frame.image for frame in Recording(str(path), "rgb")]
    assert len(whole) == 40
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for k in (5, 21):
        at = places[k][0] + places[k][1] * 3 // 4  # behind the header
        data[at : at + 40] = b"\xff\xc4" * 20
    path.write_bytes(data)
    source = Recording(str(path), "rgb")
    got = {round(frame.t_ns * 30 / 1e9): frame.image for frame in source}
    assert source.losses["corrupt"] == 40 - len(got) >= 2
    assert {5, 21}.isdisjoint(got)
    assert all(np.array_equal(image, whole[k]) for k, image in got.items())


def test_the_parts_of_a_list_begin_and_end_where_it_says(tmp_path):
    for name, numbers in (("a", range(30)), ("b", range(30, 60))):
        strips.write(tmp_path / f"{name}.mp4", numbers, strips.steady(30))
    path = tmp_path / "v.ffconcat"
    path.write_text("ffconcat version 1.0\nfile a.mp4\ninpoint 0.5\noutpoint 0.8\nfile b.mp4\ninpoint 0.2\n")
    source = Recording(str(path), "rgb")
    got = [(strips.number_in(frame.image), round(frame.t_ns * 30 / 1e9)) for frame in source]
    assert got == [(k, at) for at, k in enumerate([*range(15, 24), *range(36, 60)])]
    assert source.info.start_ns == 0
    assert not source.losses


@pytest.mark.parametrize(("orientation", "size_wh"), [(k, (48, 32) if k < 5 else (32, 48)) for k in range(1, 9)])
def test_exif_in_a_row_of_jpeg_turns_the_pictures_and_ends_nothing(tmp_path, orientation, size_wh):
    image = np.zeros((32, 48, 3), np.uint8)
    image[:8, :8] = 255
    image[:8, 8:16] = 120
    exif = Image.Exif()
    exif[0x0112] = orientation
    one = io.BytesIO()
    Image.fromarray(image).save(one, "JPEG", exif=exif, quality=95)
    path = tmp_path / "v.mjpeg"
    path.write_bytes(one.getvalue() * 3)
    source = Recording(str(path), "rgb")
    assert source.info.size_wh == size_wh
    want = np.asarray(ImageOps.exif_transpose(Image.open(one)))
    images = [frame.image for frame in source]
    assert len(images) == 3
    assert all(np.abs(got.astype(int) - want).mean() < 3 for got in images)


def test_what_is_no_video_is_refused_by_name(tmp_path):
    def refused(name, error, message):
        with pytest.raises(error, match=message) as caught:
            open_source(str(tmp_path / name), "ir")
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)

    refused("absent.mp4", SourceNotFound, "thermal recording not found")
    (tmp_path / "empty.mp4").touch()
    refused("empty.mp4", SourceUnreadable, "is empty")
    (tmp_path / "notes.mp4").write_text("these are notes\n" * 100)
    refused("notes.mp4", SourceUnreadable, "not a video")
    path = write_video(tmp_path / "cut.mp4", 30)
    path.write_bytes(path.read_bytes()[:2000])
    refused("cut.mp4", SourceUnreadable, "cut off")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    refused("sound.wav", SourceUnreadable, "no readable video frame")


def test_close_ends_the_iteration(tmp_path):
    source = Recording(str(write_video(tmp_path / "v.mp4", 50)), "rgb")
    seen = 0
    for frame in source:
        seen += 1
        if frame.frame_id == 4:
            source.close()
    assert seen == 5
    assert not source.losses


class _Camera(BaseHTTPRequestHandler):
    """An HTTP camera: sends its video as it comes, without a length, and hangs up at the end."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        parts = 90
        for k in range(parts):  # at the pace of a camera
            at, end = (len(self.server.video) * n // parts for n in (k, k + 1))
            self.wfile.write(self.server.video[at:end])
            self.wfile.flush()
            time.sleep(1 / 30)

    def log_message(self, *_):
        pass


def test_an_http_stream_is_read_live_and_its_end_is_an_error(tmp_path):
    server = HTTPServer(("127.0.0.1", 0), _Camera)
    server.video = write_video(tmp_path / "v.ts", 90, codec="mpeg2video").read_bytes()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    source = open_source(f"http://127.0.0.1:{server.server_port}/live.ts", "rgb")
    assert isinstance(source, NetworkStream)
    assert source.info.live
    times = []

    def watch():
        for frame in source:
            assert frame.stamp is Stamp.STREAM
            assert frame.t_ns <= frame.arrival_ns
            assert frame.image.shape == (48, 64, 3)
            times.append(frame.t_ns)

    with pytest.raises(SourceLost, match=r"(ended by its sender|stopped) after \d+ frames"):
        watch()
    server.shutdown()
    assert len(times) > 60
    assert times == sorted(times)


def send(uri, done):
    """Stream pictures to `uri` as MPEG-TS until told that it is enough."""
    with av.open(uri, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 2_000_000
        for k in count():
            container.mux(stream.encode(VideoFrame.from_ndarray(picture(k % 100), format="rgb24")))
            if done.wait(0.002):
                return


def test_a_udp_stream_is_read_and_a_silent_one_times_out():
    uri, done = f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}", threading.Event()
    sender = threading.Thread(target=send, args=(uri + "?pkt_size=1316", done), daemon=True)
    sender.start()
    source = NetworkStream(uri, "ir", open_timeout_s=10, read_timeout_s=0.5)
    seen = []

    def watch():
        for frame in source:
            seen.append(frame.image.shape)
            if len(seen) == 20:
                done.set()

    with pytest.raises(SourceLost, match=r"no data for 0\.5 s"):
        watch()
    assert len(seen) >= 20
    assert set(seen) == {(48, 64)}


def test_an_absent_network_camera_is_named_without_its_password():
    with pytest.raises(DeviceUnavailable, match=r"RGB stream http://\*\*\*@127\.0\.0\.1") as caught:
        open_source(f"http://user:secret@127.0.0.1:{free_port()}/x", "rgb")
    assert "secret" not in str(caught.value)
