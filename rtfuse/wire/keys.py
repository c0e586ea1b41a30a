"""Store CURVE keys as files: the rig's key pair, the public keys of authorised clients, and the clients' own files.

    DIR/rig.key            the rig's pair: only its owner may read it
    DIR/clients/NAME.pub   an authorised client; the file is its authorisation
    DIR/revoked/NAME-….pub a revoked client
    NAME.key               the file for the client: its own pair and the rig's public key

All are JSON objects. Importing this loads only the standard library and msgspec.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from rtfuse.errors import ConfigError, KeysUnusable, OutputExists, OutputUnwritable
from rtfuse.folders import user_folder

Z85 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$")]
"""32 bytes of a key as 40 printable characters (ZeroMQ RFC 32)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_BYTES = 65_536
_RIG, _CLIENTS, _REVOKED = "rig.key", "clients", "revoked"
_STATES: dict[str, Literal["authorised", "revoked"]] = {_CLIENTS: "authorised", _REVOKED: "revoked"}


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """Public key with its owner's name and its time of creation (UTC, ISO 8601)."""

    name: str
    created: str
    public: Z85

    @property
    def fingerprint(self) -> str:
        """The first 64 bits of the key's SHA-256, in hexadecimal: enough to compare over the telephone."""
        digest = hashlib.sha256(self.public.encode()).hexdigest()[:16]
        return ":".join(digest[k : k + 4] for k in range(0, 16, 4))


class KeyPair(PublicKey, frozen=True, kw_only=True):
    """Key pair of a rig, or of a client with the public key of its rig (`server`). Its text shows no secret."""

    secret: Z85
    server: Z85 | None = None

    def __repr__(self) -> str:
        return f"KeyPair({self.name!r}, {self.fingerprint})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("name", self.name), ("fingerprint", self.fingerprint)]


@dataclass(frozen=True, slots=True)
class Listed:
    """Key of a folder. `since`: the time of its present state (UTC, ISO 8601)."""

    name: str
    fingerprint: str
    since: str
    state: Literal["rig", "authorised", "revoked", "damaged"]


K = TypeVar("K", bound=PublicKey)


def key_folder() -> Path:
    """Return `$XDG_CONFIG_HOME/rtfuse/keys` (`~/.config/…`). Raises FileNotFoundError for a user without a home."""
    return user_folder("XDG_CONFIG_HOME") / "keys"


def new_rig(folder: Path, *, force: bool = False) -> KeyPair:
    """Make the rig's pair in `folder`. Raises OutputExists without `force`: every client would need a new file."""
    pair = _new_pair("rig")
    _private_folder(folder)
    for name in (_CLIENTS, _REVOKED):
        _private_folder(folder / name)
    _write(folder / _RIG, pair, force=force)
    return pair


def new_client(folder: Path, name: str, output: Path, *, force: bool = False) -> KeyPair:
    """Make a client's pair, write the client's file `output`, and authorise the client.

    Raises KeysUnusable without the rig's key, ConfigError for an invalid name, OutputExists without `force` if the
    client is authorised already (with `force`, its older key is revoked) or the file exists.
    """
    _check_name(name)
    pair = msgspec.structs.replace(_new_pair(name), server=rig_keys(folder).public)
    public = PublicKey(name=name, created=pair.created, public=pair.public)
    listed = folder / _CLIENTS / f"{name}.pub"
    if listed.exists() and not force:
        raise OutputExists(f"client {name} has a key already; revoke it, choose another name, or replace it: --force")
    # The client's file first: without it, the authorisation would be useless.
    _write(output, pair, force=force)
    if listed.exists():
        revoke(folder, name)
    try:
        _write(listed, public)
    except BaseException:
        output.unlink(missing_ok=True)
        raise
    return pair


