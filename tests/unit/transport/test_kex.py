"""The key-exchange methods: agreement, replay, and every refusal (V15, V42-V44, V53, R117-R124, R138-R139)."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from sshproto import algorithms
from sshproto.config import compute_now
from sshproto.errors import DisconnectCode, KeyExchangeFailed, ProtocolViolation, WrongPhase
from sshproto.transport import kex
from sshproto.transport.kex import dh, ecdh, gex, groups, hybrid
from sshproto.wire.codec import Reader, mpint, string, uint32
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
    Message,
)

BITS = (2048, 3072, 8192)
GROUP18 = "diffie-hellman-group18-sha512"
SLOW = {GROUP18, "diffie-hellman-group17-sha512"}
FAST = sorted(kex.METHODS.keys() - SLOW)
ECDH = sorted(method.name for method in ecdh.METHODS)
HYBRID = sorted(method.name for method in hybrid.METHODS)


class Source:
    """Reproducible entropy that counts, and the labels it was asked for."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.labels: list[str] = []

    def __call__(self, count: int, label: str) -> bytes:
        self.labels.append(label)
        return hashlib.shake_128(f"{self.seed} {len(self.labels)} {label}".encode()).digest(count)


def client(name: str, seed: str = "client", bits: tuple[int, int, int] = BITS) -> kex.ClientExchange:
    return kex.client_exchange(kex.METHODS[name], entropy=Source(seed), oracle=compute_now, gex_bits=bits)


def server(
    name: str, seed: str = "server", oracle: Callable[[str, Callable[[], bytes]], bytes] = compute_now
) -> kex.ServerExchange:
    return kex.server_exchange(kex.METHODS[name], entropy=Source(seed), oracle=oracle, host_key=b"host key")


def run(ours: kex.ClientExchange, theirs: kex.ServerExchange) -> None:
    message: Message | None = ours.start()
    while message is not None:
        message = ours.receive(theirs.receive(message))


def test_every_name_has_its_method() -> None:
    assert kex.METHODS.keys() == algorithms.KNOWN["kex"]
    for name, method in kex.METHODS.items():
        assert method.name == name
        assert name.endswith(method.hash_name) or name in {
            "curve25519-sha256@libssh.org",
            "ecdh-sha2-nistp256",
            "ecdh-sha2-nistp384",
            "ecdh-sha2-nistp521",
        }


@pytest.mark.covers("R122", "R141")
@pytest.mark.parametrize("name", sorted(kex.METHODS))
def test_both_sides_agree(name: str) -> None:
    ours, theirs = client(name), server(name)
    assert [ours.secret, theirs.secret] == [None, None]
    run(ours, theirs)
    assert ours.secret is not None
    assert ours.secret == theirs.secret
    assert ours.transcript == theirs.transcript
    family = kex.METHODS[name].family
    assert tuple(map(type, ours.transcript)) == family.messages
    assert {message.context for message in ours.transcript} == {family.context}
    reply = ours.transcript[-1]
    assert (reply.host_key, reply.signature) == (b"host key", b"")  # type: ignore[attr-defined]
    signed = [*ours.transcript[:-1], attrs.evolve(reply, signature=b"s", host_key=b"h")]  # type: ignore[call-arg]
    assert family.hash_fields(signed) == family.hash_fields(ours.transcript)
    assert ours.expects is theirs.expects is None
    assert not hasattr(ours, "__dict__")  # nothing but the slots


@pytest.mark.covers("V49")
@pytest.mark.parametrize("name", FAST)
def test_fresh_values_every_time(name: str) -> None:
    exchanges = [client(name, seed) for seed in ("one", "two")]
    for ours in exchanges:
        run(ours, server(name))
    assert exchanges[0].secret != exchanges[1].secret
    assert exchanges[0].transcript != exchanges[1].transcript


@pytest.mark.parametrize("name", FAST)
def test_a_recording_replays(name: str) -> None:
    answers: list[bytes] = []

    def record(label: str, compute: Callable[[], bytes]) -> bytes:
        answers.append(compute())
        return answers[-1]

    def replay(label: str, compute: Callable[[], bytes]) -> bytes:
        return answers.pop(0)

    runs = []
    for oracle in (record, replay):
        ours, theirs = client(name), server(name, oracle=oracle)
        run(ours, theirs)
        runs.append((ours.transcript, ours.secret, theirs.secret))
    assert runs[0] == runs[1]
    assert answers == []


