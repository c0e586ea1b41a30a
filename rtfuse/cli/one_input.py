"""Find thermal and RGB in one input: two tracks of a recording, two pictures of a folder, or a file with its photo."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtfuse.capture.scenes.listing import list_pictures
from rtfuse.capture.scenes.streams import divided
from rtfuse.capture.stills import is_stills
from rtfuse.capture.tracks import pair_in
from rtfuse.cli.radiometric import require_photo

_OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_]+)*=")


def one_input(given: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return the parameters of a command with both inputs, and a line about how they were found in one.

    RGB is the one given; without it, a track of the same recording, a picture of the same folder, or a photo of the
    same file. A `key=value` in place of RGB is an override. Raises ConfigError or SourceUnreadable without RGB.
    """
    whole, rgb, told = dict(given), given["rgb"], None
    if rgb is not None and _OVERRIDE.match(rgb) and not Path(rgb).exists():
        whole["overrides"], rgb = [rgb, *(given["overrides"] or [])], None
    if rgb is None:
        whole["ir"], rgb, told = both_in(given["ir"], recursive=bool(given.get("recursive")))
    return whole | {"rgb": rgb}, told


def both_in(uri: str, *, recursive: bool = False) -> tuple[str, str, str | None]:
    """Return the addresses of thermal and RGB in one, and a line about them. Raises as `one_input`."""
    if not is_stills(uri):
        from rtfuse.thermal.likeness import in_false_colours

        return pair_in(uri, in_false_colours)
    if divided(list_pictures(uri, "ir", recursive=recursive).names) is None:
        require_photo(uri)
    return uri, uri, None
