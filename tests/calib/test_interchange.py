"""Calibrations of other tools, as people have them: read as the tool that wrote them means them, or refused by name."""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
import pytest
import yaml
from foreign_calibrations import (
    FISHEYE,
    KALIBR,
    PINHOLE,
    RATIONAL,
    RIG,
    TEXTS,
    K,
    R,
    T,
    agisoft,
    file_storage,
    flow,
    rigs,
    ros1_message,
    ros2_message,
)

from calib.interchange.cameras import write_opencv, write_ros
from calib.interchange.kalibr import write_kalibr
from calib.interchange.rigs import Wanted, read
from rtfuse.align.calibration import Camera, SensorMode, matrix3, projected
from rtfuse.errors import CalibrationError


def read_text(tmp_path, text, **wanted):
    path = tmp_path / "file"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read([path], Wanted(**wanted))


def same(a, b):
    assert (a.size_wh, a.model, a.modes, len(a.dist)) == (b.size_wh, b.model, b.modes, len(b.dist))
    assert np.allclose(a.matrix, b.matrix, atol=1e-5)
    assert np.allclose(a.dist, b.dist, atol=1e-6)


@pytest.mark.parametrize("name", TEXTS)
def test_one_camera_is_read(tmp_path, name):
    text, camera = TEXTS[name]
    same(read_text(tmp_path, text).value, camera)


@pytest.mark.parametrize("suffix", [".yml", ".xml", ".json"])
def test_what_opencv_wrote_is_read_and_what_is_written_opencv_reads(tmp_path, suffix):
    path = tmp_path / f"camera{suffix}"
    file_storage(path, PINHOLE)
    same(read([path], Wanted()).value, PINHOLE)
    file_storage(path, FISHEYE, fisheye_model=1)
    same(read([path], Wanted()).value, FISHEYE)
    for camera in (PINHOLE, FISHEYE):
        write_opencv(camera, tmp_path / "ours.yml", "ir")
        same(read([tmp_path / "ours.yml"], Wanted()).value, camera)
        store = cv2.FileStorage(str(tmp_path / "ours.yml"), cv2.FILE_STORAGE_READ)
        assert (store.getNode("camera_matrix").mat() == camera.matrix).all()
        assert (store.getNode("distortion_coefficients").mat().ravel() == camera.dist).all()
        assert (int(store.getNode("image_width").real()), int(store.getNode("image_height").real())) == camera.size_wh


@pytest.mark.parametrize("camera", [PINHOLE, FISHEYE, msgspec.structs.replace(PINHOLE, dist=RATIONAL)])
def test_a_ros_file_comes_back_as_it_was(tmp_path, camera):
    write_ros(camera, tmp_path / "ros.yaml", "ir")
    assert read([tmp_path / "ros.yaml"], Wanted()).value == camera
    tree = yaml.safe_load((tmp_path / "ros.yaml").read_text())
    assert tree["projection_matrix"]["data"][:4] == [560.0, 0.0, 322.0, 0.0]
    # And by a reader of YAML that is not ours: OpenCV's, which wants its first line.
    text = "%YAML:1.0\n---\n" + (tmp_path / "ros.yaml").read_text()
    store = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)

    def data(key):
        node = store.getNode(key).getNode("data")
        return [node.at(k).real() for k in range(node.size())]

    assert data("camera_matrix") == [*camera.matrix.ravel()]
    assert data("distortion_coefficients") == [*camera.dist]
    assert (store.getNode("image_width").real(), store.getNode("image_height").real()) == camera.size_wh
    models = {(5, "pinhole"): "plumb_bob", (8, "pinhole"): "rational_polynomial", (4, "fisheye"): "equidistant"}
    assert store.getNode("distortion_model").string() == models[len(camera.dist), camera.model]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rational as plumb_bob", "read as rational_polynomial"),
        ("ost.txt of a fisheye lens", "those of a fisheye lens"),
        ("ost.txt", "read as k1 k2 p1 p2"),
        ("OpenCV's tutorial", "read as k1 k2 p1 p2"),
        ("ORB-SLAM", None),
        ("ros2 topic echo", None),
    ],
)
def test_a_guess_is_said(tmp_path, name, said):
    found = read_text(tmp_path, TEXTS[name][0])
    assert len(found.said) == (said is not None)
    assert said is None or said in found.said[0]


