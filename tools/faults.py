"""Play camera faults on the real pipeline in real time, and report the output.

    python tools/faults.py                # all faults, as the table of docs/measurements.md
    python tools/faults.py loss-of-rgb    # one of them

Two small live cameras of 30 Hz play scripted faults; the rest is the pipeline of `rtfuse run`. Each picture carries its
capture time, so that every wrong pair, and every old picture shown as new, is found.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from rich.console import Console
from rich.table import Table

from rtfuse.config import Config, Degraded, Fuse, Publish, SourceSettings
from rtfuse.errors import DeviceUnavailable, SourceLost
from rtfuse.observe.stats import Snapshot
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.run import Pipeline
from rtfuse.types import Frame, Fused, Image, Source, SourceInfo, Stamp, Stream

SIZE_WH = (96, 72)
Span = tuple[float, float]
"""From and to, in seconds after the start."""


@dataclass(frozen=True)
class Script:
    """Faults of one camera. Times are seconds after the start."""

    rate_hz: float = 30.0
    slower_from: tuple[float, float] | None = None
    """From then on, this rate."""
    lost: Span | None = None
    """Unplugged and plugged in again."""
    stalled: Span | None = None
    """Open, but silent."""
    frozen: Span | None = None
    """The same picture again and again."""
    renamed: bool = False
    """It comes back under another name."""
    stamps_jump: tuple[float, float] | None = None
    """From then on, its clock is this many seconds off."""
    reordered: bool = False
    """Every tenth frame comes after the next one, and every fifteenth carries its predecessor's time."""
    drop: float = 0.0
    corrupt: float = 0.0


class Bus:
    """Bus of the cameras: their names and scripts."""

    def __init__(self, scripts: dict[Stream, Script]) -> None:
        self.scripts, self.start = scripts, time.monotonic()

    def now_s(self) -> float:
        return time.monotonic() - self.start

    def name(self, stream: Stream) -> str | None:
        """Return the present name of the stream's camera; None while it is unplugged."""
        script, now = self.scripts[stream], self.now_s()
        if script.lost and script.lost[0] <= now < script.lost[1]:
            return None
        moved = script.renamed and script.lost is not None and now >= script.lost[1]
        return f"{stream}-camera-{'b' if moved else 'a'}"

    def open(self, stream: Stream) -> Source:
        """Open the stream's camera under its present name. Raises DeviceUnavailable."""
        name = self.name(stream)
        if name is None:
            raise DeviceUnavailable(f"there is no {stream} camera")
        return ScriptedCamera(self, stream, name)


class ScriptedCamera:
    """Play a live camera: frames with the local clock's times, and the faults of its script."""

    def __init__(self, bus: Bus, stream: Stream, name: str) -> None:
        self._bus, self._stream, self._name, self._script = bus, stream, name, bus.scripts[stream]
        dtype = "uint16" if stream == "ir" else "uint8"
        self.info = SourceInfo(name, stream, SIZE_WH, dtype, live=True, rate_hz=self._script.rate_hz)
        self.losses: Counter[str] = Counter()
        self._rng = np.random.default_rng([stream == "ir", 7])
        self._closing = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        script, kept, held, k = self._script, None, None, 0
        due = self._bus.now_s()
        while not self._closing.wait(max(0.0, due - self._bus.now_s())):
            taken_s, picture_s = due, due
            rate = script.rate_hz
            if script.slower_from and taken_s >= script.slower_from[0]:
                rate = script.slower_from[1]
            due += 1 / rate
            if self._bus.name(self._stream) != self._name:
                raise SourceLost(f"{self._name} was unplugged")
            k += 1
            if script.stalled and script.stalled[0] <= taken_s < script.stalled[1]:
                continue
            if self._rng.random() < script.drop:
                self.losses["driver"] += 1
                continue
            if self._rng.random() < script.corrupt:
                self.losses["corrupt"] += 1
                continue
            if script.frozen and script.frozen[0] <= taken_s < script.frozen[1] and kept is not None:
                image = kept
            else:
                image = kept = self._picture(picture_s)
            frame = self._frame(image.copy(), k, taken_s)
            if script.reordered and k % 10 == 0:
                held = frame
                continue
            if script.reordered and k % 15 == 0:
                frame = self._frame(frame.image, k, taken_s - 1 / rate)
            yield frame
            if held is not None:
                yield held
                held = None

    def _picture(self, t_s: float) -> Image:
        """Return noise with the capture time in its first pixels."""
        shape = (SIZE_WH[1], SIZE_WH[0]) if self._stream == "ir" else (SIZE_WH[1], SIZE_WH[0], 3)
        image = self._rng.integers(20, 200, shape, np.uint16 if self._stream == "ir" else np.uint8)
        image.reshape(-1).view(np.uint8)[:8] = np.array([t_s], np.float64).view(np.uint8)
        return image

    def _frame(self, image: Image, k: int, t_s: float) -> Frame:
        jump = self._script.stamps_jump
        off_s = jump[1] if jump and t_s >= jump[0] else 0.0
        t_ns = round((self._bus.start + t_s + off_s) * 1e9)
        return Frame(self._stream, image, k, t_ns, Stamp.END, time.monotonic_ns())

    def close(self) -> None:
        self._closing.set()


