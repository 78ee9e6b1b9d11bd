"""Private keys: made, read from files, written to files, and signing.

Reads OpenSSH's own format (:mod:`sshproto.keys.openssh`), PEM (:mod:`sshproto.keys.pem`) and PuTTY's
(:mod:`sshproto.keys.ppk`); writes OpenSSH's and PKCS#8.

Invariants: the private part never shows in ``repr``, in an exception or in a pickle; public and private part belong
together, whatever the file says; and no signature leaves before it has been verified, since a single RSA-CRT signature
spoilt by a fault of the hardware gives the key away (Ryan et al., 2023).
"""

from __future__ import annotations

import hmac
from typing import Any, NoReturn, Self

from sshproto.config import Entropy, system_entropy
from sshproto.errors import InvalidArgument, KeyFormatError, SignatureInvalid, WireError, discreet
from sshproto.keys import openssh, pem, ppk, signatures
from sshproto.keys.private_fields import COMPOSITE, FIELDS, HALVES, PPK, mismatch, write_fields
from sshproto.keys.public import (
    KEY_TYPES,
    MAXIMUM_RSA_BITS,
    MINIMUM_RSA_BITS,
    PublicKey,
    curve,
    decode_text,
    describe,
    no_panic,
    public_blob,
    unsupported_type,
)
from sshproto.text import printable
from sshproto.wire.codec import Buffer, Reader, mpint, string, text

MAXIMUM_FILE = 64 * 1024
"""Longest private key file that is looked at, in bytes."""

DEFAULT_RSA_BITS = 3072


class PassphraseNeeded(KeyFormatError):
    """The key is encrypted and no passphrase was given.

    Attributes:
        public_key: The public half, where the file shows it without the passphrase (OpenSSH's format and PuTTY's),
            else None.
    """

    def __init__(self, problem: str, public_key: PublicKey | None = None) -> None:
        super().__init__(problem)
        self.public_key = public_key


class PassphraseWrong(KeyFormatError):
    """The passphrase does not open the key (or the encrypted part of the file is damaged)."""