@pytest.mark.parametrize(
    "text",
    [f"camera_matrix: {[[*row] for row in K]}\nresolution: [640, 512]\n", "fx: 560\nfy: 561\ncx: 322\ncy: 250\n"],
)
def test_a_lens_without_coefficients_is_said(tmp_path, text):
    found = read_text(tmp_path, text, ir_wh=(640, 512))
    assert found.value.dist == ()
    assert "taken as free of distortion" in " ".join(found.said)


def test_the_part_of_the_image_that_is_sent_becomes_a_mode(tmp_path):
    text = ros2_message(PINHOLE).replace("binning_x: 0\nbinning_y: 0", "binning_x: 2\nbinning_y: 2")
    found = read_text(
        tmp_path,
        text.replace(
            "x_offset: 0\n  y_offset: 0\n  height: 0\n  width: 0",
            "x_offset: 40\n  y_offset: 20\n  height: 400\n  width: 560",
        ),
    )
    assert found.value.modes == (SensorMode(size_wh=(280, 200), crop_xy=(40.0, 20.0), binning=(2.0, 2.0)),)
    assert "280x200" in found.said[0]


def test_agisofts_formulas_are_ours():
    """Agisoft's own formulas (Metashape's manual, camera models) give the pixels that our camera gives."""
    f, cx, cy, b1, k1, k2, k3, p1, p2 = 560.0, 3.0, -2.0, 1.5, -0.3, 0.11, -0.02, 0.0008, -0.001
    points = np.array([[0.2, -0.1, 1.0], [-0.4, 0.3, 1.2], [0.0, 0.0, 1.0]])
    x, y = (points[:, :2] / points[:, 2:]).T
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    u = 320 + cx + (x * radial + p1 * (r2 + 2 * x * x) + 2 * p2 * x * y) * (f + b1)
    v = 256 + cy + (y * radial + p2 * (r2 + 2 * y * y) + 2 * p1 * x * y) * f
    from calib.interchange.lenses import camera_of

    tree = {"projection": "frame", "width": 640, "height": 512, "f": f, "cx": cx, "cy": cy, "b1": b1}
    camera = camera_of({**tree, "k1": k1, "k2": k2, "k3": k3, "p1": p1, "p2": p2}, [])
    # Its first pixel's middle is at 0.5, ours at 0.
    assert np.allclose(projected(points, camera), np.stack([u, v], 1) - 0.5)


@pytest.mark.parametrize("name", rigs())
def test_a_rig_is_read(tmp_path, name):
    texts, wanted = rigs()[name]
    paths = []
    for k, text in enumerate(texts):
        paths.append(tmp_path / f"{k}.yaml")
        paths[-1].write_text(text)
    c = read(paths, Wanted(**wanted)).value
    assert (c.ir.size_wh, c.rgb.size_wh) == (RIG.ir.size_wh, RIG.rgb.size_wh)
    assert np.allclose(c.ir.matrix, RIG.ir.matrix, atol=1e-5)
    assert np.allclose(c.R_rgb_from_ir, R, atol=1e-6)
    assert np.allclose(c.t_rgb_from_ir_m, T, atol=1e-6)


def test_kalibr_takes_what_it_has_a_form_for(tmp_path):
    fisheye = msgspec.structs.replace(RIG, rgb=msgspec.structs.replace(FISHEYE, size_wh=(640, 480)))
    write_kalibr(fisheye, tmp_path / "chain.yaml")
    back = read([tmp_path / "chain.yaml"], Wanted()).value
    assert (back.ir, back.rgb) == (fisheye.ir, fisheye.rgb)
    assert np.allclose(back.t_rgb_from_ir_m, T)
    with pytest.raises(CalibrationError, match="--model pinhole4"):
        write_kalibr(msgspec.structs.replace(RIG, ir=PINHOLE), tmp_path / "chain.yaml")
    flat = msgspec.structs.replace(RIG, R_rgb_from_ir=None, t_rgb_from_ir_m=None, H_rgb_from_ir=matrix3(np.eye(3)))
    with pytest.raises(CalibrationError, match="needs a stereo pose"):
        write_kalibr(flat, tmp_path / "chain.yaml")


