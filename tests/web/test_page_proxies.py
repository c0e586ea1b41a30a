"""The page behind a proxy: under a path, and with the client's own address, scheme and host."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import urllib.request
from urllib.parse import urljoin, urlsplit

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from pages import TOKEN, ask, fused, serving

from rtfuse.cli.addresses import check_web
from rtfuse.config import Config, load_config
from rtfuse.errors import ConfigError
from rtfuse.web.addresses import OWN_PATHS, networks_of, prefix_of
from rtfuse.web.entrance import Entrance, read_address

PROXIES = ("127.0.0.1", "10.0.0.0/8", "fd00::/8")


@pytest.fixture
def serve():
    """Start a page; all are closed at the end."""
    yield from serving()


def log_in(server, token, path="/login", **headers):
    return ask(server, path, data=f"token={token.replace(' ', '+')}".encode(), **headers)


def client(headers, peer="10.0.0.1"):
    """The client's address that a request with these (name, value) headers counts for."""
    entrance = Entrance(proxies=networks_of(PROXIES))
    return str(entrance._client(read_address(peer), CIMultiDictProxy(CIMultiDict(headers))))


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ([], "10.0.0.1"),
        ([("X-Forwarded-For", "203.0.113.9")], "203.0.113.9"),
        ([("X-Forwarded-For", "1.2.3.4, 203.0.113.9")], "203.0.113.9"),  # the client's own claim stands first
        ([("X-Forwarded-For", "203.0.113.9, 10.0.0.7")], "203.0.113.9"),
        ([("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "203.0.113.9, 10.9.9.9")], "203.0.113.9"),
        ([("X-Forwarded-For", "10.0.0.9, 10.0.0.7")], "10.0.0.9"),
        ([("X-Forwarded-For", "203.0.113.9:5123")], "203.0.113.9"),
        ([("X-Forwarded-For", "[2001:db8::9]:5123")], "2001:db8::9"),
        ([("X-Forwarded-For", "2001:db8::9")], "2001:db8::9"),
        ([("X-Forwarded-For", "::ffff:203.0.113.9")], "203.0.113.9"),
        ([("X-Forwarded-For", "1.2.3.4, unknown")], "10.0.0.1"),
        ([("X-Forwarded-For", "1.2.3.4, nonsense, 10.0.0.7")], "10.0.0.7"),
        ([("X-Forwarded-For", ", ,")], "10.0.0.1"),
        ([("X-Forwarded-For", "1.2.3.4, 999.1.1.1")], "10.0.0.1"),
        ([("Forwarded", "for=203.0.113.9;proto=https")], "203.0.113.9"),
        ([("Forwarded", 'For="[2001:db8::9]:47011", for=10.0.0.7')], "2001:db8::9"),
        ([("Forwarded", "for=1.2.3.4, for=_hidden")], "10.0.0.1"),
        ([("Forwarded", "proto=https")], "10.0.0.1"),
        ([("Forwarded", 'for="1.2.3.4')], "10.0.0.1"),
        # The proxy writes one of the two and passes the other on as the client sent it.
        ([("Forwarded", "for=1.2.3.4"), ("X-Forwarded-For", "203.0.113.9")], "10.0.0.1"),
        ([("Forwarded", "for=203.0.113.9"), ("X-Forwarded-For", "203.0.113.9")], "203.0.113.9"),
    ],
)
def test_the_client_is_the_nearest_address_that_is_no_proxy(headers, address):
    assert client(headers) == address


def test_addresses_are_read_or_refused():
    for text in ("", "a", "1.2.3", "1.2.3.4:x", "[::1", "::1]", "1.2.3.4, 5", "\udcff", "1" * 9000, "[1.2.3.4]x"):
        assert read_address(text) is None, text
    assert str(read_address("fe80::1%eth0")) == "fe80::1"


def test_who_is_no_proxy_cannot_claim_anything(serve, caplog):
    server = serve(token=TOKEN, proxies=["192.0.2.1"])
    claims = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "rig.example", "X_Forwarded_Prefix": "/rig1"}
    for k in range(5):
        assert log_in(server, f"wrong{k}", X_Forwarded_For=f"203.0.113.{k}", Forwarded=f"for=203.0.113.{k}")[0] == 401
    assert log_in(server, TOKEN, X_Forwarded_For="203.0.113.9")[0] == 429
    assert caplog.text.count("web.proxies does not name") == 1
    other = serve(token=TOKEN, proxies=["192.0.2.1"])
    status, headers, _ = log_in(other, TOKEN, **claims)
    assert (status, headers["Location"]) == (303, "./")
    assert "Secure" not in headers["Set-Cookie"]
    assert "Path" not in headers["Set-Cookie"]
    assert b"<base" not in ask(other, "/login", **claims)[2]


