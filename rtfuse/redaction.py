"""Hide user names, passwords and tokens in texts that people and programs will read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

HIDDEN = "***"
_NETWORK = "https?|rtsps?|rtspu|rtmp[a-z]*|srt|rtp|srtp|udp|tcp|tls|ftps?|sftp|mms[ht]?|wss?|whep|whip|webrtc|mqtts?"
_START = re.compile(rf"(?<![A-Za-z0-9+.-])(?:[A-Za-z][A-Za-z0-9+.-]*:(?:\\?/){{2,}}|(?:{_NETWORK}):\\?/)", re.I)
"""A scheme and its slashes; of network schemes also with one slash, as a path has it."""
_NESTED = re.compile(rf"(?<=[=/|,;&(])(?:{_NETWORK}):\\?/", re.I)
_QUOTED = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*%(?:25)*3A%(?:25)*2F[^\s\"']*", re.I)
"""A percent-encoded URI."""
_END = re.compile(r"[\s\"'`]")
_CLOSING = re.compile(r"[).,;:\]}>]{1,2}$")
_BEYOND = re.compile(r"(?:(?!://|[\"'],|[\"']\}|[\"']:)[^\n@]){0,128}@")
"""The rest of a password with a space or a quote in it."""

_STRONG = r"(?<!by)(?<!com)pass(?!ive|thr|es\b|ed\b|age)|pwd|psw|secret|token|loginpas|credential|signature|api_?key"
_SECRET_KEY = re.compile(
    rf"{_STRONG}|user(?!_?agent)|usr|login|auth(?!or(?!iz))|jwt|bearer|cookie|session|"
    r"(?:^|[._-]|access|stream|shared|private)key$|^(?:sig|pw|pas|pin|otp|sid|_sid|md5|hash|hmac|digest|ticket|account)$",
    re.I,
)
_WORD = re.compile(r"[^\s\"'`]+")
_STRONG_WORD = re.compile(rf"(?:{_STRONG})\w{{0,40}}=", re.I)
_KEY = re.compile(r"(?:^|(?<=[?&#;,/_!:]))([\w.%$\[\]-]{1,80}?)(=|%(?:25)*3D)", re.I)
_BENIGN = re.compile(r"_(?=(?:channel|chn|ch|stream|subtype|type|profile|quality|unicast|proto)=)", re.I)
"""The fields behind the password in paths such as `user=admin_password=x_channel=1_stream=0.sdp`."""
_ITEM = re.compile(rf"([\"'])([\w.]{{0,40}}(?:{_STRONG})\w{{0,40}}=)(?:\\.|(?!\1).)*\1", re.I)
_VALUE = re.compile(rf"((?:{_STRONG})\w{{0,40}}=)([\"'])(?:\\.|(?!\2).)*\2", re.I)
"""A setting in quotes, and one with a value in quotes."""
_PAIR = re.compile(rf"([\"'])([\w.-]{{0,40}}(?:{_STRONG})\w{{0,40}})\1(\s*:\s*)([\"'])(?:\\.|(?!\4).)*\4", re.I)
_HEADER = re.compile(r"((?:proxy-)?authorization\s*:\s*)[^\r\n\"']+", re.I)
_BARE = re.compile(
    r"(?<![\w./@:-])(?!(?:file|concat|subfile|synthetic|mailto|ipc|inproc|crypto|cache)\w*:)"
    r"[A-Za-z][\w.+-]+:(?!//)[^\s\"']+@(?=[\w\[])"
)
"""User and password without a scheme."""
_NAMING = {"token", "access_token", "apikey", "api_key", "secret", "password", "passwd", "pwd"}
"""Parts of a path behind which a secret follows."""
_HOST = re.compile(r"(?:\d{1,3}(?:\.\d{1,3}){3}|\[[^\]]*\]|localhost)(?::\d+)?", re.I)
_PORT = re.compile(r"(?:\[[^\]]*\]|[^\[:]*)(?::(?:\d+|\*))?")
_QUERY = re.compile(r"\?[^@?#]*=")
_STREAM_ID = re.compile(r"[\w./-]*")


def redact(text: str) -> str:
    """Return a text, or the URI of a source, with every user name, password and token replaced by `***`.

    It hides, in URIs: user and password, also with slashes or `@` in them; values of query keys, of fragments and of
    paths (`user=admin_password=x_channel=1`) whose key names a secret; random parts of a path. Elsewhere: `password=…`
    and the like, in JSON too, and authorization headers. In doubt it hides more: of a URI with a user all up to the
    last `@`.
    """
    if not any(mark in text for mark in "=@:%"):
        return text
    parts, at = list[str](), 0
    for start, end in _uris(text):
        parts += [_plain(text[at:start]), _uri(text[start:end])]
        at = end
    return "".join([*parts, _plain(text[at:])])


def _uris(text: str) -> Iterator[tuple[int, int]]:
    """Yield the bounds of each URI."""
    at, alone = 0, re.fullmatch(r"\S+", text) is not None
    while found := _START.search(text, at):
        start, body = found.span()
        end = len(text) if alone and start == 0 else _end(text, body)
        if nested := _NESTED.search(text, body, end):
            end = nested.start()
        elif start and (closing := _CLOSING.search(text, body, end)):
            end = closing.start()
        if "@" not in text[body:end] and not _PORT.fullmatch(re.split(r"[/?#]", text[body:end], maxsplit=1)[0]):
            beyond = _BEYOND.match(text, end)
            end = _end(text, beyond.end()) if beyond else end
        yield start, end
        at = max(end, body)


def _end(text: str, at: int) -> int:
    """Return the index of the first character from `at` that ends a URI."""
    stop = _END.search(text, at)
    return stop.start() if stop else len(text)


def _uri(uri: str) -> str:
    """Return a URI without its secrets."""
    found = _START.match(uri)
    assert found is not None
    scheme, rest = found[0], uri[found.end() :]
    known = _userinfo_end(rest)
    user, rest = (f"{HIDDEN}@", rest[known:]) if known else ("", rest)
    host, path, query = _split(rest)
    return scheme + user + host + _path(path, query, tokens=scheme.lower().startswith("rtsps"))


def _split(rest: str) -> tuple[str, str, str]:
    """Split what follows the scheme into authority, path, and query with fragment."""
    query = re.search(r"[?#]", rest)
    before = rest[: query.start()] if query else rest
    authority, slash, path = before.partition("/")
    return authority, slash + path, rest[len(before) :]


def _userinfo_end(rest: str) -> int:
    """Return the index behind the `@` of user and password, 0 if there are none; `rest` follows the scheme.

    An `@` behind a `/` or `?` belongs to a password if a colon stands before it that begins no port.
    """
    authority, _, _ = _split(rest)
    last = rest.rfind("@") + 1
    if "@" in authority or not _PORT.fullmatch(authority):
        last = last or rest.rfind("%40") + 3
        return last if last > 3 or "@" in rest[1:last] else 0
    if _HOST.fullmatch(authority):
        return 0
    if ":" in authority:
        return 0 if _QUERY.search(rest[:last]) else last
    user, colon, _ = rest[:last].partition(":")
    return last if colon and "=" not in user else 0


def _path(path: str, query: str, *, tokens: bool) -> str:
    """Hide the secrets of a path and its query; `tokens`: the path's long parts are tokens, as in RTSPS."""
    segments = path.split("/")
    for k, segment in enumerate(segments):
        if _fields(segment) != segment:  # all that follows may be the rest of a password
            return "/".join([*segments[:k], _fields("/".join(segments[k:]) + query)])
        if _is_random(segment, sure=tokens) or (k and segment and segments[k - 1].lower() in _NAMING):
            segments[k] = HIDDEN
    return "/".join(segments) + _fields(query)


