"""Check the prose of sources and pages: hard phrases, and docstrings that begin with a question word or an article.

    python tools/prose.py [PATH ...]

Prints `file:line: phrase: hint` for each finding and exits with 1 after any. A PATH is a Python file, a Markdown
page or a folder; without any, the packages and pages of this repository are checked. Code in pages is left out.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = ["rtfuse", "trainer", "calib", "tools", "README.md", "CONTRIBUTING.md", "docs"]

QUESTION = re.compile(r"\W*(What|Whether|How|Who|Whom|Whose|Where|When|Which)\b")
BEGIN = "a docstring begins with a verb and the standard noun: 'Pair two streams by capture time'"
ARTICLE = re.compile(r"(A|An|The|One)\b")
BARE = "begin with a verb, or a noun without the article: 'Page of a TIFF file'; only properties may have one"

# A space stands for any white space, line ends too. Upper and lower case are the same.
HARD = {
    r"in vain": "say that it failed or has no effect",
    r"anew": "again",
    r"oftener": "more often",
    r"(?:of|than|from) (?:ours|yours|theirs)": "our, your, their: 'two of your recordings'",
    r"beside (?:it|them)": "with it, next to it; repeat the noun",
    r"who(?:m|so)?ever": "name them: each subscriber, a client that …",
    r"what(?:so)?ever|whichever": "name it: any exception, the larger one",
    r"for want of": "without",
    r"(?<!there )(?:is|are|was|were) no (?!longer|more|less|fewer|better|worse|larger|smaller|further)(?=[a-z])": (
        "is not a …, has no …, does not …"
    ),
    r"(?<!says )(?<!said )(?<!say )(?<!tell )(?<!tells )what (?:is|are|was|were) (?:answered|asked|beyond|compiled"
    r"|concatenated|damaged|decided|due|given|installed|kept|left|lit|measured|missing|newest|open|paired|protected"
    r"|published|run|seen|sent|shown|stored|there|to be|wanted|warm)\b": (
        "name the thing: warm objects, the newest frame, the requested size"
    ),
    r"but for (?!the moment|now)": "except",
    r"lest|whence|whither|thereof|whereof|wherein|therein|herewith|amongst|whilst|hitherto|seldom": "use a common word",
    r"as it were|so to speak|goes? without saying": "leave it out",
    r"nothing but": "only",
}
PHRASES = [(re.compile(rf"\b(?:{phrase})", re.IGNORECASE), hint) for phrase, hint in HARD.items()]
FENCE = re.compile(r"^ *```.*?^ *```|`[^`\n]*`|\]\([^)]*\)", re.DOTALL | re.MULTILINE)

Finding = tuple[int, str, str]


def phrases(text: str, line: int) -> Iterator[Finding]:
    """Yield (line, phrase, hint) for each hard phrase in `text`, which begins at `line`."""
    words, lines = [], []
    for number, row in enumerate(text.split("\n"), line):
        for word in row.split():
            words.append(word)
            lines += [number] * (len(word) + 1)
    flat = " ".join(words)
    for pattern, hint in PHRASES:
        for match in pattern.finditer(flat):
            yield lines[match.start()], match.group().strip(), hint


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield each bare string of a parsed source: the docstrings of modules, classes, functions and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def articles(tree: ast.AST) -> Iterator[Finding]:
    """Yield the docstrings of modules, classes and functions that begin with an article; properties may."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match = ARTICLE.match(ast.get_docstring(node) or "")
            if match and not any("property" in ast.unparse(d) for d in getattr(node, "decorator_list", [])):
                yield node.body[0].lineno, match.group(), BARE


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each run of comments on adjacent lines."""
    rows: list[str] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != last + 1 and rows:
                yield last - len(rows) + 1, "\n".join(rows)
                rows = []
            rows.append(token.string.lstrip("# "))
            last = token.start[0]
    if rows:
        yield last - len(rows) + 1, "\n".join(rows)


def check_python(source: str) -> Iterator[Finding]:
    """Yield the findings in a Python source: in docstrings, comments, and texts such as errors and help."""
    tree = ast.parse(source)
    for node in docstrings(tree):
        if match := QUESTION.match(str(node.value)):
            yield node.lineno, match.group(1), BEGIN
    yield from articles(tree)
    for constant in ast.walk(tree):
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
            yield from phrases(constant.value, constant.lineno)
    for line, text in comments(source):
        yield from phrases(text, line)


def check_page(text: str) -> Iterator[Finding]:
    """Yield the findings in a Markdown page, code and link targets left out."""
    prose = FENCE.sub(lambda match: re.sub(r"[^\n]", "_", match.group()), text)
    for line, paragraph in _paragraphs(prose):
        yield from phrases(paragraph, line)


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each run of lines without an empty one."""
    rows: list[str] = []
    for number, row in enumerate([*text.split("\n"), ""], 1):
        if row.strip():
            rows.append(row)
        elif rows:
            yield number - len(rows), "\n".join(rows)
            rows = []


def files(places: list[Path]) -> Iterator[Path]:
    """Yield the Python files and Markdown pages at these paths, those of folders sorted. Raises FileNotFoundError."""
    for place in places:
        if place.is_dir():
            yield from sorted(p for p in place.rglob("*") if p.suffix in (".py", ".md"))
        elif place.exists():
            yield place
        else:
            raise FileNotFoundError(f"nothing to check at {place}: give a Python file, a Markdown page or a folder")


def check(path: Path) -> list[Finding]:
    """Return the findings in one file, by line."""
    text = path.read_text(encoding="utf-8")
    return sorted(check_python(text) if path.suffix == ".py" else check_page(text))


def main(arguments: list[str]) -> int:
    """Print all findings; return 1 after any, else 0."""
    places = [Path(argument) for argument in arguments] or [ROOT / place for place in PLACES]
    count = 0
    for path in files(places):
        if path.samefile(__file__):  # it has to name the phrases
            continue
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        for line, phrase, hint in check(path):
            print(f"{shown}:{line}: {phrase}: {hint}")
            count += 1
    print(f"{count} hard phrases" if count else "prose: no hard phrase", file=sys.stderr)
    return min(count, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