def test_one_client_of_a_proxy_locks_out_nobody_but_itself(serve, caplog):
    server = serve(token=TOKEN, proxies=PROXIES)
    for k in range(5):
        assert log_in(server, f"wrong{k}", X_Forwarded_For="1.1.1.1, 203.0.113.9")[0] == 401
    assert log_in(server, TOKEN, X_Forwarded_For="2.2.2.2, 203.0.113.9")[0] == 429
    assert log_in(server, TOKEN, X_Forwarded_For="203.0.113.10")[0] == 303
    assert ask(server, "/state", Authorization=f"Bearer {TOKEN}", X_Forwarded_For="203.0.113.9")[0] == 429
    assert caplog.records[0].rtfuse_fields["peer"] == "203.0.113.9"


@pytest.mark.parametrize("proto", ["https", "HTTPS", "wss", "https, http"])
def test_the_scheme_and_the_host_are_those_that_the_client_used(serve, proto):
    server = serve(token=TOKEN, proxies=PROXIES, hosts=["rig.example"])
    told = {"X_Forwarded_Proto": proto, "X_Forwarded_Host": "rig.example"}
    assert "; Secure" in log_in(server, TOKEN, Origin="https://rig.example", **told)[1]["Set-Cookie"]
    assert log_in(server, TOKEN, Origin="https://rig.example:443", **told)[0] == 303
    assert log_in(server, TOKEN, Origin="https://other.example", **told)[0] == 403
    assert log_in(server, TOKEN, Forwarded='for=1.2.3.4;host="rig.example";proto=https')[0] == 303


def test_names_are_checked_behind_a_proxy_too(serve):
    server = serve(token=TOKEN, proxies=PROXIES, hosts=["rig.example"])
    for name in ("evil.example", "rig.example.evil.example", "127.0.0.1.evil.example"):
        assert ask(server, "/login", X_Forwarded_Host=name)[0] == 421
        # A page whose name leads to the proxy can write any header but its own Host.
        assert ask(server, "/login", Host=name, X_Forwarded_Host="rig.example")[0] == 421
    for broken in ("a b", "[", 'x"y', "rig.example/path", "rig.example:x", "rig.example@evil.example"):
        assert ask(server, "/login", X_Forwarded_Host=broken)[0] == 200, "what cannot be read is ignored"


@pytest.mark.parametrize(
    "broken", ["//evil.example", "/a/../b", "rig1", "/a b", "/a?b", '/"><script>', "/" + "a" * 500]
)
def test_a_prefix_that_cannot_be_read_is_ignored(serve, broken):
    server = serve(token=TOKEN, proxies=PROXIES)
    status, _, body = ask(server, "/login", X_Forwarded_Prefix=broken)
    assert status == 200
    assert b"<base" not in body
    assert ask(server, "/", X_Forwarded_Prefix=broken)[1]["Location"] == "./login"


