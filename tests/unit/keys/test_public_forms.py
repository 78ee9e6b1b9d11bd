"""The other text forms of public keys: RFC 4716 and PEM, read and written, with ssh-keygen, puttygen and openssl."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys import PublicKey, rfc4716
from sshproto.keys.public import public_blob
from tests.support.panic import PanicException

KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")

# RFC 4716 section 3.6, the first and the last; the others are DSA.
FIRST = """\
---- BEGIN SSH2 PUBLIC KEY ----
Comment: "1024-bit RSA, converted from OpenSSH by me@example.com"
x-command: /home/me/bin/lock-in-guest.sh
AAAAB3NzaC1yc2EAAAABIwAAAIEA1on8gxCGJJWSRT4uOrR13mUaUk0hRf4RzxSZ1zRb
YYFw8pfGesIFoEuVth4HKyF8k1y4mRUnYHP1XNMNMJl1JcEArC2asV8sHf6zSPVffozZ
5TT4SfsUu/iKy9lUcCfXzwre4WWZSXXcPff+EHtWshahu3WzBdnGxm5Xoi89zcE=
---- END SSH2 PUBLIC KEY ----
"""
LAST = """\
---- BEGIN SSH2 PUBLIC KEY ----
Subject: me
Comment: 1024-bit rsa, created by me@example.com Mon Jan 15 \\
08:31:24 2001
AAAAB3NzaC1yc2EAAAABJQAAAIEAiPWx6WM4lhHNedGfBpPJNPpZ7yKu+dnn1SJejgt4
596k6YjzGGphH2TUxwKzxcKDKKezwkpfnxPkSMkuEspGRt/aZZ9wa++Oi7Qkr8prgHc4
soW6NUlfDzpvZK2H5E7eQaSeP3SAwGmQKUFHCddNaP0L+hM7zhFNzjFvpaMgJw0=
---- END SSH2 PUBLIC KEY ----
"""


def block(blob: bytes, *headers: str) -> str:
    return "\n".join((rfc4716.BEGIN, *headers, base64.b64encode(blob).decode(), rfc4716.END, ""))


def pem(handle, form: PublicFormat = PublicFormat.SubjectPublicKeyInfo) -> str:
    return handle.public_bytes(Encoding.PEM, form).decode()


# ----------------------------------------------------------------------------------------------------- with other tools


@pytest.mark.parametrize("kind", KINDS)
def test_ssh_keygen_exports_and_imports(ssh_keygen, tmp_path, keys, kind):
    public = keys[kind].public_key
    path, other = tmp_path / "id.pub", tmp_path / "other"
    path.write_text(public.openssh() + "\n")
    exported = ssh_keygen("-e", "-f", path)
    assert exported.startswith(rfc4716.BEGIN)
    assert PublicKey.parse(exported) == public
    assert "converted by" in PublicKey.parse(exported).comment
    other.write_text(public.rfc4716())
    assert PublicKey.parse(ssh_keygen("-i", "-f", other)) == public
    if kind != "ssh-ed25519":  # which ssh-keygen does not read or write so before 9.6
        assert PublicKey.parse(ssh_keygen("-e", "-m", "PKCS8", "-f", path)) == public
        assert ssh_keygen("-e", "-m", "PKCS8", "-f", path) == public.pkcs8()
        other.write_text(public.pkcs8())
        assert PublicKey.parse(ssh_keygen("-i", "-m", "PKCS8", "-f", other)) == public
    if kind == "ssh-rsa":
        assert ssh_keygen("-e", "-m", "PEM", "-f", path) == public.pkcs1()
        assert PublicKey.parse(public.pkcs1()) == public
        other.write_text(public.pkcs1())
        assert PublicKey.parse(ssh_keygen("-i", "-m", "PEM", "-f", other)) == public


@pytest.mark.parametrize("comment", ["me@here", 'a "quoted" one', "ä" * 20, "ends with \\", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_puttygen_exports_and_imports(puttygen, tmp_path, keys, kind, comment):
    """Comments of one line: continued ones puttygen does not read (0.78), not even in the standard's examples."""
    public = PublicKey.from_blob(keys[kind].public_key.blob, comment)
    path = tmp_path / "id.pub"
    path.write_text(public.rfc4716())
    line = puttygen(path, "-L").strip()
    assert PublicKey.parse(line) == public
    assert PublicKey.parse(line).comment == comment.strip()
    again = PublicKey.parse(puttygen(path, "-O", "public"))
    assert again == public
    escaped = comment.replace("\\", "\\\\").replace('"', '\\"')  # puttygen writes so, and does not read so
    assert again.comment == escaped


