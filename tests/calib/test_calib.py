"""Lenses, poses, homographies, parallax and time offsets against what is known; and every way to get them wrong."""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
import pytest

from calib.adjust import Lens, Observation, lens_of, pose_of, project, without_bias
from calib.click import Clicks
from calib.homography import at_plane, read_points, through_points
from calib.intrinsics import fit_camera
from calib.parallax import in_register, parallax_table
from calib.reasons import reasons
from calib.report import write_report
from calib.session import BoardPoints, Session, View, load_camera, load_session, save_camera, save_session
from calib.stereo import fit_stereo
from calib.targets import parse_board
from calib.timing import time_offset
from rtfuse.align.calibration import Calibration, Camera, ir_pixels_of_rgb, matrix3, vector3
from rtfuse.align.parallax import parallax_px
from rtfuse.capture import open_source
from rtfuse.errors import CalibrationError

BOARD = parse_board("checkerboard:9x6:30mm")
IR = Lens("pinhole5", np.array([560, 562, 322, 250, -0.3, 0.11, 0.001, -0.0005, -0.02]))
RGB = Lens("pinhole5", np.array([576, 576, 319.5, 239.5, -0.05, 0.01, 0, 0, 0]))
SIZES = {"ir": (640, 512), "rgb": (640, 480)}
R = cv2.Rodrigues(np.array([0.01, -0.02, 0.015]))[0]
T = np.array([0.06, 0.003, -0.002])
TRUE = Calibration(
    ir=IR.camera(SIZES["ir"]),
    rgb=RGB.camera(SIZES["rgb"]),
    R_rgb_from_ir=matrix3(R),
    t_rgb_from_ir_m=vector3(T),
    plane_m=10.0,
)


def agree(a, b):
    """The median distance, in thermal pixels, between where two calibrations look things up."""
    x, y = np.meshgrid(np.linspace(0, 639, 17), np.linspace(0, 479, 13))
    pixels = np.stack([x, y], -1).reshape(-1, 2)
    return np.median(np.linalg.norm(ir_pixels_of_rgb(pixels, a) - ir_pixels_of_rgb(pixels, b), axis=1))


def seen(pixels, size, rng, noise):
    inside = (pixels > 5).all() and (pixels < np.array(size) - 5).all()
    noisy = pixels + rng.normal(0, noise, pixels.shape)
    return BoardPoints(tuple(range(len(pixels))), tuple(map(tuple, noisy.tolist())), 1.0) if inside else None