@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize("name", FAST)
def test_any_entropy_will_do(name: str, fill: int) -> None:
    """A fuzzer's entropy may be constant: nothing loops, both sides still agree."""

    def constant(count: int, label: str) -> bytes:
        assert label == "kex"
        return bytes([fill]) * count

    method = kex.METHODS[name]
    ours = kex.client_exchange(method, entropy=constant, oracle=compute_now, gex_bits=BITS)
    theirs = kex.server_exchange(method, entropy=constant, oracle=compute_now, host_key=b"")
    run(ours, theirs)
    assert ours.secret == theirs.secret


# ---------------------------------------------------------------------------------------------------- order of messages


@pytest.mark.covers("V03", "V07")
@pytest.mark.parametrize("name", FAST)
def test_messages_out_of_turn(name: str) -> None:
    other_init = KexDhInit(5) if name in ECDH + HYBRID else KexEcdhInit(b"x")
    entropy = Source("server")
    theirs = kex.server_exchange(kex.METHODS[name], entropy=entropy, oracle=compute_now, host_key=b"")
    with pytest.raises(ProtocolViolation, match=r"came, expected Kex"):
        theirs.receive(other_init)
    assert theirs.transcript == []
    assert entropy.labels == []
    ours = client(name)
    assert ours.expects is None
    with pytest.raises(ProtocolViolation, match="expected nothing"):
        ours.receive(other_init)
    first = ours.start()
    with pytest.raises(WrongPhase):
        ours.start()
    answer = theirs.receive(first)
    with pytest.raises(ProtocolViolation):
        theirs.receive(first)  # a repetition
    with pytest.raises(ProtocolViolation):
        ours.receive(first)
    while (message := ours.receive(answer)) is not None:
        answer = theirs.receive(message)
    with pytest.raises(ProtocolViolation, match="expected nothing"):
        ours.receive(answer)
    assert ours.secret == theirs.secret


@pytest.mark.covers("V15")
def test_the_server_waits_with_its_key() -> None:
    for name in FAST:
        entropy = Source("server")
        kex.server_exchange(kex.METHODS[name], entropy=entropy, oracle=compute_now, host_key=b"")
        assert entropy.labels == []
    theirs = kex.server_exchange(
        kex.METHODS["diffie-hellman-group-exchange-sha256"], entropy=entropy, oracle=compute_now, host_key=b""
    )
    theirs.receive(KexDhGexRequest(*BITS))
    assert entropy.labels == []


@pytest.mark.covers("R169")
@pytest.mark.parametrize("name", FAST)
def test_secrets_do_not_leak(name: str) -> None:
    ours, theirs = client(name), server(name)
    run(ours, theirs)
    assert ours.secret is not None
    for exchange in (ours, theirs):
        assert ours.secret.hex() not in repr(exchange)
        for leak in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="holds a secret and is not pickled"):
                leak(exchange)


# ------------------------------------------------------------------------------------------------------ elliptic curves

P25519 = 2**255 - 19
SMALL_ORDER = [0, 1, P25519 - 1, P25519, P25519 + 1]
SMALL_ORDER += [
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]
SMALL_ORDER += [value + 2**255 for value in SMALL_ORDER]


def refused(action: Callable[[], object], match: str) -> None:
    with pytest.raises(KeyExchangeFailed, match=match) as caught:
        action()
    assert caught.value.code == DisconnectCode.KEY_EXCHANGE_FAILED


def share_of(name: str) -> bytes:
    init = client(name).start()
    assert isinstance(init, KexEcdhInit)
    return init.share


def offer_share(name: str, share: bytes, match: str) -> None:
    """``share`` is refused by both sides."""
    refused(lambda: server(name).receive(KexEcdhInit(share)), match)
    ours = client(name)
    ours.start()
    refused(lambda: ours.receive(KexEcdhReply(b"", share, b"")), match)
    assert ours.secret is None


