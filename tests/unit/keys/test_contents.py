"""What is in files of keys: told of whatever it is, and nothing but KeyFormatError for what it is not."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.errors import KeyFormatError
from sshproto.keys import FOREVER, KRL, Certificate, CertificateKind, ContentKind, PrivateKey, identify
from sshproto.keys.contents import MAXIMUM_TEXT
from sshproto.wire.codec import mpint, string, text
from tests.support import ppk

KEY = PrivateKey.generate(comment="me@here")
LINE = KEY.public_key.openssh()
BASE64 = LINE.split()[1]
AUTHORITY = PrivateKey.generate("ecdsa-sha2-nistp256", comment="authority")
CERTIFICATE = Certificate.issue(
    AUTHORITY, KEY.public_key, CertificateKind.USER, key_id="id", principals=["me"], valid_before=FOREVER
)
WORD = b"word"
SECURITY_KEY = text("sk-ssh-ed25519@openssh.com") + string(KEY.public_key.blob[-32:]) + text("ssh:")


def one(content):
    [entry] = identify(content).entries
    return entry


def test_private_keys():
    for content, form, encryption in (
        (KEY.openssh(), "OpenSSH", ""),
        (KEY.openssh(WORD, rounds=1), "OpenSSH", "aes256-ctr, bcrypt with 1 round"),
        (KEY.openssh(WORD, rounds=2, cipher="3des-cbc"), "OpenSSH", "3des-cbc, bcrypt with 2 rounds"),
        (ppk.write(KEY), "PPK 3", ""),
        (ppk.write(KEY, WORD), "PPK 3", "aes256-cbc, Argon2id"),
        (ppk.write(KEY, WORD, version=2), "PPK 2", "aes256-cbc"),
    ):
        found = one(content)
        assert (found.kind, found.form, found.encryption) == (ContentKind.PRIVATE, form, encryption)
        assert (found.key, found.blob, found.type) == (KEY.public_key, KEY.public_key.blob, "ssh-ed25519")
        assert found.comment == ("" if encryption and form == "OpenSSH" else "me@here")  # it is encrypted, too
        assert not found.problem


def test_private_keys_in_pem(keys, openssl, tmp_path):
    for kind, form in (("ecdsa-sha2-nistp384", "SEC 1"), ("ssh-rsa", "PKCS#1")):
        key, path = keys[kind], tmp_path / kind
        path.write_bytes(key.pkcs8())
        assert attrs.astuple(one(path.read_bytes()), recurse=False)[:2] == (ContentKind.PRIVATE, "PKCS#8")
        found = one(key.pkcs8(WORD, iterations=1000))
        assert (found.form, found.encryption) == ("PKCS#8", "AES-256-CBC, PBKDF2 with 1000 iterations")
        assert (found.key, found.blob, found.type) == (None, b"", "")
        found = one(openssl("pkey", "-in", path, "-traditional"))
        assert (found.form, found.encryption, found.key) == (form, "", key.public_key)
        found = one(openssl("pkey", "-in", path, "-traditional", "-aes128", "-passout", "pass:word"))
        assert (found.form, found.encryption, found.key) == (form, "AES-128-CBC, MD5 once", None)
        for options, said in (
            ("-scrypt", "AES-256-CBC, scrypt with 16384"),
            ("-v2 des3", "DES-EDE3-CBC, PBKDF2 with 2048 iterations"),
            ("-v1 PBE-SHA1-3DES", "PBES1"),
        ):
            out = openssl("pkcs8", "-topk8", "-in", path, "-passout", "pass:word", *options.split())
            assert one(out).encryption == said


def test_public_keys(keys):
    rsa = keys["ssh-rsa"].public_key
    for content, form in (
        (rsa.openssh(), "line"),
        (rsa.rfc4716(), "RFC 4716"),
        (rsa.pkcs8(), "PKCS#8"),
        (rsa.pkcs1(), "PKCS#1"),
    ):
        found = one(content)
        assert (found.kind, found.form, found.key) == (ContentKind.PUBLIC, form, rsa)
        assert found.line == (1 if form == "line" else 0)


def test_certificates_and_lists():
    found = one(CERTIFICATE.openssh())
    assert (found.kind, found.certificate, found.key) == (ContentKind.CERTIFICATE, CERTIFICATE, KEY.public_key)
    assert (found.type, found.comment) == ("ssh-ed25519", "me@here")
    revoked = KRL(version=3).revoke(KEY.public_key)
    found = one(revoked.encode())
    assert (found.kind, found.form, found.krl) == (ContentKind.REVOKED, "KRL", revoked)


@pytest.mark.parametrize(
    ("line", "form", "where"),
    [
        (f"host {LINE}", "known_hosts", "host"),
        (f"host,192.0.2.1,[x]:2 \t{LINE}", "known_hosts", "host,192.0.2.1,[x]:2"),
        (f"|1|abc=|def= {LINE}", "known_hosts", "|1|abc=|def="),
        (f"@cert-authority *.example.org {LINE}", "known_hosts", "@cert-authority *.example.org"),
        (f"@revoked * {LINE}", "known_hosts", "@revoked *"),
        (f'no-pty,command="echo \\"a b\\" #" {LINE}', "authorized_keys", 'no-pty,command="echo \\"a b\\" #"'),
        (f'Command="x" {LINE}', "authorized_keys", 'Command="x"'),
        (f"restrict {LINE}\r", "authorized_keys", "restrict"),
        (f"  {LINE}", "line", ""),
    ],
    ids=range(9),  # keys in names would be others in each process
)
def test_lines(line, form, where):
    found = identify(f"# first\n\n{line}\n")
    assert not found.problems
    [entry] = found.entries
    assert (entry.form, entry.where, entry.line, entry.key) == (form, where, 3, KEY.public_key)
    assert entry.comment == "me@here"


def test_what_cannot_be_used_is_shown():
    dsa = text("ssh-dss") + b"".join(mpint(1 << 1023 | 5) for _ in range(4))
    weak = text("ssh-rsa") + mpint(65537) + mpint(1 << 511 | 1)
    import base64

    lines = [f"{kind} {base64.b64encode(blob).decode()} c" for kind, blob in (("ssh-dss", dsa), ("ssh-rsa", weak))]
    first, second = identify("\n".join(lines)).entries
    assert (first.type, first.blob, first.key, first.comment) == ("ssh-dss", dsa, None, "c")
    assert "DSA is too weak" in first.problem
    assert (second.type, second.key) == ("ssh-rsa", None)
    assert "512 bits" in second.problem


def test_lines_that_cannot_be_read():
    found = identify(
        f"ssh-ed25519\nnonsense\nssh-rsa {BASE64}\nssh-ed25519 !!!\nhost ssh-ed25519 AAAA\n{LINE}\n@x y z\n"
    )
    assert [entry.line for entry in found.entries] == [6]
    assert [number for number, _ in found.problems] == [1, 2, 3, 4, 5, 7]
    said = dict(found.problems)
    assert said[1] == "one word came, 'ssh-ed25519'; expected 'type base64 [comment]'"
    assert said[2] == "not a key: 'nonsense'; expected 'type base64 [comment]'"
    assert said[3] == "the line says ssh-rsa, the key in it is of type ssh-ed25519"
    assert said[4].startswith("ssh-ed25519 key: not base64")


def test_a_key_in_a_token(ssh_keygen):
    """Its file has a handle only; the public half is shown."""
    found = one(_token_file())
    assert (found.kind, found.type, found.blob) == (ContentKind.PRIVATE, "sk-ssh-ed25519@openssh.com", SECURITY_KEY)
    assert found.key is not None
    assert found.key.application == "ssh:"


def _token_file() -> bytes:
    from sshproto.keys import openssh

    private = SECURITY_KEY + b"\1" + string(b"handle") + string(b"")
    return openssh.write(SECURITY_KEY, private, "token", None, b"abcd", b"", 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "this is empty"),
        (b"# nothing\n\n", "nothing in it but comments"),
        (b"oops\n", "line 1: not a key: 'oops'"),
        (b"#\noops\nx\ny", r"line 2: not a key: 'oops'; expected 'type base64 \[comment\]' \(and 2 more such lines\)"),
        (b"\x7fELF\0\n", "there are NULs in it"),
        (b"-----BEGIN CERTIFICATE-----\n", "this is an X.509 certificate; expected keys"),
        (b"-----BEGIN DSA PRIVATE KEY-----\n", "DSA is too weak"),
        (b"SSHKRL\n\0\0\0\0\2", "of format 2"),
        (b" " * (MAXIMUM_TEXT + 1), "bytes came"),
        (KEY.openssh()[:-20], "cut short"),
    ],
)
def test_what_it_is_not(content, said):
    with pytest.raises(KeyFormatError, match=said):
        identify(content)


FILES = [
    *(KEY.openssh(), KEY.openssh(WORD, rounds=1), KEY.pkcs8(), AUTHORITY.pkcs8(WORD, iterations=10), ppk.write(KEY)),
    *(ppk.write(AUTHORITY, WORD), KEY.public_key.rfc4716().encode(), AUTHORITY.public_key.pkcs8().encode()),
    *(LINE.encode(), CERTIFICATE.openssh().encode(), f"@revoked *,!x {LINE}\nh {LINE} c".encode(), _token_file()),
    *(f'command="a\\"b",no-pty {LINE}'.encode(), KRL().revoke_serials(None, 3, (5, 9)).revoke(KEY.public_key).encode()),
]


@given(st.sampled_from(FILES), st.data())
def test_any_change_of_a_file(content, data):
    at = data.draw(st.integers(0, len(content)))
    size = data.draw(st.integers(0, 4))
    check(content[:at] + data.draw(st.binary(max_size=4)) + content[at + size :])


@given(st.binary(max_size=200) | st.text(max_size=100))
def test_any_file(content):
    check(content)


def check(content):
    try:
        found = identify(content)
    except KeyFormatError as error:
        assert str(error).isprintable()
        return
    for entry in found.entries:
        assert entry.problem.isprintable()
        assert entry.kind is ContentKind.REVOKED or entry.blob or entry.encryption or entry.problem
    assert all(why.isprintable() for _, why in found.problems)
