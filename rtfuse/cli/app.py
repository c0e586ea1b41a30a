"""Share among all command lines: the log, `--version`, `-h`, and one line and an exit status for every error."""

from __future__ import annotations

import logging
import platform
import re
import sys
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

import rtfuse
from rtfuse.cli import failures
from rtfuse.cli.noise import filtered
from rtfuse.errors import redact
from rtfuse.folders import expanded
from rtfuse.observe.logs import JsonFormatter, RateLimit, TextFormatter
from rtfuse.observe.stats import Snapshot
from rtfuse.web import DEFAULT_ADDRESS

out, err = Console(highlight=False), Console(stderr=True, highlight=False)
_HELP = ["-h", "--help"]
_SETTING = re.compile(r"\A([\w.-]+=|-[a-z])?((?:ipc://)?~.*)\Z", re.DOTALL)
_SHORT = re.compile(r"\A(-[a-z])=")
_DASHED = re.compile(r"-(?!-)[^=]{2,}|-.*\.")
"""A name that a file may have, and no option has."""
_LIBRARIES = ("openvino", "torch", "tensorrt-cu13", "tensorrt-rtx-cu13", "onnxruntime")


def run_app(app: typer.Typer) -> None:
    """Run a command line; errors become one line and an exit status (docs/live.md lists them)."""
    try:
        with nullcontext() if failures.shown() else filtered():
            _run_app(app)
    except SystemExit as e:
        failures.leave(e.code)
        raise


def _run_app(app: typer.Typer) -> None:
    failures.watch()
    log_to(err, "text")
    try:
        status = _parser(app)(_completed(sys.argv[1:]), standalone_mode=False)
        _flush()
        sys.exit(status if isinstance(status, int) else 0)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output has gone
        failures.let_go_of_output()
        sys.exit(1)
    except Exception as e:
        usage = getattr(e, "format_message", None)
        if usage is not None and not usage().strip():  # a bare command: its help is printed already
            sys.exit(2)
        if failures.shown() and usage is None:
            raise
        line, ends = (usage() + _as_argument(e), 2) if usage else failures.explained(e)
        err.print(f"[bold red]error:[/] {_escape(redact(line))}", soft_wrap=True)
        try:
            _flush()
        except OSError:  # a full disk, for example: it would be a second error at the end of Python
            failures.let_go_of_output()
        sys.exit(ends)


def _as_argument(e: Exception) -> str:
    """Return the end of a usage error's line that shows an argument which was given as an option; else nothing."""
    command, name = getattr(getattr(e, "ctx", None), "command", None), getattr(e, "option_name", None)
    arguments = [p for p in getattr(command, "params", ()) if p.param_type_name == "argument"]
    if not name or name.lstrip("-") not in [p.name for p in arguments]:
        return ""
    path = e.ctx.command_path  # type: ignore[attr-defined]
    return f"; it is an argument: {path} {' '.join(p.make_metavar(e.ctx) for p in arguments)}"  # type: ignore[attr-defined]


def _parser(app: typer.Typer) -> Any:
    """Return the parser of a command line, whose help names no type for flags: typer writes `<bool>`."""
    parser = typer.main.get_command(app)
    commands = [parser]
    for command in commands:
        commands += getattr(command, "commands", {}).values()
        told = command.get_help_option(command.context_class(command, help_option_names=_HELP))
        for option in [*command.params, *([told] if told else [])]:
            if getattr(option, "is_flag", False):
                option.metavar = ""
    return parser


def _flush() -> None:
    """Flush standard output. Raises OSError if it cannot be written."""
    if sys.stdout is not None:  # closed from the start
        sys.stdout.flush()


def _completed(arguments: list[str]) -> list[str]:
    """Return arguments that the parser understands as they are meant.

    Its options take a value: `--web` gets the default address if none follows. A file `-ir.mp4` or `-stills` becomes
    `./-ir.mp4`. `~/x` becomes a path in the home folder, behind `--option=` and `key=` too, where shells leave it.
    `-o=x` is `-o x`.
    """
    arguments = [_SHORT.sub(r"\1", word) for word in arguments]
    arguments = [_SETTING.sub(lambda m: (m[1] or "") + expanded(m[2]), word) for word in arguments]
    files = [_DASHED.match(word) is not None and Path(word).exists() for word in arguments]
    whole = [f"./{word}" if file else word for word, file in zip(arguments, files, strict=True)]
    for k in (k for k, argument in enumerate(arguments) if argument == "--web"):
        if k + 1 == len(arguments) or arguments[k + 1].startswith("-") or "=" in arguments[k + 1]:
            whole[k] = f"--web={DEFAULT_ADDRESS}"
    return whole


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("[", r"\[")


def close(result: Snapshot, paths: dict[str, str]) -> None:
    """Print the counts of a run that has ended, and the names of its files."""
    from rtfuse.cli.status import summary

    out.print(summary(result, paths))


def add_version(app: typer.Typer, name: str) -> None:
    """Give a command line the options `--version` and `-h`."""
    app.info.context_settings = {"help_option_names": _HELP}

    def told(wanted: bool) -> None:
        if wanted:
            out.print(version_line(name), soft_wrap=True)
            raise typer.Exit

    option = typer.Option("--version", callback=told, is_eager=True, help="Print the versions and end.")

    def top(version: bool = False) -> None:
        """Take the options before a subcommand."""

    top.__annotations__["version"] = Annotated[bool, option]
    app.callback()(top)


def version_line(name: str) -> str:
    """Return the versions of a program, of Python, and of the libraries that compute, and the platform, in one line."""
    parts = [f"{name} {rtfuse.__version__}", f"Python {platform.python_version()}"]
    parts += [f"{library} {found}" for library in _LIBRARIES if (found := installed(library))]
    return ", ".join([*parts, platform.platform()])


def installed(package: str) -> str | None:
    """Return the version of an installed package, without importing it; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def log_to(console: Console, style: str) -> None:
    """Send the log to the console: lines for people (`text`), or JSON objects (`json`); never too many of one kind."""
    log = logging.getLogger("rtfuse")
    log.setLevel(logging.INFO)
    for handler in list(log.handlers):
        log.removeHandler(handler)
    made: logging.Handler = RichHandler(console=console, show_path=False, log_time_format="[%X]", rich_tracebacks=False)
    made.setFormatter(TextFormatter())
    if style == "json":
        made = logging.StreamHandler(sys.stderr)
        made.setFormatter(JsonFormatter())
    made.addFilter(RateLimit())
    log.addHandler(made)
