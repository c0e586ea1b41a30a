"""Players and dashboards: HTTP Basic, addresses that only show, and pages that may frame this one."""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64encode

import aiohttp
import pytest
from pages import TOKEN, ask, change, fused, serving

from rtfuse.config import dump_config, load_config
from rtfuse.errors import redact

LINK = "only-to-look-at"
HOME = "https://home.example:8123"


@pytest.fixture
def serve():
    """Start a page; all are closed at the end."""
    yield from serving()


def basic(password, user="anybody"):
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def test_the_token_is_the_password_of_any_user(serve):
    server = serve(token=TOKEN, link_token=LINK)
    server.live.write(fused())
    for user in ("", "rtfuse", "Zoë"):
        for path in ("/snapshot.jpg", "/state", "/metrics", "/"):
            assert ask(server, path, Authorization=basic(TOKEN, user))[0] == 200, (user, path)
    assert change(server, b'{"mark": true}', Authorization=basic(TOKEN))[0] == 200
    assert change(server, b'{"mark": false}', Authorization=basic(LINK))[0] == 403
    assert ask(server, "/state", Authorization="basic  " + basic(TOKEN)[6:])[0] == 200
    assert server.rig.mark is True


@pytest.mark.parametrize(
    "given",
    [basic("wrong"), basic(""), basic(TOKEN)[:-3], "Basic", "Basic \udcff", "Basic ÿ", "Bearer \udcff", "Bearer wrong",
     "Basic " + b64encode(TOKEN.encode()).decode(), "Basic " + b64encode(b"a:\xff\xfe").decode()],
)  # fmt: skip
def test_a_wrong_password_counts_as_a_try(serve, given):
    server = serve(token=TOKEN)
    sent = given.encode("utf-8", "surrogateescape").decode("latin-1")
    assert ask(server, "/state", Authorization=sent)[0] == 401
    for k in range(4):
        assert ask(server, "/state", Authorization=basic(f"guess {k}"))[0] == 401
    status, headers, _ = ask(server, "/state", Authorization=basic(TOKEN))
    assert status == 429
    assert 0 < int(headers["Retry-After"]) <= 60


def test_programs_are_asked_for_a_password_and_the_pages_own_requests_are_not(serve):
    server = serve(token=TOKEN)
    asks = {
        path: ask(server, path)[1].get("WWW-Authenticate", "") for path in ("/stream.mjpg", "/snapshot.jpg", "/live")
    }
    assert asks["/stream.mjpg"].startswith('Basic realm="rtfuse"')
    assert asks["/snapshot.jpg"] == asks["/stream.mjpg"]
    assert not asks["/live"], "a browser would open a window of its own"


def test_another_scheme_of_a_proxy_does_not_end_a_session(serve):
    server = serve(token=TOKEN)
    headers = ask(server, "/login", data=f"token={TOKEN.replace(' ', '+')}".encode())[1]
    kept = headers["Set-Cookie"].partition(";")[0]
    for other in (basic("the proxy's own"), "Negotiate abc", "Bearer the-proxys-own"):
        for _ in range(6):
            assert ask(server, "/state", Cookie=kept, Authorization=other)[0] == 200


def test_the_login_works_behind_a_proxy_that_asks_for_a_password_of_its_own(serve):
    server = serve(token=TOKEN)
    for _ in range(6):
        assert ask(server, "/login", Authorization=basic("the proxy's own"))[0] == 200
        assert ask(server, "/healthz?token=x", Authorization=basic("the proxy's own"))[0] == 200
        assert ask(server, "/static/main.js", Authorization=basic("the proxy's own"))[0] == 200
    sent = f"token={TOKEN.replace(' ', '+')}".encode()
    assert ask(server, "/login", data=sent, Authorization=basic("the proxy's own"))[0] == 303


def test_a_link_shows_and_changes_nothing(serve):
    server = serve(token=TOKEN, link_token=LINK)
    server.live.write(fused())
    for path in ("/", "/plain", "/snapshot.jpg?view=thermal&palette=iron", "/state"):
        joined = f"{path}{'&' if '?' in path else '?'}token={LINK}"
        assert ask(server, joined)[0] == 200, path
        assert ask(server, path, Authorization=f"Bearer {LINK}")[0] == 200, path
        assert ask(server, joined.replace(LINK, TOKEN.replace(" ", "%20")))[0] in (303, 401), "never the token itself"
        server._guard._failed.clear()
    assert ask(server, f"/metrics?token={LINK}")[0] == 403
    assert ask(server, f"/readyz?token={LINK}")[::2] == (503, b"not ready\n"), "without the reasons"
    assert change(server, b'{"mark": true}', Authorization=f"Bearer {LINK}")[0] == 403
    linked = ask(server, f"/controls?token={LINK}", data=b'{"mark": true}', Content_Type="application/json")
    assert linked[0] == 403
    assert server.rig.mark is False

    async def watch():
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{server.url}/live?token={LINK}", origin="null") as page,
        ):
            assert (await page.receive_json(timeout=10))["hello"]["view_only"] is True

    asyncio.run(watch())


