"""A rig that is known, and the calibration files in which other tools would hold it."""

from __future__ import annotations

import io
import json

import cv2
import msgspec
import numpy as np

from rtfuse.align.calibration import Calibration, Camera, matrix3, vector3

K = ((560.0, 0.0, 322.0), (0.0, 561.0, 250.0), (0.0, 0.0, 1.0))
DIST = (-0.3, 0.11, 0.001, -0.0005, -0.02)
RATIONAL = (*DIST, 0.01, 0.002, 0.001)
PINHOLE = Camera(size_wh=(640, 512), K=K, dist=DIST)
FISHEYE = Camera(size_wh=(640, 512), K=K, dist=(-0.05, 0.01, -0.003, 0.001), model="fisheye")
RGB = Camera(size_wh=(1280, 960), K=((1100.0, 0, 645.0), (0, 1102.0, 470.0), (0, 0, 1.0)), dist=(0.05, -0.02, 0, 0, 0))
R = cv2.Rodrigues(np.array([0.02, -0.03, 0.015]))[0]
T = np.array([0.06, 0.003, -0.002])
"""The pose from thermal to RGB."""
RIG = Calibration(
    ir=msgspec.structs.replace(PINHOLE, dist=DIST[:4]),
    rgb=msgspec.structs.replace(RGB, dist=RGB.dist[:4]),
    R_rgb_from_ir=matrix3(R),
    t_rgb_from_ir_m=vector3(T),
    plane_m=10.0,
)


def flow(values):
    return f"[{', '.join(repr(float(x)) for x in np.ravel(values))}]"


def block(values):
    return "".join(f"\n- {float(x)!r}" for x in np.ravel(values))


def ros1_message(camera, model="plumb_bob", D=None):
    """Return what `rostopic echo` prints of a camera_info."""
    w, h = camera.size_wh
    return (
        f'header: \n  seq: 7\n  stamp: \n    secs: 1\n    nsecs: 2\n  frame_id: "cam"\nheight: {h}\nwidth: {w}\n'
        f'distortion_model: "{model}"\nD: {flow(camera.dist if D is None else D)}\nK: {flow(camera.K)}\n'
        f"R: {flow(np.eye(3))}\nP: {flow(np.eye(3, 4))}\nbinning_x: 0\nbinning_y: 0\nroi: \n"
        "  x_offset: 0\n  y_offset: 0\n  height: 0\n  width: 0\n  do_rectify: False\n---\n"
    )


def ros2_message(camera, model="plumb_bob", seconds=1):
    """Return what `ros2 topic echo` prints of a camera_info."""
    w, h = camera.size_wh
    return (
        f"header:\n  stamp:\n    sec: {seconds}\n    nanosec: 5\n  frame_id: cam\nheight: {h}\nwidth: {w}\n"
        f"distortion_model: {model}\nd:{block(camera.dist)}\nk:{block(camera.K)}\nr:{block(np.eye(3))}\n"
        f"p:{block(np.eye(3, 4))}\nbinning_x: 0\nbinning_y: 0\nroi:\n"
        "  x_offset: 0\n  y_offset: 0\n  height: 0\n  width: 0\n  do_rectify: false\n---\n"
    )


def ost(camera, name="narrow_stereo"):
    """Return the `ost.txt` of ROS's camera_calibration."""
    w, h = camera.size_wh
    rows = "\n".join(" ".join(f"{x:.6f}" for x in row) for row in camera.K)
    return (
        f"# oST version 5.0 parameters\n\n\n[image]\n\nwidth\n{w}\n\nheight\n{h}\n\n[{name}]\n\n"
        f"camera matrix\n{rows}\n\n"
        f"distortion\n{' '.join(f'{x:.6f}' for x in camera.dist)}\n\nrectification\n1 0 0\n0 1 0\n0 0 1\n\n"
        f"projection\n{rows}\n"
    )


def file_storage(path, camera, **more):
    """Write a camera by OpenCV's own FileStorage: YAML, XML or JSON by the suffix."""
    store = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    w, h = camera.size_wh
    for key, value in {"image_width": w, "image_height": h, **more}.items():
        store.write(key, value)
    store.write("camera_matrix", camera.matrix)
    store.write("distortion_coefficients", np.array([camera.dist]).T)
    store.release()


