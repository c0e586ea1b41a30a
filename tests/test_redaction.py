"""No user, password or token passes `redact`, in any form that cameras take; texts without secrets stay as they are."""

from __future__ import annotations

import json
import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtfuse.errors import SourceUnreadable, named, redact

HIDDEN = [
    ("rtsp://user:p@ss:w@cam:554/live", "rtsp://***@cam:554/live"),
    ("rtsp://admin:se/cret@host:554/Streaming/Channels/101", "rtsp://***@host:554/Streaming/Channels/101"),
    ("rtsp://admin:12/34@host/x", "rtsp://***@host/x"),
    ("rtsp://ad/min:se?cr#et@host/x", "rtsp://***@host/x"),
    ("rtsp://admin:my pass@host/live failed", "rtsp://***@host/live failed"),
    ("rtsp://admin:pw%40host/live", "rtsp://***@host/live"),
    ("rtsp:/admin:pw@cam/live.mp4", "rtsp:/***@cam/live.mp4"),
    (r"rtsp:\/\/admin:pw@cam\/live", r"rtsp:\/\/***@cam\/live"),
    ("admin:pw@192.168.1.5/live: not found", "***@192.168.1.5/live: not found"),
    ("http://cam/v.cgi?usr=anna&pwd=a/b&resolution=32", "http://cam/v.cgi?usr=***&pwd=***&resolution=32"),
    ("http://cam/v.cgi?loginuse=a&loginpas=b&rate=0", "http://cam/v.cgi?loginuse=***&loginpas=***&rate=0"),
    ("http://cam/v.cgi?u=a&p=b&rate=1", "http://cam/v.cgi?u=***&p=***&rate=1"),
    ("http://cam/x?token=ab/cd==&z=1", "http://cam/x?token=***&z=1"),
    ("http://cam/x?p%61ssword=a&z=1", "http://cam/x?p%61ssword=***&z=1"),
    ("http://cam/x#access_token=a", "http://cam/x#access_token=***"),
    ("https://s3/x?X-Amz-Signature=a&X-Amz-Date=1", "https://s3/x?X-Amz-Signature=***&X-Amz-Date=1"),
    ("srt://h:1?mode=caller&passphrase=a&pbkeylen=16", "srt://h:1?mode=caller&passphrase=***&pbkeylen=16"),
    ("srt://h:1?streamid=read:cam:user:pw&latency=20", "srt://h:1?streamid=***&latency=20"),
    ("srt://h:1?streamid=#!::r=cam,u=a,s=b", "srt://h:1?streamid=***"),
    ("rtmp://h/app/cam?user=a&pass=b", "rtmp://h/app/cam?user=***&pass=***"),
    ("rtmp://h/live2/abcd-1234-efgh-5678", "rtmp://h/live2/***"),
    ("rtsps://h:7441/aBcDeFgHiJkLmNoP?enableSrtp", "rtsps://h:7441/***?enableSrtp"),
    ("rtsp://h:7447/S8ZCTdJZ9Q2tw3Kb", "rtsp://h:7447/***"),
    ("https://h/api/token/abc/live.ts", "https://h/api/token/***/live.ts"),
    ("rtsp://h/user=a_password=b_channel=1_stream=0.sdp?real", "rtsp://h/user=***_channel=1_stream=0.sdp?real"),
    ("rtsp://h/user=a&password=b/c&channel=1", "rtsp://h/user=***&password=***&channel=1"),
    ("http://p/?src=rtsp://a:b@cam/x&y=1", "http://p/?src=rtsp://***@cam/x&y=1"),
    ("http://p/?src=rtsp%3A%2F%2Fa%3Ab%40cam&y=1", "http://p/?src=***&y=1"),
    ("rtsp%3A%2F%2Fa%3Ab%40cam%2Fx failed", "rtsp://***@cam/x failed"),
    ('{"uri": "rtsp://a:b@cam/x", "mail": "a@b"}', '{"uri": "rtsp://***@cam/x", "mail": "a@b"}'),
    ('{"password": "hu\\"sh", "n": 1}', '{"password": "***", "n": 1}'),
    ("rtsp://a:b@c/d and (http://e:f@g/h?token=i): no", "rtsp://***@c/d and (http://***@g/h?token=***): no"),
    ("[Errno 111] refused: 'http://a:b@h:80/x'", "[Errno 111] refused: 'http://***@h:80/x'"),
    ("override 'web.token=abc': unknown", "override 'web.token=***': unknown"),
    ("override 'web.token=a b c': unknown", "override 'web.token=***': unknown"),
    ("override \"web.token='a b c'\": unknown", 'override "web.token=***": unknown'),
    ("web.token='a b c' fuse.fuser=student", "web.token=*** fuse.fuser=student"),
    ("Authorization: Basic YWRtaW46cHc=", "Authorization: ***"),
    ('Authorization: Digest username="a", uri="rtsp://h/x", response="b"', "Authorization: ***"),
    ('Digest username="a", realm="r", response="b"', "***"),
    ("Cookie: session=a; path=/", "Cookie: ***"),
    ("http://h/video.cgi?id=anna&passcode=b&fps=5", "http://h/video.cgi?id=***&passcode=***&fps=5"),
    ("http://h/x?name=anna&password=1&uid=3", "http://h/x?name=***&password=***&uid=***"),
    ("http://h/x?username=a&p=b", "http://h/x?username=***&p=***"),
    (
        "http://h/x?cred=a:b&ak=c&sk=d&sign=e&hmac=f&basic=g",
        "http://h/x?" + "&".join(f"{key}=***" for key in ("cred", "ak", "sk", "sign", "hmac", "basic")),
    ),
    ("http://h/x?benutzer=a&kennwort=b&senha=c&clave=d", "http://h/x?benutzer=***&kennwort=***&senha=***&clave=***"),
    ("rtmp://h/app/live_12345678_aBcD3fGh", "rtmp://h/app/***"),
    ("rtmps://h:443/rtmp/FB-123456-0-AbCdEf", "rtmps://h:443/rtmp/***"),
    ("rtmp://h/live/9f8a7b6c-1234_stream", "rtmp://h/live/***"),
    ("http://h/pass/hush/x", "http://h/pass/***/x"),
    ("http://h/user/anna/pass/hush/live", "http://h/user/***/pass/***/live"),
    ("rtsp://h:554/anna:hush/live", "rtsp://h:554/***/live"),
    ("srt://h:9000?streamid=publish/cam/anna/hush", "srt://h:9000?streamid=***"),
    ("http%3A//anna%3Ahush%40h/ failed", "http://***@h/ failed"),
    ("ffmpeg --user anna --password hush -i x", "ffmpeg --user *** --password *** -i x"),
    ("--api-key=hush", "--api-key=***"),
    ("password: hush, host: cam", "password: *** host: cam"),
    *(
        (f"http://cam/x?channel=1&{key}=hush&fps=5", f"http://cam/x?channel=1&{key}=***&fps=5")
        for key in (
            "p",
            "t",
            "c",
            "u",
            "s",
            "k",
            "sig",
            "st",
            "e",
            "q1",
            "code",
            "h4sh",
            "access",
            "ticketid",
            "X-Tag",
            "a%62",
        )
    ),
    ("rtsp://cam:554/live?t=12345", "rtsp://cam:554/live?t=***"),
    ("see https://cam/x?c=hush, it failed", "see https://cam/x?c=***, it failed"),
    ("http://cam/x?p=hu;sh&hu&fps=5", "http://cam/x?p=***&fps=5"),
    ("http://cam/x?camera=1%26p%3Dhush&fps=2", "http://cam/x?camera=***&fps=2"),
    ("http://cam/x?4fG7hJ2kL9mN3pQ", "http://cam/x?***"),
    ("srt://h:1?mode=caller&x1=hush;latency=20", "srt://h:1?mode=caller&x1=***;latency=20"),
    ("password = hush", "password = ***"),
    ("pwd:hush", "pwd:***"),
]