@pytest.mark.covers("V42", "R120", "R138")
@pytest.mark.parametrize("name", ECDH)
def test_share_lengths(name: str) -> None:
    share = share_of(name)
    for bad in (b"", share[:-1], share + b"\0", b"\0" + share):
        offer_share(name, bad, f"has {len(bad)} bytes, it must have {len(share)}")


@pytest.mark.covers("V42", "R138")
@pytest.mark.parametrize("value", SMALL_ORDER)
def test_points_of_small_order(value: int) -> None:
    offer_share("curve25519-sha256", value.to_bytes(32, "little"), "small order")


@pytest.mark.covers("V42")
@pytest.mark.parametrize("value", [0, 1, 2**448 - 2**224 - 2, 2**448 - 2**224 - 1, 2**448 - 2**224])
def test_points_of_small_order_448(value: int) -> None:
    offer_share("curve448-sha512", value.to_bytes(56, "little"), "small order")


@pytest.mark.covers("V42", "R120")
@pytest.mark.parametrize("name", ["ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521"])
def test_points_off_the_curve(name: str) -> None:
    share = share_of(name)
    size = len(share) // 2
    x, y = share[1 : 1 + size], share[1 + size :]
    offer_share(name, bytes([2 + y[-1] % 2]) + x, "it must have")  # compressed
    offer_share(name, bytes([2 + y[-1] % 2]) + x + bytes(size), "only the uncompressed")
    offer_share(name, bytes([6 + y[-1] % 2]) + x + y, "only the uncompressed")  # hybrid
    offer_share(name, b"\0", "it must have")  # infinity
    offer_share(name, bytes(len(share)), "only the uncompressed")
    offer_share(name, b"\4" + x + bytes(size), "not a point")
    offer_share(name, b"\4" + bytes(2 * size), "not a point")
    offer_share(name, b"\4" + x + y[:-1] + bytes([y[-1] ^ 1]), "not a point")
    offer_share(name, b"\4" + b"\xff" * (2 * size), "not a point")  # not in the field


@pytest.mark.covers("V42", "R120")
def test_a_point_of_another_curve() -> None:
    share = share_of("ecdh-sha2-nistp256")
    offer_share("ecdh-sha2-nistp384", share, "it must have")


def test_orders() -> None:
    """Against the backend: the order itself is no private value, the last one is."""
    from cryptography.hazmat.primitives.asymmetric import ec

    pairs = ((ecdh.NISTP256, ec.SECP256R1()), (ecdh.NISTP384, ec.SECP384R1()), (ecdh.NISTP521, ec.SECP521R1()))
    for curve, theirs in pairs:
        numbers = ec.derive_private_key(curve.order - 1, theirs).public_key().public_numbers()
        assert numbers.x == ec.derive_private_key(1, theirs).public_key().public_numbers().x
        with pytest.raises(ValueError):
            ec.derive_private_key(curve.order, theirs)


@pytest.mark.covers("R139", "V32")
@pytest.mark.parametrize("name", ["curve25519-sha256", "ecdh-sha2-nistp256", "curve448-sha512"])
def test_leading_zeros_of_the_secret_vanish(name: str) -> None:
    """RFC 8731 section 3.1: K is an mpint; find runs whose secret starts with 00 or with the highest bit set."""
    method = kex.METHODS[name]
    assert isinstance(method, ecdh.EcdhMethod)
    fixed = method.curve.ephemeral(Source("fixed"))
    seen = set()
    for number in range(4000):
        other = method.curve.ephemeral(Source(f"{number}"))
        raw = fixed.agree(other.share)
        kind = "00" if raw[0] == 0 and raw[1] < 0x80 else "high" if raw[0] >= 0x80 else ""
        if not kind or kind in seen:
            continue
        theirs = kex.server_exchange(method, entropy=Source(f"{number}"), oracle=compute_now, host_key=b"")
        theirs.receive(KexEcdhInit(fixed.share))
        assert theirs.secret is not None
        assert len(raw) == method.curve.size
        assert Reader(theirs.secret, "K").mpint() == int.from_bytes(raw, "big")
        assert theirs.secret == string(raw.lstrip(b"\0") if kind == "00" else b"\0" + raw)
        seen.add(kind)
        if len(seen) == 2:
            return
    pytest.fail("no such secret came up")


# -------------------------------------------------------------------------------------------------------------- hybrids