WAYS = {
    "configured, kept": ({"prefix": "/rig1"}, "/rig1", {}),
    "configured, taken off": ({"prefix": "/rig1/"}, "", {}),
    "named, kept": ({"proxies": PROXIES}, "/rig1", {"X_Forwarded_Prefix": "/rig1"}),
    "named, taken off": ({"proxies": PROXIES}, "", {"X_Forwarded_Prefix": "/rig1"}),
    "unknown, taken off": ({}, "", {}),
    "deep": ({"prefix": "/site/rig-1.a~b"}, "/site/rig-1.a~b", {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_link_stays_under_the_prefix(serve, way):
    """Follow all that the page names, as a browser resolves it, through what a proxy does with the path."""
    options, kept, sent = WAYS[way]
    public = kept or "/rig1"
    server = serve(token=TOKEN, link_token="only-to-look-at", **options)
    server.live.write(fused())

    def through(url, **more):
        path = urlsplit(url).path + ("?" + urlsplit(url).query if urlsplit(url).query else "")
        assert path.startswith(public + "/"), f"{url} leaves {public}"
        return ask(server, kept + path.removeprefix(public), **sent, **more)

    root = f"http://rigs.example{public}/"
    status, headers, _ = through(root)
    login = urljoin(root, headers["Location"])
    assert (status, urlsplit(login).path) == (303, public + "/login")
    seen = set()
    status, headers, _ = through(login, data=f"token={TOKEN.replace(' ', '+')}".encode())
    assert (status, urljoin(login, headers["Location"])) == (303, root)
    path = re.search(r"Path=([^;]*)", headers["Set-Cookie"])
    assert (path[1] if path else "/rig1") == public
    cookie = headers["Set-Cookie"].partition(";")[0]
    for page in (root, urljoin(root, "plain"), urljoin(root, "login")):
        status, headers, body = through(page, **({} if page.endswith("login") else {"Cookie": cookie}))
        assert status == 200
        base = re.search(rb'<base href="([^"]*)"', body)
        at = urljoin(page, base[1].decode()) if base else page
        for link in re.findall(rb'(?:href|src|action)="([^"]*)"', body.replace(base[0] if base else b"", b"")):
            url = urljoin(at, link.decode().replace("&amp;", "&"))
            seen.add(url.removeprefix(root))
            if "stream.mjpg" not in url:
                assert through(url, Cookie=cookie)[0] in (200, 303), url
    assert {"static/icon.svg", "static/main.js", "static/login.js", "login", "stream.mjpg"} <= seen
    manifest = urljoin(root, "static/rtfuse.webmanifest")
    told = json.loads(through(manifest)[2])
    assert urljoin(manifest, told["start_url"]) == root
    assert through(urljoin(manifest, told["icons"][0]["src"]))[0] == 200
    for path, wanted in {"snapshot.jpg": 200, "state": 200, "metrics": 200, "favicon.ico": 200, "healthz": 200,
                         "readyz": 503, "live": 400, "nothing": 404, "static/nothing": 404}.items():  # fmt: skip
        assert through(urljoin(root, path), Cookie=cookie)[0] == wanted, path
    answer = through(urljoin(root, "controls"), data=b'{"mark": true}', Cookie=cookie, Content_Type="application/json")
    assert answer[0] == 200
    assert server.rig.mark is True


def test_the_prefix_alone_leads_to_the_page(serve):
    server = serve(prefix="/rig1")
    for path, at in {"/rig1": "/rig1/", "/rig1?token=a%20b": "/rig1/?token=a%20b"}.items():
        status, headers, _ = ask(server, path)
        assert (status, headers["Location"]) == (308, at)
    for path, wanted in {
        "/rig1/": 200,
        "/rig1//evil.example/": 404,
        "/rig12/": 404,
        "/rig1/rig1/": 404,
        "/": 200,
    }.items():
        assert ask(server, path)[0] == wanted, path
    assert ask(server, "/rig1/static/..%2fpage.py")[0] == 404
    assert ask(server, "/rig1/controls")[0] == 405


def test_socket_and_stream_work_under_the_prefix(serve):
    server = serve(prefix="/rig1")
    server.live.write(fused())

    async def watch():
        async with aiohttp.ClientSession() as session:
            for path in ("/rig1/live", "/live"):
                async with session.ws_connect(server.url + path, origin=server.url) as page:
                    assert "hello" in (await page.receive_json(timeout=10))

    asyncio.run(watch())
    with urllib.request.urlopen(server.url + "/rig1/stream.mjpg", timeout=10) as stream:
        assert stream.readline() == b"--frame\r\n"


def test_behind_a_proxy_there_is_always_a_token(serve):
    server = serve(proxies=["127.0.0.1"])
    assert server.token_needed
    assert not server.plain
    assert ask(server, "/state")[0] == 401


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("web.prefix=rig1", "is not a path; want for example /rig1"),
        ("web.prefix=/a/../b", "is not a path"),
        ("web.prefix=//evil.example", "is not a path"),
        ("web.prefix='/a b'", "is not a path"),
        ("web.prefix=/live", "begins like a path of the page itself"),
        ("web.prefix=/static/x", "begins like a path of the page itself"),
        ("web.proxies=[nginx]", "'nginx' is not an address or a network; want for example 127.0.0.1"),
        ("web.proxies=[10.0.0.7/8]", "bits set beyond its network"),
        ("web.proxies=[0.0.0.0/0]", "includes every address"),
        ("web.proxies=['::/0']", "includes every address"),
        ("web.proxies=10.0.0.1", "write a list as"),
        ("web.hosts=['http://rigs.example']", "is not a name; want for example rigs.example"),
        ("web.hosts=['rigs.example:8080']", "is not a name"),
        ("web.hosts=[rigs.example/rig1]", "is not a name"),
        ("web.hosts=['*']", "is not a name"),
        ("web.hosts=['']", "is not a name"),
        ("web.hosts=['a b']", "is not a name"),
        ("web.hosts=['*.example']", "is not a name"),
        ("web.proxies=['::ffff:0.0.0.0/96']", "includes every address"),
        ("web.embed=['https://home.example:81230']", "is not an origin"),
        ("web.embed=['https://home.example:0']", "is not an origin"),
        ("web.embed=['*']", "is not an origin; want for example https://home.example:8123"),
        ("web.embed=[home.example]", "is not an origin"),
        ("web.embed=['https://home.example/lovelace']", "is not an origin"),
        ("web.embed=['https://*.example']", "is not an origin"),
        ('web.embed=["https://a; script-src *"]', "is not an origin"),
        ("web.link_token=short", "link_token"),
        ("web.link_token='has a blank and more'", "link_token"),
        ("web.token=the-same-for-both web.link_token=the-same-for-both", "web.link_token equals web.token"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_opened(setting, fault):
    given = setting.split() if setting.startswith("web.token") else [setting]
    with pytest.raises(ConfigError) as refused:
        check_web(load_config(overrides=given).web)
    assert fault in str(refused.value)
    assert "\n" not in str(refused.value)


def test_settings_that_make_sense_are_taken():
    given = [
        "web.prefix=/rig1/",
        "web.proxies=[127.0.0.1, '::1', 10.0.0.0/8]",
        "web.embed=['HTTPS://Home.example:8123/']",
    ]
    check_web(load_config(overrides=given).web)
    assert prefix_of("/") == prefix_of("") == ""
    assert Config().web.prefix == ""


@pytest.mark.parametrize(
    ("name", "host"),
    [("Rigs.Example.", "rigs.example"), ("bücher.example", "xn--bcher-kva.example"), ("my_rig", "my_rig:8080")],
)
def test_a_name_is_known_as_browsers_send_it(serve, name, host):
    check_web(load_config(overrides=[f"web.hosts=['{name}']"]).web)
    server = serve(hosts=[name])
    assert ask(server, "/state", Host=host)[0] == 200
    assert ask(server, "/state", Host=f"a.{host}")[0] == 421


def test_a_proxy_that_is_written_as_a_mapped_address_is_believed(serve):
    """Clients' addresses are read as IPv4 where they are one, so the proxies' are too."""
    for text in ("::ffff:127.0.0.1", "::ffff:127.0.0.0/104"):
        server = serve(token=TOKEN, proxies=[text])
        for k in range(5):
            assert log_in(server, f"wrong{k}", X_Forwarded_For="203.0.113.9")[0] == 401
        assert log_in(server, TOKEN, X_Forwarded_For="203.0.113.9")[0] == 429
        assert log_in(server, TOKEN, X_Forwarded_For="203.0.113.10")[0] == 303


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"X_Forwarded_Prefix": "/my%20rig"}, "X-Forwarded-Prefix of a proxy cannot be read and is ignored"),
        ({"X_Forwarded_Host": "rigs example"}, "X-Forwarded-Host of a proxy cannot be read"),
        ({"X_Forwarded_Proto": "gopher"}, "X-Forwarded-Proto of a proxy cannot be read"),
        ({"X_Forwarded_For": "203.0.113.9, unix:"}, "An address in X-Forwarded-For or Forwarded of a proxy cannot"),
        ({"Forwarded": "proto=https"}, "An address in X-Forwarded-For or Forwarded of a proxy cannot"),
        ({"X_Forwarded_For": "1.2.3.4", "Forwarded": "for=5.6.7.8"}, "Forwarded and X-Forwarded-For disagree"),
    ],
)
def test_a_proxys_header_that_has_no_effect_is_said_once(serve, caplog, sent, said):
    server = serve(token=TOKEN, proxies=PROXIES, hosts=["rigs.example"])
    fine = {
        "X_Forwarded_For": "1.2.3.4, 203.0.113.9",
        "X_Forwarded_Prefix": "/",
        "X_Forwarded_Proto": "https",
        "X_Forwarded_Host": "rigs.example:8443",
    }
    for _ in range(3):
        assert ask(server, "/login", **fine)[0] == 200
    assert not caplog.records
    for _ in range(3):
        assert ask(server, "/login", **sent)[0] == 200
    assert caplog.text.count(said) == len(caplog.records) == 1


