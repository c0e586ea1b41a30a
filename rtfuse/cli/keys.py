"""`rtfuse keys`: make, list and revoke the keys of an encrypted publisher."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rtfuse.wire.keys import key_folder, list_keys, new_client, new_rig, revoke

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the keys of an encrypted publisher.")
new_app = typer.Typer(no_args_is_help=True, help="Make a pair of keys: of the rig, or of a client.")
app.add_typer(new_app, name="new")
_out = Console(highlight=False, soft_wrap=True)

Folder = Annotated[
    Path | None, typer.Option("--dir", help="Folder of keys; default: rtfuse/keys in the user's configuration.")
]
Replace = Annotated[bool, typer.Option("--force", help="Replace an existing key.")]


@new_app.command(name="rig")
def keys_new_rig(folder: Folder = None, force: Replace = False) -> None:
    """Make the rig's own pair, which every client needs first.

    Example: rtfuse keys new rig
    """
    where = folder or key_folder()
    pair = new_rig(where, force=force)
    _out.print(f"key of this rig made in {where}: {pair.fingerprint}", markup=False)
    option, path = f" --dir {shlex.quote(str(folder))}" if folder else "", shlex.quote(str(where))
    _out.print(f"next: rtfuse keys new client NAME -o NAME.key{option}; rtfuse run --keys {path}", markup=False)


@new_app.command(name="client")
def keys_new_client(
    name: Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Key file of the client; default: NAME.key.")
    ] = None,
    folder: Folder = None,
    force: Replace = False,
) -> None:
    """Make a client's pair, authorise it, and write its key file: carry it to the client, and keep it secret.

    Example: rtfuse keys new client control-room -o control-room.key
    """
    file = output or Path(f"{name}.key")
    pair = new_client(folder or key_folder(), name, file, force=force)
    _out.print(f"client {name} authorised: {pair.fingerprint}", markup=False)
    _out.print(f"it needs {file}, which lets any reader watch: carry it, do not mail it", markup=False)


@app.command(name="list")
def keys_list(folder: Folder = None) -> None:
    """List the keys: name, fingerprint, permission to connect; never a secret."""
    where = folder or key_folder()
    grid = Table(title=str(where), title_justify="left", header_style="bold")
    for column in ("name", "fingerprint", "state", "since"):
        grid.add_column(column)
    for key in list_keys(where):
        grid.add_row(key.name, key.fingerprint, key.state, key.since)
    _out.print(grid)


@app.command(name="revoke")
def keys_revoke(name: Annotated[str, typer.Argument(help="A client's name.")], folder: Folder = None) -> None:
    """Take a client's authorisation away; a running publisher ends its sessions within about a second.

    Example: rtfuse keys revoke control-room
    """
    key = revoke(folder or key_folder(), name)
    _out.print(f"client {name} revoked" + (f": {key.fingerprint}" if key else ""), markup=False)