@pytest.mark.covers("V53")
@pytest.mark.parametrize("name", HYBRID)
def test_hybrid_lengths(name: str) -> None:
    share = share_of(name)
    for bad in (b"", share[:-1], share + b"\0"):
        refused(
            lambda bad=bad: server(name).receive(KexEcdhInit(bad)),  # type: ignore[misc]
            f"C_INIT has {len(bad)} bytes, it must have {len(share)}",
        )
    ours = client(name)
    reply = server(name).receive(ours.start())
    assert isinstance(reply, KexEcdhReply)
    for bad in (b"", reply.share[:-1], reply.share + b"\0"):
        ours = client(name)
        ours.start()
        refused(lambda: ours.receive(attrs.evolve(reply, share=bad)), "S_REPLY has")  # noqa: B023


@pytest.mark.covers("V53")
@pytest.mark.parametrize(
    ("name", "init_size", "reply_size"),
    [
        ("mlkem768x25519-sha256", 1184 + 32, 1088 + 32),
        ("mlkem768nistp256-sha256", 1184 + 65, 1088 + 65),
        ("mlkem1024nistp384-sha384", 1568 + 97, 1568 + 97),
    ],
)
def test_hybrid_layout(name: str, init_size: int, reply_size: int) -> None:
    """Sizes and order of the parts, and K = HASH(K_PQ || K_CL) as a string, taken apart by hand."""
    recorded: list[bytes] = []

    def oracle(label: str, compute: Callable[[], bytes]) -> bytes:
        recorded.append(compute())
        return recorded[-1]

    ours, theirs = client(name), server(name, oracle=oracle)
    run(ours, theirs)
    init, reply = ours.transcript
    assert isinstance(init, KexEcdhInit)
    assert isinstance(reply, KexEcdhReply)
    assert (len(init.share), len(reply.share)) == (init_size, reply_size)
    method = kex.METHODS[name]
    assert isinstance(method, hybrid.HybridMethod)
    (answer,) = recorded
    post_quantum, ciphertext = answer[:32], answer[32:]
    assert reply.share.startswith(ciphertext)
    mine = method.curve.ephemeral(Source("server"))
    assert reply.share == ciphertext + mine.share
    classical = mine.agree(init.share[method.kem.public_size :])
    assert len(classical) == method.curve.size
    digest = hashlib.new(method.hash_name, post_quantum + classical).digest()
    assert ours.secret == uint32(len(digest)) + digest
    assert method.family.hash_fields(ours.transcript) == string(init.share) + string(reply.share)


@pytest.mark.covers("V53")
@pytest.mark.parametrize("name", HYBRID)
def test_hybrid_public_values(name: str) -> None:
    method = kex.METHODS[name]
    assert isinstance(method, hybrid.HybridMethod)
    share, size = share_of(name), method.kem.public_size
    too_large = b"\xff\xff\xff" + share[3:]  # the first two coefficients are 4095, q is 3329
    refused(lambda: server(name).receive(KexEcdhInit(too_large)), "coefficient out of range")
    bad_curve = share[:size] + bytes(len(share) - size)
    refused(lambda: server(name).receive(KexEcdhInit(bad_curve)), "small order|only the uncompressed")
    reply = server(name).receive(KexEcdhInit(share))
    assert isinstance(reply, KexEcdhReply)
    split = method.kem.ciphertext_size
    ours = client(name)
    ours.start()
    bad_reply = attrs.evolve(reply, share=reply.share[:split] + bytes(len(reply.share) - split))
    refused(lambda: ours.receive(bad_reply), "small order|only the uncompressed")


@pytest.mark.covers("V53")
@pytest.mark.parametrize("name", HYBRID)
def test_a_changed_ciphertext_gives_another_secret(name: str) -> None:
    ours, theirs = client(name), server(name)
    reply = theirs.receive(ours.start())
    assert isinstance(reply, KexEcdhReply)
    ours.receive(attrs.evolve(reply, share=bytes([reply.share[0] ^ 1]) + reply.share[1:]))
    assert ours.secret is not None
    assert ours.secret != theirs.secret


# -------------------------------------------------------------------------------------------------------- finite fields

