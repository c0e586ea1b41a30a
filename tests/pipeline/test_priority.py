"""A live rig goes before other programs where the system allows it, and does not mind where it does not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

WORK = """
import os, sys, threading
from rtfuse.pipeline.priority import lower_priority, niceness, raise_priority
if len(sys.argv) > 2:
    os.setuid(int(sys.argv[2]))
go, seen = threading.Event(), {}
def note(name):
    seen[name] = niceness()
def early():
    go.wait()
    note("before")
def behind():
    lower_priority(5)
    note("behind")
    seen["child"] = int(os.popen("nice").read())
    lower_priority(0)
    note("still behind")
one = threading.Thread(target=early)
one.start()
print(raise_priority(int(sys.argv[1])))
go.set()
rest = [threading.Thread(target=note, args=("after",)), threading.Thread(target=behind)]
[t.start() for t in rest]
[t.join() for t in (one, *rest)]
print(niceness(), *(f"{k} {v}" for k, v in sorted(seen.items())), sep=", ")
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "getpriority"), reason="this system has no niceness")


def tried(*arguments):
    """Return the result and the nicenesses of a process of its own, in a session of its own, that begins with 0."""
    done = subprocess.run(
        [sys.executable, "-c", WORK, *map(str, arguments)], capture_output=True, text=True, start_new_session=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may raise a priority for certain")
def test_threads_that_run_and_threads_to_come_are_raised_and_some_may_wait():
    assert tried(-7) == ["True", "-7, after -7, before -7, behind 5, child 5, still behind 5"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may become another user")
def test_a_user_without_the_right_keeps_the_usual_priority():
    assert tried(-7, 65534) == ["False", "0, after 0, before 0, behind 5, child 5, still behind 5"]


def test_nothing_is_asked_for_where_it_is_not_wanted():
    assert tried(0)[0] == "True"
    assert tried(0)[1].startswith("0, after 0, before 0")
