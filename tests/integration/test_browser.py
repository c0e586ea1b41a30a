"""The page in a real browser: the picture moves, controls act, what is lost is said, the numbers are rtfuse's own."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import browsers
import cv2
import numpy as np
import pytest
import zmq

from rtfuse import StatisticsSubscriber
from rtfuse.align.calibration import save_calibration
from rtfuse.capture.synthetic import SyntheticScene
from rtfuse.wire.detections import Box, Detections, encode_detections
from tools.render_boards import rig_of_scene

pytestmark = pytest.mark.browser
STILL = "synthetic:?live=1&noise=0"
PHONE, DESK = (360, 740), (1000, 700)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A headless Chromium with an empty profile; skips where there is none, fails if RTFUSE_REQUIRE_BROWSER is set."""
    folder = tmp_path_factory.mktemp("downloads")
    opened = browsers.chromium(tmp_path_factory.mktemp("profile"), **{"download.default_directory": str(folder)})
    opened.downloads = folder
    yield opened
    opened.quit()


class Page:
    """The page in a tab of its own."""

    def __init__(self, chromium, url, size_wh=DESK):
        self.chromium, self.url = chromium, url
        metrics = {"width": size_wh[0], "height": size_wh[1], "deviceScaleFactor": 1, "mobile": size_wh == PHONE}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        chromium.get(url)

    def js(self, script, *args):
        return self.chromium.execute_script(script, *args)

    def maybe(self, script, *args):
        """The same, or None while the page is on its way."""
        from selenium.common.exceptions import JavascriptException

        with suppress(JavascriptException):
            return self.js(script, *args)

    def until(self, script, *args, timeout_s=30):
        """Wait until the expression is true, and return it."""
        end = time.monotonic() + timeout_s
        while not (found := self.maybe(f"return {script}", *args)):
            assert time.monotonic() < end, f"{script} {args} is never so; {self.js('return document.body.innerText')}"
            time.sleep(0.05)
        return found

    def sees(self):
        """Wait for the picture."""
        self.until("document.getElementById('osd-age').textContent != '–'")
        return self

    def text(self, element):
        return self.js("return document.getElementById(arguments[0]).textContent", element)

    def says(self, element, words, timeout_s=30):
        self.until(
            "document.getElementById(arguments[0]).textContent.includes(arguments[1])",
            element,
            words,
            timeout_s=timeout_s,
        )

    def click(self, selector):
        self.js("document.querySelector(arguments[0]).click()", selector)

    def slide(self, element, value):
        script = "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        self.js(script + "e.dispatchEvent(new Event('input', {bubbles: true}))", element, value)

    def picture(self, of="picture", size_wh=(64, 48)):
        """Return the pixels of a canvas, without the margins left and right of the picture, (h, w, 4) int."""
        script = """
            const [of, w, h] = arguments, from = document.getElementById(of), to = document.createElement('canvas');
            [to.width, to.height] = [w, h];
            const wide = Math.min(from.width, from.height * 4 / 3), high = wide * 3 / 4;
            const at = to.getContext('2d');
            at.imageSmoothingQuality = 'high';
            at.drawImage(from, (from.width - wide) / 2, (from.height - high) / 2, wide, high, 0, 0, w, h);
            return Array.from(at.getImageData(0, 0, w, h).data);"""
        return np.array(self.js(script, of, *size_wh)).reshape(size_wh[1], size_wh[0], 4)


def between(one, other):
    return np.abs(one[..., :3].astype(int) - other[..., :3]).mean()


