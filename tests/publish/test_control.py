"""Programs change settings of a running rig over ZeroMQ; what is wrong is answered and changes nothing."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import zmq

from rtfuse.client import Control
from rtfuse.errors import ConfigError, EndpointUnavailable, SourceLost
from rtfuse.pipeline.controls import Controls
from rtfuse.publish.control import ControlEndpoint
from rtfuse.thermal.agc import Agc
from rtfuse.wire.keys import new_client, new_rig


class Plane:
    """A distance of registration that notes what it is asked for."""

    target_m = 15.0

    def move(self, plane_m):
        if plane_m is not None and plane_m < 0.02:
            raise ValueError("plane_m: want 0.02 m or more")
        self.target_m = plane_m or 15.0


@pytest.fixture
def rig():
    return SimpleNamespace(agc=Agc(), mark=False, plane=Plane())


def serving(rig, endpoint="tcp://127.0.0.1:*", **options):
    controls = Controls(rig)
    return ControlEndpoint(endpoint, controls.change, controls.now, **options)


def test_a_change_is_carried_out_and_answered_with_all_settings(rig):
    with serving(rig) as server, Control(server.name) as control:
        assert control.change()["plane_m"] == 15
        now = control.change(plane_m=4.5, mark=True, max_gain=0.5)
    assert (now["plane_m"], now["mark"], now["max_gain"]) == (4.5, True, 0.5)
    assert (rig.plane.target_m, rig.mark, rig.agc.settings.max_gain) == (4.5, True, 0.5)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [({"plane": 3}, "plane"), ({"plane_m": 0.001}, "0.02 m"), ({"mark": True, "plane_m": -1}, "plane_m")],
)
def test_a_wrong_change_is_refused_as_a_whole(rig, settings, fault):
    with serving(rig) as server, Control(server.name) as control:
        with pytest.raises(ValueError, match=fault):
            control.change(**settings)
        assert control.change()["mark"] is False
    assert rig.plane.target_m == 15


@pytest.mark.parametrize("request_", [b"", b"\xff", b"[" * 4000, b"7"])
def test_any_bytes_are_answered(rig, request_):
    with serving(rig) as server, zmq.Context() as context, context.socket(zmq.REQ) as asking:
        asking.linger = 0
        asking.connect(server.name)
        asking.send(request_)
        assert asking.poll(5000)
        assert b"error" in asking.recv()
        asking.send(b"{}")
        assert asking.poll(5000)
        assert b"now" in asking.recv()


def test_changes_from_many_programs_are_all_carried_out(rig):
    settings = [{"plateau": 2.0}, {"max_gain": 0.7}, {"tau_ms": 123.0}, {"freeze": True}]

    def ask(name, change):
        with Control(name) as control:
            for _ in range(20):
                control.change(10, **change)

    with serving(rig) as server:
        threads = [threading.Thread(target=ask, args=(server.name, change)) for change in settings]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    agc = rig.agc.settings
    assert (agc.plateau, agc.max_gain, agc.tau_ms, agc.freeze) == (2.0, 0.7, 123.0, True)


def test_with_keys_only_their_clients_are_answered(rig, tmp_path):
    new_rig(tmp_path / "keys")
    new_client(tmp_path / "keys", "drone", tmp_path / "drone.key")
    with serving(rig, keys=str(tmp_path / "keys")) as server:
        with Control(server.name, keys=tmp_path / "drone.key") as control:
            assert control.change(5, plane_m=3)["plane_m"] == 3
        with Control(server.name) as plain, pytest.raises(SourceLost, match="does not answer"):
            plain.change(0.5, plane_m=9)
    assert rig.plane.target_m == 3


def test_addresses_that_cannot_be_used_are_said(rig):
    with pytest.raises(ConfigError, match=r"control\.endpoint: tcp://0\.0\.0\.0:5556 reaches beyond this machine"):
        serving(rig, "tcp://0.0.0.0:5556")
    with pytest.raises(ConfigError, match="is not an endpoint"):
        serving(rig, "http://127.0.0.1:80")
    with serving(rig) as server, pytest.raises(EndpointUnavailable, match="the port is in use"):
        serving(rig, server.name)
