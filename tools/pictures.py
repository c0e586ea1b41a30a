"""Make the pictures of the documentation, all of the synthetic street, in docs/.

    python tools/pictures.py demo ladder       # needs rtfuse alone
    python tools/pictures.py web web_phone     # needs Chromium, chromedriver and the packages of the tests

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
PHONE_WH = 400, 820
URL = "http://127.0.0.1:8765"
_WAIT_S = 120.0
_BOXES = "return Number(document.getElementById('osd-boxes')?.textContent) >= 2"
_CALM = f"""{_BOXES} && document.getElementById('osd-boxes-row').checkVisibility()
  && document.getElementById('notice').hidden && parseFloat(document.getElementById('osd-rate').textContent) > """
_BLEND = """
  const choose = (id, value, event) => {
    document.getElementById(id).value = value;
    document.getElementById(id).dispatchEvent(new Event(event));
  };
  choose('palette', 'iron', 'change');
  choose('mix', 1.6, 'input');"""
_NUMBERS = """
  document.getElementById('palette').value = 'white-hot';
  document.getElementById('palette').dispatchEvent(new Event('change'));
  document.querySelector('[data-mix="1"]').click();
  const below = () => document.getElementById('t-now').getBoundingClientRect().top
    - document.getElementById('stage').getBoundingClientRect().bottom - 16;
  for (let k = 0; k < 4; k++) window.scrollBy(0, below());"""
_SUNLIGHT = """
  window.scrollTo(0, 0);
  document.querySelector('.rail').scrollTo(0, 0);
  document.getElementById('light').click();"""
_DARK = "document.getElementById('light').click();"


def main() -> None:
    """Make the pictures that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="demo, ladder, web, web_phone; default: all")
    makers = {"demo": demo, "ladder": ladder, "web": web, "web_phone": web_phone}
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
    """Write the same part of thermal, RGB, and of each fuser's picture, enlarged and named."""
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
    """Write a screenshot of the page on a desk, once its strip charts have values."""
    with rig(), browser(WEB_WH) as page:
        time.sleep(20)
        wait(page, _CALM + "25", "does not run at 25 Hz without a notice")
        path.write_bytes(screenshot(page))


def web_phone(path: Path) -> None:
    """Write four screenshots of the page on a phone, side by side: a blend, numbers, sunlight, a stopped rig."""
    shots = []
    with rig() as running, browser(PHONE_WH) as page:
        time.sleep(20)
        for script in (_BLEND, _NUMBERS, _SUNLIGHT):
            page.execute_script(script)
            time.sleep(2)
            wait(page, _CALM + "15", "does not run at 15 Hz without a notice")
            shots.append(screenshot(page))
        page.execute_script(_DARK)
        running.terminate()
        wait(page, "return !document.getElementById('notice').hidden", "does not say that the rig has stopped")
        shots.append(screenshot(page))
    gap = np.full((PHONE_WH[1], 16, 3), 128, np.uint8)
    images = [cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR) for shot in shots]
    row = [part for image in images for part in (gap, image)][1:]
    cv2.imwrite(str(path), np.hstack(row), [cv2.IMWRITE_JPEG_QUALITY, 90])


@contextmanager
def rig() -> Iterator[subprocess.Popen[bytes]]:
    """Run the street as it runs by default, with a detector; return the rig's process, which serves `URL`."""
    with tempfile.TemporaryDirectory() as folder:
        frames, boxes = f"ipc://{folder}/frames", f"ipc://{folder}/boxes"
        live = "synthetic:?live=1"
        command = [sys.executable, "-m", "rtfuse", "run", "--ir", live, "--rgb", live, "rig=street"]
        command += ["--publish", frames, "publish.planes=[fused,ir]", "--web", URL.partition("//")[2], "--boxes", boxes]
        detector = [sys.executable, "-m", "rtfuse", "detect", frames, "--publish", boxes]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, **quiet) as first, subprocess.Popen(detector, **quiet) as second:
            try:
                yield first
            finally:
                second.terminate()
                first.terminate()


@contextmanager
def browser(size_wh: tuple[int, int]) -> Iterator[Any]:
    """Open the page in a window of this size; it shows boxes. Raises TimeoutError if it never does."""
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
        while not page.current_url.startswith(URL) or "osd-boxes" not in page.page_source:
            if time.monotonic() > end:
                raise TimeoutError(f"{URL} does not answer within {_WAIT_S:.0f} s")
            _try(page)
        wait(page, _BOXES, "shows no boxes")
        yield page
    finally:
        page.quit()


def wait(page: Any, script: str, otherwise: str) -> None:
    """Wait until a script returns true. Raises TimeoutError after `_WAIT_S` seconds, which says `otherwise`."""
    end = time.monotonic() + _WAIT_S
    while not page.execute_script(script):
        if time.monotonic() > end:
            raise TimeoutError(f"{URL} {otherwise} within {_WAIT_S:.0f} s; has this machine too much to do?")
        time.sleep(0.05)


def screenshot(page: Any) -> bytes:
    """Return the window as JPEG."""
    taken = page.execute_cdp_cmd("Page.captureScreenshot", {"format": "jpeg", "quality": 90})
    return base64.b64decode(taken["data"])


def _try(page: Any) -> None:
    """Load the page; the rig may not listen yet."""
    from selenium.common.exceptions import WebDriverException

    try:
        page.get(URL)
    except WebDriverException:
        time.sleep(0.5)


if __name__ == "__main__":
    main()
