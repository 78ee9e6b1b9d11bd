from __future__ import annotations

import asyncio

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.algorithms import KNOWN
from sshproto.errors import SignatureInvalid
from sshproto.keys import SIGNATURES, PublicKey, signature_algorithms
from sshproto.keys.public import KEY_TYPES
from sshproto.keys.signatures import pack, unpack
from sshproto.wire.codec import Reader, mpint, string, text
from tests.support.panic import PanicException

DATA = b"some data"

# Written down by hand: the exact triples.
TRIPLES = {
    ("ssh-ed25519", "ssh-ed25519"),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
    ("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384"),
    ("ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521"),
    ("sk-ssh-ed25519@openssh.com", "sk-ssh-ed25519@openssh.com"),
    ("sk-ecdsa-sha2-nistp256@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"),
    ("webauthn-sk-ecdsa-sha2-nistp256@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"),
    ("ssh-rsa", "ssh-rsa"),
    ("rsa-sha2-256", "ssh-rsa"),
    ("rsa-sha2-512", "ssh-rsa"),
    ("ssh-mldsa44-ed25519@openssh.com", "ssh-mldsa44-ed25519@openssh.com"),
}
KINDS = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-ed25519", "ssh-rsa")
"""Those that can sign here; security keys are in test_security_keys.py, the experimental one in test_composite.py."""

