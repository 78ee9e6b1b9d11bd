"""Signatures of security keys: OpenSSH's own vectors, and those of a token in software."""

from __future__ import annotations

import base64
import hashlib
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.config import UNATTENDED, SecurityKeyPolicy
from sshproto.errors import InvalidArgument, KeyFormatError, SignatureInvalid
from sshproto.keys import PrivateKey, PublicKey, authorized_keys
from sshproto.keys.fingerprints import bubblebabble_of
from sshproto.wire.codec import Reader, byte, mpint, string, text, uint32
from tests.support.authenticator import ECDSA, ED25519, TOUCHED, VERIFIED, WEBAUTHN, Authenticator

VECTORS = Path(__file__).parents[2] / "vectors" / "openssh-sk"
DATA = b"some data"
PIN = SecurityKeyPolicy(user_verification=True)


# ---------------------------------------------------------------------------------------------------- OpenSSH's vectors


def signed(name: str) -> tuple[PublicKey, bytes, bytes]:
    """Key, signature and what was signed, of a SSHSIG file of OpenSSH's tests."""
    lines = (VECTORS / f"{name}.sig").read_text().splitlines()
    reader = Reader(base64.b64decode("".join(lines[1:-1])), "SSHSIG", 6)
    assert reader.uint32() == 1
    key = PublicKey.from_blob(reader.string())
    namespace, _, hash_name, signature = reader.text(), reader.string(), reader.text(), reader.string()
    reader.end()
    assert key == PublicKey.parse((VECTORS / f"{name}.pub").read_bytes())
    digest = hashlib.new(hash_name, b"This is a test, this is only a test").digest()
    return key, signature, b"SSHSIG" + text(namespace) + string(b"") + text(hash_name) + string(digest)


@pytest.mark.parametrize(
    ("name", "algorithm", "application", "origin", "counter"),
    [
        ("ed25519_sk", ED25519, "ssh:", "", 0x12345678),
        ("ecdsa_sk", ECDSA, "ssh:", "", 0x12345678),
        ("ecdsa_sk_webauthn", WEBAUTHN, "mindrot.org", "https://www.mindrot.org", 0x31F),
    ],
)
def test_vectors_of_openssh(name, algorithm, application, origin, counter):
    key, signature, data = signed(name)
    assert key.application == application
    assertion = key.verify(signature, data, algorithm)
    assert assertion is not None
    assert (assertion.flags, assertion.counter, assertion.origin) == (TOUCHED, counter, origin)
    assert assertion.user_present
    assert not assertion.user_verified
    with pytest.raises(SignatureInvalid, match=r"does not verify|is not about this"):
        key.verify(signature, data + b"!", algorithm)
    with pytest.raises(SignatureInvalid, match="user verification is required"):
        key.verify(signature, data, algorithm, policy=PIN)
    for at in range(len(signature)):
        with pytest.raises(SignatureInvalid):
            key.verify(signature[:at], data, algorithm)
        changed = bytearray(signature)
        changed[at] ^= 1
        with pytest.raises(SignatureInvalid):
            key.verify(changed, data, algorithm, policy=UNATTENDED)


def test_fingerprints_of_openssh():
    """regress/unittests/sshkey/testdata/ed25519_sk1 and its .fp, .fp.bb."""
    key = PublicKey.parse(
        "sk-ssh-ed25519@openssh.com "
        "AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAICFo/k5LU8863u66YC9eUO2170QduohPURkQnbLa/dczAAAABHNzaDo= x"
    )
    assert key.fingerprint() == "SHA256:6WZVJ44bqhAWLVP4Ns0TDkoSQSsZo/h2K+mEvOaNFbw"
    assert bubblebabble_of(key.blob) == "xucac-vusip-tydoz-dudad-nerif-raran-tezun-cogyd-pamoh-bahef-ruxix"
    assert key.bits == 256
    assert key.randomart().startswith("+[ED25519-SK 256]-+\n")


