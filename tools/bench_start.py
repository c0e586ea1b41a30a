"""Measure how long `rtfuse run` takes to its first fused frame and how much memory it holds, with an empty home folder.

    python tools/bench_start.py                                        # the synthetic street
    python tools/bench_start.py --runs 10 -- --ir ir.mp4 --rgb rgb.mp4 --fuser student

Options after `--` go to `rtfuse run`. The clock starts before the process and stops when another process has received
the first frame. The resident size is read `--hold` seconds later.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rtfuse

STREET = ["--ir", "synthetic:?live=1", "--rgb", "synthetic:?live=1", "--fuser", "student"]


def main() -> None:
    """Run, measure, and print the median and the largest values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--hold", type=float, default=5.0, help="seconds between the first frame and the resident size")
    parser.add_argument("rest", nargs="*", metavar="-- OPTIONS", help="options of `rtfuse run`")
    asked = parser.parse_args()
    imports = [import_s() for _ in range(asked.runs)]
    starts, sizes = zip(*(start(asked.rest or STREET, asked.hold) for _ in range(asked.runs)), strict=True)
    for what, values, unit in (
        ("import rtfuse", imports, "s"),
        ("first fused frame", starts, "s"),
        ("resident size", sizes, "MB"),
    ):
        print(f"{what:<18} median {statistics.median(values):.2f} {unit}, most {max(values):.2f} {unit}")


def import_s() -> float:
    """Return the seconds that `import rtfuse` takes in a new interpreter."""
    code = "import time; t = time.perf_counter(); import rtfuse; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def start(options: list[str], hold_s: float) -> tuple[float, float]:
    """Run the rig once; return the seconds to its first fused frame, and its resident size in MB."""
    with tempfile.TemporaryDirectory() as home:
        endpoint = f"ipc://{home}/fused"
        env = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith("XDG_")} | {"HOME": home}
        command = [sys.executable, "-m", "rtfuse", "run", *options, "--publish", endpoint]
        with rtfuse.Subscriber(endpoint) as stream:
            began = time.monotonic()
            with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as rig:
                try:
                    received = None
                    while received is None and rig.poll() is None and time.monotonic() < began + 60:
                        received = stream.recv(1)
                    taken = time.monotonic() - began
                    time.sleep(hold_s if received else 0)
                    status = Path(f"/proc/{rig.pid}/status").read_text("ascii") if rig.poll() is None else ""
                finally:
                    rig.terminate()
                    said = rig.communicate()[1].decode()
    resident_kb = next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")), None)
    if received is None or resident_kb is None:
        sys.exit(f"tools/bench_start.py: no frame in 60 s, or the rig ended before --hold {hold_s} s: {said[-500:]}")
    return taken, int(resident_kb) / 1e3


if __name__ == "__main__":
    main()