def revoke(folder: Path, name: str) -> PublicKey | None:
    """Revoke a client's authorisation, in running publishers too, and return its key (None: it was damaged).

    Raises KeysUnusable if no client of this name is authorised.
    """
    _check_name(name)
    listed = folder / _CLIENTS / f"{name}.pub"
    try:
        key = _parse(listed.read_bytes(), PublicKey, listed)
    except KeysUnusable:
        key = None
    except OSError as e:
        raise KeysUnusable(f"no client {name} is authorised in {folder}: {e.strerror}; see rtfuse keys list") from e
    target = folder / _REVOKED / f"{name}-{secrets.token_hex(4)}.pub"
    try:
        _private_folder(target.parent)
        os.replace(listed, target)
        os.utime(target)  # since when
    except OSError as e:
        raise OutputUnwritable(f"{listed} cannot be moved: {e.strerror or e}") from e
    return key


def list_keys(folder: Path) -> list[Listed]:
    """Return the keys of a folder: the rig's, then its clients by name. Raises KeysUnusable."""
    pair = rig_keys(folder)
    found = [Listed(pair.name, pair.fingerprint, pair.created, "rig")]
    for place, state in _STATES.items():
        for path in _public_files(folder / place):
            try:
                key = _parse(path.read_bytes(), PublicKey, path)
            except KeysUnusable:
                found.append(Listed(path.stem, "", _iso(path.stat().st_mtime), "damaged"))
            else:
                since = key.created if state == "authorised" else _iso(path.stat().st_mtime)
                found.append(Listed(key.name, key.fingerprint, since, state))
    return found


def rig_keys(folder: Path) -> KeyPair:
    """Return the rig's pair. Raises KeysUnusable, also if other users may read it or write into its folder."""
    with readable(folder):
        if not (folder / _RIG).exists():
            raise KeysUnusable(f"no rig's key found in {folder}; make one: rtfuse keys new rig --dir {folder}")
        _check_not_writable(folder)
        return _read_private(folder / _RIG)


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn an OSError of the block, which reads a folder of keys, into KeysUnusable."""
    try:
        yield
    except KeysUnusable:
        raise
    except OSError as e:
        raise KeysUnusable(f"keys in {folder} cannot be read: {e.strerror or e}") from e


def client_keys(file: str | Path) -> KeyPair:
    """Return a client's keys from its file. Raises KeysUnusable, also if other users may read it."""
    pair = _read_private(Path(file))
    if pair.server is None:
        raise KeysUnusable(f"{file} is a rig's key; want a client's: rtfuse keys new client NAME -o {file}")
    return pair


def curve_client(keys: str | Path | KeyPair, endpoint: str) -> dict[int, bytes]:
    """Return the ZeroMQ options with which a client connects to an encrypted `endpoint`; none for ipc, which is plain.

    Raises KeysUnusable.
    """
    import zmq

    pair = keys if isinstance(keys, KeyPair) else client_keys(keys)
    if pair.server is None:
        raise KeysUnusable(f"{pair} is not a client's; want the file of rtfuse keys new client")
    if not endpoint.startswith("tcp://"):
        return {}
    return {
        zmq.CURVE_SERVERKEY: pair.server.encode(),
        zmq.CURVE_PUBLICKEY: pair.public.encode(),
        zmq.CURVE_SECRETKEY: pair.secret.encode(),
    }


def authorised(folder: Path) -> dict[str, str]:
    """Return the names of the authorised clients, by public key.

    A folder that does not exist is empty. Raises KeysUnusable for a file that holds another text than a
    key, or if other users may write into the folder, and OSError if it cannot be read.
    """
    return _names(folder, _CLIENTS)


def revoked(folder: Path) -> dict[str, str]:
    """Return the names of the revoked clients, by public key. Raises like `authorised`."""
    return _names(folder, _REVOKED)


