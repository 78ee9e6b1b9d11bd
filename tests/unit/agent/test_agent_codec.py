"""Messages of agents: both codecs, against what arbitrary and changed bytes are."""

from __future__ import annotations

import contextlib
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sshproto.agent import (
    AgentError,
    AgentMessageError,
    AgentRefused,
    AssociatedCertificates,
    Constraints,
    DestinationConstraint,
    ExtensionUnsupported,
    Hop,
    HostKeySpec,
    Identity,
    destination,
)
from sshproto.agent import messages as m
from sshproto.agent import replies as r
from sshproto.agent.framing import MAXIMUM_MESSAGE, Framer, frame
from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys import PrivateKey, PublicKey
from sshproto.keys.known_hosts import parse
from sshproto.wire.codec import byte, string, text, uint32
from tests.support.agents import AUTHORITY, CERTIFICATES, HOSTS, KEY, KEYS, TYPES, hop, user_certificate, way
from tests.support.postquantum import needs_mldsa44

EVERYTHING = Constraints(lifetime=60, confirm=True, destinations=(way("", "one", "al*"), way("one", "two")))
REQUESTS: list[m.Request] = [
    m.RequestIdentities(),
    m.SignRequest(b"key", b"data", 4),
    m.RemoveIdentity(b"key"),
    m.RemoveAllIdentities(),
    m.AddSmartcardKey("reader", b"1234"),
    m.AddSmartcardKey("reader", b"1234", Constraints(certificates=AssociatedCertificates((b"a", b"b"), only=True))),
    m.RemoveSmartcardKey("reader", b"1234"),
    m.Lock(b"phrase"),
    m.Unlock(b"phrase"),
    m.Extension("query"),
    m.Extension("x@example.org", b"contents"),
]
ADDS = [
    m.AddIdentity(KEYS[name], certificate, "words", constraints)
    for name in TYPES
    for certificate in (None, CERTIFICATES[name])
    for constraints in (Constraints(), EVERYTHING)
]
EVERY: list[m.Request] = [*REQUESTS, *ADDS]
ENCODED = [request.encode() for request in EVERY]


# -------------------------------------------------------------------------------------------------------------- framing


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5), st.integers(1, 50))
def test_messages_come_out_of_any_pieces(payloads: list[bytes], size: int) -> None:
    stream = b"".join(map(frame, payloads))
    framer = Framer("reply")
    found = []
    for start in range(0, len(stream), size):
        framer.feed(stream[start : start + size])
        while (payload := framer.next()) is not None:
            found.append(payload)
    assert found == payloads
    framer.end()


@pytest.mark.covers("V74")
def test_what_is_too_long_or_empty() -> None:
    assert len(frame(bytes(MAXIMUM_MESSAGE))) == MAXIMUM_MESSAGE + 4
    with pytest.raises(AgentMessageError, match=r"of 262145 bytes: 262144 can be sent"):
        frame(bytes(MAXIMUM_MESSAGE + 1))
    for size in (0, MAXIMUM_MESSAGE + 1, 2**32 - 1):
        framer = Framer("request")
        framer.feed(uint32(size))
        assert framer.complete
        with pytest.raises(AgentMessageError, match=f"request of {size} bytes is announced: 1 to 262144 are accepted"):
            framer.next()
    framer = Framer("reply")
    framer.feed(uint32(MAXIMUM_MESSAGE) + bytes(MAXIMUM_MESSAGE))
    assert len(framer.next() or b"") == MAXIMUM_MESSAGE


def test_a_stream_that_ends_within_a_message() -> None:
    framer = Framer("reply")
    framer.feed(b"\0\0\0\5\6")
    assert framer.next() is None
    with pytest.raises(AgentMessageError, match="ended within an agent reply: 5 bytes of it came"):
        framer.end()


# ------------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_requests_are_read_as_they_are_written(request_: m.Request) -> None:
    assert m.parse_request(request_.encode()) == request_
    assert m.request_name(request_.encode()[0]).startswith("SSH_AGENTC_")


