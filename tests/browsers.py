"""Real browsers, headless, each with an empty profile and driven in the same few words."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import time
from contextlib import suppress

import pytest

CALM = (
    "headless disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync"
)
QUIET = {
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "remote.prefs.recommended": True,
    "toolkit.telemetry.enabled": False,
}


def missing(what, packages):
    """Skip, or fail where RTFUSE_REQUIRE_BROWSER is set."""
    if os.environ.get("RTFUSE_REQUIRE_BROWSER"):
        pytest.fail(f"RTFUSE_REQUIRE_BROWSER is set, but there is no {what}")
    pytest.skip(f"needs {what} (Debian: {packages})")


def chromium(folder, **preferences):
    """Return selenium's driver of a headless Chromium with an empty profile in `folder`."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        missing("Chromium with chromedriver", "chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in CALM.split() + (["no-sandbox"] if os.geteuid() == 0 else []):
        options.add_argument(f"--{flag}")
    options.add_argument("--disable-dev-shm-usage")
    options.add_argument(f"--user-data-dir={folder / 'chromium'}")
    options.add_experimental_option("prefs", preferences)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.set_page_load_timeout(60)
    return opened


class Browser:
    """A tab. `get` opens an address, `js` evaluates an expression of plain values, `png` is what is seen."""

    def until(self, expression, timeout_s=40):
        """Wait until the expression is true, and return it; it may fail while a page is on its way."""
        end = time.monotonic() + timeout_s
        while True:
            with suppress(RuntimeError):
                if found := self.js(expression):
                    return found
            assert time.monotonic() < end, f"{expression} is never so; {self.js('document.body.innerText')}"
            time.sleep(0.1)


class Chromium(Browser):
    """Chromium by chromedriver."""

    def __init__(self, folder):
        self._driver = chromium(folder)
        self._driver.set_window_size(1000, 700)

    def get(self, url):
        self._driver.get(url)

    def js(self, expression):
        from selenium.common.exceptions import WebDriverException

        try:
            return self._driver.execute_script(f"return {expression}")
        except WebDriverException as e:
            raise RuntimeError(e.msg) from e

    def png(self):
        return self._driver.get_screenshot_as_png()

    def close(self):
        self._driver.quit()


class Firefox(Browser):
    """Firefox by WebDriver BiDi, which needs no driver: JSON over a WebSocket of its own."""

    def __init__(self, folder):
        import websocket

        program = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
        if program is None:
            missing("Firefox", "firefox-esr")
        profile = folder / "firefox"
        profile.mkdir()
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in QUIET.items()]
        (profile / "user.js").write_text("".join(lines))
        said = folder / "firefox.log"
        asked = [program, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"]
        with said.open("wb") as log:
            env = os.environ | {"HOME": str(folder), "MOZ_HEADLESS_WIDTH": "1000", "MOZ_HEADLESS_HEIGHT": "700"}
            self._process = subprocess.Popen(asked, stdout=log, stderr=log, env=env)
        end = time.monotonic() + 60
        while not (found := re.search(r"BiDi listening on (ws://\S+)", said.read_text(errors="replace"))):
            alive = time.monotonic() < end and self._process.poll() is None
            assert alive, said.read_text(errors="replace")
            time.sleep(0.1)
        self._socket = websocket.create_connection(f"{found[1]}/session", suppress_origin=True, timeout=60)
        self._asked = 0
        self._ask("session.new", capabilities={})
        self._context = self._ask("browsingContext.getTree")["contexts"][0]["context"]

    def _ask(self, method, **params):
        self._asked += 1
        self._socket.send(json.dumps({"id": self._asked, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._asked:
                break
        if answer["type"] == "error":
            raise RuntimeError(f"{method}: {answer['message']}")
        return answer["result"]

    def get(self, url):
        self._ask("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def js(self, expression):
        whole = f"JSON.stringify({{value: ({expression})}})"
        answer = self._ask("script.evaluate", expression=whole, target={"context": self._context}, awaitPromise=True)
        if answer["type"] != "success":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"]).get("value")

    def png(self):
        return base64.b64decode(self._ask("browsingContext.captureScreenshot", context=self._context)["data"])

    def close(self):
        with suppress(OSError):
            self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
