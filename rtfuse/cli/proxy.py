"""`rtfuse proxy`: join many rigs to one endpoint."""

from __future__ import annotations

import resource
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

_out = Console(highlight=False, soft_wrap=True)


def proxy(
    config: Annotated[Path | None, typer.Option("--config", help="YAML file; the command line wins over it.")] = None,
    rig: Annotated[
        list[str] | None, typer.Option(metavar="NAME=ENDPOINT", help="Rig to join; may be repeated.")
    ] = None,
    rig_keys: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Client key file for a rig that encrypts.")
    ] = None,
    bind: Annotated[str | None, typer.Option(help="Endpoint to serve on; default: tcp://127.0.0.1:5560.")] = None,
    keys: Annotated[str | None, typer.Option(help="Encrypt with this folder of keys; see rtfuse keys.")] = None,
    insecure: Annotated[bool | None, typer.Option("--insecure", help="Allow plain text beyond this machine.")] = None,
    log: Annotated[str | None, typer.Option(help="Format of log lines: text or json.")] = None,
) -> None:
    """Join many rigs to one endpoint, for a control room. Each rig needs publish.rig_topics=true and its own name.

    Example: rtfuse proxy --rig truck-1=tcp://10.0.0.11:5555 --rig truck-2=tcp://10.0.0.12:5555
    """
    from rtfuse.cli.app import err, log_to
    from rtfuse.publish.proxy import Proxy, load_proxy_config

    options = {"bind": bind, "keys": keys, "insecure": insecure, "log": log}
    settings = load_proxy_config(config, rig or [], rig_keys or [], options)
    log_to(err, settings.log)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # of connections that never introduce themselves too
    enough = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft if soft == resource.RLIM_INFINITY else max(soft, enough), hard))
    joined = Proxy(settings)
    try:
        _out.print(f"serving {', '.join(settings.rigs)} on {joined.endpoint}", markup=False)
        joined.run(stop)
    finally:
        joined.close()