def views(count, *, noise=0.08, tilt=30, spread=0.4, seed=0, ir=IR, rgb=RGB):
    """Return pairs of board points (thermal, RGB) of a board at rest, by name."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < count:
        turn = np.radians(rng.uniform(-tilt, tilt, 3)) * [1, 1, 0.3]
        z = rng.uniform(0.5, 1.2) * ir.values[0] / 560
        Rb = cv2.Rodrigues(turn)[0]
        t = np.array([*(rng.uniform(-spread, spread, 2) * z), z]) - Rb @ BOARD.points.mean(0)
        there = np.concatenate([cv2.Rodrigues(R.T @ Rb)[0].ravel(), R.T @ (t - T)])
        a = seen(project(BOARD.points, there, ir)[0], SIZES["ir"], rng, noise)
        b = seen(project(BOARD.points, np.concatenate([turn, t]), rgb)[0], SIZES["rgb"], rng, noise)
        if a and b:
            found[f"v{len(found)}"] = (a, b)
    return found


@pytest.fixture(scope="module")
def pairs():
    return views(20)


@pytest.fixture(scope="module")
def stereo(pairs):
    cameras = [
        fit_camera({n: p[k] for n, p in pairs.items()}, BOARD, SIZES[s]).camera for k, s in ((0, "ir"), (1, "rgb"))
    ]
    return cameras, fit_stereo(pairs, BOARD, *cameras, 10.0)


def test_derivatives_are_those_of_the_projection():
    for lens in (IR, Lens("fisheye", np.array([330, 331, 322, 250, -0.05, 0.01, -0.003, 0.001]))):
        pose = np.array([0.1, -0.2, 0.05, -0.1, -0.05, 0.8])
        _, by_pose, by_lens = project(BOARD.points, pose, lens)
        for J, values, rebuilt in (
            (by_pose, pose, lambda v, lens=lens: project(BOARD.points, v, lens)[0]),
            (by_lens, lens.values, lambda v, lens=lens, pose=pose: project(BOARD.points, pose, Lens(lens.kind, v))[0]),
        ):
            for k in range(len(values)):
                h = 1e-6 * max(1.0, abs(values[k]))
                step = np.eye(len(values))[k] * h
                numeric = ((rebuilt(values + step) - rebuilt(values - step)) / (2 * h)).ravel()
                assert np.abs(numeric - J[:, k]).max() < 1e-3 * max(1.0, np.abs(numeric).max())


@pytest.mark.parametrize(
    "lens",
    [
        IR,
        Lens("fisheye", np.array([330, 331, 322, 250, -0.05, 0.01, -0.003, 0.001])),
    ],
    ids=["pinhole", "fisheye"],
)
def test_a_lens_is_recovered_within_its_standard_deviations(lens):
    wide = {"spread": 0.9, "rgb": lens} if lens.kind == "fisheye" else {}
    found = {n: a for n, (a, _) in views(20, ir=lens, **wide).items()}
    fit = fit_camera(found, BOARD, SIZES["ir"])
    assert fit.kind == lens.kind  # chosen by the held-out error
    off = np.abs(lens_of(fit.camera).values[:4] - lens.values[:4])
    assert (off < 4 * np.array(fit.camera.K_std)).all()
    assert max(fit.camera.K_std) < 2.5
    assert fit.camera.held_out_px == pytest.approx(0.08 * np.sqrt(2), rel=0.1)


def test_wrong_views_are_left_out_and_named():
    found = {n: a for n, (a, _) in views(16).items()}
    other = Lens("pinhole5", np.array([900, 900, 300, 270, 0, 0, 0, 0, 0.0]))
    wrong = {f"other{k}": a for k, (a, _) in enumerate(views(3, ir=other, seed=5).values())}
    fit = fit_camera(found | wrong, BOARD, SIZES["ir"])
    assert set(fit.rejected) == set(wrong)
    assert np.abs(lens_of(fit.camera).values[:4] - IR.values[:4]).max() < 4
    point = np.array(found["v3"].pixels)
    point[7] += 15  # one point of one view
    moved = BoardPoints(found["v3"].ids, tuple(map(tuple, point.tolist())), 1.0)
    fit = fit_camera(found | {"v3": moved}, BOARD, SIZES["ir"])
    assert not fit.rejected
    assert len(fit.errors["v3"]) == 53


@pytest.mark.slow
def test_views_that_cannot_tell_are_refused():
    good = {n: a for n, (a, _) in views(12).items()}
    other = {
        f"o{n}": a
        for n, (a, _) in views(10, ir=Lens("pinhole5", np.array([900, 900, 300, 270, 0, 0, 0, 0, 0.0]))).items()
    }
    small = {
        n: BoardPoints(s.ids, tuple((x / 20 + 300, y / 20 + 200) for x, y in s.pixels), 1.0) for n, s in good.items()
    }
    corner = {n: BoardPoints(s.ids, tuple((x / 2.4, y / 2.4) for x, y in s.pixels), 1.0) for n, s in good.items()}
    for found, why in (
        (dict(list(good.items())[:5]), "found in 5 views, at least 6"),
        (small, "too small in the image"),
        (corner, "cover [0-9]+ % of the image"),
        ({n: a for n, (a, _) in views(12, tilt=1).items()}, "all views are alike"),
        (good | other, "do not fit one camera"),
    ):
        with pytest.raises(CalibrationError, match=why):
            fit_camera(found, BOARD, SIZES["ir"])


def test_the_pose_is_recovered_and_its_error_is_that_of_held_out_views(stereo):
    _, fit = stereo
    c = fit.calibration
    turn = np.degrees(cv2.Rodrigues(np.array(c.R_rgb_from_ir) @ R.T)[0].ravel())
    assert (np.abs(turn) < 4 * np.array(c.R_std_deg)).all()
    assert (np.abs(np.array(c.t_rgb_from_ir_m) - T) < 4 * np.array(c.t_std_m)).all()
    # Two detections of 0.08 px each way, of which the board's pose takes a part.
    assert 0.1 < c.quality.pair_error_px < 0.16
    assert c.quality.verdict == "good"
    assert agree(c, TRUE) < 0.2


def test_a_board_that_one_camera_counts_from_its_other_end_is_understood(stereo, pairs):
    cameras, fit = stereo
    turned = {
        n: (BoardPoints(a.ids, a.pixels[::-1], 1.0), b) if k % 4 == 1 else (a, b)
        for k, (n, (a, b)) in enumerate(pairs.items())
    }
    again = fit_stereo(turned, BOARD, *cameras, 10.0)
    assert again.turned == ("v1", "v5", "v9", "v13", "v17")
    assert agree(again.calibration, fit.calibration) < 1e-3


def test_views_of_one_camera_alone_help(stereo, pairs):
    cameras, _ = stereo
    some = {n: p for k, (n, p) in enumerate(pairs.items()) if k < 8}
    alone = {f"{n}-ir": (a, None) for n, (a, _) in pairs.items()} | {
        f"{n}-rgb": (None, b) for n, (_, b) in pairs.items()
    }
    without = fit_stereo(some, BOARD, *cameras, 10.0).calibration
    with_them = fit_stereo(some | alone, BOARD, *cameras, 10.0).calibration
    assert with_them.quality.views == without.quality.views == 8
    assert np.linalg.norm(with_them.R_std_deg) < np.linalg.norm(without.R_std_deg)


def test_pairs_that_do_not_belong_together_are_refused(stereo, pairs):
    cameras, _ = stereo
    names = list(pairs)
    mixed = {n: (pairs[n][0], pairs[names[(k + 7) % 20]][1]) for k, n in enumerate(names)}
    with pytest.raises(CalibrationError, match="do not agree on one pose"):
        fit_stereo(mixed, BOARD, *cameras, 10.0)
    few = {n: (pairs[n][0], mixed[n][1] if k < 3 else pairs[n][1]) for k, n in enumerate(names)}
    assert set(fit_stereo(few, BOARD, *cameras, 10.0).rejected) == set(names[:3])
    with pytest.raises(CalibrationError, match="see the board in 4 views"):
        fit_stereo(dict(list(pairs.items())[:4]), BOARD, *cameras, 10.0)


def test_the_middle_of_a_discs_picture_is_corrected():
    """A disc of 60 mm, tilted and near: its picture's centre of mass is computed here from its filled outline."""
    board = parse_board("circles:4x3:80mm:60mm")
    pose = np.array([0.5, 0.3, 0.1, -0.1, -0.1, 0.5])
    around = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    found = []
    for p in board.points:
        rim = p + 0.03 * np.stack([np.cos(around), np.sin(around), np.zeros(400)], 1)
        mask = np.zeros((512 * 4, 640 * 4), np.uint8)
        cv2.fillPoly(mask, [((project(rim, pose, IR)[0] + 0.5) * 4 * 16 - 8).round().astype(np.int32)], 1, shift=4)
        m = cv2.moments(mask, binaryImage=True)
        found.append([(m["m10"] / m["m00"] + 0.5) / 4 - 0.5, (m["m01"] / m["m00"] + 0.5) / 4 - 0.5])
    observation = Observation(0, "a", board.points, np.array(found))
    truth = project(board.points, pose, IR)[0]
    assert np.abs(observation.pixels - truth).max() > 0.5
    assert np.abs(without_bias(observation, IR, 0.06).pixels - truth).max() < 0.1
    assert np.allclose(pose_of(board.points, truth, IR), pose, atol=1e-6)


