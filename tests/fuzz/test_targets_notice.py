"""A fuzz target that can't fail proves nothing: each is run on code that is broken on purpose, and has to notice."""

from __future__ import annotations

import random
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

import fuzz
from fuzz import conversation, running
from sshproto.agent.bindings import Bindings
from sshproto.auth.client import ClientAuth
from sshproto.auth.server import ServerAuth
from sshproto.channels.mux import Mux
from sshproto.connection import Connection
from sshproto.keys import certificates, host_lines
from sshproto.keys.allowed_signers import AllowedSigner
from sshproto.keys.authorized_keys import AuthorizedKeys
from sshproto.keys.known_hosts import KnownHosts, Match, Trust
from sshproto.keys.krl import RevokedCertificates
from sshproto.keys.permits import Permit
from sshproto.keys.private import PrivateKey
from sshproto.keys.public import PublicKey
from sshproto.keys.sshfp import Sshfp
from sshproto.operations.x11_setup import Setup
from sshproto.replay import secrets
from sshproto.replay.trace.file import Trace
from sshproto.ssh_config.reader import Reader as ConfigReader
from sshproto.transport import negotiation
from sshproto.transport.ident import IdentReader
from sshproto.transport.macs import Mac
from sshproto.transport.packets import Opener
from sshproto.wire.codec import string
from sshproto.wire.messages import UserauthFailure, UserauthInfoResponse
from sshproto_cli import specs


def nothing(*arguments: Any, **options: Any) -> None:
    """In place of something."""


def twice(name: str) -> Callable[..., Any]:
    """Do what a method of the first argument's does, twice."""

    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        KEPT[name](self, *arguments, **options)
        return KEPT[name](self, *arguments, **options)

    return method


def first_of_the_server(category: str, client: tuple[str, ...], server: tuple[str, ...], us: Any) -> str:
    return next(name for name in (*server, *client) if name in client)


def no_single_bytes(self: Any, data: bytes, now: float) -> None:
    if len(data) != 1:
        KEPT["receive_data"](self, data, now)


def not_read(*arguments: Any) -> Any:
    raise KeyError("not read")


KEPT = {
    "reject": ServerAuth.reject,
    "receive_data": Connection.receive_data,
    "credit": Mux.credit,
    "close_channel": Mux.close_channel,
    "next_event": Connection.next_event,
}

BROKEN: list[tuple[str, Any, str, Any]] = [
    ("ident", IdentReader, "_check_length", nothing),
    ("packets", Opener, "drop", nothing),
    ("packets", Mac, "verify", lambda *arguments: True),
    ("negotiation", negotiation, "_first_match", first_of_the_server),
    ("kex", negotiation, "strict_agreed", lambda *arguments: False),
    ("login_server", ServerAuth, "reject", twice("reject")),
    ("login_client", ClientAuth, "receive", not_read),
    ("channels_server", Mux, "credit", twice("credit")),
    ("channels_client", Mux, "close_channel", twice("close_channel")),
    ("pair", PublicKey, "verify", nothing),
    ("session", Connection, "handle_timeout", not_read),
    ("session", Connection, "receive_data", not_read),
    ("chunking", Connection, "receive_data", no_single_bytes),
    ("messages", UserauthInfoResponse, "encode", lambda self: UserauthInfoResponse(()).encode()),
    ("keys", PublicKey, "verify", nothing),
    ("certificates", certificates, "_verify", nothing),
    ("certificates", RevokedCertificates, "covers", nothing),
    ("hosts", AuthorizedKeys, "authorize", lambda *arguments, **told: Permit(grounds="line 1")),
    ("hosts", KnownHosts, "lookup", lambda *arguments: Match(Trust.MATCH, 1, None, ())),
    ("trust", KnownHosts, "lookup", lambda *arguments, **more: Match(Trust.MATCH, 1, None, ())),
    ("trust", host_lines, "remove", lambda text, *where: host_lines.Edited(text, ())),
    ("signatures", AllowedSigner, "_has", lambda self, signer: True),
    ("signatures", PublicKey, "verify", nothing),
    ("trust", Sshfp, "matches", lambda self, key: True),
    ("keylogs", secrets, "_parse_line", not_read),
    ("traces", Trace, "encode", lambda self: b""),
    ("specs", specs, "_fail", nothing),
    ("ssh_config", ConfigReader, "set", lambda self, slot, value: self.values.update({slot: value})),
    ("x11", Setup, "encode", lambda self, cookie: b"B\0\0\x0b" + bytes(8)),
    ("agent", Bindings, "check_login", nothing),
    ("agent", PrivateKey, "sign", lambda *arguments: string(b"ssh-ed25519") + string(bytes(64))),
]


