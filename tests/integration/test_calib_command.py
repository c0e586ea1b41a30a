"""From recordings of a board before a rig that is known, through every command, to a registered fused picture."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler

import cv2
import numpy as np
import pytest

from calib.footage import Footage
from calib.guide import guide_picture
from calib.session import load_session
from calib.targets import parse_board
from calib.views import Chooser
from rtfuse.align.aligner import ir_pixels_of_rgb_grid
from rtfuse.align.calibration import load_calibration, save_calibration
from rtfuse.capture.recordings import Recording
from rtfuse.capture.synthetic.scene import SyntheticScene
from tools.render_boards import BoardScene, record, rig_of_scene, waved

pytestmark = pytest.mark.slow
SCENE = "synthetic:?warp=1&ir_size=320x240&stamp_ms=9&seed=2&baseline_m=0.04&motion=2&duration_s=8"
BOARD = "checkerboard:9x6:25mm"


def calib(*args, status=0):
    command, env = [sys.executable, "-m", "calib", *map(str, args)], os.environ | {"SDL_VIDEODRIVER": "dummy"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=env)
    assert done.returncode == status, done.stdout + done.stderr
    if status:
        assert len(done.stderr.strip().splitlines()) == 1
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def footage_of_boards(tmp_path_factory):
    """Two lossless recordings: a board, held still in 18 places; thermal has 16 bits."""
    folder = tmp_path_factory.mktemp("boards")
    scene = BoardScene(rig_of_scene(SyntheticScene.from_uri(SCENE)), parse_board(BOARD), seed=4, bits=16)
    record(scene, waved(scene.poses(18), hold=2, move=0), folder)
    return folder


@pytest.fixture(scope="module")
def calibrated(footage_of_boards, tmp_path_factory):
    """The folder with a session and a calibration, made by the commands of the guide."""
    folder, films = tmp_path_factory.mktemp("calibrated"), footage_of_boards
    said = calib(
        "boards",
        "--ir",
        films / "ir.mkv",
        "--rgb",
        films / "rgb.mkv",
        "--board",
        BOARD,
        "-o",
        folder / "session",
        "--every",
        "1",
    )
    assert "18 views kept" in said
    said = calib("intrinsics", folder / "session")
    assert said.count("written") == 2
    said = calib("stereo", folder / "session", "--plane", "15", "-o", folder / "calibration.yaml")
    assert "good" in said
    calib("timing", "--ir", SCENE, "--rgb", SCENE, "--into", folder / "calibration.yaml")
    return folder


def error_px(path):
    """The distance between where a calibration and the scene's truth look thermal up, in RGB pixels."""
    found, H = ir_pixels_of_rgb_grid(load_calibration(path)), SyntheticScene.from_uri(SCENE).H_rgb_from_ir
    h, w = found.shape[:2]
    x, y = np.meshgrid(np.arange(w), np.arange(h))
    true = cv2.perspectiveTransform(np.stack([x, y], -1).reshape(1, -1, 2).astype(float), np.linalg.inv(H))
    return np.linalg.norm(found - true.reshape(h, w, 2), axis=2) * np.sqrt(np.linalg.det(H[:2, :2]))


def test_the_calibration_is_the_truth(calibrated):
    c = load_calibration(calibrated / "calibration.yaml")
    assert c.quality.pair_error_px <= 0.15
    assert error_px(calibrated / "calibration.yaml").max() <= 0.5
    assert c.ir_offset_ms == pytest.approx(-9, abs=2)
    assert np.abs(np.array(c.t_rgb_from_ir_m) - (-0.04, 0, 0)).max() < 0.001


