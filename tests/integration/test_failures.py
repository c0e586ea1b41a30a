"""A fault outside the program is one line and a status; an internal error names its traceback's file."""

from __future__ import annotations

import os
import re
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STREET = "synthetic:?size=160x120&duration_s=0.2"
EXAMPLE = ROOT / "configs" / "calibration_example.yaml"
OUR_OWN = """
import sys, threading
import typer
from rtfuse.cli.app import run_app
app = typer.Typer()
@app.command()
def command():
    {body}
sys.argv[1:] = []
run_app(app)
"""


@pytest.fixture
def ended(tmp_path):
    """Run Python with arguments as a user does, without CI; returns status, output, and errors, which have no stack."""

    def run(*args, without=(), **more):
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME") and k not in without}
        temporary = tmp_path / "tmp"
        temporary.mkdir(exist_ok=True)
        env = kept | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "NO_COLOR": "1", "COLUMNS": "200"}
        extra = more.pop("env", {})
        command = [sys.executable, *map(str, args)]
        options = {"stdout": subprocess.PIPE} | more
        done = subprocess.run(
            command, stderr=subprocess.PIPE, text=True, errors="replace", timeout=60, env=env | extra, cwd=tmp_path,
            **options,
        )  # fmt: skip
        if "RTFUSE_TRACEBACK" not in extra:
            assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


def own(body):
    return ("-c", OUR_OWN.format(body=body))


def test_an_internal_error_names_the_private_file_of_its_traceback(ended):
    status, _, said = ended(*own("{}['rtsp://me:secret@cam/live']"))
    assert status == 70
    line = re.fullmatch(
        r"error: internal error: KeyError: 'rtsp://\*\*\*@cam/live'; please report it, the traceback is in (\S+)\n",
        said,
    )
    assert line, said
    kept = Path(line[1])
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    text = kept.read_text()
    assert "Traceback" in text
    assert "secret" not in text
    assert text.startswith("rtfuse 0.")


def test_a_traceback_without_a_place_for_it_is_shown_and_developers_may_ask_for_it(ended):
    body = "import tempfile; tempfile.tempdir = '/proc/none'; 1 / 0"
    status, _, said = ended(*own(body), env={"RTFUSE_TRACEBACK": "1"})
    assert (status, said.count("Traceback")) == (1, 1)
    done = subprocess.run([sys.executable, *own(body)], capture_output=True, text=True, env=os.environ, cwd=ROOT)
    assert done.returncode == 70
    assert "in command" in done.stderr
    assert "report it with the traceback above, which no file could take" in done.stderr.splitlines()[-1]


def test_a_stage_that_fails_says_which_and_why(ended):
    body = "from rtfuse.errors import named; e = {}; raise named('record', e) from e"
    status, _, said = ended(*own(body.format("OSError(28, 'No space left on device', 'o.mp4')")))
    assert (status, said) == (
        1,
        "error: record failed: o.mp4: No space left on device; free some space, or name another place\n",
    )
    status, _, said = ended(*own(body.format("TypeError('x')")))
    assert status == 1
    assert re.match(
        r"error: record failed: internal error: TypeError: x; please report it, the traceback is in \S+\n", said
    )


def test_threads_and_destructors_say_what_they_could_not_handle_once(ended, tmp_path):
    body = """
    class Broken:
        def __del__(self):
            raise ValueError("in a destructor")
    for _ in range(20):
        thread = threading.Thread(target=lambda: [][0], name="worker")
        thread.start()
        thread.join()
    Broken()
    print("on")
"""
    status, out, said = ended(*own(body.strip()))
    assert (status, out) == (0, "on\n")
    said = " ".join(said.split())
    assert len(re.findall(r"internal error: IndexError: .{1,300}? stage=worker", said)) == 5  # see RateLimit
    assert re.search(r"internal error: ValueError: in a destructor; .* stage=\S*__del__", said)
    assert len(list((tmp_path / "tmp").glob("*.traceback.txt"))) == 2


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        (
            "import numpy; numpy.zeros(1 << 60, 'u1')",
            r"not enough memory \(.*1\.00 EiB.*\): smaller pictures need less",
        ),
        ("raise ImportError('libGL.so.1: cannot open shared object file', name='cv2')", r"cv2 cannot be loaded: libGL"),
        ("import nothing_of_this_name", r"nothing_of_this_name is not installed$"),
        ("open('/proc/1/mem', 'rb').read(1)", r".*: "),
        ("open('/none/x', 'w')", r"/none/x: No such file or directory$"),
        ("b'\\xff'.decode()", r"text cannot be read or written \(.*utf-8.*\): want UTF-8"),
    ],
)
def test_what_the_environment_did_is_told_as_what_it_is(ended, raised, line):
    status, _, said = ended(*own(raised))
    assert (status, said.count("\n")) == (2, 1)
    assert re.match(f"error: {line}", said), said
    assert "internal" not in said


