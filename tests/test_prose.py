"""`tools/prose.py`: it finds each kind of hard prose, at its line, and lets plain prose and code pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import prose

ROOT = Path(__file__).parents[1]
EXAMPLES = [
    "Say what was asked for in vain.",
    "Build the table anew.",
    "Look at it oftener.",
    "Take two recordings of yours.",
    "Keep the digest beside it.",
    "Send it to whoever subscribes.",
    "Raise whatever cannot be opened.",
    "Take whichever is larger.",
    "Guess, for want of a rate.",
    "Refuse a name that is no file.",
    "Draw what is warm.",
    "Copy all but for the last.",
    "Stop, lest it blocks.",
    "It is, as it were, a cache.",
    "Hold nothing but the newest.",
]


def python(path, text):
    path.write_text(text, encoding="utf-8")
    return prose.check(path)


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_kind_of_hard_phrase_is_found_wherever_it_stands(tmp_path, example):
    path = tmp_path / "m.py"
    for text in (f'"""{example}"""\n', f"# {example}\n", f'raise ValueError(f"{{1}}: {example}")\n'):
        assert [line for line, _, _ in python(path, text)] == [1], text
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\nPlain.\n{example}\n")
    assert [line for line, _, _ in prose.check(page)] == [4]


def test_every_entry_of_the_list_has_an_example():
    idle = [p.pattern for p, _ in prose.PHRASES if not any(p.search(example) for example in EXAMPLES)]
    assert idle == []


@pytest.mark.parametrize("word", ["What", "Whether", "How", "Who", "Where", "When", "Which"])
def test_a_docstring_that_begins_with_a_question_word_is_found(tmp_path, word):
    text = f'"""Plain."""\n\n\nclass C:\n    """{word} it does."""\n\n    field: int = 1\n    """{word} it has."""\n'
    assert [(line, found) for line, found, _ in python(tmp_path / "m.py", text)] == [(5, word), (8, word)]


@pytest.mark.parametrize("word", ["A", "An", "The", "One"])
def test_a_docstring_that_begins_with_an_article_is_found_except_at_a_property(tmp_path, word):
    text = f'"""{word} module."""\n\n\nclass C:\n    """{word} class."""\n\n    @property\n    def name(self):\n'
    text += f'        """{word} name."""\n\n    def go(self):\n        """{word} step."""\n'
    assert [(line, found) for line, found, _ in python(tmp_path / "m.py", text)] == [(n, word) for n in (1, 5, 12)]


def test_a_phrase_is_found_across_the_end_of_a_line(tmp_path):
    text = '"""Plain.\n\nSomething that was in\n    vain.\n"""\n'
    assert [(line, phrase) for line, phrase, _ in python(tmp_path / "m.py", text)] == [(3, "in vain")]


def test_plain_prose_and_code_in_pages_pass(tmp_path):
    plain = '"""Read the file. There is no folder of this name; it is no longer read. Say what is wrong."""\n'
    assert python(tmp_path / "m.py", plain) == []
    page = tmp_path / "page.md"
    page.write_text("Use `anew` and [this](docs/anew.md):\n\n```sh\nrtfuse anew  # in vain\n```\n")
    assert prose.check(page) == []


def test_the_command_names_the_place_and_fails(tmp_path):
    path = tmp_path / "m.py"
    path.write_text('"""Plain."""\n\n\ndef f():\n    """What is warm."""\n')
    done = subprocess.run([sys.executable, ROOT / "tools/prose.py", path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [line.rsplit(": ", 1)[0] for line in done.stdout.splitlines()] == [
        f"{path}:5: What: a docstring begins with a verb and the standard noun",
        f"{path}:5: What is warm: name the thing",
    ]
