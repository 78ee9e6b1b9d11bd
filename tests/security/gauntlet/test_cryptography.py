"""The gauntlet, C: flaws of cryptography. Bad public values, bad signatures, bad tags, on live connections.

What each primitive refuses is in tests/unit; here a peer, or somebody in the middle, puts it on the wire.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

from sshproto import algorithms
from sshproto import events as ev
from sshproto.auth import methods
from sshproto.config import ClientConfig, Limits, Preferences, ServerConfig, Trace, system_entropy
from sshproto.errors import HostKeySignatureInvalid, InvalidArgument, KeyExchangeFailed, MacError
from sshproto.keys import signatures
from sshproto.keys.private import PrivateKey
from sshproto.keys.public import PublicKey
from sshproto.transport import keyexchange
from sshproto.transport.kex.groups import GROUP14, GROUP16
from sshproto.transport.kex.hybrid import MLKEM768
from sshproto.wire import messages as m
from sshproto.wire.codec import mpint, string, text
from tests.support.middle import Middle, Packet, Rule, clear
from tests.support.pair import Pair
from tests.support.rogue import inject, loss
from tests.support.seeds import HOST_KEY, USER_KEY

CURVE = ("curve25519-sha256",)
P14 = GROUP14.prime
ORDER25519 = 2**252 + 27742317777372353535851937790883648493

KEYS = {
    "ssh-ed25519": HOST_KEY,
    "ecdsa-sha2-nistp256": PrivateKey.generate("ecdsa-sha2-nistp256"),
    "ecdsa-sha2-nistp384": PrivateKey.generate("ecdsa-sha2-nistp384"),
    "ecdsa-sha2-nistp521": PrivateKey.generate("ecdsa-sha2-nistp521"),
    "ssh-rsa": PrivateKey.generate("ssh-rsa", 2048),
}


@pytest.fixture(params=["client", "server"])
def victim(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def rewriting(kind: type[m.Message], change: Callable[[Any], m.Message]) -> Rule:
    """Another message in the place of one of ``kind``, before the keys."""

    def rule(packet: Packet) -> Iterable[bytes]:
        if packet.clear and packet.number == kind.number:
            yield clear(change(kind.parse(packet.data[5 : -packet.data[4]])))
        else:
            yield packet.data

    return rule


def meddled(victim: str, method: str, kind: type[m.Message], change: Callable[[Any], m.Message], **options: Any) -> Any:
    """The end of a run in which what ``victim`` is told by its peer's message of ``kind`` is changed."""
    common = {"preferences": Preferences(kex=(method,)), **options}
    middle = Middle(client=common, server=common, **{f"to_{victim}": rewriting(kind, change)}).run()
    end = middle.end(victim)
    error = loss(end.events)
    assert isinstance(error, KeyExchangeFailed), error
    assert error.code == 3
    assert not end.of(ev.HostKeyOffered)
    assert not end.of(ev.KeysExchanged)
    return error


# -------------------------------------------------------------------------------------------------- V42 elliptic curves

SMALL_ORDER = (
    *(0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18, 2**256 - 19, 2**256 - 18),
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)

BAD_SHARES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "X25519 of 31 bytes": ("curve25519-sha256", lambda share: share[:-1]),
    "X25519 of 33 bytes": ("curve25519-sha256", lambda share: share + b"\0"),
    "X25519 of none": ("curve25519-sha256", lambda share: b""),
    **{
        f"X25519 {number % 1000}": ("curve25519-sha256", lambda share, n=number: n.to_bytes(32, "little"))
        for number in SMALL_ORDER
    },
    "X448 zero": ("curve448-sha512", lambda share: bytes(56)),
    "X448 short": ("curve448-sha512", lambda share: share[:-1]),
    **{
        f"{name} {what}": (f"ecdh-sha2-{name}", change)
        for name in ("nistp256", "nistp384", "nistp521")
        for what, change in {
            "compressed": lambda share: bytes((2 + share[-1] % 2,)) + share[1 : 1 + len(share) // 2],
            "hybrid": lambda share: bytes((6 + share[-1] % 2,)) + share[1:],
            "infinity": lambda share: b"\0",
            "off the curve": lambda share: share[:-1] + bytes((share[-1] ^ 1,)),
            "trailing": lambda share: share + b"\0",
            "zero": lambda share: b"\4" + bytes(len(share) - 1),
            "out of the field": lambda share: b"\4" + b"\xff" * (len(share) - 1),
        }.items()
    },
    "a point of another curve": (
        "ecdh-sha2-nistp256",
        lambda share: KEYS["ecdsa-sha2-nistp384"].public_key.blob[-97:],
    ),
}