def snapshot(url, query):
    """Return the rig's own picture of a view, as `Page.picture` has it."""
    for _ in range(50):  # on a slow machine a stream may be missing for a moment
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{url}/snapshot.jpg?{query}", timeout=10) as got:
            image = cv2.imdecode(np.frombuffer(got.read(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            return cv2.resize(image, (64, 48), interpolation=cv2.INTER_AREA)
        time.sleep(0.1)
    pytest.fail(f"there is never a picture for {query}")


def state(url):
    with urllib.request.urlopen(url + "/state", timeout=10) as answer:
        return json.loads(answer.read())


def begin(start, *args, ir=STILL, web="127.0.0.1:0"):
    process = start("run", "--ir", ir, "--rgb", STILL, "--web", web, *args)
    process.url = re.search(r"http://\S+", process.wait_for("answering on"))[0]
    return process


@pytest.fixture
def rig(start):
    """Start a rig of this test alone, with a page; returns the process with its `url`."""
    return partial(begin, start, "--publish", "off")


@pytest.fixture(scope="module")
def shared(start_for_all, tmp_path_factory):
    """A rig for all: 16-bit thermal of which some is lost; it publishes on `endpoint`, boxes come from `boxes`."""
    folder = tmp_path_factory.mktemp("rig")
    endpoint, boxes = f"ipc://{folder}/frames", f"ipc://{folder}/boxes"
    ir = STILL + "&bits=16&ir_fps=20&drop=0.1"
    process = begin(
        start_for_all, "--publish", endpoint, "--boxes", boxes, "rig=mast-7", "thermal.agc.tau_ms=100", ir=ir
    )
    process.endpoint, process.boxes = endpoint, boxes
    return process


def test_the_picture_moves_and_shows_what_is_chosen(chromium, shared):
    url = shared.url
    page = Page(chromium, url).sees()
    first = page.picture()
    for _ in range(200):
        if between(page.picture(), first) > 0.5:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the picture stands still")

    def shows(query, others):
        for _ in range(50):
            shown = page.picture()
            near = between(shown, snapshot(url, query))
            if near < 8 and all(between(shown, snapshot(url, other)) > 2 * near + 4 for other in others):
                return
            time.sleep(0.1)
        pytest.fail(f"the page does not show {query}: {near:.1f} from it")

    shows("view=fused", ["view=rgb", "view=thermal"])
    page.click("[data-mix='0']")
    shows("view=rgb", ["view=fused", "view=thermal"])
    chromium.find_element("tag name", "body").send_keys("3")
    shows("view=thermal", ["view=fused", "view=rgb"])
    page.js("const p = document.getElementById('palette'); p.value = 'iron'; p.dispatchEvent(new Event('change'))")
    shows("view=thermal&palette=iron", ["view=thermal"])
    page.slide("mix", 0.5)
    page.until("document.getElementById('mix').getAttribute('aria-valuetext') == '50 % from RGB to fused'")
    for _ in range(50):
        half = (snapshot(url, "view=rgb").astype(int) + snapshot(url, "view=fused")) / 2
        if np.abs(page.picture()[..., :3] - half).mean() < 8:
            break
        time.sleep(0.1)
    else:
        pytest.fail("half way between is not")
    page.click("#split")
    page.until("document.querySelector('.stage').classList.contains('split')")
    page.js("localStorage.clear()")
    faults = [line for line in chromium.get_log("browser") if line["level"] == "SEVERE"]
    assert not faults
    asked = page.js("return performance.getEntriesByType('resource').map((one) => new URL(one.name).origin)")
    assert set(asked) == {url}


def saved_picture(page, chromium):
    """The picture that the page saves, as `Page.picture` has it."""
    before = set(chromium.downloads.glob("mast-7-*.png"))
    page.click("#snap")
    page.says("notice", "Saved mast-7-")
    saved = []
    for _ in range(200):
        saved = [one for one in chromium.downloads.glob("mast-7-*.png") if one not in before]
        if saved and saved[0].read_bytes().endswith(b"IEND\xaeB`\x82"):  # whole: OpenCV reads half a file as black
            break
        time.sleep(0.05)
    image = cv2.imread(str(saved[0]))
    assert image.shape == (480, 640, 3)
    return cv2.resize(image[..., ::-1], (64, 48), interpolation=cv2.INTER_AREA)


def test_a_snapshot_is_what_is_seen(chromium, shared):
    page = Page(chromium, shared.url).sees()
    page.click("[data-mix='0']")
    for _ in range(300):
        if between(page.picture(), snapshot(shared.url, "view=rgb")) < 8:
            break
        time.sleep(0.1)
    page.click("#spots")
    assert between(saved_picture(page, chromium), snapshot(shared.url, "view=rgb")) < 12
    page.js("localStorage.clear()")


def test_a_view_whose_planes_are_on_their_way_is_neither_shown_nor_saved_black(chromium, shared):
    page = Page(chromium, shared.url + "/?again").sees()
    page.click("[data-mix='1']")
    page.until("document.querySelector('[data-mix=\"1\"]').getAttribute('aria-pressed') == 'true'")
    for _ in range(300):
        if between(page.picture(), snapshot(shared.url, "view=fused")) < 8:
            break
        time.sleep(0.1)
    page.js("""
        window.darkest = 255;
        const canvas = document.getElementById("picture"), small = document.createElement("canvas");
        [small.width, small.height] = [8, 6];
        const look = () => {
          const at = small.getContext("2d", { willReadFrequently: true });
          at.drawImage(canvas, 0, 0, 8, 6);
          const seen = at.getImageData(0, 0, 8, 6).data.filter((_, k) => k % 4 < 3);
          window.darkest = Math.min(window.darkest, Math.max(...seen));
          requestAnimationFrame(look);
        };
        look();""")
    page.js("document.querySelector('[data-mix=\"2\"]').click()")
    assert between(saved_picture(page, chromium), snapshot(shared.url, "view=thermal")) < 40  # black is twice as far
    assert page.js("return window.darkest") > 40
    page.js("localStorage.clear()")


def test_without_webgl_it_is_the_same_picture(chromium, shared):
    url = shared.url
    page = Page(chromium, url + "/?plain").sees()
    page.click("[data-mix='2']")
    page.js("const p = document.getElementById('palette'); p.value = 'iron'; p.dispatchEvent(new Event('change'))")
    near = 255.0
    for _ in range(50):
        near = between(page.picture(), snapshot(url, "view=thermal&palette=iron"))
        if near < 8:
            break
        time.sleep(0.1)
    page.js("localStorage.clear()")
    assert near < 8


def test_a_control_changes_the_picture_and_what_others_see(chromium, shared):
    url = shared.url
    page = Page(chromium, url).sees()
    page.click("[data-mix='2']")
    page.until(
        "document.getElementById('gain-form').checkVisibility() && !document.getElementById('gain-form').disabled"
    )

    def contrast(holds):
        for _ in range(100):
            if holds(deviation := page.picture().mean(2).std()):
                return deviation
            time.sleep(0.1)
        pytest.fail(f"the contrast does not change: {deviation:.1f}")

    page.until("document.querySelector('[data-mix=\"2\"]').getAttribute('aria-pressed') == 'true'")
    plain = contrast(lambda deviation: deviation > 25)
    here = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    Page(chromium, url).says("viewers", "2")
    there = chromium.current_window_handle
    chromium.switch_to.window(here)
    page.slide("max_gain", -4.65)
    contrast(lambda deviation: deviation < 0.5 * plain)
    assert state(url)["controls"]["max_gain"] == 0.01
    chromium.switch_to.window(there)
    page.until("document.querySelector('output[for=max_gain]').value == '0.01 per count'")
    page.click("[data-method='linear']")
    page.until("document.querySelector('[data-method=linear]').getAttribute('aria-pressed') == 'true'")
    chromium.close()
    chromium.switch_to.window(here)
    page.until("document.querySelector('[data-method=linear]').getAttribute('aria-pressed') == 'true'")
    page.js("localStorage.clear()")


def test_the_distance_of_registration_is_moved_where_the_calibration_knows_one(chromium, rig, shared, tmp_path):
    page = Page(chromium, shared.url).sees()
    page.until("document.getElementById('mark-form').checkVisibility()")
    assert not page.js("return document.getElementById('plane-form').checkVisibility()")
    save_calibration(rig_of_scene(SyntheticScene.from_uri(STILL)), tmp_path / "c.yaml")
    url = rig("--calib", str(tmp_path / "c.yaml"), "--fuser", "pyramid").url
    page = Page(chromium, url).sees()
    page.until("document.getElementById('plane-form').checkVisibility()")
    page.until("document.querySelector('output[for=plane_m]').value == '15.0 m'")
    page.slide("plane_m", 1.5)
    page.until("document.querySelector('output[for=plane_m]').value == '4.48 m'")
    end = time.monotonic() + 30
    while state(url)["controls"]["plane_m"] != 4.48:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_numbers_are_rtfuses_own(chromium, shared):
    page = Page(chromium, shared.url).sees()
    shown = """(() => { const t = (id) => document.getElementById(id).textContent;
        const three = (name) => [0, 1, 2].map((k) => Number(t(`${name}-${k}`)));
        const dropped = (row) => [row.dataset.cause, Number(row.lastChild.textContent)];
        return {frames: Number(t('frames').replaceAll(' ', '')), age_ms: three('age'), skew_ms: three('skew'),
                drops: Object.fromEntries([...document.querySelectorAll('#drops li')].map(dropped)),
                rig: t('name'), ir: t('lamp-ir').trim(), size: t('size'), fuser: t('fuser')}; })()"""
    with StatisticsSubscriber(shared.endpoint) as stream:
        before = next(s for s in stream if s.frames > 60)
        page.until(f"{shown}.frames > arguments[0]", before.frames)
        found = page.js(f"return {shown}")
        after = next(s for s in stream if s.frames >= found["frames"])
    assert before.frames < found["frames"] <= after.frames
    assert before.drops["ir.dropped"] <= found["drops"]["ir.dropped"] <= after.drops["ir.dropped"]
    with ThreadPoolExecutor(1) as pool:
        counted = pool.submit(lambda: {now["frames"]: now for now in (state(shared.url) for _ in range(150))})
        read = []
        while not counted.done():
            read.append(page.js(f"return {shown}"))
    same = [(now, counted.result()[now["frames"]]) for now in read if now["frames"] in counted.result()]
    assert same
    for on_page, true in same:
        for name in ("age_ms", "skew_ms"):
            assert on_page[name] == pytest.approx(true[name], abs=0.051), name
    assert abs(float(re.fullmatch(r"Thermal: live, ([\d.]+) Hz", found["ir"])[1]) - after.streams["ir"].rate_hz) < 1
    assert (found["rig"], found["size"], found["fuser"]) == ("mast-7", "640 × 480", "pyramid")


@pytest.mark.slow
def test_a_lost_camera_is_said_in_words(chromium, rig):
    camera = rig()  # its picture is the other one's thermal camera
    watched = rig(ir=f"{camera.url}/stream.mjpg?view=thermal")
    page = Page(chromium, watched.url).sees()
    page.says("lamp-ir", "Thermal: live")
    camera.signal(signal.SIGSTOP)
    page.says("lamp-ir", "Thermal: no frame for")
    page.says("notice", "Thermal: no frame for")
    page.says("notice", "This is RGB alone.")
    page.click("[data-mix='2']")
    page.says("notice", "There is no thermal picture.")
    page.js("localStorage.clear()")
    assert "RGB: live" in page.text("lamp-rgb")
    camera.signal(signal.SIGCONT)
    page.says("lamp-ir", "Thermal: live")
    page.until("document.getElementById('notice').hidden")
    camera.signal(signal.SIGKILL)
    page.says("lamp-ir", "Thermal: lost for")


def test_boxes_are_drawn_and_go_with_the_detector(chromium, shared):
    over = threading.Event()
    box = Box(x=160, y=120, width=320, height=240, label="person", score=0.9)
    about = {"session": "d", "detector": "test", "frame_session": "f", "frame_width": 640, "frame_height": 480}

    def detect(publisher):
        for k in range(10_000):
            if over.wait(0.1):
                return
            said = Detections(
                **about, rig="mast-7", seq=k, frame_seq=k, rgb_t_ns=0, published_ns=0, spent_ms=1, boxes=[box]
            )
            publisher.send(encode_detections("boxes", said))

    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.bind(shared.boxes)
        detector = threading.Thread(target=detect, args=(publisher,))
        detector.start()
        try:
            page = Page(chromium, shared.url).sees()
            page.until("document.getElementById('osd-boxes-row').checkVisibility()")
            assert page.text("osd-boxes") == "1"
            for _ in range(100):
                drawn = page.picture("marks", (640, 480))[..., 3] > 100
                if drawn.any():
                    break
                time.sleep(0.05)
            assert drawn[:, 150:170].sum(0).max() > 200, "the left edge"
            assert drawn[:, 470:490].sum(0).max() > 200, "the right edge"
            assert not drawn[200:300, 200:440].any(), "nothing inside"
        finally:
            over.set()
            detector.join()
    page.until("!document.getElementById('osd-boxes-row').checkVisibility()")
    for _ in range(100):
        if not (page.picture("marks", (640, 480))[..., 3] > 20).any():
            return
        time.sleep(0.1)
    pytest.fail("old boxes stay")


@pytest.mark.slow
def test_the_page_comes_back_when_the_rig_does(chromium, rig):
    first = rig()
    page = Page(chromium, first.url).sees()
    page.says("link", "Connected")
    first.signal(signal.SIGINT)
    page.says("notice", "No connection to the rig: it was stopped. Trying again.")
    page.until("document.getElementById('osd-age').textContent == '–'")
    first.end(20)
    rig("rig=second", web=first.url.removeprefix("http://"))
    page.says("link", "Connected")
    page.says("name", "second")
    page.until("document.getElementById('notice').hidden")


def test_the_token_in_the_printed_address_logs_in(chromium, rig):
    process = rig("web.token='a token of a test'")
    printed = process.wait_for("log in at").partition("log in at ")[2] + "#a%20token%20of%20a%20test"
    page = Page(chromium, process.url)
    page.until("location.pathname == '/login'")
    Page(chromium, process.url + "/login#not-the-token").until(
        "document.querySelector('.alarm').textContent.includes('not the token')"
    )
    chromium.get("about:blank")
    page = Page(chromium, printed).sees()
    assert page.js("return location.href") == process.url + "/"
    assert page.js("return document.cookie") == ""
    assert "a token of a test" not in process.output.replace("web.token='a token of a test'", "")


@pytest.mark.parametrize("size_wh", [PHONE, (740, 360), DESK])
def test_it_fits(chromium, shared, size_wh):
    page = Page(chromium, shared.url, size_wh).sees()
    wide, high = page.js("return [document.documentElement.scrollWidth, document.getElementById('view').clientHeight]")
    assert wide <= size_wh[0]
    assert high > 0.4 * min(size_wh)
    small = page.js(
        "return [...document.querySelectorAll('button, select, input')].filter((e) => e.checkVisibility())"
        ".filter((e) => e.type != 'checkbox' && e.getBoundingClientRect().height < 30).map((e) => e.id)"
    )
    assert not small
    unnamed = "return [...document.querySelectorAll('button, select, input')].filter((e) => e.checkVisibility()"
    unnamed += " && !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map((e) => e.outerHTML)"
    assert not page.js(unnamed)
    page.js("document.getElementById('fill').click()")
    page.until("document.getElementById('view').clientWidth == innerWidth")
    page.until("!document.querySelector('.rail').checkVisibility()")


@pytest.mark.parametrize("size_wh", [(360, 270), (800, 600), (1600, 1200)])
def test_labels_cover_neither_each_other_nor_the_pages_own_words(chromium, shared, size_wh):
    """Forty boxes in a crowd, two spots and three panes: every label that is written stands alone."""
    Page(chromium, shared.url, DESK)
    found = chromium.execute_async_script(
        """
        const [[w, h], done] = arguments;
        import("/static/marks.js").then(({ drawMarks }) => {
          const canvas = Object.assign(document.createElement("canvas"), { width: w, height: h });
          const context = canvas.getContext("2d"), written = [], fill = context.fillRect.bind(context);
          context.fillRect = (...rectangle) => { written.push(rectangle); fill(...rectangle); };
          const box = (k) => [0.3 + 0.01 * k, 0.4 + 0.003 * k, 0.05, 0.2, "person", 0.9 - k / 100];
          const boxes = Array.from({ length: 40 }, (_, k) => box(k));
          const spots = [{ x: 300, y: 240, k: 300 }, { x: 310, y: 245, k: 280 }];
          const header = { size: [640, 480], boxes: [{ age_ms: 0, boxes }], spots };
          const osd = { x: 8, y: h - 40, w: 0.7 * w, h: 30 };
          const panes = [{ mix: 1, x: 0, y: 0, w: w / 2, h }, { mix: 0, x: w / 2, y: 0, w: w / 2, h }];
          drawMarks(canvas, panes, header, { boxes: true, spots: true, scale: 1, since_ms: 0, covered: [osd] });
          done([...written, [osd.x, osd.y, osd.w, osd.h]]);
        });""",
        size_wh,
    )
    assert len(found) > 10
    for k, (x, y, w, h) in enumerate(found):
        assert all(x >= ox + ow or ox >= x + w or y >= oy + oh or oy >= y + h for ox, oy, ow, oh in found[k + 1 :])
