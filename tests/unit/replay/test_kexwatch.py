"""Key exchanges, watched: who is who, what is negotiated, what a message means, what is forgotten."""

from __future__ import annotations

import itertools
import re
from typing import Any

import attrs
import pytest

from sshproto.events import Event
from sshproto.keys.private import PrivateKey
from sshproto.replay.events import KexSeen, OfferSeen, Problem, RolesSeen, Side
from sshproto.replay.kexwatch import KexWatch, _public_key
from sshproto.replay.secrets import Secrets
from sshproto.transport.keyschedule import exchange_hash
from sshproto.wire.codec import mpint, string, uint32
from sshproto.wire.messages import (
    KexDhGexGroup,
    KexDhGexInit,
    KexDhGexReply,
    KexDhGexRequest,
    KexDhGexRequestOld,
    KexDhInit,
    KexDhReply,
    KexEcdhInit,
    KexEcdhReply,
    KexInit,
    Message,
)
from sshproto.wire.table import Role

C, S = Side.DIALLER, Side.DIALLED
KEY = PrivateKey.generate("ssh-ed25519")


def offer(*kex: str, host_key: str = "ssh-ed25519", cookie: bytes = b"0123456789abcdef", **more: Any) -> KexInit:
    cipher, mac, none = ("aes128-ctr",), ("hmac-sha2-256",), ("none",)
    return KexInit(cookie, kex, (host_key,), cipher, cipher, mac, mac, none, none, **more)


class Watch:
    """A watch that says nothing but remembers what it told."""

    def __init__(self, secrets: Secrets | None = None) -> None:
        self.told: list[tuple[Side, Event]] = []
        self.kex = KexWatch(secrets or Secrets(), lambda side, *events: self.told.extend((side, it) for it in events))
        self.kex.idents = {C: b"SSH-2.0-c", S: b"SSH-2.0-s"}

    def begin(self, client: KexInit, server: KexInit, number: int = 0) -> None:
        assert self.kex.begin(C, number, client.encode(), client)
        assert self.kex.begin(S, number, server.encode(), server)

    def say(self, side: Side, message: Message, number: int = 0) -> tuple[str, bool]:
        meaning = self.kex.message(side, number, message.number)
        if not meaning[1]:
            self.kex.receive(side, number, message)
        return meaning

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for _, event in self.told if isinstance(event, kind)]

    @property
    def problems(self) -> list[str]:
        return [event.problem for event in self.of(Problem)]


# ---------------------------------------------------------------------------------------------------------- who is who


@pytest.mark.parametrize(
    ("kex", "side", "number", "client"),
    [
        ("curve25519-sha256", C, 30, C),
        ("curve25519-sha256", S, 30, S),
        ("curve25519-sha256", C, 31, S),
        ("diffie-hellman-group14-sha1", S, 31, C),
        ("diffie-hellman-group-exchange-sha256", C, 34, C),
        ("diffie-hellman-group-exchange-sha256", S, 30, S),
        ("diffie-hellman-group-exchange-sha256", S, 31, C),
        ("diffie-hellman-group-exchange-sha256", S, 33, C),
        ("rsa2048-sha256", S, 30, C),  # here the server begins
        ("rsa2048-sha256", C, 31, C),
        ("gss-group14-sha256-x", C, 30, C),
        ("gss-group14-sha256-x", S, 32, C),
    ],
)
def test_roles_by_message(kex: str, side: Side, number: int, client: Side) -> None:
    watch = Watch()
    watch.begin(offer(kex), offer(kex))
    assert watch.of(RolesSeen) == []
    watch.kex.message(side, 0, number)
    assert watch.of(RolesSeen) == [RolesSeen(client=client, sure=True)]


def test_roles_by_message_where_the_method_depends_on_them() -> None:
    """With one side as client it is one method, with the other another; only one has such a message."""
    for side, sure in ((C, True), (S, False)):  # that the server says it fits neither
        watch = Watch()
        watch.begin(
            offer("diffie-hellman-group-exchange-sha1", "diffie-hellman-group1-sha1"),
            offer("diffie-hellman-group1-sha1", "diffie-hellman-group-exchange-sha1"),
        )
        watch.kex.message(side, 0, 34)
        assert watch.of(RolesSeen) == [RolesSeen(client=C, sure=sure)]


@pytest.mark.parametrize(
    ("mine", "theirs", "client"),
    [
        (("ext-info-c",), (), C),
        ((), ("ext-info-c",), S),
        (("ext-info-s",), (), S),
        ((), ("kex-strict-s-v00@openssh.com",), C),
        (("kex-strict-c-v00@openssh.com",), ("ext-info-s",), C),
        (("ext-info-c",), ("ext-info-c",), None),
        (("ext-info-c", "ext-info-s"), (), None),
        ((), (), None),
    ],
)
def test_roles_by_name(mine: tuple[str, ...], theirs: tuple[str, ...], client: Side | None) -> None:
    watch = Watch()
    watch.begin(offer("curve25519-sha256", *mine), offer("curve25519-sha256", *theirs))
    assert watch.of(RolesSeen) == ([RolesSeen(client=client, sure=True)] if client else [])
    watch.kex.finish()
    assert watch.of(RolesSeen) == [RolesSeen(client=client or C, sure=client is not None)]
    assert len(watch.of(KexSeen)) == 1
    watch.kex.finish()
    assert len(watch.of(KexSeen)) == 1


