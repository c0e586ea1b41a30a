"""Run the parts of `gpu_check.sh`; a part that fails is reported, and the next one runs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from rich.console import Console

from rtfuse.bench.engines import bench_engines, open_program, table
from rtfuse.bench.stages import machine
from rtfuse.errors import RtfuseError
from rtfuse.fuse import UFUSER_WEIGHTS
from rtfuse.fuse.engines.eager import EagerEngine
from rtfuse.fuse.engines.parity import tolerance
from rtfuse.fuse.inputs import sample

ON_GPU = torch.cuda.is_available()
ENGINES = (
    ["eager:float32", "cuda:float16", "cuda:bfloat16", "tensorrt:float16"]
    if ON_GPU
    else ["eager:float32", "openvino:float32"]
)
console = Console(width=160, highlight=False)


def parity() -> dict[str, Any]:
    """Compare every engine with the program in float64: noise, gradients, black, white and constant pictures."""
    reference = EagerEngine(UFUSER_WEIGHTS, "cuda" if ON_GPU else "cpu", torch.float64)
    h, w = (480, 640) if ON_GPU else (48, 64)  # a size that is measured later, so that it is compiled once
    cases = {"mixed": sample((h, w), (h, w))}
    for name, counts, level in (("black", 0, 0), ("white", 65535, 255), ("constant", 9000, 90)):
        ir = np.full((1, h, w), counts, "<u2").view(np.uint8).reshape(1, h, w, 2)
        cases[name] = replace(cases["mixed"], ir=ir, rgb=np.full_like(cases["mixed"].rgb, level))
    want = {name: reference(inputs).astype(int) for name, inputs in cases.items()}
    found: dict[str, Any] = {}
    for name in ENGINES:
        try:
            engine = _open(name)
            engine.prepare(cases["mixed"])
            errors = {case: np.abs(engine(inputs) - want[case]) for case, inputs in cases.items()}
        except RtfuseError as e:
            found[name] = {"works": False, "why": str(e)}
            continue
        allowed, share = tolerance(engine.precision, chooses=reference.chooses)
        found[name] = {
            "works": all((e > allowed).mean() <= share for e in errors.values()),
            "engine": engine.name,
            "largest": {case: int(e.max()) for case, e in errors.items()},
            "share_beyond": {case: float((e > allowed).mean()) for case, e in errors.items()},
        }
    return found


def speed(working: list[str]) -> list[dict[str, Any]]:
    """Time raw bytes to fused bytes, the engines in turn; compiling takes most of a minute for each size."""
    working = [name for name in working if "bfloat16" not in name]
    sizes = [(640, 480), (1920, 1080 - 1080 % 8), (3840, 2160)] if ON_GPU else [(160, 120)]
    rows = bench_engines(working, sizes, frames=200 if ON_GPU else 3, seconds=15)
    console.print(table(rows, f"raw bytes to fused bytes; {_device()}"))
    return [msgspec.to_builtins(row) for row in rows]


def overlapped(name: str, size_wh: tuple[int, int], frames: int) -> dict[str, Any]:
    """Measure frames per second while the next frame is uploaded during computation."""
    w, h = size_wh
    engine = _open(name)
    inputs = [sample((h, w), (h, w), seed=k) for k in range(2)]
    session = engine.session(inputs[0])
    for k in range(4):
        session(inputs[k % 2])
    start, waiting = time.perf_counter(), []
    for k in range(frames):
        waiting.append(session.submit(inputs[k % 2]))
        if len(waiting) == 2:
            waiting.pop(0)()
    for result in waiting:
        result()
    return {"engine": name, "size": f"{w}x{h}", "frames_per_s": frames / (time.perf_counter() - start)}


def many_rigs(name: str, seconds: float, rigs: int = 30, batch: int = 10, rate_hz: float = 30.0) -> dict[str, Any]:
    """Measure the age of fused frames of many rigs, 640×480 at 30 fps, spread over a period, `batch` at a time."""
    size = (480, 640) if ON_GPU else (48, 64)
    engine, whole = _open(name), sample(size, size, batch)
    engine.prepare(whole)
    engine(whole)
    period, ages, late = 1 / rate_hz, [], 0
    start = time.perf_counter() + 0.05
    for tick in range(round(seconds / period) * rigs // batch):
        arrived = [start + (tick * batch + k) * period / rigs for k in range(batch)]
        wait = arrived[-1] - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        else:
            late += wait < -period
        engine(whole)
        done = time.perf_counter()
        ages += [1000 * (done - t) for t in arrived]
    p50, p95, p99 = (float(x) for x in np.percentile(ages, [50, 95, 99]))
    return {"engine": name, "rigs": rigs, "rate_hz": rate_hz, "age_ms": [p50, p95, p99], "behind": late}


def training() -> dict[str, Any]:
    """Run `trainer bench`: the time of a step and of the whole recipe."""
    whole = Path("data/pairs").is_dir() and ON_GPU
    config = "configs/train_gpu.yaml" if whole else "configs/train_quick.yaml"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench.json"
        command = [sys.executable, "-m", "trainer", "bench", "--config", config, "--json", str(out), "--steps", "5"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "trainer bench failed")
        console.print(done.stdout)
        report: dict[str, Any] = json.loads(out.read_text())
        return report


def _open(name: str) -> Any:
    return open_program(name, None)


def _device() -> str:
    return torch.cuda.get_device_name() if ON_GPU else machine()


def main() -> int:
    """Run everything and print the summary last."""
    arguments = [a for a in sys.argv[1:] if a != "--on-processor"]
    if not ON_GPU and "--on-processor" not in sys.argv:
        console.print(f"no CUDA GPU, or torch {torch.__version__} has no CUDA; --on-processor makes a small run")
        return 2
    out, began = Path(arguments[0] if arguments else "gpu_check.json"), time.perf_counter()
    report: dict[str, Any] = {"device": _device(), "torch": torch.__version__, "cuda": torch.version.cuda}

    def part(name: str, job: Callable[[], Any]) -> None:
        console.rule(name)
        start = time.perf_counter()
        try:
            report[name] = job()
        except Exception as e:  # noqa: BLE001 - run the other parts
            report[name] = {"failed": f"{type(e).__name__}: {e}"}
        report.setdefault("seconds", {})[name] = round(time.perf_counter() - start, 1)
        out.write_text(json.dumps(report, indent=1))

    part("parity", parity)
    works = [n for n, r in report["parity"].items() if isinstance(r, dict) and r.get("works")] or ["eager:float32"]
    part("speed", lambda: speed(works))
    best = next((n for n in ("tensorrt:float16", "cuda:float16") if n in works), None)
    if best:
        part("overlapped 640x480", lambda: overlapped(best, (640, 480), 1000))
        part("overlapped 3840x2160", lambda: overlapped(best, (3840, 2160), 200))
    part("rigs", lambda: many_rigs(best or works[-1], 4.0 if ON_GPU else 0.5))
    part("training", training)
    console.rule(f"summary, {time.perf_counter() - began:.0f} s, {out}")
    _summary(report)
    return 0 if all("failed" not in r for r in report.values() if isinstance(r, dict)) else 1


def _summary(report: dict[str, Any]) -> None:
    console.print(f"{report['device']}, torch {report['torch']}")
    for name, row in report.get("parity", {}).items():
        why = row.get("why") or f"largest difference {max(row['largest'].values())}"
        console.print(f"  {'ok  ' if row['works'] else 'FAIL'} {name}: {why}", markup=False)
    for row in report["speed"] if isinstance(report.get("speed"), list) else []:
        size = "x".join(map(str, row["size_wh"]))
        console.print(f"  {size} {row['engine']}: p50 {row['ms'][0]:.2f} ms, {row['frames_per_s']:.0f} frames/s")
    for name, row in report.items():
        if name.startswith("overlapped") and "frames_per_s" in row:
            console.print(f"  {name}, {row['engine']}: {row['frames_per_s']:.0f} frames/s")
    if "age_ms" in report.get("rigs", {}):
        rigs = report["rigs"]
        ages = " / ".join(f"{x:.1f}" for x in rigs["age_ms"])
        console.print(f"  {rigs['rigs']} rigs at {rigs['rate_hz']:.0f} fps: age p50 / p95 / p99 {ages} ms")
    if "total_s" in report.get("training", {}):
        name, total_s = report["training"]["recipe"], report["training"]["total_s"]
        console.print(f"  {name}: {total_s / 60:.1f} minutes in total")
    for name, row in report.items():
        if isinstance(row, dict) and "failed" in row:
            console.print(f"  FAIL {name}: {row['failed']}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