def test_what_is_fused_with_it_lies_on_each_other(calibrated, tmp_path):
    """`rtfuse run` by this calibration against one by the true homography: the very same thermal picture, nearly."""
    sharp = SCENE.replace("stamp_ms=9", "noise=0")
    truth = rig_of_scene(SyntheticScene.from_uri(SCENE))
    save_calibration(truth, tmp_path / "truth.yaml")
    frames = {}
    for name, path in (("found", calibrated / "calibration.yaml"), ("true", tmp_path / "truth.yaml")):
        out = tmp_path / f"{name}.mkv"
        command = ["run", "--ir", sharp, "--rgb", sharp, "--calib", path, "--fuser", "pyramid", "--record", out]
        command += [
            "--publish",
            "off",
            "--speed",
            "max",
            "--frames",
            "10",
            "ir.offset_ms=" + ("9" if name == "found" else "0"),
        ]
        done = subprocess.run(
            [sys.executable, "-m", "rtfuse", *map(str, command)], capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        frames[name] = [f.image for f in Recording(str(out), "rgb")]
    assert len(frames["found"]) == len(frames["true"]) == 10
    for a, b in zip(frames["found"], frames["true"], strict=True):
        grey = [cv2.cvtColor(x, cv2.COLOR_RGB2GRAY).astype(np.float32) for x in (a, b)]
        (dx, dy), _ = cv2.phaseCorrelate(*grey, cv2.createHanningWindow(grey[0].shape[::-1], cv2.CV_32F))
        assert np.hypot(dx, dy) < 0.1
        assert np.abs(grey[0] - grey[1]).mean() < 2.0


def test_the_other_ways_to_a_calibration(calibrated, tmp_path):
    far = tmp_path / "far.yaml"
    calib("homography", calibrated / "calibration.yaml", "--plane", "15", "-o", far)
    assert error_px(far).max() < 0.5
    calib(
        "register",
        "--ir",
        SCENE,
        "--rgb",
        SCENE,
        "-o",
        tmp_path / "seen.yaml",
        "--frames",
        "4",
        "--overlay",
        tmp_path / "overlay.png",
        "--force",  # its own estimate of the error may be above a pixel
    )
    assert np.median(error_px(tmp_path / "seen.yaml")) < 1.0
    assert cv2.imread(str(tmp_path / "overlay.png")).shape == (960, 1280, 3)
    chain = tmp_path / "chain.yaml"
    calib("intrinsics", calibrated / "session", "--model", "pinhole4")
    calib("stereo", calibrated / "session", "--plane", "15", "-o", tmp_path / "c4.yaml")
    calib("convert", tmp_path / "c4.yaml", "--to", "kalibr", "-o", chain)
    calib("convert", chain, "--to", "rtfuse", "--plane", "15", "-o", tmp_path / "back.yaml")
    assert np.abs(error_px(tmp_path / "back.yaml") - error_px(tmp_path / "c4.yaml")).max() < 1e-3
    calib("convert", tmp_path / "c4.yaml", "--to", "ros", "--camera", "ir", "-o", tmp_path / "ir_info.yaml")
    calib("convert", tmp_path / "ir_info.yaml", "--to", "rtfuse", "-o", tmp_path / "ir.yaml")
    said = calib(
        "report",
        calibrated / "calibration.yaml",
        "--session",
        calibrated / "session",
        "--ir",
        SCENE,
        "--rgb",
        SCENE,
        "-o",
        tmp_path / "report.html",
    )
    assert "good" in said
    assert (tmp_path / "report.html").read_text().count("data:image/jpeg") == 18


def test_bad_footage_never_makes_a_file(footage_of_boards, calibrated, tmp_path):
    ir, rgb = footage_of_boards / "ir.mkv", footage_of_boards / "rgb.mkv"
    session = tmp_path / "s"
    for args, why in (
        (("--ir", rgb, "--rgb", ir, "--board", BOARD), "have no colour: are the streams swapped"),
        (("--ir", ir, "--rgb", rgb, "--board", "charuco:7x5:30mm:22mm"), "seem to show checkerboard:9x6"),
        (("--ir", ir, "--rgb", rgb, "--board", "checkerboard:9x6"), "expected KIND:COLSxROWS:SPACING"),
        (("--board", BOARD), "use --ir and --rgb"),
        (("--ir", tmp_path / "absent.mkv", "--board", BOARD), "absent.mkv"),
    ):
        assert why in calib("boards", *args, "-o", session, "--every", "30", status=2)
        assert not (session / "boards.json").exists()
    assert "--force overwrites" in calib("boards", "--ir", ir, "--board", BOARD, "-o", calibrated / "session", status=2)
    out = tmp_path / "c.yaml"
    assert "make it with calib boards" in calib("stereo", tmp_path, "-o", out, status=2)
    swapped = ("--ir-camera", calibrated / "session" / "rgb.yaml", "--rgb-camera", calibrated / "session" / "ir.yaml")
    assert "give the thermal camera's file" in calib("stereo", calibrated / "session", *swapped, "-o", out, status=2)
    unrelated = ("--ir", ir, "--rgb", "synthetic:?seed=7&duration_s=3", "--frames", "2")
    assert "could not be registered" in calib("register", *unrelated, "-o", out, status=2)
    assert not out.exists()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "rtfuse",
            "run",
            "--ir",
            "synthetic:",
            "--rgb",
            "synthetic:",
            "--publish",
            "off",
            "--calib",
            str(calibrated / "calibration.yaml"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "320x240, but the thermal stream is 640x480" in done.stderr


def test_the_error_about_a_wrong_board_names_the_seen_one(footage_of_boards, tmp_path):
    films = ("--ir", footage_of_boards / "ir.mkv", "--rgb", footage_of_boards / "rgb.mkv")
    said = calib("boards", *films, "--board", "checkerboard:8x6:25mm", "-o", tmp_path / "s", "--every", "1", status=2)
    assert "seem to show checkerboard:9x6" in said


def test_a_calibration_that_fails_is_written_only_by_force_and_its_use_is_warned_about(tmp_path):
    rng, out = np.random.default_rng(0), tmp_path / "bad.yaml"
    ir = rng.uniform(20, 220, (12, 2))
    rows = np.concatenate([ir, 2 * ir + rng.uniform(-3, 3, ir.shape)], 1)
    (tmp_path / "points.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    args = ("homography", "--points", tmp_path / "points.csv", "--ir", SCENE, "--rgb", SCENE, "-o", out)
    assert "the verdict is fail" in calib(*args, status=2)
    assert not out.exists()
    calib(*args, "--force")
    assert load_calibration(out).quality.verdict == "fail"
    assert calib("report", out, "-o", tmp_path / "r.html").count("it is not good: ") == 1
    command = ["run", "--ir", SCENE, "--rgb", SCENE, "--calib", str(out), "--fuser", "pyramid", "--frames", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "rtfuse", *command, "--publish", "off", "align.monitor=false"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is not good") == 1


def test_without_arguments_there_is_help():
    for args in (("-h",), ("--help",)):
        assert "Usage:" in calib(*args)
    bare = subprocess.run([sys.executable, "-m", "calib"], capture_output=True, text=True, timeout=60)
    assert (bare.returncode, bare.stderr) == (2, "")
    assert "Usage:" in bare.stdout
    assert "--plane" in calib("stereo", "-h")
    assert calib("--version").startswith("calib ")


def test_a_live_camera_guides_and_ends_with_its_views(footage_of_boards, tmp_path):
    """A network camera (a window is drawn, on a display that nobody sees) which is gone after a while."""
    handler = partial(SimpleHTTPRequestHandler, directory=footage_of_boards)
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        camera = f"http://127.0.0.1:{server.server_port}/rgb.mkv"
        said = calib("boards", "--rgb", camera, "--board", BOARD, "-o", tmp_path / "s", "--every", "1", "--limit", "8")
        server.shutdown()
    assert "views kept" in said
    assert 4 <= len(load_session(tmp_path / "s").views) <= 8


def test_the_guide_shades_what_is_missing(footage_of_boards):
    chooser = Chooser(parse_board(BOARD))
    with Footage(str(footage_of_boards / "ir.mkv"), str(footage_of_boards / "rgb.mkv")) as footage:
        for moment, _ in zip(footage, range(2), strict=False):
            found = chooser.look(moment)
    picture = guide_picture(moment, found, chooser)
    assert picture.shape == (508, 1280, 3)
    seen, missing = chooser.coverage("rgb", (640, 480)) > 0, chooser.lacks("rgb", (640, 480))
    assert seen.any()
    assert not seen.all()
    red = (
        (picture[:480, 640:, 0].astype(int) - picture[:480, 640:, 1])
        .reshape(3, 160, 640)[:, :, :639]
        .reshape(3, 160, 3, 213)
    )
    assert np.array_equal(np.median(red, axis=(1, 3)) < 30, seen)
    assert "the board in the" in missing[0]
    assert "turned" in " ".join(missing)
