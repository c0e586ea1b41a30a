"""`rtfuse probe`: list the cameras, their formats, and the one that is likely thermal."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rtfuse.capture.pixels import DECODABLE, Sizes
from rtfuse.capture.v4l2 import CameraInfo, V4l2Source, list_cameras
from rtfuse.errors import RtfuseError
from rtfuse.record.images import write_image
from rtfuse.thermal.agc import Agc
from rtfuse.thermal.preprocessing import ThermalFront
from rtfuse.types import Image, Stream

_NAMES = ("boson", "lepton", "purethermal", "flir", "seek", "infiray", "topdon", "tc001", "tc002", "p2 pro", "thermal")
_SIZES = {
    *((80, 60), (80, 63), (160, 120), (160, 122), (256, 192), (256, 384), (512, 484)),
    *((320, 256), (320, 258), (384, 288), (640, 512), (640, 514), (1280, 1024)),
}
_DEEP = ("Y16", "Y16-BE", "Y14")
_SNAPSHOT_FRAMES = 5
"""A camera's first pictures are often dark, or left from its last use."""


def thermal_hint(camera: CameraInfo) -> str | None:
    """Return why a camera is likely thermal: its name, or raw counts in a thermal sensor's size; None if it is not."""
    name = next((name for name in _NAMES if name in camera.card.lower()), None)
    if name is not None:
        return f"its name says {name}"
    formats = {offer.fourcc: offer for offer in camera.formats}
    own = {sizes.max_wh for offer in camera.formats for sizes in offer.sizes if sizes.min_wh == sizes.max_wh} & _SIZES
    raw = next((f for f in _DEEP if f in formats), None)
    if raw and own:
        w, h = max(own)
        return f"{raw} and {w}x{h}, a thermal sensor's size"
    if {(256, 384), (512, 484)} & own:
        return "a size that carries 16-bit counts beside the picture"
    return None


def probe(console: Console, *, save: Path | None = None, controls: bool = False) -> None:
    """Print the cameras; with `save`, write a picture of each into that folder."""
    cameras = list_cameras()
    if not cameras:
        console.print("no cameras found. Is one plugged in, and may you open /dev/video*? (group video)")
        console.print("Network cameras, recordings and synthetic: need no device.")
        return
    hints = {camera.path: thermal_hint(camera) for camera in cameras}
    for camera in cameras:
        _print(console, camera, hints[camera.path], controls)
        if save is not None and camera.problem is None:
            _snapshot(console, camera, "ir" if hints[camera.path] else "rgb", save)
    _advise(console, cameras, hints)


def _print(console: Console, camera: CameraInfo, hint: str | None, controls: bool) -> None:
    console.print(f"[bold]{camera.path}[/]  {escape(camera.card)}", soft_wrap=True)
    if camera.problem is not None:
        console.print(f"  cannot be opened: {camera.problem}", style="yellow", soft_wrap=True)
        return
    bus = f", {camera.identity.bus}" if camera.identity else ""
    console.print(f"  driver {camera.driver}{bus}", soft_wrap=True, style="dim")
    if camera.stable_path:
        console.print(f"  always {camera.stable_path}", soft_wrap=True)
    if hint:
        console.print(f"  likely thermal: {hint}", soft_wrap=True, style="magenta")
    grid = Table(box=None, padding=(0, 2), header_style="dim")
    grid.add_column("formats", max_width=22)
    grid.add_column("sizes", max_width=40)
    grid.add_column("frames/s")
    alike: dict[tuple[Sizes, ...], list[str]] = {}
    for offer in camera.formats:
        if offer.fourcc in DECODABLE:
            alike.setdefault(offer.sizes, []).append(offer.fourcc)
    for sizes, names in alike.items():
        for at, (group, rates) in enumerate(_by_rates(sizes)):
            grid.add_row("" if at else " ".join(names), group, rates)
    console.print(grid)
    others = [offer.fourcc for offer in camera.formats if offer.fourcc not in DECODABLE]
    if others:
        shown = " ".join(others[:6]) + (" …" if len(others) > 6 else "")
        console.print(
            f"  and {len(others)} formats that rtfuse does not read: {escape(shown)}", soft_wrap=True, style="dim"
        )
    if controls:
        for control in camera.controls:
            console.print(f"    {escape(str(control))}", soft_wrap=True)


def _by_rates(offered: tuple[Sizes, ...]) -> list[tuple[str, str]]:
    """Return sizes and rates in words; sizes of the same rates together."""
    if not offered:
        return [("not listed by the driver", "")]
    groups: dict[tuple[float, ...], list[Sizes]] = {}
    for sizes in offered:
        groups.setdefault(sizes.rates_hz, []).append(sizes)
    return [(" ".join(map(str, group)), " ".join(f"{rate:.4g}" for rate in rates)) for rates, group in groups.items()]


def _snapshot(console: Console, camera: CameraInfo, stream: Stream, folder: Path) -> None:
    """Write a camera's picture as PNG, and print its path or the error."""
    path = folder / f"{Path(camera.path).name}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        source = V4l2Source(camera.path, stream)
        try:
            frames = list(islice(source, _SNAPSHOT_FRAMES))
        finally:
            source.close()
        image: Image = frames[-1].image
        if stream == "ir":
            image = np.dstack([Agc()(ThermalFront(freeze=False)(frames[-1]))] * 3)
        write_image(path, image)
        w, h = source.info.size_wh
        console.print(
            f"  {path}: {source.pixel_format} {w}x{h}, {source.info.rate_hz or 0:.4g} frames/s", soft_wrap=True
        )
    except (RtfuseError, OSError) as e:
        console.print(f"  no picture: {escape(str(e))}", style="yellow", soft_wrap=True)


def _advise(console: Console, cameras: list[CameraInfo], hints: dict[str, str | None]) -> None:
    """Print the command line for the first thermal camera and the first other one."""
    able = [camera for camera in cameras if camera.problem is None and camera.formats]
    thermal = next((c for c in able if hints[c.path]), None)
    other = next((c for c in able if c is not thermal and not hints[c.path]), None)
    if thermal is None or other is None:
        console.print("\nA rig takes a thermal and an RGB camera: rtfuse run --ir DEVICE --rgb DEVICE", soft_wrap=True)
        return
    ir, rgb = (c.stable_path or c.path for c in (thermal, other))
    console.print(f"\nrtfuse run --ir {ir} --rgb {rgb}", soft_wrap=True, markup=False)