ORDERS = {
    "ecdsa-sha2-nistp256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}


def test_the_table():
    assert {(name, algorithm.key_type) for name, algorithm in SIGNATURES.items()} == TRIPLES
    assert set(SIGNATURES) == KNOWN["signature"]
    assert set(KEY_TYPES) == {algorithm.key_type for algorithm in SIGNATURES.values()}
    assert all(name == algorithm.name for name, algorithm in SIGNATURES.items())
    assert signature_algorithms("ssh-rsa") == ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")
    assert signature_algorithms("rsa-sha2-512") == ()


def test_rfc_8032_vector():
    key = PublicKey.from_blob(
        text("ssh-ed25519") + string(bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"))
    )
    body = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )
    key.verify(pack("ssh-ed25519", body), b"", "ssh-ed25519")
    # S + L: another encoding of the same signature
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(body[32:], "little") + order
    with pytest.raises(SignatureInvalid, match="does not verify"):
        key.verify(pack("ssh-ed25519", body[:32] + s.to_bytes(32, "little")), b"", "ssh-ed25519")


@pytest.mark.covers("V46", "R135")
@pytest.mark.parametrize("asked", sorted(SIGNATURES))
@pytest.mark.parametrize("inside", sorted(SIGNATURES))
@pytest.mark.parametrize("kind", KINDS)
def test_every_triple(keys, kind, inside, asked):
    """Only where the key, the name in the signature and the name asked for agree, a good signature is good."""
    key = keys[kind]
    own = inside if (inside, kind) in TRIPLES else key.public_key.signature_algorithms[0]
    _, body = unpack(key.sign(DATA, own))
    signature = pack(inside, body)
    if inside == asked and (asked, kind) in TRIPLES:
        key.public_key.verify(signature, DATA, asked)
        return
    with pytest.raises(SignatureInvalid) as raised:
        key.public_key.verify(signature, DATA, asked)
    reason = "cannot sign as" if (asked, kind) not in TRIPLES else f"made with {inside}, {asked} was agreed on"
    assert reason in str(raised.value)


@pytest.mark.covers("V46")
@pytest.mark.parametrize("algorithm", ["", "none", "ssh-dss", "rsa-sha2-512-cert-v01@openssh.com", "SSH-RSA", "\x1b"])
def test_unknown_algorithms(keys, algorithm):
    key = keys["ssh-rsa"]
    with pytest.raises(SignatureInvalid, match="unknown signature algorithm"):
        key.public_key.verify(key.sign(DATA), DATA, algorithm)


@pytest.mark.covers("R41", "R136")
@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bits_other_data_other_key(keys, kind):
    key = keys[kind]
    algorithm = key.public_key.signature_algorithms[0]
    signature = key.sign(DATA, algorithm)
    key.public_key.verify(memoryview(signature), bytearray(DATA), algorithm)
    for at in range(0, len(signature), 3):
        broken = bytearray(signature)
        broken[at] ^= 0x10
        with pytest.raises(SignatureInvalid):
            key.public_key.verify(broken, DATA, algorithm)
    for size in range(0, len(signature), 5):
        with pytest.raises(SignatureInvalid):
            key.public_key.verify(signature[:size], DATA, algorithm)
    for data in (b"", DATA + b"\0", DATA[:-1]):
        with pytest.raises(SignatureInvalid, match="does not verify"):
            key.public_key.verify(signature, data, algorithm)
    with pytest.raises(SignatureInvalid, match="1 bytes too many"):
        key.public_key.verify(signature + b"\0", DATA, algorithm)


@pytest.mark.covers("V46", "R137")
@pytest.mark.parametrize("size", [0, 63, 65])
def test_length_of_ed25519_signatures(keys, size):
    with pytest.raises(SignatureInvalid, match=f"has 64 bytes, this one {size}"):
        keys["ssh-ed25519"].public_key.verify(pack("ssh-ed25519", b"x" * size), DATA, "ssh-ed25519")


@pytest.mark.covers("V47", "R136")
def test_short_rsa_signatures_are_padded_and_long_ones_refused(keys):
    key = keys["ssh-rsa"]
    for number in range(10_000):
        data = b"%d" % number
        _, body = unpack(key.sign(data, "rsa-sha2-256"))
        assert len(body) == 256
        if body[0] == 0:
            break
    key.public_key.verify(pack("rsa-sha2-256", body), data, "rsa-sha2-256")
    key.public_key.verify(pack("rsa-sha2-256", body.lstrip(b"\0")), data, "rsa-sha2-256")
    with pytest.raises(SignatureInvalid, match="has 256 bytes, this one 257"):
        key.public_key.verify(pack("rsa-sha2-256", b"\0" + body), data, "rsa-sha2-256")
    for bad in (b"", b"\0" * 256, b"\xff" * 256):
        with pytest.raises(SignatureInvalid, match="does not verify"):
            key.public_key.verify(pack("rsa-sha2-256", bad), data, "rsa-sha2-256")


@pytest.mark.covers("V47")
def test_odd_ecdsa_numbers(keys):
    kind = "ecdsa-sha2-nistp256"
    key, order = keys[kind], ORDERS[kind]
    _, body = unpack(key.sign(DATA))
    reader = Reader(body, "body")
    r, s = reader.mpint(), reader.mpint()
    for bad_r, bad_s in (
        (0, s), (r, 0), (-r, s), (r, -s), (order, s), (r, order), (r + order, s), (r, s + order), (r, 2**4000), (s, r),
    ):  # fmt: skip
        with pytest.raises(SignatureInvalid):
            key.public_key.verify(pack(kind, mpint(bad_r) + mpint(bad_s)), DATA, kind)
    for bad in (b"", mpint(r), mpint(r) + mpint(s) + b"\0", string(b"\0" + bytes([1])) + mpint(s)):
        with pytest.raises(SignatureInvalid, match="ECDSA signature"):
            key.public_key.verify(pack(kind, bad), DATA, kind)


@pytest.mark.covers("V49")
@pytest.mark.parametrize("kind", KINDS)
def test_signing_is_deterministic(keys, kind):
    assert keys[kind].sign(DATA) == keys[kind].sign(DATA)


@pytest.mark.covers("V47")
@pytest.mark.parametrize("kind", KINDS)
@given(body=st.binary(max_size=80))
def test_no_bytes_raise_anything_else(keys, kind, body):
    public = keys[kind].public_key
    for algorithm in public.signature_algorithms:
        for signature in (body, pack(algorithm, body), pack(algorithm, string(body) + string(body))):
            with pytest.raises(SignatureInvalid):
                public.verify(signature, DATA, algorithm)


class Backend:
    """A backend's key whose every call ends in the same way."""

    key_size = 2048

    def __init__(self, error):
        self.error = error

    def verify(self, *args):
        raise self.error


@pytest.mark.covers("V47")
@pytest.mark.parametrize("kind", ["ssh-ed25519", "ssh-rsa"])
def test_a_backend_that_fails_has_found_nothing_valid(keys, kind):
    """Whatever it raises, a panic as well; but an interruption is no answer."""
    key = keys[kind]
    signature, algorithm = key.sign(DATA), key.public_key.signature_algorithms[0]
    for error in (ValueError(), MemoryError(), PanicException("index out of bounds")):
        broken = attrs.evolve(key.public_key, handle=Backend(error))
        with pytest.raises(SignatureInvalid, match=rf"does not verify \({type(error).__name__}\)"):
            broken.verify(signature, DATA, algorithm)
    for error in (KeyboardInterrupt(), SystemExit(), GeneratorExit(), asyncio.CancelledError()):
        broken = attrs.evolve(key.public_key, handle=Backend(error))
        with pytest.raises(type(error)):
            broken.verify(signature, DATA, algorithm)