def test_one_offer_alone() -> None:
    for names, sure in ((("ext-info-s",), True), ((), False)):
        watch = Watch()
        kexinit = offer("curve25519-sha256", *names)
        watch.kex.begin(C, 0, kexinit.encode(), kexinit)
        assert watch.of(OfferSeen) == [OfferSeen(kexinit=kexinit, epoch=0)]
        assert not watch.kex.paired(0)
        assert watch.kex.message(C, 0, 30) == ("", False)
        watch.kex.finish()
        assert watch.of(RolesSeen) == [RolesSeen(client=S if sure else C, sure=sure)]
        assert watch.of(KexSeen) == []


def test_roles_do_not_change() -> None:
    watch = Watch()
    watch.begin(offer("curve25519-sha256", "ext-info-c"), offer("curve25519-sha256"))
    watch.begin(offer("curve25519-sha256"), offer("curve25519-sha256", "ext-info-c"), number=1)
    watch.kex.message(S, 1, 30)
    assert watch.of(RolesSeen) == [RolesSeen(client=C, sure=True)]
    watch.kex.take_role(S, Role.CLIENT)
    assert watch.kex.client is C


# --------------------------------------------------------------------------------------------------------- negotiation


def test_nothing_in_common() -> None:
    watch = Watch()
    watch.begin(offer("a@x", "ext-info-c"), offer("b@x"))
    assert watch.problems == ["no common kex algorithm: the client offers a@x; the server offers b@x"]
    assert watch.kex.over(0)
    assert watch.kex.message(C, 0, 30) == ("", False)
    watch.kex.finish()
    assert watch.of(KexSeen) == []
    many = offer(*(f"{'x' * 50}{number}" for number in range(1000)), "ext-info-c")
    watch = Watch()
    watch.begin(many, offer("b@x"))
    assert len(watch.problems[0]) < 1000


def test_strictness_is_that_of_the_first() -> None:
    strict = ("kex-strict-c-v00@openssh.com",), ("kex-strict-s-v00@openssh.com",)
    for first, second in itertools.product((True, False), repeat=2):
        watch = Watch()
        for number, wanted in enumerate((first, second)):
            client, server = (offer("curve25519-sha256", *(names if wanted else ())) for names in strict)
            watch.begin(client, server, number)
            watch.kex.message(C, number, 30)
        assert watch.kex.strict is first
        assert {found.chosen.strict_kex for found in watch.kex.rounds.values() if found.chosen} == {first}


# ------------------------------------------------------------------------------------------------------------- messages

ECDH = [KexEcdhInit(b"c" * 32), KexEcdhReply(KEY.public_key.blob, b"s" * 32, b"")]
DH = [KexDhInit(5), KexDhReply(KEY.public_key.blob, 7, b"")]
GEX = [
    KexDhGexRequest(1024, 2048, 8192),
    KexDhGexGroup((1 << 2047) + 9, 2),
    KexDhGexInit(5),
    KexDhGexReply(KEY.public_key.blob, 7, b""),
]
OLD = [KexDhGexRequestOld(2048), *GEX[1:]]


def fields(messages: list[Message]) -> bytes:
    """The method's part of the exchange hash, by hand (RFC 4253 section 8, RFC 4419 sections 3 and 5, RFC 5656)."""
    if messages is ECDH:
        return string(b"c" * 32) + string(b"s" * 32)
    numbers = mpint(5) + mpint(7)
    if messages is DH:
        return numbers
    sizes = uint32(2048) if messages is OLD else uint32(1024) + uint32(2048) + uint32(8192)
    return sizes + mpint((1 << 2047) + 9) + mpint(2) + numbers


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com"])
@pytest.mark.parametrize(
    ("kex", "messages"),
    [
        ("curve25519-sha256", ECDH),
        ("sntrup761x25519-sha512@openssh.com", ECDH),
        ("diffie-hellman-group14-sha1", DH),
        ("diffie-hellman-group15-sha384@ssh.com", DH),
        ("diffie-hellman-group-exchange-sha256", GEX),
        ("diffie-hellman-group-exchange-sha1", OLD),
    ],
)
def test_in_any_order(kex: str, messages: list[Message], kind: str) -> None:
    """The transcript is in the method's order, whoever's messages were read first; the server has signed its hash."""
    blob = KEY.public_key.blob
    if kind != "ssh-ed25519":
        blob = string(kind.encode()) + string(b"nonce") + blob[len(string(b"ssh-ed25519")) :] + b"the rest of it"
    client, server = (offer(kex, name, host_key=kind) for name in ("ext-info-c", "ext-info-s"))
    encoded = string(b"\7") if kex[0] == "s" else mpint(7)
    digest = exchange_hash(
        re.findall("sha[0-9]+", kex)[0],
        client_ident=b"SSH-2.0-c", server_ident=b"SSH-2.0-s", client_kexinit=client.encode(),
        server_kexinit=server.encode(), host_key=blob, fields=fields(messages), secret=encoded,
    )  # fmt: skip
    signature = KEY.sign(digest, "ssh-ed25519")
    last = attrs.evolve(messages[-1], host_key=blob, signature=signature)
    run = [*messages[:-1], last]
    for order in itertools.permutations(range(len(run))):
        secrets = Secrets()
        secrets.add_key_log(f"{client.cookie.hex()} SHARED_SECRET 07")
        watch = Watch(secrets)
        watch.begin(client, server)
        for index in order:
            assert not watch.kex.over(0)
            watch.say(C if index % 2 == 0 else S, run[index])
        assert watch.problems == []
        assert watch.kex.over(0)
        (solution,) = watch.kex.rounds[0].solutions
        assert (solution.hash, solution.secret, solution.verified) == (digest, encoded, True)
        assert watch.kex.session_id == digest
        (seen,) = watch.of(KexSeen)
        assert seen.opened
        assert seen.host_key_blob == blob
        assert seen.host_key == KEY.public_key
        assert seen.fingerprint == KEY.public_key.fingerprint()


