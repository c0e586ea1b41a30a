"""Keys as files: who may read them, that none is overwritten, and what the command line shows."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest
import zmq
from typer.testing import CliRunner

from rtfuse.cli.keys import app
from rtfuse.errors import ConfigError, KeysUnusable, OutputExists, OutputUnwritable
from rtfuse.wire.keys import (
    authorised,
    client_keys,
    curve_client,
    folder_state,
    key_folder,
    list_keys,
    new_client,
    new_rig,
    revoke,
    revoked,
    rig_keys,
)


@pytest.fixture
def folder(tmp_path):
    new_rig(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def desk(folder, tmp_path):
    """A client's file."""
    new_client(folder, "desk", tmp_path / "desk.key")
    return tmp_path / "desk.key"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_is_its_owners_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        new_rig(tmp_path / "a" / "keys")
        new_client(tmp_path / "a" / "keys", "desk", tmp_path / "desk.key")
    finally:
        os.umask(before)
    folder = tmp_path / "a" / "keys"
    assert [mode(p) for p in (folder, folder / "clients", folder / "revoked")] == [0o700] * 3
    assert [mode(p) for p in (folder / "rig.key", folder / "clients" / "desk.pub", tmp_path / "desk.key")] == [
        0o600
    ] * 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "desk.key"]  # no partial file is left


def test_a_clients_file_has_all_that_it_needs_and_the_rig_nothing_secret_of_it(folder, desk):
    pair, rig = client_keys(desk), rig_keys(folder)
    assert pair.server == rig.public
    assert zmq.curve_public(pair.secret.encode()).decode() == pair.public
    assert zmq.curve_public(rig.secret.encode()).decode() == rig.public
    assert authorised(folder) == {pair.public: "desk"}
    on_the_rig = [p.read_text() for p in folder.rglob("*") if p.is_file()]
    assert not [text for text in on_the_rig if pair.secret in text]


def test_a_secret_is_in_no_text_of_a_pair(desk):
    pair = client_keys(desk)
    assert pair.secret not in f"{pair} {pair!r} {pair.__rich_repr__()}"
    assert pair.fingerprint in repr(pair)


@pytest.mark.parametrize("opened", [0o640, 0o604, 0o660, 0o602, 0o610])
def test_a_key_that_others_can_open_is_refused_with_the_remedy(folder, desk, opened):
    for path, read in ((desk, lambda: client_keys(desk)), (folder / "rig.key", lambda: rig_keys(folder))):
        path.chmod(opened)
        with pytest.raises(KeysUnusable, match=rf"mode {opened:04o}.*chmod 600 {path}"):
            read()
        path.chmod(0o600)
        read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_of_another_user_is_refused(folder, desk):
    for path, read in ((desk, lambda: client_keys(desk)), (folder / "rig.key", lambda: rig_keys(folder))):
        os.chown(path, 12345, -1)
        with pytest.raises(KeysUnusable, match=r"another user \(uid 12345\).*chown"):
            read()


@pytest.mark.parametrize("place", [".", "clients"])
def test_a_folder_that_others_can_write_is_refused(folder, desk, place):
    (folder / place).chmod(0o770)
    with pytest.raises(KeysUnusable, match="chmod go-w"):
        authorised(folder)
    with pytest.raises(KeysUnusable):
        folder_state(folder) if place == "clients" else rig_keys(folder)


def test_a_public_key_that_others_can_write_authorises_nobody(folder, desk):
    (folder / "clients" / "desk.pub").chmod(0o666)
    assert authorised(folder) == {}


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xfe", b"[]", b"{}", b'{"name": "x"}', b"[" * 100_000, b"no json, but a secret: hunter2"],
    ids=range(7),
)
def test_what_is_no_key_is_refused_without_being_quoted(folder, desk, text):
    desk.write_bytes(text)
    with pytest.raises(KeysUnusable, match="damaged") as e:
        client_keys(desk)
    assert "hunter2" not in str(e.value)
    (folder / "clients" / "desk.pub").write_bytes(text)
    assert authorised(folder) == {}
    assert [k.state for k in list_keys(folder)] == ["rig", "damaged"]


def test_a_key_of_the_wrong_length_is_refused(desk):
    tree = json.loads(desk.read_text())
    for field in ("public", "secret", "server"):
        desk.write_text(json.dumps(tree | {field: tree[field][:-1]}))
        with pytest.raises(KeysUnusable):
            client_keys(desk)


@pytest.mark.parametrize("what", ["nothing", "a folder", "a pipe"])
def test_what_is_no_file_is_refused(tmp_path, what):
    path = tmp_path / "x.key"
    if what == "a folder":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    with pytest.raises(KeysUnusable, match=r"x\.key"):
        client_keys(path)


