"""Hide user names, passwords and tokens in texts that people and programs will read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from itertools import pairwise
from urllib.parse import unquote

HIDDEN = "***"
_NETWORK = "https?|rtsps?|rtspu|rtmp[a-z]*|srt|rtp|srtp|udp|tcp|tls|ftps?|sftp|mms[ht]?|wss?|whep|whip|webrtc|mqtts?"
_START = re.compile(rf"(?<![A-Za-z0-9+.-])(?:[A-Za-z][A-Za-z0-9+.-]*:(?:\\?/){{2,}}|(?:{_NETWORK}):\\?/)", re.I)
"""A scheme and its slashes; of network schemes also with one slash, as a path has it."""
_NESTED = re.compile(rf"(?<=[=/|,;&(])(?:{_NETWORK}):\\?/", re.I)
_QUOTED = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*%(?:25)*3A(?:%(?:25)*2F|/)[^\s\"']*", re.I)
"""A percent-encoded URI."""
_END = re.compile(r"[\s\"'`]")
_CLOSING = re.compile(r"[).,;:\]}>]{1,2}$")
_BEYOND = re.compile(r"(?:(?!://|[\"'],|[\"']\}|[\"']:)[^\n@]){0,128}@")
"""The rest of a password with a space or a quote in it."""

_STRONG = r"(?<!by)(?<!com)pass(?!ive|thr|es\b|ed\b|age)|pwd|psw|secret|token|loginpas|credential|signature|api_?key"
_FOREIGN = "kennwort|passwort|senha|contrase|clave|mot_?de_?passe|wachtwoord|parola|haslo"
_PASSWORD_KEY = re.compile(
    rf"(?<!by)(?<!com)pass(?!ive|thr|es\b|ed\b|age)|pwd|psw|loginpas|^p(?:w|as|in)$|{_FOREIGN}", re.I
)
_USER_KEY = re.compile(r"user(?!_?agent)|usr|login|^(?:u|uid|uname|account)$|benutzer|utilisateur|usuario", re.I)
_KNOWN = """
action api aspect audio author begin bitrate brightness buffer buffersize bypass cam camera cameraid cameranum ch
channel channelid channels chn clock cmd codec color colour command compression connecttimeout contrast date device
direction duration enablesrtp encoding end endtime ffs fifosize flip format fps framerate gop height h id idx image
index interval input iptos ipttl keepalive lang language latency layer layout limit linger listen live localaddr
localport loop main maxbw maxfps messageapi mirror mode mss multicast n name nocache num number offset overrunnonfatal
page payloadsize pbkeylen peerlatency pktsize port preset profile profileid proto protocol quality rate rand random
rcvlatency real reconnect resolution rnd rotate rotation rwtimeout scale seek size snap snapshot smoother source speed
squarepixel src start starttime stimeout stream streamid streamprofile streamtype sub subtype substream tcp time
timeout timestamp tlpktdrop track transport transportmode transtype ttl type udp unicast vcodec version video view w
width x xamzdate xamzexpires y z zoom
"""
_HARMLESS = frozenset(_KNOWN.split())
_HARMLESS_BEGIN = ("video", "audio", "frame", "image")
"""Query keys, without marks, whose values say how to stream; those of all others are hidden, as they may be secrets."""
_BESIDE_PASSWORD = {"u", "id", "uid", "n", "un", "uname", "nm", "name", "mail", "email"}
"""Keys of a user where there is one of a password."""
_SECRET_KEY = re.compile(
    rf"{_STRONG}|{_FOREIGN}|benutzer|utilisateur|usuario|key-?pair|private|srtp_.*params|user(?!_?agent)|usr|login|auth(?!or(?!iz))|jwt|bearer|cookie|session|"
    r"(?:^|[._-]|access|stream|shared|private)key$|"
    r"^(?:sig|sign|pw|pas|pin|otp|sid|_sid|md5|hash|hmac|digest|ticket|account|creds?|ak|sk|basic|phrase|crypt|hdnts|hdnea)$",
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
_HEADER = re.compile(
    r"((?:(?:proxy-)?authorization|(?:set-)?cookie|x-(?:api-key|auth-token))\s*:\s*|(?=digest\s+\w+=\\?\"))"
    r"(?:digest\s+(?:\w+=(?:\\?\"[^\"\\\r\n]*\\?\"|[^\s,\"'\\]+)(?:\s*,\s*)?)+|[^\r\n\"']+)",
    re.I,
)
_SAID = (
    "is|are|and|or|was|must|needs?|not?|has|to|for|in|with|from|on|the|a|too|"
    "want|expected|wrong|invalid|missing|unknown|required|got"
)
_TOLD = rf"(?![*]{{3}})(?!(?:{_SAID})\b)(?!(?:[.]{{0,2}}|~)/[\w.-]+/)"
"""Conditions of a value: no word of a message, no path of a file."""
_TEXT_KEY = rf"(?:password|passwd|passcode|passphrase|pwd|secret|token|api[_-]?key|{_FOREIGN})"
_OPTION = re.compile(
    rf"((?<![\w-])--?(?:[\w-]{{0,20}}{_TEXT_KEY}|user(?:name)?)(?![\w-])[ =]+)"
    rf"{_TOLD}(?:\"[^\"]*\"|'[^']*'|[^\s\"']+)",
    re.I,
)
_SETTING = re.compile(rf"((?<![\w./-]){_TEXT_KEY}\s?[:=]\s*){_TOLD}(?:\"[^\"]*\"|'[^']*'|[^\s\"']+)", re.I)
"""An option of a command, and a setting as people write it."""
_BARE = re.compile(
    r"(?<![\w./@:-])(?!(?:file|concat|subfile|synthetic|mailto|ipc|inproc|crypto|cache)\w*:)"
    r"[A-Za-z][\w.+-]+:(?!//)[^\s\"']+@(?=[\w\[])"
)
"""User and password without a scheme."""
_NAMING = {"token", "access_token", "apikey", "api_key", "secret", "password", "passwd", "pwd"}
"""Parts of a path behind which a secret follows."""
_STREAM_KEY = re.compile(r"live_\d{6,}_\w{6,}|FB-\d+-\d+-[\w-]+", re.I)
_RTMP_KEY = re.compile(r"(?=(?:\D*\d){6}|.*\d)(?=(?:\D*\d){6}|(?=.*[a-z]).*[A-Z])[\w-]{16,}")
"""Keys of streaming services; with RTMP any long last part with many digits, or with digits and both cases."""
_USER_AND_PASSWORD = re.compile(r"(?!\d+:\d+$)[^:=]+:[^:=]+")
_HOST = re.compile(r"(?:\d{1,3}(?:\.\d{1,3}){3}|\[[^\]]*\]|localhost)(?::\d+)?", re.I)
_PORT = re.compile(r"(?:\[[^\]]*\]|[^\[:]*)(?::(?:\d+|\*))?")
_QUERY = re.compile(r"\?[^@?#]*=")
_STREAM_ID = re.compile(r"[\w./-]*")


def redact(text: str) -> str:
    """Return a text, or the URI of a source, with every user name, password and token replaced by `***`.

    It hides, in URIs: user and password, also with slashes or `@` in them; values of query keys, of fragments and of
    paths (`user=admin_password=x_channel=1`) whose key names a secret; of network addresses, values of all query keys
    that are not known to be harmless, as `channel` is; random parts of a path. Elsewhere: `password=…`
    and the like, in JSON too, and authorization headers. In doubt it hides more: of a URI with a user all up to the
    last `@`.
    """
    if "--" not in text and not any(mark in text for mark in "=@:%"):
        return text
    text = _HEADER.sub(rf"\1{HIDDEN}", text)
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
    if query.startswith("?") and re.match(rf"(?:{_NETWORK}):", scheme, re.I):
        asked, mark, fragment = query.partition("#")
        query = "".join(map(_known_alone, re.split(r"([?&;](?=[^?&;=]*=))", asked))) + mark + fragment
    return scheme + user + host + _path(path, query, scheme.lower().partition(":")[0])


def _split(rest: str) -> tuple[str, str, str]:
    """Split what follows the scheme into authority, path, and query with fragment."""
    query = re.search(r"[?#]", rest)
    before = rest[: query.start()] if query else rest
    authority, slash, path = before.partition("/")
    return authority, slash + path, rest[len(before) :]


def _userinfo_end(rest: str) -> int:
    """Return the index behind the `@` of user and password, 0 without them; `rest` follows the scheme.

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


