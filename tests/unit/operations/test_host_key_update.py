"""A server tells of its host keys and proves them; a client learns them (OpenSSH's hostkeys-00, hostkeys-prove-00)."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto import events as ev
from sshproto.channels.requests import HostKeysAnnounced, HostKeysProve
from sshproto.config import ClientConfig, Limits, Preferences, ServerConfig
from sshproto.errors import ConnectionLoss, InvalidArgument, RequestRefused, SignatureInvalid, WrongPhase
from sshproto.keys import KnownHosts, PrivateKey, PublicKey, known_hosts
from sshproto.keys.host_proofs import check_proofs, proof_input, prove
from sshproto.keys.known_hosts import line_for
from sshproto.operations.host_key_update import HostKeyUpdate, update_host_keys
from sshproto.operations.login import LoginPlan, log_in
from sshproto.server import ServerConnection
from sshproto.wire.codec import string
from tests.support.pair import HOST_KEY, USER_KEY
from tests.support.running import QUICK, Scene

ECDSA = PrivateKey.generate("ecdsa-sha2-nistp256")
RSA = PrivateKey.generate("ssh-rsa")
KEYS = (HOST_KEY, ECDSA, RSA)
PUBLICS = tuple(key.public_key for key in KEYS)
OLD = PrivateKey.generate().public_key
HOST = "host.example.org"
SESSION = b"s" * 32
ALGORITHMS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")


def served(*, client: dict[str, Any] | None = None, **server: Any) -> Scene:
    scene = Scene(
        ClientConfig(**{"user": "alice", "debug_raise": True, "preferences": QUICK, **(client or {})}),
        ServerConfig(**{"host_keys": KEYS, "debug_raise": True, "preferences": QUICK, **server}),
    ).serve()
    scene.client.perform(log_in(scene.client.hub, lambda question: True, LoginPlan([USER_KEY])))
    scene.settle()
    return scene


def knowing(*keys: PublicKey, more: str = "") -> KnownHosts:
    return known_hosts.parse("".join(line_for(HOST, 22, key) for key in keys) + more, "hosts")


def learn(scene: Scene, known: KnownHosts, **more: Any) -> HostKeyUpdate:
    update: HostKeyUpdate = scene.client.perform(update_host_keys(scene.client.hub, known, HOST, **more))
    assert not scene.bugs
    return update


# ----------------------------------------------------------------------------------------------------------- operations


def test_keys_are_learned_and_forgotten() -> None:
    scene = served()
    update = learn(scene, knowing(PUBLICS[0], OLD))
    assert update.added == PUBLICS[1:]
    assert [entry.blob for entry in update.removed] == [OLD.blob]
    assert update.changes
    assert learn(scene, knowing(*PUBLICS)) == HostKeyUpdate()
    assert learn(scene, knowing(*PUBLICS, OLD)).removed[0].line == 4


@pytest.mark.parametrize(
    ("known", "problem"),
    [
        (knowing(ECDSA.public_key), "not known by a line of its own"),
        (knowing(HOST_KEY.public_key, more=f"@revoked * {OLD.openssh()}"), "line 2 of hosts has the marker @revoked"),
        (knowing(HOST_KEY.public_key, more=f"*.org {OLD.openssh()}"), "line 2 of hosts has a pattern"),
        (knowing(HOST_KEY.public_key, more=f"{HOST},x {OLD.openssh()}"), "line 2 of hosts has a pattern or several"),
        (knowing(HOST_KEY.public_key, more=f"x {RSA.public_key.openssh()}"), "one of the keys under another name"),
        (knowing(*PUBLICS, OLD, more=f"x {OLD.openssh()}"), "line 5 of hosts has one of the keys under another name"),
        (known_hosts.parse(f"[{HOST}]:22 {OLD.openssh()}"), "not known by a line of its own"),
    ],
)
def test_what_a_person_has_written_is_left_alone(known: KnownHosts, problem: str) -> None:
    update = learn(served(), known)
    assert not update.changes
    assert problem in update.problem


def test_a_server_may_tell_nothing_and_is_not_waited_for_for_ever() -> None:
    scene = served(announce_host_keys=False)
    start = scene.now
    assert learn(scene, knowing(PUBLICS[0]), seconds=5.0) == HostKeyUpdate()
    assert 5.0 <= scene.now - start < 6.0


def test_an_announcement_that_comes_late_is_heard() -> None:
    scene = served(announce_host_keys=False)
    task = scene.client.begin(update_host_keys(scene.client.hub, knowing(PUBLICS[0]), HOST))
    scene.settle()
    assert not task.done
    scene.server.conn.announce_host_keys()
    scene.settle()
    assert not task.value().added  # who announces nothing of itself proves nothing either
    assert "does not prove" in task.value().problem


def test_a_connection_that_ends_meanwhile() -> None:
    scene = served(announce_host_keys=False)
    task = scene.client.begin(update_host_keys(scene.client.hub, knowing(PUBLICS[0]), HOST))
    scene.settle()
    scene.server.conn.disconnect("bye")
    scene.settle()
    with pytest.raises(ConnectionLoss):
        task.value()


def told(scene: Scene, *blobs: bytes) -> None:
    scene.server.conn.global_request(HostKeysAnnounced(blobs), want_reply=False)
    scene.settle()


def test_what_is_told_need_not_be_true() -> None:
    scene = served()
    known = knowing(PUBLICS[0])
    told(scene, PUBLICS[0].blob, OLD.blob)  # which it can't prove
    assert "does not prove: the peer refused" in learn(scene, known).problem
    told(scene, OLD.blob)
    assert "the key of this connection is not among" in learn(scene, known).problem
    told(scene)
    assert "the key of this connection is not among" in learn(scene, known).problem
    told(scene, PUBLICS[0].blob, b"", b"rubbish", string(b"ssh-new@example.org") + b"x", PUBLICS[0].blob)
    assert learn(scene, known) == HostKeyUpdate()
    # What can't be read here is not forgotten either.
    strange = known_hosts.parse(line_for(HOST, 22, PUBLICS[0]) + f"{HOST} ssh-dss AAAAB3NzaC1kc3MAAACB\n", "hosts")
    told(scene, PUBLICS[0].blob, strange.entries[1].blob)
    assert learn(scene, strange) == HostKeyUpdate()
    told(scene, *[b"x%d" % number for number in range(64)], PUBLICS[0].blob)  # more than Limits.host_keys_announced
    assert learn(scene, strange) == HostKeyUpdate()  # what was told before still counts


def test_short_keys_are_not_learned() -> None:
    scene = served(client={"limits": Limits(minimum_rsa_bits=4096)})
    assert learn(scene, knowing(PUBLICS[0])).added == (PUBLICS[1],)


def test_keys_that_would_not_be_asked_for_are_not_learned() -> None:
    for names, learned in ((("ssh-ed25519",), ()), (("ssh-ed25519", "rsa-sha2-256"), (PUBLICS[2],))):
        scene = served(client={"preferences": attrs.evolve(QUICK, host_key=names)})
        assert learn(scene, knowing(PUBLICS[0])) == HostKeyUpdate(learned)
        # They are the server's all the same, and are not forgotten.
        assert learn(scene, knowing(*PUBLICS)) == HostKeyUpdate()


@pytest.mark.parametrize("wrong", [b"", b"\0\0\0\1x", None])
def test_proofs_that_are_none(wrong: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def lie(self: Any, question: Any) -> None:
        data = prove(KEYS, question.request.keys, SESSION, ALGORITHMS) if wrong is None else wrong
        self.succeed(question, data)

    monkeypatch.setattr(ServerConnection, "prove_host_keys", lie)
    update = learn(served(), knowing(PUBLICS[0]))
    assert not update.changes
    assert "does not prove" in update.problem


def test_proofs_are_bounded() -> None:
    """A signature costs: who asks again and again gets no more."""
    scene = served()
    request = HostKeysProve((ECDSA.public_key.blob,))
    for _ in range(16):
        assert scene.client.perform(scene.client.hub.request(request))
    with pytest.raises(RequestRefused):
        scene.client.perform(scene.client.hub.request(request))
    assert scene.client.hub.lost is None


def test_a_request_that_wants_no_reply_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = served()
    monkeypatch.setattr(ServerConnection, "prove_host_keys", lambda *_: pytest.fail("signed for nobody"))
    scene.client.conn.global_request(HostKeysProve((ECDSA.public_key.blob,)), want_reply=False)
    scene.settle()
    assert not scene.bugs


def test_cancelled_while_it_waits_for_proofs() -> None:
    scene = served()
    task = scene.client.begin(update_host_keys(scene.client.hub, knowing(PUBLICS[0]), HOST))
    assert not task.done
    task.cancel()
    scene.settle()
    assert scene.client.perform(scene.client.hub.request(HostKeysProve((ECDSA.public_key.blob,))))


# ------------------------------------------------------------------------------------------------ the server's commands


def test_the_commands_of_a_server(bare: Scene) -> None:
    """For who answers a connection's questions itself."""
    conn = bare.server.conn
    before = ServerConnection(ServerConfig(host_keys=(HOST_KEY,)), 0.0)  # type: ignore[arg-type]
    with pytest.raises(WrongPhase):
        before.announce_host_keys()
    conn.announce_host_keys()
    bare.settle()
    assert bare.client.hub.announced == (HOST_KEY.public_key.blob,)
    task = bare.client.begin(bare.client.hub.request(HostKeysProve((HOST_KEY.public_key.blob,))))
    bare.settle()
    question = bare.server.hub.take_question()
    assert isinstance(question, ev.GlobalRequested)
    conn.prove_host_keys(question)
    bare.settle()
    check_proofs(task.value(), [HOST_KEY.public_key], conn.session_id, ["ssh-ed25519"])
    for wrong in (HostKeysAnnounced(()), None):
        with pytest.raises(InvalidArgument):
            conn.prove_host_keys(attrs.evolve(question, request=wrong))


