"""What viewers of the page cost the rig: `rtfuse run` on the live synthetic street, watched by 0, 1, 4 and 8.

Viewers take every frame as fast as they can and decode nothing: what is measured is the rig. Prints, for each number of
viewers, the published rate and ages of the rig, the processor time of its process, and what the viewers get.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time

import aiohttp
import numpy as np


async def watch(url: str, planes: list[str], quality: str, until: float) -> list[tuple[float, float, int]]:
    """Take frames until then; returns age when sent (ms), time to arrive and be acknowledged (ms) and bytes of each."""
    got = []
    async with aiohttp.ClientSession() as session, session.ws_connect(url + "/live", max_msg_size=0) as socket:
        await socket.send_str(json.dumps({"want": {"planes": planes, "quality": quality}}))
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                (length,) = struct.unpack_from("<I", message.data)
                header = json.loads(message.data[4 : 4 + length])
                await socket.send_str(json.dumps({"ack": header["seq"]}))
                got.append((header["age_ms"], header["trip_ms"] or np.nan, len(message.data)))
            if time.monotonic() > until:
                break
    return got


async def measured(url: str, pid: int, viewers: int, planes: list[str], quality: str, seconds: float) -> str:
    """Let so many watch for a while; returns a line of the table."""
    until, spent = time.monotonic() + seconds, _spent_s(pid)
    frames = await asyncio.gather(*(watch(url, planes, quality, until) for _ in range(viewers)))
    await asyncio.sleep(max(0.0, until - time.monotonic()))
    spent = (_spent_s(pid) - spent) / seconds
    async with aiohttp.ClientSession() as session, session.get(url + "/state") as answer:
        state = await answer.json()
    ages = " / ".join(f"{n:.1f}" for n in state["age_ms"])
    line = f"| {viewers} | {state['pair_rate_hz']:.1f} | {ages} | {100 * spent:.0f} % |"
    if not viewers:
        return line + " | | |"
    every = np.array([frame for one in frames for frame in one])
    p50, p95 = np.nanpercentile(every[:, :2], 50, axis=0), np.nanpercentile(every[:, :2], 95, axis=0)
    rate = len(every) / viewers / seconds
    sent = every[:, 2].sum() / viewers / seconds / 1e6 * 8
    return line + f" {rate:.1f} | {p50[0]:.1f} / {p95[0]:.1f} | {p50[1]:.1f} / {p95[1]:.1f}, {sent:.1f} Mbit/s |"


def _spent_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", default="640x480")
    options.add_argument("--planes", default="fused", help="fused, ir, rgb; several: fused,ir")
    options.add_argument("--quality", default="medium", choices=["low", "medium", "high"])
    options.add_argument("--viewers", default="0,1,4,8")
    options.add_argument("--seconds", type=float, default=10.0)
    asked = options.parse_args()
    scene = f"synthetic:?live=1&size={asked.size}"
    print("| viewers | frames/s | age p50 / p95 / p99, ms | rig's processor | each gets | age when sent | round trip |")
    print("|---|---|---|---|---|---|---|")
    for viewers in map(int, asked.viewers.split(",")):
        command = ["run", "--ir", scene, "--rgb", scene, "--fuser", "pyramid", "--web", "127.0.0.1:0"]
        rig = subprocess.Popen(
            [sys.executable, "-m", "rtfuse", *command, f"web.viewers={max(viewers, 1)}", "publish.endpoint=null"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert rig.stdout is not None
        try:
            url = next(found[0] for line in rig.stdout if (found := re.search(r"http://\S+", line)))
            time.sleep(2)
            work = measured(url, rig.pid, viewers, asked.planes.split(","), asked.quality, asked.seconds)
            print(asyncio.run(work), flush=True)
        finally:
            rig.send_signal(signal.SIGINT)
            rig.communicate(timeout=20)


if __name__ == "__main__":
    main()
