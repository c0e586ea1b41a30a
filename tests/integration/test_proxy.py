"""The page behind a real nginx, as docs/web.md sets it up, in Chromium and Firefox."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from base64 import b64encode
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from browsers import Chromium, Firefox
from pages import TOKEN, moving, serving

pytestmark = pytest.mark.browser  # where it is required, nginx is too
DOCS = Path(__file__).parents[2] / "docs" / "web.md"
LINK = "only-to-look-at"
TRUSTED = {"proxies": ["127.0.0.1"], "hosts": ["rigs.example"]}
WAYS = {
    "taken off": (TRUSTED, {}),
    "taken off, not named": (TRUSTED, {r"(?m)^.*X-Forwarded-Prefix.*\n": ""}),
    "taken off, nothing trusted": ({}, {r"(?m)^.*X-Forwarded.*\n": ""}),
    "kept": (TRUSTED, {r"(proxy_pass \S+)/;": r"\1;"}),
    "kept, not named": (TRUSTED | {"prefix": "/rig1"}, {r"(proxy_pass \S+)/;": r"\1;", r"(?m)^.*-Prefix.*\n": ""}),
}
"""Settings of the rig, and what is another in nginx's configuration than docs/web.md has it."""
MAIN = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  {site}
}}
"""


@pytest.fixture
def serve():
    """Start a page; all are closed at the end."""
    yield from serving()


@pytest.fixture(scope="module", params=[Chromium, Firefox])
def browser(request, tmp_path_factory):
    """A browser for all tests of this module."""
    opened = request.param(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def nginx(folder, rig_port, changes):
    """Run nginx with the configuration of docs/web.md, and yield its port."""
    program = shutil.which("nginx", path=os.environ["PATH"] + os.pathsep + "/usr/sbin")
    if program is None:
        if os.environ.get("RTFUSE_REQUIRE_BROWSER"):
            pytest.fail("RTFUSE_REQUIRE_BROWSER is set, but there is no nginx")
        pytest.skip("needs nginx (Debian: nginx-light)")
    port = free_port()
    site = re.search(r"```nginx\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1]
    named = {r"listen 80\b": f"listen 127.0.0.1:{port}", r"127\.0\.0\.1:8080": f"127.0.0.1:{rig_port}"}
    for pattern, text in {**named, **changes}.items():
        site, count = re.subn(pattern, text, site)
        assert count, pattern
    config = folder / "nginx.conf"
    config.write_text(MAIN.format(folder=folder, site=site))
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")])
    try:
        end = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)):
            alive = time.monotonic() < end and process.poll() is None
            assert alive, (folder / "error.log").read_text()
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(params=WAYS)
def behind(request, serve, tmp_path):
    """A rig with a token behind nginx, and the address of its page there."""
    options, changes = WAYS[request.param]
    server = serve(token=TOKEN, link_token=LINK, **options)
    with nginx(tmp_path, server.url.rpartition(":")[2], changes) as port, moving(server, 15):
        server.way, server.port = request.param, port
        yield server, f"http://127.0.0.1:{port}/rig1"


def asked(port, path, *, source="127.0.0.1", method="GET", body=None, **headers):
    """Return the status and body of an answer to a request from an address of this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10, source_address=(source, 0))
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


SEEN = """(() => {
    const small = document.createElement("canvas"), at = small.getContext("2d");
    at.drawImage(document.getElementById("picture"), 0, 0, 16, 12);
    return Math.max(...at.getImageData(0, 0, 16, 12).data.filter((_, k) => k % 4 < 3)); })()"""


@pytest.mark.slow
def test_the_page_is_used_through_nginx(browser, behind):
    server, url = behind
    browser.get("about:blank")
    browser.get(url + "/")
    browser.until("!!document.getElementById('token')")
    assert browser.js("location.pathname") == "/rig1/login"
    browser.js(f"document.getElementById('token').value = '{TOKEN}', document.getElementById('form').requestSubmit()")
    browser.until("document.getElementById('link')?.textContent == 'Connected'")
    assert browser.js("location.pathname") == "/rig1/"
    browser.until(f"document.getElementById('osd-rate').textContent != '–' && {SEEN} > 60")
    browser.js("document.getElementById('mark').click()")
    end = time.monotonic() + 20
    while not server.rig.mark:
        assert time.monotonic() < end, "a control does not act"
        time.sleep(0.05)
    loaded = browser.js("performance.getEntriesByType('resource').map((one) => new URL(one.name).pathname)")
    assert {path for path in loaded if not path.startswith("/rig1/")} <= {"/favicon.ico"}
    browser.get(url + "/plain")
    browser.until("document.images[0].naturalWidth > 0")
    assert "session" not in browser.js("document.cookie")


@pytest.mark.slow
def test_a_link_shows_the_page_without_a_session(browser, behind):
    server, url = behind
    browser.get("about:blank")
    browser.get(f"{url}/?token={LINK}")
    browser.until("document.getElementById('link')?.textContent == 'Connected'")
    browser.until(f"document.getElementById('osd-rate').textContent != '–' && {SEEN} > 60")
    browser.until("document.getElementById('gain-hint').textContent == 'This address only shows the picture.'")
    assert browser.js("document.getElementById('mark-form').hidden")
    assert server.rig.mark is False
    browser.get(f"{url}/plain?token={LINK}")
    browser.until("document.images[0].naturalWidth > 0")