def _path(path: str, query: str, scheme: str) -> str:
    """Hide the secrets of a path and its query; long parts of a path are tokens in RTSPS, and keys in RTMP."""
    segments = path.split("/")
    _hide_parts(segments, scheme)
    tokens = scheme.startswith("rtsps")
    for k, segment in enumerate(segments):
        if _fields(segment) != segment:  # all that follows may be the rest of a password
            return "/".join([*segments[:k], _fields("/".join(segments[k:]) + query)])
        if _is_random(segment, sure=tokens) or (k and segment and segments[k - 1].lower() in _NAMING):
            segments[k] = HIDDEN
    return "/".join(segments) + _fields(query)


def _hide_parts(segments: list[str], scheme: str) -> None:
    """Hide user and password among the parts of a path (`/user/u/pass/p`, `/u:p/live`), and keys of streams."""
    if not re.fullmatch(_NETWORK, scheme, re.I):
        return
    password = any(_PASSWORD_KEY.fullmatch(part) or part.lower() in _NAMING for part in segments[:-1])
    for k, (before, part) in enumerate(pairwise(["", *segments])):
        named = _PASSWORD_KEY.fullmatch(before) or (password and before.lower() in ("user", "username", "login"))
        stream_key = _STREAM_KEY.fullmatch(part) or (
            scheme.startswith("rtmp") and 1 < k == len(segments) - 1 and _RTMP_KEY.fullmatch(part)
        )
        both = k == 1 < len(segments) - 1 and _USER_AND_PASSWORD.fullmatch(part)
        if part and (named or stream_key or both):
            segments[k] = HIDDEN


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
    hidden = {"u", "p"} if {"u", "p"} <= keys else set[str]()
    if any(map(_PASSWORD_KEY.search, keys)):
        hidden |= _BESIDE_PASSWORD
    if any(map(_USER_KEY.search, keys)):
        hidden.add("p")
    for k in range(0, len(fields), 2):
        fields[k] = _field(fields[k], hidden)
    return "".join(fields)