def test_the_homography_of_a_plane_is_the_pose_at_that_plane():
    flat = at_plane(TRUE, 4.0)
    assert flat.plane_m == 4.0
    assert agree(flat, msgspec.structs.replace(TRUE, plane_m=4.0)) < 1e-6
    assert agree(flat, TRUE) > 3  # at ten metres it would be another one
    with pytest.raises(CalibrationError, match="no stereo pose"):
        at_plane(flat, 5.0)


def test_a_homography_through_points_says_how_good_it_is(tmp_path):
    rng = np.random.default_rng(0)
    H = np.array([[1.05, 0.02, -9], [-0.01, 1.06, 4], [1e-5, 0, 1]])
    a = rng.uniform(20, 480, (14, 2))
    b = cv2.perspectiveTransform(a[None], H)[0]
    ir, rgb = Camera(size_wh=(640, 512)), Camera(size_wh=(640, 640))

    def fitted(a, b):
        return through_points({str(k): (a[k : k + 1], b[k : k + 1]) for k in range(len(a))}, ir, rgb, 8.0)[0]

    exact = fitted(a, b)
    assert np.allclose(exact.H_rgb_from_ir, H, atol=1e-6)
    assert exact.quality.pair_error_px < 1e-4
    noisy = fitted(a, b + rng.normal(0, 1, b.shape))
    assert 0.7 < noisy.quality.pair_error_px < 3
    assert noisy.quality.verdict != "good"
    text = "ir_x,ir_y,rgb_x,rgb_y\n" + "".join(
        f"{p[0]},{p[1]},{q[0]},{q[1]}  # mast\n" for p, q in zip(a, b, strict=True)
    )
    (tmp_path / "p.csv").write_text(text)
    assert np.allclose(fitted(*read_points(tmp_path / "p.csv")).H_rgb_from_ir, H, atol=1e-6)
    line = np.stack([np.linspace(20, 400, 14), np.full(14, 100.0)], 1)
    for wrong, why in (
        ((a[:4], b[:4]), "4 point pairs were given"),
        ((line, line), "on or near one line"),
        ((a, b[::-1]), "point pairs agree on one homography"),
        ((a + 600, b), "outside the thermal image"),
    ):
        with pytest.raises(CalibrationError, match=why):
            fitted(*wrong)
    (tmp_path / "p.csv").write_text("1,2,3\n")
    with pytest.raises(CalibrationError, match="line 1: expected ir_x"):
        read_points(tmp_path / "p.csv")
    with pytest.raises(CalibrationError, match=r"absent\.csv"):
        read_points(tmp_path / "absent.csv")


