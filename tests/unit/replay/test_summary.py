"""A connection in a few words: each value, and that it is None where nobody knows."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import attrs
import pytest

from sshproto.config import Preferences
from sshproto.replay.events import Missing, Observed, PacketOpened, Problem, Side
from sshproto.replay.observer import Observer
from sshproto.replay.secrets import Secrets
from sshproto.replay.summary import Summary, hassh
from sshproto.wire.messages import KexInit
from sshproto.wire.table import Role
from tests.replay.sessions import Recording, Scribe, drain, observe, record, session, split, told
from tests.support.pair import HOST_KEY

C, S = Side.DIALLER, Side.DIALLED

KEYS = (
    "client_version server_version kex host_key_alg host_key_sha256 cipher_c2s cipher_s2c mac_c2s mac_s2c "
    "compression_c2s compression_s2c strict_kex hassh hassh_server session_id kex_epochs auth_success complete "
    "decrypted"
).split()


@pytest.fixture(scope="module")
def plain() -> Recording:
    return session(
        preferences=Preferences(
            kex=("curve25519-sha256",), cipher=("aes128-ctr",), cipher_server_to_client=("aes256-gcm@openssh.com",),
            mac=("hmac-sha2-512",), mac_server_to_client=("hmac-sha2-256",), compression=("zlib@openssh.com",),
            compression_server_to_client=("none",),
        ),
        rekeys="c",
    )  # fmt: skip


def summed(events: list[Observed]) -> Summary:
    summary = Summary()
    for seen in events:
        summary.add(seen)
    return summary


def told_all(recording: Recording, found: Secrets | None = None, *, ends: bool = True) -> list[Observed]:
    observer = Observer(found)
    for side, data in recording.wire:
        observer.feed(side, data)
    for side in Side if ends else ():
        observer.end(side)
    observer.finish()
    return drain(observer)


def test_everything(plain: Recording) -> None:
    events = told_all(plain, plain.secrets)
    summary = summed(events)
    found = summary.as_dict()
    assert list(found) == KEYS
    assert json.loads(json.dumps(found)) == found
    decrypted = found.pop("decrypted")
    hashes = found.pop("hassh"), found.pop("hassh_server")
    session_id = plain.pair.client.conn.session_id
    assert session_id is not None
    assert found == {
        "client_version": "SSH-2.0-sshproto_0.1.0",
        "server_version": "SSH-2.0-sshproto_0.1.0",
        "kex": "curve25519-sha256",
        "host_key_alg": "ssh-ed25519",
        "host_key_sha256": HOST_KEY.public_key.fingerprint(),
        "cipher_c2s": "aes128-ctr",
        "cipher_s2c": "aes256-gcm@openssh.com",
        "mac_c2s": "hmac-sha2-512",
        "mac_s2c": "hmac-sha2-256",  # void, but that is what the lists say
        "compression_c2s": "zlib@openssh.com",
        "compression_s2c": "none",
        "strict_kex": True,
        "session_id": session_id.hex(),
        "kex_epochs": 2,
        "auth_success": True,
        "complete": True,
    }
    for role, side in (("client", C), ("server", S)):
        payloads = [it.payload for it in told(events, PacketOpened, side)]
        assert decrypted[role] == {
            "messages": [payload[0] for payload in payloads],
            "payload_sha256": hashlib.sha256(b"".join(payloads)).hexdigest(),
        }
    assert len(set(hashes)) == 2
    assert summary.problems == []
    assert (summary.client, summary.sure) == (C, True)


def test_without_keys(plain: Recording) -> None:
    summary = summed(told_all(plain))
    whole, found = summed(told_all(plain, plain.secrets)).as_dict(), summary.as_dict()
    assert [key for key in KEYS if found[key] != whole[key]] == [
        "session_id",
        "kex_epochs",
        "auth_success",
        "decrypted",
    ]
    assert (found["session_id"], found["kex_epochs"], found["auth_success"], found["decrypted"]) == (
        None,
        1,
        None,
        None,
    )
    assert not summary.opened


def test_with_some_keys(plain: Recording) -> None:
    """The login is seen, but what follows is not."""
    secrets = Secrets()
    secrets.add_key_log(plain.key_log[0])
    found = summed(told_all(plain, secrets)).as_dict()
    assert (found["kex_epochs"], found["auth_success"], found["decrypted"]) == (2, True, None)
    assert found["session_id"]
    problem = "no key is known: this can't be read, nor would a key exchange in it show"
    assert summed(told_all(plain, secrets)).problems == [f"dialled: {problem}", f"dialler: {problem}"]


def test_a_connection_that_ends_with_the_key_exchange() -> None:
    """Its secret is known; that nothing was encrypted is no reason to say that nothing could be read."""
    plain = session()
    wire = []
    for side in Side:
        ident, clear = split(plain.wire, side)
        wire.append((side, plain.sides[side][: clear[-1][0] + clear[-1][1]]))
        assert ident
    found = summed(observe(wire, plain.secrets)).as_dict()
    assert found["decrypted"]["client"]["messages"] == [20, 30, 21]
    assert found["decrypted"]["server"]["messages"] == [20, 31, 21]
    assert found["auth_success"] is False
    assert summed(observe(wire)).as_dict()["decrypted"] is None


def test_late_keys(plain: Recording) -> None:
    observer = Observer()
    for side, data in plain.wire:
        observer.feed(side, data)
    for side in Side:
        observer.end(side)
    summary = summed(drain(observer))
    assert summary.as_dict()["decrypted"] is None
    observer.kex.secrets.add_key_log("\n".join(plain.key_log))
    observer.add_secrets()
    for seen in drain(observer):
        summary.add(seen)
    assert summary.as_dict() == summed(told_all(plain, plain.secrets)).as_dict()


def test_the_other_way_round(plain: Recording) -> None:
    turned = attrs.evolve(plain, wire=[(side.other, data) for side, data in plain.wire])
    assert summed(told_all(turned, plain.secrets)).as_dict() == summed(told_all(plain, plain.secrets)).as_dict()


def test_what_is_complete(plain: Recording) -> None:
    events = told_all(plain, ends=False)
    assert not summed(events).complete
    ended = summed(events)
    ended.ended()
    assert ended.complete
    assert summed(told_all(plain, plain.secrets, ends=False)).complete  # a DISCONNECT is an end
    gap = Observed(side=S, time=None, frames=(), event=Missing(size=5, problem="x"))
    assert not summed([*told_all(plain), gap]).complete
    for fatal in (True, False):
        problem = Observed(side=S, time=None, frames=(), event=Problem(problem="x", fatal=fatal))
        assert summed([*told_all(plain), problem]).complete is not fatal
    one = attrs.evolve(plain, wire=[piece for piece in plain.wire if piece[0] is C])
    assert not summed(told_all(one)).complete
    cut = attrs.evolve(plain, wire=[*plain.wire[:-1], (plain.wire[-1][0], plain.wire[-1][1][:-1])])
    assert not summed(told_all(cut, plain.secrets)).complete


def test_a_login_that_fails() -> None:
    def refuse(conn: Any, question: Any) -> None:
        conn.refuse(question)

    recording = record(server_answer=refuse)
    recording.pair.run()
    found = summed(told_all(recording, recording.secrets)).as_dict()
    assert found["auth_success"] is False
    assert found["decrypted"] is not None


def test_nothing() -> None:
    found = summed(observe([])).as_dict()
    assert list(found) == KEYS
    assert {key: value for key, value in found.items() if value is not None} == {"kex_epochs": 0, "complete": False}
    banner = summed(observe([(S, b"SSH-2.0-server\r\n")])).as_dict()
    assert (banner["client_version"], banner["server_version"]) == (None, "SSH-2.0-server")


def test_a_key_exchange_that_is_not_complete() -> None:
    events = observe(session().wire)
    wire = []
    for side in Side:
        (payload,) = [it.payload for it in told(events, PacketOpened, side) if it.number == 20]
        wire.append(Scribe(side, b"SSH-2.0-x").send(payload).piece)
    found = summed(observe(wire)).as_dict()
    assert found["kex"] == "mlkem768x25519-sha256"
    assert found["host_key_sha256"] is None
    assert (found["kex_epochs"], found["strict_kex"], found["decrypted"]) == (1, True, None)
    alone = summed(observe(wire[:1])).as_dict()
    assert alone["hassh"]
    assert (alone["hassh_server"], alone["strict_kex"], alone["kex_epochs"], alone["kex"]) == (None, None, 0, None)


def test_problems_are_bounded() -> None:
    problem = Observed(side=S, time=None, frames=(), event=Problem(problem="x", fatal=False))
    summary = summed([problem] * 250)
    assert summary.problems == ["dialled: x"] * 100
    assert summary.more_problems == 150


def test_hassh() -> None:
    """The definition, by hand (github.com/salesforce/hassh)."""
    kexinit = KexInit(
        bytes(16),
        ("k1", "ext-info-c"),
        ("h",),
        ("c1", "c2"),
        ("s1",),
        ("mc",),
        ("ms1", "ms2"),
        ("none",),
        ("zlib", "none"),
    )
    assert hassh(kexinit, Role.CLIENT) == hashlib.md5(b"k1,ext-info-c;c1,c2;mc;none").hexdigest()
    assert hassh(kexinit, Role.SERVER) == hashlib.md5(b"k1,ext-info-c;s1;ms1,ms2;zlib,none").hexdigest()