@pytest.mark.covers("V42", "R120", "R138", "B9")
@pytest.mark.parametrize(("method", "change"), BAD_SHARES.values(), ids=BAD_SHARES)
def test_bad_points(victim: str, method: str, change: Callable[[bytes], bytes]) -> None:
    """CVE-2026-59842. Neither side goes on with a value whose secret somebody else can know."""
    kind = m.KexEcdhInit if victim == "server" else m.KexEcdhReply
    meddled(victim, method, kind, lambda message: attrs.evolve(message, share=change(message.share)))


# --------------------------------------------------------------------------------------------------- V53 hybrid methods


def _big_coefficient(share: bytes) -> bytes:
    """The first coefficient of the ML-KEM key is q."""
    return (3329).to_bytes(2, "little") + share[2:]


HYBRID: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "one byte less": ("both", lambda share: share[:-1]),
    "one byte more": ("both", lambda share: share + b"\0"),
    "none": ("both", lambda share: b""),
    "X25519 zero": ("both", lambda share: share[:-32] + bytes(32)),
    "a coefficient of q": ("server", _big_coefficient),
    "all ones": ("server", lambda share: b"\xff" * MLKEM768.public_size + share[-32:]),
    "halves exchanged": ("server", lambda share: share[-32:] + share[:-32]),
    "another ciphertext": ("client", lambda share: bytes((share[0] ^ 1,)) + share[1:]),
}


@pytest.mark.covers("V53", "B9")
@pytest.mark.parametrize(
    ("role", "change"),
    [
        pytest.param(role, change, id=f"{name}-{role}")
        for name, (who, change) in HYBRID.items()
        for role in ("client", "server")
        if who in {"both", role}
    ],
)
def test_bad_hybrid_shares(role: str, change: Callable[[bytes], bytes]) -> None:
    """ML-KEM rejects implicitly: another ciphertext gives another secret, and the signature does not fit."""
    kind = m.KexEcdhInit if role == "server" else m.KexEcdhReply
    meddled(role, "mlkem768x25519-sha256", kind, lambda message: attrs.evolve(message, share=change(message.share)))


# ----------------------------------------------------------------------------------------------- V43, V44 finite fields

BAD_VALUES = {
    "0": lambda p: 0,
    "1": lambda p: 1,
    "-1": lambda p: -1,
    "p-1": lambda p: p - 1,
    "p": lambda p: p,
    "p+1": lambda p: p + 1,
    "2p": lambda p: 2 * p,
    "2^1024": lambda p: 2**1024,
    "three bits": lambda p: 2**2000 + 2**1000 + 1,
    "16384 bits": lambda p: 2**16383 + 15,
}


@pytest.mark.covers("V43", "R40", "R117", "R124", "B9")
@pytest.mark.parametrize("value", BAD_VALUES.values(), ids=BAD_VALUES)
@pytest.mark.parametrize("method", ["diffie-hellman-group14-sha256", "diffie-hellman-group-exchange-sha256"])
def test_bad_diffie_hellman_values(victim: str, method: str, value: Callable[[int], int]) -> None:
    gex = "exchange" in method
    bad = value(P14)
    kinds: dict[Any, type[m.Message]] = {
        ("server", False): m.KexDhInit,
        ("server", True): m.KexDhGexInit,
        ("client", False): m.KexDhReply,
        ("client", True): m.KexDhGexReply,
    }
    kind = kinds[victim, gex]
    field = "e" if victim == "server" else "f"
    options = {"gex_bits": (2048, 2048, 2048)} if gex else {}
    common = {"preferences": Preferences(kex=(method,))}
    rule = rewriting(kind, lambda message: attrs.evolve(message, **{field: bad}))
    middle = Middle(client={**common, **options}, server=common, **{f"to_{victim}": rule}).run()
    error = loss(middle.end(victim).events)
    assert isinstance(error, KeyExchangeFailed)
    assert error.code == 3
    words = str(error)
    assert "out of range" in words or "bits set" in words, "it is refused as it comes, not for what would become of it"
    assert not middle.client.of(ev.HostKeyOffered)


