"""Host names: one that has an IPv6 address alone is bound and reached, one that has both goes by IPv4."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys

import pytest
from live import free_port

from rtfuse.errors import ConfigError
from rtfuse.wire.addresses import bindable, check_reach, wants_ipv6

KNOWN = {"six": ["fd00::6"], "both": ["fd00::7", "10.0.0.7"], "four": ["10.0.0.4"], "me": ["::1"]}


def resolve(host, _port, **_):
    try:
        found = KNOWN.get(host) or [socket.inet_ntoa(socket.inet_aton(host))]
    except OSError as e:
        raise socket.gaierror(-2, "Name or service not known") from e
    kind = {True: socket.AF_INET6, False: socket.AF_INET}
    return [(kind[":" in address], socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]


@pytest.mark.parametrize(
    ("endpoint", "six", "bound"),
    [
        ("tcp://six:5555", True, "tcp://[fd00::6]:5555"),
        ("tcp://six:*", True, "tcp://[fd00::6]:*"),
        ("tcp://both:5555", False, "tcp://10.0.0.7:5555"),
        ("tcp://four:5555", False, "tcp://10.0.0.4:5555"),
        ("tcp://10.0.0.9:5555", False, "tcp://10.0.0.9:5555"),
        ("tcp://[fd00::6]:5555", True, "tcp://[fd00::6]:5555"),
        ("tcp://unknown:5555", False, "tcp://unknown:5555"),
        ("tcp://*:5555", False, "tcp://*:5555"),
        ("tcp://lo:5555", False, "tcp://lo:5555"),
        ("ipc:///tmp/six", False, "ipc:///tmp/six"),
    ],
)
def test_the_family_follows_the_addresses_of_the_name(endpoint, six, bound):
    assert wants_ipv6(endpoint, resolve) is six
    assert bindable(endpoint, resolve) == bound


def test_a_name_of_another_machine_needs_encryption_and_localhost_does_not():
    check_reach("tcp://localhost:5555", "bind", encrypted=False, allow_remote=False)
    with pytest.raises(ConfigError, match="reaches beyond this machine"):
        check_reach("tcp://unknown.invalid:5555", "bind", encrypted=False, allow_remote=False)


HOSTS = "127.0.0.1 localhost\n::1 six.test\n"
INSIDE = """
import sys, threading, urllib.request
from live import fused, publishing
from rtfuse import Subscriber
from rtfuse.publish.planes import Offer
from rtfuse.publish.proxy import Proxy, ProxyConfig, RigLink
from rtfuse.publish.publisher import Publisher
rig, room = (f"tcp://six.test:{port}" for port in sys.argv[1:])
stop = threading.Event()
with publishing(Publisher([Offer(rig)]), fused(3)) as publisher:
    print(publisher.endpoint)
    with Subscriber(rig) as direct:
        print(direct.recv(10) is not None)
    proxy = Proxy(ProxyConfig(rigs={"a": RigLink(endpoint=rig)}, bind=room))
    thread = threading.Thread(target=proxy.run, args=(stop,))
    thread.start()
    with Subscriber(room) as joined:
        print(joined.recv(10) is not None)
    stop.set()
    thread.join()
    proxy.close()
"""


def test_publisher_subscriber_and_proxy_reach_a_name_with_ipv6_alone(tmp_path):
    (tmp_path / "hosts").write_text(HOSTS)
    inside = f"mount --bind {tmp_path}/hosts /etc/hosts && exec "
    unshare = ["unshare", "-m", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*unshare, inside + "true"], capture_output=True).returncode:
        pytest.skip("needs the right to give a process hosts of its own")
    ports = free_port(), free_port()
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*unshare, inside + '"$@"', "sh", sys.executable, "-c", INSIDE, *map(str, ports)]
    ran = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    assert ran.stdout.split() == [f"tcp://[::1]:{ports[0]}", "True", "True"], ran.stderr
