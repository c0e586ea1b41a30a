"""`trainer eval`: the table, the CSV, the contact sheet, and the reasons for skipped pairs."""

from __future__ import annotations

import csv
import subprocess
import sys

import cv2
import numpy as np
import pytest

from rtfuse.errors import ConfigError, RtfuseError
from rtfuse.fuse.luma_fuser import luma
from rtfuse.fuse.pyramid import fuse_pyramid
from trainer import cli
from trainer.evaluate import evaluate_recordings
from trainer.metrics import measure, stretched
from trainer.pairs import Pairs
from trainer.published import PUBLISHED


@pytest.fixture
def pairs(tmp_path):
    """Four pairs, one method that lacks one of them, and a thermal image without a partner."""
    rng = np.random.default_rng(0)
    for name in ("ir", "rgb", "method"):
        (tmp_path / name).mkdir()
    for k in range(4):
        ir, luma = (cv2.GaussianBlur(rng.integers(0, 256, (60, 80), np.uint8), (0, 0), 2) for _ in range(2))
        cv2.imwrite(str(tmp_path / "ir" / f"{k}.png"), ir)
        cv2.imwrite(str(tmp_path / "rgb" / f"{k}.png"), cv2.cvtColor(luma, cv2.COLOR_GRAY2BGR))
        if k:
            cv2.imwrite(str(tmp_path / "method" / f"{k}.png"), fuse_pyramid(ir, luma))
    cv2.imwrite(str(tmp_path / "ir" / "alone.png"), ir)
    return tmp_path


def run(pairs, *args):
    command = [sys.executable, "-m", "trainer", "eval", "--ir", pairs / "ir", "--rgb", pairs / "rgb", *args]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=100, env={"COLUMNS": "200"})


@pytest.mark.slow
def test_table_csv_and_sheet(pairs):
    done = run(pairs, "--fused", pairs / "method", "--pyramid", "--csv", pairs / "s.csv", "--sheet", pairs / "s.png",
               "--dataset", "roadscene")  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in (
        "pyramid",
        "method",
        "EN",
        "Qabf",
        "±",
        "EMMA (published)",
        "54.81",
        "data: 4 pairs taken; left out: 1 × no partner of this name (e.g. alone)",
    ):
        assert words in done.stdout
    with (pairs / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len([r for r in rows if r["method"] == "pyramid" and r["pair"] != "MEAN"]) == 4
    ir = cv2.imread(str(pairs / "ir" / "2.png"), cv2.IMREAD_GRAYSCALE)
    luma = cv2.imread(str(pairs / "rgb" / "2.png"), cv2.IMREAD_GRAYSCALE)
    want = measure(fuse_pyramid(ir, luma), ir, luma)
    got = next(r for r in rows if r["method"] == "pyramid" and r["pair"] == "2")
    assert all(float(got[m]) == pytest.approx(getattr(want, m), abs=1e-5) for m in ("EN", "VIF", "Qabf", "MI", "SSIM"))
    assert cv2.imread(str(pairs / "s.png")).shape == (26 + 4 * 240, 4 * 320, 3)


@pytest.mark.slow
def test_recordings_are_measured_with_their_flicker(tmp_path):
    scene = "synthetic:?seed=2&size=96x64&duration_s=1"
    pairs = list(Pairs(scene, scene))
    for name, depth in (("steady", 0), ("flickering", 12)):
        (tmp_path / name).mkdir()
        for k, pair in enumerate(pairs):
            image = np.clip(fuse_pyramid(pair.ir, luma(pair.rgb)).astype(int) + depth * (k % 2), 0, 255)
            cv2.imwrite(str(tmp_path / name / f"{k:03d}.png"), image.astype(np.uint8))
    stored = {name: str(tmp_path / name) for name in ("steady", "flickering")}
    result = evaluate_recordings(scene, scene, stored, {"pyramid": fuse_pyramid})
    assert result.flicker["steady"] == pytest.approx(result.flicker["pyramid"], abs=0.01)
    assert result.flicker["flickering"] > result.flicker["steady"] + 5
    assert result.shown["steady"] < result.flicker["steady"]
    assert result.shown["flickering"] > 5
    assert len(result.scores["steady"]) == 3
    assert result.mean("steady", "EN") == pytest.approx(result.mean("pyramid", "EN"))
    short = {"steady": str(tmp_path / "steady" / "000.png")}
    with pytest.raises(ConfigError, match=r"has ended at pair 1.*96x64"):
        evaluate_recordings(scene, scene, short, {})
    command = [sys.executable, "-m", "trainer", "eval", "--ir", scene, "--rgb", scene, "--pyramid", "--frames", "12"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env={"COLUMNS": "60"})
    assert done.returncode == 0, done.stderr
    header, row, *_ = (
        line.split() for line in done.stdout.splitlines() if line.split()[:1] in (["method"], ["pyramid"])
    )
    assert header[-2:] == ["flicker", "shown"]
    assert len(row) == len(header)  # nothing is cut, however narrow the terminal


@pytest.mark.slow
def test_the_papers_protocol_stretches(pairs):
    assert run(pairs, "--pyramid", "--protocol", "paper", "--csv", pairs / "s.csv").returncode == 0
    with (pairs / "s.csv").open() as file:
        *rows, mean = csv.DictReader(file)
    plain = []
    for row in rows:
        ir, y = (cv2.imread(str(pairs / f / f"{row['pair']}.png"), cv2.IMREAD_GRAYSCALE) for f in ("ir", "rgb"))
        fused = fuse_pyramid(ir, y)
        plain.append(fused.std())
        assert float(row["SD"]) == pytest.approx(stretched(fused).std(), abs=1e-5)
    assert float(mean["SD"]) > 1.2 * np.mean(plain)


def test_mistakes_are_named(pairs):
    for args, words in [
        ({}, "nothing to measure"),
        ({"fused": [pairs / "absent"]}, "does not exist"),
        ({"fused": [pairs]}, "name the folder of one method"),
        ({"pyramid": True, "frames": 3}, "--frames is for recordings"),
        ({"pyramid": True, "sheet": pairs / "sheet"}, r"the name must end in \.png or"),
        ({"pyramid": True, "sheet": pairs / "s.png", "csv": pairs}, "is a folder"),
        ({"pyramid": True, "dataset": "mars"}, "no published rows"),
    ]:
        with pytest.raises(RtfuseError, match=words):
            cli.evaluate(ir=str(pairs / "ir"), rgb=str(pairs / "rgb"), **args)
    done = run(pairs)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)


