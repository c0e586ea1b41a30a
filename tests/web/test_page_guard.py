"""The guard: other sites' pages, strangers and guessers get nothing, and the token stays secret."""

from __future__ import annotations

import json
import logging
import ssl
import subprocess
import urllib.request
from pathlib import Path

import aiohttp
import cv2
import numpy as np
import pytest
from pages import TOKEN, ask, change, fused, serving

from rtfuse.errors import ConfigError
from rtfuse.web.guard import Guard, TooManyTries
from rtfuse.web.qr import qr_code


@pytest.fixture
def serve():
    """Start a page; all are closed at the end."""
    yield from serving()


def upgrade(server, **headers):
    """Ask for a WebSocket as a browser does, and return the status."""
    key = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
    return ask(server, "/live", Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==", **key, **headers)[0]


def test_another_sites_page_gets_nothing(serve, caplog):
    server = serve(hosts=["mast.example"])
    server.live.write(fused())
    own, port = server.url, server.url.rpartition(":")[2]
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://localhost:" + port, "http://[", ""):
        assert upgrade(server, Origin=origin) == 403, origin
        assert change(server, b'{"mark": true}', Origin=origin)[0] == 403, origin
    assert change(server, b'{"mark": false}', Origin=own)[0] == 200
    said = caplog.records[-1]
    assert "let that pass Host on" in said.getMessage()
    assert said.rtfuse_fields["host"] == own.removeprefix("http://")
    # A name that leads here without being the rig's: DNS rebinding.
    for host in ("evil.example", "evil.example:" + port, "localhost.evil.example", "127.0.0.1.evil.example", "[", ""):
        assert ask(server, "/state", Host=host)[0] in (400, 421), host
    for host in ("localhost:" + port, "mast.example", "192.168.1.7:80", "[::1]:8080", "LOCALHOST"):
        assert ask(server, "/state", Host=host)[0] == 200, host
    # A picture that another page, also one of this machine, puts into itself.
    for site in ("cross-site", "same-site"):
        assert ask(server, "/snapshot.jpg", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")[0] == 403
    assert ask(server, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document")[0] == 200
    framed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}
    assert ask(server, "/", **framed)[0] == 403


def test_every_answer_carries_the_policy(serve):
    server = serve(token=TOKEN)
    for path in ("/", "/login", "/healthz", "/nothing", "/state", "/static/style.css"):
        _, headers, _ = ask(server, path)
        assert "default-src 'none'; script-src 'self'" in headers["Content-Security-Policy"], path
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Server"] == "rtfuse"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_files_are_those_of_the_page_alone(serve):
    server = serve()
    for path in (
        "/static/../page.py",
        "/static/%2e%2e/page.py",
        "/static/..%2fpage.py",
        "/static/",
        "/static/main.js/",
    ):
        assert ask(server, path)[0] == 404
    assert ask(server, "/static/main.js")[1]["Content-Type"] == "text/javascript; charset=utf-8"
    for path in ("/", "/plain", "/login"):
        page = ask(server, path)[2].decode()
        assert "//" not in page.replace("<!doctype html>", ""), "no asset from elsewhere"


def test_without_the_token_there_is_nothing_to_see(serve):
    server = serve(token=TOKEN)
    assert server.login.endswith("/login#" + TOKEN)
    status, headers, _ = ask(server, "/")
    assert (status, headers["Location"]) == (303, "./login")
    for path in (
        "/state",
        "/live",
        "/stream.mjpg",
        "/snapshot.jpg",
        "/metrics",
        "/plain",
        "/nothing",
    ):
        assert ask(server, path)[0] == 401, path
    assert change(server, b'{"mark": true}')[0] == 401
    assert upgrade(server) == 401
    assert ask(server, "/healthz")[0] == 200
    assert ask(server, "/readyz")[::2] == (503, b"not ready\n")
    assert (
        ask(server, "/readyz", Authorization=f"Bearer {TOKEN}")[2]
        == b"nothing was published yet\nir is stalled for 3.2 s\n"
    )
    assert ask(server, "/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(server, "/metrics", Authorization="Bearer wrong")[0] == 401


def log_in(server, token):
    return ask(server, "/login", data=f"token={token.replace(' ', '+')}".encode())


def test_the_login_gives_a_session_that_is_not_the_token(serve, caplog):
    server = serve(token=TOKEN)
    with caplog.at_level(logging.DEBUG):
        status, headers, _ = log_in(server, TOKEN)
        assert (status, headers["Location"]) == (303, "./")
        name, _, cookie = headers["Set-Cookie"].partition("=")
        assert name == "rtfuse-" + server.url.rpartition(":")[2]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        kept = f"{name}={cookie.partition(';')[0]}"
        assert ask(server, "/", Cookie=kept)[0] == 200
        again = ask(server, "/login", Cookie=kept)
        assert (again[0], again[1]["Location"]) == (303, "./#"), "a fragment of its own: a browser would keep the token"
        assert "Path" not in headers["Set-Cookie"], "a proxy's path before /login is the cookie's too"
        assert json.loads(ask(server, "/state", Cookie="other=1; " + kept)[2])["about"]["rig"] == "mast"
        assert ask(server, "/state", Cookie=f"{name}=guess")[0] == 401
        assert ask(server, "/state", Cookie="\x01;;=")[0] in (400, 401)
        assert log_in(server, "wrong " + TOKEN)[0] == 401
    assert "a wrong token was refused" in caplog.text
    assert TOKEN not in caplog.text


def test_who_guesses_has_to_wait(serve):
    server = serve(token=TOKEN)
    for k in range(5):
        status, _, body = log_in(server, f"wrong {k}")
        assert status == 401
        assert b"That is not the token" in body
    for path in ("/login", "/metrics"):
        asked = log_in(server, TOKEN) if path == "/login" else ask(server, path, Authorization=f"Bearer {TOKEN}")
        assert asked[0] == 429
        assert 0 < int(asked[1]["Retry-After"]) <= 60


def test_a_stale_token_that_is_sent_again_and_again_locks_nobody_out(serve, caplog):
    """A card of a dashboard that still has last year's link, on the machine where somebody logs in."""
    server = serve(token=TOKEN, link_token="the-new-link-token")
    for _ in range(12):
        assert ask(server, "/snapshot.jpg?token=the-old-link-token")[0] == 401
        assert ask(server, "/state", Authorization="Bearer the-old-token")[0] == 401
    assert log_in(server, TOKEN)[0] == 303
    assert caplog.text.count("a wrong token was refused") == 2
    for k in range(5):
        assert log_in(server, f"guess {k}")[0] == 401
    assert log_in(server, TOKEN)[0] == 429
    assert ask(server, "/snapshot.jpg?token=the-old-link-token")[0] == 429


def test_the_wait_ends_and_memory_is_bounded():
    now = [0.0]
    guard = Guard(TOKEN, clock=lambda: now[0])
    for k in range(5):
        assert not guard.admits(f"guess {k}", "10.0.0.1")
    with pytest.raises(TooManyTries):
        guard.admits(TOKEN, "10.0.0.1")
    assert guard.admits(TOKEN, "10.0.0.2")
    now[0] = 61
    assert guard.admits(TOKEN, "10.0.0.1")
    for k in range(5000):
        guard.admits("wrong", f"peer {k}")
    assert len(guard._failed) <= 1024
    for _ in range(200):
        guard.begin(aiohttp.web.Response(), secure=False)
    assert len(guard._sessions) <= 64


def test_beyond_this_machine_there_is_always_a_token(serve):
    first, second = (serve(address="0.0.0.0:0", insecure=True) for _ in range(2))
    tokens = {server.login.partition("#")[2] for server in (first, second)}
    assert len(tokens) == 2
    assert all(len(token) >= 20 for token in tokens)
    first.url = first.url.replace("0.0.0.0", "127.0.0.1")
    assert ask(first, "/state")[0] == 401
    assert first.plain


def new_certificate(folder, *options):
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    name = ["-subj", "/CN=mast", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*made, *name, *(options or ["-nodes"])], check=True, capture_output=True)
    return str(cert), str(key)


def test_keys_that_others_read_or_that_need_a_password_are_refused(serve, tmp_path):
    cert, key = new_certificate(tmp_path, "-passout", "pass:secret")
    with pytest.raises(ConfigError, match="cannot be used"):
        serve(cert=cert, key=key)
    cert, key = new_certificate(tmp_path)
    Path(key).chmod(0o644)
    with pytest.raises(ConfigError, match="everybody on this machine can read"):
        serve(cert=cert, key=key)


def test_wrong_certificates_are_named(serve, tmp_path):
    for cert, key in ((str(tmp_path / "none.pem"), None), (None, "key.pem"), (__file__, None)):
        with pytest.raises(ConfigError, match=r"web\.(cert|key)"):
            serve(address="0.0.0.0:0", cert=cert, key=key)


def test_with_a_certificate_it_is_encrypted(serve, tmp_path):
    cert, key = new_certificate(tmp_path)
    server = serve(address="127.0.0.1:0", cert=cert, key=key, token=TOKEN)
    assert server.url.startswith("https://")
    assert not server.plain
    trusting = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=cert))
    status, _, body = ask(server, "/state", over=trusting, Authorization=f"Bearer {TOKEN}")
    assert status == 200
    assert json.loads(body)["about"]["rig"] == "mast"
    status, headers, _ = ask(server, "/login", over=trusting, data=b"token=" + TOKEN.replace(" ", "+").encode())
    assert status == 303
    assert "Secure" in headers["Set-Cookie"]


def test_a_phone_can_read_the_address():
    address = "http://192.168.100.200:65535/login#" + "Ab0-_" * 5
    lines = qr_code(address).split("\n")
    assert max(map(len, lines)) < 60
    dark = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
    halves = np.array([[dark[c] for c in line] for line in lines])
    picture = (255 * (1 - halves.transpose(0, 2, 1).reshape(-1, len(lines[0])))).astype(np.uint8)
    large = cv2.resize(picture, None, fx=8, fy=8, interpolation=cv2.INTER_NEAREST)
    assert cv2.QRCodeDetector().detectAndDecode(large)[0] == address
