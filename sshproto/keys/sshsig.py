"""Signatures over files and messages, detached: SSHSIG (OpenSSH's PROTOCOL.sshsig, ``ssh-keygen -Y``).

What is signed is not the message but its hash, with a namespace that says what the signature is for; so a key signs,
and an agent is shown, a few bytes only, and a message of any length is fed in pieces to a :class:`MessageHash`.

A signature holds the key that made it, or a certificate for that.  That it verifies says that the message is what the
key's owner has signed for the namespace, and nothing about who that is: see :mod:`sshproto.keys.allowed_signers`.

SHA-1 has no place here: RSA keys sign as ``rsa-sha2-512`` or ``rsa-sha2-256``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Self

from sshproto.config import UNATTENDED, SecurityKeyPolicy
from sshproto.errors import InvalidArgument, KeyFormatError, SignatureInvalid, WireError
from sshproto.keys.certificates import SOUND_ALGORITHMS, Certificate, signed_with
from sshproto.keys.grants import read_plain
from sshproto.keys.public import MINIMUM_RSA_BITS, PublicKey, blob_type, describe
from sshproto.keys.signatures import SIGNATURES
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import Buffer, Reader, string, text, uint32

if TYPE_CHECKING:
    from sshproto.keys.private import PrivateKey
    from sshproto.keys.security_keys import Assertion

MAGIC = b"SSHSIG"
VERSION = 1

HASHES = ("sha512", "sha256")
"""With what a message may be hashed; the first is what is used if nothing is said."""

BEGIN = "-----BEGIN SSH SIGNATURE-----"
END = "-----END SSH SIGNATURE-----"

MAXIMUM_FILE = 64 * 1024
"""Longest signature that is looked at, in bytes, with its armour if it has one."""

_LINE = 70  # characters of base64, as OpenSSH writes them
_SPACE = b" \t\r\n\v\f"


class MessageHash:
    """A message, of which only its hash is kept. It is fed in as many pieces as there are.

    Args:
        hash_name: ``"sha512"`` or ``"sha256"``.

    Attributes:
        name: The hash's name.

    Raises:
        InvalidArgument: Another hash was named.
    """

    __slots__ = ("_hash", "name")

    def __init__(self, hash_name: str = HASHES[0]) -> None:
        _check_hash(hash_name)
        self.name = hash_name
        self._hash = hashlib.new(hash_name)

    def update(self, data: Buffer) -> Self:
        """Take the next piece of the message; the result is the object itself."""
        self._hash.update(data)
        return self

    def digest(self) -> bytes:
        """The hash of what came so far."""
        return self._hash.digest()

    def __repr__(self) -> str:
        return f"<MessageHash {self.name} {self._hash.hexdigest()}>"


Message = Buffer | MessageHash
"""A message: all of it, or its hash."""


def _check_hash(name: str) -> None:
    if name not in HASHES:
        raise InvalidArgument(f"a message is hashed with {' or '.join(HASHES)}, not with {printable(name, 64)!r}")


def _check_namespace(namespace: str) -> None:
    if not namespace or "\0" in namespace:
        raise InvalidArgument(f"not a namespace: {namespace!r}; it is not empty and has no NUL in it")


def _hashed(message: Message, hash_name: str | None) -> MessageHash:
    """``message`` as its hash.

    Raises:
        InvalidArgument: There is no such hash, or it has been hashed with another one.
    """
    if not isinstance(message, MessageHash):
        return MessageHash(hash_name or HASHES[0]).update(message)
    if hash_name not in (None, message.name):
        _check_hash(str(hash_name))
        raise InvalidArgument(f"the message has been hashed with {message.name}, {hash_name} is needed")
    return message


def _data(namespace: str, reserved: bytes, hash_name: str, digest: bytes) -> bytes:
    """What the key signs."""
    return b"".join((MAGIC, text(namespace), string(reserved), text(hash_name), string(digest)))


def algorithms_of(key: PublicKey) -> tuple[str, ...]:
    """The algorithms with which signatures by ``key`` may be made, best first: all but those with SHA-1."""
    return tuple(name for name in key.signature_algorithms if SIGNATURES[name].hash != "sha1")


# ----------------------------------------------------------------------------------------------------------- signatures


@frozen(repr=False)
class FileSignature:
    """A signature. Made by :meth:`parse`, :func:`sign` and :meth:`SignatureRequest.finish`.

    One that has been parsed proves nothing before :meth:`verify` has returned.

    Attributes:
        signer: The key that it says it is made with, or a certificate for that.
        namespace: What it is for: ``"file"``, ``"email"``, or a name with an ``@`` and a domain.
        hash_name: With what the message was hashed.
        signature: The key's signature, ``string name, string body``.
        reserved: Bytes without a meaning; they are signed, too.
    """

    signer: PublicKey | Certificate
    namespace: str
    hash_name: str
    signature: bytes
    reserved: bytes = b""

    @classmethod
    def parse(cls, data: str | Buffer, *, minimum_rsa_bits: int = MINIMUM_RSA_BITS) -> Self:
        """Read a signature, the content of a ``.sig`` file: armoured, or the bytes themselves.

        Args:
            data: At most 64 KiB. What follows the armour's last line is not looked at.
            minimum_rsa_bits: Smallest RSA modulus to accept; 1024 at least.

        Raises:
            KeyFormatError: It is none (and what), malformed, of another version, or its key or certificate is no good.
        """
        if len(data) > MAXIMUM_FILE:
            raise KeyFormatError(f"not a signature: {len(data)} bytes; at most {MAXIMUM_FILE} are accepted")
        content = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else bytes(data)
        blob = content if content.startswith(MAGIC) else _unarmour(content)
        if not blob.startswith(MAGIC):
            raise KeyFormatError(f"not a signature: it starts with {blob[:6]!r}, expected {MAGIC!r}")
        reader = Reader(blob, "signature", len(MAGIC))
        try:
            version = reader.uint32("version")
            if version != VERSION:
                raise KeyFormatError(f"unsupported signature: it is of version {version}, there is {VERSION}")
            key = reader.string("public key")
            namespace = read_plain(reader, "namespace")
            reserved = reader.string("reserved")
            hash_name = reader.text("hash algorithm")
            signature = reader.string("signature")
            reader.end()
            signed_with(signature)
        except WireError as error:
            raise KeyFormatError(f"malformed {error}") from None
        except SignatureInvalid as error:
            raise KeyFormatError(f"malformed signature: {error}") from None
        if not namespace:
            raise KeyFormatError("malformed signature: its namespace is empty")
        if hash_name not in HASHES:
            raise KeyFormatError(
                f"unsupported signature: the message is hashed with {printable(hash_name, 64)}; "
                f"there are {' and '.join(HASHES)}"
            )
        return cls(_signer(key, minimum_rsa_bits), namespace, hash_name, signature, reserved)

    @property
    def key(self) -> PublicKey:
        """The key that it says it is made with; of a certificate the one that is certified."""
        return self.signer.key if isinstance(self.signer, Certificate) else self.signer

    @property
    def certificate(self) -> Certificate | None:
        """The certificate that it is made with; None if there is none."""
        return self.signer if isinstance(self.signer, Certificate) else None

    @property
    def algorithm(self) -> str:
        """The algorithm that the key says it has signed with."""
        return signed_with(self.signature)

    def hash(self) -> MessageHash:
        """What the message is to be fed to, for :meth:`verify`."""
        return MessageHash(self.hash_name)

    def verify(self, message: Message, namespace: str, *, policy: SecurityKeyPolicy | None = None) -> Assertion | None:
        """Check that it is a signature over ``message`` for ``namespace`` by the key that it holds.

        Whether that key is to be trusted is another question, which ``AllowedSigners.verify`` asks as well.

        Args:
            message: All of it, or what :meth:`hash` gave, after the message was fed to it.
            namespace: What the signature has to be for.
            policy: What a security key has to have done; None: it has been touched.

        Returns:
            What a security key says besides; None of other keys.

        Raises:
            SignatureInvalid: It is not.
            InvalidArgument: The message has been hashed with another hash.
        """
        digest = _hashed(message, self.hash_name).digest()
        if namespace != self.namespace:
            raise SignatureInvalid(
                f"the signature is for the namespace {printable(self.namespace, 64)!r}, "
                f"not for {printable(namespace, 64)!r}"
            )
        algorithm, possible = self.algorithm, algorithms_of(self.key)
        if algorithm not in possible:
            raise SignatureInvalid(
                f"the signature is made with {printable(algorithm, 64)}; "
                f"a {self.key.type} key signs files as {', '.join(possible)}"
            )
        data = _data(self.namespace, self.reserved, self.hash_name, digest)
        return self.key.verify(self.signature, data, algorithm, policy=policy)

    def encode(self) -> bytes:
        """The signature without armour."""
        parts = (self.signer.blob, self.namespace.encode("utf-8", "surrogateescape"), self.reserved)
        return b"".join((MAGIC, uint32(VERSION), *map(string, parts), text(self.hash_name), string(self.signature)))

    def armoured(self) -> str:
        """The content of a ``.sig`` file, with its line end."""
        word = base64.b64encode(self.encode()).decode("ascii")
        lines = [word[at : at + _LINE] for at in range(0, len(word), _LINE)]
        return "\n".join((BEGIN, *lines, END, ""))

    def __repr__(self) -> str:
        return (
            f"<FileSignature {printable(self.namespace, 64)!r} {self.hash_name} {self.signer.type} "
            f"{self.signer.fingerprint()}>"
        )


def _unarmour(content: bytes) -> bytes:
    """What is between the first line and the last.

    Raises:
        KeyFormatError: There is none of these, or what is between them is not base64.
    """
    expected = f"expected {BEGIN}, base64 and {END}"
    line, *rest = content.split(b"\n", 1)
    if line.removesuffix(b"\r") != BEGIN.encode() or not rest:
        what = describe(content.decode("utf-8", "surrogateescape"))
        if "SSHSIG" in what:
            what = "text before a signature, or one that is cut off"
        shown = f"this is {what}" if what else f"it starts with {content[:24]!r}"
        raise KeyFormatError(f"not a signature: {shown}; {expected}")
    body, found, _ = rest[0].partition(b"\n" + END.encode())
    if not found:
        raise KeyFormatError(f"malformed signature: its last line is missing; {expected}")
    try:
        return base64.b64decode(body.translate(None, _SPACE), validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeyFormatError(f"malformed signature: not base64 ({error})") from None


def _signer(blob: bytes, minimum: int) -> PublicKey | Certificate:
    if "-cert-v0" in blob_type(blob):
        return Certificate.from_blob(blob, minimum_rsa_bits=minimum, authority_algorithms=SOUND_ALGORITHMS)
    return PublicKey.from_blob(blob, minimum_rsa_bits=minimum)


# -------------------------------------------------------------------------------------------------------------- signing


@frozen
class SignatureRequest:
    """What somebody else is to sign, who holds the key: an agent, a token, another machine.

    Attributes:
        signer: The key, or a certificate for it.
        namespace: What the signature is for.
        hash_name: With what the message was hashed.
        digest: The message's hash.
        algorithm: The algorithm to sign with, a plain one even if there is a certificate.
    """

    signer: PublicKey | Certificate
    namespace: str
    hash_name: str
    digest: bytes
    algorithm: str

    @property
    def key(self) -> PublicKey:
        """The key; of a certificate the one that is certified."""
        return self.signer.key if isinstance(self.signer, Certificate) else self.signer

    @property
    def data(self) -> bytes:
        """The bytes to be signed."""
        return _data(self.namespace, b"", self.hash_name, self.digest)

    def finish(self, signature: Buffer) -> FileSignature:
        """The signature, with what the key's holder has made of :attr:`data`.

        Args:
            signature: ``string name, string body``, and of a security key what follows.

        Raises:
            SignatureInvalid: It is no signature by this key over the data, or one with SHA-1.
        """
        made = bytes(signature)
        algorithm = signed_with(made)
        if algorithm not in algorithms_of(self.key):
            raise SignatureInvalid(f"the signature is made with {printable(algorithm, 64)}, not with {self.algorithm}")
        self.key.verify(made, self.data, algorithm, policy=UNATTENDED)
        return FileSignature(self.signer, self.namespace, self.hash_name, made)


def request(
    signer: PublicKey | Certificate,
    message: Message,
    namespace: str,
    *,
    hash_name: str | None = None,
    algorithm: str | None = None,
) -> SignatureRequest:
    """What has to be signed for a signature over ``message``.

    Args:
        signer: The key that will sign, or a certificate for it.
        message: All of it, or its hash.
        namespace: What the signature is for; not empty.
        hash_name: ``"sha512"``, which is used if nothing is said, or ``"sha256"``.
        algorithm: To sign with; None takes for RSA the one with the message's hash, for other keys the best.

    Raises:
        InvalidArgument: There is no such hash, the key cannot sign with that algorithm, or something is no namespace.
    """
    _check_namespace(namespace)
    hashed = _hashed(message, hash_name)
    key = signer.key if isinstance(signer, Certificate) else signer
    possible = algorithms_of(key)
    if algorithm is None:
        same = [name for name in possible if key.type == "ssh-rsa" and SIGNATURES[name].hash == hashed.name]
        algorithm = (same or possible)[0]
    if algorithm not in possible:
        raise InvalidArgument(
            f"a {key.type} key cannot sign a message as {printable(algorithm)}; it can as {', '.join(possible)}"
        )
    return SignatureRequest(signer, namespace, hashed.name, hashed.digest(), algorithm)


def sign(
    key: PrivateKey,
    message: Message,
    namespace: str,
    *,
    hash_name: str | None = None,
    algorithm: str | None = None,
    certificate: Certificate | None = None,
) -> FileSignature:
    """Sign a message.

    Args:
        key: Signs.
        message: All of it, or its hash.
        namespace: What the signature is for; not empty.
        hash_name: ``"sha512"``, which is used if nothing is said, or ``"sha256"``.
        algorithm: To sign with; None takes for RSA the one with the message's hash, for other keys the best.
        certificate: To stand in the signature in place of the key that it is for.

    Raises:
        InvalidArgument: There is no such hash, the key cannot sign with that algorithm, something is no namespace, or
            the certificate is for another key.
        SignatureInvalid: The signature just made does not verify: memory or processor are faulty.
    """
    if certificate is not None and certificate.key != key.public_key:
        raise InvalidArgument(
            f"the certificate is for the key {certificate.fingerprint()}, not for {key.public_key.fingerprint()}"
        )
    asked = request(certificate or key.public_key, message, namespace, hash_name=hash_name, algorithm=algorithm)
    return FileSignature(asked.signer, namespace, asked.hash_name, key.sign(asked.data, asked.algorithm))
