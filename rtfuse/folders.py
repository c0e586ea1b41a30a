"""The user's folders, by the XDG base directory specification."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Literal

_DEFAULTS = {"XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config"}


def user_folder(variable: Literal["XDG_CACHE_HOME", "XDG_CONFIG_HOME"]) -> Path:
    """Return rtfuse's folder in the one that the variable names, or in its usual place in the home folder.

    Raises FileNotFoundError for a user without a home.
    """
    given = os.environ.get(variable)
    try:
        return Path(given or Path.home() / _DEFAULTS[variable]) / "rtfuse"
    except RuntimeError as e:
        text = f"the home folder is unknown: set HOME or {variable}"
        raise FileNotFoundError(errno.ENOENT, text) from e