def test_a_rigs_key_is_no_clients(folder):
    with pytest.raises(KeysUnusable, match="rtfuse keys new client"):
        client_keys(folder / "rig.key")
    with pytest.raises(KeysUnusable, match="not a client's"):
        curve_client(rig_keys(folder), "tcp://127.0.0.1:5555")


def test_nothing_is_overwritten_without_a_word(folder, desk, tmp_path):
    kept = {p: p.read_bytes() for p in (folder / "rig.key", desk, folder / "clients" / "desk.pub")}
    with pytest.raises(OutputExists, match="--force"):
        new_rig(folder)
    with pytest.raises(OutputExists, match="--force"):
        new_client(folder, "desk", tmp_path / "other.key")
    with pytest.raises(OutputExists, match="--force"):
        new_client(folder, "other", desk)
    assert kept == {p: p.read_bytes() for p in kept}
    assert list(authorised(folder).values()) == ["desk"]
    assert not (tmp_path / "other.key").exists()


def test_a_replaced_key_is_a_revoked_one(folder, desk):
    old = client_keys(desk)
    new = new_client(folder, "desk", desk, force=True)
    assert authorised(folder) == {new.public: "desk"}
    assert revoked(folder) == {old.public: "desk"}
    assert client_keys(desk) == new


def test_of_many_at_once_one_gets_the_name(folder, tmp_path):
    made, refused = [], []

    def make():
        try:
            made.append(new_client(folder, "desk", tmp_path / "desk.key"))
        except OutputExists as e:
            refused.append(e)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 7)
    assert client_keys(tmp_path / "desk.key") == made[0]
    assert authorised(folder) == {made[0].public: "desk"}


def test_revoking_moves_an_authorisation_away_and_is_seen(folder, desk):
    before = folder_state(folder)
    key = revoke(folder, "desk")
    assert key.fingerprint == client_keys(desk).fingerprint
    assert authorised(folder) == {}
    assert revoked(folder) == {key.public: "desk"}
    assert folder_state(folder) != before
    with pytest.raises(KeysUnusable, match="no client desk is authorised"):
        revoke(folder, "desk")


def test_a_damaged_authorisation_can_be_revoked(folder, desk):
    (folder / "clients" / "desk.pub").write_text("?")
    assert revoke(folder, "desk") is None
    assert not list((folder / "clients").iterdir())


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-o", "a b", "x" * 65, "ü", "a\n"])
def test_names_stay_inside_the_folder(folder, tmp_path, name):
    with pytest.raises(ConfigError, match="client name"):
        new_client(folder, name, tmp_path / "c.key")
    with pytest.raises(ConfigError, match="client name"):
        revoke(folder, name)


def test_where_nothing_can_be_written_says_so(folder, tmp_path):
    with pytest.raises(OutputUnwritable, match="No such file"):
        new_client(folder, "desk", tmp_path / "absent" / "desk.key")
    assert authorised(folder) == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputUnwritable):
        new_rig(tmp_path / "file" / "keys")


def test_a_folder_that_is_none_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KeysUnusable, match="file"):
        list_keys(tmp_path / "file")
    with pytest.raises(KeysUnusable, match="cannot be read: File name too long"):
        rig_keys(tmp_path / ("x" * 300))


def test_a_client_needs_a_rig_first(tmp_path):
    with pytest.raises(KeysUnusable, match="rtfuse keys new rig"):
        new_client(tmp_path, "desk", tmp_path / "desk.key")


def test_the_folder_follows_the_users_configuration(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert key_folder() == tmp_path / "rtfuse" / "keys"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert key_folder() == Path.home() / ".config" / "rtfuse" / "keys"


def test_the_command_line_makes_lists_and_revokes_and_shows_no_secret(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    shown, run = [], CliRunner().invoke
    for command in ("new rig", "new client desk -o d.key", "new client van", "revoke van", "list"):
        done = run(app, command.split())
        assert done.exit_code == 0, done.output
        shown.append(done.output)
    desk = client_keys(tmp_path / "d.key")
    table = shown[-1]
    assert all(word in table for word in ("rig", "desk", "van", "authorised", "revoked", desk.fingerprint))
    secrets = [desk.secret, client_keys(tmp_path / "van.key").secret, rig_keys(key_folder()).secret]
    assert not [secret for secret in secrets for text in shown if secret in text]
    assert isinstance(run(app, ["new", "rig"]).exception, OutputExists)
    made = run(app, ["new", "rig", "--dir", str(tmp_path / "my keys")])
    assert f"NAME.key --dir '{tmp_path / 'my keys'}'; rtfuse run --keys '{tmp_path / 'my keys'}'" in made.output