@pytest.mark.parametrize("kind", [ED25519, ECDSA])
def test_ssh_keygen_shows_the_same(ssh_keygen, tmp_path, kind):
    key = Authenticator(kind).public_key
    path = tmp_path / "id.pub"
    path.write_text(key.openssh() + "\n")
    first, *picture = ssh_keygen("-lv", "-f", path).splitlines()
    assert first.split()[1] == key.fingerprint()
    assert picture == key.randomart().splitlines()
    assert PublicKey.parse(ssh_keygen("-e", "-f", path)) == key
    path.write_text(key.rfc4716())
    assert PublicKey.parse(ssh_keygen("-i", "-f", path)) == key


@pytest.mark.parametrize("kind", [ED25519, ECDSA])
def test_ssh_keygen_verifies_what_the_token_of_these_tests_signs(ssh_keygen, tmp_path, kind):
    token = Authenticator(kind)
    data = b"SSHSIG" + text("file") + string(b"") + text("sha512") + string(hashlib.sha512(DATA).digest())
    signature = token.sign(data)
    assert token.public_key.verify(signature, data, kind) is not None
    blob = b"SSHSIG" + uint32(1) + string(token.public_key.blob)
    blob += text("file") + string(b"") + text("sha512") + string(signature)
    path = tmp_path / "data.sig"
    encoded = base64.encodebytes(blob).decode()
    path.write_text(f"-----BEGIN SSH SIGNATURE-----\n{encoded}-----END SSH SIGNATURE-----\n")
    assert "Good" in ssh_keygen("-Y", "check-novalidate", "-n", "file", "-s", path, stdin=DATA)


# ----------------------------------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize("kind", [ED25519, ECDSA])
@pytest.mark.covers("V52")
def test_touch_and_pin(kind):
    token = Authenticator(kind)
    key = token.public_key
    either = SecurityKeyPolicy(user_presence=False, user_verification=True)
    for flags, fits in (
        (0, {UNATTENDED}),
        (TOUCHED, {None, UNATTENDED, SecurityKeyPolicy()}),
        (VERIFIED, {UNATTENDED, either}),
        (TOUCHED | VERIFIED, {None, UNATTENDED, SecurityKeyPolicy(), PIN, either}),
        (0xFA, {UNATTENDED}),
    ):
        signature = token.sign(DATA, flags)
        for policy in (None, UNATTENDED, SecurityKeyPolicy(), PIN, either):
            if policy in fits:
                assertion = key.verify(signature, DATA, kind, policy=policy)
                assert assertion is not None
                assert (assertion.flags, assertion.counter, assertion.origin) == (flags, token.counter, "")
                assert assertion.user_present == bool(flags & 1)
                assert assertion.user_verified == bool(flags & 4)
            else:
                with pytest.raises(SignatureInvalid, match=r"user (presence|verification) is required"):
                    key.verify(signature, DATA, kind, policy=policy)


def test_what_others_sign_says_no_more(keys):
    key = keys["ssh-ed25519"]
    assert key.public_key.verify(key.sign(DATA), DATA, "ssh-ed25519", policy=PIN) is None
    assert key.public_key.application is None


@pytest.mark.covers("V46")
@pytest.mark.parametrize("kind", [ED25519, ECDSA])
def test_what_the_signature_covers(kind):
    token, other = Authenticator(kind), Authenticator(kind)
    good = token.sign(DATA, TOUCHED | VERIFIED)
    head, flags, counter = good[:-5], good[-5:-4], good[-4:]
    for signature in (
        head + byte(TOUCHED) + counter,
        head + flags + uint32(token.counter + 1),
        token.sign(DATA, application="ssh:other"),
        other.sign(DATA),
        other.sign(DATA)[:-5] + good[-5:],
    ):
        with pytest.raises(SignatureInvalid, match="does not verify"):
            token.public_key.verify(signature, DATA, kind, policy=UNATTENDED)
    for signature in (head, head + flags, good[:-1], good + b"\0", text(kind) + string(b"") + flags + counter):
        with pytest.raises(SignatureInvalid):
            token.public_key.verify(signature, DATA, kind, policy=UNATTENDED)
    # The same point without a token around it is another key, whose signatures are not taken.
    plain = PrivateKey.generate("ssh-ed25519" if kind == ED25519 else "ecdsa-sha2-nistp256")
    blob = text(kind) + plain.public_key.blob[4 + len(plain.public_key.type) :] + text("ssh:")
    wrapped = PublicKey.from_blob(blob)
    body = Reader(plain.sign(DATA), "signature")
    body.string()
    inner = body.string()
    for signature in (plain.sign(DATA), text(kind) + string(inner), text(kind) + string(inner) + flags + counter):
        with pytest.raises(SignatureInvalid):
            wrapped.verify(signature, DATA, kind, policy=UNATTENDED)