PLAIN = [
    "http://cam/live?view=b@c",
    "rtsp://cam/live.sdp?real&tcp=1",
    "http://cam/x?camera=1&frame_rate=5&videocodec=h264&image.size=2&enable_srtp=0&clock=1&X-Amz-Date=20240501",
    "srt://h:9000?mode=caller&latency=120&payload_size=1316&rcvlatency=50&tlpktdrop=1&connect_timeout=3",
    "udp://239.0.0.1:5000?fifo_size=1000&overrun_nonfatal=1&buffer_size=65536&localaddr=10.0.0.2&ttl=4",
    "synthetic:?seed=3&p=1&size=64x48 file:///a?t=1 clip.mkv?track=2",
    "http://192.168.1.5:8080/live@2x.jpg",
    "https://host/@name/video",
    "[v4l2loopback](https://github.com/umlaeute/v4l2loopback): a driver",
    "rtsp://cam:554/h264Preview_01_main",
    "rtsps://cam:322/Streaming/Channels/101",
    "rtsp://[fe80::1%25eth0]:8554/x",
    "rtsp://cam/cam/realmonitor?channel=1&subtype=0&unicast=true&proto=Onvif",
    "http://cam/axis-cgi/mjpg/video.cgi?resolution=640x480&fps=30&author=bob&bypass=1#t=10",
    "srt://h:9000?streamid=live/cam1&latency=120&pbkeylen=16",
    "synthetic:?seed=3&ir_fps=9",
    "/data/2024-05-01T12:30:45_ir.mp4",
    "ir_key=value.mp4, user@home/100% [1].mp4 and C:/foo@2x.png",
    "tcp://127.0.0.1:5555 tcp://*:5555 tcp://[::]:5555 ipc:///tmp/x@y ipc://@abstract",
    "override 'key=value': want key=value, for example sync.tolerance_ms=15",
    "degraded.policy=passthrough fuse.fuser=student publish.keys=/etc/keys web.key=/etc/key.pem",
    "file:/tmp/a@2x.png mailto:me@x.org 12:30@noon",
    "the password is wrong; the token: not found; --token must be given, --user or --password; --token-file /run/x",
    "token: /run/secrets/token and password: ./conf/word.txt",
    "http://h/user/live.sdp http://h/x?id=3&name=cam&n=5&resolution=1",
    "rtmp://h/live/front_door_2 rtmp://h/bcs/channel0_main.bcs rtsp://h/12:30/x.mp4 http://h/a/b:c.jpg",
    "file:///home/pass/user/live_12345678_abcdefgh.mp4 and /home/user/pass/x.mp4",
    "srt://h:9000?streamid=publish/live/cam1 http%3A//h/x",
    "frames=3 rate=9.0Hz age_ms=1.0/2.0/3.0 ir=live,9.0Hz drops: none",
]

