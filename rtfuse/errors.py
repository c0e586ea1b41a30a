"""Define every error that a user can meet: `RtfuseError` and its named children, each also a builtin error.

A message is one line and says what was asked, what was found and what to do. It never carries credentials.
"""

from __future__ import annotations

from typing import Any

from rtfuse.redaction import redact as redact


class RtfuseError(Exception):
    """Base of all errors of this package; `exit_status` is what the command line returns for it.

    Every text in an error is redacted, also one that quotes the error of a library.
    """

    exit_status = 2

    def __init__(self, *args: Any) -> None:
        super().__init__(*(redact(arg) if isinstance(arg, str) else arg for arg in args))


class SourceNotFound(RtfuseError, FileNotFoundError):
    """Raised if a file, folder or pattern does not exist."""


class SourceUnreadable(RtfuseError, ValueError):
    """Raised if a file exists but holds no video or image that can be read."""


class SourceLost(RtfuseError, ConnectionError):
    """Raised if a live source ends or fails after it was opened."""

    exit_status = 1


class DeviceUnavailable(RtfuseError, OSError):
    """Raised if a camera is absent, busy, or not a video capture device."""


class AccessRefused(DeviceUnavailable):
    """Raised if a camera refuses this user and password, asks for some, or asks to wait before the next try."""


class NoOverlap(RtfuseError, ValueError):
    """Raised if the two streams have no moment in common."""


class ConfigError(RtfuseError, ValueError):
    """Raised if a configuration file, override or option is wrong."""


class CalibrationError(RtfuseError, ValueError):
    """Raised if a calibration file is wrong or does not fit the streams."""


class UnknownFuser(RtfuseError, LookupError):
    """No fuser has this name."""


class WeightsMissing(RtfuseError, FileNotFoundError):
    """Raised if the weights of a network do not exist or do not fit it."""


class EngineUnavailable(RtfuseError, RuntimeError):
    """Raised if an engine is not installed, or computes wrong results on this machine."""


class EndpointUnavailable(RtfuseError, OSError):
    """Raised if a ZeroMQ endpoint cannot be bound or connected."""


class OutputExists(RtfuseError, FileExistsError):
    """Raised if the output exists and `--force` was not given."""


class OutputUnwritable(RtfuseError, PermissionError):
    """Raised if the output cannot be written: permission, a missing folder, an unknown format, a full disk."""


class KeysUnusable(RtfuseError, PermissionError):
    """Raised if a key is missing or damaged, belongs to another rig, or can be read by other users."""


class NoDisplay(RtfuseError, RuntimeError):
    """Raised for a window on a machine without a display."""


class WireError(RtfuseError, ValueError):
    """Bytes that are not a valid rtfuse message."""


class StageFailed(RtfuseError, RuntimeError):
    """Raised if a stage of the running pipeline fails; the message names the stage and its error."""

    exit_status = 1


class Interrupted(RtfuseError):
    """Ctrl-C or SIGTERM ended a job that is only of use when it is complete."""

    exit_status = 130


def named(stage: str, error: Exception) -> Exception:
    """Return an error that names the stage; an `RtfuseError` is returned as it is."""
    if isinstance(error, RtfuseError):
        return error
    failed = StageFailed(f"{stage} failed: {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed
