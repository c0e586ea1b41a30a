"""Write fused frames as images: one, or a folder of them; incomplete ones never get the final name."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from rtfuse.errors import OutputUnwritable
from rtfuse.observe.logs import event
from rtfuse.types import Fused, Image

_log = logging.getLogger("rtfuse.record")


def compose(fused: Fused, side_by_side: bool) -> Image:
    """Return the picture to write, (H, W, 3) uint8 RGB: fused alone, or thermal | RGB | fused, (H, 3W, 3)."""
    if not side_by_side:
        return fused.image
    rgb = fused.pair.rgb
    colour = np.zeros((*fused.shape_hw, 3), np.uint8) if rgb is None else rgb.image
    return np.hstack([cv2.cvtColor(fused.ir, cv2.COLOR_GRAY2RGB), colour, fused.image])


class ImageWriter:
    """Write one image, or a file for each frame into a folder: of `names`, or `NNNNNN.png`, by RGB's frame number."""

    def __init__(self, path: Path, partial: Path, *, side_by_side: bool, names: Sequence[str] | None = None) -> None:
        self._path, self._partial, self._side_by_side, self._names = path, partial, side_by_side, names
        self._written = 0

    def write(self, fused: Fused) -> None:
        """Write one picture. Raises OutputUnwritable if it does not fit the output or the disk does not take it."""
        target = self._partial
        if self._partial.is_dir():
            number = fused.pair.leader.frame_id
            target = self._partial / (f"{number:06d}.png" if self._names is None else self._names[number])
            self._make_folder(target.parent)
        elif self._written:
            raise OutputUnwritable(
                f"output {self._path} is one image but the input has several frames; name a video or a folder"
            )
        write_image(target, compose(fused, self._side_by_side), named=self._path)
        self._written += 1

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise OutputUnwritable(f"output {self._path} cannot be written: {e.strerror or e}") from e

    def close(self) -> None:
        """Give the output its name; without frames, remove it."""
        if not self._written:
            self.abort()
            return
        try:
            if self._partial.is_dir() and self._path.exists():
                self._add_to_folder()
            else:
                os.replace(self._partial, self._path)
        except OSError as e:
            self.abort()
            raise OutputUnwritable(f"output {self._path} cannot be written: {e.strerror or e}") from e

    def _add_to_folder(self) -> None:
        """Move the pictures into the folder that exists; say how many files of other names are in it."""
        made = {file.relative_to(self._partial) for file in self._partial.rglob("*") if not file.is_dir()}
        for name in made:
            self._make_folder((self._path / name).parent)
            os.replace(self._partial / name, self._path / name)
        shutil.rmtree(self._partial)
        others = sum(not file.is_dir() and file.relative_to(self._path) not in made for file in self._path.rglob("*"))
        if others:
            what = f"{self._path} holds {others} other {'file' if others == 1 else 'files'}, which stayed as they were"
            event(_log, logging.WARNING, "others", what)

    def abort(self) -> None:
        """Remove the incomplete output."""
        if self._partial.is_dir():
            shutil.rmtree(self._partial, ignore_errors=True)
        else:
            self._partial.unlink(missing_ok=True)


def write_image(path: Path, rgb: Image, named: Path | None = None) -> None:
    """Write (H, W, 3) uint8 RGB by the suffix of `path`, whole or not at all.

    Raises OutputUnwritable, with the name `named` if given.
    """
    partial = path.with_name(f".partial-{os.getpid()}-{threading.get_ident()}")
    try:
        done, data = cv2.imencode(path.suffix or ".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    except cv2.error:
        done = False
    if not done:
        raise OutputUnwritable(f"output {named or path} cannot be encoded as {path.suffix}")
    try:
        partial.write_bytes(data.tobytes())
        os.replace(partial, path)
    except OSError as e:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OutputUnwritable(f"output {named or path} cannot be written: {e.strerror or e}") from e
