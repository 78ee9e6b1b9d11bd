"""The composite of ML-DSA-44 and Ed25519: made once more of its parts, both of which count; and off unless named."""

from __future__ import annotations

import hashlib
import pickle

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sshproto import algorithms, events
from sshproto.config import ClientConfig, Preferences, ServerConfig
from sshproto.errors import InvalidArgument, KeyFormatError, SignatureInvalid
from sshproto.keys import FOREVER, KRL, Certificate, CertificateKind, PrivateKey, PublicKey, allowed_signers, sshsig
from sshproto.keys.certificates import AUTHORITY_ALGORITHMS
from sshproto.keys.composite import PRIVATE_SIZE, PUBLIC_SIZE, SIGNATURE_SIZE, TYPE
from sshproto.keys.openssh import write as write_openssh
from sshproto.keys.private import read_half, read_private, write_private
from sshproto.keys.signatures import pack, unpack
from sshproto.wire.codec import Reader, string, text
from tests.support.pair import HOST_KEY, Pair, client_answers
from tests.support.postquantum import HAS_MLDSA44, NO_MLDSA44

if not HAS_MLDSA44:
    pytest.skip(NO_MLDSA44, allow_module_level=True)

DATA = b"some data"
SEEDS = bytes(range(64))
MLDSA = mldsa.MLDSA44PrivateKey.from_seed_bytes(SEEDS[:32])
EDDSA = Ed25519PrivateKey.from_private_bytes(SEEDS[32:])
RAW = MLDSA.public_key().public_bytes_raw() + EDDSA.public_key().public_bytes_raw()
BLOB = text(TYPE) + string(RAW)
KEY = read_private(Reader(BLOB + string(SEEDS), "key"))
PUBLIC = KEY.public_key
OTHER = PrivateKey.generate(TYPE, comment="another")
CERTIFIED = "ssh-mldsa44-ed25519-cert-v01@openssh.com"


def by_hand(data: bytes, label: bytes = b"COMPSIG-MLDSA44-Ed25519-SHA512") -> bytes:
    """The two signatures over data, as the draft has it."""
    message = b"CompositeAlgorithmSignatures2025" + label + b"\0" + hashlib.sha512(data).digest()
    return MLDSA.sign(message, label) + EDDSA.sign(message)


# ------------------------------------------------------------------------------------------------------------- the form


def test_sizes():
    assert (len(RAW), len(SEEDS)) == (PUBLIC_SIZE, PRIVATE_SIZE) == (1344, 64)
    assert len(unpack(KEY.sign(DATA))[1]) == SIGNATURE_SIZE == 2484
    assert PUBLIC.blob == BLOB
    assert (PUBLIC.type, PUBLIC.bits, PUBLIC.signature_algorithms) == (TYPE, 256, (TYPE,))
    assert "MLDSA44-ED25519" in PUBLIC.randomart()


def test_a_signature_made_by_hand_verifies():
    PUBLIC.verify(pack(TYPE, by_hand(DATA)), DATA, TYPE)
    with pytest.raises(SignatureInvalid, match="does not verify"):
        PUBLIC.verify(pack(TYPE, by_hand(DATA, b"COMPSIG-MLDSA44-Ed25519-SHA256")), DATA, TYPE)


def test_what_we_sign_is_what_is_signed_by_hand():
    name, body = unpack(KEY.sign(DATA))
    assert name == TYPE
    label = b"COMPSIG-MLDSA44-Ed25519-SHA512"
    message = b"CompositeAlgorithmSignatures2025" + label + b"\0" + hashlib.sha512(DATA).digest()
    MLDSA.public_key().verify(body[:2420], message, label)
    EDDSA.public_key().verify(body[2420:], message)


def test_both_have_to_have_signed():
    body = by_hand(DATA)
    other = unpack(OTHER.sign(DATA))[1]
    for wrong in (
        body[:2420] + other[2420:],
        other[:2420] + body[2420:],
        body[:2420] + bytes(64),
        bytes(2420) + body[2420:],
    ):
        with pytest.raises(SignatureInvalid, match="does not verify"):
            PUBLIC.verify(pack(TYPE, wrong), DATA, TYPE)
    for wrong in (b"", body[:-1], body + b"\0", body[:2420], body[2420:]):
        with pytest.raises(SignatureInvalid, match=f"has 2484 bytes, this one {len(wrong)}"):
            PUBLIC.verify(pack(TYPE, wrong), DATA, TYPE)
    with pytest.raises(SignatureInvalid, match="not a signature blob"):
        PUBLIC.verify(pack(TYPE, body) + b"\0", DATA, TYPE)
    with pytest.raises(SignatureInvalid, match="does not verify"):
        PUBLIC.verify(pack(TYPE, body), DATA + b"!", TYPE)
    with pytest.raises(SignatureInvalid, match="made with ssh-ed25519"):
        PUBLIC.verify(pack("ssh-ed25519", body), DATA, TYPE)


