"""End connections to machines that are gone."""

from __future__ import annotations

from typing import Any

import zmq


def keep_alive(socket: zmq.Socket[Any]) -> None:
    """Make the kernel end a connection five seconds after its machine is gone. Call it before bind or connect.

    Not ZeroMQ's heartbeats: a peer that makes us stop reading and then resets its connection would end this process
    with them (libzmq 4.3.5 sends the next one on the dead connection, and asserts that it would not).
    """
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 2)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
    socket.setsockopt(zmq.TCP_MAXRT, 5000)