def test_algorithms_do_not_mix():
    ed25519, ecdsa = Authenticator(ED25519), Authenticator(ECDSA)
    assert ed25519.public_key.signature_algorithms == (ED25519,)
    assert ecdsa.public_key.signature_algorithms == (ECDSA, WEBAUTHN)
    for key, signature, algorithm in (
        (ecdsa, ecdsa.sign(DATA), WEBAUTHN),
        (ecdsa, ecdsa.browse(DATA), ECDSA),
        (ecdsa, ecdsa.sign(DATA), ED25519),
        (ed25519, ed25519.sign(DATA), ECDSA),
        (ed25519, ed25519.sign(DATA), "ssh-ed25519"),
        (ed25519, text("ssh-ed25519") + ed25519.sign(DATA)[4 + len(ED25519) :], "ssh-ed25519"),
        (ecdsa, text(WEBAUTHN) + ecdsa.sign(DATA)[4 + len(ECDSA) :], WEBAUTHN),
        (ecdsa, text(ECDSA) + ecdsa.browse(DATA)[4 + len(WEBAUTHN) :], ECDSA),
    ):
        with pytest.raises(SignatureInvalid):
            key.public_key.verify(signature, DATA, algorithm)


def test_browsers():
    token = Authenticator(ECDSA, "example.org")
    key = token.public_key
    for flags, extensions in ((TOUCHED, b""), (TOUCHED | VERIFIED, b""), (TOUCHED | 0x80, b"\xa0")):
        signature = token.browse(DATA, flags, "https://example.org", extensions)
        assertion = key.verify(signature, DATA, WEBAUTHN)
        assert assertion is not None
        assert (assertion.origin, assertion.flags) == ("https://example.org", flags)
        with pytest.raises(SignatureInvalid, match="not about this"):
            key.verify(signature, DATA + b"!", WEBAUTHN)
    with pytest.raises(SignatureInvalid, match="user presence"):
        key.verify(token.browse(DATA, VERIFIED), DATA, WEBAUTHN)
    challenge = base64.urlsafe_b64encode(DATA).rstrip(b"=").decode()
    start = f'{{"type":"webauthn.get","challenge":"{challenge}","origin":"'
    assert key.verify(token.browse(DATA, client_data=f'{start}https://example.org"}}'.encode()), DATA, WEBAUTHN)
    # An origin that is no UTF-8.
    good = token.browse(DATA, origin="https://x")
    with pytest.raises(SignatureInvalid, match="from another origin"):
        key.verify(good.replace(string(b"https://x"), string(b"\xfftps://x")), DATA, WEBAUTHN)
    for signature, why in (
        (token.browse(DATA, TOUCHED | 0x40), "flags 41 do not fit 0 bytes"),
        (token.browse(DATA, TOUCHED | 0x80), "flags 81 do not fit 0 bytes"),
        (token.browse(DATA, TOUCHED, extensions=b"x"), "flags 01 do not fit 1 bytes"),
        (token.browse(DATA, origin='https://x","y":"'), "is no origin"),
        (token.browse(DATA, origin="https://x\0"), "is no origin"),
        (token.browse(DATA, client_data=b""), "not about this"),
        (token.browse(DATA, client_data=f'{start}https://example.com"}}'.encode()), "from another origin"),
        (token.browse(DATA, client_data=f'{start}https://example.org.evil"}}'.encode()), "from another origin"),
        (token.browse(DATA, client_data=start.replace("get", "create").encode()), "not about this"),
        (token.browse(DATA, client_data=b" " + start.encode()), "not about this"),
        (token.browse(DATA)[:-1], "not a signature of a security key"),
        (token.browse(DATA) + b"\0", "1 bytes too many"),
        (token.browse(DATA).replace(b"crossOrigin", b"crossorigin"), "does not verify"),
    ):
        with pytest.raises(SignatureInvalid, match=why):
            key.verify(signature, DATA, WEBAUTHN, policy=UNATTENDED)


