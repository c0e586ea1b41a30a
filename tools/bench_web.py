"""Measure the cost of the page's viewers: `rtfuse run` on the live synthetic street, with 0, 1, 4 and 8 of them.

Viewers take every frame as fast as they can and decode none, so the figures are the rig's. Prints, for each number of
viewers, the published rate and ages of the rig, the processor time of its process, and the viewers' rate and delay.

    python tools/bench_web.py
    python tools/bench_web.py --churn 120    # viewers that come and go at random, and one that stays

With `--churn`, quiet and crowded phases take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import numpy as np


async def watch(url: str, planes: list[str], quality: str, until: float) -> list[tuple[float, float, int]]:
    """Take frames until a time; return age when sent (ms), round trip (ms) and bytes of each."""
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
    """Run a number of viewers for a time; return a line of the table."""
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


async def churned(url: str, pid: int, planes: list[str], quality: str, seconds: float) -> list[str]:
    """Watch with and without a crowd, in turn; return lines about the ages and the rig's memory and descriptors."""
    ages: dict[str, list[float]] = {"quiet": [], "crowded": []}
    visits, held, phase_s = 0, [_held(pid)], min(10.0, seconds / 4)
    for phase in range(2 * round(seconds / phase_s / 2)):
        until, crowded = time.monotonic() + phase_s, phase % 2 == 1
        crowd = [visitor(url, planes, until, random.Random(100 * phase + k)) for k in range(7 if crowded else 0)]
        frames, *came = await asyncio.gather(watch(url, planes, quality, until), *crowd)
        ages["crowded" if crowded else "quiet"] += [age for age, _, _ in frames]
        visits += sum(came)
        held.append(_held(pid))
    p99 = {name: float(np.percentile(values, 99)) for name, values in ages.items()}
    return [
        f"{visits} viewers came and went, up to 7 at once; one stayed",
        *(
            f"  {name}: {len(values)} frames, age when sent "
            + " / ".join(f"{n:.1f}" for n in np.percentile(values, [50, 95, 99]))
            + " ms"
            for name, values in ages.items()
        ),
        f"  p99 crowded to quiet: {p99['crowded'] / p99['quiet']:.2f}",
        *(f"  {name}: " + " ".join(f"{h[name]:.0f}" for h in held) for name in held[0]),
    ]


async def visitor(url: str, planes: list[str], until: float, rng: random.Random) -> int:
    """Connect, read a few frames or none, and leave, some without closing, repeatedly; return how often."""
    times = 0
    while time.monotonic() < until:
        async with aiohttp.ClientSession() as session:
            socket = await session.ws_connect(url + "/live", max_msg_size=0)
            await socket.send_str(json.dumps({"want": {"planes": planes, "quality": rng.choice(["low", "high"])}}))
            for _ in range(rng.choice([0, 1, 5, 30])):
                try:
                    message = await asyncio.wait_for(socket.receive(), 0.5)
                except TimeoutError:  # no more frames, as it did not acknowledge the last one
                    break
                if message.type is aiohttp.WSMsgType.BINARY and rng.random() < 0.9:
                    (length,) = struct.unpack_from("<I", message.data)
                    await socket.send_str(json.dumps({"ack": json.loads(message.data[4 : 4 + length])["seq"]}))
                if message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR) or time.monotonic() > until:
                    break
            if rng.random() < 0.5:
                await socket.close()
        times += 1
        await asyncio.sleep(rng.uniform(0, 0.2))
    return times


def _held(pid: int) -> dict[str, float]:
    """Return the resident memory in MB, descriptors and threads of a process."""
    with open(f"/proc/{pid}/status") as f:
        status = dict(line.split(":", 1) for line in f)
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return {"MB": int(status["VmRSS"].split()[0]) / 1024, "descriptors": files, "threads": int(status["Threads"])}


def _spent_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", default="640x480")
    options.add_argument("--planes", default="fused", help="fused, ir, rgb; several: fused,ir")
    options.add_argument("--quality", default="medium", choices=["low", "medium", "high"])
    options.add_argument("--viewers", default="0,1,4,8")
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--churn", type=float, metavar="SECONDS", help="viewers that come and go, for so long")
    asked = options.parse_args()
    scene, planes = f"synthetic:?live=1&size={asked.size}", asked.planes.split(",")
    if asked.churn:
        with rig(scene, 8) as (url, pid):
            print("\n".join(asyncio.run(churned(url, pid, planes, asked.quality, asked.churn))))
        return
    print("| viewers | frames/s | age p50 / p95 / p99, ms | rig's processor | each gets | age when sent | round trip |")
    print("|---|---|---|---|---|---|---|")
    for viewers in map(int, asked.viewers.split(",")):
        with rig(scene, max(viewers, 1)) as (url, pid):
            print(asyncio.run(measured(url, pid, viewers, planes, asked.quality, asked.seconds)), flush=True)


@contextmanager
def rig(scene: str, viewers: int) -> Iterator[tuple[str, int]]:
    """Run a rig for a number of viewers; yield the address of its page and its process id."""
    command = ["run", "--ir", scene, "--rgb", scene, "--fuser", "pyramid", "--web", "127.0.0.1:0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rtfuse", *command, f"web.viewers={viewers}", "publish.endpoint=null"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        url = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))
        time.sleep(2)
        yield url, process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


if __name__ == "__main__":
    main()