GROUPS = (groups.GROUP1, *groups.STRONG)
DIGESTS = [
    "693daceaf10c4200",
    "dcd8538e629d7b8b",
    "2b2c15e1523695d7",
    "2349a6f8251156cb",
    "eeff9f22efbb6af4",
    "d0c08f76798cac51",
]


@pytest.mark.covers("R118")
def test_group_primes() -> None:
    """Digests of the primes as they stand in RFC 2409 and RFC 3526; OpenSSL knows the same."""
    assert [group.bits for group in GROUPS] == [1024, 2048, 3072, 4096, 6144, 8192]
    digests = [hashlib.sha256(f"{group.prime:X}".encode()).hexdigest()[:16] for group in GROUPS]
    assert digests == DIGESTS
    for group in GROUPS:
        assert group.prime.bit_length() == group.bits
        assert f"{group.prime:X}".startswith("FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74")
        assert group.prime & (2**64 - 1) == 2**64 - 1


@pytest.mark.covers("R118")
@pytest.mark.parametrize("group", GROUPS[:3], ids=lambda group: group.name)
def test_groups_are_safe_primes(group: groups.Group) -> None:
    """Fermat's test, to three bases, of p and (p - 1) / 2; a number with this formula is no pseudoprime by chance."""
    prime = group.prime
    for number in (prime, prime // 2):
        assert all(pow(base, number - 1, number) == 1 for base in (2, 3, 5))
    assert pow(2, prime // 2, prime) == 1  # 2 generates the subgroup of order q


@pytest.mark.covers("V43", "R40", "R124")
@pytest.mark.parametrize(
    "name", ["diffie-hellman-group1-sha1", "diffie-hellman-group14-sha256", "diffie-hellman-group16-sha512"]
)
def test_dh_public_values(name: str) -> None:
    method = kex.METHODS[name]
    assert isinstance(method, dh.DhMethod)
    p = method.group.prime
    for bad in (0, 1, p - 1, p, p + 1, 2 * p + 5, -1, -5, -p):
        ours = client(name)
        ours.start()
        refused(lambda: server(name).receive(KexDhInit(bad)), "the client's .* out of range")  # noqa: B023
        refused(lambda: ours.receive(KexDhReply(b"", bad, b"")), "the server's .* out of range")  # noqa: B023
        assert ours.secret is None
    for bad in (2, 4, 7, 2**512, 2**511 + 2**60 + 1):
        refused(lambda: server(name).receive(KexDhInit(bad)), "bits set")  # noqa: B023
    server(name).receive(KexDhInit(15))
    server(name).receive(KexDhInit(p - 2))


@pytest.mark.covers("V43", "V45")
def test_dh_refuses_before_it_computes() -> None:
    entropy = Source("server")
    method = kex.METHODS["diffie-hellman-group14-sha256"]
    theirs = kex.server_exchange(method, entropy=entropy, oracle=compute_now, host_key=b"")
    refused(lambda: theirs.receive(KexDhInit(1)), "out of range")
    assert entropy.labels == []


@pytest.mark.parametrize("group", [groups.GROUP1, groups.GROUP14, groups.GROUP15], ids=lambda group: group.name)
@pytest.mark.parametrize("generator", [2, 3, 5])
def test_dh_arithmetic(group: groups.Group, generator: int) -> None:
    """The public value and K against Python's pow, for whatever generator a server may use with the prime."""
    mine = dh.DhEphemeral(group.prime, generator, Source("mine"))
    raw = Source("mine")(64, "kex")
    exponent = int.from_bytes(raw, "big") | 1 << 511
    assert mine.public == pow(generator, exponent, group.prime)
    other = dh.DhEphemeral(group.prime, generator, Source("other"))
    secret = pow(other.public, exponent, group.prime)
    assert mine.agree(other.public) == mpint(secret)
    assert other.agree(mine.public) == mpint(secret)


def test_dh_without_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """The day cryptography drops it, the same values come out."""
    name = "diffie-hellman-group14-sha256"
    assert dh._backend() is not None
    ours = client(name)
    run(ours, server(name))
    monkeypatch.setattr(dh, "_backend", lambda: None)
    again = client(name)
    run(again, server(name))
    assert (ours.transcript, ours.secret) == (again.transcript, again.secret)


@pytest.mark.covers("V43", "V44")
def test_trivial_values_of_a_made_up_group() -> None:
    """In a composite group values in range can lead to a trivial secret, or to a public value that we may not send."""
    prime, nilpotent = 3**1400, 3**1000
    mine = dh.DhEphemeral(prime, 5, Source("mine"))
    dh.check_public(nilpotent, prime, "the server's")
    refused(lambda: mine.agree(nilpotent), "secret is trivial")
    refused(lambda: dh.DhEphemeral(prime, nilpotent, Source("mine")), "our Diffie-Hellman value is out of range")


# ------------------------------------------------------------------------------------------------------- group exchange

GEX = "diffie-hellman-group-exchange-sha256"
P14, P15 = groups.GROUP14.prime, groups.GROUP15.prime


@pytest.mark.covers("V44", "R118")
@pytest.mark.parametrize(
    ("request_", "bits"),
    [
        ((2048, 3072, 8192), 3072),
        ((2048, 2048, 8192), 2048),
        ((1024, 1024, 8192), 2048),
        ((1, 2, 2048), 2048),
        ((2048, 2049, 8192), 3072),
        ((2048, 5000, 8192), 6144),
        ((2048, 8192, 8192), 8192),
        ((2048, 4096, 5000), 4096),
        ((2048, 5000, 5500), 4096),  # nothing that large: the largest within
        ((2048, 9000, 10000), 8192),
        ((3072, 3072, 3072), 3072),
        ((8192, 8192, 2**32 - 1), 8192),
    ],
)
def test_the_servers_choice(request_: tuple[int, int, int], bits: int) -> None:
    answer = server(GEX).receive(KexDhGexRequest(*request_))
    assert isinstance(answer, KexDhGexGroup)
    assert answer.g == 2
    assert answer.p.bit_length() == bits
    assert answer.p in {group.prime for group in groups.STRONG}


@pytest.mark.covers("V44", "R118")
@pytest.mark.parametrize(
    "request_",
    [
        (3072, 2048, 8192),  # not in order
        (2048, 8192, 4096),
        (8192, 4096, 2048),
        (2**32 - 1, 0, 0),
        (1024, 1024, 2047),  # nothing of that size
        (0, 0, 0),
        (8193, 8193, 16384),
        (2049, 2050, 3071),
        (2**32 - 1, 2**32 - 1, 2**32 - 1),
    ],
)
def test_the_servers_bounds(request_: tuple[int, int, int]) -> None:
    refused(lambda: server(GEX).receive(KexDhGexRequest(*request_)), "not in order|we have 2048")


@pytest.mark.covers("R119")
def test_the_old_request_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="KexDhGexRequestOld came, expected KexDhGexRequest"):
        server(GEX).receive(KexDhGexRequestOld(2048))


def answer_group(p: int, g: int, bits: tuple[int, int, int] = BITS) -> Message | None:
    ours = client(GEX, bits=bits)
    assert ours.start() == KexDhGexRequest(*bits)
    return ours.receive(KexDhGexGroup(p, g))


@pytest.mark.covers("V44")
def test_groups_that_are_accepted() -> None:
    for p, g in ((P14, 2), (P15, 5), (2**2047 + 9, 3), (P14, P14 - 2), (2**8192 - 1, 3)):
        assert isinstance(answer_group(p, g), KexDhGexInit)
    assert isinstance(answer_group(P15, 2, (3072, 3072, 3072)), KexDhGexInit)


@pytest.mark.covers("V44", "R118")
@pytest.mark.parametrize(
    ("p", "g", "match"),
    [
        (groups.GROUP1.prime, 2, "prime of 1024 bits, asked were 2048 to 8192"),
        (2**2047 - 1, 2, "2047 bits"),
        (2**8192 + 1, 2, "8193 bits"),
        (2**16384 + 1, 2, "16385 bits"),
        (0, 2, "0 bits"),
        (1, 2, "1 bits"),
        (-P14, 2, "negative"),
        (P14 - 1, 2, "even"),
        (P14, 0, "generator"),
        (P14, 1, "generator"),
        (P14, -2, "generator"),
        (P14, P14 - 1, "generator"),
        (P14, P14, "generator"),
        (P14, P14 + 2, "generator"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.bit_length()} bits",
)
def test_groups_that_are_refused(p: int, g: int, match: str) -> None:
    refused(lambda: answer_group(p, g), match)


@pytest.mark.covers("V44")
def test_our_own_bounds_count() -> None:
    refused(lambda: answer_group(P14, 2, (3072, 3072, 8192)), "2048 bits, asked were 3072 to 8192")
    refused(lambda: answer_group(P15, 2, (2048, 2048, 2048)), "3072 bits, asked were 2048 to 2048")
    refused(lambda: answer_group(groups.GROUP1.prime, 2, (1024, 1024, 8192)), "asked were 2048")  # RFC 8270 stays
    refused(lambda: answer_group(2**8192 + 1, 2, (2048, 2048, 16384)), "to 8192")


@pytest.mark.covers("V43", "R117")
@pytest.mark.parametrize("bad", [0, 1, P14 - 1, P14, P14 + 1, -1, 8], ids=hex)
def test_gex_public_values(bad: int) -> None:
    theirs = server(GEX)
    group = theirs.receive(KexDhGexRequest(2048, 2048, 2048))
    refused(lambda: theirs.receive(KexDhGexInit(bad)), "the client's")
    assert theirs.secret is None
    ours = client(GEX, bits=(2048, 2048, 2048))
    ours.start()
    ours.receive(group)
    refused(lambda: ours.receive(KexDhGexReply(b"", bad, b"")), "the server's")
    assert ours.secret is None


def test_a_group_of_the_servers_own_is_fast() -> None:
    """OpenSSL must not be asked to prove a prime that it does not know: at 8192 bits that takes half a minute."""
    p = 2**8191 + 2**4000 + 1
    ours = client(GEX)
    ours.start()
    init = ours.receive(KexDhGexGroup(p, 3))
    assert isinstance(init, KexDhGexInit)
    theirs = dh.DhEphemeral(p, 3, Source("server"))
    assert ours.receive(KexDhGexReply(b"", theirs.public, b"")) is None
    assert ours.secret == theirs.agree(init.e)


@pytest.mark.covers("R119")
def test_gex_hash_fields() -> None:
    messages = [KexDhGexRequest(1, 2, 3), KexDhGexGroup(4, 5), KexDhGexInit(6), KexDhGexReply(b"h", 7, b"s")]
    fields = kex.METHODS[GEX].family.hash_fields
    assert fields(messages) == uint32(1) + uint32(2) + uint32(3) + mpint(4) + mpint(5) + mpint(6) + mpint(7)
    messages[0] = KexDhGexRequestOld(2)  # RFC 4419 section 5, for the observer
    assert fields(messages) == uint32(2) + mpint(4) + mpint(5) + mpint(6) + mpint(7)
    assert gex.MAXIMUM_BITS == 8192


def test_dh_hash_fields() -> None:
    fields = kex.METHODS[GROUP18].family.hash_fields
    assert fields([KexDhInit(200), KexDhReply(b"h", 7, b"s")]) == mpint(200) + mpint(7)


# ------------------------------------------------------------------------------------------------------------- warnings


@pytest.mark.covers("R170")
def test_no_warning_in_this_process() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("diffie-hellman-group14-sha256", GEX):
            run(client(name), server(name))


def test_no_warning_from_the_start() -> None:
    """In a fresh process under -W error, from two threads, with the library's imports among them."""
    program = """
import os, threading
from sshproto.config import compute_now, system_entropy
from sshproto.transport import kex

def both(name, failures):
    try:
        method = kex.METHODS[name]
        ours = kex.client_exchange(method, entropy=system_entropy, oracle=compute_now, gex_bits=(2048, 2048, 8192))
        theirs = kex.server_exchange(method, entropy=system_entropy, oracle=compute_now, host_key=b"")
        message = ours.start()
        while message is not None:
            message = ours.receive(theirs.receive(message))
        if ours.secret != theirs.secret:
            raise SystemError(name)
    except BaseException as error:
        failures.append(repr(error))

failures = []
names = ["diffie-hellman-group14-sha256", "diffie-hellman-group-exchange-sha256", "mlkem768x25519-sha256"] * 2
threads = [threading.Thread(target=both, args=(name, failures)) for name in names]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(failures)
"""
    paths = [str(Path(algorithms.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        check=False,
        text=True,
        env=environment,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