def test_published_rows_are_complete():
    assert {len(rows) for rows in PUBLISHED.values()} == {10}
    assert PUBLISHED["roadscene"]["EMMA"] == {
        "EN": 7.52,
        "SD": 54.81,
        "SF": 15.21,
        "AG": 5.83,
        "SCD": 1.69,
        "VIF": 0.66,
    }


def test_folders_are_paired_by_name_and_fused_images_have_rgbs(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)
    for folder, names in (("ir", ["a_ir.png", "b_ir.png"]), ("rgb", ["a_rgb.png", "b_rgb.jpg", "c_rgb.png"])):
        (tmp_path / folder).mkdir()
        for name in names:
            cv2.imwrite(str(tmp_path / folder / name), picture)
    pairs = Pairs(str(tmp_path / "ir"), str(tmp_path / "rgb"))
    assert [(pair.name, *(path.rpartition("/")[2] for path in pair.files)) for pair in pairs] == [
        ("a_rgb", "a_ir.png", "a_rgb.png"),
        ("b_rgb", "b_ir.png", "b_rgb.jpg"),
    ]
    assert pairs.survey.examples == {"no partner of this name": "c_rgb"}


def measured(pairs, *args, ir="ir", rgb="rgb"):
    cli.evaluate(str(pairs / ir), str(pairs / rgb), fused=[str(pairs / a) for a in args])


@pytest.mark.parametrize("where", ["deep/x", "deep/*.png", "method"])
def test_fused_images_may_lie_deeper_or_match_a_pattern(pairs, capsys, where):
    (pairs / "deep").mkdir()
    (pairs / "method").rename(pairs / where.replace("*.png", "y").replace("deep/y", "z"))
    if where == "deep/*.png":
        where = "z/*.png"
    measured(pairs, where.partition("/x")[0])
    assert "3 × no fused image" not in capsys.readouterr().out


def test_one_picture_each_needs_no_common_name(pairs, capsys):
    measured(pairs, "method/3.png", ir="ir/alone.png", rgb="rgb/3.png")
    assert "data: 1 pairs taken; left out: none" in capsys.readouterr().out


def test_what_was_written_is_said(pairs, capsys):
    for table, sheet in ((pairs / "a.csv", pairs / "a.png"), (None, None)):
        cli.evaluate(str(pairs / "ir"), str(pairs / "rgb"), fused=[str(pairs / "method")], csv=table, sheet=sheet)
        said = capsys.readouterr().out.replace("\n", "")
        assert [name in said for name in ("a.csv written", "a.png written")] == [table is not None] * 2


def test_a_side_that_is_the_other_is_not_measured(pairs):
    with pytest.raises(ConfigError, match=r"nothing to evaluate.*5 × thermal is the RGB picture itself"):
        measured(pairs, "method", rgb="ir")


def test_a_root_that_the_split_file_does_not_have_is_told(pairs):
    (pairs / "list.txt").write_text("# of two\nmsrs/1\nroadscene/2\n")
    with pytest.raises(ConfigError, match=r"list\.txt has no line road/NAME; its roots are msrs, roadscene"):
        cli.evaluate(str(pairs / "ir"), str(pairs / "rgb"), pyramid=True, only=pairs / "list.txt", root="road")