class PrivateKey:
    """A private key. Made by :meth:`load` and :meth:`generate`; immutable.

    Attributes:
        public_key: The public half, with the comment.
    """

    __slots__ = ("_handle", "public_key")

    public_key: PublicKey
    _handle: Any

    def __init__(self, handle: Any, public_key: PublicKey) -> None:
        """For this module: ``handle`` is `cryptography`'s key, ``public_key`` its public half."""
        object.__setattr__(self, "_handle", handle)
        object.__setattr__(self, "public_key", public_key)

    # ----------------------------------------------------------------------------------------------------------- making

    @classmethod
    def generate(cls, type: str = "ssh-ed25519", bits: int | None = None, comment: str = "") -> Self:
        """Make a new key.

        Args:
            type: A key type: ``"ssh-ed25519"``, ``"ecdsa-sha2-nistp256"`` (384, 521) or ``"ssh-rsa"``; experimental is
                ``"ssh-mldsa44-ed25519@openssh.com"``.
            bits: Size of the modulus for ``"ssh-rsa"``, 2048 to 16384, 3072 by default; nothing else has a choice.
            comment: To go with the key.

        Raises:
            InvalidArgument: There is no such type or size.
            KeyFormatError: The backend has no such keys.
        """
        if type not in FIELDS:
            raise InvalidArgument(f"a key of type {type!r} cannot be made; there are {', '.join(FIELDS)}")
        if bits is not None and type != "ssh-rsa":
            raise InvalidArgument(f"a {type} key has one size only, {bits} bits were asked for")
        handle: Any
        if type == "ssh-rsa":
            from cryptography.hazmat.primitives.asymmetric import rsa

            size = DEFAULT_RSA_BITS if bits is None else bits
            if not MINIMUM_RSA_BITS <= size <= MAXIMUM_RSA_BITS:
                raise InvalidArgument(f"an RSA key has {MINIMUM_RSA_BITS} to {MAXIMUM_RSA_BITS} bits, not {size}")
            handle = rsa.generate_private_key(65537, size)
        elif type == "ssh-ed25519":
            from cryptography.hazmat.primitives.asymmetric import ed25519

            handle = ed25519.Ed25519PrivateKey.generate()
        elif type == COMPOSITE:
            from sshproto.keys.composite import CompositePrivateKey

            handle = CompositePrivateKey.generate()
        else:
            from cryptography.hazmat.primitives.asymmetric import ec

            handle = ec.generate_private_key(curve(type.removeprefix("ecdsa-sha2-")))
        return cls(handle, PublicKey.from_blob(public_blob(handle.public_key()), comment))

    @classmethod
    @discreet
    def load(
        cls,
        data: bytes | str,
        passphrase: bytes | None = None,
        comment: str | None = None,
        *,
        minimum_rsa_bits: int = MINIMUM_RSA_BITS,
    ) -> Self:
        """Read the content of a private key file.

        Args:
            data: The content: OpenSSH's format, PEM with PKCS#1, SEC 1 or PKCS#8 inside, or PuTTY's, version 2 or 3.
            passphrase: To decrypt it with; not used if the key is not encrypted.
            comment: Takes the place of the comment in the file.
            minimum_rsa_bits: Smallest RSA modulus to accept; 1024 at least.

        Raises:
            PassphraseNeeded: It is encrypted and there is no passphrase (None or empty).
            PassphraseWrong: The passphrase does not fit.
            KeyFormatError: It is something else (and what), malformed, of a type that is not supported, or too weak.
        """
        if isinstance(passphrase, str):
            raise InvalidArgument("the passphrase has to be bytes, a str was given; encode it, as UTF-8 most likely")
        if len(data) > MAXIMUM_FILE:
            raise KeyFormatError(f"not a private key: {len(data)} bytes; at most {MAXIMUM_FILE} are accepted")
        content = decode_text(data)
        if ppk.is_ppk(content):
            with no_panic("PuTTY private key"):
                handle, key = _load_ppk(ppk.read(content), passphrase, minimum_rsa_bits)
        elif openssh.BEGIN in content:
            with no_panic("OpenSSH private key"):
                handle, key = _load_openssh(openssh.read(content), passphrase, minimum_rsa_bits)
        elif (block := pem.find(content)) is not None:
            with no_panic(block.label):
                handle, key = _load_pem(block, passphrase, minimum_rsa_bits)
        else:
            raise _not_private(content, data)
        if comment is not None:
            key = PublicKey.from_blob(key.blob, comment, minimum_rsa_bits=minimum_rsa_bits)
        return cls(handle, key)

    # ------------------------------------------------------------------------------------------------------------ using

    @property
    def comment(self) -> str:
        """The comment, unverified words out of a file."""
        return self.public_key.comment

    def sign(self, data: Buffer, algorithm: str | None = None) -> bytes:
        """Sign ``data``.

        Args:
            data: What to sign.
            algorithm: One of ``public_key.signature_algorithms``; None takes the best, the first.

        Returns:
            The signature blob, ``string name, string body``.

        Raises:
            InvalidArgument: The key cannot sign with that algorithm.
            SignatureInvalid: The signature just made does not verify: memory or processor are faulty.
        """
        possible = self.public_key.signature_algorithms
        name = possible[0] if algorithm is None else algorithm
        if name not in possible:
            raise InvalidArgument(
                f"a {self.public_key.type} key cannot sign as {printable(name)}; it can as {', '.join(possible)}"
            )
        signature = signatures.pack(name, signatures.sign_body(signatures.SIGNATURES[name], self._handle, data))
        try:
            self.public_key.verify(signature, data, name)
            return signature
        except SignatureInvalid:
            del signature  # a traceback keeps the variables of its frames
        raise SignatureInvalid(
            f"the {name} signature just made with {self.public_key.fingerprint()} does not verify and is withheld: "
            "memory or processor are faulty"
        )

    @discreet
    def openssh(
        self,
        passphrase: bytes | None = None,
        *,
        rounds: int = openssh.WRITE_ROUNDS,
        cipher: str = openssh.WRITE_CIPHER,
        entropy: Entropy = system_entropy,
    ) -> bytes:
        """The content of a private key file in OpenSSH's format.

        Args:
            passphrase: To encrypt it with; None writes it in the clear.
            rounds: Of bcrypt: how costly each guess of the passphrase is, 1 to 2048.
            cipher: One of :data:`sshproto.keys.openssh.CIPHERS`.
            entropy: Source of the salt.

        Raises:
            InvalidArgument: The passphrase is empty, the rounds are out of range, or there is no such cipher.
        """
        _check_passphrase(passphrase)
        if cipher not in openssh.CIPHERS:
            have = ", ".join(openssh.CIPHERS)
            raise InvalidArgument(f"there is no cipher {printable(cipher)!r} for private keys; there are {have}")
        if not 1 <= rounds <= openssh.MAXIMUM_ROUNDS:
            raise InvalidArgument(f"1 to {openssh.MAXIMUM_ROUNDS} rounds of bcrypt can be done, not {rounds}")
        return openssh.write(
            self.public_key.blob,
            write_fields(self.public_key, self._handle),
            self.public_key.comment,
            passphrase,
            entropy(4, "key file check"),
            b"" if passphrase is None else entropy(openssh.SALT_SIZE, "key file salt"),
            rounds,
            cipher,
        )

    @discreet
    def pkcs8(
        self,
        passphrase: bytes | None = None,
        *,
        iterations: int = pem.WRITE_ITERATIONS,
        entropy: Entropy = system_entropy,
    ) -> bytes:
        """The content of a private key file in PKCS#8 (RFC 5958), in PEM. It has no place for the comment.

        Args:
            passphrase: To encrypt it with; None writes it in the clear.
            iterations: Of PBKDF2: how costly each guess of the passphrase is, 1 to 10,000,000.
            entropy: Source of salt and IV.

        Raises:
            InvalidArgument: The passphrase is empty, or the iterations are out of range.
        """
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        _check_passphrase(passphrase)
        if not 1 <= iterations <= pem.MAXIMUM_ITERATIONS:
            raise InvalidArgument(f"1 to {pem.MAXIMUM_ITERATIONS} iterations can be done, not {iterations}")
        if self.public_key.type == COMPOSITE:
            raise InvalidArgument(f"a {COMPOSITE} key has no form in PKCS#8")
        der: bytes = self._handle.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        if passphrase is None:
            return pem.armour("PRIVATE KEY", der)
        salt, iv = entropy(pem.SALT_SIZE, "key file salt"), entropy(pem.IV_SIZE, "key file IV")
        return pem.encrypt(der, passphrase, salt, iv, iterations)

    # ----------------------------------------------------------------------------------------------- keeping it private

    def __repr__(self) -> str:
        return f"<PrivateKey {self.public_key.type} {self.public_key.fingerprint()}>"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a PrivateKey is immutable, {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a PrivateKey is immutable, {name} cannot be deleted")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a PrivateKey is not pickled or copied; write it with openssh(passphrase)")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