NAMES = [f"{name}-{attribute}" for name, _, attribute, _ in BROKEN]


@pytest.mark.parametrize(("name", "owner", "attribute", "broken"), BROKEN, ids=NAMES)
def test_a_break_is_noticed(
    name: str, owner: Any, attribute: str, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = import_module(f"fuzz.{name}")
    seeds, rng = target.seeds(), random.Random(5)
    mutator = getattr(target, "mutate", running.mutate)
    conversation._made.cache_clear()
    monkeypatch.setattr(owner, attribute, broken)
    noticed = False
    try:
        for number in range(len(seeds) + 300):
            seed = seeds[number % len(seeds)]
            target.fuzz(seed if number < len(seeds) else mutator(seed, seeds, rng))
    except Exception:
        noticed = True
    finally:
        monkeypatch.undo()
        conversation._made.cache_clear()
    assert noticed


def test_every_target_is_broken_once() -> None:
    own = {"capture", "observer"}  # tests/replay breaks what these are about
    assert {it[0] for it in BROKEN} == set(fuzz.TARGETS) - own


# ----------------------------------------------------------------------------------------------------------- the runner


def test_the_same_seed_makes_the_same_inputs() -> None:
    for name in ("kex", "negotiation", "session", "keys", "ident"):
        target = import_module(f"fuzz.{name}")
        seeds = target.seeds()
        mutator = getattr(target, "mutate", running.mutate)
        one, two = [], []
        for found in (one, two):
            found += [mutator(seeds[n % len(seeds)], seeds, random.Random(n)) for n in range(40)]
        assert one == two
        assert len(set(one)) > 20


def test_what_reaches_more_joins(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A run starts with one seed, finds more, writes down what, and sifts it."""
    target = import_module("fuzz.specs")
    monkeypatch.setattr(running, "_HERE", tmp_path)
    arguments = ["specs", "--seconds", "60", "--runs", "400", "--corpus", str(tmp_path / "found")]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as exit:
        running.main("specs", target.fuzz, lambda: [b"\0"], modules=target.MODULES)
    assert exit.value.code == 0
    assert "400 runs" in (told := capsys.readouterr().out), told
    found = list((tmp_path / "found").iterdir())
    assert len(found) > 3
    monkeypatch.setattr("sys.argv", [*arguments, "--sift", "100"])
    running.main("specs", target.fuzz, lambda: [b"\0"], modules=target.MODULES)
    kept = list((tmp_path / "corpus" / "specs").iterdir())
    assert 0 < len(kept) <= len(found)
    assert sum(path.stat().st_size for path in kept) <= 100


def test_what_fails_is_written_down(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def fails(data: bytes) -> None:
        if UserauthFailure.number in data:
            raise KeyError(data)

    monkeypatch.setattr(running, "_HERE", tmp_path)
    monkeypatch.setattr("sys.argv", ["x", "--runs", "500"])
    with pytest.raises(SystemExit) as exit:
        running.main("x", fails, lambda: [bytes(8)])
    assert exit.value.code == 1
    (path,) = (tmp_path / "crashes" / "x").iterdir()
    assert UserauthFailure.number in path.read_bytes()
    monkeypatch.setattr("sys.argv", ["x", str(path)])
    with pytest.raises(KeyError):
        running.main("x", fails, lambda: [bytes(8)])