def test_clicks_are_pixels_of_the_pictures():
    ir, rgb = np.zeros((300, 400), np.uint16), np.zeros((1200, 1600, 3), np.uint8)
    clicks = Clicks(ir, rgb)
    clicks.click(900, 10)  # the right picture is not asked for yet
    clicks.click(799.5, 599.5)  # thermal is shown twice its size, 800 across
    clicks.click(100, 100)  # nor now the left one
    clicks.click(800, 0)
    assert clicks.points[0] == [(399.5, 299.5)]
    assert clicks.points[1] == [(0.5, 0.5)]
    assert clicks.picture().any()
    clicks.undo()
    assert clicks.points == [[(399.5, 299.5)], []]


def test_parallax_is_what_the_baseline_gives():
    plain = Camera(size_wh=(640, 480), K=((600.0, 0, 319.5), (0, 600.0, 239.5), (0, 0, 1.0)))
    c = Calibration(
        ir=plain, rgb=plain, R_rgb_from_ir=matrix3(np.eye(3)), t_rgb_from_ir_m=(0.05, 0.0, 0.0), plane_m=10.0
    )
    for distance in (1.0, 3.0, 30.0, 1000.0):
        assert parallax_px(c, distance) == pytest.approx(600 * 0.05 * abs(1 / distance - 1 / 10), rel=1e-3)
    near, far = in_register(c, 1.0)
    assert (1 / near, 1 / far) == pytest.approx((0.1 + 1 / 30, 0.1 - 1 / 30), rel=1e-3)
    assert in_register(msgspec.structs.replace(c, plane_m=40.0))[1] == np.inf
    assert dict(parallax_table(c))[10.0] == pytest.approx(0, abs=1e-6)
    with pytest.raises(CalibrationError, match="needs the cameras' pose"):
        parallax_table(at_plane(c, 5.0))