@given(st.binary(max_size=120), st.sampled_from([ED25519, ECDSA, WEBAUTHN]))
def test_no_signature_raises_anything_else(data, algorithm):
    key = TOKENS[algorithm].public_key
    body = bytes(64) if algorithm == ED25519 else mpint(5) + mpint(7)
    start = text(algorithm) + string(body)
    for signature in (data, text(algorithm) + data, start + data, start + byte(1) + uint32(1) + string(data) * 3):
        with pytest.raises(SignatureInvalid):
            key.verify(signature, DATA, algorithm, policy=UNATTENDED)


TOKENS = {ED25519: Authenticator(ED25519)} | dict.fromkeys((ECDSA, WEBAUTHN), Authenticator(ECDSA))


# ----------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("kind", [ED25519, ECDSA])
def test_keys(kind):
    key = Authenticator(kind, "ssh:me").public_key
    assert key.type == kind
    assert key.application == "ssh:me"
    assert PublicKey.parse(key.openssh()) == key
    assert PublicKey.parse(key.rfc4716()) == key
    assert pickle.loads(pickle.dumps(key)) == key
    assert authorized_keys.parse(key.openssh()).matches(key)
    for write in (key.pkcs8, key.pkcs1):
        with pytest.raises(InvalidArgument):
            write()
    with pytest.raises(InvalidArgument, match="cannot be made"):
        PrivateKey.generate(kind)
    for size in range(len(key.blob)):
        with pytest.raises(KeyFormatError):
            PublicKey.from_blob(key.blob[:size])
    for rest in (b"\0", text("ssh:")):
        with pytest.raises(KeyFormatError, match="too many"):
            PublicKey.from_blob(key.blob + rest)


@pytest.mark.covers("V46", "V47")
def test_keys_that_are_none():
    for blob, why in (
        (text(ED25519) + string(b"\1" + bytes(31)) + text("ssh:"), "small order"),
        (text(ED25519) + string(bytes(31)) + text("ssh:"), "31 bytes"),
        (text(ED25519) + string(b"\xff" * 32) + text("ssh:"), "not encoded in the one way"),
        (text(ECDSA) + text("nistp384") + string(b"\4" + bytes(64)) + text("ssh:"), "curve inside is nistp384"),
        (text(ECDSA) + text("nistp256") + string(b"\2" + bytes(32)) + text("ssh:"), "an uncompressed point"),
        (text(ECDSA) + text("nistp256") + string(b"\4" + bytes(64)) + text("ssh:"), f"{ECDSA} key"),
        (text(ED25519) + string(b"\7" * 32) + text("ssh:\0x"), "NUL"),
        (text(WEBAUTHN) + string(b"\7" * 32) + text("ssh:"), "not known"),
    ):
        with pytest.raises(KeyFormatError, match=why):
            PublicKey.from_blob(blob)


def test_the_file_of_a_private_half_is_named():
    """regress/unittests/sshkey/testdata/ed25519_sk1."""
    content = """-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAASgAAABpzay1zc2
gtZWQyNTUxOUBvcGVuc3NoLmNvbQAAACAhaP5OS1PPOt7uumAvXlDtte9EHbqIT1EZEJ2y
2v3XMwAAAARzc2g6AAAAuBocY6UaHGOlAAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY2
9tAAAAICFo/k5LU8863u66YC9eUO2170QduohPURkQnbLa/dczAAAABHNzaDoBAAAAQJYq
lGHhFoA25/q8X/rdTqDAb7dhqs4ehhd/w8x99CwiIWj+TktTzzre7rpgL15Q7bXvRB26iE
9RGRCdstr91zMAAAAAAAAAFkVEMjU1MTktU0sgdGVzdCBrZXkgIzEBAgM=
-----END OPENSSH PRIVATE KEY-----
"""
    with pytest.raises(KeyFormatError, match=r"is in a security token, for which the file .*agent"):
        PrivateKey.load(content)
