"""Run the `calib` command line."""

from __future__ import annotations

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
    """Run the command line; each error is one line with its exit status."""
    run_app(app)