@pytest.mark.parametrize("order", ["rgb first", "ir first"])
def test_kalibrs_chain_is_read_in_either_order(tmp_path, order):
    """A point goes from thermal to RGB as Kalibr says: `T_cn_cnm1` takes cam0's system to cam1's."""
    write_kalibr(msgspec.structs.replace(RIG, ir_offset_ms=-12.5), tmp_path / "chain.yaml")
    tree, names = yaml.safe_load((tmp_path / "chain.yaml").read_text()), {"ir": "cam1", "rgb": "cam0"}
    if order == "ir first":
        chain = np.array(tree["cam1"].pop("T_cn_cnm1"))
        tree = {"cam0": tree["cam1"], "cam1": tree["cam0"]}
        tree["cam1"]["T_cn_cnm1"] = np.linalg.inv(chain).tolist()
        names = {"ir": "cam0", "rgb": "cam1"}
    found = read_text(tmp_path, yaml.safe_dump(tree), **names)
    c = found.value
    assert (c.ir, c.rgb) == (RIG.ir, RIG.rgb)
    assert c.ir_offset_ms == pytest.approx(-12.5)
    assert "ir_offset_ms is -12.500" in found.said[0]
    point = np.array([0.4, -0.2, 3.0, 1.0])
    by_kalibr = np.array(tree["cam1"]["T_cn_cnm1"])
    there = by_kalibr @ point if order == "ir first" else np.linalg.inv(by_kalibr) @ point
    assert np.allclose(np.array(c.R_rgb_from_ir) @ point[:3] + c.t_rgb_from_ir_m, there[:3])


def test_kalibrs_poses_by_way_of_the_imu_are_read_and_compared(tmp_path):
    write_kalibr(RIG, tmp_path / "chain.yaml")
    tree = yaml.safe_load((tmp_path / "chain.yaml").read_text())
    rgb_from_imu = np.eye(4)
    rgb_from_imu[:3, :3], rgb_from_imu[:3, 3] = cv2.Rodrigues(np.array([1.2, -0.3, 0.4]))[0], (0.1, 0.2, -0.05)
    ir_from_imu = np.array(tree["cam1"]["T_cn_cnm1"]) @ rgb_from_imu
    tree["cam0"]["T_cam_imu"], tree["cam1"]["T_cam_imu"] = rgb_from_imu.tolist(), ir_from_imu.tolist()
    tree["cam1"]["timeshift_cam_imu"] = 0.01
    found = read_text(tmp_path, yaml.safe_dump(tree))
    assert np.allclose(found.value.t_rgb_from_ir_m, T)
    assert found.value.ir_offset_ms is None
    assert [line.partition(" is ")[0] for line in found.said] == ["thermal", "the time shift of one camera alone"]
    del tree["cam1"]["T_cn_cnm1"]
    assert np.allclose(read_text(tmp_path, yaml.safe_dump(tree)).value.R_rgb_from_ir, R)
    write_kalibr(RIG, tmp_path / "chain.yaml")
    tree["cam1"]["T_cn_cnm1"] = yaml.safe_load((tmp_path / "chain.yaml").read_text())["cam1"]["T_cn_cnm1"]
    tree["cam1"]["T_cam_imu"] = rgb_from_imu.tolist()
    with pytest.raises(CalibrationError, match="disagree about the pose"):
        read_text(tmp_path, yaml.safe_dump(tree))