def _known_alone(field: str) -> str:
    """Hide the value of a query's field unless its key is known to be harmless; without a key, what looks random."""
    key, equals, value = field.partition("=")
    if not equals:
        return "?" + HIDDEN if _is_random(key[1:], sure=False) else field
    plain = re.sub(r"[^a-z0-9]", "", _decoded(key).lower())
    if re.search(r"[?&;][^?&;=]*=", _decoded(value)):
        return f"{key}={HIDDEN}"
    kept = not value or plain in _HARMLESS or plain.startswith(_HARMLESS_BEGIN) or _SECRET_KEY.search(_decoded(key))
    return field if kept else f"{key}={HIDDEN}"


def _field(field: str, hidden: Set[str]) -> str:
    """Hide a field from its first key that names a secret, and percent-encoded URIs with secrets.

    hidden: short keys that name a user or a password beside the others.
    """
    for found in _KEY.finditer(field):
        key = _decoded(found[1])
        value = field[found.end() :]
        if _SECRET_KEY.search(key) or key.lower() in hidden:
            benign = _BENIGN.search(value)
            return field[: found.end()] + HIDDEN + (_fields(value[benign.start() :]) if benign else "")
        if key.lower() == "streamid" and (
            value.count(":") > 1 or value.count("/") > 2 or not _STREAM_ID.fullmatch(value.replace(":", ""))
        ):
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
        text = _BARE.sub(f"{HIDDEN}@", text)
    text = _OPTION.sub(rf"\1{HIDDEN}", _SETTING.sub(rf"\1{HIDDEN}", text))
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
