"""Files of revoked keys: a revocation list or a plain list, and what is neither. (ssh-keygen's -r: with signers.)"""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.clear import fit_to_show
from sshproto.errors import KeyFormatError
from sshproto.keys import FOREVER, KRL, Certificate, CertificateKind, PrivateKey, read_revoked, revocation
from sshproto.wire.codec import string, text
from tests.support.authenticator import Authenticator

KEY = PrivateKey.generate()
AUTHORITY = PrivateKey.generate()
CERTIFICATE = Certificate.issue(
    AUTHORITY, KEY.public_key, CertificateKind.USER, key_id="k", principals=["alice"], valid_before=FOREVER
)
LINE = KEY.public_key.openssh()
UNKNOWN = text("ssh-foo@example.org") + b"whatever"
UNKNOWN_LINE = f"ssh-foo@example.org {base64.b64encode(UNKNOWN).decode()}"


def test_a_revocation_list_is_read_as_one():
    krl = KRL(version=7).revoke(KEY.public_key, CERTIFICATE)
    assert read_revoked(krl.encode()) == read_revoked(memoryview(krl.encode())) == krl
    with pytest.raises(KeyFormatError, match="malformed revocation list"):
        read_revoked(krl.encode()[:-1])


@pytest.mark.parametrize("content", ["", "\n", "# x\n\n  # y\r\n\r\n", b""])
def test_nothing_is_revoked(content):
    assert read_revoked(content) == KRL()


def test_a_plain_list(keys):
    token = Authenticator()
    lines = [
        "# old keys",
        *(key.public_key.openssh() for key in keys.values()),
        f"\t  {token.public_key.openssh()} a comment",
        "",
        f"{UNKNOWN_LINE} it cannot match anything",
    ]
    for end in ("\n", "\r\n"):
        found = read_revoked(end.join(lines))
        assert found.keys == {key.public_key.blob for key in keys.values()} | {token.public_key.blob, UNKNOWN}
        assert read_revoked(found.encode()) == found
    assert all(found.revokes(key.public_key) for key in keys.values())
    assert not found.revokes(KEY.public_key)


def test_a_certificate_stands_for_its_key():
    found = read_revoked(CERTIFICATE.openssh())
    assert found.keys == {KEY.public_key.blob}
    assert found.revokes(KEY.public_key)
    assert found.revokes(CERTIFICATE)
    assert not found.revokes(AUTHORITY.public_key)


def test_an_authority_takes_its_certificates_with_it():
    found = read_revoked(AUTHORITY.public_key.openssh())
    assert found.revokes(CERTIFICATE)
    assert not found.revokes(KEY.public_key)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ssh-ed25519", "one word came, 'ssh-ed25519'"),
        ("ssh-ed25519 AAAA", "not a public key"),
        ("ssh-ed25519 %%", "not base64"),
        (LINE.replace("ed25519", "rsa", 1), "the line says ssh-rsa, the key in it is of type ssh-ed25519"),
        ("no-pty " + LINE, "no-pty key: not base64"),
        (CERTIFICATE.openssh()[:-8], "certificate"),
        (f"ssh-x-cert-v01@a {base64.b64encode(text('ssh-x-cert-v01@a')).decode()}", "there is no key in it"),
        ("\x1b[2J x", r"\x1b"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "this is an OpenSSH private key; expected"),
        ("SSHKRL\n\0 x", "one word came"),
    ],
    ids=lambda _: "",  # keys in names would be others in each process
)
def test_a_line_that_cannot_be_read_spoils_the_list(line, words):
    with pytest.raises(KeyFormatError) as caught:
        read_revoked(f"{LINE}\n\n{line}\n")
    assert str(caught.value).startswith("list of revoked keys, line 3: ")
    assert words in str(caught.value)
    fit_to_show(caught.value, 12_000)


def test_bounds(monkeypatch):
    with pytest.raises(KeyFormatError, match=r"of 16777217 bytes; at most 16777216"):
        read_revoked(bytes(16 * 1024 * 1024 + 1))
    monkeypatch.setattr(revocation, "MAXIMUM_ENTRIES", 2)
    lines = [PrivateKey.generate().public_key.openssh() for _ in range(3)]
    assert len(read_revoked("\n".join(lines[:2])).keys) == 2
    with pytest.raises(KeyFormatError, match="more than 2 keys"):
        read_revoked("\n".join(lines))


GOOD = (f"# x\n{LINE} a\n{CERTIFICATE.openssh()}\n".encode(), KRL().revoke(CERTIFICATE).encode(), string(UNKNOWN))


def judge(data: bytes) -> None:
    try:
        found = read_revoked(data)
    except KeyFormatError as error:
        fit_to_show(error, 12_000)
        return
    assert read_revoked(found.encode()) == found


@given(st.binary(max_size=200))
def test_arbitrary_bytes(data):
    judge(data)
    judge(LINE.encode() + b"\n" + data)


@settings(max_examples=100)
@given(st.data())
def test_mutated(data):
    good = data.draw(st.sampled_from(GOOD))
    content = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    judge(bytes(content))