@pytest.mark.parametrize(
    ("program", "args"),
    [
        ("rtfuse", ("engines", "list")),
        ("rtfuse", ("keys", "new", "rig")),
        ("calib", ("pattern", "circles:5x4:20mm", "-o", "/none/board.pdf")),
        ("calib", ("report", EXAMPLE, "-o", "/none/report.html")),
        ("trainer", ("train", "--config", ROOT / "configs" / "train_quick.yaml", "--run", "/dev/null/run")),
    ],
)
def test_places_that_cannot_be_written_are_one_line(ended, program, args):
    status, _, said = ended("-m", program, *args, env={"HOME": "/dev/null/none"})
    assert (status, said.count("\n")) == (2, 1), said
    assert re.search("No such file or directory|Not a directory", said)


def test_a_home_folder_is_not_needed_to_fuse_and_to_watch(ended, tmp_path):
    for home in ({"HOME": "/dev/null/none"}, {}):
        status, out, said = ended(
            *("-m", "rtfuse", "fuse", STREET, STREET, "-o", "out.mp4", "--fuser", "student", "--force"),
            without=("HOME",),
            env=home,
        )
        assert (status, said) == (0, ""), said
        assert "student (OpenVINO" in out
        address = f"ipc://{tmp_path}/s"
        status, out, said = ended("-m", "rtfuse", "view", "--stats", address, "--duration", "0.2", env=home)
        assert (status, out) == (0, "0 frames received\n")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become a user without a name")
def test_a_user_without_a_home_folder_is_told_so(ended):
    """Such as one that a container was started with; it becomes that user once Python has loaded the program."""
    code = (
        "import os, sys, zoneinfo; from rtfuse.cli.main import main; "
        "os.setuid(9999); sys.argv[1:] = ['keys', 'list']; main()"
    )
    status, _, said = ended("-c", code, without=("HOME",))
    assert (status, said) == (2, "error: the home folder is unknown: set HOME or XDG_CONFIG_HOME\n")


def test_output_that_nobody_takes_is_quiet_and_a_full_disk_is_said(ended):
    with open("/dev/full", "w") as full:
        status, _, said = ended("-m", "rtfuse", "--help", stdout=full)
    assert (status, said) == (2, "error: No space left on device; free some space, or name another place\n")
    reading, writing = os.pipe()
    os.close(reading)
    assert ended("-m", "rtfuse", "--help", stdout=writing)[::2] == (1, "")
    os.close(writing)
    closed = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, '-m', 'rtfuse', 'keys', '--help'])"
    assert ended("-c", closed)[::2] == (0, "")


def test_names_that_no_locale_can_write_are_written_anyhow(ended, tmp_path):
    name = os.fsdecode(b"\xc3\xbc\xff.mp4")
    status, out, said = ended(
        *("-m", "rtfuse", "fuse", STREET, STREET, "-o", name, "--fuser", "pyramid"), env={"PYTHONIOENCODING": "ascii"}
    )
    assert (status, said) == (0, "")
    assert r"\xfc\udcff.mp4" in out
    assert (tmp_path / name).stat().st_size


def test_a_disk_that_is_full_while_fusing_is_one_line(ended, tmp_path):
    """The kernel's limit on the size of a file says EFBIG where a disk would say ENOSPC."""

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    status, _, said = ended(
        *("-m", "rtfuse", "fuse", STREET, STREET, "-o", "out.mp4", "--fuser", "pyramid"), preexec_fn=small_files
    )
    assert status in (1, 2)
    assert re.fullmatch(r"error: [^\n]*out.mp4[^\n]*\n", said), said
    assert "internal" not in said
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("program", ["rtfuse", "trainer", "calib"])
def test_the_version_is_one_line(ended, program):
    status, out, said = ended("-m", program, "--version")
    assert (status, said) == (0, "")
    assert re.fullmatch(rf"{program} 0\.\d+\.\d+, Python 3\.\d+\.\d+\w*, .*openvino 20\d\d\.[\d.]+, .*\n", out)


def test_an_error_while_threads_decode_is_a_status_and_not_an_abort(ended):
    body = """
    import cv2, numpy
    from rtfuse.errors import SourceUnreadable
    noise = numpy.random.default_rng(0).integers(0, 255, (700, 700, 3)).astype(numpy.uint8)
    png = cv2.imencode('.png', noise)[1]
    def decode():
        while True:
            cv2.imdecode(png, cv2.IMREAD_COLOR)
    for _ in range(4):
        threading.Thread(target=decode, daemon=True).start()
    raise SourceUnreadable('a source failed')
"""
    assert ended(*own(body.strip())) == (2, "", "error: a source failed\n")