def test_a_link_carries_its_token_to_what_the_page_shows(serve):
    server = serve(token=TOKEN, link_token=LINK)
    plain = ask(server, f"/plain?token={LINK}")[2].decode()
    assert f'<img src="stream.mjpg?token={LINK}&amp;"' in plain
    assert f'href="./?token={LINK}&amp;"' in plain
    assert LINK not in ask(server, "/plain", Authorization=basic(TOKEN))[2].decode()


def test_a_session_begun_with_the_link_token_only_shows(serve):
    server = serve(token=TOKEN, link_token=LINK)
    kept = ask(server, "/login", data=f"token={LINK}".encode())[1]["Set-Cookie"].partition(";")[0]
    assert ask(server, "/state", Cookie=kept)[0] == 200
    assert change(server, b'{"mark": true}', Cookie=kept)[0] == 403


def test_guessing_links_has_to_wait_and_a_link_gives_no_more_tries_at_the_token(serve):
    server = serve(token=TOKEN, link_token=LINK)
    for k in range(5):
        assert ask(server, f"/state?token=guess{k}")[0] == 401
    for path, headers in ((f"/state?token={LINK}", {}), ("/state", {"Authorization": basic(TOKEN)})):
        assert ask(server, path, **headers)[0] == 429
    other = serve(token=TOKEN, link_token=LINK)
    for k in range(5):
        assert ask(other, "/state", Authorization=basic(f"guess{k}"))[0] == 401
        assert ask(other, f"/state?token={LINK}")[0] == (200 if k < 4 else 429)
    assert ask(other, "/state", Authorization=basic(TOKEN))[0] == 429


def test_tokens_are_written_nowhere(serve, caplog):
    server = serve(token=TOKEN, link_token=LINK)
    with caplog.at_level(logging.DEBUG):
        for path in ("/", "/state", "/nothing", "/stream.mjpg", f"/controls/{LINK}"):
            ask(server, f"{path}?token={LINK}&view=x")
        server._page._now = None  # what fails is logged
        assert ask(server, f"/state?token={LINK}")[0] == 500
    assert "/state failed" in caplog.text
    assert LINK not in caplog.text
    assert LINK not in json.dumps(server.url) + server.login
    for uri in (
        f"http://rig:8080/stream.mjpg?view=thermal&token={LINK}",
        f"http://u:{LINK}@rig/rig1/stream.mjpg",
        f"web.link_token={LINK}",
        f"rtfuse run --ir 'http://rig/?token={LINK}&view=rgb'",
    ):
        assert LINK not in redact(uri), uri
    config = load_config(overrides=[f"web.link_token={LINK}", "web.token=correct-horse-battery"])
    assert LINK not in dump_config(config)
    assert "correct" not in dump_config(config)


def test_pages_elsewhere_may_show_a_picture_by_its_link_alone(serve):
    server = serve(token=TOKEN, link_token=LINK)
    server.live.write(fused())
    foreign = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"}
    status, headers, _ = ask(server, f"/snapshot.jpg?token={LINK}", **foreign)
    assert (status, headers["Cross-Origin-Resource-Policy"]) == (200, "cross-origin")
    assert ask(server, "/snapshot.jpg", Authorization=basic(TOKEN), **foreign)[0] == 403
    assert ask(server, "/snapshot.jpg?token=guess", **foreign)[0] == 403
    assert ask(server, f"/snapshot.jpg?token={LINK}", Host="evil.example")[0] == 421


def test_nobody_may_frame_the_page_unless_named(serve):
    framed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}
    closed, open_ = serve(), serve(embed=[HOME, "http://192.168.1.5:3000"])
    status, headers, _ = ask(closed, "/", **framed)
    assert status == 403
    for _, headers, _ in (ask(closed, "/"), ask(closed, "/nothing")):
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Content-Security-Policy"].endswith("frame-ancestors 'none'")
    status, headers, _ = ask(open_, "/", **framed)
    assert status == 200
    assert "X-Frame-Options" not in headers
    assert headers["Content-Security-Policy"].endswith(f"frame-ancestors {HOME} http://192.168.1.5:3000")
    # What is in the frame may still be used by the page itself alone.
    assert ask(open_, "/snapshot.jpg", **(framed | {"Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"}))[0] == 403
    assert change(open_, b'{"mark": true}', Origin=HOME)[0] == 403


@pytest.mark.parametrize(
    ("embed", "scheme", "attributes"),
    [
        ([], "http", "HttpOnly; SameSite=Strict"),
        ([], "https", "HttpOnly; Secure; SameSite=Strict"),
        ([HOME], "http", "HttpOnly; SameSite=Strict"),
        ([HOME], "https", "HttpOnly; Secure; SameSite=None; Partitioned"),
    ],
)
def test_the_cookie_fits_a_frame_where_it_is_encrypted(serve, embed, scheme, attributes):
    server = serve(token=TOKEN, embed=embed, proxies=["127.0.0.1"])
    sent = f"token={TOKEN.replace(' ', '+')}".encode()
    kept = ask(server, "/login", data=sent, X_Forwarded_Proto=scheme)[1]["Set-Cookie"]
    assert kept.partition("; ")[2] == attributes


def test_a_favicon_is_there_for_everybody(serve):
    status, headers, body = ask(serve(token=TOKEN), "/favicon.ico")
    assert (status, headers["Content-Type"]) == (200, "image/vnd.microsoft.icon")
    assert body[:6] == b"\0\0\1\0\3\0"
    assert body.count(b"\x89PNG") == 3
