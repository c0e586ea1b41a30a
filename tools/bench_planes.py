"""Measure YUV pictures as planes and by way of RGB, in turn: sent in one thread, and from an MJPEG camera to an output.

    python tools/bench_planes.py                     # the synthetic street, 640x480 and 1280x720
    python tools/bench_planes.py --video rgb.mp4     # the first pictures of a video, scaled to each size

Figures are the processor time of one picture: the median of all pictures, or of blocks of pictures from the camera.
JPEG of planes needs simplejpeg. The camera's JPEG is 4:2:2 of quality 85, decoded in a thread of its own as in a rig,
fused by the pyramid, and encoded.
"""

from __future__ import annotations

import argparse
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sized
from pathlib import Path

import av
import cv2
import msgspec
import numpy as np

from rtfuse.capture import open_source
from rtfuse.capture.mjpeg import JpegPlanes
from rtfuse.capture.pixels import decode_picture
from rtfuse.fuse.pyramid import fuse_pyramid
from rtfuse.picture import Picture
from rtfuse.types import Image
from rtfuse.wire.h264 import H264Encoder
from rtfuse.wire.images import compress, planar_encoder
from rtfuse.wire.message import Header, encode
from rtfuse.wire.yuv import padded_i420, planes_in

COUNT = 60


def pictures(video: Path | None, size_wh: tuple[int, int]) -> list[Image]:
    """Return RGB pictures of a video or of the synthetic street, scaled."""
    found: Iterator[Image]
    if video is None:
        source = open_source("synthetic:?size=640x480&duration_s=10", "rgb")
        found = (frame.image for frame in source)
    else:
        container = av.open(str(video))
        found = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
    return [cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA) for image in itertools.islice(found, COUNT)]


def fused(rgb: Image) -> Picture:
    """Return a picture of YUV 4:2:0, limited range, whose luma was exchanged: nothing of it is computed yet."""
    h, w = rgb.shape[:2]
    source = Picture("yuv420p", planes_in(padded_i420(rgb).ravel(), "yuv420p", (h, w)))
    return source.with_luma(cv2.addWeighted(source.luma, 0.8, cv2.flip(source.luma, 1), 0.2, 0))


def ways(size_wh: tuple[int, int]) -> dict[str, Callable[[Picture], Sized]]:
    """Return each way to send a picture, by name."""
    numbers = dict.fromkeys(("ir_id", "rgb_id", "ir_t_ns", "rgb_t_ns", "skew_ns", "age_ns", "published_ns"), 5)
    texts = dict.fromkeys(("session", "rig", "mode", "fuser", "stamp"), "x")
    sizes = {"width": size_wh[0], "height": size_wh[1], "seq": 0, "published_unix_ms": 1}
    head = msgspec.convert({**numbers, **texts, **sizes, "encoding": "raw"}, Header)
    planar = {name: msgspec.structs.replace(head, pixel_format=name) for name in ("yuv420p", "nv12")}
    found: dict[str, Callable[[Picture], Sized]] = {
        "raw rgb24": lambda picture: encode("fused", head, picture.rgb),
        "raw yuv420p": lambda picture: encode("fused", planar["yuv420p"], picture),
        "raw nv12": lambda picture: encode("fused", planar["nv12"], picture),
    }
    for quality in (80, 90):
        found[f"jpeg {quality} by RGB"] = lambda picture, q=quality: compress(picture.rgb, "jpeg", q)  # type: ignore[misc]
        if planar_encoder() is not None:
            found[f"jpeg {quality} of planes"] = lambda picture, q=quality: compress(picture, "jpeg", q)  # type: ignore[misc]
    return found


def outputs() -> dict[str, Callable[[Picture], object]]:
    """Return what a rig does with a fused picture, by name."""
    h264, number = H264Encoder(), itertools.count()
    return {
        "no output": lambda picture: picture.luma,
        "h264": lambda picture: h264(picture, next(number) / 30),
        "jpeg 90": lambda picture: compress(picture, "jpeg", 90),
        "raw rgb24": lambda picture: picture.rgb.tobytes(),
    }


def spent_ms(
    coded: list[bytes], size_wh: tuple[int, int], output: Callable[[Picture], object], *, planes: bool
) -> float:
    """Return the milliseconds of all threads for one picture from a camera to an output."""
    waiting: queue.Queue[Picture | None] = queue.Queue(2)

    def camera() -> None:
        planes_of = JpegPlanes() if planes else None
        for data in coded:
            waiting.put(decode_picture(data, "MJPG", size_wh, 0, planes_of))
        waiting.put(None)

    thread = threading.Thread(target=camera)
    start = time.process_time()
    thread.start()
    while (picture := waiting.get()) is not None:
        output(picture.with_luma(fuse_pyramid(picture.luma[::-1].copy(), picture.luma)))
    thread.join()
    return 1000 * (time.process_time() - start) / len(coded)


def from_camera(images: list[Image], size_wh: tuple[int, int]) -> None:
    """Print the time of each output with the camera's pictures as RGB and as planes."""
    how = [cv2.IMWRITE_JPEG_QUALITY, 85, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422]
    coded = [cv2.imencode(".jpg", image[..., ::-1], how)[1].tobytes() for image in images]
    for name, output in outputs().items():
        blocks = [[spent_ms(coded, size_wh, output, planes=planes) for planes in (False, True)] for _ in range(5)]
        by_rgb, planar = np.median(blocks, axis=0)
        print(f"  MJPEG to {name:9} {by_rgb:6.2f} ms by RGB, {planar:6.2f} ms by planes: {planar / by_rgb:.2f}")


def sent(images: list[Image], size_wh: tuple[int, int]) -> None:
    """Print the time and the bytes of each way to send a picture."""
    found = ways(size_wh)
    spent: dict[str, list[float]] = {name: [] for name in found}
    size: dict[str, list[int]] = {name: [] for name in found}
    for k, image in enumerate([images[0], *images]):
        for name, way in found.items():
            picture = fused(image)
            start = time.thread_time()
            data = way(picture)
            if k:  # the first time loads libraries
                spent[name].append(1000 * (time.thread_time() - start))
                size[name].append(len(data))
    for name in found:
        print(f"  {name:18} {np.median(spent[name]):6.2f} ms  {np.mean(size[name]) / 1000:7.0f} kB")


def main() -> None:
    """Measure every way at both sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="a video in place of the synthetic street")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    for size_wh in ((640, 480), (1280, 720)):
        images = pictures(options.video, size_wh)
        print(f"{size_wh[0]}x{size_wh[1]}, {len(images)} pictures, processor time of one")
        sent(images, size_wh)
        from_camera(images, size_wh)


if __name__ == "__main__":
    main()
