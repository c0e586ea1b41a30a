"""The commands of `calib`: an option without effect is an error, and what is lost, guessed or unknown is said."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import typer
import yaml
from foreign_calibrations import KALIBR, PINHOLE, RIG, ros1_message

from calib.cli.main import app
from calib.targets import parse_board
from rtfuse.align.calibration import load_calibration, save_calibration
from rtfuse.errors import ConfigError, NoDisplay


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


@pytest.mark.parametrize(
    ("board", "fault"),
    [
        ("chessboard:7x5:25mm", "there is no chessboard, only checkerboard, charuco, circles, acircles"),
        ("checkerboard:7x500:25mm", "rows: want <= 100"),
        ("checkerboard:7x5:0mm", "spacing_m: want > 0.0"),
        ("charuco:7x5:30mm", "marker side below the side of its squares"),
    ],
)
def test_a_wrong_board_is_answered_in_words_and_once(board, fault):
    with pytest.raises(ConfigError, match=fault) as e:
        parse_board(board)
    assert str(e.value).count("expected KIND:COLSxROWS:SPACING") == 1
    assert "$." not in str(e.value)


def test_paper_is_named_in_any_case(tmp_path):
    calib("pattern", "checkerboard:7x5:25mm", "-o", str(tmp_path / "a.svg"), "--paper", "a4")
    assert "210" in (tmp_path / "a.svg").read_text()


def test_a_homography_has_one_origin_and_says_its_distance(files, capsys):
    calib("homography", "rig.yaml", "-o", "flat.yaml")
    assert "flat.yaml written, exact at 10 m" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="a calibration and --points or --click; leave one out"):
        calib("homography", "rig.yaml", "--points", "p.csv", "-o", "other.yaml")


def test_clicking_without_a_display_is_answered_by_the_file_of_points(files, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ir.png", "rgb.png"):
        cv2.imwrite(name, np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(NoDisplay, match="--points"):
        calib("homography", "--click", "--ir", "ir.png", "--rgb", "rgb.png", "-o", "out.yaml")


def test_a_distance_that_the_file_lacks_is_said(files, capsys):
    converted("chain.yaml")
    assert "plane_m is 10, where thermal lies exactly on RGB: the file has no distance (--plane)" in words(capsys)
    converted("chain.yaml", "--plane", "25")
    assert "plane_m" not in words(capsys)


def test_a_time_offset_that_is_lost_is_said(files, capsys):
    chain = yaml.safe_load(KALIBR)
    for name, shift in (("cam0", 0.01), ("cam1", 0.02)):
        chain[name]["timeshift_cam_imu"] = shift
    (files / "chain.yaml").write_text(yaml.safe_dump(chain))
    calib("convert", "chain.yaml", "--to", "opencv", "-o", "out.xml")
    assert words(capsys).endswith("out.xml written: the RGB camera alone, without the pose and the time offset")


def test_two_cameras_taken_of_more_are_said(files, capsys):
    chain = yaml.safe_load(KALIBR)
    chain["cam2"] = chain["cam1"]
    (files / "chain.yaml").write_text(yaml.safe_dump(chain))
    converted("chain.yaml")
    assert "thermal is cam1 and RGB cam0 of the file's 3 cameras (--ir, --rgb)" in words(capsys)


def words(capsys):
    return " ".join(capsys.readouterr().out.split())
