"""Boards: found where they are, in either polarity, in order, and nowhere else."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest

from calib.adjust import Observation, lens_of, without_bias
from calib.boards import draw_finding, find_board
from calib.intrinsics import fit_camera
from calib.pattern import disc_mm, shapes, write_pattern
from calib.targets import describe, parse_board
from calib.views import points_of
from rtfuse.align.calibration import Calibration, Camera, matrix3
from rtfuse.errors import ConfigError, OutputUnwritable
from tools.render_boards import BoardScene

BOARDS = ["checkerboard:9x6:25mm", "circles:7x5:30mm", "acircles:4x9:20mm", "charuco:7x5:35mm:26mm"]
IR = Camera(
    size_wh=(640, 512), K=((520.0, 0, 322), (0, 521.0, 250), (0, 0, 1.0)), dist=(-0.3, 0.11, 0.001, -0.0005, -0.02)
)
RGB = Camera(size_wh=(640, 480), K=((600.0, 0, 325), (0, 605.0, 236), (0, 0, 1.0)), dist=(-0.1, 0.02, 0, 0, 0))
RIG = Calibration(
    ir=IR,
    rgb=RGB,
    R_rgb_from_ir=matrix3(cv2.Rodrigues(np.array([0.01, -0.02, 0.015]))[0]),
    t_rgb_from_ir_m=(0.06, 0.003, -0.002),
    plane_m=6.0,
)


@pytest.mark.parametrize("text", BOARDS)
@pytest.mark.parametrize("bits", [8, 16])
def test_boards_are_found_to_a_tenth_of_a_pixel(text, bits):
    """Thermal is inverse, of 40 grey levels in 255, blurred, noisy and bent by 30 % of barrel; RGB is as RGB is."""
    board = parse_board(text)
    scene = BoardScene(RIG, board, seed=1, bits=bits)
    for stream in ("ir", "rgb") if bits == 16 else ("ir",):
        errors = []
        for pose in scene.poses(3):
            found = find_board(scene.picture(stream, pose), board)
            assert found is not None, "every one of these has to be found"
            assert board.kind == "charuco" or list(found.ids) == list(range(len(board.points)))
            observation = Observation(0, "a", board.points[found.ids], found.pixels)
            if board.discs:
                observation = without_bias(observation, lens_of(scene.camera(stream)), disc_mm(board) / 1000)
            errors.append(observation.pixels - scene.pixels(stream, pose)[found.ids])
        lengths = np.linalg.norm(np.concatenate(errors), axis=1)
        assert np.sqrt((lengths**2).mean()) < 0.1
        assert np.abs(np.concatenate(errors).mean(0)).max() < 0.02


def test_the_order_does_not_depend_on_polarity_or_contrast():
    for text in BOARDS:
        board = parse_board(text)
        scene = BoardScene(RIG, board, seed=3)
        image = scene.picture("rgb", scene.poses(2)[1])
        there, inverse = find_board(image, board), find_board(255 - image, board)
        faint = find_board((image // 12 + 90).astype(np.uint8), board)
        for other in (inverse, faint):
            assert other is not None
            common, i, j = np.intersect1d(there.ids, other.ids, return_indices=True)
            assert len(common) >= 6
            assert np.linalg.norm(there.pixels[i] - other.pixels[j], axis=1).max() < 1.0
        drawn = draw_finding(image, board, there)
        assert drawn.shape == image.shape
        assert not np.array_equal(drawn, image)


@pytest.mark.slow
def test_what_is_no_board_is_not_found():
    rng = np.random.default_rng(0)
    others = [
        np.zeros((480, 640), np.uint8),
        np.full((480, 640, 3), 255, np.uint8),
        rng.integers(0, 255, (480, 640), np.uint8),
        rng.integers(20000, 20050, (256, 320)).astype(np.uint16),
        np.zeros((2, 3), np.uint8),
        cv2.GaussianBlur(rng.integers(0, 255, (480, 640), np.uint8), (0, 0), 4),
        np.kron(np.indices((12, 16)).sum(0) % 2 * 200, np.ones((40, 40))).astype(np.uint8),
    ]
    for text in BOARDS[:3]:
        board = parse_board(text)
        assert [find_board(image, board) for image in others if image.shape[:2] != (480, 640) or image.ndim == 3] == [
            None
        ] * 3
        for image in others[:1] + others[2:3] + others[5:6]:
            assert find_board(image, board) is None


def test_another_board_or_a_part_of_it_is_not_this_board():
    for mine, other in (("circles:7x5:30mm", "circles:6x5:30mm"), ("checkerboard:9x6:25mm", "checkerboard:8x6:25mm")):
        scene = BoardScene(RIG, parse_board(mine), seed=2)
        pose = scene.poses(1)[0]
        image = scene.picture("rgb", pose)
        assert find_board(image, parse_board(mine)) is not None
        assert find_board(image, parse_board(other)) is None
        corner = scene.pixels("rgb", pose)[0].round().astype(int)
        cv2.circle(image, tuple(int(c) for c in corner), 25, (120, 120, 120), -1)  # a thumb
        assert find_board(image, parse_board(mine)) is None


@pytest.mark.slow
def test_the_real_boards(footage):
    """4 × 3 discs of unknown size: 16 thermal pictures with strong barrel, 10 of RGB; held out, below 0.4 px."""
    board = parse_board("circles:4x3:40mm")
    for kind, pattern, want, limit in (("thermal", "*.png", 15, 0.4), ("rgb", "*.jpg", 9, 0.4)):
        files = sorted((footage / "calib" / kind).glob(pattern))
        images = [cv2.cvtColor(cv2.imread(str(f)), cv2.COLOR_BGR2RGB) for f in files]
        found = {f.stem: find_board(image, board) for f, image in zip(files, images, strict=True)}
        there = {name: f for name, f in found.items() if f is not None}
        assert len(there) >= want
        for f in there.values():  # right way up: rows go right, columns go down, nothing is mirrored
            grid = f.pixels.reshape(3, 4, 2)
            assert (np.diff(grid[..., 0], axis=1) > 0).all()
            assert (np.diff(grid[..., 1], axis=0) > 0).all()
        fit = fit_camera({n: points_of(f) for n, f in there.items()}, board, images[0].shape[1::-1])
        assert fit.camera.held_out_px < limit
        assert len(fit.rejected) <= 1


def test_boards_are_named_as_text():
    for text in (*BOARDS, "circles:4x3:40mm:24mm", "checkerboard:9x6:12.5mm"):
        assert describe(parse_board(text)) == text
    assert parse_board("checkerboard:9x6:2.5cm") == parse_board("checkerboard:9x6:25mm")
    for wrong in (
        "",
        "circles",
        "circles:7x5",
        "circles:7x5:30",
        "squares:7x5:30mm",
        "circles:1x5:30mm",
        "charuco:7x5:30mm",
        "charuco:7x5:30mm:31mm",
        "checkerboard:9x6:25mm:3mm",
        "circles:7x5:0mm",
        "circles:7x5:30mm:50mm",
    ):
        with pytest.raises(ConfigError, match="expected KIND:COLSxROWS:SPACING"):
            parse_board(wrong)
    assert np.allclose(parse_board("acircles:2x2:10mm").points[:, :2], [[0, 0], [0.02, 0], [0.01, 0.01], [0.03, 0.01]])


@pytest.mark.parametrize(
    "text", ["checkerboard:7x5:25mm", "circles:7x5:25mm", "acircles:4x9:20mm", "charuco:7x5:30mm:22mm"]
)
def test_what_is_printed_is_the_board(tmp_path, text):
    """The SVG's own shapes, painted at 4 px a mm, are found as the board, where the board says its points are."""
    board = parse_board(text)
    write_pattern(board, tmp_path / "b.svg")
    root = ET.parse(tmp_path / "b.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    size = [float(root.get(k).removesuffix("mm")) for k in ("width", "height")]
    assert sorted(size) == [210, 297]
    page = np.full((round(size[1] * 4), round(size[0] * 4)), 255, np.uint8)
    for shape in root.find(f"{name}g[@id='board']"):
        v = {k: 4 * float(shape.get(k)) for k in shape.attrib}
        if shape.tag == f"{name}circle":
            centre = (round(16 * (v["cx"] - 0.5)), round(16 * (v["cy"] - 0.5)))
            cv2.circle(page, centre, round(16 * v["r"]), 0, -1, cv2.LINE_AA, 4)
        else:
            x, y = round(v["x"]), round(v["y"])
            page[y : round(v["y"] + v["height"]), x : round(v["x"] + v["width"])] = 0
    found = find_board(page, board)
    assert found is not None
    mm = (found.pixels + 0.5) / 4
    between = 1000 * board.points[found.ids][:, :2]
    assert np.abs((mm - mm[0]) - (between - between[0])).max() < 0.15
    ruler = root.find(f"{name}g[@id='ruler']")[0]
    assert float(ruler.get("width")) == 100


def test_the_pdf_is_one_page_of_the_right_size(tmp_path):
    board = parse_board("circles:7x5:25mm")
    write_pattern(board, tmp_path / "b.pdf", paper="A4")
    data = (tmp_path / "b.pdf").read_bytes()
    start = int(re.search(rb"startxref\n(\d+)\n%%EOF", data)[1])
    assert data[start:].startswith(b"xref")
    offsets = [int(o) for o in re.findall(rb"(\d{10}) 00000 n", data[start:])]
    for k, offset in enumerate(offsets, 1):
        assert data[offset:].startswith(b"%d 0 obj" % k)
    box = [float(x) for x in re.search(rb"/MediaBox \[([^]]+)\]", data)[1].split()]
    assert box[2:] == pytest.approx([297 * 72 / 25.4, 210 * 72 / 25.4], abs=0.01)
    length, stream = re.search(rb"/Length (\d+) >>\nstream\n(.*)\nendstream", data, re.DOTALL).groups()
    assert len(stream) == int(length)
    assert stream.count(b" c f") == len(shapes(board)[0]) == 35


def test_what_cannot_be_printed_is_said(tmp_path):
    big = parse_board("circles:9x9:40mm")
    with pytest.raises(ConfigError, match="take --paper A2"):
        write_pattern(big, tmp_path / "b.pdf")
    with pytest.raises(ConfigError, match=r"\.svg or \.pdf"):
        write_pattern(parse_board("circles:4x3:30mm"), tmp_path / "b.png")
    with pytest.raises(ConfigError, match="choose from A4"):
        write_pattern(parse_board("circles:4x3:30mm"), tmp_path / "b.pdf", paper="foolscap")
    with pytest.raises(OutputUnwritable, match="nowhere"):
        write_pattern(parse_board("circles:4x3:30mm"), tmp_path / "nowhere" / "b.pdf")