GROUPS = {
    "1024 bits": (2**1023 + 1155, 2),
    "8193 bits": (2**8192 + 1, 2),
    "16385 bits": (2**16384 + 1, 2),
    "negative": (-P14, 2),
    "even": (P14 - 1, 2),
    "0": (0, 2),
    "g=0": (P14, 0),
    "g=1": (P14, 1),
    "g=p-1": (P14, P14 - 1),
    "g=p": (P14, P14),
    "g negative": (P14, -2),
    "outside of what was asked": (GROUP16.prime, 2),
}


@pytest.mark.covers("V44", "R118", "B9")
@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_bad_groups(group: tuple[int, int]) -> None:
    """16385 bits are no number of an SSH packet at all."""
    common = {"preferences": Preferences(kex=("diffie-hellman-group-exchange-sha256",))}
    rule = rewriting(m.KexDhGexGroup, lambda message: m.KexDhGexGroup(*group))
    seen: list[Trace] = []
    middle = Middle(
        client={**common, "gex_bits": (2048, 3072, 3072), "trace": seen.append}, server=common, to_client=rule
    ).run()
    assert loss(middle.client.events).code in {2, 3}
    assert 32 not in [trace.number for trace in seen if trace.sent], "no public value is sent in such a group"


@pytest.mark.covers("V44", "R118")
@pytest.mark.parametrize(
    "sizes", [(3072, 2048, 8192), (2048, 8192, 4096), (8193, 8193, 9000), (1, 1, 2047), (0, 0, 0), (2**32 - 1,) * 3]
)
def test_bad_wishes_for_a_group(sizes: tuple[int, int, int]) -> None:
    common = {"preferences": Preferences(kex=("diffie-hellman-group-exchange-sha256",))}
    rule = rewriting(m.KexDhGexRequest, lambda message: m.KexDhGexRequest(*sizes))
    middle = Middle(client=common, server=common, to_server=rule).run()
    assert loss(middle.server.events).code == 3


# ------------------------------------------------------------------------------------------------------------- V40 tags

SUITES = {
    "gcm": ("aes256-gcm@openssh.com", "hmac-sha2-256"),
    "chacha20-poly1305": ("chacha20-poly1305@openssh.com", "hmac-sha2-256"),
    "ctr-etm": ("aes256-ctr", "hmac-sha2-256-etm@openssh.com"),
    "ctr": ("aes192-ctr", "hmac-sha2-512"),
    "cbc-etm": ("aes128-cbc", "hmac-sha2-512-etm@openssh.com"),
    "cbc-sha1-96": ("3des-cbc", "hmac-sha1-96"),
}


@pytest.mark.covers("V40", "V55", "R26", "R146")
@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
@pytest.mark.parametrize("rekeys", [0, 1, 3])
@pytest.mark.parametrize("size", [5, 5000])
def test_a_tag_that_is_wrong(victim: str, suite: tuple[str, str], rekeys: int, size: int) -> None:
    """CVE-2025-5987, CVE-2026-59847: every byte of the tag, and of the last block; after any number of rekeys, too."""
    cipher, mac = suite
    common = {"preferences": Preferences(kex=CURVE, cipher=(cipher,), mac=(mac,)), "debug_raise": True}
    for place in (-1, -7, -12, -20):
        pair = Pair.make(ClientConfig(user="alice", **common), ServerConfig(host_keys=(HOST_KEY,), **common)).login()
        for _ in range(rekeys):
            pair.client.conn.rekey()
            pair.run()
        end, peer = (pair.client, pair.server) if victim == "client" else (pair.server, pair.client)
        inject(peer, m.Debug(True, "x" * size))
        data = bytearray(peer.drain())
        data[place] ^= 0x10
        end.conn.receive_data(bytes(data), 0.0)
        end.drain()
        error = loss(end.events)
        assert isinstance(error, MacError)
        assert error.code == 5
        assert not end.of(ev.DebugReceived)


