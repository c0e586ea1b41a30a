"""docs/inputs.md: each of its rows is executed by a test, which is named here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCENES, FOLDERS = "tests/integration/test_fuse_scenes.py", "tests/capture/test_scene_folders.py"
IMAGES, PALETTES = "tests/capture/test_images.py", "tests/thermal/test_false_colour.py"
FLIR, TIMES = "tests/integration/test_radiometric_command.py", "tests/integration/test_fuse_times.py"
DISPLAY, PATHS = "tests/capture/test_display.py", "tests/capture/test_paths.py"
ROWS = {
    "one picture of each": (SCENES, "each_still_is_fused_as_if_it_were_alone"),
    "two folders or patterns": (SCENES, "folders_are_paired_and_keep_their_names"),
    "a picture without a partner": (FOLDERS, "random_folders_on_disk"),
    "names in doubt": (SCENES, "doubts_and_mixed_sizes_for_a_video_are_refused_before_an_output_exists"),
    "one folder that holds both": (SCENES, "one_folder_of_both_and_pages_and_times"),
    "pairs by position": (SCENES, "folders_are_paired_and_keep_their_names"),
    "names that are times": (SCENES, "one_folder_of_both_and_pages_and_times"),
    "a video as stills": (SCENES, "folders_are_paired_and_keep_their_names"),
    "subfolders": (SCENES, "folders_are_paired_and_keep_their_names"),
    "a TIFF of several pages": (SCENES, "one_folder_of_both_and_pages_and_times"),
    "hidden files, `Thumbs.db`, links to nowhere": (FOLDERS, "random_folders_on_disk"),
    "a picture that cannot be read": (SCENES, "pictures_that_cannot_be_read_are_named_with_their_partners"),
    "any type of value": (IMAGES, "every_type_of_thermal_value_becomes_counts"),
    "12 bits in 16, CMYK, alpha": (IMAGES, "every_kind_of_rgb_becomes_8_bits"),
    "swapped bytes": (IMAGES, "swapped_bytes_are_noticed_and_put_right_when_asked"),
    "EXIF orientation": (IMAGES, "a_jpeg_is_turned_as_its_exif_says"),
    "FLIR's radiometric JPEG": (FLIR, "one_file_is_a_pair_and_thermal_lies_on_the_photo"),
    "a folder of them": (FLIR, "a_folder_of_them"),
    "with another RGB": (FLIR, "a_thermal_file_and_another_rgb_picture"),
    "FLIR's recordings": ("tests/capture/test_sequences.py", "frames_in_order_with_their_times"),
    "DJI's radiometric JPEG": (FLIR, "dji_is_told_to_need_its_own_library"),
    "thermal in false colours": (PALETTES, "recordings_and_stills_are_turned_back"),
    "two recordings": (TIMES, "every_frame_is_paired_with_its_own_or_counted"),
    "pauses, bursts, variable rates": (TIMES, "every_frame_is_paired_with_its_own_or_counted"),
    "missing, repeated, disordered, wrapped or restarted times": (
        "tests/pipeline/test_recorded_times.py",
        "random_recordings_have_no_wrong_pair_and_no_uncounted_frame",
    ),
    "files that begin at different times": (TIMES, "every_frame_is_paired_with_its_own_or_counted"),
    "time codes, creation times": (TIMES, "every_frame_is_paired_with_its_own_or_counted"),
    "as many frames, other rates": (
        "tests/pipeline/test_origins.py",
        "thermal_is_placed_where_the_evidence_says_and_it_is_told",
    ),
    "video without times": (TIMES, "every_frame_is_paired_with_its_own_or_counted"),
    "cut or damaged files": (TIMES, "a_recording_that_was_cut_is_never_complete_and_a_whole_one_always"),
    "repeated thermal pictures": (TIMES, "every_frame_is_paired_with_its_own_or_counted"),
    "a track of a file": (TIMES, "an_attached_picture_is_never_the_video"),
    "one file with both tracks": (TIMES, "one_file_of_both_tracks_is_a_pair"),
    "thermal beside RGB": (
        "tests/integration/test_register_option.py",
        "thermal_beside_rgb_is_said_and_a_registered_pair_is_not",
    ),
    "turned or mirrored video": (DISPLAY, "all_eight_display_matrices_are_applied"),
    "pixels that are not square": (DISPLAY, "pixels_become_square"),
    "interlaced video": (DISPLAY, "interlaced_frames_are_deinterlaced_each_with_its_time"),
    "no colour matrix in the tags": (DISPLAY, "colours_follow_the_tags_or_else_the_size"),
    "HDR": (DISPLAY, "an_hdr_recording_is_mapped_and_it_is_said"),
    "a camera mounted another way": ("tests/capture/test_orientation.py", "every_source_is_turned_and_says_its_size"),
    "any name": (PATHS, "the_command_takes_such_names_and_process_substitution"),
    "a pipe": (PATHS, "where_a_pipe_cannot_work_it_is_said"),
    "a list of recordings": (PATHS, "a_list_of_recordings_is_one_recording_and_only_under_its_name"),
    "numbered stills": (PATHS, "numbered_patterns_take_the_numbers_that_fit"),
    "a password in an address": ("tests/integration/test_secrets.py", "a_running_rig_tells_no_secret_anywhere"),
}


def rows():
    page = (ROOT / "docs/inputs.md").read_text(encoding="utf-8")
    return [row for row in re.findall(r"^\| ([^|]+?) \|", page, re.MULTILINE) if row != "what"]


def test_every_row_of_the_page_has_a_test_and_only_those():
    assert rows() == list(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_the_test_of_a_row_exists(row):
    file, name = ROWS[row]
    assert f"\ndef test_{name}(" in (ROOT / file).read_text(encoding="utf-8")