@pytest.mark.parametrize("add", ADDS)
def test_keys_are_read_as_they_are_written(add: m.AddIdentity) -> None:
    read = m.parse_request(add.encode())
    assert isinstance(read, m.AddIdentity)
    assert (read.key.public_key, read.certificate, read.comment, read.constraints) == (
        add.key.public_key,
        add.certificate,
        add.comment,
        add.constraints,
    )
    add.key.public_key.verify(read.key.sign(b"data"), b"data", read.key.public_key.signature_algorithms[0])


@pytest.mark.parametrize("encoded", ENCODED, ids=lambda data: str(data[0]))
def test_requests_that_are_cut_or_too_long(encoded: bytes) -> None:
    """Constraints may end after any of them, and an extension's contents anywhere."""
    for size in range(0, len(encoded), 1 + len(encoded) // 25):
        try:
            read = m.parse_request(encoded[:size])
        except AgentMessageError:
            continue
        assert isinstance(read, m.Extension) or read.constraints != EVERYTHING  # type: ignore[union-attr]
    if encoded[0] != m.Extension.number:
        with pytest.raises(AgentMessageError):
            m.parse_request(encoded + b"\0")


@pytest.mark.covers("V74")
@given(st.binary(max_size=400))
@example(b"")
def test_arbitrary_requests(data: bytes) -> None:
    for number in (None, *m._REQUESTS):
        try:
            m.parse_request(data if number is None else byte(number) + data)
        except AgentMessageError as error:
            assert str(error).isprintable()


@given(st.sampled_from([data for data in ENCODED if len(data) > 1]), st.data())
def test_changed_requests(encoded: bytes, data: st.DataObject) -> None:
    changed = bytearray(encoded)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(1, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        request = m.parse_request(bytes(changed))
    except AgentMessageError as error:
        assert str(error).isprintable()
        return
    if isinstance(request, m.AddIdentity):  # whatever was changed, it is a whole key
        request.key.public_key.verify(request.key.sign(b"x"), b"x", request.key.public_key.signature_algorithms[0])
        if request.certificate is not None:
            assert request.certificate.key == request.key.public_key


def test_keys_that_are_no_good() -> None:
    other = PrivateKey.generate()
    mixed = byte(17) + KEY.public_key.blob + m.AddIdentity(other).encode()[-64 - 8 :]
    cases = {
        mixed: "different ssh-ed25519 keys",
        byte(17) + text("ssh-dss") + string(b"x"): "DSA is too weak",
        byte(17) + text("sk-ssh-ed25519@openssh.com") + string(b""): "is in a security token",
        byte(17) + text("ssh-rsa") + b"\0\0\0\1\5" * 6 + text(""): "3 bits",
        byte(17) + text("ssh-ed25519-cert-v01@openssh.com") + string(KEY.public_key.blob): "a plain key",
        byte(17)
        + text("ssh-ed25519-cert-v01@openssh.com")
        + string(CERTIFICATES["ssh-rsa"].blob): "is of type ssh-rsa",
        byte(17) + text("x") + string(b""): "not known",
        byte(99): "the agent request 99 is unknown",
    }
    for payload, said in cases.items():
        with pytest.raises(AgentMessageError, match=said):
            m.parse_request(payload)
    with pytest.raises(InvalidArgument, match="the certificate is for the key"):
        m.AddIdentity(other, CERTIFICATES["ssh-ed25519"]).encode()


@needs_mldsa44
def test_the_experimental_composite() -> None:
    key = PrivateKey.generate("ssh-mldsa44-ed25519@openssh.com")
    certificate = user_certificate(key)
    for add in (m.AddIdentity(key), m.AddIdentity(key, certificate)):
        read = m.parse_request(add.encode())
        assert isinstance(read, m.AddIdentity)
        assert (read.key.public_key, read.certificate) == (key.public_key, add.certificate)
        key.public_key.verify(read.key.sign(b"data"), b"data", key.public_key.type)


def test_small_rsa_keys_are_for_who_accepts_them() -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    handle = rsa.generate_private_key(65537, 1024)
    pem = handle.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    encoded = m.AddIdentity(PrivateKey.load(pem, minimum_rsa_bits=1024)).encode()
    with pytest.raises(AgentMessageError, match="RSA key of 1024 bits"):
        m.parse_request(encoded)
    assert isinstance(m.parse_request(encoded, minimum_rsa_bits=1024), m.AddIdentity)


# ---------------------------------------------------------------------------------------------------------- constraints


@pytest.mark.covers("V74")
def test_constraints_that_are_refused() -> None:
    add = m.AddIdentity(KEY).encode()[1:]
    destinations = EVERYTHING.encode()[6:]
    empty = byte(255) + text("restrict-destination-v00@openssh.com") + string(b"")
    cases = {
        b"\1\0\0\0\0": "is no time at all",
        b"\1\0\0\0\1\1\0\0\0\1": "unknown or there twice",
        b"\3": "of kind 3",
        destinations * 2: "there twice",
        empty: "is none",
        byte(255) + text("no@example.org"): "'no@example.org' is unknown",
        Constraints(certificates=AssociatedCertificates((b"x",))).encode(): "are for the keys of tokens only",
    }
    for constraints, said in cases.items():
        with pytest.raises(AgentMessageError, match=said):
            m.parse_request(byte(25) + add + constraints)
    with pytest.raises(InvalidArgument, match="for the keys of tokens"):
        m.AddIdentity(KEY, constraints=Constraints(certificates=AssociatedCertificates((b"x",)))).encode()


def test_destinations_that_make_no_sense() -> None:
    cases = {
        DestinationConstraint(Hop(user="me"), hop("one")): "who is logged in where it begins does not matter",
        DestinationConstraint(Hop("one"), hop("two")): "where it begins has no keys",
        DestinationConstraint(Hop(keys=hop("one").keys), hop("two")): "has keys and no name",
        DestinationConstraint(Hop(), Hop("one")): "where it leads has no keys",
        DestinationConstraint(Hop(), Hop(keys=hop("one").keys)): "where it leads has no name",
    }
    for constraint, said in cases.items():
        with pytest.raises(InvalidArgument, match=said):
            Constraints(destinations=(constraint,)).encode()
        inner = string(string(constraint.encode()))
        payload = byte(25) + m.AddIdentity(KEY).encode()[1:] + byte(255) + text("restrict-destination-v00@openssh.com")
        with pytest.raises(AgentMessageError, match=said):
            m.parse_request(payload + inner)
    for lifetime in (0, -1, 2**32):
        with pytest.raises(InvalidArgument, match="a lifetime is from 1 to"):
            Constraints(lifetime=lifetime).encode()


@pytest.mark.covers("V74")
def test_there_are_bounds_on_what_is_counted() -> None:
    many = HostKeySpec(b"", authority=False)
    cases = [
        (way("", "one"),) * 1025,
        (DestinationConstraint(Hop(), Hop("one", (many,) * 1025)),),
    ]
    with pytest.raises(InvalidArgument, match="at most 1024 destination constraints"):
        Constraints(destinations=cases[0]).encode()
    for destinations in cases:
        inner = b"".join(string(each.encode()) for each in destinations)
        payload = byte(25) + m.AddIdentity(KEY).encode()[1:] + byte(255) + text("restrict-destination-v00@openssh.com")
        with pytest.raises(AgentMessageError, match="more than 1024"):
            m.parse_request(payload + string(inner))
    certificates = Constraints(certificates=AssociatedCertificates((b"",) * 1025))
    with pytest.raises(AgentMessageError, match="more than 1024"):
        m.parse_request(m.AddSmartcardKey("", b"", certificates).encode())


KNOWN = parse(
    f"one,uno {HOSTS['one'].public_key.openssh()}\n[two]:22022 {HOSTS['two'].public_key.openssh()}\n"
    f"@cert-authority *.org {AUTHORITY.public_key.openssh()}\n"
    f"bad {HOSTS['three'].public_key.openssh()}\n@revoked * {HOSTS['three'].public_key.openssh()}\n"
)


@pytest.mark.parametrize(
    ("spec", "start", "user", "end", "keys"),
    [
        ("one", "", "", "one", [("one", False)]),
        ("me@Uno", "", "me", "Uno", [("one", False)]),
        ("one>[two]:22022", "one", "", "[two]:22022", [("two", False)]),
        ("one>a@b@x.org", "one", "a@b", "x.org", [("", True)]),
    ],
)
def test_destinations_in_words(spec: str, start: str, user: str, end: str, keys: list[tuple[str, bool]]) -> None:
    found = destination(spec, KNOWN)
    assert (found.start.host, found.end.user, found.end.host) == (start, user, end)
    expected = tuple(HostKeySpec((HOSTS[name] if name else AUTHORITY).public_key.blob, ca) for name, ca in keys)
    assert found.end.keys == expected
    assert str(found) == spec
    found.check()


@pytest.mark.parametrize("spec", ["", "@one", "a@", ">one", "one>", "a@one>one", "one>one>one", "o*", "one two", "@"])
def test_words_that_are_no_destination(spec: str) -> None:
    with pytest.raises(InvalidArgument, match="is no destination"):
        destination(spec, KNOWN)


@pytest.mark.parametrize("spec", ["nowhere", "nowhere>one", "one>nowhere", "bad"])
def test_hosts_that_are_not_known(spec: str) -> None:
    with pytest.raises(InvalidArgument, match=r"no key of the host (nowhere|bad) is known"):
        destination(spec, KNOWN)


# -------------------------------------------------------------------------------------------------------------- replies

LISTED = (Identity(KEY.public_key.blob, "a"), Identity(CERTIFICATES["ssh-rsa"].blob, "b"), Identity(b"no key", "c"))
REPLIES = [
    (m.RequestIdentities(), r.encode_identities(LISTED), LISTED),
    (m.RequestIdentities(), r.encode_identities(()), ()),
    (m.SignRequest(b"", b""), r.encode_signature(b"sig"), b"sig"),
    (m.RemoveAllIdentities(), byte(6), None),
    (m.Lock(b""), byte(6), None),
    (m.Extension("x"), byte(6), b""),
    (m.Extension("x"), byte(6) + b"old", b"old"),
    (m.Extension("x"), r.encode_extension("x", b"new"), b"new"),
]


@pytest.mark.parametrize(("request_", "reply", "value"), REPLIES)
def test_replies(request_: m.Request, reply: bytes, value: object) -> None:
    assert r.parse_reply(reply, request_) == value
    with pytest.raises(AgentRefused):
        r.parse_reply(byte(5), request_)


def test_what_is_listed_need_not_be_known() -> None:
    assert LISTED[0].load() == KEY.public_key
    assert LISTED[1].load() == CERTIFICATES["ssh-rsa"]
    assert (LISTED[2].type, LISTED[2].fingerprint()) == ("", LISTED[2].fingerprint())
    assert LISTED[1].fingerprint() == KEYS["ssh-rsa"].public_key.fingerprint()
    assert LISTED[0].fingerprint("md5").startswith("MD5:")
    with pytest.raises(KeyFormatError):
        LISTED[2].load()
    assert pickle.loads(pickle.dumps(LISTED)) == LISTED


@pytest.mark.covers("V74")
@pytest.mark.parametrize(
    ("request_", "reply", "said"),
    [
        (m.RequestIdentities(), b"", "is empty"),
        (m.RequestIdentities(), byte(6), "message 6, which is no answer"),
        (m.RequestIdentities(), byte(28), "message 28, which is no answer"),
        (m.RequestIdentities(), byte(12) + uint32(2049), "is 2049, at most 2048"),
        (m.RequestIdentities(), byte(12) + uint32(1), "needs 4 bytes"),
        (m.RequestIdentities(), byte(12) + uint32(0) + b"x", "1 bytes too many"),
        (m.SignRequest(b"", b""), byte(6), "no answer"),
        (m.SignRequest(b"", b""), byte(12) + uint32(0), "no answer"),
        (m.Lock(b""), byte(6) + b"x", "1 bytes too many"),
        (m.Lock(b""), byte(14) + string(b""), "no answer"),
        (m.Extension("x"), byte(29) + text("y"), "is 'y', not 'x'"),
        (m.Extension("x"), byte(29), "needs 4 bytes"),
    ],
)
def test_wrong_replies_are_one_clear_error(request_: m.Request, reply: bytes, said: str) -> None:
    with pytest.raises(AgentMessageError, match=said):
        r.parse_reply(reply, request_)


def test_refusals_of_extensions() -> None:
    with pytest.raises(ExtensionUnsupported, match="does not know the extension x"):
        r.parse_reply(byte(5), m.Extension("x"))
    with pytest.raises(AgentRefused) as caught:
        r.parse_reply(byte(28), m.Extension("x"))
    assert type(caught.value) is AgentRefused


@pytest.mark.covers("V74")
@given(st.binary(max_size=200), st.sampled_from(REQUESTS))
def test_arbitrary_replies(data: bytes, request_: m.Request) -> None:
    for payload in (data, *(byte(number) + data for number in (5, 6, 12, 14, 28, 29))):
        try:
            r.parse_reply(payload, request_)
        except AgentError as error:
            assert str(error).isprintable()


@given(st.binary(max_size=100))
def test_arbitrary_lists_of_extensions(data: bytes) -> None:
    with contextlib.suppress(AgentMessageError):
        assert b"".join(map(text, r.parse_query(data))) == data


# ------------------------------------------------------------------------------------------------------ what to sign as


@pytest.mark.parametrize(
    ("key", "algorithm", "flags", "name"),
    [
        (KEY.public_key, None, 0, "ssh-ed25519"),
        (CERTIFICATES["ssh-ed25519"], None, 0, "ssh-ed25519"),
        (KEYS["ssh-rsa"].public_key, None, 4, "rsa-sha2-512"),
        (KEYS["ssh-rsa"].public_key, "rsa-sha2-256", 2, "rsa-sha2-256"),
        (CERTIFICATES["ssh-rsa"], "rsa-sha2-256-cert-v01@openssh.com", 2, "rsa-sha2-256"),
        (CERTIFICATES["ssh-rsa"], None, 4, "rsa-sha2-512"),
        (KEYS["ssh-rsa"].public_key, "ssh-rsa", 0, "ssh-rsa"),
        (Identity(text("ssh-dss") + b"rest"), None, 0, "ssh-dss"),
    ],
)
def test_what_is_asked_for(key: PublicKey, algorithm: str | None, flags: int, name: str) -> None:
    request, chosen = r.sign_request(key, b"data", algorithm)
    assert request == m.SignRequest(key.blob, b"data", flags)
    assert chosen == name


def test_what_can_not_be_asked_for() -> None:
    with pytest.raises(InvalidArgument, match="cannot sign as rsa-sha2-512"):
        r.sign_request(KEY.public_key, b"", "rsa-sha2-512")
    with pytest.raises(InvalidArgument, match="not a public key"):
        r.sign_request(b"no key", b"")


def test_signatures_of_another_kind_are_refused() -> None:
    signature = KEYS["ssh-rsa"].sign(b"", "ssh-rsa")
    r.check_signature(signature, "ssh-rsa")
    with pytest.raises(AgentRefused, match="signed as ssh-rsa, though rsa-sha2-512 was asked for"):
        r.check_signature(signature, "rsa-sha2-512")
    with pytest.raises(AgentMessageError, match="is none"):
        r.check_signature(b"xx", "ssh-rsa")
