"""Public keys: the blob that travels, its checks, its text forms and its fingerprints.

RFC 4253 section 6.6, RFC 5656 section 3.1 (ECDSA), RFC 8709 section 4 (Ed25519), RFC 4716 section 4 (fingerprints).

Every :class:`PublicKey` that exists has passed all checks, so nobody who gets one has to check again:

* the blob is canonical: no superfluous bytes, mpints in their shortest form, EC points uncompressed and on the curve
  that the type names;
* RSA has an odd modulus of 2048 to 16384 bits (down to 1024 if the caller says so) and an odd exponent from 3 up to
  2^32: smaller is weak, larger lets a peer make us compute (CVE-2026-39829);
* Ed25519 is not one of the points of small order, under which a signature can be valid for any message.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

import attrs

from sshproto.errors import InvalidArgument, KeyFormatError, WireError, is_panic
from sshproto.keys.signatures import signature_algorithms, verify_signature
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import Buffer, Reader, mpint, string, text

if TYPE_CHECKING:
    from sshproto.config import SecurityKeyPolicy
    from sshproto.keys import pem
    from sshproto.keys.security_keys import Assertion

MINIMUM_RSA_BITS = 2048
"""Smallest RSA modulus accepted unless the caller says otherwise."""

LOWEST_RSA_BITS = 1024
"""Smallest RSA modulus that a caller can say."""

MAXIMUM_RSA_BITS = 16384

MAXIMUM_BLOB = 16 * 1024
"""Longest key blob that is looked at, in bytes; an RSA key of 16384 bits has some 2100."""

_SHORT = 1024  # bytes of a blob: longer keys are read anew each time, or many would fill the memory

_LINE_BREAKS = re.compile("[\r\n\0]+")

# y coordinates of the eight points of small order on edwards25519: (0, 1), (0, -1), (±√-1, 0) and four of order 8.
_P25519 = 2**255 - 19
_Y8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = frozenset((0, 1, _P25519 - 1, _Y8, _P25519 - _Y8))


def check_rsa(n: int, e: int, minimum: int) -> None:
    """Check the numbers of an RSA public key before any arithmetic is done with them.

    Raises:
        KeyFormatError: They are out of bounds.
    """
    if not LOWEST_RSA_BITS <= minimum <= MAXIMUM_RSA_BITS:
        raise InvalidArgument(f"minimum_rsa_bits is from {LOWEST_RSA_BITS} to {MAXIMUM_RSA_BITS}, not {minimum}")
    if n <= 0:
        raise KeyFormatError("RSA key: the modulus is not positive")
    bits = n.bit_length()
    if not minimum <= bits <= MAXIMUM_RSA_BITS:
        raise KeyFormatError(f"RSA key of {bits} bits: {minimum} to {MAXIMUM_RSA_BITS} bits are accepted")
    if n % 2 == 0:
        raise KeyFormatError("RSA key: the modulus is even")
    if not 3 <= e < 2**32 or e % 2 == 0:
        shown = str(e) if e.bit_length() <= 64 else f"a number of {e.bit_length()} bits"
        raise KeyFormatError(f"RSA key: the public exponent is {shown}; an odd number from 3 up to 2^32 is accepted")


def _read_rsa(reader: Reader, minimum: int) -> Any:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

    e, n = reader.mpint("e"), reader.mpint("n")
    reader.end()
    check_rsa(n, e, minimum)
    return RSAPublicNumbers(e, n).public_key()


def _read_ed25519(reader: Reader, minimum: int) -> Any:
    point = reader.string("key")
    reader.end()
    return _ed25519(point)


def _ed25519(point: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if len(point) != 32:
        raise KeyFormatError(f"Ed25519 key of {len(point)} bytes: it has 32")
    y = int.from_bytes(point, "little") & (2**255 - 1)
    if y >= _P25519:
        raise KeyFormatError("Ed25519 key: the point is not encoded in the one way that is allowed")
    if y in _SMALL_ORDER:
        raise KeyFormatError("Ed25519 key: the point is of small order, signatures by it prove nothing")
    return Ed25519PublicKey.from_public_bytes(point)


@functools.cache
def curve(name: str) -> Any:
    """`cryptography`'s curve for ``"nistp256"`` and so on."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return {"nistp256": ec.SECP256R1(), "nistp384": ec.SECP384R1(), "nistp521": ec.SECP521R1()}[name]


def _read_ecdsa(name: str, reader: Reader, minimum: int) -> Any:
    inner, point = reader.name("curve"), reader.string("Q")
    reader.end()
    return _ecdsa(name, inner, point)