@pytest.mark.parametrize("comment", ["long " * 60, "ä" * 100, "x" * 1100, "\\" * 80])
def test_ssh_keygen_reads_continued_comments(ssh_keygen, tmp_path, keys, comment):
    public = PublicKey.from_blob(keys["ssh-ed25519"].public_key.blob, comment)
    path = tmp_path / "id.pub"
    path.write_text(public.rfc4716())
    assert "\\\n" in path.read_text()
    assert PublicKey.parse(ssh_keygen("-i", "-f", path)) == public


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_reads_and_writes_pem(openssl, tmp_path, keys, kind):
    public = keys[kind].public_key
    path = tmp_path / "key.pem"
    path.write_text(public.pkcs8())
    assert openssl("pkey", "-pubin", "-in", path) == public.pkcs8()
    assert PublicKey.parse(openssl("pkey", "-pubin", "-in", path, "-text")) == public
    if kind == "ssh-rsa":
        assert openssl("rsa", "-pubin", "-in", path, "-RSAPublicKey_out") == public.pkcs1()
        path.write_text(public.pkcs1())
        assert openssl("rsa", "-RSAPublicKey_in", "-in", path) == public.pkcs8()
    if kind.startswith("ecdsa"):
        compressed = openssl("ec", "-pubin", "-in", path, "-conv_form", "compressed")
        assert compressed != public.pkcs8()
        assert PublicKey.parse(compressed) == public


# ------------------------------------------------------------------------------------------------------------- RFC 4716


def test_the_examples_of_the_standard():
    for content, comment in (
        (FIRST, "1024-bit RSA, converted from OpenSSH by me@example.com"),
        (LAST, "1024-bit rsa, created by me@example.com Mon Jan 15 08:31:24 2001"),
    ):
        for form in (content, content.replace("\n", "\r\n"), content.replace("\n", "\r"), "\nwords\n" + content):
            key = PublicKey.parse(form.encode(), minimum_rsa_bits=1024)
            assert key.type == "ssh-rsa"
            assert key.comment == comment
        with pytest.raises(KeyFormatError, match="RSA key of 1024 bits"):
            PublicKey.parse(content)


@pytest.mark.parametrize(
    "comment",
    [
        "",
        "a",
        '"',
        '""',
        "a: b",
        "x\\",
        "\\" * 99,
        "ä" * 511,
        "漢" * 340,
        "\udcff\udcfe",
        "😀" * 90,
        "a b  " * 70 + "c",
    ],
)
def test_comments_survive(keys, comment):
    public = PublicKey.from_blob(keys["ssh-rsa"].public_key.blob, comment)
    content = public.rfc4716()
    lines = content.encode("utf-8", "surrogateescape").split(b"\n")
    assert max(map(len, lines)) <= 72
    if "\udcff" not in comment:
        for line in lines:
            line.decode()  # no character is cut in two
    again = PublicKey.parse(content.encode("utf-8", "surrogateescape"))
    assert again == public
    assert again.comment == comment
    assert again.rfc4716() == content


def test_comments_that_do_not_fit(keys):
    blob = keys["ssh-ed25519"].public_key.blob
    assert PublicKey.parse(PublicKey.from_blob(blob, "a\r\nb\0c ").rfc4716()).comment == "a b c"
    assert PublicKey.parse(PublicKey.from_blob(blob, "x" * 100_000).rfc4716()).comment == "x" * 1022
    assert PublicKey.parse(PublicKey.from_blob(blob, "x" * 1021 + "  y").rfc4716()).comment == "x" * 1021
    assert PublicKey.parse(PublicKey.from_blob(blob, "漢" * 400).rfc4716()).comment == "漢" * 340


def test_headers(keys):
    blob = keys["ssh-ed25519"].public_key.blob
    for headers, comment in (
        ((), ""),
        (("Subject: me", "X-y: z:z"), ""),
        (("COMMENT: me",), "me"),
        (("Comment:me",), "me"),
        (('Comment: "me',), '"me'),
        (('Comment: "',), '"'),
        (("Comment: a\\", "b\\", "c"), "abc"),
        (("Subject: a\\", "Comment: b"), ""),
        (("Comment: one", "Comment: two"), "two"),
    ):
        assert PublicKey.parse(block(blob, *headers)).comment == comment


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (FIRST.replace("---- END", "--- END"), "cut short, '---- END SSH2 PUBLIC KEY ----' is missing"),
        (rfc4716.BEGIN + "\n" + rfc4716.END, "not a public key"),
        (FIRST.replace("x-command", "AAAA\nx-command"), "the header 'x-command' comes after the key has begun"),
        (rfc4716.BEGIN + "\nComment: a\\\n" + rfc4716.END, "the header 'Comment' does not end"),
        (FIRST.replace("AAAAB3", "!!!!"), "RFC 4716 public key: not base64"),
        (FIRST.replace("AAAAB3", "A" * 33_000), "at most 32768 are accepted"),
        (rfc4716.BEGIN + " x\n", "this is a public key in RFC 4716 form; expected"),
        ("x" + FIRST, "this is a public key in RFC 4716 form; expected"),
    ],
)
def test_malformed_blocks(content, why):
    with pytest.raises(KeyFormatError, match=why):
        PublicKey.parse(content)


