"""A stage that hangs is found and named, the process ends as a service manager can tell; and logs stay readable."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from rtfuse.observe.logs import JsonFormatter, RateLimit, TextFormatter, event
from rtfuse.observe.watchdog import EXIT_HUNG, Supervisor


def test_a_stage_that_hangs_is_reported_with_its_stack(caplog):
    release, found = threading.Event(), threading.Event()
    supervisor = Supervisor(limit_s=0.2, every_s=0.02, hung=lambda watchdog: found.set())
    watchdog = supervisor.watchdog("fuse")

    def stuck_in_a_driver():
        with watchdog.busy():
            release.wait(10)

    thread = threading.Thread(target=stuck_in_a_driver)
    thread.start()
    with caplog.at_level(logging.ERROR, "rtfuse"), supervisor:
        assert found.wait(10)
    release.set()
    thread.join()
    fields = caplog.records[-1].rtfuse_fields
    assert fields["event"] == "hung"
    assert fields["stage"] == "fuse"
    assert "stuck_in_a_driver" in fields["stack"]


def test_waiting_for_work_is_not_hanging():
    found = threading.Event()
    supervisor = Supervisor(limit_s=0.05, every_s=0.01, hung=lambda watchdog: found.set())
    watchdog = supervisor.watchdog("sink")
    with supervisor:
        for _ in range(40):
            with watchdog.busy():
                pass
            time.sleep(0.01)
    assert not found.is_set()


def test_patience_is_added_to_the_limit():
    assert Supervisor(limit_s=3).watchdog("capture", patience_s=5).limit_s == 8


def test_the_process_ends_with_a_status_of_its_own():
    program = """
import time
from rtfuse.observe.watchdog import Supervisor
supervisor = Supervisor(limit_s=0.2, every_s=0.05)
with supervisor, supervisor.watchdog("capture-ir").busy():
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_HUNG
    assert "capture-ir has been busy with one thing" in done.stderr


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """A socket that systemd would listen on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        s.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "60000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        yield s


def test_systemd_hears_that_all_is_well(systemd):
    with Supervisor(every_s=5, status=lambda: "frames=7"):
        assert systemd.recv(200) == b"READY=1"
        assert systemd.recv(200) == b"WATCHDOG=1\nSTATUS=frames=7"
        assert systemd.recv(200).startswith(b"WATCHDOG=1")
    systemd.settimeout(1)
    while (said := systemd.recv(200)) != b"STOPPING=1":
        assert said.startswith(b"WATCHDOG=1")


def test_systemd_hears_nothing_more_once_a_stage_hangs(systemd):
    found = threading.Event()
    supervisor = Supervisor(limit_s=0.1, hung=lambda watchdog: found.set())
    with supervisor, supervisor.watchdog("fuse").busy():
        assert found.wait(5)
        systemd.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while systemd.recv(200):
                pass
        time.sleep(0.1)
        with pytest.raises(BlockingIOError):
            systemd.recv(200)


def test_a_watchdog_meant_for_another_process_is_left_alone(monkeypatch, systemd):
    monkeypatch.setenv("WATCHDOG_PID", "1")
    with Supervisor(every_s=0.02):
        assert systemd.recv(200) == b"READY=1"


@pytest.fixture
def log():
    log = logging.getLogger("rtfuse.test")
    log.setLevel(logging.INFO)
    log.propagate = False
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(handler.format(record))
    log.addHandler(handler)
    yield log, handler, lines
    log.removeHandler(handler)


def test_many_events_of_one_kind_become_few_lines_and_a_count(log):
    log, handler, lines = log
    handler.addFilter(RateLimit(count=3, per_s=0.2))
    handler.setFormatter(TextFormatter())
    for k in range(100):
        event(log, logging.WARNING, "lost", f"thermal: gone {k}", stream="ir")
        event(log, logging.WARNING, "lost", f"RGB: gone {k}", stream="rgb")
    assert lines[:2] == ["thermal: gone 0  stream=ir", "RGB: gone 0  stream=rgb"]
    assert len(lines) == 6
    time.sleep(0.25)
    event(log, logging.WARNING, "lost", "thermal: gone", stream="ir")
    assert lines[-1] == "thermal: gone  stream=ir suppressed=97"
    for _ in range(5):
        log.info("plain lines pass")
    assert lines[-5:] == ["plain lines pass"] * 5


def test_json_lines_are_json(log):
    log, handler, lines = log
    handler.setFormatter(JsonFormatter())
    event(log, logging.WARNING, "lost", 'thermal: "gone"\nfor good', stream="ir", rate_hz=29.97)
    log.warning("plain %s", "words")
    first, second = map(json.loads, lines)
    assert first["event"] == "lost"
    assert first["stream"] == "ir"
    assert first["level"] == "warning"
    assert first["rate_hz"] == 29.97
    assert first["message"] == 'thermal: "gone"\nfor good'
    assert second["message"] == "plain words"
    assert first["time"].endswith("+00:00")


def test_text_keeps_an_event_on_one_line_but_a_stack_on_its_own(log):
    log, handler, lines = log
    handler.setFormatter(TextFormatter())
    event(log, logging.ERROR, "hung", "fuse\nhangs", stage="fuse", why="no idea", stack="File a\n  b\n")
    assert lines == ['fuse hangs  stage=fuse why="no idea"\nFile a\n  b']
