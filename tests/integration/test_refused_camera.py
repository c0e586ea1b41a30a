"""A rig whose camera gets another password: it is left alone, and log, topic and page say why."""

from __future__ import annotations

import base64
import json
import signal
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from rtfuse import StateSubscriber

REASON = "401 Unauthorized: the camera refuses this user and password; next try in 10 s"


class Camera(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(time.monotonic())
        known = "Basic " + base64.b64encode(self.server.password).decode()
        if self.headers.get("Authorization") != known:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace;boundary=frame")
        self.end_headers()
        noise = np.random.default_rng(1).integers(0, 255, (120, 160, 3), np.uint8)
        data = cv2.imencode(".jpg", noise)[1].tobytes()
        try:
            while self.server.password == b"anna:old":
                self.wfile.write(b"--frame\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(data), data))
                time.sleep(0.05)
        except OSError:
            return

    def log_message(self, *_):
        pass


@pytest.mark.timeout(120)
def test_a_changed_password_is_named_everywhere_and_the_camera_left_alone(start, endpoint):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.password, server.asked = b"anna:old", []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"http://anna:old@127.0.0.1:{server.server_port}/stream"
    scene = "synthetic:?size=160x120&live=true"
    run = start("run", "--ir", scene, "--rgb", uri, "--fuser", "pyramid", "--publish", endpoint, "--web", "127.0.0.1:0")
    try:
        page = run.wait_for("answering on").split()[-1]
        with StateSubscriber(endpoint) as states:
            deadline = time.monotonic() + 60
            while (change := states.recv(1)) is None or change.streams["rgb"].state != "live":
                assert time.monotonic() < deadline
            server.password = b"anna:new"
            while REASON not in ((change := states.recv(1) or change).streams["rgb"].why or ""):
                assert time.monotonic() < deadline
        before = len(server.asked)
        with urllib.request.urlopen(f"{page}/state", timeout=10) as answer:
            assert REASON in json.load(answer)["streams"]["rgb"]["why"]
        time.sleep(3)
        assert len(server.asked) == before
    finally:
        run.signal(signal.SIGTERM)
        assert run.end(30) == 0
        server.shutdown()
        server.server_close()
    assert REASON in " ".join(run.output.split())
    assert "anna" not in run.output