def _check_passphrase(passphrase: bytes | None) -> None:
    if isinstance(passphrase, str):
        raise InvalidArgument("the passphrase has to be bytes, a str was given; encode it, as UTF-8 most likely")
    if passphrase is not None and not passphrase:
        raise InvalidArgument("an empty passphrase protects nothing; None writes the key unencrypted")


# --------------------------------------------------------------------------------------------------- for key agents


def write_private(key: PrivateKey, *, half: bool = False) -> bytes:
    """A private key as the agent protocol writes it (RFC 9987 section 5.2), from its type on, without the comment.

    Args:
        key: The key.
        half: Without its type and the fields that stand in a certificate for it, which goes before.
    """
    fields = write_fields(key.public_key, key._handle)
    if not half:
        return fields
    reader = Reader(fields, "private key")
    for _ in range({"ssh-ed25519": 1, COMPOSITE: 2}.get(key.public_key.type, 3)):
        reader.string()
    return reader.rest()


def read_private(reader: Reader, *, minimum_rsa_bits: int = MINIMUM_RSA_BITS) -> PrivateKey:
    """Read what :func:`write_private` writes; what follows it is left in ``reader``.

    Raises:
        KeyFormatError: It is of a type that is not supported, too weak, or its parts do not belong together.
        WireError: It is malformed.
    """
    kind = reader.name("type")
    if kind not in KEY_TYPES:
        raise unsupported_type(kind)
    if kind not in FIELDS:
        raise KeyFormatError(f"the private half of a {kind} key is in a security token, which is out of reach here")
    start = reader.offset
    if kind == "ssh-rsa":
        n, e = reader.mpint("n"), reader.mpint("e")
        blob = text(kind) + mpint(e) + mpint(n)
    elif kind in ("ssh-ed25519", COMPOSITE):
        blob = text(kind) + string(reader.string("public"))
    else:
        blob = text(kind) + string(reader.string("curve")) + string(reader.string("Q"))
    public = PublicKey.from_blob(blob, minimum_rsa_bits=minimum_rsa_bits)
    reader.offset = start
    with no_panic(f"{kind} private key"):
        return _whole(FIELDS[kind](reader, public, minimum_rsa_bits), public)


def read_half(reader: Reader, public: PublicKey) -> PrivateKey:
    """Read what :func:`write_private` writes of the half that is in no certificate.

    Args:
        reader: Where it stands; what follows it is left there.
        public: The key that is certified.

    Raises:
        KeyFormatError: It is not the private half of ``public``.
        WireError: It is malformed.
    """
    read = HALVES.get(public.type)
    if read is None:
        raise KeyFormatError(f"the private half of a {public.type} key is in a security token, out of reach here")
    with no_panic(f"{public.type} private key"):
        return _whole(read(reader, public), public)