def _is_random(segment: str, *, sure: bool) -> bool:
    """Return True for a part of a path that looks like a key: a UUID, groups of four, or letters and digits mixed."""
    if re.fullmatch(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[a-z0-9]{4}(?:-[a-z0-9]{4}){3,}", segment, re.I):
        return True
    if not re.fullmatch(r"[A-Za-z0-9]{12,}", segment):
        return False
    kinds = re.findall(r"[a-z]+|[A-Z]+|[0-9]+", segment)
    longest = max(len(kind) for kind in kinds if not kind.isdigit()) if not segment.isdigit() else len(segment)
    return sure or (longest <= 4 and 3 * len(kinds) > len(segment))


def _fields(query: str) -> str:
    """Hide the values of `key=value` fields, separated by `&`, whose keys name a secret."""
    fields = re.split(r"(&(?=[^&=]*=))", query)
    keys = {found[1].lower() for field in fields for found in _KEY.finditer(field)}
    for k in range(0, len(fields), 2):
        fields[k] = _field(fields[k], short={"u", "p"} <= keys)
    return "".join(fields)


def _field(field: str, *, short: bool) -> str:
    """Hide a field from its first key that names a secret, and percent-encoded URIs with secrets.

    `short`: `u` and `p` are user and password.
    """
    for found in _KEY.finditer(field):
        key = _decoded(found[1])
        value = field[found.end() :]
        if _SECRET_KEY.search(key) or (short and key.lower() in ("u", "p")):
            benign = _BENIGN.search(value)
            return field[: found.end()] + HIDDEN + (_fields(value[benign.start() :]) if benign else "")
        if key.lower() == "streamid" and (value.count(":") > 1 or not _STREAM_ID.fullmatch(value.replace(":", ""))):
            return field[: found.end()] + HIDDEN
    decoded = _decoded(field)
    if decoded != field and _without(decoded) != decoded:
        key, equals, _ = field.partition("=")
        return f"{key}={HIDDEN}" if equals else HIDDEN
    return field


def _decoded(text: str) -> str:
    """Return a text without percent-encoding, of several layers too."""
    for _ in range(4):
        text, before = unquote(text, errors="replace"), text
        if text == before:
            break
    return text


def _plain(text: str) -> str:
    """Hide the secrets of a text without a URI that begins with a scheme."""
    if "=" in text:
        text = _ITEM.sub(rf"\1\2{HIDDEN}\1", text)
        text = _VALUE.sub(rf"\1{HIDDEN}", text)
        text = _WORD.sub(lambda m: _fields(m[0]) if _STRONG_WORD.search(m[0]) else m[0], text)
    if ":" in text:
        text = _PAIR.sub(rf"\1\2\1\3\4{HIDDEN}\4", text)
        text = _HEADER.sub(rf"\1{HIDDEN}", text)
        text = _BARE.sub(f"{HIDDEN}@", text)
    return _QUOTED.sub(lambda m: _quoted(m[0]), text) if "%" in text else text


def _quoted(uri: str) -> str:
    """Return a percent-encoded URI as it is, or decoded and without its secrets."""
    decoded = _decoded(uri)
    shown = _without(decoded)
    return uri if shown == decoded else shown


def _without(decoded: str) -> str:
    """Hide the secrets of a text that was one percent-encoded word; a URI in it goes on to its end."""
    found = _START.search(decoded)
    if found is None:
        return redact(decoded)
    user, at, rest = decoded[found.end() :].rpartition("@")
    return decoded[: found.start()] + _uri(found[0] + (user and HIDDEN) + at + rest)