def test_messages_that_have_no_place() -> None:
    watch = Watch()
    watch.kex.receive(C, -1, ECDH[0])
    watch.begin(offer("curve25519-sha256", "ext-info-c"), offer("curve25519-sha256"))
    watch.kex.receive(C, 0, DH[0])
    watch.kex.receive(S, 0, ECDH[0])
    watch.kex.receive(C, 0, ECDH[1])
    watch.kex.receive(C, 0, ECDH[0])
    watch.kex.receive(C, 0, ECDH[0])
    assert watch.problems == [
        "KEX_ECDH_INIT belongs to no key exchange",
        "KEXDH_INIT is not for a client to send",
        "KEX_ECDH_INIT is not for a server to send",
        "KEX_ECDH_REPLY is not for a client to send",
        "KEX_ECDH_INIT came twice",
    ]
    assert list(watch.kex.rounds[0].transcript) == [KexEcdhInit]


def test_a_glimpse_of_the_host_key() -> None:
    """The rest of the message does not decode."""
    blob = KEY.public_key.blob
    for payload, seen in ((b"\x21" + string(blob) + b"xxxx", blob), (b"\x21", b""), (b"\x21" + string(b"junk"), b"")):
        watch = Watch()
        watch.begin(offer("curve25519-sha256", "ext-info-c"), offer("curve25519-sha256"))
        watch.kex.glimpse(0, payload)
        watch.kex.glimpse(5, payload)
        watch.kex.finish()
        assert [it.host_key_blob for it in watch.of(KexSeen)] == [seen]


def test_problems_are_told_once() -> None:
    secrets = Secrets()
    client, server = offer("curve25519-sha256", "ext-info-c"), offer("curve25519-sha256")
    secrets.add_key_log(f"{client.cookie.hex()} SHARED_SECRET 07\n{client.cookie.hex()} {'00' * 31}07")
    watch = Watch(secrets)
    watch.begin(client, server)
    watch.say(C, ECDH[0])
    watch.say(S, ECDH[1])
    for _ in range(3):
        watch.kex.open_again()
    shared, private = watch.problems
    assert shared == "the shared secret that is known for this key exchange does not fit it"
    assert private.endswith("does not open it: neither side's public value belongs to it")


def test_what_is_forgotten() -> None:
    watch = Watch()
    for number in range(10):
        watch.begin(offer("curve25519-sha256", "ext-info-c"), offer("curve25519-sha256"), number)
        watch.kex.forget(number)
    assert list(watch.kex.rounds) == [9]
    assert watch.kex.over(3)
    assert not watch.kex.paired(3)
    watch.kex.lose(3, "x")
    watch.kex.begin(C, 10, b"", offer("curve25519-sha256"))
    watch.kex.lose(10, "x")
    assert watch.kex.rounds[10].failed == "one side of the key exchange is missing"
    watch.kex.lose(9, "it is so")
    watch.kex.lose(9, "or otherwise")
    assert watch.kex.rounds[9].failed == "it is so"


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256"])
def test_certificates(kind: str) -> None:
    """The key that one is for is known, whatever else is wrong with it."""
    key = PrivateKey.generate(kind).public_key
    name = f"{kind}-cert-v01@openssh.com".encode()
    blob = string(name) + string(b"nonce" * 6) + key.blob[4 + len(kind) :] + uint32(0) * 9
    assert _public_key(blob) == key == _public_key(key.blob)
    assert not [stop for stop in range(len(blob) - 36) if _public_key(blob[:stop])]


def test_certificates_of_unknown_keys() -> None:
    assert _public_key(string(b"ssh-dss-cert-v01@openssh.com") + string(b"n") + string(b"p") * 9) is None
    assert _public_key(b"") is None