@pytest.mark.covers("V54")
@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_no_key_and_no_nonce_comes_twice(suite: tuple[str, str]) -> None:
    """Numbers start again at 0 with each exchange, and what they count under is new each time, both ways."""
    cipher, mac = suite
    found: list[bytes] = []
    original = keyexchange.direction_keys

    def noting(*arguments: Any, **options: Any) -> Any:
        keys = original(*arguments, **options)
        found.extend((keys.key, keys.iv, keys.mac_key))
        return keys

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyexchange, "direction_keys", noting)
        common = {"preferences": Preferences(kex=CURVE, cipher=(cipher,), mac=(mac,))}
        middle = Middle(client=common, server=common).run()
        for _ in range(3):
            middle.client.conn.rekey()
            middle.run()
    values = [value for value in found if value]
    assert len(middle.client.of(ev.KeysExchanged)) == 4
    assert len(set(values)) * 2 == len(values), "each is made once at each end"


# ------------------------------------------------------------------------------------ V46, V47 host keys and signatures


def ecdsa_body(r: int, s: int) -> bytes:
    return mpint(r) + mpint(s)


def host(
    kind: str,
    algorithm: str,
    change: Callable[[m.KexEcdhReply], m.KexEcdhReply],
    sign: Callable[[bytes], bytes] | None = None,
) -> Any:
    """The client's error about a reply of a server with a key of ``kind`` that was changed on its way.

    With ``sign`` by somebody who has the key: it makes the signature's body of the exchange hash.
    """

    def rewritten(reply: m.KexEcdhReply) -> m.KexEcdhReply:
        if sign is not None:
            body = sign(middle.server.conn.session_id)
            reply = attrs.evolve(reply, signature=signatures.pack(algorithm, body))
        return change(reply)

    preferences = Preferences(kex=CURVE, host_key=(algorithm,))
    middle = Middle(
        client={"preferences": preferences},
        server={"preferences": preferences, "host_keys": (KEYS[kind],)},
        to_client=rewriting(m.KexEcdhReply, rewritten),
    )
    error = loss(middle.run().client.events)
    assert isinstance(error, KeyExchangeFailed)
    assert error.code == 3
    assert not middle.client.of(ev.HostKeyOffered)
    return error


def as_it_is(reply: m.KexEcdhReply) -> m.KexEcdhReply:
    return reply


def renamed(name: str) -> Callable[[m.KexEcdhReply], m.KexEcdhReply]:
    return lambda reply: attrs.evolve(reply, signature=signatures.pack(name, signatures.unpack(reply.signature)[1]))


@pytest.mark.covers("V46", "R41", "R135")
@pytest.mark.parametrize(
    ("kind", "algorithm", "inside"),
    [
        ("ssh-rsa", "rsa-sha2-512", "rsa-sha2-256"),
        ("ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"),
        ("ssh-rsa", "rsa-sha2-256", "ssh-rsa"),
        ("ssh-rsa", "rsa-sha2-256", ""),
        ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384"),
        ("ssh-ed25519", "ssh-ed25519", "ssh-ed448"),
        ("ssh-ed25519", "ssh-ed25519", "ssh-ed25519\x1b"),
    ],
)
def test_a_signature_of_another_name(kind: str, algorithm: str, inside: str) -> None:
    """CVE-2026-35387 and others: algorithm, key type and signature type are one choice, not three."""
    error = host(kind, algorithm, renamed(inside))
    assert isinstance(error, HostKeySignatureInvalid)
    assert "\x1b" not in str(error)


HASHES = {
    "rsa-sha2-512": ("ssh-rsa", hashes.SHA512(), hashes.SHA256(), hashes.SHA1()),
    "rsa-sha2-256": ("ssh-rsa", hashes.SHA256(), hashes.SHA512(), hashes.SHA1()),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384", hashes.SHA384(), hashes.SHA256(), hashes.SHA512()),
}


@pytest.mark.covers("V46", "R41", "R135", "R136")
@pytest.mark.parametrize("algorithm", HASHES)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_signature_over_another_hash(algorithm: str, index: int) -> None:
    """The right name over the wrong hash of the right thing, by the right key. The first is right, for comparison."""
    kind, *found = HASHES[algorithm]
    handle: Any = KEYS[kind]._handle

    def sign(data: bytes) -> bytes:
        if kind == "ssh-rsa":
            body: bytes = handle.sign(data, padding.PKCS1v15(), found[index])
            return body
        return ecdsa_body(*utils.decode_dss_signature(handle.sign(data, ec.ECDSA(found[index]))))

    if index:
        assert isinstance(host(kind, algorithm, as_it_is, sign), HostKeySignatureInvalid)
    else:
        with pytest.raises(AssertionError, match="no end"):
            host(kind, algorithm, as_it_is, sign)


