"""What is to be revoked, as text."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.errors import KeyFormatError
from sshproto.keys import FOREVER, KRL, Certificate, CertificateKind, PrivateKey, revoke_specified

KEY = PrivateKey.generate(comment="me # here").public_key
AUTHORITY = PrivateKey.generate("ecdsa-sha2-nistp256")
ANOTHER = PrivateKey.generate().public_key


def issue(**values):
    return Certificate.issue(
        AUTHORITY, KEY, CertificateKind.USER, principals=["me"], valid_before=FOREVER, **({"key_id": "id"} | values)
    )


SERIAL, NUMBERLESS = issue(serial=70), issue(key_id="by its id")
MINE = [AUTHORITY.public_key]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("serial: 5", KRL().revoke_serials(MINE[0], 5)),
        ("SERIAL:5-0x10 # a comment", KRL().revoke_serials(MINE[0], (5, 16))),
        ("serial:\t010-010", KRL().revoke_serials(MINE[0], 8)),
        ("serial: 0xffffffffffffffff", KRL().revoke_serials(MINE[0], 2**64 - 1)),
        ("id: some id \t# so", KRL().revoke_key_ids(MINE[0], "some id")),
        (f"key: {KEY.openssh()}", KRL().revoke(KEY)),
        (f"key: {SERIAL.openssh()}", KRL().revoke(KEY)),
        (f"sha256: {KEY.openssh()}", KRL().revoke_fingerprints(KEY.fingerprint())),
        (f"sha256:{SERIAL.openssh()}", KRL().revoke_fingerprints(KEY.fingerprint())),
        (f"hash: {KEY.fingerprint()}", KRL().revoke_fingerprints(KEY.fingerprint())),
        (f"sha1: {KEY.openssh()}", KRL(sha1=frozenset([hashlib.sha1(KEY.blob).digest()]))),
        (f"  {KEY.openssh()}\r", KRL().revoke(KEY)),
        (SERIAL.openssh(), KRL().revoke_serials(MINE[0], 70)),
        (NUMBERLESS.openssh(), KRL().revoke_key_ids(MINE[0], "by its id")),
        ("# nothing\n\n \t\n", KRL()),
        ("ssh-dss AAAAB3NzaC1kc3MAAAABBQ==", KRL(keys=frozenset([b"\0\0\0\7ssh-dss\0\0\0\1\5"]))),
    ],
    ids=range(16),  # keys in names would be others in each process
)
def test_lines(line, expected):
    assert revoke_specified(KRL(), line, authorities=MINE) == expected
    assert revoke_specified(KRL(), f"# x\n{line}\n".encode(), authorities=MINE) == expected


def test_whose_certificates():
    for line in ("serial: 5", "id: x"):
        with pytest.raises(KeyFormatError, match=r"line 2: .*a certificate's authority has to be named"):
            revoke_specified(KRL(), f"\n{line}")
        everybody = revoke_specified(KRL(), line, authorities=MINE, everybody=True)
        assert [part.authority for part in everybody.certificates] == [b""]
        both = revoke_specified(KRL(), line, authorities=[*MINE, ANOTHER])
        assert [part.authority for part in both.certificates] == sorted(key.blob for key in (*MINE, ANOTHER))


def test_what_was_revoked_stays_so():
    before = KRL(version=3, comment="mine").revoke(ANOTHER).revoke_serials(None, 9)
    after = revoke_specified(before, KEY.openssh())
    assert after == before.revoke(KEY)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("serial: 0", "they go from 1 up to"),
        ("serial:", "not a serial number, and no range of two: ''"),
        ("serial: 9-5", "not serial numbers: 9-5"),
        ("serial: 5 6", "not a serial number"),
        ("serial: -5", "not a serial number"),
        ("serial: 09", "'09' begins with 0, so it would be octal"),
        ("serial: 18446744073709551616", "they go from 1 up to"),
        ("serial: ٣", "not a serial number"),
        ("id:", "there is no key id"),
        ("id: a#b", "has a # inside a word"),
        ("id: a\0b", "holds no NUL"),
        ("hash: MD5:00", "not a fingerprint: 'MD5:00'"),
        ("hash: SHA256:AAAA", "not a fingerprint"),
        ("key: ssh-ed25519", "one word came"),
        ("key:", "not a key"),
        (f"key: host {KEY.openssh()}", "expected a directive or 'type base64"),
        (f"no-pty {KEY.openssh()}", "expected a directive or 'type base64"),
        ("revoke: x", "not a key: 'revoke: x'"),
        (SERIAL.openssh().replace("AAAA", "AAAB", 1), "line 3: "),
    ],
    ids=range(19),
)
def test_lines_that_are_none(line, said):
    with pytest.raises(KeyFormatError, match=said) as raised:
        revoke_specified(KRL(), f"serial: 1\n\n{line}\n", authorities=MINE)
    assert str(raised.value).startswith("line 3: ")


def test_bounds(monkeypatch):
    monkeypatch.setattr("sshproto.keys.specification.MAXIMUM_ENTRIES", 3)
    revoke_specified(KRL(), "serial: 1\n" * 3, authorities=MINE)
    with pytest.raises(KeyFormatError, match="line 4: more than 3 entries"):
        revoke_specified(KRL(), "serial: 1\n" * 4, authorities=MINE)
    monkeypatch.setattr("sshproto.keys.specification.MAXIMUM_SIZE", 10)
    with pytest.raises(KeyFormatError, match="11 bytes came, at most 10"):
        revoke_specified(KRL(), "#" * 11)


def test_ssh_keygen_makes_the_same_of_it(ssh_keygen, tmp_path):
    words = [
        "serial: 5-0x10", "serial: 077 # octal", "id: some id # a comment", f"key: {KEY.openssh()}",
        f"sha1: {ANOTHER.openssh()}", f"sha256: {ANOTHER.openssh()}", f"hash: {ANOTHER.fingerprint()}",
        SERIAL.openssh(), NUMBERLESS.openssh(), MINE[0].openssh(), f"key: {SERIAL.openssh()}",
    ]  # fmt: skip
    (tmp_path / "spec").write_text("\n".join(words))
    (tmp_path / "ca.pub").write_text(MINE[0].openssh())
    ssh_keygen("-q", "-k", "-f", tmp_path / "krl", "-s", tmp_path / "ca.pub", "-z", 4, tmp_path / "spec")
    theirs = KRL.parse((tmp_path / "krl").read_bytes())
    ours = revoke_specified(KRL(version=4, generated=theirs.generated), "\n".join(words), authorities=MINE)
    assert ours == theirs


WORDS = ["serial:", "id:", "key:", "hash:", "sha1:", KEY.openssh(), "5", "-", "0x", " ", "#", "\n", "\r", "\0", "\x1b"]


@given(st.lists(st.sampled_from(WORDS)).map("".join) | st.text(max_size=60) | st.binary(max_size=60))
def test_any_text(content):
    try:
        found = revoke_specified(KRL(), content, authorities=MINE)
    except KeyFormatError as error:
        assert str(error).isprintable()
    else:
        assert KRL.parse(found.encode()) == found
