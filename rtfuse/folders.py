"""Find the user's folders: `~` in paths, and those of the XDG base directory specification."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Literal

_DEFAULTS = {"XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config"}
_HOME = re.compile(r"(ipc://)?(~[^/]*/.*)", re.DOTALL)


def expanded(path: str) -> str:
    """Return a path that begins with `~/` or `~NAME/` as the shell would give it: in that home folder.

    A file that has this very name, and a home that is not known, leave it as it is.
    """
    found = _HOME.fullmatch(path)
    if found is None or os.path.lexists(found[2].partition("/")[0]):
        return path
    return (found[1] or "") + os.path.expanduser(found[2])


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