def taken_s(frame: Frame) -> float:
    """Return the true capture time of a picture, in seconds after the start."""
    return float(np.ascontiguousarray(frame.image).reshape(-1).view(np.uint8)[:8].view(np.float64)[0])


@dataclass
class Observer:
    """Record every published frame and its time."""

    bus: Bus
    seen: list[tuple[float, str, float | None, float | None, bool]] = field(default_factory=list)
    """Time, mode, true capture times of thermal and RGB, True if thermal was used before; one entry a frame."""

    def write(self, fused: Fused) -> None:
        pair = fused.pair
        taken = {frame.stream: taken_s(frame) for frame in pair.frames}
        self.seen.append((self.bus.now_s(), fused.mode, taken.get("ir"), taken.get("rgb"), pair.reused))

    def close(self) -> None:
        return None


@dataclass(frozen=True)
class Fault:
    """Fault: the scripts of both cameras, its end in seconds, the length of the run and the policy."""

    name: str
    about: str
    ir: Script = Script()
    rgb: Script = Script()
    ends_s: float | None = None
    seconds: float = 4.0
    policy: str = "passthrough"


FAULTS = (
    Fault("none", "nothing is wrong", seconds=3.0),
    Fault("loss-of-thermal", "thermal unplugged for 1.5 s", ir=Script(lost=(1.0, 2.5)), ends_s=2.5),
    Fault("loss-of-rgb", "RGB unplugged for 1.5 s", rgb=Script(lost=(1.0, 2.5)), ends_s=2.5),
    Fault("loss-of-both", "both unplugged for 1 s", Script(lost=(1.0, 2.0)), Script(lost=(1.0, 2.0)), ends_s=2.0),
    Fault("another-name", "thermal back under another name", ir=Script(lost=(1.0, 2.5), renamed=True), ends_s=2.5),
    Fault("stall-of-thermal", "thermal silent for 1.5 s", ir=Script(stalled=(1.0, 2.5)), ends_s=2.5),
    Fault("stall-of-rgb", "RGB silent for 1.5 s", rgb=Script(stalled=(1.0, 2.5)), ends_s=2.5),
    Fault("shutter", "thermal frozen for 0.7 s (FFC)", ir=Script(frozen=(1.0, 1.7)), ends_s=1.7),
    Fault("frozen-thermal", "thermal frozen for 2 s", ir=Script(frozen=(1.0, 3.0)), ends_s=3.0, seconds=4.5),
    Fault("frozen-rgb", "RGB frozen for 1.5 s", rgb=Script(frozen=(1.0, 2.5)), ends_s=2.5),
    Fault("rate-change", "thermal falls from 30 to 9 Hz", ir=Script(slower_from=(1.5, 9.0))),
    Fault("clock-ahead", "thermal's clock jumps by +1 h", ir=Script(stamps_jump=(1.5, 3600.0)), ends_s=1.5),
    Fault("clock-back", "RGB's clock jumps by -1 h", rgb=Script(stamps_jump=(1.5, -3600.0)), ends_s=1.5),
    Fault("reordered", "thermal reordered, stamps repeated", ir=Script(reordered=True)),
    Fault("reordered-rgb", "RGB reordered, stamps repeated", rgb=Script(reordered=True)),
    Fault("corrupt", "20 % of thermal, 5 % of RGB corrupt", Script(corrupt=0.2), Script(corrupt=0.05)),
    Fault("unequal", "thermal 9 Hz, RGB 30 Hz", ir=Script(rate_hz=9.0)),
    Fault("drops", "5 % of both lost at random", Script(drop=0.05), Script(drop=0.05)),
    Fault(
        "hold",
        "policy hold, both silent for 1 s",
        Script(stalled=(1.0, 2.0)),
        Script(stalled=(1.0, 2.0)),
        2.0,
        policy="hold",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """Output during a fault.

    `modes`: frames by mode.
    `gap_ms`: the longest time between two frames.
    `recovery_ms`: from the fault's end to the next pair of pictures that are both newer.
    `wrong`: pairs whose pictures are further apart than tolerance and reuse allow.
    `old`: frames whose pictures were more than 0.5 s old.
    """

    fault: Fault
    modes: dict[str, int]
    gap_ms: float
    recovery_ms: float | None
    worst_skew_ms: float
    wrong: int
    old: int
    snapshot: Snapshot


def run(fault: Fault) -> Outcome:
    """Run one fault in real time and return its outcome."""
    bus = Bus({"ir": fault.ir, "rgb": fault.rgb})
    config = Config(
        ir=SourceSettings(uri="scripted", freeze=True),
        rgb=SourceSettings(uri="scripted", freeze=True),
        fuse=Fuse(fuser="pyramid"),
        publish=Publish(endpoint=None),
        degraded=Degraded(policy=fault.policy),  # type: ignore[arg-type]
    )
    rig = open_rig(config, sources={stream: _opener(bus, stream) for stream in ("ir", "rgb")})
    observer = Observer(bus)
    bus.start = time.monotonic()
    snapshot = Pipeline(rig, {"observer": observer}, age_at="observer").run(duration_s=fault.seconds)
    tolerance_s, reuse_s, shutter_s = (
        n / 1e9 for n in (rig.pairer.tolerance_ns, rig.pairer.max_reuse_ns, rig.pairer.shutter_ns)
    )
    frozen = fault.ir.frozen is not None
    wrong, worst = 0, 0.0
    for _, mode, ir, rgb, _ in observer.seen:
        if mode != "fused" or ir is None or rgb is None:
            continue
        skew = ir - rgb
        worst = max(worst, abs(skew))
        if not -max(reuse_s, shutter_s if frozen else 0.0) - 1e-3 <= skew <= tolerance_s + 1e-3:
            wrong += 1
    live = [entry for entry in observer.seen if entry[1] != "held"]
    newest = [max(t for t in (ir, rgb) if t is not None) for _, _, ir, rgb, _ in live]
    old = sum(when - t > 0.5 for (when, *_), t in zip(live, newest, strict=True))
    recovery = None
    if fault.ends_s is not None:
        back = (w for w, m, i, r, _ in observer.seen if m == "fused" and i and r and min(i, r) >= fault.ends_s)
        recovery = 1000 * (next(back, float("inf")) - fault.ends_s)
    whens = [when for when, *_ in observer.seen]
    return Outcome(
        fault=fault,
        modes=dict(Counter(mode for _, mode, *_ in observer.seen)),
        gap_ms=1000 * max((b - a for a, b in pairwise(whens)), default=float("inf")),
        recovery_ms=recovery,
        worst_skew_ms=1000 * worst,
        wrong=wrong,
        old=old,
        snapshot=snapshot,
    )


def _opener(bus: Bus, stream: Stream) -> Callable[[], Source]:
    return lambda: bus.open(stream)


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return the outcomes as a table."""
    grid = Table(header_style="bold")
    for name in ("fault", "published", "longest gap", "fusing again", "wrong pairs", "counted"):
        grid.add_column(name)
    for o in outcomes:
        published = ", ".join(f"{n} {mode}" for mode, n in sorted(o.modes.items()))
        counted = ", ".join(f"{where} {cause} {n}" for (where, cause), n in sorted(o.snapshot.drops.items()))
        again = "" if o.recovery_ms is None else f"{o.recovery_ms:.0f} ms"
        grid.add_row(o.fault.about, published, f"{o.gap_ms:.0f} ms", again, str(o.wrong), counted)
    return grid


def main() -> None:
    """Run the faults that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [fault.name for fault in FAULTS]
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=", ".join(names))
    asked = parser.parse_args().faults
    unknown = set(asked) - set(names)
    if unknown:
        parser.error(f"no fault is called {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    console = Console(width=180)
    console.print(table([run(fault) for fault in FAULTS if not asked or fault.name in asked]))


if __name__ == "__main__":
    main()
