"""A frame keeps the chroma planes of its source; tests/bench/test_budgets.py counts the conversions."""

from __future__ import annotations

import av
import numpy as np
import pytest
from conversions import FRAMES, Video, record, run

from rtfuse.picture import MATRIX_TAGS, Coding, Picture, plane_views, video_frame


@pytest.mark.parametrize("coding", [Coding(), Coding("bt709"), Coding(full=True)])
def test_a_fused_file_has_the_chroma_and_the_tags_of_its_source(tmp_path, coding):
    ir, rgb = record(tmp_path / "ir.mp4"), record(tmp_path / "rgb.mp4", coding)
    run(ir, rgb, "pyramid", Video(tmp_path / "o.mp4"))
    with av.open(rgb) as source, av.open(str(tmp_path / "o.mp4")) as made:
        pairs = list(zip(source.decode(video=0), made.decode(video=0), strict=True))
    assert len(pairs) == FRAMES
    for before, after in pairs:
        assert after.colorspace == MATRIX_TAGS[coding.matrix]
        assert after.color_range == 1 + coding.full
        for a, b in zip(plane_views(before)[1:], plane_views(after)[1:], strict=True):
            assert np.abs(a.astype(int) - b).mean() < 3


def test_encoders_get_views_of_the_decoders_planes():
    planes = [np.full(hw, 90 + k, np.uint8) for k, hw in enumerate([(48, 64), (24, 32), (24, 32)])]
    source = Picture("yuv420p", planes)
    _, u, v = source.with_luma(source.luma).i420()
    assert u is planes[1]
    assert v is planes[2]
    for copied, plane in zip(plane_views(video_frame("yuv420p", planes)), planes, strict=True):
        assert np.array_equal(copied, plane)
