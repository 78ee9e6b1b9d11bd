"""Every reader of `sshproto.keys`, given anything: documented errors that can be shown, in bounded time and memory.

What each of them makes of what is right is tested beside it, in tests/unit/keys; fuzz/keys.py and its neighbours look
for more, for longer.
"""

from __future__ import annotations

import ast
import base64
import binascii
import contextlib
import hashlib
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.clear import fit_to_show
from sshproto.errors import InvalidArgument, KeyFormatError, SignatureInvalid, WireError
from sshproto.keys import (
    FOREVER,
    KRL,
    Certificate,
    CertificateKind,
    PrivateKey,
    PublicKey,
    allowed_signers,
    authorized_keys,
    contents,
    identify,
    known_hosts,
    krl,
    openssh,
    parse_validity,
    pem,
    ppk,
    private,
    read_revoked,
    read_timestamp,
    revoke_specified,
    specification,
    sshsig,
)
from sshproto.keys.key_options import read_target
from sshproto.keys.public import LOWEST_RSA_BITS
from sshproto.keys.sshfp import Sshfp
from sshproto.wire.codec import Reader, byte, mpint, string, text, uint32, uint64
from tests.support.ppk import write as write_ppk

KEYS = Path(private.__file__).parent

WORD = b"canary-passphrase"
KEY = PrivateKey.generate(comment="me@here")
EC = PrivateKey.generate("ecdsa-sha2-nistp256", comment="ec")
RSA = PrivateKey.generate("ssh-rsa", 2048, comment="rsa")
LINE = KEY.public_key.openssh()
CERTIFICATE = Certificate.issue(
    EC, KEY.public_key, CertificateKind.USER, key_id="id", principals=["me"], valid_before=FOREVER, serial=5,
    critical_options={"force-command": "ls", "source-address": "::1"},
)  # fmt: skip
LIST = KRL(comment="x").revoke(KEY.public_key, CERTIFICATE).revoke_serials(None, 3, (9, 40), *range(50, 90, 2))
SIGNED = sshsig.sign(KEY, b"data", "file").armoured().encode()