@pytest.mark.covers("V46", "R121", "R41")
@pytest.mark.parametrize("other", [name for name in KEYS if name != "ecdsa-sha2-nistp256"])
def test_a_host_key_of_another_type(other: str) -> None:
    """CVE-2020-9283. It has signed, even: just not with what was agreed on."""
    host(
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp256",
        lambda reply: attrs.evolve(reply, host_key=KEYS[other].public_key.blob),
    )


IDENTITY = (1).to_bytes(32, "little")
FORGED = signatures.pack("ssh-ed25519", IDENTITY + bytes(32))
"""A signature of the point that is 1, over anything: the backend says yes."""


@pytest.mark.covers("V47")
def test_a_host_key_that_has_signed_everything() -> None:
    blob = text("ssh-ed25519") + string(IDENTITY)
    error = host("ssh-ed25519", "ssh-ed25519", lambda reply: attrs.evolve(reply, host_key=blob, signature=FORGED))
    assert "small order" in str(error)


def _plus_order(body: bytes) -> bytes:
    return body[:32] + (int.from_bytes(body[32:], "little") + ORDER25519).to_bytes(32, "little")


BAD_BODIES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "Ed25519, S + L": ("ssh-ed25519", _plus_order),
    "Ed25519 of 63 bytes": ("ssh-ed25519", lambda body: body[:-1]),
    "Ed25519 of 65 bytes": ("ssh-ed25519", lambda body: body + b"\0"),
    "Ed25519 of none": ("ssh-ed25519", lambda body: b""),
    "ECDSA, r = 0": ("ecdsa-sha2-nistp256", lambda body: ecdsa_body(0, 1)),
    "ECDSA, s = 0": ("ecdsa-sha2-nistp256", lambda body: ecdsa_body(1, 0)),
    "ECDSA, all zero": ("ecdsa-sha2-nistp256", lambda body: ecdsa_body(0, 0)),
    "ECDSA, negative": ("ecdsa-sha2-nistp256", lambda body: ecdsa_body(-1, 1)),
    "ECDSA, huge": ("ecdsa-sha2-nistp256", lambda body: ecdsa_body(2**4000, 1)),
    "ECDSA, trailing": ("ecdsa-sha2-nistp256", lambda body: body + b"\0"),
    "ECDSA, padded": ("ecdsa-sha2-nistp256", lambda body: string(b"\0\0" + body[4:]) + body),
    "RSA, longer": ("ssh-rsa", lambda body: b"\0" + body),
    "RSA, none": ("ssh-rsa", lambda body: b""),
    "RSA, 0": ("ssh-rsa", lambda body: bytes(256)),
    "RSA, 1": ("ssh-rsa", lambda body: bytes(255) + b"\1"),
    "RSA, all ones": ("ssh-rsa", lambda body: b"\xff" * 256),
}


