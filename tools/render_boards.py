"""Render recordings of a board that moves before a rig of known geometry, to try and test calibration.

    python tools/render_boards.py -o out/boards --board checkerboard:9x6:25mm
    python tools/render_boards.py -o out/boards --board circles:7x5:30mm --rig rig.yaml --bits 16

writes `ir.mkv` and `rgb.mkv` (lossless, 30 fps) and `truth.yaml`, the rig's true
calibration. Without `--rig` it is the rig of the synthetic street (`--scene` chooses which), so that a calibration from
these recordings can be tried on the street. Every pixel is traced through the lens to the board and averaged over its
area; blur, contrast and noise follow.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame

from calib.pattern import disc_mm
from calib.targets import Board, parse_board
from rtfuse.align.calibration import (
    Calibration,
    Camera,
    load_calibration,
    matrix3,
    projected,
    save_calibration,
    undistorted,
)
from rtfuse.capture.synthetic.scene import PLANE_M, SyntheticScene
from rtfuse.types import Image, Stream

FPS = 30
_PX_PER_MM = 4
_OVER = 2
"""Rays across and down per pixel; the texture is smooth at that pitch."""
_MARGIN = 1.2
"""Paper around the outermost points, in spacings."""


def rig_of_scene(scene: SyntheticScene) -> Calibration:
    """Return the calibration of the synthetic street's two cameras: exact for its distance `PLANE_M`."""
    view, H = scene.stage.view, scene.H_rgb_from_ir
    (w, h), iw_ih = scene.size, scene.size_wh("ir")
    f, (cx, cy) = view.focal_px, ((w - 1) / 2, (h - 1) / 2)
    zoom = float(np.sqrt(np.linalg.det(H[:2, :2])))
    R = np.eye(3)
    R[:2, :2] = H[:2, :2] / zoom
    if not np.allclose(R @ R.T, np.eye(3), atol=1e-6):
        raise ValueError("the scene's thermal pixels are not square; choose an ir_size of the same shape as size")
    # H = K_rgb (R + t nᵀ/plane) K_ir⁻¹ with t along x: the thermal camera's principal point follows. The baseline is
    # the scene's: near things lie further to the right in thermal, by f b / z.
    t = np.array([-scene.baseline_m, 0.0, 0.0])
    at = np.linalg.solve(H[:2, :2], np.array([cx, cy]) + f * t[:2] / PLANE_M - H[:2, 2])
    K_ir = np.array([[f / zoom, 0, at[0]], [0, f / zoom, at[1]], [0, 0, 1]])
    return Calibration(
        ir=Camera(size_wh=iw_ih, K=matrix3(K_ir), dist=(0.0,) * 5),
        rgb=Camera(size_wh=(w, h), K=matrix3(np.array([[f, 0, cx], [0, f, cy], [0, 0, 1]])), dist=(0.0,) * 5),
        R_rgb_from_ir=matrix3(R),
        t_rgb_from_ir_m=(float(t[0]), 0.0, 0.0),
        plane_m=PLANE_M,
    )