def test_no_own_path_is_forgotten(serve):
    routes = serve()._runner.app.router.resources()
    assert {route.canonical.split("/")[1] for route in routes} - {""} == OWN_PATHS


def test_a_name_that_has_only_an_ipv6_address(serve, monkeypatch):
    """The name that the page was told to listen on is the rig's own."""
    known = socket.getaddrinfo

    def found(host, *args, **kwargs):
        return known("::1" if host == "rig6.example" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    check_web(load_config(overrides=["web.address=rig6.example:0"]).web)
    server = serve(address="rig6.example:0", insecure=True, token=TOKEN)
    assert server._runner.addresses[0][0] == "::1"
    assert log_in(server, TOKEN, Origin=server.url)[0] == 303
    assert ask(server, "/login", Host="rig6.example.evil.example")[0] == 421


@pytest.mark.parametrize("bound", ["[::1]:0", "[::]:0"])
def test_the_page_on_ipv6(serve, bound):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError as e:
            pytest.skip(f"needs IPv6: {e}")
    server = serve(address=bound, insecure=True, token=TOKEN)
    assert server.url.startswith(bound.removesuffix("0").join(["http://", ""]))
    assert re.fullmatch(r"http://\[[0-9a-f:]+\]:\d+/login#" + TOKEN, server.login) or bound == "[::]:0"
    server.url = server.url.replace("[::]", "[::1]")
    server.live.write(fused())
    kept = log_in(server, TOKEN, Origin=server.url)[1]["Set-Cookie"].partition(";")[0]
    for path in ("/", "/state", "/snapshot.jpg"):
        assert ask(server, path, Cookie=kept)[0] == 200
    for k in range(5):
        log_in(server, f"wrong{k}")
    assert log_in(server, TOKEN)[0] == 429

    async def watch():
        async with aiohttp.ClientSession() as session:
            headers = {"Cookie": kept, "Origin": server.url}
            async with session.ws_connect(server.url + "/live", headers=headers) as page:
                assert "hello" in (await page.receive_json(timeout=10))

    asyncio.run(watch())
