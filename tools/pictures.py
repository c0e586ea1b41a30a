"""Make the pictures of the documentation, all of the synthetic street: docs/demo.jpg, docs/ladder.jpg, docs/web.jpg.

    python tools/pictures.py demo ladder       # needs rtfuse alone
    python tools/pictures.py web               # needs Chromium, chromedriver and the packages of the tests

Look at what it has made before you commit it.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from rtfuse.capture import open_source
from rtfuse.fuse import open_fuser
from rtfuse.types import Image, Stream

DOCS = Path(__file__).parents[1] / "docs"
FUSERS = {"pyramid": "pyramid", "student": "student", "U-Fuser": "ufuser"}
DEMO_S, LADDER_S = 1.8, 5.5
LADDER = np.s_[195:280, 375:489]
"""Two people before a shop window: outlines, faces and hair show the difference."""
WEB_WH = 1280, 800
_WAIT_S = 120.0


def main() -> None:
    """Make the pictures that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="demo, ladder, web; all unless named")
    makers = {"demo": demo, "ladder": ladder, "web": web}
    names = parser.parse_args().names or list(makers)
    if unknown := set(names) - set(makers):
        parser.error(f"unknown picture {', '.join(sorted(unknown))}; there are {', '.join(makers)}")
    for name in names:
        makers[name](DOCS / f"{name}.jpg")
        print(DOCS / f"{name}.jpg")


def demo(path: Path) -> None:
    """Write thermal, RGB, and both fused by the default fuser's network, side by side."""
    ir, rgb = street(DEMO_S)
    write(path, [thermal(ir), rgb, open_fuser("student")(ir, rgb)], (480, 360))


def ladder(path: Path) -> None:
    """Write the same part of thermal, RGB, and of what each fuser makes of them, enlarged and named."""
    ir, rgb = street(LADDER_S)
    pictures = {"thermal": thermal(ir), "RGB": rgb} | {
        name: open_fuser(fuser)(ir, rgb) for name, fuser in FUSERS.items()
    }
    write(path, [image[LADDER] for image in pictures.values()], (456, 340), list(pictures))


def street(at_s: float) -> tuple[Image, Image]:
    """Return thermal (H, W) uint8 and RGB (H, W, 3) uint8 of the street at a time."""
    streams: tuple[Stream, Stream] = ("ir", "rgb")
    ir, rgb = (
        next(f.image for f in open_source("synthetic:", stream) if f.t_ns >= at_s * 1e9 - 1) for stream in streams
    )
    return ir, rgb


def thermal(ir: Image) -> Image:
    """Return a thermal image, (H, W) uint8, as RGB."""
    return np.dstack([ir] * 3)


def write(path: Path, images: list[Image], size_wh: tuple[int, int], names: list[str] | None = None) -> None:
    """Write RGB images side by side as JPEG, each of this size, with its name in the corner."""
    tiles = []
    for k, image in enumerate(images):
        smaller = size_wh[0] < image.shape[1]
        tile = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
        if names is not None:
            for ink, width in (((0, 0, 0), 4), ((255, 255, 255), 1)):
                cv2.putText(tile, names[k], (10, 26), cv2.FONT_HERSHEY_SIMPLEX, 0.75, ink, width, cv2.LINE_AA)
        tiles.append(tile)
    cv2.imwrite(str(path), np.hstack(tiles)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])


def web(path: Path) -> None:
    """Write a screenshot of the page, while the street runs as it does by default and a detector watches it."""
    with tempfile.TemporaryDirectory() as folder:
        frames, boxes = f"ipc://{folder}/frames", f"ipc://{folder}/boxes"
        live = "synthetic:?live=1"
        rig = [sys.executable, "-m", "rtfuse", "run", "--ir", live, "--rgb", live, "rig=street"]
        rig += ["--publish", frames, "publish.planes=[fused,ir]", "--web", "127.0.0.1:8765", "--boxes", boxes]
        detector = [sys.executable, "-m", "rtfuse", "detect", frames, "--publish", boxes]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(rig, **quiet) as first, subprocess.Popen(detector, **quiet) as second:
            try:
                path.write_bytes(screenshot("http://127.0.0.1:8765", WEB_WH))
            finally:
                second.terminate()
                first.terminate()


def screenshot(url: str, size_wh: tuple[int, int]) -> bytes:
    """Return the page as JPEG, of this size, once it shows boxes. Raises TimeoutError if it never does at 25 Hz."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("headless", "disable-gpu", "no-sandbox", "hide-scrollbars", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        metrics = {"width": size_wh[0], "height": size_wh[1], "deviceScaleFactor": 1, "mobile": False}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        end = time.monotonic() + _WAIT_S
        boxes = "return Number(document.getElementById('osd-boxes')?.textContent) >= 2"
        while not (page.current_url.startswith(url) and page.execute_script(boxes)):
            if time.monotonic() > end:
                raise TimeoutError(f"{url} shows no boxes within {_WAIT_S:.0f} s")
            if not page.current_url.startswith(url) or "osd-boxes" not in page.page_source:
                _try(page, url)
            time.sleep(0.2)
        time.sleep(20)  # the strip charts fill
        calm = boxes + " && document.getElementById('osd-boxes-row').checkVisibility()"
        calm += " && document.getElementById('notice').hidden"
        calm += " && parseFloat(document.getElementById('osd-rate').textContent) > 25"
        while not page.execute_script(calm):
            if time.monotonic() > end:
                raise TimeoutError(f"{url} does not run at 25 Hz without a notice; this machine has too much to do")
            time.sleep(0.05)
        taken = page.execute_cdp_cmd("Page.captureScreenshot", {"format": "jpeg", "quality": 90})
        return base64.b64decode(taken["data"])
    finally:
        page.quit()


def _try(page: object, url: str) -> None:
    """Load the page; the rig may not listen yet."""
    from selenium.common.exceptions import WebDriverException

    try:
        page.get(url)  # type: ignore[attr-defined]
    except WebDriverException:
        time.sleep(0.5)


if __name__ == "__main__":
    main()
