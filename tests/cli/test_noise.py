"""Damaged input makes no native library write to the terminal; other native output still comes through."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

OURS = """
import os, sys
import typer
from rtfuse.cli.app import run_app
app = typer.Typer()
@app.command()
def command():
    {body}
sys.argv[1:] = []
run_app(app)
"""


def ended(body, **env):
    done = subprocess.run(
        [sys.executable, "-c", OURS.format(body=body)], capture_output=True, text=True, timeout=60, env=os.environ | env
    )
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A folder with a cut image, one with changed bytes and one without its end, of each format."""
    folder, rng = tmp_path_factory.mktemp("damaged"), np.random.default_rng(1)
    image = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    for suffix in (".png", ".jpg", ".tif", ".webp", ".bmp", ".jp2", ".ppm"):
        data = cv2.imencode(suffix, image)[1].tobytes()
        changed = bytearray(data)
        for at in rng.integers(30, len(data), 20):
            changed[at] ^= 0xFF
        for name, part in (("cut", data[: len(data) // 2]), ("changed", changed), ("tail", data[:-20])):
            (folder / f"{name}{suffix}").write_bytes(part)
    return folder


DECODE = """
    import pathlib, cv2, numpy as np
    for path in sorted(pathlib.Path(os.environ["FOLDER"]).iterdir()):
        for flags in (cv2.IMREAD_COLOR, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH):
            try:
                cv2.imdecode(np.fromfile(path, np.uint8), flags)
                cv2.imcount(str(path))
            except cv2.error:
                pass
    np.log(np.float32([-1, 0]))
    print("the end", file=sys.stderr)
"""


def test_decoders_are_silent_about_every_damage(damaged):
    status, said = ended(DECODE, FOLDER=str(damaged))
    assert (status, said) == (0, "the end\n")
    _, said = ended(DECODE, FOLDER=str(damaged), RTFUSE_TRACEBACK="1")
    assert "libpng error" in said  # otherwise the test above could not fail
    assert "Corrupt JPEG data" in said
    assert "[ERROR:0@" in said


def test_other_lines_of_native_code_and_the_error_itself_come_through():
    status, said = ended("os.write(2, b'a word of a driver\\n'); raise FileNotFoundError(2, 'gone', 'x.png')")
    assert status == 2
    assert sorted(said.splitlines()) == ["a word of a driver", "error: x.png: gone"]