# ------------------------------------------------------------------------------------------------------------------ PEM


@pytest.mark.parametrize("kind", KINDS)
def test_pem_round_trip(keys, kind):
    public = keys[kind].public_key
    assert PublicKey.parse(public.pkcs8()) == public
    assert public_blob(load_pem_public_key(public.pkcs8().encode())) == public.blob
    assert PublicKey.parse("words before\n" + public.pkcs8().replace("\n", "\r\n")).comment == ""
    if kind == "ssh-rsa":
        assert PublicKey.parse(public.pkcs1()) == public
    else:
        with pytest.raises(InvalidArgument, match=f"only RSA keys have a PKCS#1 form, this is a {kind} key"):
            public.pkcs1()


def test_pem_keys_that_are_not_for_ssh(keys):
    for handle, why in (
        (ec.generate_private_key(ec.SECP256K1()).public_key(), "EC on the curve secp256k1; supported are RSA, Ed25519"),
        (ed448.Ed448PrivateKey.generate().public_key(), "unsupported key type Ed448"),
        (dsa.generate_private_key(1024).public_key(), "unsupported key type DSA"),
        (rsa.generate_private_key(65537, 1024).public_key(), "RSA key of 1024 bits: 2048 to 16384"),
    ):
        with pytest.raises(KeyFormatError, match=why):
            PublicKey.parse(pem(handle))
    assert PublicKey.parse(pem(rsa.generate_private_key(3, 1024).public_key()), minimum_rsa_bits=1024).bits == 1024
    good = keys["ssh-rsa"].public_key
    for content, why in (
        (good.pkcs8().replace("-----END", "-----ENT"), "PUBLIC KEY: the file is cut short"),
        (good.pkcs8().replace("MII", "MIJ"), "PUBLIC KEY: malformed"),
        (good.pkcs8().replace("MII", "\n" * 24_576 + "MII"), "at most 24576 are accepted"),
        ("-----BEGIN DSA PUBLIC KEY-----\n", "this is a PEM file; expected one line .*, RFC 4716 or PEM"),
    ):  # fmt: skip
        with pytest.raises(KeyFormatError, match=why):
            PublicKey.parse(content)


def test_a_point_of_small_order_in_pem():
    """Through every form the same checks."""
    identity = bytes.fromhex("302a300506032b6570032100") + b"\1" + bytes(31)
    content = f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(identity).decode()}\n-----END PUBLIC KEY-----\n"
    with pytest.raises(KeyFormatError, match=r"small order|malformed"):
        PublicKey.parse(content)


def test_a_panic_of_the_backend(keys, monkeypatch):
    def give_up(*args):
        raise PanicException("index out of bounds")

    monkeypatch.setattr("cryptography.hazmat.primitives.serialization.load_pem_public_key", give_up)
    with pytest.raises(KeyFormatError, match="PUBLIC KEY: the crypto backend gave up on it"):
        PublicKey.parse(keys["ssh-ed25519"].public_key.pkcs8())


@given(st.data())
def test_no_damage_raises_anything_else(keys, data):
    public = keys[data.draw(st.sampled_from(KINDS))].public_key
    content = bytearray(data.draw(st.sampled_from([public.rfc4716(), public.pkcs8()])).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        key = PublicKey.parse(bytes(content))
    except KeyFormatError:
        return
    assert PublicKey.parse(key.rfc4716()) == PublicKey.parse(key.pkcs8()) == key


@given(st.text(max_size=100), st.binary(max_size=60))
def test_no_content_raises_anything_else(words, data):
    label = "PUBLIC KEY"
    armoured = f"-----BEGIN {label}-----\n{base64.b64encode(data).decode()}\n-----END {label}-----\n"
    for content in (f"{rfc4716.BEGIN}\n{words}\n{rfc4716.END}\n", block(data, words.replace("\n", " ")), armoured):
        with pytest.raises(KeyFormatError):
            PublicKey.parse(content.encode("utf-8", "replace"))