def _ecdsa(name: str, inner: str, point: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    if inner != name:
        raise KeyFormatError(f"ECDSA key: the type says {name}, the curve inside is {printable(inner)}")
    size = (curve(name).key_size + 7) // 8
    if len(point) != 1 + 2 * size or point[0] != 4:  # the backend would also take compressed points
        start = f"starts with {point[0]:02x}" if point else "is empty"
        raise KeyFormatError(
            f"ECDSA key: the point has {len(point)} bytes and {start}; "
            f"an uncompressed point on {name} has {1 + 2 * size} and starts with 04"
        )
    return EllipticCurvePublicKey.from_encoded_point(curve(name), point)


def _read_sk_ed25519(reader: Reader, minimum: int) -> Any:
    from sshproto.keys.security_keys import SecurityKey

    point, application = reader.string("key"), _application(reader)
    return SecurityKey(_ed25519(point), application)


def _read_sk_ecdsa(reader: Reader, minimum: int) -> Any:
    from sshproto.keys.security_keys import SecurityKey

    inner, point, application = reader.name("curve"), reader.string("Q"), _application(reader)
    return SecurityKey(_ecdsa("nistp256", inner, point), application)


def _application(reader: Reader) -> bytes:
    application = reader.string("application")
    reader.end()
    if b"\0" in application:
        raise KeyFormatError("security key: there is a NUL in the name of the application")
    return application


def _read_composite(reader: Reader, minimum: int) -> Any:
    from sshproto.keys.composite import read_public

    return read_public(reader, _ed25519)


KEY_TYPES: dict[str, Callable[[Reader, int], Any]] = {
    "ssh-ed25519": _read_ed25519,
    "ecdsa-sha2-nistp256": functools.partial(_read_ecdsa, "nistp256"),
    "ecdsa-sha2-nistp384": functools.partial(_read_ecdsa, "nistp384"),
    "ecdsa-sha2-nistp521": functools.partial(_read_ecdsa, "nistp521"),
    "sk-ssh-ed25519@openssh.com": _read_sk_ed25519,
    "sk-ecdsa-sha2-nistp256@openssh.com": _read_sk_ecdsa,
    "ssh-rsa": _read_rsa,
    "ssh-mldsa44-ed25519@openssh.com": _read_composite,
}
"""Key types: how what follows the type in a blob is read, checked and made a key of `cryptography`'s."""

SHORT_NAMES = {
    "ssh-ed25519": "ED25519",
    "ecdsa-sha2-nistp256": "ECDSA",
    "ecdsa-sha2-nistp384": "ECDSA",
    "ecdsa-sha2-nistp521": "ECDSA",
    "sk-ssh-ed25519@openssh.com": "ED25519-SK",
    "sk-ecdsa-sha2-nistp256@openssh.com": "ECDSA-SK",
    "ssh-rsa": "RSA",
    "ssh-mldsa44-ed25519@openssh.com": "MLDSA44-ED25519",
}
"""What ``ssh-keygen -l`` calls the types."""


def unsupported_type(name: str) -> KeyFormatError:
    """The error for a key of type ``name``, which says why there is no such key here."""
    have = ", ".join(KEY_TYPES)
    if name.endswith(("-cert-v01@openssh.com", "-cert-v00@openssh.com")):
        why = "certificates are not supported in place of a key; Certificate.parse reads them"
    elif name == "ssh-dss":
        why = "DSA is too weak (1024 bits, SHA-1)"
    else:
        why = "it is not known"
    return KeyFormatError(f"unsupported key type {printable(name)}: {why}; supported are {have}")


# What the start of a file says that it is, for errors. Searched in this order.
FOREIGN: tuple[tuple[str, str], ...] = (
    ("PuTTY-User-Key-File-", "a PuTTY private key (PPK)"),
    ("---- BEGIN SSH2 PUBLIC KEY", "a public key in RFC 4716 form"),
    ("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY", "a private key of SSH Communications (convert it with ssh-keygen -i -f)"),
    ("-----BEGIN SSH SIGNATURE", "a signature (SSHSIG)"),
    ("-----BEGIN OPENSSH PRIVATE KEY", "an OpenSSH private key"),
    ("-----BEGIN RSA PUBLIC KEY", "an RSA public key in PEM form"),
    ("-----BEGIN PUBLIC KEY", "a public key in PEM form"),
    ("-----BEGIN CERTIFICATE", "an X.509 certificate"),
    ("-----BEGIN PGP", "a PGP message or key"),
    ("-----BEGIN", "a PEM file"),
    ("SSH PRIVATE KEY FILE FORMAT 1", "an SSH-1 private key"),
)


def describe(content: str) -> str:
    """What ``content`` seems to be, with an article, to say in an error; ``""`` if there is nothing to be said."""
    if not content.strip():
        return "empty"
    for start, what in FOREIGN:
        if start in content:
            return what
    return ""


def decode_base64(word: str, what: str) -> bytes:
    """``word`` as a key blob's bytes.

    Raises:
        KeyFormatError: It is not base64, or is longer than any key.
    """
    if len(word) > MAXIMUM_BLOB * 4 // 3 + 4:
        raise KeyFormatError(f"{what}: {len(word)} characters of base64; no key is longer than {MAXIMUM_BLOB} bytes")
    try:
        return base64.b64decode(word, validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeyFormatError(f"{what}: not base64 ({error}): {printable(word, 40)}") from None


def blob_type(blob: Buffer) -> str:
    """The type that the blob of a public key names, supported or not.

    Raises:
        KeyFormatError: The blob does not start with a name.
    """
    if len(blob) > MAXIMUM_BLOB:
        raise KeyFormatError(f"a key blob of {len(blob)} bytes came, at most {MAXIMUM_BLOB} are accepted")
    try:
        return Reader(blob, "public key").name("type")
    except WireError as error:
        raise KeyFormatError(f"not a public key: {error}") from None


def decode_text(content: str | Buffer) -> str:
    """``content`` as text in which bytes that are not UTF-8 survive."""
    return content if isinstance(content, str) else bytes(content).decode("utf-8", "surrogateescape")


def split_words(line: str, most: int = 3) -> list[str]:
    """``line`` cut at spaces and tabs only; ``str.split`` also cuts at characters that are ordinary ones here.

    Args:
        line: One line; what is left and right of it does not count.
        most: The last of so many words is the rest of the line as it is.
    """
    line = line.strip(" \t\r")
    return re.split("[ \t]+", line, maxsplit=most - 1) if line else []


@contextlib.contextmanager
def no_panic(what: str) -> Iterator[None]:
    """Around the reading of a key: the backend's panic, past which an application cannot go on, is a KeyFormatError."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise KeyFormatError(f"{what}: the crypto backend gave up on it") from None


@functools.lru_cache(64)  # who logs in again, and each server, comes with the same key
def _read_blob(blob: bytes, minimum_rsa_bits: int) -> tuple[str, Any]:
    """The type of a key, and its handle; arguments and errors are those of :meth:`PublicKey.from_blob`."""
    kind = blob_type(blob)
    read = KEY_TYPES.get(kind)
    if read is None:
        raise unsupported_type(kind)
    reader = Reader(blob, f"{kind} key")
    reader.string("type")
    try:
        with no_panic(f"{kind} key"):
            return kind, read(reader, minimum_rsa_bits)
    except WireError as error:
        raise KeyFormatError(f"malformed public key: {error}") from None
    except (KeyFormatError, InvalidArgument):
        raise
    except ValueError as error:  # the backend's: a point that is not on its curve
        raise KeyFormatError(f"{kind} key: {printable(str(error))}") from None


@frozen(repr=False)
class PublicKey:
    """A public key that has passed all checks. Made by :meth:`from_blob` and :meth:`parse`.

    Two keys are equal when their blobs are; the comment does not count.

    Attributes:
        type: ``"ssh-ed25519"``, ``"ecdsa-sha2-nistp256"`` (384, 521), ``"ssh-rsa"``, or of keys in a security token
            ``"sk-ssh-ed25519@openssh.com"`` or ``"sk-ecdsa-sha2-nistp256@openssh.com"``; experimental is
            ``"ssh-mldsa44-ed25519@openssh.com"``.
        blob: The key as it travels (RFC 4253 section 6.6).
        comment: Words that came with it, unverified; show them through :func:`sshproto.text.printable`.
    """

    type: str = attrs.field(eq=False)
    blob: bytes
    comment: str = attrs.field(eq=False)
    _handle: Any = attrs.field(eq=False)

    @classmethod
    def from_blob(cls, blob: Buffer, comment: str = "", *, minimum_rsa_bits: int = MINIMUM_RSA_BITS) -> Self:
        """Read a key blob, all of it.

        Args:
            blob: The bytes.
            comment: To go with the key.
            minimum_rsa_bits: Smallest RSA modulus to accept; 1024 at least.

        Raises:
            KeyFormatError: It is malformed, of a type that is not supported, or too weak.
        """
        data = bytes(blob)
        read = _read_blob if len(data) <= _SHORT else _read_blob.__wrapped__
        kind, handle = read(data, minimum_rsa_bits)
        return cls(kind, data, comment, handle)

    @classmethod
    def parse(cls, line: str | bytes, *, minimum_rsa_bits: int = MINIMUM_RSA_BITS) -> Self:
        """Read the content of a public key file.

        That is the one-line form ``type base64 [comment]`` of ``id_*.pub``, around which empty lines and those starting
        with ``#`` are skipped; RFC 4716's, which begins ``---- BEGIN SSH2 PUBLIC KEY ----``; or PEM, a ``PUBLIC KEY``
        (PKCS#8) or an ``RSA PUBLIC KEY`` (PKCS#1).

        Raises:
            KeyFormatError: It is something else (and what), or the key is no good.
        """
        from sshproto.keys import pem, rfc4716

        content = decode_text(line)
        if rfc4716.is_rfc4716(content):
            word, comment = rfc4716.read(content)
            return cls.from_blob(decode_base64(word, "RFC 4716 public key"), comment, minimum_rsa_bits=minimum_rsa_bits)
        if (block := pem.find_public(content)) is not None:
            return cls.from_blob(_pem_blob(block), minimum_rsa_bits=minimum_rsa_bits)
        lines = [words for words in map(split_words, content.split("\n")) if words and not words[0].startswith("#")]
        expected = "expected one line 'type base64 comment', RFC 4716 or PEM"
        what = describe(content)
        if what:
            raise KeyFormatError(f"not a public key: this is {what}; {expected}")
        if len(lines) != 1:
            raise KeyFormatError(f"not a public key: {len(lines)} lines came; {expected}")
        words = lines[0]
        kind = words[0]
        if len(words) < 2:
            raise KeyFormatError(f"not a public key: one word came, {printable(kind, 40)!r}; {expected}")
        return cls.from_words(kind, words[1], words[2] if len(words) > 2 else "", minimum_rsa_bits=minimum_rsa_bits)

    @classmethod
    def from_words(cls, kind: str, word: str, comment: str, *, minimum_rsa_bits: int = MINIMUM_RSA_BITS) -> Self:
        """Make a key of the words of a line that someone else took apart.

        Raises:
            KeyFormatError: The key is no good, or is of another type than ``kind``.
        """
        if kind not in KEY_TYPES:
            raise unsupported_type(kind)
        blob = decode_base64(word, f"{kind} key")
        inner = blob_type(blob)
        if inner != kind:
            raise KeyFormatError(f"the line says {printable(kind)}, the key in it is of type {printable(inner)}")
        return cls.from_blob(blob, comment, minimum_rsa_bits=minimum_rsa_bits)

    @property
    def signature_algorithms(self) -> tuple[str, ...]:
        """The names under which this key can sign, best first."""
        return signature_algorithms(self.type)

    def fingerprint(self, hash_name: str = "sha256") -> str:
        """The digest of the blob as people compare it: ``SHA256:`` and base64, or ``MD5:`` and hex with colons.

        Raises:
            InvalidArgument: Another hash was named.
        """
        return fingerprint_of(self.blob, hash_name)

    def bubblebabble(self) -> str:
        """The SHA-1 of the blob in words that can be spoken, as ``ssh-keygen -B`` shows it."""
        from sshproto.keys.fingerprints import bubblebabble_of

        return bubblebabble_of(self.blob)

    def randomart(self, hash_name: str = "sha256") -> str:
        """The picture of the fingerprint that ``ssh-keygen -lv`` shows, and ``VisualHostKey=yes``, in eleven lines.

        Raises:
            InvalidArgument: Another hash than ``"sha256"`` or ``"md5"`` was named.
        """
        from sshproto.keys.fingerprints import randomart_of

        return randomart_of(self.blob, SHORT_NAMES[self.type], self.bits, hash_name)

    @property
    def bits(self) -> int:
        """The size of the key: of an RSA key's modulus, of the curve's field for the others."""
        return getattr(self._handle, "key_size", 256)

    def openssh(self) -> str:
        """The one-line form ``type base64 [comment]``, without a line end. Line breaks in the comment become spaces."""
        line = f"{self.type} {base64.b64encode(self.blob).decode('ascii')}"
        comment = _one_line(self.comment)
        return f"{line} {comment}" if comment else line

    def rfc4716(self) -> str:
        """The content of a file in the form of RFC 4716, with the comment, of which it holds 1022 bytes."""
        from sshproto.keys import rfc4716

        return rfc4716.write(self.blob, _one_line(self.comment))

    def pkcs8(self) -> str:
        """The content of a PEM file with a ``PUBLIC KEY`` (SubjectPublicKeyInfo). It has no place for the comment.

        Raises:
            InvalidArgument: It is the key of a security token.
        """
        from cryptography.hazmat.primitives.serialization import PublicFormat

        return self._pem(PublicFormat.SubjectPublicKeyInfo)

    def pkcs1(self) -> str:
        """The content of a PEM file with an ``RSA PUBLIC KEY``. It has no place for the comment.

        Raises:
            InvalidArgument: It is no RSA key.
        """
        from cryptography.hazmat.primitives.serialization import PublicFormat

        if self.type != "ssh-rsa":
            raise InvalidArgument(f"only RSA keys have a PKCS#1 form, this is a {self.type} key")
        return self._pem(PublicFormat.PKCS1)

    def _pem(self, form: Any) -> str:
        from cryptography.hazmat.primitives.serialization import Encoding

        if self.application is not None:
            raise InvalidArgument(f"a {self.type} key has no form in PEM, which cannot name the application")
        if not hasattr(self._handle, "public_bytes"):
            raise InvalidArgument(f"a {self.type} key has no form in PEM")
        made: bytes = self._handle.public_bytes(Encoding.PEM, form)
        return made.decode("ascii")

    @property
    def application(self) -> str | None:
        """What the key of a security token was made for, ``"ssh:"`` mostly; None for other keys. Unverified words."""
        application: bytes | None = getattr(self._handle, "application", None)
        return None if application is None else decode_text(application)

    def verify(
        self, signature: Buffer, data: Buffer, algorithm: str, *, policy: SecurityKeyPolicy | None = None
    ) -> Assertion | None:
        """Check that ``signature`` (``string name, string body``) is this key's over ``data``.

        Args:
            signature: The blob.
            data: What was signed.
            algorithm: The name that was negotiated or requested; the signature must be made with just this one.
            policy: What a security key has to have done; None: it has been touched.

        Returns:
            What a security key says besides: flags and counter; None of other keys.

        Raises:
            SignatureInvalid: For whatever reason; nothing else is raised.
        """
        return verify_signature(self._handle, self.type, signature, data, algorithm, policy)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.blob, self.comment)

    def __repr__(self) -> str:
        comment = f" {printable(self.comment)!r}" if self.comment else ""
        return f"<PublicKey {self.type} {self.fingerprint()}{comment}>"


def _one_line(comment: str) -> str:
    return _LINE_BREAKS.sub(" ", comment).strip()


def _pem_blob(block: pem.Block) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        with no_panic(block.label):
            return public_blob(load_pem_public_key(block.text))
    except UnsupportedAlgorithm as error:
        raise KeyFormatError(f"{block.label}: unsupported: {printable(str(error))}") from None
    except KeyFormatError:
        raise
    except ValueError as error:
        raise KeyFormatError(f"{block.label}: malformed: {printable(str(error))}") from None


def public_blob(handle: Any) -> bytes:
    """The blob of a public key of `cryptography`'s.

    Raises:
        KeyFormatError: SSH has no such keys.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if isinstance(handle, Ed25519PublicKey):
        return text("ssh-ed25519") + string(handle.public_bytes_raw())

    from cryptography.hazmat.primitives.asymmetric import ec, rsa  # slow to import, and most keys need neither
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if isinstance(handle, rsa.RSAPublicKey):
        numbers = handle.public_numbers()
        return text("ssh-rsa") + mpint(numbers.e) + mpint(numbers.n)
    if isinstance(handle, ec.EllipticCurvePublicKey):
        for name in ("nistp256", "nistp384", "nistp521"):
            if handle.curve.name == curve(name).name:
                point = handle.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
                return text(f"ecdsa-sha2-{name}") + text(name) + string(point)
        what = f"EC on the curve {handle.curve.name}"
    elif (blob := getattr(handle, "blob", None)) is not None:  # a composite's
        return bytes(blob)
    else:
        what = type(handle).__name__.removesuffix("PublicKey")
    have = "RSA, Ed25519, and EC on secp256r1, secp384r1 and secp521r1"
    raise KeyFormatError(f"unsupported key type {what}; supported are {have}")


def _restore(blob: bytes, comment: str) -> PublicKey:
    return PublicKey.from_blob(blob, comment, minimum_rsa_bits=LOWEST_RSA_BITS)


def fingerprint_of(blob: bytes, hash_name: str = "sha256") -> str:
    """The fingerprint of a key blob, of whatever type; see :meth:`PublicKey.fingerprint`.

    Raises:
        InvalidArgument: Another hash was named.
    """
    if hash_name == "sha256":
        return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii").rstrip("=")
    if hash_name == "md5":
        return "MD5:" + hashlib.md5(blob, usedforsecurity=False).digest().hex(":")
    raise InvalidArgument(f"a fingerprint is made with sha256 or md5, not with {hash_name!r}")
