"""`calib convert` and `calib report`: an option without effect is an error, and what a format cannot hold is said."""

from __future__ import annotations

import numpy as np
import pytest
import typer
from foreign_calibrations import KALIBR, PINHOLE, RIG, ros1_message

from calib.cli.main import app
from rtfuse.align.calibration import load_calibration, save_calibration
from rtfuse.errors import ConfigError


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_calibration(RIG, tmp_path / "rig.yaml")
    (tmp_path / "chain.yaml").write_text(KALIBR)
    (tmp_path / "camera.yaml").write_text(ros1_message(PINHOLE))
    return tmp_path


def calib(*arguments):
    typer.main.get_command(app)(list(arguments), standalone_mode=False)


@pytest.mark.parametrize(
    ("source", "to", "option"),
    [
        ("rig.yaml", "rtfuse", "--plane 25"),
        ("rig.yaml", "rtfuse", "--unit mm"),
        ("rig.yaml", "rtfuse", "--ir cam1"),
        ("rig.yaml", "ros", "--lens fisheye"),
        ("rig.yaml", "ros", "--ir-size 640x512"),
        ("rig.yaml", "kalibr", "--camera ir"),
        ("camera.yaml", "opencv", "--plane 10"),
        ("camera.yaml", "opencv", "--camera ir"),
        ("chain.yaml", "rtfuse", "--camera rgb"),
    ],
)
def test_an_option_without_effect_is_an_error(files, source, to, option):
    with pytest.raises(ConfigError, match=f"{option} has no effect here: {source}"):
        calib("convert", source, "--to", to, "-o", "out.yaml", *option.split())
    assert not (files / "out.yaml").exists()


def test_the_unit_counts_for_kalibr_too(files):
    metres = load_calibration(converted("chain.yaml"))
    (files / "chain.yaml").write_text(KALIBR.replace("-0.06", "-60.0"))
    millimetres = load_calibration(converted("chain.yaml", "--unit", "mm"))
    assert np.allclose(metres.t_rgb_from_ir_m, millimetres.t_rgb_from_ir_m)


def converted(source, *options):
    calib("convert", source, "--to", "rtfuse", "-o", "out.yaml", "--force", *options)
    return "out.yaml"


@pytest.mark.parametrize(("to", "said"), [("ros", "the thermal camera alone, without the pose"), ("kalibr", "written")])
def test_what_a_format_cannot_hold_is_said(files, capsys, to, said):
    calib("convert", "rig.yaml", "--to", to, "-o", "out.yaml", *(["--camera", "ir"] if to == "ros" else []))
    assert capsys.readouterr().out.strip().endswith(said)


def test_a_report_wants_both_sources_and_says_that_there_is_no_verdict(files, capsys):
    with pytest.raises(ConfigError, match="give --ir and --rgb, or neither"):
        calib("report", "rig.yaml", "--ir", "a.mkv", "-o", "r.html")
    calib("report", "rig.yaml", "-o", "r.html")
    assert "no verdict, the calibration tells no error" in capsys.readouterr().out