FORMS = [
    "rtsp://{user}:{password}@cam:554/live",
    "RTSP://{user}:{password}@cam",
    "see rtsp://{user}:{password}@cam/live, it failed",
    "http://cam/x?user={user}&pwd={password}&channel=1",
    "http://cam/x?channel=1&Username={user}&PassWord={password}",
    "http://cam/x?login={user}&access_token={password}#t=1",
    "http://cam/x#auth={user}&secret={password}",
    "srt://cam:9000?mode=caller&passphrase={password}",
    "rtmp://cam/app/live?username={user}&sig={password}",
    "rtsp://cam/user={user}_password={password}_channel=1_stream=0.sdp",
    "rtsp://cam/user={user}&password={password}&channel=1",
    "anna:{password}@cam/live",
    "no such file: cam/user={user}_passwd={password}_channel=1",
]
QUOTED_FORMS = [  # secrets that a client encodes
    "http://cam/x?usr={user}&key={password}&z=1",
    "rtsp://{user}:{password}@cam/live",
    "http://proxy/api?src=rtsp%3A%2F%2F{user}%3A{password}%40cam%2Flive&z=1",
    "'rtsp%3A%2F%2F{user}%3A{password}%40cam%2Flive' failed",
]

_MARKS = "/@:?#=;,.!$*+-_~|()[]{}^\\%"
RAW = st.text(string.ascii_letters + string.digits + _MARKS, min_size=1, max_size=12)
ANY = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)


@pytest.mark.parametrize(("text", "shown"), HIDDEN)
def test_a_secret_is_hidden_and_the_rest_is_not(text, shown):
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize("text", PLAIN)
def test_a_text_without_secrets_stays_as_it_is(text):
    assert redact(text) == text
    assert redact(f"RGB stream {text} cannot be opened: {text}") == f"RGB stream {text} cannot be opened: {text}"


@given(st.sampled_from(FORMS), RAW, RAW)
def test_no_user_and_no_password_passes(form, user, password):
    """The marks at both ends tell the secret from the rest of the text."""
    user, password = f"Qq{user}qQ".replace("=", "."), f"Zz{password}zZ"
    shown = redact(form.format(user=user, password=password))
    for secret in ("Qq", "qQ", "Zz", "zZ"):
        assert secret not in shown, shown
    assert "***" in shown


@given(st.sampled_from(QUOTED_FORMS), ANY, ANY)
def test_no_encoded_secret_passes(form, user, password):
    words = {"user": quote(f"Qq{user}qQ", safe=""), "password": quote(f"Zz{password}zZ", safe="")}
    shown = redact(form.format(**words))
    for secret in ("Qq", "qQ", "Zz", "zZ"):
        assert secret not in shown, shown


@given(st.sampled_from(FORMS), RAW, RAW)
def test_no_secret_passes_inside_other_texts(form, user, password):
    uri = form.format(user=f"Qq{user}qQ".replace("=", "."), password=f"Zz{password}zZ")
    text = json.dumps({"uri": uri, "n": [1, f"[tcp @ 0x7f] {uri}: Connection refused"]})
    shown = redact(text)
    for secret in ("Qq", "qQ", "Zz", "zZ"):
        assert secret not in shown, shown
    assert json.loads(shown)["n"][0] == 1


@given(st.text(string.ascii_letters + string.digits + " ./_-+()[]{}%,;!", max_size=60))
def test_words_and_file_names_are_never_touched(text):
    assert redact(text) == text


def test_every_error_is_redacted_when_it_is_made():
    error = SourceUnreadable("http://a:hush@h/x gives no picture")
    assert str(error) == error.args[0] == "http://***@h/x gives no picture"
    assert str(named("capture", OSError("'http://a:hush@h/x'"))) == "capture failed: OSError: 'http://***@h/x'"
