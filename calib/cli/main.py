"""Run the `calib` command line."""

from __future__ import annotations

import sys

from calib.cli.app import app
from calib.cli.boards import boards, pattern
from calib.cli.files import convert, report
from calib.cli.homography import homography
from calib.cli.rig import intrinsics, stereo
from calib.cli.scene import register, timing
from rtfuse.cli.app import run_app

for _command in (pattern, boards, intrinsics, stereo, homography, register, timing, report, convert):
    app.command()(_command)


def main() -> None:
    """Run the command line; print help without arguments, and each error as one line with its exit status."""
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    run_app(app)