def folder_state(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Return a value that changes when an authorisation is added, removed or rewritten. Raises like `authorised`."""
    seen = [("", folder.stat().st_mode, folder.stat().st_uid, 0)]
    for path in (folder / _CLIENTS, *_public_files(folder / _CLIENTS)):
        try:
            s = path.stat()
        except FileNotFoundError:
            continue
        seen.append((path.name, s.st_mode, s.st_ino, s.st_mtime_ns))
    return tuple(seen)


def changed_ns(folder: Path) -> int:
    """Return the time of the last added or removed authorisation (system clock, ns); 0 if it is unknown."""
    try:
        return (folder / _CLIENTS).stat().st_mtime_ns
    except OSError:
        return 0


def _names(folder: Path, place: str) -> dict[str, str]:
    _check_not_writable(folder)
    names: dict[str, str] = {}
    for path in _public_files(folder / place):
        try:
            _check_not_writable(path)
            key = _parse(path.read_bytes(), PublicKey, path)
        except (FileNotFoundError, PermissionError):
            continue
        names[key.public] = key.name
    return names


def _public_files(folder: Path) -> list[Path]:
    try:
        _check_not_writable(folder)
        return sorted(path for path in folder.iterdir() if path.suffix == ".pub" and not path.name.startswith("."))
    except FileNotFoundError:
        return []


def _new_pair(name: str) -> KeyPair:
    import zmq

    public, secret = zmq.curve_keypair()
    return KeyPair(
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        public=public.decode(),
        secret=secret.decode(),
    )


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"client name {name[:70]!r}: want letters, digits, '.', '_' and '-', 64 at most")


def _iso(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")


def _private_folder(folder: Path) -> None:
    """Make a folder that only its owner may use; check an existing one. Raises OutputUnwritable, KeysUnusable."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_not_writable(folder)
    except KeysUnusable:
        raise
    except OSError as e:
        raise OutputUnwritable(f"folder {folder} cannot be made: {e.strerror or e}") from e


def _write(path: Path, key: PublicKey, *, force: bool = False) -> None:
    """Write a key that only its owner may read, completely or not at all. Raises OutputExists, OutputUnwritable."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    text = msgspec.json.format(msgspec.json.encode(key), indent=1) + b"\n"
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if force:
            os.replace(partial, path)
        else:
            os.link(partial, path)  # unlike a rename, it fails if the name is taken
    except FileExistsError as e:
        raise OutputExists(f"key {path} exists; choose another name or give --force") from e
    except OSError as e:
        raise OutputUnwritable(f"key {path} cannot be written: {e.strerror or e}") from e
    finally:
        partial.unlink(missing_ok=True)


def _read_private(path: Path) -> KeyPair:
    """Read a pair that only this user may read. Raises KeysUnusable."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            s = os.fstat(fd)
            if not stat.S_ISREG(s.st_mode):
                raise KeysUnusable(f"key {path} is not a file")
            if s.st_uid != os.geteuid():
                raise KeysUnusable(
                    f"key {path} belongs to another user (uid {s.st_uid}), who can read it; a key must be your own: "
                    f"chown {os.geteuid()} {path}"
                )
            if s.st_mode & 0o077:
                raise KeysUnusable(f"key {path} is open to others (mode {s.st_mode & 0o777:04o}): chmod 600 {path}")
            return _parse(file.read(_MAX_BYTES), KeyPair, path)
    except OSError as e:
        if isinstance(e, KeysUnusable):
            raise
        raise KeysUnusable(f"key {path} cannot be read: {e.strerror or e}") from e


def _check_not_writable(path: Path) -> None:
    """Raise KeysUnusable for a path that another user can write: that user could authorise himself. Raises OSError."""
    s = path.stat()
    if s.st_uid not in (0, os.geteuid()):
        raise KeysUnusable(f"{path} belongs to another user (uid {s.st_uid}): chown {os.geteuid()} {path}")
    if s.st_mode & 0o022:
        raise KeysUnusable(f"{path} can be written by others (mode {s.st_mode & 0o777:04o}): chmod go-w {path}")


def _parse(text: bytes, kind: type[K], path: Path) -> K:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        # Without the fault's own words: they may quote the file.
        raise KeysUnusable(f"key {path} is damaged, or not a key of rtfuse; make a new one: rtfuse keys new") from e