@pytest.mark.slow
def test_a_dashboard_of_a_named_origin_frames_the_page(browser, serve, tmp_path):
    """Another server's page frames it: the one that is named may, another may not."""
    dashboard = free_port()
    server = serve(token=TOKEN, link_token=LINK, embed=[f"http://localhost:{dashboard}"])
    page = f'<!doctype html><iframe src="{server.url}/?token={LINK}" width="900" height="600"></iframe>'
    (tmp_path / "index.html").write_text(page)
    other = subprocess.Popen(
        ["python3", "-m", "http.server", str(dashboard), "--bind", "127.0.0.1", "--directory", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with moving(server, 15):
            for _ in range(200):
                if not socket.socket().connect_ex(("127.0.0.1", dashboard)):
                    break
                time.sleep(0.05)
            browser.get(f"http://localhost:{dashboard}/")
            end = time.monotonic() + 30
            while not server.live.viewers:
                assert time.monotonic() < end, "the page is not shown in its frame"
                time.sleep(0.05)
            browser.get("about:blank")
            while server.live.viewers:
                assert time.monotonic() < end, "the page goes with its frame"
                time.sleep(0.05)
            with suppress(RuntimeError):  # Firefox says so of a frame that was refused
                browser.get(f"http://127.0.0.1:{dashboard}/")
            time.sleep(2)
            assert not server.live.viewers, "another origin may not frame it"
    finally:
        other.terminate()
        other.wait(10)


@pytest.mark.slow
@pytest.mark.parametrize("behind", ["taken off"], indirect=True)
def test_the_page_says_why_it_has_no_picture(browser, behind):
    """A rig that has ended, one whose places are taken: the proxy answers in its place, or passes its answer on."""
    server, url = behind
    browser.get("about:blank")
    browser.get(f"{url}/login#{TOKEN.replace(' ', '%20')}")
    browser.until("document.getElementById('link')?.textContent == 'Connected'")
    browser.get(f"{url}/login#{TOKEN.replace(' ', '%20')}")
    browser.until("document.getElementById('link')?.textContent == 'Connected'")
    assert browser.js("location.href") == f"{url}/", "the token stays out of the address of a session too"
    browser.get("about:blank")
    end = time.monotonic() + 20
    while server.live.viewers:
        assert time.monotonic() < end, "a page that was left keeps its place"
        time.sleep(0.05)
    connections = [player(server.port) for _ in range(8)]
    try:
        browser.get(f"{url}/?token={LINK}")
        browser.until("document.getElementById('notice').textContent.startsWith('8 are watching already')")
        browser.until("document.getElementById('link').textContent == 'Too many watch'")
    finally:
        for connection in connections:
            connection.close()
    browser.until("document.getElementById('link').textContent == 'Connected'")
    server.close()
    browser.until("document.getElementById('notice').textContent.includes('it was stopped')")
    time.sleep(6)  # some tries later
    said = "No connection to the rig: it was stopped. Trying again."
    assert browser.js("document.getElementById('notice').textContent") == said


def player(port):
    """Begin to play the stream, read the head of the answer, and go on reading."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", f"/rig1/stream.mjpg?token={LINK}")
    answer = connection.getresponse()
    assert answer.status == 200

    def read():
        with suppress(Exception):
            while answer.read(1 << 16):
                pass

    threading.Thread(target=read, daemon=True).start()
    return connection


def test_tools_pass_nginx(behind):
    server, _ = behind
    port = server.port
    basic = "Basic " + b64encode(f"any:{TOKEN}".encode()).decode()
    assert asked(port, "/rig1/snapshot.jpg", Authorization=basic)[1][:2] == b"\xff\xd8"
    assert asked(port, f"/rig1/snapshot.jpg?token={LINK}")[1][:2] == b"\xff\xd8"
    assert b"rtfuse_frame_rate_hz" in asked(port, "/rig1/metrics", Authorization=basic)[1]
    assert json.loads(asked(port, "/rig1/state", Authorization=basic)[1])["about"]["rig"] == "mast"
    assert asked(port, "/rig1/healthz")[0] == 200
    assert asked(port, "/rig1/favicon.ico")[0] == 200
    assert asked(port, "/rig1")[0] in (301, 308)
    assert asked(port, "/rig1/state")[0] == 401
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/rig1/stream.mjpg", headers={"Authorization": basic})
    assert connection.getresponse().read(7) == b"--frame"
    connection.close()


def test_each_client_of_nginx_has_its_own_tries(behind):
    server, _ = behind
    if server.way == "taken off, nothing trusted":
        pytest.skip("without web.proxies all count as one")
    for k in range(5):
        guess = {"Authorization": f"Bearer guess{k}", "X_Forwarded_For": f"203.0.113.{k}"}
        assert asked(server.port, "/rig1/state", source="127.0.0.2", **guess)[0] == 401
    token = {"Authorization": f"Bearer {TOKEN}"}
    assert asked(server.port, "/rig1/state", source="127.0.0.2", X_Forwarded_For="203.0.113.9", **token)[0] == 429
    assert asked(server.port, "/rig1/state", source="127.0.0.3", **token)[0] == 200


@pytest.mark.parametrize(("origin", "passes"), [("http://127.0.0.1:{}", True), ("http://evil.example", False)])
def test_sockets_of_other_sites_pages_are_refused_behind_nginx(behind, origin, passes):
    server, url = behind

    async def watch():
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
            session.ws_connect(url + "/live", origin=origin.format(server.port)) as page,
        ):
            return "hello" in await page.receive_json(timeout=10)

    if passes:
        assert asyncio.run(watch())
    else:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            asyncio.run(watch())
        assert refused.value.status == 403
    assert asked(server.port, "/rig1/login", Host="evil.example")[0] == 421
