"""PuTTY's private key files: those that puttygen writes, and those that nobody should."""

from __future__ import annotations

import re
import time
import traceback

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from hypothesis import given
from hypothesis import strategies as st

from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys import PassphraseNeeded, PassphraseWrong, PrivateKey, ppk
from sshproto.wire.codec import mpint, string
from tests.support.ppk import private_blob, write

WORD = b"correct horse"

# puttygen's -t and -b.
KINDS = {
    "ssh-ed25519": ("ed25519", None),
    "ecdsa-sha2-nistp256": ("ecdsa", 256),
    "ecdsa-sha2-nistp384": ("ecdsa", 384),
    "ecdsa-sha2-nistp521": ("ecdsa", 521),
    "ssh-rsa": ("rsa", 2048),
}


@pytest.fixture(scope="session")
def by_puttygen(puttygen, tmp_path_factory):
    """A file of each kind, unencrypted, with its public line."""
    room = tmp_path_factory.mktemp("puttygen")
    (room / "none").write_bytes(b"")
    made = {}
    for kind, (name, bits) in KINDS.items():
        path = room / f"{kind}.ppk"
        size = [] if bits is None else ["-b", bits]
        puttygen("-q", "-t", name, *size, "-C", "me@here", "--new-passphrase", room / "none", "-o", path)
        made[kind] = path, puttygen(path, "-L").strip()
    return made


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("passphrase", [b"", WORD], ids=["plain", "encrypted"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_puttygen_writes_loads(puttygen, by_puttygen, tmp_path, kind, passphrase, version):
    source, line = by_puttygen[kind]
    (tmp_path / "old").write_bytes(b"")
    (tmp_path / "new").write_bytes(passphrase)
    path = tmp_path / "id.ppk"
    puttygen(
        *(source, "-O", "private", "-P", "-o", path, "--old-passphrase", tmp_path / "old"),
        *("--new-passphrase", tmp_path / "new", "--ppk-param", f"version={version},memory=64,passes=2"),
    )
    data = path.read_bytes()
    assert data.startswith(f"PuTTY-User-Key-File-{version}: {kind}".encode())
    if passphrase:
        with pytest.raises(PassphraseNeeded, match=r"is encrypted \(aes256-cbc\)") as needed:
            PrivateKey.load(data)
        assert needed.value.public_key is not None
        assert needed.value.public_key.openssh() == line
        with pytest.raises(PassphraseWrong, match=f"does not open the {kind} private key SHA256:"):
            PrivateKey.load(data, b"incorrect horse")
    key = PrivateKey.load(data, passphrase or None)
    assert key.public_key.openssh() == line
    assert key.comment == "me@here"
    for algorithm in key.public_key.signature_algorithms:
        key.public_key.verify(key.sign(b"data", algorithm), b"data", algorithm)
    assert PrivateKey.load(data.replace(b"\n", b"\r\n"), passphrase or None).public_key == key.public_key


@pytest.mark.parametrize("flavour", ["id", "i", "d"])
def test_the_flavours_of_argon2(puttygen, by_puttygen, tmp_path, flavour):
    source, line = by_puttygen["ssh-ed25519"]
    (tmp_path / "new").write_bytes(WORD)
    path = tmp_path / "id.ppk"
    parameters = f"kdf=argon2{flavour},memory=256,passes=3,parallelism=2"
    puttygen(source, "-O", "private", "-P", "-o", path, "--new-passphrase", tmp_path / "new", "--ppk-param", parameters)
    assert f"Key-Derivation: Argon2{flavour}\n" in path.read_text()
    assert PrivateKey.load(path.read_bytes(), WORD).public_key.openssh() == line


@pytest.mark.parametrize("kind", KINDS)
def test_what_we_write_goes_through_puttygen_and_back(puttygen, tmp_path, keys, kind):
    """Our OpenSSH file read by puttygen, its PPK read by us."""
    key = keys[kind]
    path, converted = tmp_path / "id", tmp_path / "id.ppk"
    path.write_bytes(key.openssh())
    path.chmod(0o600)
    puttygen(path, "-O", "private", "-o", converted)
    again = PrivateKey.load(converted.read_bytes())
    assert again.public_key == key.public_key
    assert again.comment == key.comment
    assert puttygen(converted, "-L").strip() == key.public_key.openssh()


@pytest.mark.parametrize("passphrase", [b"", WORD], ids=["plain", "encrypted"])
@pytest.mark.parametrize("version", [2, 3])
def test_the_files_of_these_tests_are_puttys(puttygen, tmp_path, keys, version, passphrase):
    (tmp_path / "word").write_bytes(passphrase)
    for key in keys.values():
        path = tmp_path / "id.ppk"
        path.write_bytes(write(key, passphrase, version=version))
        assert puttygen(path, "-L", "--old-passphrase", tmp_path / "word").strip() == key.public_key.openssh()


# ----------------------------------------------------------------------------------------------------- without puttygen


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("passphrase", [b"", WORD], ids=["plain", "encrypted"])
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(keys, kind, passphrase, version):
    content = write(keys[kind], passphrase, version=version)
    key = PrivateKey.load(content, passphrase or None)
    assert key.public_key == keys[kind].public_key
    assert key.comment == keys[kind].comment
    assert PrivateKey.load(b"\n" + content.decode().encode(), passphrase, "mine").comment == "mine"
    assert PrivateKey.load(content.decode(), passphrase).openssh(entropy=lambda n, label: bytes(n)) == keys[
        kind
    ].openssh(entropy=lambda n, label: bytes(n))


def test_a_seed_that_ends_with_zeros(keys):
    """PuTTY writes it as a number, so they are missing."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from sshproto.keys import PublicKey
    from sshproto.wire.codec import text

    handle = Ed25519PrivateKey.from_private_bytes(b"\7" * 30 + bytes(2))
    key = PrivateKey(handle, PublicKey.from_blob(text("ssh-ed25519") + string(handle.public_key().public_bytes_raw())))
    assert len(private_blob(key)) == 34
    assert PrivateKey.load(write(key)).public_key == key.public_key
    with pytest.raises(KeyFormatError, match="at most 32"):
        PrivateKey.load(write(key, private=string(bytes(33))))


def test_comments(keys):
    key = keys["ssh-ed25519"]
    for comment in ("", "ä: ö", "a " * 300, " ", "PuTTY-User-Key-File-3: x", "-----BEGIN OPENSSH PRIVATE KEY-----"):
        assert PrivateKey.load(write(key, comment=comment)).comment == comment
    latin = write(key, WORD, comment="xy").replace(b"Comment: xy", b"Comment: \xff\xfe")
    with pytest.raises(PassphraseWrong):  # what the MAC covers is the bytes
        PrivateKey.load(latin, WORD)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("passphrase", [b"", WORD], ids=["plain", "encrypted"])
def test_the_mac_covers_everything(keys, passphrase, version):
    content = write(keys["ssh-ed25519"], passphrase, version=version).decode()
    wrong = (PassphraseWrong, "does not open") if passphrase else (KeyFormatError, "the MAC does not fit")
    lines = content.split("\n")
    private = next(at for at, line in enumerate(lines) if line.startswith("Private-Lines")) + 1
    for changed in (
        content.replace("Comment: ssh", "Comment: ssi"),
        content.replace(
            lines[private], lines[private][:8] + ("A" if lines[private][8] != "A" else "B") + lines[private][9:]
        ),
        re.sub("(Private-MAC: .*).", lambda match: match[1] + ("0" if match[0][-1] != "0" else "1"), content),
    ):
        assert changed != content
        with pytest.raises(wrong[0], match=wrong[1]):
            PrivateKey.load(changed, passphrase)
    other = write(keys["ecdsa-sha2-nistp256"], passphrase, version=version).decode().split("\n")
    with pytest.raises(KeyFormatError, match="says ssh-ed25519, the public key in it is ecdsa"):
        PrivateKey.load("\n".join([lines[0], *other[1:]]), passphrase)


# How each header is made worse, and what is said of it.
DAMAGE = [
    (r"File-3", "File-1", "version 1; versions 2 and 3"),
    (r"File-3", "File-99999999999", "version 99999999999"),
    (r"File-3: ", "File-3 ", "version 3 ssh-ed25519"),
    (r"^(PuTTY.*): .*", r"\1: ssh-dss", "says ssh-dss, the public key in it is ssh-ed25519"),
    (r"Encryption: .*", "Encryption: rot13", "unsupported encryption rot13; supported are aes256-cbc, none"),
    (r"Encryption: .*\n", "", "is 'Comment', expected the header Encryption"),
    (r"Comment: .*\n", "", "expected the header Comment"),
    (r"Public-Lines: 2", "Public-Lines: 1", "expected the header Key-Derivation"),
    (r"Public-Lines: 2", "Public-Lines: 3", "not base64"),
    (r"Public-Lines: 2", "Public-Lines: 2147483648", "Public-Lines is 2147483648; 1 to 1[0-9] are accepted"),
    (r"Public-Lines: 2", "Public-Lines: -2", "Public-Lines is -2"),
    (r"Public-Lines: 2", "Public-Lines: ٢", "Public-Lines is"),
    (r"Public-Lines: 2", "Public-Lines: 99999999999999999999999", "Public-Lines is 9999"),
    (r"(Private-Lines: .*)(\n.*)+", r"\1", "cut short, a line of Private-Lines is missing"),
    (r"Private-MAC: .*\n", "", "expected the header Private-MAC|is '', expected"),
    (r"Private-MAC: .*", "Private-MAC: 00", "has 1 bytes, expected 32"),
    (r"Private-MAC: .*", "Private-MAC: zz", "not hexadecimal"),
    (r"Private-MAC: .*", r"\g<0>\nMore: x", "comes after the end"),
    (r"(Private-Lines: )1\n.*", r"\g<1>1\nAAAA", "the private part has 3 bytes, expected a multiple of 16"),
    (r"Key-Derivation: .*", "Key-Derivation: scrypt", "unsupported Key-Derivation scrypt; supported are Argon2id"),
    (r"Argon2-Memory: .*", "Argon2-Memory: 2147483648", "Argon2-Memory is 2147483648; 8 to 1048576"),
    (r"Argon2-Memory: .*", "Argon2-Memory: 1048577", "8 to 1048576"),
    (r"Argon2-Memory: .*", "Argon2-Memory: 7", "8 to 1048576"),
    (r"Argon2-Passes: .*", "Argon2-Passes: 0", "Argon2-Passes is 0; 1 to 2097152"),
    (r"Argon2-Passes: .*", "Argon2-Passes: 2097153", "Argon2-Passes is 2097153; 1 to 2097152"),
    (r"Argon2-Memory: .*\n.*", "Argon2-Memory: 1048576\nArgon2-Passes: 17", "Argon2-Passes is 17; 1 to 16"),
    (r"Argon2-Parallelism: .*", "Argon2-Parallelism: 2", "Argon2-Parallelism is 2; 1 to 1 "),
    (r"Argon2-Memory: .*\n(.*)\n.*", r"Argon2-Memory: 1024\n\1\nArgon2-Parallelism: 65", "is 65; 1 to 64 "),
    (r"Argon2-Salt: .*", "Argon2-Salt: 00", "Argon2-Salt has 1 bytes; 8 to 1024"),
    (r"Argon2-Salt: .*", "Argon2-Salt: " + "00" * 1025, "Argon2-Salt has 1025 bytes; 8 to 1024"),
    (r"Argon2-Salt: .*", "Argon2-Salt: 0", "not hexadecimal"),
]  # fmt: skip


@pytest.mark.covers("V45", "V82")
@pytest.mark.parametrize(("pattern", "put", "why"), DAMAGE)
def test_damaged_files_are_refused_before_any_work(keys, monkeypatch, pattern, put, why):
    content = write(keys["ssh-ed25519"], WORD).decode()
    changed = re.sub(pattern, put, content, count=1)
    assert changed != content
    monkeypatch.setattr(ppk, "_stretch", lambda *args: pytest.fail("Argon2 was begun"))
    with pytest.raises(KeyFormatError, match=why) as raised:
        PrivateKey.load(changed, WORD)
    assert not isinstance(raised.value, PassphraseWrong)


@pytest.mark.covers("V45")
def test_what_is_within_bounds_is_asked_for(keys):
    content = write(keys["ssh-ed25519"], WORD).decode()
    start = time.perf_counter()
    for memory, passes, lanes in ((2**20, 16, 64), (8, 2**21, 1)):
        costly = content.replace("Memory: 8", f"Memory: {memory}").replace("Passes: 1", f"Passes: {passes}")
        with pytest.raises(PassphraseNeeded):
            PrivateKey.load(costly.replace("Parallelism: 1", f"Parallelism: {lanes}"))
    assert time.perf_counter() - start < 1


def test_private_parts_that_do_not_fit(keys):
    for kind, private, why in (
        ("ssh-ed25519", string(b"\5" * 32), "PuTTY private key: the private and the public part are different"),
        ("ssh-ed25519", b"\0\0", "malformed PuTTY private key"),
        ("ecdsa-sha2-nistp256", mpint(5), "different ecdsa-sha2-nistp256 keys"),
        ("ecdsa-sha2-nistp256", mpint(0), "not positive"),
        ("ecdsa-sha2-nistp256", mpint(2**256 - 1), "out of range"),
        ("ssh-rsa", b"".join(map(mpint, (5, 7, 11, 3))), "do not fit the modulus"),
        ("ssh-rsa", mpint(5), "malformed PuTTY private key"),
    ):
        with pytest.raises(KeyFormatError, match=why):
            PrivateKey.load(write(keys[kind], private=private))
    key = keys["ssh-ed25519"]
    with pytest.raises(KeyFormatError, match="1 bytes follow the private key"):
        PrivateKey.load(write(key, padding=b"\0"))
    size = -len(private_blob(key)) % 16 + 16  # 28, but for one key in 256, whose last byte is 0
    with pytest.raises(KeyFormatError, match=f"{size} bytes follow the private key"):
        PrivateKey.load(write(key, WORD, padding=bytes(size)), WORD)


def test_what_cryptography_lacks_is_named(keys, monkeypatch):
    def lack(**kwargs):
        raise UnsupportedAlgorithm("no Argon2 here")

    content = write(keys["ssh-ed25519"], WORD)
    monkeypatch.setattr("cryptography.hazmat.primitives.kdf.argon2.Argon2id", lack)
    with pytest.raises(KeyFormatError, match="it needs Argon2id, which cryptography's OpenSSL here lacks"):
        PrivateKey.load(content, WORD)
    with pytest.raises(InvalidArgument, match="has to be bytes"):
        PrivateKey.load(content, WORD.decode())  # type: ignore[arg-type]


def test_errors_show_neither_the_passphrase_nor_the_key(keys):
    key, secret = keys["ecdsa-sha2-nistp256"], b"canary-passphrase"
    for content in (write(key, b"another"), write(key, b"another", version=2), write(key, private=mpint(77))):
        with pytest.raises(KeyFormatError) as raised:
            PrivateKey.load(content, secret)
        assert "canary" not in "".join(traceback.format_exception(raised.value))
        assert raised.value.__cause__ is None
    container = ppk.read(write(key).decode())
    assert "sealed" not in repr(container)
    assert "mac" not in repr(container)


@pytest.mark.covers("V82")
@given(st.data())
def test_no_damage_raises_anything_else(keys, data):
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    passphrase = data.draw(st.sampled_from([b"", WORD]))
    content = bytearray(write(keys[kind], passphrase, version=2 if passphrase else data.draw(st.sampled_from([2, 3]))))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        key = PrivateKey.load(bytes(content), passphrase)
    except KeyFormatError:
        return
    assert key.public_key == keys[kind].public_key


@pytest.mark.covers("V82")
@given(st.text(max_size=100), st.binary(max_size=60))
def test_no_content_raises_anything_else(words, data):
    for content in (
        f"PuTTY-User-Key-File-3: {words}".encode("utf-8", "replace"),
        b"PuTTY-User-Key-File-2: ssh-rsa\nEncryption: none\nComment: \n" + data,
        b"PuTTY-User-Key-File-3: ssh-rsa\nEncryption: aes256-cbc\nComment: \nPublic-Lines: 1\nAAAA\n" + data,
    ):
        with pytest.raises(KeyFormatError):
            PrivateKey.load(content, WORD)