@pytest.mark.parametrize("algorithm", ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"])
def test_an_rsa_key_signs_as_it_was_agreed(algorithm: str) -> None:
    preferences = attrs.evolve(QUICK, host_key=(algorithm,))
    scene = served(client={"preferences": preferences}, preferences=attrs.evolve(QUICK, host_key=ALGORITHMS))
    proofs = scene.client.perform(scene.client.hub.request(HostKeysProve((RSA.public_key.blob,))))
    used = algorithm if algorithm.startswith("rsa") else "rsa-sha2-512"
    check_proofs(proofs, [RSA.public_key], scene.client.conn.session_id, [used])


def test_keys_that_are_elsewhere_are_announced_and_not_proved() -> None:
    """A client must not forget them, and learns them by meeting them."""
    scene = served(host_keys=(HOST_KEY, ECDSA.public_key))
    assert scene.client.hub.announced == (HOST_KEY.public_key.blob, ECDSA.public_key.blob)
    assert "does not prove" in learn(scene, knowing(PUBLICS[0])).problem


# --------------------------------------------------------------------------------------------------------------- proofs


def test_proofs_are_bound_to_a_session_and_a_key() -> None:
    data = prove(KEYS, [key.blob for key in PUBLICS], SESSION, ALGORITHMS)
    assert data is not None
    check_proofs(data, PUBLICS, SESSION, ALGORITHMS)
    for session, keys, algorithms in (
        (b"t" * 32, PUBLICS, ALGORITHMS),
        (SESSION, PUBLICS[::-1], ALGORITHMS),
        (SESSION, PUBLICS[:2], ALGORITHMS),
        (SESSION, (*PUBLICS, OLD), ALGORITHMS),
        (SESSION, PUBLICS, ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-256")),
        (SESSION, PUBLICS, ()),
    ):
        with pytest.raises(SignatureInvalid):
            check_proofs(data, keys, session, algorithms)


def test_what_is_not_proved() -> None:
    assert prove(KEYS, [], SESSION, ALGORITHMS) is None
    assert prove(KEYS, [OLD.blob], SESSION, ALGORITHMS) is None
    assert prove(KEYS, [PUBLICS[0].blob] * 2, SESSION, ALGORITHMS) is None
    assert prove(PUBLICS, [PUBLICS[0].blob], SESSION, ALGORITHMS) is None
    assert prove(KEYS, [RSA.public_key.blob], SESSION, ("ssh-ed25519",)) is None
    assert proof_input(SESSION, b"k") == string(b"hostkeys-prove-00@openssh.com") + string(SESSION) + string(b"k")


@given(st.binary(max_size=200))
@settings(max_examples=50)
def test_any_bytes_prove_nothing(data: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        check_proofs(data, PUBLICS[:1], SESSION, ALGORITHMS)


def test_preferences_may_allow_old_signatures() -> None:
    assert Preferences().host_key  # SHA-1 is not among them
    data = prove((RSA,), [RSA.public_key.blob], SESSION, ("ssh-rsa",))
    assert data is not None
    with pytest.raises(SignatureInvalid, match="is made with ssh-rsa"):
        check_proofs(data, [RSA.public_key], SESSION, Preferences().host_key)
