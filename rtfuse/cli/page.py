"""Open the page of `rtfuse run --web`, and print its address."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console

import rtfuse
from rtfuse.cli.status import CAUSES
from rtfuse.config import Config, Web
from rtfuse.errors import ConfigError
from rtfuse.hints import install_hint
from rtfuse.observe.stats import Snapshot
from rtfuse.pipeline.controls import Controls
from rtfuse.pipeline.rig import Rig
from rtfuse.publish.publisher import Publisher

if TYPE_CHECKING:
    from rtfuse.web.server import WebServer


def open_page(
    settings: Config, rig: Rig, snapshot: Callable[[], Snapshot], publisher: Publisher | None, controls: Controls
) -> WebServer | None:
    """Serve the page, if the configuration names an address."""
    if settings.web.address is None:
        return None
    try:
        from rtfuse.web.rig_view import RigView
        from rtfuse.web.server import WebServer
    except ImportError as e:
        raise ConfigError(f"--web needs {e.name}, which is not installed: {install_hint('web')}") from e
    how, software = settings.web, rtfuse.__version__

    def about() -> dict[str, str]:
        return {"rig": settings.rig, "fuser": str(rig.fuser), "version": software}

    view = RigView(snapshot, about, rig.clock, CAUSES, controls if how.controls else None, publisher)
    return WebServer(how, view)


def print_page(how: Web, server: WebServer, console: Console) -> None:
    """Print the page's address, and the login where it needs a token."""
    from rtfuse.web.qr import qr_code

    console.print(f"answering on {server.url}", soft_wrap=True)
    if not server.token_needed:
        return
    # A token that somebody chose stays out of logs; a random one is nowhere else to be found.
    login = server.login if console.is_terminal or not how.token else server.login.partition("#")[0]
    console.print(f"log in at {login}", soft_wrap=True, highlight=False, markup=False)
    if server.plain:
        console.print("nothing of it is encrypted: every machine on the way can read it", style="yellow")
    if console.is_terminal:
        console.print(qr_code(server.login), style="black on white", highlight=False)