def _words(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _agent_key(data: bytes) -> None:
    private.read_private(Reader(data, "key"))


def _agent_half(data: bytes) -> None:
    for key in (KEY, EC, RSA):
        private.read_half(Reader(data, "key"), key.public_key)


def _verify(data: bytes) -> None:
    for key in (KEY, EC, RSA):
        key.public_key.verify(data, b"data", key.public_key.signature_algorithms[0])


PRIVATE = [
    *(KEY.openssh(), RSA.openssh(), EC.openssh(WORD, rounds=1)),
    *(KEY.openssh(WORD, rounds=1, cipher="aes256-gcm@openssh.com"), KEY.pkcs8(), RSA.pkcs8()),
    *(EC.pkcs8(WORD, iterations=10), write_ppk(KEY), write_ppk(EC, WORD), write_ppk(RSA, version=2)),
]
SECRETS = (
    WORD.decode(),
    *(line for line in PRIVATE[0].decode().split("\n")[3:-3]),
    PRIVATE[0].decode().split("\n")[2][30:],
)
PUBLIC = [
    *(key.public_key.openssh().encode() for key in (KEY, EC, RSA)),
    *(KEY.public_key.rfc4716().encode(), RSA.public_key.pkcs8().encode(), RSA.public_key.pkcs1().encode()),
]
AGENTS = [private.write_private(key) for key in (KEY, EC, RSA)]
BLOBS = [key.public_key.blob for key in (KEY, EC, RSA)]
HOSTS = f"@revoked * {LINE}\nhost,!x,[y]:2 {LINE}\n|1|{'A' * 27}=|{'A' * 27}= {EC.public_key.openssh()}\n".encode()
OPTIONS = f'command="a\\"b",no-pty,from="10.*,!10.1.1.1",expiry-time="20300101Z",permitopen="a:1" {LINE}\n'.encode()
SIGNERS = f'me@here,*@x namespaces="file,git",valid-after="20200101Z" {LINE}\n'.encode()
SPECIFICATION = f"serial: 5-0x10\nid: x # y\nkey: {LINE}\nhash: {KEY.public_key.fingerprint()}\n".encode()

# Each: what it is called with, the errors that it is documented to raise, and contents that are right.
READERS: dict[str, tuple[Callable[[bytes], Any], tuple[type[Exception], ...], list[bytes]]] = {
    "private.PrivateKey.load": (lambda data: PrivateKey.load(data, WORD), (KeyFormatError,), PRIVATE),
    "private.read_private": (
        _agent_key,
        (KeyFormatError, WireError),
        [private.write_private(key) for key in (KEY, EC, RSA)],
    ),
    "private.read_half": (_agent_half, (KeyFormatError, WireError), [private.write_private(KEY, half=True)]),
    "public.PublicKey.parse": (PublicKey.parse, (KeyFormatError,), PUBLIC),
    "public.PublicKey.from_blob": (
        PublicKey.from_blob,
        (KeyFormatError,),
        [key.public_key.blob for key in (KEY, EC, RSA)],
    ),
    "public.PublicKey.verify": (_verify, (SignatureInvalid,), [key.sign(b"data") for key in (KEY, EC, RSA)]),
    "certificates.Certificate.parse": (Certificate.parse, (KeyFormatError,), [CERTIFICATE.openssh().encode()]),
    "certificates.Certificate.from_blob": (Certificate.from_blob, (KeyFormatError,), [CERTIFICATE.blob]),
    "krl.KRL.parse": (KRL.parse, (KeyFormatError,), [LIST.encode()]),
    "contents.identify": (identify, (KeyFormatError,), [*PRIVATE, *PUBLIC, HOSTS, OPTIONS, LIST.encode()]),
    "contents.read_line": (lambda data: contents.read_line(_words(data)), (KeyFormatError,), [HOSTS[:200], OPTIONS]),
    "specification.revoke_specified": (
        lambda data: revoke_specified(KRL(), data, authorities=[EC.public_key]),
        (KeyFormatError,),
        [SPECIFICATION],
    ),
    "revocation.read_revoked": (read_revoked, (KeyFormatError,), [PUBLIC[0], LIST.encode()]),
    "known_hosts.parse": (known_hosts.parse, (), [HOSTS]),
    "authorized_keys.parse": (authorized_keys.parse, (), [OPTIONS]),
    "authorized_keys.parse_principals": (authorized_keys.parse_principals, (), [b'from="::1",no-pty alice\nbob\n']),
    "allowed_signers.parse": (allowed_signers.parse, (), [SIGNERS]),
    "sshsig.FileSignature.parse": (sshsig.FileSignature.parse, (KeyFormatError,), [SIGNED]),
    "sshfp.Sshfp.parse": (
        lambda data: Sshfp.parse(_words(data)),
        (KeyFormatError,),
        [b"4 2 " + hashlib.sha256(KEY.public_key.blob).hexdigest().encode()],
    ),
    "sshfp.Sshfp.from_rdata": (Sshfp.from_rdata, (KeyFormatError,), [b"\4\1" + bytes(20)]),
    "timestamps.read_timestamp": (lambda data: read_timestamp(_words(data)), (KeyFormatError,), [b"20300101235959Z"]),
    "validity.parse_validity": (
        lambda data: parse_validity(_words(data), 1_700_000_000),
        (InvalidArgument,),
        [b"-1d:+52w3h", b"20300101Z:0xffffffff"],
    ),
    "key_options.read_target": (lambda data: read_target(_words(data)), (KeyFormatError,), [b"[::1]:22", b"*:*"]),
}

# Readers that are only parts of the above, which reach all of them.
PARTS = {
    *(
        "openssh.read",
        "pem.find",
        "pem.find_public",
        "ppk.read",
        "rfc4716.read",
        "security_keys.read",
        "grants.read_plain",
    ),
    *("public.PublicKey.from_words", "key_options.read_options", "composite.read_public", "composite.read_private"),
    *("validity.parse_interval", "validity.parse_moment", "composite.CompositePrivateKey.from_seeds"),
}

_READER = re.compile("(?:parse|read|load|from|identify|find_public)(?:_.*)?$|find$|revoke_specified$")
_NOT = {
    "known_hosts.KnownHosts.find",
    "host_lines.find",
    "authorized_keys.AuthorizedKeys.find",
    "authorized_keys.AuthorizedPrincipals.find",
}  # they look up


def readers() -> Iterator[str]:
    """All that look like readers, by their names in the source."""
    for path in sorted(KEYS.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            inner = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else []
            scope = f"{path.stem}.{node.name}." if isinstance(node, ast.ClassDef) else f"{path.stem}."
            for each in (node, *inner):
                if isinstance(each, ast.FunctionDef) and _READER.match(each.name):
                    yield scope + each.name


def test_no_reader_is_left_out():
    found = set(readers()) - _NOT
    assert found - READERS.keys() - PARTS == set()
    assert (PARTS | READERS.keys()) - {"public.PublicKey.verify"} - found == set()


LITTLE = {
    (openssh, "MAXIMUM_ROUNDS"): 2,
    (pem, "MAXIMUM_ITERATIONS"): 100,
    (pem, "MAXIMUM_SCRYPT"): 2**10,
    (ppk, "MAXIMUM_WORK"): 64,
}
REAL = {(module, bound): getattr(module, bound) for module, bound in LITTLE}
LESS = {(krl, "MAXIMUM_ENTRIES"): 5000, (specification, "MAXIMUM_ENTRIES"): 5000, (contents, "MAXIMUM_LINES"): 2000}
"""Bounds of what is many, with which it is seen that they are kept, and sooner than with the real ones."""


@pytest.fixture(autouse=True, scope="module")
def cheap():
    """What a file may ask of its reader is little here, or examples would take as long as the bounds allow."""
    with pytest.MonkeyPatch.context() as patch:
        for (module, bound), value in LITTLE.items():
            patch.setattr(module, bound, value)
        yield


def check(name: str, data: bytes) -> bool:
    """Read ``data``.

    Returns:
        Whether it was right.
    """
    read, documented, _ = READERS[name]
    began = time.process_time()
    try:
        read(data)
    except documented as error:
        shown = str(error)
        fit_to_show(shown)
        assert not any(secret in shown for secret in SECRETS)
        return False
    finally:
        assert time.process_time() - began < 2
    return True


# ------------------------------------------------------------------------------------------------------------- anything


@pytest.mark.parametrize("name", READERS)
def test_what_is_right_is_read(name):
    if name not in ("private.read_half", "public.PublicKey.verify"):  # of which only one key's is right
        for content in READERS[name][2]:
            assert check(name, content)


NUMBERS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1)
PIECES = (b"\n", b"\0", b"\x1b", b"\xff", b'"', b"#", b" ", b":", b"-----", b"99999999999")
BASE64 = re.compile(rb"[A-Za-z0-9+/=\n]{40,}")


@st.composite
def damaged(draw: Any, content: bytes) -> bytes:
    """A content with a few bytes changed, cut out, put in or doubled; a length set; in base64, or what that hides."""
    hidden = list(BASE64.finditer(content))
    if hidden and draw(st.booleans()):
        place = draw(st.sampled_from(hidden))
        try:
            inner = base64.b64decode(b"".join(place[0].split()), validate=True)
        except binascii.Error:
            inner = b""
        if inner:
            changed = base64.b64encode(draw(_changed(inner)))
            return content[: place.start()] + changed + b"\n" + content[place.end() :]
    return draw(_changed(content))


@st.composite
def _changed(draw: Any, content: bytes) -> bytes:
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        size = draw(st.integers(0, 8))
        piece = draw(
            st.binary(max_size=6)
            | st.sampled_from(NUMBERS).map(lambda number: number.to_bytes(4, "big"))
            | st.sampled_from(
                (b"\n", b"\0", b"\x1b", b"\xff", b'"', b"#", b" ", b":", b"-----", b"99999999999", content[:50])
            )
        )
        content = content[:at] + piece + content[at + (size if draw(st.booleans()) else len(piece)) :]
    return content


@pytest.mark.covers("V82")
@pytest.mark.parametrize("name", READERS)
@settings(max_examples=30)
@given(data=st.data())
def test_damage(name, data):
    check(name, data.draw(damaged(data.draw(st.sampled_from(READERS[name][2])))))


@pytest.mark.covers("V82")
@pytest.mark.parametrize("name", READERS)
@settings(max_examples=20)
@given(data=st.binary(max_size=120) | st.text(max_size=80).map(lambda words: words.encode("utf-8", "surrogatepass")))
def test_anything(name, data):
    check(name, data)


# -------------------------------------------------------------------------------------------------------- what costs


def _container(rounds: int, salt: bytes = b"0123456789abcdef") -> bytes:
    """OpenSSH's format, whose KDF is to be repeated so often."""
    options = string(string(salt) + uint32(rounds))
    data = openssh.MAGIC + text("aes256-ctr") + text("bcrypt") + options + uint32(1)
    data += string(KEY.public_key.blob) + string(bytes(160))
    return f"{openssh.BEGIN}\n{base64.b64encode(data).decode()}\n{openssh.END}\n".encode()


def _sequences(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        size = len(data)
        data = b"\x30" + (bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")) + data
    return data


def _encrypted(*numbers: int, oid: str = pem._PBKDF2) -> bytes:
    """PKCS#8 with such parameters."""
    algorithm = pem._der(0x30, pem._identifier(oid), pem._der(0x30, pem._der(4, bytes(8)), *map(pem._integer, numbers)))
    outer = pem._der(0x30, pem._identifier(pem._PBES2), pem._der(0x30, algorithm))
    return pem.armour("ENCRYPTED PRIVATE KEY", pem._der(0x30, outer, pem._der(4, bytes(64))))


def _krl(*sections: tuple[int, bytes]) -> bytes:
    head = b"SSHKRL\n\0" + uint32(1) + uint64(1) + uint64(1) + uint64(0) + string(b"") + string(b"")
    inner = b"".join(byte(kind) + string(data) for kind, data in sections)
    return head + byte(1) + string(string(b"") + string(b"") + inner)


def _ppk(name: str, value: int) -> bytes:
    return re.sub(rf"{name}: .*".encode(), f"{name}: {value}".encode(), write_ppk(KEY, WORD))


_MANY = 4 * 1024 * 1024
_HUGE = uint32(2**32 - 1)

COSTLY = {
    **{f"bcrypt, {rounds} rounds": ("private.PrivateKey.load", _container(rounds)) for rounds in (0, 2**31, 2**32 - 1)},
    "bcrypt, a long salt": ("private.PrivateKey.load", _container(1, bytes(2000))),
    **{f"PBKDF2, {count}": ("private.PrivateKey.load", _encrypted(count)) for count in (0, 2**31, 2**63)},
    "scrypt": ("private.PrivateKey.load", _encrypted(2**31, 8, 1, oid=pem._SCRYPT)),
    **{
        f"Argon2, {name}": ("private.PrivateKey.load", _ppk(name, value))
        for name, value in (("Argon2-Memory", 2**31), ("Argon2-Passes", 2**31), ("Argon2-Parallelism", 2**24))
    },
    "lines of PuTTY's that are not there": ("private.PrivateKey.load", _ppk("Private-Lines", 2**31)),
    "a long private key": ("private.PrivateKey.load", b"-----BEGIN RSA PRIVATE KEY-----\n" + b"A" * _MANY),
    "nested sequences": (
        "private.PrivateKey.load",
        pem.armour("ENCRYPTED PRIVATE KEY", _sequences(4000)),
    ),
    "an object identifier without end": (
        "private.PrivateKey.load",
        pem.armour("ENCRYPTED PRIVATE KEY", pem._der(0x30, pem._der(0x30, pem._der(6, b"\xff" * 12_000)))),
    ),
    "a string of 4 GiB": ("public.PublicKey.from_blob", text("ssh-ed25519") + _HUGE + bytes(32)),
    "an exponent of 16,000 bits": (
        "public.PublicKey.from_blob",
        text("ssh-rsa") + mpint(2**16000 | 1) + mpint(2**2047 | 1),
    ),
    "a modulus of 100,000 bits": ("public.PublicKey.from_blob", text("ssh-rsa") + mpint(65537) + mpint(2**100_000 | 1)),
    "a long line": ("public.PublicKey.parse", b"ssh-ed25519 " + b"A" * _MANY),
    "many principals": ("certificates.Certificate.from_blob", CERTIFICATE.blob[:60] + text("a") * 3000),
    "all serials": ("krl.KRL.parse", _krl((0x21, uint64(1) + uint64(2**64 - 1)))),
    "a bitmap of ones": ("krl.KRL.parse", _krl((0x22, uint64(1) + string(b"\0" + b"\xff" * 2**21)))),
    "a bitmap with gaps": ("krl.KRL.parse", _krl((0x22, uint64(1) + string(b"\x55" * 2**21)))),
    "a bitmap that is too long": ("krl.KRL.parse", _krl((0x22, uint64(1) + string(b"\x55" * 2**22)))),
    "more entries than are read": ("krl.KRL.parse", _krl((0x20, uint64(5) * 6000))),
    "empty identities": ("krl.KRL.parse", _krl((0x23, string(b"") * 6000))),
    "many lines": ("contents.identify", b"ssh-ed25519 AAAA\n" * 100_000),
    "many keys": ("contents.identify", f"{LINE}\n".encode() * 2001),
    "quotes": ("contents.identify", b'"' * (_MANY - 1)),
    "quotes that don't end": ("contents.identify", b'a"\\' * (_MANY // 3)),
    "spaces": ("contents.identify", b"a" + b" " * (_MANY - 10) + b"b"),
    "commas": ("contents.identify", b"," * (_MANY - 1)),
    "BEGIN and no end": ("contents.identify", b"-----BEGIN " + b"A " * (_MANY // 2 - 10)),
    "many BEGINs": ("contents.identify", b"-----BEGIN A PRIVATE KEY----" * (_MANY // 28 - 1)),
    "specifications": ("specification.revoke_specified", b"serial: 5\n" * 6000),
    "a long comment": ("specification.revoke_specified", b"id: a" + b" " * _MANY + b"b"),
    "many comments": ("specification.revoke_specified", b" \t#" * (_MANY // 3)),
    "a long validity": ("validity.parse_validity", b"1w" * 100_000),
    "digits": ("validity.parse_validity", b"+" + b"9" * _MANY),
}


@pytest.mark.covers("V82")
@pytest.mark.parametrize("what", COSTLY)
def test_nothing_costs_more_than_its_size_explains(what, monkeypatch):
    """With the bounds as they are: each is refused, or read, at once."""
    for module, name in (
        (openssh, "MAXIMUM_ROUNDS"),
        (pem, "MAXIMUM_ITERATIONS"),
        (pem, "MAXIMUM_SCRYPT"),
        (ppk, "MAXIMUM_WORK"),
    ):
        monkeypatch.setattr(module, name, REAL[module, name])
    name, data = COSTLY[what]
    check(name, data)
    assert check_cost(name, data) < 200 * 2**20


def check_cost(name: str, data: bytes) -> int:
    """How much memory reading takes at most, in bytes."""
    read, documented, _ = READERS[name]
    tracemalloc.start(1)
    try:
        with contextlib.suppress(*documented):
            read(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_weak_key_is_read_where_that_is_asked_for():
    """The least that a caller may accept is what the readers for showing accept."""
    with pytest.raises(InvalidArgument):
        PublicKey.from_blob(RSA.public_key.blob, minimum_rsa_bits=LOWEST_RSA_BITS - 1)
