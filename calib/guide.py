"""Find views of a board in footage, and guide the person who holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np

from calib.boards import Finding, draw_finding
from calib.footage import Footage, Moment, as_grey
from calib.guess import BoardDoubt
from calib.session import NAMES, VIEWS, Session, View, save_session
from calib.targets import Board, describe
from calib.views import Chooser, Kept, points_of
from rtfuse.errors import CalibrationError, OutputUnwritable
from rtfuse.pipeline.queues import STREAMS
from rtfuse.record.images import write_image
from rtfuse.types import Image, Stream

_HEIGHT, _STRIP = 480, 28


def guide_picture(moment: Moment, found: Mapping[Stream, Finding], chooser: Chooser) -> Image:
    """Return both pictures side by side with the advice below, (508, W, 3) uint8 RGB.

    Ninths of a picture without a view are shaded red.
    """
    parts = []
    for stream in STREAMS:
        frame = moment.frame(stream)
        if frame is None:
            continue
        h, w = frame.shape_hw
        image = as_grey(frame.image)
        picture = draw_finding(image, chooser.board, found[stream]) if stream in found else _colour(image)
        picture = cv2.resize(picture, (round(w * _HEIGHT / h), _HEIGHT), interpolation=cv2.INTER_AREA)
        parts.append(_shaded(picture, chooser.coverage(stream, (w, h))))
    picture = np.vstack([np.hstack(parts), np.zeros((_STRIP, sum(p.shape[1] for p in parts), 3), np.uint8)])
    text = f"{len(chooser.kept)} views; {advice(moment, chooser) or 'enough: q ends'}"
    cv2.putText(picture, text, (8, _HEIGHT + 19), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
    return np.ascontiguousarray(picture)


def advice(moment: Moment, chooser: Chooser) -> str:
    """Return the next view to show, for the person who holds the board; empty when nothing is missing."""
    for stream in STREAMS:
        frame = moment.frame(stream)
        missing = chooser.lacks(stream, frame.shape_hw[::-1]) if frame is not None else []
        if missing:
            return f"wanted: {missing[0]}"
    return ""


def _colour(image: Image) -> Image:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image


def _shaded(picture: Image, counts: Image) -> Image:
    """Return the picture with the ninths that have a count of 0, (3, 3), shaded red."""
    h, w = picture.shape[:2]
    picture = picture.copy()
    for y, x in np.argwhere(counts == 0):
        part = picture[y * h // 3 : (y + 1) * h // 3, x * w // 3 : (x + 1) * w // 3]
        part[:] = (0.65 * part + 0.35 * np.array([220, 30, 30])).astype(np.uint8)
    return picture


def find_views(
    footage: Footage,
    board: Board,
    *,
    every: int,
    limit: int,
    still: bool,
    colourless_rgb: bool,
    watch: Callable[[Moment, Mapping[Stream, Finding], Chooser], bool],
) -> Chooser:
    """Search every `every`-th moment of the footage, and return the chooser with the best views.

    `limit`: largest number of views.
    `still`: keep views of a board at rest only.
    `colourless_rgb`: accept RGB pictures without colour.
    `watch`: called after each moment; ends the search by returning False.

    Raises CalibrationError if the board is not found, as soon as the pictures seem to show another board; if it is
    never at rest; or if the RGB pictures have no colour, because the streams may be swapped.
    """
    chooser, doubt = Chooser(board, limit=limit, still=still), BoardDoubt(board, footage.live)
    try:
        for k, moment in enumerate(footage):
            if k % every:
                continue
            found = chooser.look(moment)
            doubt.look(moment, len(found))
            if doubt.sure:
                break
            if not watch(moment, found, chooser) or (footage.live and len(chooser.kept) >= limit):
                break
    except KeyboardInterrupt:
        if not footage.live:  # live cameras end in no other way
            raise
    _check(chooser, footage, doubt, colourless_rgb)
    return chooser


def _check(chooser: Chooser, footage: Footage, doubt: BoardDoubt, colourless_rgb: bool) -> None:
    """Raise CalibrationError if the search found no view or another board, or the RGB pictures have no colour."""
    if chooser.looked and chooser.colourless == chooser.looked and not colourless_rgb:
        raise CalibrationError(
            "the RGB pictures have no colour: are the streams swapped? If the RGB camera is monochrome, add "
            "--colourless-rgb"
        )
    hint, board = doubt.hint(), describe(chooser.board)
    for stream in footage.sources:
        if not chooser.seen[stream]:
            advice = "check that it is this board, whole in the picture, and with enough contrast"
            if chooser.board.kind == "checkerboard":
                advice += ", and that --board counts its inner corners, one fewer than its squares each way"
            raise CalibrationError(
                f"{board} was not found in any of {chooser.looked} {NAMES[stream]} pictures; {hint or advice}"
            )
    if doubt.sure:
        counts = ", ".join(f"{chooser.seen[s]} {NAMES[s]}" for s in footage.sources)
        raise CalibrationError(f"{board} was found in few of {chooser.looked} pictures each ({counts}); {hint}")
    if not chooser.kept:
        raise CalibrationError(
            f"the board was found ({chooser.seen['ir']} thermal, {chooser.seen['rgb']} RGB pictures) but never at rest"
            "; hold it still for half a second at a time, or look more often with --every 1"
        )


def save_views(chooser: Chooser, footage: Footage, folder: Any) -> Session:
    """Write the kept views as a session, their pictures first, and return it. Raises OutputUnwritable."""
    views = []
    pictures = folder / VIEWS
    try:
        pictures.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputUnwritable(f"folder {pictures} cannot be written: {e.strerror or e}") from e
    for k, kept in enumerate(sorted(chooser.kept, key=_time)):
        name = f"{k:03d}"
        for stream in STREAMS:
            frame = kept.moment.frame(stream)
            if frame is not None:
                suffix = "png" if stream == "ir" else "jpg"
                write_image(pictures / f"{name}.{stream}.{suffix}", _colour(as_grey(frame.image)))
        found = {s: points_of(f) for s, f in kept.found.items()}
        views.append(View(name=name, ir=found.get("ir"), rgb=found.get("rgb")))
    write_image(folder / "views.jpg", contact_sheet(chooser))
    session = Session(
        board=describe(chooser.board),
        ir_wh=footage.size_wh("ir"),
        rgb_wh=footage.size_wh("rgb"),
        together=footage.both,
        views=tuple(views),
    )
    save_session(session, folder)
    return session


def _time(kept: Kept) -> int:
    frame = kept.moment.rgb or kept.moment.ir
    assert frame is not None
    return frame.t_ns


def contact_sheet(chooser: Chooser, columns: int = 4) -> Image:
    """Return a sheet of all kept views with the points found in them, (H, W, 3) uint8 RGB."""
    tiles = []
    for kept in sorted(chooser.kept, key=_time):
        for stream in STREAMS:
            frame = kept.moment.frame(stream)
            if frame is not None:
                image = as_grey(frame.image)
                found = kept.found.get(stream)
                drawn = _colour(image) if found is None else draw_finding(image, chooser.board, found)
                tiles.append(cv2.resize(drawn, (320, 240), interpolation=cv2.INTER_AREA))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)])
