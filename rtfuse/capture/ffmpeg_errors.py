"""Say in plain words why FFmpeg could not open or read a network stream."""

from __future__ import annotations

import errno
import socket
from urllib.parse import urlsplit

import av

from rtfuse.errors import AccessRefused, DeviceUnavailable, redact

_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (av.error.HTTPNotFoundError, "404 Not Found: the camera has no stream under this path"),
    (av.error.HTTPBadRequestError, "400 Bad Request: the camera does not understand this address"),
    (av.error.HTTPOtherClientError, "the camera refuses, with a status of 4xx that FFmpeg does not name"),
    (av.error.HTTPServerError, "the camera reports an error of its own, a status of 5xx"),
    (av.error.EOFError, "it closes the connection"),
    (av.error.InvalidDataError, "it sends no video that can be read (Invalid data found when processing input)"),
    (av.error.ProtocolNotFoundError, "this build of FFmpeg does not speak this protocol (Protocol not found)"),
    (av.error.OptionNotFoundError, "this build of FFmpeg lacks an option (Option not found)"),
)

_TOO_MANY: type[Exception] = getattr(av.error, "HTTPTooManyRequestsError", av.error.HTTPForbiddenError)  # PyAV 18
_REFUSALS = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError, _TOO_MANY)


def unavailable(what: str, uri: str, e: Exception, *, took_s: float, limit_s: float) -> DeviceUnavailable:
    """Return the error of a stream that could not be opened in `took_s` of at most `limit_s` seconds; `what` says so.

    AccessRefused if the camera refuses the login, or asks for a pause.
    """
    if isinstance(e, _REFUSALS):
        return AccessRefused(f"{what}: {in_words(e, uri)}")
    if isinstance(e, av.error.ExitError) or took_s >= limit_s:  # RTSP calls what it has not read yet invalid
        return DeviceUnavailable(f"{what} within {limit_s:g} s: no answer")
    return DeviceUnavailable(f"{what}: {in_words(e, uri)}")


def in_words(e: Exception, uri: str) -> str:
    """Return the reason of an error of FFmpeg in words, without the address."""
    if isinstance(e, av.error.HTTPUnauthorizedError):
        user = (
            "refuses this user and password" if "***@" in redact(uri) else "wants a user and a password in the address"
        )
        return f"401 Unauthorized: the camera {user}"
    if isinstance(e, av.error.HTTPForbiddenError):
        return "403 Forbidden: the camera refuses this user, or has locked this machine out"
    host = _host(redact(uri))
    if host is not None and _host(uri) != host:
        return "the address cannot be read: write a / in a password as %2F, and an @ as %40"
    if getattr(e, "errno", None) == errno.EIO:
        return _of_connection(host)
    found = next((words for kind, words in _WORDS if isinstance(e, kind)), None)
    return found or getattr(e, "strerror", None) or type(e).__name__


def _of_connection(host: str | None) -> str:
    """Return the reason of an "Input/output error": a name that is not known, or a connection that broke."""
    try:
        if host is not None:
            socket.getaddrinfo(host, None)
    except (OSError, UnicodeError) as e:
        return f"the host {host} is unknown ({getattr(e, 'strerror', None) or 'not a name'})"
    return "the connection failed (Input/output error)"


def _host(uri: str) -> str | None:
    try:
        return urlsplit(uri).hostname
    except ValueError:
        return None
