"""The commands of the README and of docs/commands.md, run as they stand; a bench takes fewer and smaller frames."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/commands.md")}
README = PAGES["README.md"]
LICENCES = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
DOCS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def shell_blocks(page):
    """Return the lines of each shell block of a page."""
    return [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)]


BLOCKS = {
    f"{name}: {commands[0]}": commands
    for name, page in PAGES.items()
    for block in shell_blocks(page)
    if (commands := [line for line in block if line.startswith("rtfuse") and "/dev/" not in line])
}
VIEWS = [c for block in BLOCKS.values() for c in block if c.startswith("rtfuse view")]
COMMANDS = [c for block in BLOCKS.values() for c in block if c != "rtfuse demo" and c not in VIEWS]


@pytest.fixture
def here(tmp_path):
    """A folder that looks like the repository's root to the commands."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "out").mkdir()
    return tmp_path


def test_the_readme_fits_on_150_lines():
    assert len(README.splitlines()) <= 150


def test_the_pages_have_an_example_of_every_subcommand_that_needs_no_other():
    subcommands = {c.split()[1] for block in BLOCKS.values() for c in block}
    assert subcommands == {"demo", "run", "record", "fuse", "view", "bench", "engines", "keys", "config"}


@pytest.mark.usefixtures("usual_ports")
@pytest.mark.parametrize("name", [name for name, block in BLOCKS.items() if set(block) & set(COMMANDS)])
def test_commands_work_one_after_the_other(rtfuse, here, name):
    for command in BLOCKS[name]:
        if command.startswith("rtfuse bench"):
            command = re.sub(r"--frames \d+", "--frames 30 --size 160x120", command)
        done = rtfuse(*shlex.split(command)[1:], cwd=here, literally=True, timeout_s=280)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("usual_ports")
def test_the_tour_shows_a_picture_and_ends_with_ctrl_c(start, rtfuse, here, monkeypatch):
    demo = start("demo", cwd=here)
    demo.wait_for("http://127.0.0.1:8080")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    for command in VIEWS:
        arguments = shlex.split(command)[1:]
        if "--duration" not in arguments and "--frames" not in arguments:
            arguments += ["--frames", "5"]  # the window, which a person would close
        done = rtfuse(*arguments, cwd=here)
        assert done.returncode == 0, done.stderr
        assert not done.stdout.startswith("0 frames received")
    saves = [command for command in VIEWS if "--save" in command]
    assert saves
    assert len(list((here / "out" / "seen").iterdir())) == 10 * len(saves)
    demo.signal(signal.SIGINT)
    assert demo.end(10) in (0, 130), demo.output


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_command_can_be_pasted_into_bash_and_zsh(page):
    """An interactive zsh takes `#` for a word, and an unquoted pattern without a match for an error."""
    for block in shell_blocks(page.read_text(encoding="utf-8")):
        for line in block:
            assert not unsafe(line), line
            for shell in filter(shutil.which, ("bash", "zsh")):
                subprocess.run([shell, "-n", "-c", line], check=True)


def unsafe(line):
    """Return the characters of a command that zsh may expand, outside of quotes; `~/` and `~user/` begin a path."""
    unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", line)
    return set(re.sub(r"(?<=\s)~(?=[\w/])", "", unquoted)) & set("?*[]()#~^")


@pytest.mark.parametrize(
    "line", ["rtfuse run  # it's live", "rtfuse run --ir synthetic:?live=1", "rtfuse fuse ir[1].mp4", "ls a~ b*"]
)
def test_unquoted_patterns_and_comments_are_found(line):
    assert unsafe(line)


@pytest.mark.parametrize("line", ["rtfuse run --ir 'synthetic:?live=1' --keys ~/keys", 'python -c "print(1)"'])
def test_quoted_patterns_and_home_folders_pass(line):
    assert not unsafe(line)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page.name} links to {target}"


def anchors(page):
    """Return the names that a page's headings get: lower case, hyphens for blanks, no other punctuation."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", h).lower()).replace(" ", "-") for h in headings}


def test_the_tables_of_licences_name_every_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {re.split(r"[\[<>=;~! ]", requirement)[0] for requirement in wanted} - {"rtfuse"}
    assert len(names) > 20
    for name in sorted(names):
        short = name.removesuffix("-cu13")
        if short.startswith("types-") or short.startswith("pytest-"):
            continue  # stubs and plugins, under the licence of what they are for
        for page, text in (("README.md", README), ("docs/licences.md", LICENCES)):
            assert re.search(rf"(?<![\w-]){re.escape(short)}(?![\w-])", text, re.IGNORECASE), f"{page}: {short}"
    assert "x264" in README
    assert "GPL" in README


def test_the_python_examples_are_valid():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        compile(block, "README.md", "exec")