@pytest.mark.covers("V47", "R41", "R136", "R137")
@pytest.mark.parametrize(("kind", "change"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_bad_signatures_of_a_host(kind: str, change: Callable[[bytes], bytes]) -> None:
    algorithm = {"ssh-rsa": "rsa-sha2-256"}.get(kind, kind)

    def spoil(reply: m.KexEcdhReply) -> m.KexEcdhReply:
        name, body = signatures.unpack(reply.signature)
        return attrs.evolve(reply, signature=signatures.pack(name, change(body)))

    assert isinstance(host(kind, algorithm, spoil), HostKeySignatureInvalid)


def only_the_host_key(conn: Any, question: ev.Question) -> None:
    if isinstance(question, ev.HostKeyOffered):
        conn.accept_host_key(question)


def knock(form: Callable[[bytes], bytes], user: str = "alice") -> tuple[Any, Any]:
    """A server after one login request whose method's part is ``form(session_id)``; and what it sent."""
    seen: list[Trace] = []
    middle = Middle(
        client_answer=only_the_host_key, server={"trace": seen.append, "limits": Limits(minimum_rsa_bits=2048)}
    ).run()
    seen.clear()
    payload = form(middle.server.conn.session_id)
    inject(middle.client, m.UserauthRequest(user, "ssh-connection", "publickey", payload))
    middle.server.conn.receive_data(middle.client.drain(), 0.0)
    middle.server.drain()
    return middle.server, [trace.number for trace in seen if trace.sent]


def signed_form(session_id: bytes, key: PrivateKey, made_with: str, **changes: Any) -> bytes:
    """A request that is right but for ``changes`` of what it says, or of what it has signed."""
    said = {"user": "alice", "asked": made_with, "blob": key.public_key.blob, **changes}
    data = methods.signed_data(session_id, said["user"], methods.SERVICE, said["asked"], said["blob"])
    return b"\1" + text(said["asked"]) + string(said["blob"]) + string(key.sign(data, made_with))


CONFUSED: dict[str, Callable[[bytes], bytes]] = {
    "another type's name": lambda sid: signed_form(sid, KEYS["ssh-ed25519"], "ssh-ed25519", asked="ssh-rsa"),
    "ssh-rsa": lambda sid: signed_form(sid, KEYS["ssh-rsa"], "ssh-rsa"),
    "sha2-512 asked, sha2-256 inside": lambda sid: signed_form(
        sid, KEYS["ssh-rsa"], "rsa-sha2-256", asked="rsa-sha2-512"
    ),
    "nistp256 asked, nistp384 key": lambda sid: signed_form(
        sid, KEYS["ecdsa-sha2-nistp384"], "ecdsa-sha2-nistp384", asked="ecdsa-sha2-nistp256"
    ),
    "another's blob": lambda sid: signed_form(sid, KEYS["ssh-ed25519"], "ssh-ed25519", blob=USER_KEY.public_key.blob),
    "another user": lambda sid: signed_form(sid, USER_KEY, "ssh-ed25519", user="bob"),
    "another session": lambda sid: signed_form(bytes(32), USER_KEY, "ssh-ed25519"),
    "a point of small order": lambda sid: (
        b"\1" + text("ssh-ed25519") + string(text("ssh-ed25519") + string(IDENTITY)) + string(FORGED)
    ),
    "no signature": lambda sid: b"\1" + text("ssh-ed25519") + string(USER_KEY.public_key.blob) + string(b""),
    "certificate": lambda sid: (
        b"\1"
        + text("ssh-ed25519-cert-v01@openssh.com")
        + string(text("ssh-ed25519-cert-v01@openssh.com") + bytes(200))
        + string(FORGED)
    ),
    "certificate as a key": lambda sid: (
        b"\1" + text("ssh-ed25519") + string(text("ssh-ed25519-cert-v01@openssh.com") + bytes(200)) + string(FORGED)
    ),
    "security key": lambda sid: (
        b"\1"
        + text("sk-ssh-ed25519@openssh.com")
        + string(text("sk-ssh-ed25519@openssh.com") + string(bytes(range(32))) + text("ssh:"))
        + string(FORGED)
    ),
    "unknown": lambda sid: b"\1" + text("x@y") + string(b"x") + string(b"x"),
}


@pytest.mark.covers("V46", "V47", "V51", "V52", "V66", "R67", "R68", "R69", "R121", "R135")
@pytest.mark.parametrize("form", CONFUSED.values(), ids=CONFUSED)
def test_confused_logins_fail_and_nobody_is_asked(form: Callable[[bytes], bytes]) -> None:
    """The login fails and the connection goes on. What is no certificate is not taken for one in any form."""
    server, sent = knock(form)
    assert sent == [51]
    assert server.lost is None
    assert not server.of(ev.AuthQuestion)


@pytest.mark.covers("V46", "R68")
def test_a_login_that_is_not_confused_is_asked_about() -> None:
    """So the test above fails for the reason that it gives."""
    server, _ = knock(lambda sid: signed_form(sid, USER_KEY, "ssh-ed25519"))
    assert server.of(ev.KeyAuth)


# ----------------------------------------------------------------------------------------------------- V45 dear answers


@pytest.mark.covers("V45", "B22")
@pytest.mark.parametrize(
    ("e", "n"),
    [
        (65537, 2**16384 + 1),
        (2**64 + 1, 2**2047 + 1),
        (1, 2**2047 + 1),
        (2, 2**2047 + 1),
        (65537, 2**2047),
        (65537, 2**511 + 1),
        (65537, 0),
        (65537, -(2**2047) + 1),
    ],
    ids=["16385 bits", "e of 65 bits", "e=1", "e=2", "even", "512 bits", "0", "negative"],
)
def test_rsa_keys_that_cost_too_much_or_are_worth_nothing(e: int, n: int) -> None:
    """CVE-2026-39829. As a user's key, and as a host's: nothing is computed with it."""
    blob = text("ssh-rsa") + mpint(e) + mpint(n)
    signature = signatures.pack("rsa-sha2-256", bytes(256))
    server, sent = knock(lambda sid: b"\1" + text("rsa-sha2-256") + string(blob) + string(signature))
    assert sent == [51]
    assert server.lost is None
    host("ssh-rsa", "rsa-sha2-256", lambda reply: attrs.evolve(reply, host_key=blob, signature=signature))


# --------------------------------------------------------------------------------------------------- V48 own signatures


class FaultyRsa:
    """A handle whose processor errs in half of the Chinese remainder: its signatures give the key away."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.faulty = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    def sign(self, *arguments: Any) -> bytes:
        numbers = self._handle.private_numbers()
        n, e, p = numbers.public_numbers.n, numbers.public_numbers.e, numbers.p
        right = int.from_bytes(self._handle.sign(*arguments), "big")
        half = numbers.q * pow(numbers.q, -1, p)  # changes the value modulo p only
        self.faulty = ((right + half) % n).to_bytes(256, "big")
        gave_away = math.gcd((pow(int.from_bytes(self.faulty, "big"), e, n) - pow(right, e, n)) % n, n)
        assert gave_away == numbers.q, "the fault is the one of the attack"
        return self.faulty


@pytest.mark.covers("V48")
def test_a_faulty_signature_of_a_server_is_not_sent() -> None:
    """Ryan et al., 2023: one such signature in any capture, and the host key is everybody's."""
    good = KEYS["ssh-rsa"]
    handle = FaultyRsa(good._handle)
    preferences = Preferences(kex=CURVE, host_key=("rsa-sha2-512",))
    middle = Middle(
        client={"preferences": preferences},
        server={"preferences": preferences, "host_keys": (PrivateKey(handle, good.public_key),)},
    ).run()
    error = loss(middle.server.events)
    assert error.code == 3
    assert handle.faulty
    assert handle.faulty not in bytes(middle.server.sent)
    assert not middle.client.of(ev.HostKeyOffered)


@pytest.mark.covers("V48")
def test_a_faulty_signature_of_a_client_is_not_sent() -> None:
    """The application hears of it where it has asked for the login."""
    good = KEYS["ssh-rsa"]
    handle = FaultyRsa(good._handle)
    middle = Middle(client_answer=only_the_host_key).run()
    (question,) = middle.client.conn.questions
    with pytest.raises(Exception, match="withheld"):
        middle.client.conn.auth_public_key(question, PrivateKey(handle, good.public_key))
    assert handle.faulty
    assert middle.client.conn.data_to_send() == b""
    assert middle.client.conn.questions == (question,)


@pytest.mark.covers("V48")
def test_a_faulty_signature_from_outside_is_not_sent() -> None:
    key = KEYS["ssh-rsa"].public_key
    preferences = Preferences(kex=CURVE, host_key=("rsa-sha2-512",))
    middle = Middle(
        client={"preferences": preferences},
        server={"preferences": preferences, "host_keys": (key,)},
        server_answer=None,
    ).run()
    (question,) = middle.server.conn.questions
    assert isinstance(question, ev.SignatureNeeded)
    faulty = signatures.pack(
        "rsa-sha2-512", FaultyRsa(KEYS["ssh-rsa"]._handle).sign(question.data, padding.PKCS1v15(), hashes.SHA512())
    )
    with pytest.raises(InvalidArgument, match="not sent"):
        middle.server.conn.sign(question, faulty)
    assert middle.server.conn.data_to_send() == b""


# ------------------------------------------------------------------------------------- V49, V50 randomness and defaults


def drawn(count: int) -> list[bytes]:
    """The cookies and public values of ``count`` first exchanges with the system's randomness."""
    found: list[bytes] = []

    def rule(packet: Packet) -> Iterable[bytes]:
        if packet.clear and packet.number in {20, 30, 31}:
            message = packet.data[5 : -packet.data[4]]
            if packet.number == 20:
                found.append(message[1:17])
            else:  # the end of both is random: of the share, or of the signature over it
                found.append(message[-40:])
        yield packet.data

    for _ in range(count):
        system = {"entropy": system_entropy}
        Middle(client=system, server=system, to_client=rule, to_server=rule).run()
    return found


@pytest.mark.covers("V49", "R29")
def test_nothing_random_comes_twice() -> None:
    found = drawn(25)
    assert len(set(found)) == len(found) == 100


@pytest.mark.covers("V49")
def test_nothing_random_comes_twice_in_a_child_process() -> None:
    """Nothing that was drawn ahead is used by both sides of a fork."""
    drawn(1)
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the runner of the tests may have
        child = os.fork()
    if not child:
        try:
            os.write(writer, b"".join(drawn(1)))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    ours = drawn(1)
    assert len(theirs) == sum(map(len, ours))
    assert not [value for value in ours if value in theirs]


WEAK = {
    "kex": (
        *("diffie-hellman-group1-sha1", "diffie-hellman-group14-sha1", "diffie-hellman-group-exchange-sha1"),
        *("rsa1024-sha1", "gss-group1-sha1-toWM5Slw5Ew8Mqkay+al2g=="),
    ),
    "signature": ("ssh-rsa", "ssh-dss"),
    "cipher": ("none", "arcfour", "arcfour128", "arcfour256", "3des-cbc", "aes128-cbc", "blowfish-cbc", "des-cbc"),
    "mac": ("none", "hmac-md5", "hmac-md5-96", "hmac-sha1", "hmac-sha1-96", "umac-64@openssh.com"),
    "compression": ("zlib",),
}
OFFERED = {
    "kex": "kex_algorithms",
    "signature": "server_host_key_algorithms",
    "cipher": "encryption_algorithms_client_to_server",
    "mac": "mac_algorithms_client_to_server",
    "compression": "compression_algorithms_client_to_server",
}


@pytest.mark.covers("V50", "R140", "R141")
@pytest.mark.parametrize("slot", WEAK)
def test_who_offers_only_what_is_weak_gets_nothing(victim: str, slot: str) -> None:
    """By default; and no MAC, no cipher, RC4 and DSA cannot be had at all."""

    def weaken(kexinit: m.KexInit) -> m.KexInit:
        changes = {OFFERED[slot]: WEAK[slot]}
        if slot == "mac":  # which a cipher that brings its own makes void
            changes["encryption_algorithms_client_to_server"] = ("aes128-ctr",)
        return attrs.evolve(kexinit, **changes)

    middle = Middle(server={"host_keys": tuple(KEYS.values())}, **{f"to_{victim}": rewriting(m.KexInit, weaken)}).run()
    assert loss(middle.end(victim).events).code == 3


@pytest.mark.covers("V50", "R140")
@pytest.mark.parametrize(
    ("slot", "name"),
    [
        ("cipher", "none"),
        ("cipher", "arcfour256"),
        ("mac", "none"),
        ("host_key", "ssh-dss"),
        ("signature", "ssh-dss"),
        ("kex", "rsa1024-sha1"),
    ],
)
def test_what_is_broken_cannot_be_asked_for(slot: str, name: str) -> None:
    with pytest.raises(InvalidArgument, match="not implemented"):
        Preferences(**{slot: (name,)})


@pytest.mark.covers("V50", "R141")
def test_the_default_offers() -> None:
    """What RFC 9142 says MUST and SHOULD be there, and nothing of what it says SHOULD NOT."""
    assert {"diffie-hellman-group14-sha256", "curve25519-sha256", "diffie-hellman-group16-sha512"} <= set(
        algorithms.KEX_DEFAULT
    )
    for slot, weak in WEAK.items():
        offered = getattr(algorithms, f"{slot.upper()}_DEFAULT")
        assert not set(offered) & set(weak)
        assert not [name for name in offered if name.endswith(("sha1", "md5", "-96"))]


# ----------------------------------------------------------------------------------------------------- V51 certificates


@pytest.mark.covers("V51")
@pytest.mark.parametrize("kind", ["ssh-ed25519-cert-v01@openssh.com", "ssh-rsa-cert-v01@openssh.com"])
def test_a_certificate_is_no_host_key(kind: str) -> None:
    """None is asked for, so none may come; and none is read."""
    blob = text(kind) + string(bytes(32)) + bytes(300)
    error = host("ssh-ed25519", "ssh-ed25519", lambda reply: attrs.evolve(reply, host_key=blob))
    assert "certificates are not supported" in str(error)
    assert not [name for name in algorithms.KNOWN["signature"] if "cert" in name]
    with pytest.raises(ValueError, match="certificates are not supported"):
        PublicKey.from_blob(blob)
