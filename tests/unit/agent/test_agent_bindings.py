"""Session-binds and destination constraints: which keys are seen where, and which logins they sign."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.agent import AgentRefused, Constraints, DestinationConstraint, Keyring
from sshproto.agent import messages as m
from sshproto.agent.bindings import MAXIMUM_BINDINGS
from sshproto.agent.framing import frame
from sshproto.keys import Certificate, PrivateKey
from tests.support.agents import (
    AUTHORITY,
    CERTIFICATES,
    HOSTS,
    KEY,
    KEYS,
    NOW,
    Talk,
    binding,
    host_certificate,
    login,
    session,
    way,
)
from tests.support.authenticator import Authenticator

BLOB = KEY.public_key.blob


def bind(talk: Talk, name: str, **values: Any) -> None:
    assert talk.ask(m.Extension(m.SESSION_BIND, binding(name, **values).encode())) == b""


def seen(talk: Talk) -> bool:
    return bool(talk.ask(m.RequestIdentities()))


def signs(talk: Talk, data: bytes, blob: bytes = BLOB) -> bool:
    try:
        talk.ask(m.SignRequest(blob, data))
    except AgentRefused:
        return False
    return True


def with_ways(*ways: DestinationConstraint) -> Talk:
    talk = Talk()
    talk.add(KEY, constraints=Constraints(destinations=ways))
    return talk


def test_keys_without_constraints_are_good_everywhere() -> None:
    talk = Talk()
    talk.add(KEY)
    for name, forwarding in (("one", True), ("two", True), ("three", False)):
        bind(talk, name, forwarding=forwarding)
        assert seen(talk)
        assert signs(talk, b"anything")


def test_where_the_agent_is_constrained_keys_are_seen_and_do_not_sign() -> None:
    talk = with_ways(way("", "one"))
    assert seen(talk)
    assert not signs(talk, login("one"))
    assert talk.refusals[-1] == "the key has destination constraints, and the connection is bound to no session"


@pytest.mark.parametrize("bound", [True, False])
def test_a_login_that_is_allowed(bound: bool) -> None:
    talk = with_ways(way("", "one"))
    bind(talk, "one")
    assert seen(talk)
    assert signs(talk, login("one", bound=bound))


LOGIN = login("one")


@pytest.mark.covers("V74")
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"anything", "signs logins only"),
        (b"SSHSIG" + b"\0\0\0\3git", "signs logins only"),
        (LOGIN + b"x", "signs logins only"),
        (login("one", signed=0), "signs logins only"),
        (login("one", signed=2), "signs logins only"),
        (login("one", service="ssh-userauth"), "signs logins only"),
        (login("one", KEYS["ssh-rsa"]), "is not by this key"),
        (login("one", CERTIFICATES["ssh-ed25519"]), "is not by this key"),
        (login("one", algorithm="rsa-sha2-512"), "is not by this key"),
        (login("two", host_key=HOSTS["one"].public_key.blob), "is on another session"),
        (login("one", host_key=HOSTS["two"].public_key.blob), "is bound to another host key"),
    ],
)
def test_what_constrained_keys_do_not_sign(data: bytes, why: str) -> None:
    talk = with_ways(way("", "one"))
    bind(talk, "one")
    assert not signs(talk, data)
    assert why in talk.refusals[-1]
    assert signs(talk, LOGIN)


@pytest.mark.parametrize(
    ("user", "good"), [("", True), ("alice", True), ("a*", True), ("*", True), ("bob", False), ("Alice", False)]
)
def test_users(user: str, good: bool) -> None:
    talk = with_ways(way("", "one", user))
    bind(talk, "one")
    assert seen(talk)
    assert signs(talk, login("one")) is good


def test_another_host() -> None:
    talk = with_ways(way("", "one"))
    bind(talk, "two")
    assert not seen(talk)
    assert not signs(talk, login("two"))
    assert "allows to go from here to the host with the key" in talk.refusals[-1]


@pytest.mark.covers("V74")
@pytest.mark.parametrize(
    ("ways", "visible", "good"),
    [
        ([way("", "one"), way("one", "two")], True, True),
        ([way("", "one"), way("one", "two", "alice")], True, True),
        ([way("", "one"), way("one", "two", "bob")], True, False),
        ([way("", "one"), way("one", "three")], True, False),
        ([way("", "one")], False, False),
        ([way("", "one"), way("", "two")], False, False),
        ([way("one", "two")], False, False),
        ([way("", "two"), way("one", "two")], False, False),
    ],
)
def test_forwarded_agents(ways: list[DestinationConstraint], visible: bool, good: bool) -> None:
    """Seen at the first host, and good for a login from there at the second."""
    talk = with_ways(*ways)
    bind(talk, "one", forwarding=True)
    assert seen(talk) is visible
    assert not signs(talk, login("one"))  # who is there does not log in there
    bind(talk, "two")
    assert signs(talk, login("two")) is good
    assert not signs(talk, login("two", bound=False))


def test_two_hops() -> None:
    talk = with_ways(way("", "one"), way("one", "two"), way("two", "three"))
    bind(talk, "one", forwarding=True)
    bind(talk, "two", forwarding=True)
    assert seen(talk)
    bind(talk, "three")
    assert signs(talk, login("three"))
    talk = with_ways(way("", "one"), way("two", "three"), way("one", "three"))
    bind(talk, "one", forwarding=True)
    bind(talk, "two", forwarding=True)
    bind(talk, "three")
    assert not signs(talk, login("three"))


def test_who_confirms_hears_where_it_comes_from() -> None:
    talk = Talk()
    talk.add(KEY, comment="mine", constraints=Constraints(confirm=True))
    bind(talk, "one", forwarding=True)
    bind(talk, "two", forwarding=True)
    talk.give(frame(m.SignRequest(BLOB, b"data").encode()))
    second, third = (HOSTS[name].public_key.fingerprint() for name in ("two", "three"))
    start = f"Allow use of the key mine, {KEY.public_key.fingerprint()}, for "
    tail = f", asked for from the server with the key {second}?"
    assert str(talk.question) == f"{start}something that says not what it is{tail}"
    talk.server.confirm(talk.question, False, NOW)
    talk.replies()
    talk.events.clear()
    bind(talk, "three")
    talk.give(frame(m.SignRequest(BLOB, login("three")).encode()))
    assert str(talk.question) == f"{start}a login as alice at the server with the key {third}{tail}"
    assert [each.forwarding for each in talk.question.path] == [True, True, False]


def test_adding_and_removing_where_a_key_can_not_be_seen() -> None:
    talk = with_ways(way("", "one"))
    here = Talk(talk.keyring)
    bind(talk, "one", forwarding=True)
    assert not seen(talk)
    for request in (m.RemoveIdentity(BLOB), m.AddIdentity(KEY)):
        with pytest.raises(AgentRefused):
            talk.ask(request)
    [held] = talk.keyring.keys(NOW)
    assert held.destinations
    here.ask(m.RemoveIdentity(BLOB))
    talk.add(KEY)
    assert seen(talk)


def test_certified_keys_have_constraints_too() -> None:
    talk = Talk()
    certificate = CERTIFICATES["ssh-rsa"]
    talk.add(KEYS["ssh-rsa"], certificate=certificate, constraints=Constraints(destinations=(way("", "one"),)))
    bind(talk, "one")
    for algorithm in ("rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-256-cert-v01@openssh.com"):
        data = login("one", certificate, algorithm=algorithm)
        assert talk.ask(m.SignRequest(certificate.blob, data, m.RSA_SHA2_512))
    assert not signs(talk, login("one", certificate, algorithm="rsa-sha2-512"), certificate.blob)


# ------------------------------------------------------------------------------------------------------------ the binds


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"signature": HOSTS["two"].sign(session("one"))}, "does not verify"),
        ({"signature": b""}, "the server's proof is none"),
        ({"session_id": session("two")}, "does not verify"),
        ({"host_key": HOSTS["two"].public_key.blob}, "does not verify"),
        ({"host_key": b""}, "the server's proof is none"),
        ({"host_key": CERTIFICATES["ssh-rsa"].blob[:-1]}, "the server's proof is none"),
        ({"session_id": b"", "signature": HOSTS["one"].sign(b"")}, "has no identifier"),
    ],
)
def test_binds_without_proof(change: dict[str, Any], why: str) -> None:
    talk = with_ways(way("", "one"))
    talk.add(KEYS["ssh-rsa"])
    contents = attrs.evolve(binding("one"), **change).encode()
    with pytest.raises(AgentRefused):
        talk.ask(m.Extension(m.SESSION_BIND, contents))
    assert why in talk.refusals[-1]
    assert [identity.type for identity in talk.ask(m.RequestIdentities())] == ["ssh-rsa"]
    with pytest.raises(AgentRefused):
        talk.ask(m.RemoveIdentity(BLOB))
    bind(talk, "one")
    assert signs(talk, login("one"))


def test_sha1_proves_nothing() -> None:
    key = KEYS["ssh-rsa"]
    talk = Talk()
    bind_ = m.SessionBind(key.public_key.blob, bytes(32), key.sign(bytes(32), "ssh-rsa"))
    with pytest.raises(AgentRefused):
        talk.ask(m.Extension(m.SESSION_BIND, bind_.encode()))
    assert talk.refusals == ["the server's proof is signed with ssh-rsa, which is not accepted"]
    bind_ = attrs.evolve(bind_, signature=key.sign(bytes(32), "rsa-sha2-256"))
    talk.ask(m.Extension(m.SESSION_BIND, bind_.encode()))
    assert [each.key for each in talk.server.bindings] == [key.public_key]


def test_a_host_with_a_token_proves_itself_untouched() -> None:
    """As it does in the key exchange, where nobody is there to touch it."""
    token = Authenticator()
    talk = Talk()
    bind_ = m.SessionBind(token.public_key.blob, bytes(32), token.sign(bytes(32), flags=0))
    assert talk.ask(m.Extension(m.SESSION_BIND, bind_.encode())) == b""
    assert [each.key for each in talk.server.bindings] == [token.public_key]


def test_binds_that_go_against_others() -> None:
    talk = Talk()
    bind(talk, "one", forwarding=True)
    bind(talk, "one", forwarding=True)  # the same again
    assert len(talk.server.bindings) == 1
    forged = m.SessionBind(HOSTS["two"].public_key.blob, session("one"), HOSTS["two"].sign(session("one")))
    with pytest.raises(AgentRefused):
        talk.ask(m.Extension(m.SESSION_BIND, forged.encode()))
    assert talk.refusals[-1] == "the session is bound to another host key"
    bind(talk, "two")
    for name in ("two", "three"):
        with pytest.raises(AgentRefused):
            talk.ask(m.Extension(m.SESSION_BIND, binding(name).encode()))
        assert "is bound for a login" in talk.refusals[-1]


def test_there_are_so_many_binds() -> None:
    talk = Talk()
    host = HOSTS["one"]
    for index in range(MAXIMUM_BINDINGS + 1):
        sid = bytes([index]) * 32
        one = m.SessionBind(host.public_key.blob, sid, host.sign(sid), True)
        if index < MAXIMUM_BINDINGS:
            talk.ask(m.Extension(m.SESSION_BIND, one.encode()))
    with pytest.raises(AgentRefused):
        talk.ask(m.Extension(m.SESSION_BIND, one.encode()))
    assert "no more are accepted" in talk.refusals[-1]


def test_a_locked_agent_takes_note_of_binds() -> None:
    """Else who comes from afar would be taken for who is here as soon as it is unlocked."""
    talk = with_ways(way("", "one"))
    talk.keyring.lock(b"x")
    bind(talk, "two", forwarding=True)
    talk.keyring.unlock(b"x", NOW)
    assert not seen(talk)


# ---------------------------------------------------------------------------------------------------- host certificates


def test_hosts_that_are_certified() -> None:
    certificate = host_certificate("one")
    talk = with_ways(way("", "one", authority=True))
    bind(talk, "one", certificate=certificate)
    assert signs(talk, login("one", host_key=certificate.blob))
    assert not signs(talk, login("one", host_key=HOSTS["one"].public_key.blob))


@pytest.mark.parametrize("what", ["another name", "plain key", "authority's own key", "over", "a user's"])
def test_certificates_that_are_not_the_hosts(what: str) -> None:
    talk = with_ways(way("", "one", authority=True))
    certificate: Certificate | None = None
    match what:
        case "another name":
            certificate = host_certificate("two")
            bind(talk, "two", certificate=certificate)
        case "plain key":
            bind(talk, "one")
        case "over":
            bind(talk, "one", certificate=host_certificate("one", valid_before=int(NOW)))
        case "a user's":
            sid = session("one")
            one = m.SessionBind(CERTIFICATES["ssh-ed25519"].blob, sid, KEY.sign(sid))
            talk.ask(m.Extension(m.SESSION_BIND, one.encode()))
        case _:
            talk = with_ways(way("", "one"))
            bind(talk, "one", certificate=host_certificate("one"))  # its key is known, but not as that of a certificate
    assert not seen(talk)


def test_an_authority_is_no_host() -> None:
    talk = with_ways(way("", "one", authority=True))
    sid = session("one")
    talk.ask(m.Extension(m.SESSION_BIND, m.SessionBind(AUTHORITY.public_key.blob, sid, AUTHORITY.sign(sid)).encode()))
    assert not seen(talk)


# -------------------------------------------------------------------------------------------------------------- a model

NAMES = sorted(HOSTS)


@pytest.mark.covers("V74")
@given(
    st.lists(
        st.tuples(st.sampled_from(["", *NAMES]), st.sampled_from(NAMES), st.sampled_from(["", "alice"])), min_size=1
    ),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
)
def test_a_way_is_good_if_each_hop_is(ways: list[tuple[str, str, str]], path: list[str]) -> None:
    talk = with_ways(*(way(*each) for each in ways[:20]))
    for index, name in enumerate(path):
        bind(talk, name, forwarding=index < len(path) - 1)
    hops = list(zip(["", *path], path, strict=False))
    for user in ("alice", "bob"):
        last = all(
            any((start, end) == hop and (hop != hops[-1] or who in ("", user)) for start, end, who in ways[:20])
            for hop in hops
        )
        assert signs(talk, login(path[-1], user=user)) is last


@given(st.binary(max_size=200))
def test_arbitrary_binds(data: bytes) -> None:
    talk = Talk(Keyring())
    with pytest.raises(AgentRefused):
        talk.ask(m.Extension(m.SESSION_BIND, data))


def test_keys_of_hosts_are_compared_whole() -> None:
    other = PrivateKey.generate()
    talk = with_ways(way("", "one"))
    sid = session("one")
    talk.ask(m.Extension(m.SESSION_BIND, m.SessionBind(other.public_key.blob, sid, other.sign(sid)).encode()))
    assert not seen(talk)