@given(st.integers(0, SIGNATURE_SIZE * 8 - 1))
def test_every_bit_of_a_signature_counts(bit):
    body = bytearray(GOOD)
    body[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureInvalid):
        PUBLIC.verify(pack(TYPE, bytes(body)), DATA, TYPE)


GOOD = by_hand(DATA)


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (text(TYPE) + string(RAW[:-1]), "key of 1343 bytes: it has 1344"),
        (text(TYPE) + string(RAW + b"\0"), "key of 1345 bytes"),
        (text(TYPE) + string(b""), "key of 0 bytes"),
        (BLOB + b"\0", "malformed public key"),
        (BLOB[:-1], "malformed public key"),
        (text(TYPE) + string(RAW[:1312] + bytes(32)), "of small order"),
        (text(TYPE) + string(RAW[:1312] + b"\xff" * 32), "not encoded in the one way"),
    ],
)
def test_public_keys_that_are_none(blob, words):
    with pytest.raises(KeyFormatError, match=words):
        PublicKey.from_blob(blob)


# ---------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("passphrase", [None, b"xyzzy"])
def test_files(passphrase):
    content = OTHER.openssh(passphrase, rounds=1)
    loaded = PrivateKey.load(content, passphrase)
    assert loaded.public_key == OTHER.public_key
    assert loaded.comment == "another"
    OTHER.public_key.verify(loaded.sign(DATA), DATA, TYPE)
    assert PublicKey.parse(OTHER.public_key.openssh()) == OTHER.public_key
    assert PublicKey.parse(OTHER.public_key.rfc4716()) == OTHER.public_key
    assert pickle.loads(pickle.dumps(OTHER.public_key)) == OTHER.public_key


def file_of(fields: bytes, blob: bytes = BLOB) -> bytes:
    return write_openssh(blob, fields, "", None, bytes(4), b"", 1)


def test_private_keys_that_are_none():
    assert PrivateKey.load(file_of(BLOB + string(SEEDS))).public_key == PUBLIC
    for fields, words in (
        (BLOB + string(SEEDS[:-1]), "private key of 63 bytes: it has 64"),
        (BLOB + string(SEEDS[32:] + SEEDS[:32]), "the private and the public part are different"),
        (BLOB + string(SEEDS[:32] + bytes(32)), "the private and the public part are different"),
        (BLOB, "private key of 0 bytes"),
        (text(TYPE) + string(RAW[:-1]) + string(SEEDS), "the private and the public part are different"),
    ):
        with pytest.raises(KeyFormatError, match=words) as caught:
            PrivateKey.load(file_of(fields))
        assert SEEDS[:8].hex() not in str(caught.value)


def test_there_are_no_other_forms():
    for make in (KEY.pkcs8, PUBLIC.pkcs8, PUBLIC.pkcs1):
        with pytest.raises(InvalidArgument, match=r"has no form in|only RSA keys"):
            make()


def test_a_secret_does_not_show():
    assert SEEDS.hex()[:16] not in repr(KEY) + repr(KEY._handle)
    assert repr(KEY._handle) == "<CompositePrivateKey>"


def test_agents_pass_it_on():
    whole = Reader(write_private(KEY) + b"rest", "key")
    assert read_private(whole).public_key == PUBLIC
    assert whole.rest() == b"rest"
    half = write_private(KEY, half=True)
    assert half == string(SEEDS)  # behind a certificate the public half is left out
    assert read_half(Reader(half, "key"), PUBLIC).public_key == PUBLIC
    with pytest.raises(KeyFormatError, match="different"):
        read_half(Reader(half, "key"), OTHER.public_key)


# ------------------------------------------------------------------------------------------- certificates, signed files


def issue(authority: PrivateKey, key: PublicKey, **more) -> Certificate:
    return Certificate.issue(
        authority, key, CertificateKind.USER, key_id="k", principals=["alice"], valid_before=FOREVER, **more
    )