def agisoft(camera):
    """Return Metashape's lens file of a camera."""
    (w, h), M, (k1, k2, p1, p2, k3) = camera.size_wh, camera.matrix, camera.dist
    values = {
        "projection": "frame",
        "width": w,
        "height": h,
        "f": M[1, 1],
        "cx": M[0, 2] - w / 2 + 0.5,
        "cy": M[1, 2] - h / 2 + 0.5,
        "b1": M[0, 0] - M[1, 1],
        "k1": k1,
        "k2": k2,
        "k3": k3,
        "p1": p2,
        "p2": p1,
        "date": "2026-01-02T03:04:05Z",
    }
    elements = "".join(f"  <{key}>{value}</{key}>\n" for key, value in values.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<calibration>\n{elements}</calibration>\n'


def matlab(camera):
    """Return MATLAB's struct of a camera: a transposed matrix, and a first pixel of (1, 1)."""
    k1, k2, p1, p2, k3 = camera.dist
    matrix = camera.matrix + np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    return {
        "RadialDistortion": [k1, k2, k3],
        "TangentialDistortion": [p1, p2],
        "ImageSize": camera.size_wh[::-1],
        "IntrinsicMatrix": matrix.T.tolist(),
        "WorldUnits": "millimeters",
    }


def caltech(camera):
    w, h = camera.size_wh
    M = camera.matrix
    return (
        (
            f"% Intrinsic parameters\n%-- Focal length:\nfc = [ {M[0, 0]!r} ; {M[1, 1]!r} ];\n".replace(
                "np.float64", ""
            )
            + f"cc = [ {float(M[0, 2])!r} ; {float(M[1, 2])!r} ];\nalpha_c = 0.000000;\n"
            + f"kc = [ {' ; '.join(repr(x) for x in camera.dist)} ];\nnx = {w};\nny = {h};\n"
        )
        .replace("(", "")
        .replace(")", "")
    )


def archive(camera):
    """Return NumPy's archive as OpenCV's tutorial in Python saves it, with an object that only a pickle holds."""
    made = io.BytesIO()
    objects = np.array([{"a": 1}, None])
    np.savez(made, mtx=camera.matrix, dist=np.array([camera.dist]), imgsize=camera.size_wh, rvecs=objects)
    return made.getvalue()


def by_parameter(camera, form):
    """Return a file with a key for each number; `form` has the places of one number's key and value."""
    (w, h), M = camera.size_wh, camera.matrix
    names = ("k1", "k2", "p1", "p2", "k3") if camera.model == "pinhole" else ("k1", "k2", "k3", "k4")
    values = {"fx": M[0, 0], "fy": M[1, 1], "cx": M[0, 2], "cy": M[1, 2], "width": w, "height": h}
    return "".join(form.format(k=k, v=v) for k, v in (values | dict(zip(names, camera.dist, strict=True))).items())


def vins(camera):
    own, parts = by_parameter(camera, "{k}: {v}\n").splitlines(), {"projection": "fxfycxcy", "distortion": "k1k2p1p2k3"}
    text = "%YAML:1.0\n---\nmodel_type: PINHOLE\nimage_width: 640\nimage_height: 512\n"
    for part, names in parts.items():
        text += f"{part}_parameters:\n" + "".join(f"   {line}\n" for line in own if line[:2] in names)
    return text


TEXTS = {
    "OpenCV's tutorial": (
        f"camera_matrix: {[[*row] for row in K]}\ndist_coeff: [{[*DIST]}]\nresolution: [640, 512]\n",
        PINHOLE,
    ),
    "OpenCV's tutorial, NumPy": (archive(PINHOLE), PINHOLE),
    "one key a number": (by_parameter(PINHOLE, "{k}: {v}\n"), PINHOLE),
    "ORB-SLAM": ("%YAML:1.0\n\nCamera.type: PinHole\n" + by_parameter(PINHOLE, "Camera.{k}: {v}\n"), PINHOLE),
    "ORB-SLAM, fisheye": (
        "%YAML:1.0\nCamera.type: KannalaBrandt\n" + by_parameter(FISHEYE, "Camera.{k}: {v}\n"),
        FISHEYE,
    ),
    "VINS": (vins(PINHOLE), PINHOLE),
    "rostopic echo": (ros1_message(PINHOLE), PINHOLE),
    "rostopic echo, twice": (ros1_message(PINHOLE) * 2, PINHOLE),
    "ros2 topic echo": (ros2_message(PINHOLE), PINHOLE),
    "ros2 topic echo, several": (ros2_message(PINHOLE) + ros2_message(PINHOLE, seconds=9), PINHOLE),
    "ros2 with a lost message": (
        "A message was lost!!!\n\ttotal count change:1\n\ttotal count: 1---\n" + ros2_message(PINHOLE),
        PINHOLE,
    ),
    "ros2 in PowerShell": (ros2_message(PINHOLE).encode("utf-16"), PINHOLE),
    "with a byte order mark": (b"\xef\xbb\xbf" + ros2_message(PINHOLE).encode(), PINHOLE),
    "lines of Windows": (ros2_message(PINHOLE).replace("\n", "\r\n"), PINHOLE),
    "rational": (
        ros1_message(PINHOLE, "rational_polynomial", RATIONAL),
        msgspec.structs.replace(PINHOLE, dist=RATIONAL),
    ),
    "rational as plumb_bob": (
        ros1_message(PINHOLE, "plumb_bob", RATIONAL),
        msgspec.structs.replace(PINHOLE, dist=RATIONAL),
    ),
    "equidistant": (ros2_message(FISHEYE, "equidistant"), FISHEYE),
    "fisheye": (ros2_message(FISHEYE, "fisheye"), FISHEYE),
    "json": (
        json.dumps({"width": 640, "height": 512, "distortion_model": "plumb_bob", "D": DIST, "K": sum(K, ()), "R": []}),
        PINHOLE,
    ),
    "ost.txt": (ost(PINHOLE), PINHOLE),
    "ost.txt of a fisheye lens": (ost(FISHEYE), FISHEYE),
    "Agisoft": (agisoft(PINHOLE), PINHOLE),
    "MATLAB": (json.dumps(matlab(PINHOLE)), PINHOLE),
    "the toolbox for MATLAB": (caltech(PINHOLE), PINHOLE),
}


def rigs():
    """Return the rig as the files of other tools, by name: the texts, and the options to read it."""
    ir, rgb = (msgspec.structs.replace(c, dist=(*c.dist, 0.0)) for c in (RIG.ir, RIG.rgb))
    rgb_first = {"R": R.T, "T": -R.T @ T}
    mm = {
        "CameraParameters1": matlab(rgb),
        "CameraParameters2": matlab(ir),
        "RotationOfCamera2": R.tolist(),  # of rows: the transpose of R.T
        "TranslationOfCamera2": (-R.T @ T * 1000).tolist(),
        "WorldUnits": "millimeters",
    }
    R1, R2, P1, P2, *_ = cv2.stereoRectify(
        np.array(ir.K), np.array(ir.dist), np.array(rgb.K), np.array(rgb.dist), ir.size_wh, R, T[:, None]
    )
    infos = [
        ros1_message(c)
        .replace(f"R: {flow(np.eye(3))}", f"R: {flow(turn)}")
        .replace(f"P: {flow(np.eye(3, 4))}", f"P: {flow(P)}")
        for c, turn, P in ((ir, R1, P1), (rgb, R2, P2))
    ]

    def two(first, second, R, T, unit):
        lenses = "".join(
            f"M{n}: {flow(c.K)}\nD{n}: {flow(c.dist)}\nimage_size{n}: [{c.size_wh[0]}, {c.size_wh[1]}]\n"
            for n, c in ((1, first), (2, second))
        )
        return lenses, f"R: {flow(R)}\nT: {flow(np.array(T) / unit)}\n"

    sizes = {"ir_wh": (640, 512), "rgb_wh": (1280, 960)}
    return {
        "OpenCV, RGB first": (["".join(two(rgb, ir, **rgb_first, unit=1.0))], {}),
        "OpenCV, thermal first": (["".join(two(ir, rgb, R, T, 1.0))], {"ir": "1", "rgb": "2"}),
        "OpenCV, two files, millimetres": (list(two(rgb, ir, **rgb_first, unit=0.001)), {"unit": "mm"}),
        "OpenCV, a rotation vector": (
            ["".join(two(ir, rgb, cv2.Rodrigues(R)[0], T, 1.0))],
            {"ir": "1", "rgb": "2"},
        ),
        "MATLAB": ([json.dumps(mm)], {}),
        "ROS stereo": (infos, {}),
        "sizes as options": (
            ["".join(two(rgb, ir, **rgb_first, unit=1.0)).replace("image_size", "size")],
            sizes,
        ),
    }


KALIBR = """
cam0: {camera_model: pinhole, intrinsics: [1100.0, 1102.0, 645.0, 470.0], distortion_model: radtan,
  distortion_coeffs: [0.05, -0.02, 0.0, 0.0], resolution: [1280, 960]}
cam1: {camera_model: pinhole, intrinsics: [560.0, 561.0, 322.0, 250.0], distortion_model: radtan,
  distortion_coeffs: [-0.3, 0.11, 0.0, 0.0], resolution: [640, 512],
  T_cn_cnm1: [[1.0, 0, 0, -0.06], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]}
"""