def test_sessions_and_cameras_are_checked(tmp_path, pairs):
    session = Session(
        board="checkerboard:9x6:30mm",
        ir_wh=(640, 512),
        rgb_wh=(640, 480),
        together=True,
        views=tuple(View(name=n, ir=a, rgb=b) for n, (a, b) in pairs.items()),
    )
    save_session(session, tmp_path)
    assert load_session(tmp_path) == session
    with pytest.raises(CalibrationError, match="make it with calib boards"):
        load_session(tmp_path / "nowhere")
    (tmp_path / "boards.json").write_text('{"board": 3}')
    with pytest.raises(CalibrationError, match="board"):
        load_session(tmp_path)
    save_camera(TRUE.ir, tmp_path / "ir.yaml")
    assert load_camera(tmp_path / "ir.yaml") == TRUE.ir
    with pytest.raises(CalibrationError, match="make it with calib intrinsics"):
        load_camera(tmp_path / "rgb.yaml")
    save_camera(Camera(size_wh=(3, 4)), tmp_path / "rgb.yaml")
    with pytest.raises(CalibrationError, match="K is missing"):
        load_camera(tmp_path / "rgb.yaml")


def test_the_report_says_what_the_verdict_rests_on(tmp_path, stereo):
    c = stereo[1].calibration
    assert write_report(c, tmp_path / "r.html", name="c.yaml") == "good"
    page = (tmp_path / "r.html").read_text()
    for part in (
        "held-out board views",
        "Parallax",
        "<svg",
        "distortion",
        "the boards were",
        "verdict",
    ):
        assert part in page
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched
    bad = msgspec.structs.replace(c, quality=msgspec.structs.replace(c.quality, pair_error_px=20.0))
    assert write_report(bad, tmp_path / "r.html", name="<b>.yaml") == "fail"
    assert "&lt;b&gt;.yaml" in (tmp_path / "r.html").read_text()
    assert {r.grade for r in reasons(msgspec.structs.replace(c, quality=None))} >= {"unknown"}


@pytest.mark.parametrize(
    ("query", "offset_ms"),
    [
        ("duration_s=8&stamp_ms=12&seed=2", -12.0),
        ("duration_s=8&stamp_ms=-33&motion=2&ir_fps=9&size=320x240", 33.0),
        ("duration_s=12&stamp_ms=7&warp=1&ir_size=160x120&size=320x240&jitter_ms=4&motion=2", -7.0),
    ],
)
def test_the_time_offset_is_found_within_two_milliseconds(query, offset_ms):
    uri = f"synthetic:?{query}"
    found = time_offset(open_source(uri, "ir"), open_source(uri, "rgb"))
    assert found.ms == pytest.approx(offset_ms, abs=2.0)
    assert found.std_ms < 2.0
    assert found.by == "the rig"
    assert found.curve[found.curve[:, 1].argmax(), 0] == pytest.approx(offset_ms, abs=10)


def test_a_time_offset_that_cannot_be_told_is_refused():
    still = "synthetic:?duration_s=4&size=320x240&motion=0&seed=5"
    with pytest.raises(CalibrationError, match="back and forth"):
        time_offset(
            open_source(still, "ir"),
            open_source("synthetic:?duration_s=4&size=320x240&motion=3&seed=9", "rgb"),
            limit_ms=100,
        )
    short = "synthetic:?duration_s=1&size=128x96"
    with pytest.raises(CalibrationError, match="at least 60 are needed"):
        time_offset(open_source(short, "ir"), open_source(short, "rgb"))