def test_certificates():
    classical = PrivateKey.generate()
    certificate = issue(classical, PUBLIC)
    assert (certificate.type, certificate.signature_algorithms) == (CERTIFIED, (CERTIFIED,))
    assert Certificate.parse(certificate.openssh()) == certificate
    certificate.verify(KEY.sign(DATA), DATA, CERTIFIED)
    by_it = issue(KEY, classical.public_key)
    assert by_it.authority_algorithm == TYPE
    with pytest.raises(KeyFormatError, match=f"signed with {TYPE}; accepted are ssh-ed25519"):
        Certificate.from_blob(by_it.blob)
    assert Certificate.from_blob(by_it.blob, authority_algorithms=(*AUTHORITY_ALGORITHMS, TYPE)) == by_it


def test_files_are_signed():
    signature = sshsig.sign(KEY, DATA, "file")
    content = f"alice {PUBLIC.openssh()}\nbob cert-authority {PUBLIC.openssh()}\n"
    signers = allowed_signers.parse(content)
    assert not signers.problems
    again = sshsig.FileSignature.parse(signature.armoured())
    signers.verify(again, DATA, "alice", "file", now=0)
    assert KRL().revoke(PUBLIC).why(PUBLIC)
    classical = PrivateKey.generate()
    certificate = Certificate.issue(
        KEY, classical.public_key, CertificateKind.USER, key_id="k", principals=["bob"], valid_before=FOREVER
    )
    by_certificate = sshsig.sign(classical, DATA, "file", certificate=certificate)
    signers.verify(sshsig.FileSignature.parse(by_certificate.encode()), DATA, "bob", "file", now=0)


# ---------------------------------------------------------------------------------------------------------- connections


def test_it_is_off_unless_it_is_named():
    assert algorithms.SIGNATURE_EXTRA == (TYPE,)
    assert TYPE not in Preferences().host_key + Preferences().signature
    assert CERTIFIED not in Preferences().host_key


def test_hosts_and_users_with_it():
    def answers(conn, question):
        if isinstance(question, events.CredentialNeeded):
            conn.auth_public_key(question, OTHER)
        else:
            client_answers(conn, question)

    def lets_in(conn, question):
        if isinstance(question, events.KeyAuth) and question.key == OTHER.public_key:
            conn.accept_auth(question)
        else:
            conn.refuse(question)

    for named in (True, False):
        wanted = Preferences(host_key=(TYPE,), signature=(TYPE,)) if named else Preferences()
        client = ClientConfig(user="alice", preferences=Preferences(host_key=(TYPE,), signature=(TYPE,)))
        pair = Pair.make(
            client,
            ServerConfig(host_keys=(KEY, HOST_KEY), preferences=wanted),
            client_answer=answers,
            server_answer=lets_in,
        )
        pair.run()
        assert bool(pair.client.of(events.AuthSucceeded)) == named
        if named:
            assert pair.client.conn.host_key == PUBLIC
            (login,) = pair.server.of(events.KeyAuth)
            assert (login.key, login.algorithm) == (OTHER.public_key, TYPE)
        else:
            assert "no common" in str(pair.client.lost.error)


# ---------------------------------------------------------------------------------------------------- a backend without


def test_a_backend_without_it_is_named(monkeypatch):
    def unsupported(*arguments: object) -> None:
        raise UnsupportedAlgorithm("ML-DSA-44 is not supported by this backend.")

    monkeypatch.setattr(mldsa.MLDSA44PublicKey, "from_public_bytes", unsupported)
    monkeypatch.setattr(mldsa.MLDSA44PrivateKey, "from_seed_bytes", unsupported)
    monkeypatch.setattr(mldsa.MLDSA44PrivateKey, "generate", unsupported)
    words = r"takes ML-DSA-44, which `cryptography` \S+ has not got here; 48 and later have"
    for make in (
        lambda: PrivateKey.generate(TYPE),
        lambda: PublicKey.from_blob(BLOB),
        lambda: PrivateKey.load(file_of(BLOB + string(SEEDS))),
    ):
        with pytest.raises(KeyFormatError, match=words):
            make()
    (problem,) = allowed_signers.parse(f"alice {PUBLIC.openssh()}\n").problems
    assert "ML-DSA-44" in problem[1]