@pytest.mark.parametrize(
    ("text", "wanted", "fault"),
    [
        (ros1_message(Camera(size_wh=(640, 512), K=((0.0,) * 3,) * 3)), {}, "never calibrated: K is zero"),
        (ros1_message(PINHOLE, "inverse_brown_conrady"), {}, "distortion model is inverse_brown_conrady"),
        (ros2_message(PINHOLE) + ros2_message(FISHEYE), {}, "no baseline: these are two cameras"),
        (ros1_message(PINHOLE).replace("width: 640", "width: 0"), {}, "image size is zero"),
        (ros1_message(PINHOLE).replace("560.0", "5.6"), {}, "fx is 5.6 px.*millimetres"),
        (ros1_message(PINHOLE).replace("560.0", "nan"), {}, "want a number, found 'nan'"),
        (ros1_message(PINHOLE).replace("560.0", ".nan"), {}, "want a finite number"),
        (ros1_message(FISHEYE, "equidistant", (*FISHEYE.dist, 0.1)), {}, "four coefficients, found 5"),
        (agisoft(PINHOLE).replace("<date>", "<b2>0.7</b2><date>"), {}, "b2, p3, p4 and k4 have no place"),
        (agisoft(PINHOLE).replace("frame", "spherical"), {}, "projection is spherical"),
        ("MATLAB 5.0 MAT-file, Platform: GLNXA64", {}, "jsonencode"),
        (b"\x00\xff\xfe\x80", {}, "not a text file"),
        ("", {}, "no keys and values"),
        ("- 1\n- 2\n", {}, "no keys and values"),
        ("<a><b></a>", {}, "cannot be read"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', {}, "document type"),
        ('{"K": [1], "K": [2]}', {}, "occurs twice"),
        ("image_width: 3\n", {}, "it has no cameramatrix .*its keys are imagewidth"),
        (ros1_message(PINHOLE).replace("K: [560.0, ", "K: ["), {}, "camera matrix has 8 numbers; want 3x3"),
        (b"\x80\x04\x95", {}, "pickle of Python, which is not loaded"),
        (b"\x93NUMPY\x01", {}, "np.savez"),
        (b"PK\x03\x04 and no more", {}, "cannot be read"),
        ("fx: 1\nfy: 1\ncx: 1\ncy: 1\nmodel_type: MEI\n", {}, "its lens model is mei"),
        (KALIBR, {"ir": "cam7", "rgb": "cam0"}, "has no cam7"),
        (KALIBR, {"ir": "cam0", "rgb": "cam0"}, "are both cam0"),
        (KALIBR.replace("pinhole, intrinsics: [560", "omni, intrinsics: [560"), {}, "cam1.camera_model is omni"),
        (KALIBR.replace("radtan", "fov"), {}, "distortion_model is fov"),
        (KALIBR.replace("-0.06", "-60.0"), {}, "millimetres"),
        (KALIBR.replace("[0, 0, 0, 1.0]", "[0, 0, 0, 0]"), {}, "last row of 0 0 0 1"),
        (KALIBR.replace(", [0, 0, 0, 1.0]", ""), {}, "T_cn_cnm1 has 12 numbers; want 4x4"),
        (KALIBR.replace("T_cn_cnm1", "T"), {}, "the pose between cam1 and cam0"),
        (KALIBR.replace("cam1:", "imu0:"), {}, "it has cam0 alone"),
        (KALIBR.replace("[1.0, 0, 0, -0.06]", "[0.5, 0, 0, -0.06]"), {}, "not a rotation"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, text, wanted, fault):
    with pytest.raises(CalibrationError, match=fault) as e:
        read_text(tmp_path, text, **wanted)
    assert "\n" not in str(e.value)
    assert str(tmp_path / "file") in str(e.value)


def test_two_cameras_without_a_baseline_are_not_a_rig(tmp_path):
    P = np.concatenate([np.array(K), np.zeros((3, 1))], 1)
    for name in ("ir", "rgb"):
        (tmp_path / name).write_text(ros1_message(PINHOLE).replace(f"P: {flow(np.eye(3, 4))}", f"P: {flow(P)}"))
    with pytest.raises(CalibrationError, match="not a calibrated stereo pair"):
        read([tmp_path / "ir", tmp_path / "rgb"], Wanted())
    with pytest.raises(CalibrationError, match="absent"):
        read([tmp_path / "absent"], Wanted())