def _whole(handle: Any, public: PublicKey) -> PrivateKey:
    if not hmac.compare_digest(public_blob(handle.public_key()), public.blob):
        raise mismatch(public.type, "private key")
    return PrivateKey(handle, public)


# -------------------------------------------------------------------------------------------------------- reading files


def _not_private(content: str, data: bytes | str) -> KeyFormatError:
    what = describe(content)
    words = content.split(None, 2)
    if (
        not what
        and words
        and (words[0] in KEY_TYPES or "-cert-v0" in words[0] or words[0].startswith(("ssh-dss", "sk-")))
    ):
        what = "a certificate" if "-cert-v0" in words[0] else "a public key"
        what += "; the private key most likely is in the file of the same name without .pub"
    elif not what and content.startswith("0"):
        what = "perhaps DER; convert it to PEM"
    what = f"this is {what}" if what else f"it starts with {printable(content[:24])!r}"
    expected = (
        "expected an OpenSSH private key, a PEM file (RSA, EC, ENCRYPTED or plain PRIVATE KEY) or a PuTTY private key"
    )
    return KeyFormatError(f"not a private key: {what}; {expected}")


def _load_openssh(container: openssh.Container, passphrase: bytes | None, minimum: int) -> tuple[Any, PublicKey]:
    public = PublicKey.from_blob(container.public_blob, minimum_rsa_bits=minimum)
    if public.type not in FIELDS:
        raise KeyFormatError(
            f"OpenSSH private key: the private half of the {public.type} key {public.fingerprint()} is in a security "
            "token, for which the file has a handle only; what signs with it is an agent"
        )
    reader = Reader(_open(openssh, container, passphrase, public), "OpenSSH private key")
    try:
        kind = reader.name("type")
        if kind not in KEY_TYPES:
            raise unsupported_type(kind)
        if kind != public.type:
            raise KeyFormatError(f"OpenSSH private key: a private {kind} key with a public {public.type} key")
        handle = FIELDS[kind](reader, public, minimum)
        comment = reader.text("comment")
        openssh.check_padding(reader)
    except WireError as error:
        raise KeyFormatError(f"malformed {error}") from None
    if not hmac.compare_digest(public_blob(handle.public_key()), public.blob):
        raise mismatch(kind)
    return handle, PublicKey.from_blob(public.blob, comment, minimum_rsa_bits=minimum)


def _load_ppk(container: ppk.Container, passphrase: bytes | None, minimum: int) -> tuple[Any, PublicKey]:
    what = "PuTTY private key"
    public = PublicKey.from_blob(container.public_blob, container.comment, minimum_rsa_bits=minimum)
    if public.type not in PPK:
        raise KeyFormatError(f"{what}: the private half of a {public.type} key is in no file of PuTTY's")
    if container.type != public.type:
        raise KeyFormatError(f"{what}: it says {printable(container.type)}, the public key in it is {public.type}")
    reader = Reader(_open(ppk, container, passphrase, public), what)
    try:
        handle = PPK[public.type](reader, public)
        ppk.check_padding(reader.rest(), container.encrypted)
    except WireError as error:
        raise KeyFormatError(f"malformed {error}") from None
    if not hmac.compare_digest(public_blob(handle.public_key()), public.blob):
        raise mismatch(public.type, what)
    return handle, public


def _open(form: Any, container: Any, passphrase: bytes | None, public: PublicKey) -> bytes:
    """The decrypted private part of a container of ``form``, the module that reads such."""
    which = f"the {public.type} private key {public.fingerprint()}"
    if container.encrypted and not passphrase:
        raise PassphraseNeeded(f"{which} is encrypted ({container.cipher}) and no passphrase was given", public)
    plain: bytes | None = form.open_private(container, passphrase or b"")
    if plain is None:
        raise PassphraseWrong(f"the passphrase does not open {which} ({container.cipher})")
    return plain


def _load_pem(block: pem.Block, passphrase: bytes | None, minimum: int) -> tuple[Any, PublicKey]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if block.encrypted and not passphrase:
        raise PassphraseNeeded(f"the key ({block.label}) is encrypted and no passphrase was given")
    try:
        handle: Any = load_pem_private_key(block.text, passphrase if block.encrypted else None)
    except UnsupportedAlgorithm as error:
        raise KeyFormatError(f"{block.label}: unsupported: {printable(str(error))}") from None
    except (ValueError, TypeError) as error:
        if block.encrypted:
            raise PassphraseWrong(
                f"the passphrase does not open the key ({block.label}), or the file is damaged"
            ) from None
        raise KeyFormatError(f"{block.label}: malformed: {printable(str(error))}") from None
    return handle, PublicKey.from_blob(public_blob(handle.public_key()), minimum_rsa_bits=minimum)