class BoardScene:
    """Draw each camera's picture of a board at a pose in the RGB camera's system."""

    def __init__(
        self, rig: Calibration, board: Board, *, seed: int = 0, blur_px: float = 0.8, noise: float = 2.0, bits: int = 8
    ) -> None:
        self.rig, self.board, self._blur, self._noise, self.bits = rig, board, blur_px, noise, bits
        self._rng = np.random.default_rng(seed)
        self._texture, self._origin = _texture(board)
        self._rays = {s: _rays(self.camera(s)) for s in ("ir", "rgb")}

    def camera(self, stream: Stream) -> Camera:
        """Return the stream's camera."""
        return self.rig.ir if stream == "ir" else self.rig.rgb

    def pose(self, stream: Stream, pose: Image) -> tuple[Image, Image]:
        """Return rotation (3, 3) and translation (3,) of the board in the stream's camera, for one in RGB's."""
        R, t = cv2.Rodrigues(pose[:3])[0], pose[3:]
        if stream == "rgb":
            return R, t
        back = np.array(self.rig.R_rgb_from_ir).T
        return back @ R, back @ (t - np.array(self.rig.t_rgb_from_ir_m))

    def pixels(self, stream: Stream, pose: Image) -> Image:
        """Return the true positions of the board's points, (N, 2) px."""
        R, t = self.pose(stream, pose)
        return projected(self.board.points @ R.T + t, self.camera(stream))

    def picture(self, stream: Stream, pose: Image, contrast: float | None = None) -> Image:
        """Return the stream's picture: (h, w) uint8 or uint16 thermal, (H, W, 3) uint8 RGB."""
        R, t = self.pose(stream, pose)
        rays = self._rays[stream]
        facing = (rays @ R[:, 2]) / (R[:, 2] @ t)
        depth = np.where(facing > 1e-6, 1 / np.maximum(facing, 1e-6), 1e6)
        on_board = ((rays * depth[..., None]) - t) @ R[:, :2]
        places = ((on_board - self._origin) * (1000 * _PX_PER_MM) - 0.5).astype(np.float32)
        ink = cv2.remap(self._texture, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=-1)
        w, h = self.camera(stream).size_wh
        ink = cv2.resize(ink, (w, h), interpolation=cv2.INTER_AREA)
        return self._thermal(ink, contrast or 40.0) if stream == "ir" else self._colour(ink, contrast or 170.0)

    def _grain(self, shape: tuple[int, ...]) -> Image:
        return self._rng.normal(0, self._noise, shape).astype(np.float32)

    def _thermal(self, ink: Image, contrast: float) -> Image:
        h, w = ink.shape
        wall = 70 + 25 * np.linspace(0, 1, w, dtype=np.float32) + 10 * np.linspace(0, 1, h, dtype=np.float32)[:, None]
        # Dark ink is warm under a lamp: the polarity is the other one.
        grey = np.where(ink < 0, wall, 110 + contrast * ink + 12 * np.linspace(-1, 1, w, dtype=np.float32))
        grey = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.2 * self._blur) + self._grain(ink.shape)
        if self.bits == 16:
            return np.clip(29000 + 8 * grey, 0, 65535).astype(np.uint16)
        return np.clip(grey + 0.5, 0, 255).astype(np.uint8)

    def _colour(self, ink: Image, contrast: float) -> Image:
        h, w = ink.shape
        wall = (
            np.array([95, 105, 120], np.float32) * (0.7 + 0.3 * np.linspace(0, 1, h, dtype=np.float32))[:, None, None]
        )
        paper = (205 - contrast * ink)[..., None] * np.array([1, 0.98, 0.93], np.float32)
        picture = np.where((ink < 0)[..., None], np.broadcast_to(wall, (h, w, 3)), paper).astype(np.float32)
        picture = cv2.GaussianBlur(picture, (0, 0), self._blur) + self._grain(picture.shape)
        return np.clip(picture + 0.5, 0, 255).astype(np.uint8)

    def poses(self, count: int, *, fill: float = 0.45) -> list[Image]:
        """Return poses (6,) over the whole RGB image, tilted in different ways, whole in both pictures.

        `fill` is the board's usual size as a part of the image's.
        """
        size = np.ptp(self.board.points[:, :2], 0)
        camera = self.camera("rgb")
        (w, h), f = camera.size_wh, camera.matrix[0, 0]
        usual = f * max(size[0] / w, size[1] / h) / fill
        found: list[Image] = []
        for _ in range(200 * count):
            k = len(found)
            if k == count:
                return found
            tilt = np.radians(self._rng.uniform([-35, -35, -12], [35, 35, 12]))
            z = usual * self._rng.uniform(0.75, 1.5)
            # One ninth of the image after the other.
            cell = (np.array([k % 3, k // 3 % 3]) + self._rng.uniform(0.1, 0.9, 2)) / 3
            ray = undistorted((cell * [w, h])[None], camera)[0]
            R = cv2.Rodrigues(tilt)[0]
            middle = (self.board.points.min(0) + self.board.points.max(0)) / 2
            pose = np.concatenate([tilt, np.array([*(ray * z), z]) - R @ middle])
            if all(self._whole(s, pose) for s in ("ir", "rgb")):
                found.append(pose)
        raise ValueError(f"only {len(found)} of {count} poses fit both pictures: take a smaller board or fill")

    def _whole(self, stream: Stream, pose: Image) -> bool:
        xy, (w, h) = self.pixels(stream, pose), self.camera(stream).size_wh
        return bool((xy > 0.02 * w).all() and (xy < np.array([w, h]) - 0.02 * w).all())


def waved(poses: list[Image], hold: int, move: int) -> Iterator[Image]:
    """Yield one pose a frame: every pose is held for `hold` frames, and reached in `move` frames."""
    for k, pose in enumerate(poses):
        if k:
            steps = (np.arange(1, move + 1) / (move + 1))[:, None]
            yield from poses[k - 1] * (1 - steps) + pose * steps
        yield from [pose] * hold


def record(scene: BoardScene, poses: Iterator[Image], folder: Path) -> None:
    """Write both cameras' pictures as `ir.mkv` and `rgb.mkv` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with av.open(str(folder / "ir.mkv"), "w") as ir, av.open(str(folder / "rgb.mkv"), "w") as rgb:
        streams = {}
        for name, container in (("ir", ir), ("rgb", rgb)):
            video = container.add_stream("ffv1", rate=FPS)
            assert isinstance(video, av.VideoStream)
            camera = scene.camera("ir" if name == "ir" else "rgb")
            video.width, video.height = camera.size_wh
            video.pix_fmt = "bgr0" if name == "rgb" else "gray16le" if scene.bits == 16 else "gray"
            video.time_base = Fraction(1, FPS)
            streams[name] = video
        for k, pose in enumerate(poses):
            for name, container in (("ir", ir), ("rgb", rgb)):
                image = scene.picture("ir" if name == "ir" else "rgb", pose)
                layout = "rgb24" if image.ndim == 3 else "gray16le" if image.dtype == np.uint16 else "gray"
                frame = VideoFrame.from_ndarray(image, format=layout)
                frame.pts = k
                container.mux(streams[name].encode(frame))
        for name, container in (("ir", ir), ("rgb", rgb)):
            container.mux(streams[name].encode(None))


def _texture(board: Board) -> tuple[Image, Image]:
    """Return the ink of the board, (h, w) float32: 0 paper, 1 ink; and the corner of its first pixel in metres."""
    fine = 2 * _PX_PER_MM * 1000
    low, high = board.points[:, :2].min(0), board.points[:, :2].max(0)
    pad = _MARGIN * board.spacing_m + (board.spacing_m if board.kind in ("checkerboard", "charuco") else 0)
    origin = low - pad
    w, h = np.ceil((high + pad - origin) * fine / 2).astype(int) * 2
    ink = np.zeros((h, w), np.float32)
    if board.kind in ("circles", "acircles"):
        radius = disc_mm(board) / 2000
        y, x = (np.arange(n, dtype=np.float32) + 0.5 for n in (h, w))
        for p in (board.points[:, :2] - origin) * fine:
            r = radius * fine
            ys, xs = (slice(max(0, int(c - r - 2)), int(c + r + 3)) for c in p[::-1])
            far = np.hypot(y[ys, None] - p[1], x[None, xs] - p[0])
            ink[ys, xs] = np.maximum(ink[ys, xs], np.clip(r + 0.5 - far, 0, 1))
    elif board.kind == "checkerboard":
        s = board.spacing_m
        y = ((np.arange(h) + 0.5) / fine + origin[1] - low[1]) / s + 1
        x = ((np.arange(w) + 0.5) / fine + origin[0] - low[0]) / s + 1
        inside = ((y > 0) & (y < board.rows + 1))[:, None] & ((x > 0) & (x < board.cols + 1))
        ink[:] = inside & ((np.floor(y)[:, None] + np.floor(x)) % 2 == 0)
    else:
        assert board.marker_m is not None
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, board.dictionary))
        drawn = cv2.aruco.CharucoBoard((board.cols, board.rows), board.spacing_m, board.marker_m, dictionary)
        side = round(board.spacing_m * fine)
        image = drawn.generateImage((board.cols * side, board.rows * side), marginSize=0)
        x0, y0 = np.rint((low - board.spacing_m - origin) * fine).astype(int)
        ink[y0 : y0 + image.shape[0], x0 : x0 + image.shape[1]] = 1 - image / 255.0
    return cv2.resize(ink, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), origin


def _rays(camera: Camera) -> Image:
    """Return the ray (x, y, 1) of every sample of a camera's image, (h, w, 3) with `_OVER` samples a pixel."""
    w, h = camera.size_wh
    x, y = (((np.arange(n * _OVER) + 0.5) / _OVER - 0.5) for n in (w, h))
    pixels = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    rays = np.concatenate([undistorted(pixels, camera), np.ones((len(pixels), 1))], 1)
    return rays.reshape(h * _OVER, w * _OVER, 3)


def main() -> None:
    """Render the recordings that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for ir.mkv, rgb.mkv and truth.yaml")
    parser.add_argument("--board", default="checkerboard:9x6:25mm")
    parser.add_argument("--rig", type=Path, help="the true calibration (YAML), with a stereo pose")
    parser.add_argument("--scene", default="synthetic:?warp=1", help="the synthetic street whose rig it is")
    parser.add_argument("--views", type=int, default=27)
    parser.add_argument("--hold", type=int, default=5, help="frames that each pose is held for")
    parser.add_argument("--move", type=int, default=4, help="frames from one pose to the next")
    parser.add_argument("--bits", type=int, choices=(8, 16), default=8)
    parser.add_argument("--noise", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rig = load_calibration(given.rig) if given.rig else rig_of_scene(SyntheticScene.from_uri(given.scene))
    scene = BoardScene(rig, parse_board(given.board), seed=given.seed, noise=given.noise, bits=given.bits)
    record(scene, waved(scene.poses(given.views), given.hold, given.move), given.output)
    save_calibration(rig, given.output / "truth.yaml")


if __name__ == "__main__":
    main()
