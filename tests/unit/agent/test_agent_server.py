"""An agent, request by request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.agent import (
    AgentRefused,
    Constraints,
    DestinationConstraint,
    Hop,
    HostKeySpec,
    Keyring,
    KeyUsed,
    RequestRefused,
    purpose_of,
)
from sshproto.agent import messages as m
from sshproto.agent.framing import MAXIMUM_MESSAGE, frame
from sshproto.agent.keyring import MAXIMUM_KEYS
from sshproto.errors import AlreadyAnswered, InvalidArgument, LimitReached
from sshproto.keys import PrivateKey
from sshproto.wire.codec import string, text, uint32
from tests.support.agents import CERTIFICATES, KEY, KEYS, NOW, TYPES, Talk, login

BLOB = KEY.public_key.blob
LIST, ALL = m.RequestIdentities(), m.RemoveAllIdentities()


def listed(talk: Talk) -> list[str]:
    return [identity.comment for identity in talk.ask(LIST)]


def sign(talk: Talk, blob: bytes = BLOB, data: bytes = b"data", flags: int = 0) -> bytes:
    signature: bytes = talk.ask(m.SignRequest(blob, data, flags))
    return signature


# ----------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("name", TYPES)
def test_every_key_signs(name: str) -> None:
    talk = Talk()
    key, certificate = KEYS[name], CERTIFICATES[name]
    talk.add(key, comment="plain")
    talk.add(key, certificate=certificate, comment="certified")
    assert listed(talk) == ["plain", "certified"]
    for blob in (key.public_key.blob, certificate.blob):
        for flags, algorithm in ((4, key.public_key.signature_algorithms[0]), (2, None)):
            expected = algorithm or ("rsa-sha2-256" if name == "ssh-rsa" else key.public_key.signature_algorithms[0])
            key.public_key.verify(sign(talk, blob, flags=flags), b"data", expected)
            used = talk.events[-1]
            assert isinstance(used, KeyUsed)
            assert (used.key.blob, used.algorithm) == (blob, expected)


def test_sha1() -> None:
    blob = KEYS["ssh-rsa"].public_key.blob
    talk = Talk()
    talk.add(KEYS["ssh-rsa"])
    with pytest.raises(AgentRefused):
        sign(talk, blob)
    assert talk.refusals == ["a signature with SHA-1 was asked for, which this agent does not make"]
    talk = Talk(Keyring(sha1=True))
    talk.add(KEYS["ssh-rsa"])
    KEYS["ssh-rsa"].public_key.verify(sign(talk, blob), b"data", "ssh-rsa")


def test_keys_that_are_not_there() -> None:
    talk = Talk()
    for request in (m.SignRequest(BLOB, b""), m.RemoveIdentity(BLOB), m.SignRequest(b"", b"")):
        with pytest.raises(AgentRefused):
            talk.ask(request)
    assert talk.refusals[0] == f"there is no such key: {KEY.public_key.fingerprint()}"


def test_adding_again_replaces() -> None:
    talk = Talk()
    talk.add(KEY, comment="before", constraints=Constraints(confirm=True))
    talk.add(KEY, comment="after")
    assert listed(talk) == ["after"]
    sign(talk)


def test_removing() -> None:
    talk = Talk()
    for key in KEYS.values():
        talk.add(key, comment=key.comment)
    talk.ask(m.RemoveIdentity(BLOB))
    assert listed(talk) == list(TYPES[1:])
    talk.ask(ALL)
    assert listed(talk) == []
    talk.ask(ALL)


def test_lifetimes() -> None:
    talk = Talk(Keyring(lifetime=50))
    talk.add(KEYS["ssh-rsa"], comment="long", constraints=Constraints(lifetime=100))
    talk.add(KEY, comment="short", constraints=Constraints(lifetime=10))
    talk.add(KEYS["ecdsa-sha2-nistp256"], comment="default")
    assert talk.keyring.next_deadline() == NOW + 10
    talk.now = NOW + 9.9
    assert listed(talk) == ["long", "short", "default"]
    talk.now = NOW + 10
    with pytest.raises(AgentRefused):
        sign(talk)
    assert listed(talk) == ["long", "default"]
    talk.now = NOW + 50
    assert listed(talk) == ["long"]
    talk.now = NOW  # a clock that goes back does not make anything live longer
    assert listed(talk) == ["long"]
    talk.server.handle_timeout(NOW + 100)
    assert talk.keyring.next_deadline() is None


def test_there_is_room_for_so_many_keys() -> None:
    keyring = Keyring()
    first = PrivateKey.generate()
    for _ in range(MAXIMUM_KEYS - 1):
        keyring.add(PrivateKey.generate(), now=NOW)
    keyring.add(first, now=NOW)
    keyring.add(first, comment="again", now=NOW)
    with pytest.raises(LimitReached, match="holds 1024 keys"):
        keyring.add(KEY, now=NOW)
    talk = Talk(keyring)
    with pytest.raises(AgentRefused):
        talk.add(KEY)
    assert len(talk.ask(LIST)) == MAXIMUM_KEYS


def test_the_list_fits_into_a_message() -> None:
    keyring = Keyring()
    with pytest.raises(LimitReached, match="fit into a message"):
        for _ in range(400):
            keyring.add(PrivateKey.generate(), now=NOW, comment="x" * 1024)
    assert 200 < len(Talk(keyring).ask(LIST)) < 260
    with pytest.raises(InvalidArgument, match="at most 1024 characters"):
        keyring.add(KEY, now=NOW, comment="x" * 1025)


def test_there_is_room_for_so_many_constraints() -> None:
    keyring = Keyring()
    large = DestinationConstraint(Hop(), Hop("host", (HostKeySpec(bytes(1000)),) * 200))
    with pytest.raises(LimitReached, match="the keys' constraints have 1206"):
        for _ in range(10):
            keyring.add(PrivateKey.generate(), now=NOW, destinations=[large])
    assert len(keyring.keys(NOW)) == 5
    [first, *_] = keyring.keys(NOW)
    keyring.add(first.key, now=NOW, destinations=[large])
    keyring.remove(first.blob)
    keyring.add(KEY, now=NOW, destinations=[large])


def test_a_keyring_takes_what_belongs_together() -> None:
    with pytest.raises(InvalidArgument, match="the certificate is for the key"):
        Keyring().add(PrivateKey.generate(), CERTIFICATES["ssh-ed25519"], now=NOW)
    with pytest.raises(InvalidArgument, match="lifetime"):
        Keyring().add(KEY, now=NOW, lifetime=0)
    with pytest.raises(InvalidArgument, match="lifetime"):
        Keyring(lifetime=0)


# ------------------------------------------------------------------------------------------------------- what it is for


def test_purposes() -> None:
    assert str(purpose_of(login("one"))) == "a login as alice"
    assert purpose_of(login("one", bound=False)).login.host_key is None  # type: ignore[union-attr]
    assert str(purpose_of(b"SSHSIG" + text("git") + text(""))) == "a signature for 'git'"
    for data in (
        b"",
        b"SSHSIG",
        login("one")[:-1],
        login("one") + b"x",
        login("one", signed=0),
        login("one", service="x"),
    ):
        assert str(purpose_of(data)) == "something that says not what it is"
    assert str(purpose_of(login("one", user="a\x1b[2Jb"))) == r"a login as a\x1b[2Jb"


@given(st.binary(max_size=200))
def test_arbitrary_purposes(data: bytes) -> None:
    assert str(purpose_of(data)).isprintable()
    assert str(purpose_of(b"SSHSIG" + data)).isprintable()


# --------------------------------------------------------------------------------------------------------- confirmation


def test_what_is_confirmed_is_signed() -> None:
    talk = Talk()
    talk.add(KEY, comment="mine", constraints=Constraints(confirm=True))
    request = frame(m.SignRequest(BLOB, login("one")).encode())
    assert talk.give(request + frame(LIST.encode())) == []
    assert not talk.server.want_read
    question = talk.question
    assert str(question) == f"Allow use of the key mine, {KEY.public_key.fingerprint()}, for a login as alice?"
    talk.server.confirm(question, True, NOW)
    signature, identities = talk.replies()
    assert (signature[0], identities[0]) == (14, 12)
    assert talk.server.want_read
    with pytest.raises(AlreadyAnswered):
        talk.server.confirm(question, True, NOW)


@pytest.mark.parametrize("answer", [False, None, "yes", 1])
def test_anything_but_true_refuses(answer: object) -> None:
    talk = Talk()
    talk.add(KEY, constraints=Constraints(confirm=True))
    talk.give(frame(m.SignRequest(BLOB, b"").encode()))
    talk.server.confirm(talk.question, answer, NOW)  # type: ignore[arg-type]
    assert talk.replies() == [b"\5"]
    assert talk.refusals == ["it was not confirmed"]


@pytest.mark.parametrize("what", ["removed", "replaced", "locked", "over"])
def test_what_has_changed_while_somebody_thought(what: str) -> None:
    talk = Talk()
    talk.add(KEY, constraints=Constraints(confirm=True, lifetime=10))
    talk.give(frame(m.SignRequest(BLOB, b"").encode()))
    other = Talk(talk.keyring)
    match what:
        case "removed":
            other.ask(ALL)
        case "replaced":
            other.add(KEY, constraints=Constraints(confirm=True))
        case "locked":
            other.ask(m.Lock(b"x"))
    talk.server.confirm(talk.question, True, NOW + 20 if what == "over" else NOW)
    assert talk.replies() == [b"\5"]


def test_an_answer_after_the_end_does_nothing() -> None:
    talk = Talk()
    talk.add(KEY, constraints=Constraints(confirm=True))
    talk.give(frame(m.SignRequest(BLOB, b"").encode()))
    talk.server.receive_eof(NOW)
    talk.server.confirm(talk.question, True, NOW)
    assert talk.replies() == []
    assert talk.server.should_close


# ------------------------------------------------------------------------------------------------------------- the lock


def test_the_lock() -> None:
    talk = Talk()
    talk.add(KEY)
    talk.ask(m.Lock(b"open"))
    assert listed(talk) == []
    for request in (m.SignRequest(BLOB, b""), m.AddIdentity(KEY), m.RemoveIdentity(BLOB), ALL, m.Lock(b"")):
        with pytest.raises(AgentRefused):
            talk.ask(request)
    assert set(talk.refusals) == {"the agent is locked"}
    with pytest.raises(AgentRefused):
        talk.ask(m.Unlock(b"close"))
    talk.now += 0.1
    talk.ask(m.Unlock(b"open"))
    assert listed(talk) == [""]
    with pytest.raises(AgentRefused):
        talk.ask(m.Unlock(b"open"))


def test_guesses_wait_for_one_another() -> None:
    """Whoever guesses waits longer each time, over however many connections he does it."""
    keyring = Keyring()
    assert keyring.lock(b"open")
    assert not keyring.lock(b"open")
    now = NOW
    talks = [Talk(keyring) for _ in range(3)]
    first = [talk.give(frame(m.Unlock(b"guess").encode())) for talk in talks]
    assert first == [[b"\5"], [], []]
    assert [talk.server.next_deadline() for talk in talks] == [None, NOW + 0.1, NOW + 0.1]
    assert not talks[1].server.want_read
    now += 0.1
    for talk in talks[1:]:
        talk.server.handle_timeout(now)
    assert [talk.replies() for talk in talks] == [[], [b"\5"], []]
    assert talks[2].server.next_deadline() == pytest.approx(now + 0.2)
    now += 0.2
    talks[2].server.handle_timeout(now)
    assert talks[2].replies() == [b"\5"]
    assert keyring.unlock_after(now) == pytest.approx(now + 0.3)
    assert not keyring.unlock(b"open", now)  # not yet, right as it is
    for _ in range(105):
        now = keyring.unlock_after(now)
        assert not keyring.unlock(b"guess", now)
    assert keyring.unlock_after(now) == pytest.approx(now + 10)
    assert keyring.unlock_after(now - 10**6) == now - 10**6 + 10  # whatever was done to the clock
    now += 10
    assert keyring.unlock(b"open", now)


def test_what_waits_for_its_turn_may_be_right() -> None:
    keyring = Keyring()
    keyring.lock(b"open")
    guess, right = Talk(keyring), Talk(keyring)
    guess.give(frame(m.Unlock(b"guess").encode()))
    assert right.give(frame(m.Unlock(b"open").encode()) + frame(LIST.encode())) == []
    right.server.handle_timeout(NOW + 0.1)
    assert [reply[0] for reply in right.replies()] == [6, 12]
    assert not keyring.locked


# ------------------------------------------------------------------------------------------------ whatever a peer sends


def test_what_is_unknown_or_malformed_is_refused_and_it_goes_on() -> None:
    talk = Talk()
    for payload in (b"\1", b"\xff", b"\13more", b"\15", b"\33", b"\33" + text("x@y"), b"\24" + string(b"") * 2, b"\25"):
        assert talk.give(frame(payload)) == [b"\5"]
        refused = talk.events[-1]
        assert isinstance(refused, RequestRefused)
    assert listed(talk) == []


@pytest.mark.covers("V74")
@pytest.mark.parametrize("size", [0, MAXIMUM_MESSAGE + 1, 2**32 - 1])
def test_what_can_not_be_read_any_further_ends_it(size: int) -> None:
    talk = Talk()
    [reply] = talk.give(frame(LIST.encode()) + uint32(size) + b"x")
    assert reply[0] == 12
    assert talk.server.should_close
    assert f"request of {size} bytes is announced" in str(talk.server.error)
    assert talk.give(frame(LIST.encode())) == []


@pytest.mark.covers("V74")
def test_what_nobody_reads_is_bounded() -> None:
    talk = Talk()
    for index in range(100):
        talk.keyring.add(PrivateKey.generate(), now=NOW, comment=f"{index}" * 200)
    fed = 0
    while talk.server.want_read:
        talk.server.receive_data(frame(LIST.encode()) * 1000, NOW)
        fed += 1
    assert fed < 10
    assert len(talk.server._output) < 200_000
    for _ in range(1000):
        talk.server.receive_data(frame(LIST.encode()) * 1000, NOW)
        if talk.server.error:
            break
    assert "more requests came than are dealt with at once" in str(talk.server.error)
    assert talk.server._framer.waiting == 0


def test_events_that_nobody_takes_are_bounded() -> None:
    talk = Talk()
    for _ in range(500):
        talk.server.receive_data(frame(b"\1"), NOW)
        talk.server.data_to_send()
    assert len(talk.server._events) == 64


@pytest.mark.covers("V74")
@given(st.lists(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(frame)), max_size=8), st.integers(1, 99))
def test_arbitrary_bytes(pieces: list[bytes], size: int) -> None:
    """In any pieces the same, and never an exception."""
    stream = b"".join(pieces)
    whole, cut = Talk(), Talk()
    whole.add(KEY)
    cut.add(KEY)
    one = whole.give(stream)
    several = [reply for at in range(0, len(stream), size) for reply in cut.give(stream[at : at + size])]
    assert one == several
    assert str(whole.server.error) == str(cut.server.error)


def test_query() -> None:
    assert Talk().ask(m.Extension("query")) == text("query") + text("session-bind@openssh.com")
