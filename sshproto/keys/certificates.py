"""OpenSSH's certificates: read, checked, issued (OpenSSH's PROTOCOL.certkeys).

A certificate is a public key with what an authority says of it: whom it stands for, when, and with what permissions;
all signed by the authority's key.  Two questions are asked of one, by two calls:

* Is it one? :meth:`Certificate.from_blob` and :meth:`Certificate.parse` read all of it and verify the signature. The
  signing key is a plain key, never a certificate; options are in order and unique; SHA-1 is no signature of ours.
* Is it good here and now? :meth:`Certificate.check` holds it against what the caller trusts and expects. A restriction
  that nobody enforces refuses, and so does an empty list of principals, which once meant anybody.

Where PROTOCOL.certkeys and OpenSSH disagree, the stricter of the two is followed.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import attrs

from sshproto.config import Entropy, system_entropy
from sshproto.errors import InvalidArgument, KeyFormatError, SignatureInvalid, WireError
from sshproto.keys.grants import CertificateGrant, CertificateKind, grant, read_plain
from sshproto.keys.issuing import MAXIMUM_PRINCIPALS, Signer, to_be_signed
from sshproto.keys.public import (
    KEY_TYPES,
    LOWEST_RSA_BITS,
    MAXIMUM_BLOB,
    MINIMUM_RSA_BITS,
    PublicKey,
    blob_type,
    decode_base64,
    decode_text,
    describe,
    split_words,
)
from sshproto.keys.signatures import SIGNATURES
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import Buffer, Reader, string, text

if TYPE_CHECKING:
    from sshproto.config import SecurityKeyPolicy
    from sshproto.keys.krl import KRL
    from sshproto.keys.security_keys import Assertion

SOUND_ALGORITHMS = tuple(
    each for each, algorithm in SIGNATURES.items() if algorithm.hash != "sha1" and not each.startswith("webauthn-")
)
"""The algorithms with which an authority can sign: all but SHA-1 and what a browser has signed."""

AUTHORITY_ALGORITHMS = tuple(each for each in SOUND_ALGORITHMS if each != "ssh-mldsa44-ed25519@openssh.com")
"""The algorithms with which an authority may have signed, unless the caller says otherwise; as OpenSSH has them."""


@frozen
class CertificateAlgorithm:
    """A name under which a certificate is shown and its key signs, in key exchange and login.

    Attributes:
        name: The name: in KEXINIT, and in the "public key algorithm name" of a login.
        type: The type of the certificates, the name inside the blob.
        key_type: The type of the key that is certified.
        signature: The plain algorithm that signs, the name inside the signature.
    """

    name: str
    type: str
    key_type: str
    signature: str


CERTIFICATE_ALGORITHMS: dict[str, CertificateAlgorithm] = {
    each: CertificateAlgorithm(each, kind, key_type, signature)
    for each, kind, key_type, signature in (
        ("ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519", "ssh-ed25519"),
        *(
            (f"{plain}-cert-v01@openssh.com", f"{plain}-cert-v01@openssh.com", plain, plain)
            for plain in ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
        ),
        *(
            (
                f"{plain}-cert-v01@openssh.com",
                f"{plain}-cert-v01@openssh.com",
                f"{plain}@openssh.com",
                f"{plain}@openssh.com",
            )
            for plain in ("sk-ssh-ed25519", "sk-ecdsa-sha2-nistp256")
        ),
        (
            "webauthn-sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
            "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
            "sk-ecdsa-sha2-nistp256@openssh.com",
            "webauthn-sk-ecdsa-sha2-nistp256@openssh.com",
        ),
        *(
            (f"{signature}-cert-v01@openssh.com", "ssh-rsa-cert-v01@openssh.com", "ssh-rsa", signature)
            for signature in ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")
        ),
        (
            "ssh-mldsa44-ed25519-cert-v01@openssh.com",
            "ssh-mldsa44-ed25519-cert-v01@openssh.com",
            "ssh-mldsa44-ed25519@openssh.com",
            "ssh-mldsa44-ed25519@openssh.com",
        ),
    )
}
"""Every certificate algorithm by name; of those for one certificate type the best stands first."""

_STRINGS = {
    "ssh-ed25519": 1,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
    "ssh-rsa": 2,
    "ssh-mldsa44-ed25519@openssh.com": 1,
}
"""Of how many strings (an mpint is one, too) a key consists, by its type: all that differs between certificates."""

_KEY_TYPES = {algorithm.type: algorithm.key_type for algorithm in CERTIFICATE_ALGORITHMS.values()}
_CERTIFICATE_TYPES = {key_type: kind for kind, key_type in _KEY_TYPES.items()}


@functools.cache
def certificate_algorithms(certificate_type: str) -> tuple[str, ...]:
    """The names under which certificates of a type are shown, best first; none for a type that is unknown."""
    return tuple(each for each, algorithm in CERTIFICATE_ALGORITHMS.items() if algorithm.type == certificate_type)


# -------------------------------------------------------------------------------------------------------------- reading


def _principals(data: bytes) -> tuple[str, ...]:
    reader = Reader(data, "certificate principals")
    found: list[str] = []
    while reader.remaining:
        if len(found) == MAXIMUM_PRINCIPALS:
            raise reader.error("", f"more than {MAXIMUM_PRINCIPALS} principals")
        found.append(read_plain(reader, "principal"))
        if not found[-1]:
            raise reader.error("principal", "is empty")
    return tuple(found)


def _options(data: bytes, what: str) -> Mapping[str, bytes]:
    """The options, which have to be in order, each once (PROTOCOL.certkeys, "Critical options")."""
    reader = Reader(data, f"certificate {what}")
    found: dict[str, bytes] = {}
    last = ""
    while reader.remaining:
        start = reader.offset
        option = reader.name("name")
        if option <= last:  # also if it is empty
            problem = "stands there twice" if option in found else f"follows {printable(last, 64)!r}"
            raise reader.error("", f"{printable(option, 64)!r} {problem}: names are in order, each once", start)
        found[option] = reader.string(printable(option, 64))
        last = option
    return MappingProxyType(found)


@frozen(repr=False)
class Certificate:
    """A certificate whose signature has been verified. Made by :meth:`from_blob`, :meth:`parse` and :meth:`issue`.

    That it is one says nothing about whether it is to be trusted: see :meth:`check`. Two are equal when their blobs
    are; the comment does not count.

    Attributes:
        type: ``"ssh-ed25519-cert-v01@openssh.com"`` and so on.
        blob: The certificate as it travels.
        comment: Words that came with it, unverified; show them through :func:`sshproto.text.printable`.
        key: The key that is certified.
        nonce: What makes the authority's signature unpredictable.
        serial: The authority's number for it; 0 if the authority does not count.
        kind: Whom it is for, a :class:`CertificateKind`.
        key_id: The authority's words about whom it is for, to be logged.
        principals: The names for which it is good: of users, or of hosts with wildcards.
        valid_after: From this second since 1970 on it is good.
        valid_before: And from this one on no longer; :data:`FOREVER` for no end.
        critical_options: The data of each option by its name.
        extensions: The data of each extension by its name.
        authority: The key that has signed it.
        signature: The signature, ``string name, string body``.
    """

    type: str = attrs.field(eq=False)
    blob: bytes
    comment: str = attrs.field(eq=False)
    key: PublicKey = attrs.field(eq=False)
    nonce: bytes = attrs.field(eq=False)
    serial: int = attrs.field(eq=False)
    kind: CertificateKind = attrs.field(eq=False)
    key_id: str = attrs.field(eq=False)
    principals: tuple[str, ...] = attrs.field(eq=False)
    valid_after: int = attrs.field(eq=False)
    valid_before: int = attrs.field(eq=False)
    critical_options: Mapping[str, bytes] = attrs.field(eq=False)
    extensions: Mapping[str, bytes] = attrs.field(eq=False)
    authority: PublicKey = attrs.field(eq=False)
    signature: bytes = attrs.field(eq=False)

    @classmethod
    def from_blob(
        cls,
        blob: Buffer,
        comment: str = "",
        *,
        minimum_rsa_bits: int = MINIMUM_RSA_BITS,
        authority_algorithms: Collection[str] | None = None,
    ) -> Self:
        """Read the blob of a certificate, all of it, and verify its signature.

        Args:
            blob: The bytes.
            comment: To go with it.
            minimum_rsa_bits: Smallest RSA modulus to accept, of the key and of the authority's; 1024 at least.
            authority_algorithms: The signature algorithms that an authority may have used; None stands for
                :data:`AUTHORITY_ALGORITHMS`, which is all but SHA-1, what a browser has signed, and
                what is experimental.

        Raises:
            KeyFormatError: It is malformed, of a type that is not supported, its key or its authority's is no good, or
                the signature does not verify.
        """
        kind = blob_type(blob)
        key_type = _KEY_TYPES.get(kind)
        if key_type is None:
            raise _unsupported(kind)
        data = bytes(blob)
        reader = Reader(data, f"{kind} certificate")
        try:
            values = _read(reader, key_type, minimum_rsa_bits)
            signed = data[: reader.offset]
            signature = reader.string("signature")
            reader.end()
        except WireError as error:
            raise KeyFormatError(f"malformed certificate: {error}") from None
        accepted = AUTHORITY_ALGORITHMS if authority_algorithms is None else authority_algorithms
        _verify(values["authority"], signature, signed, accepted)
        return cls(type=kind, blob=data, comment=comment, signature=signature, **values)

    @classmethod
    def parse(
        cls,
        line: str | bytes,
        *,
        minimum_rsa_bits: int = MINIMUM_RSA_BITS,
        authority_algorithms: Collection[str] | None = None,
    ) -> Self:
        """Read the one-line form ``type base64 [comment]``, the content of an ``id_*-cert.pub`` file.

        Empty lines and lines starting with ``#`` around it are skipped.

        Raises:
            KeyFormatError: It is something else (and what), or :meth:`from_blob` refuses it.
        """
        kind, word, comment = _one_line(decode_text(line))
        if kind not in _KEY_TYPES:
            raise _unsupported(kind)
        blob = decode_base64(word, f"{kind} certificate")
        inner = blob_type(blob)
        if inner != kind:
            raise KeyFormatError(
                f"the line says {printable(kind)}, the certificate in it is of type {printable(inner)}"
            )
        return cls.from_blob(
            blob, comment, minimum_rsa_bits=minimum_rsa_bits, authority_algorithms=authority_algorithms
        )

    # ------------------------------------------------------------------------------------------------------------ using

    @property
    def signature_algorithms(self) -> tuple[str, ...]:
        """The names under which the certificate can be shown, best first: ``rsa-sha2-512-cert-v01@openssh.com``."""
        return certificate_algorithms(self.type)

    @property
    def authority_algorithm(self) -> str:
        """The algorithm with which the authority signed."""
        return signed_with(self.signature)

    def fingerprint(self, hash_name: str = "sha256") -> str:
        """The fingerprint of the key that is certified, as OpenSSH shows it for a certificate.

        Raises:
            InvalidArgument: Another hash was named.
        """
        return self.key.fingerprint(hash_name)

    def openssh(self) -> str:
        """The one-line form ``type base64 [comment]``, without a line end. Line breaks in the comment become spaces."""
        line = f"{self.type} {base64.b64encode(self.blob).decode('ascii')}"
        comment = " ".join(self.comment.replace("\0", " ").splitlines()).strip()
        return f"{line} {comment}" if comment else line

    def verify(
        self, signature: Buffer, data: Buffer, algorithm: str, *, policy: SecurityKeyPolicy | None = None
    ) -> Assertion | None:
        """Check that ``signature`` is one over ``data`` by the key that is certified.

        Args:
            signature: The blob, ``string name, string body``; the name in it is the plain algorithm's.
            data: What was signed.
            algorithm: The certificate algorithm that was negotiated or requested.
            policy: What a security key has to have done; None: it has been touched. See ``CertificateGrant.policy``.

        Returns:
            What a security key says besides: flags and counter; None of other keys.

        Raises:
            SignatureInvalid: For whatever reason; nothing else is raised.
        """
        known = CERTIFICATE_ALGORITHMS.get(algorithm)
        if known is None or known.type != self.type:
            have = ", ".join(self.signature_algorithms)
            raise SignatureInvalid(f"a certificate of type {self.type} is shown as {have}, not {printable(algorithm)}")
        return self.key.verify(signature, data, known.signature, policy=policy)

    # --------------------------------------------------------------------------------------------------------- checking

    def check(
        self,
        kind: CertificateKind,
        names: str | Iterable[str],
        *,
        authorities: Collection[PublicKey],
        now: float,
        address: str | None = None,
        enforced: Collection[str] = (),
        revoked: KRL | None = None,
    ) -> CertificateGrant:
        """Whether the certificate is good for this purpose, and what it permits.

        That whoever shows it holds its key is for :meth:`verify` to find out.

        Args:
            kind: ``USER`` for a login, ``HOST`` for a server.
            names: The name that has to be among the principals; of several, one of them. For a host the name that the
                user asked for, of either case, without the port; the principals may have wildcards ``*`` and ``?``. For
                a user letter for letter.
            authorities: The keys of those who may have issued it.
            now: Seconds since 1970.
            address: The client's address, for ``source-address``; without it a certificate with that is refused.
            enforced: The critical options that the caller is going to enforce, if the grant says so:
                ``"force-command"`` and ``"verify-required"``. A certificate with one that is not enforced is refused.
            revoked: What has been revoked: keys, certificates, authorities.

        Raises:
            CertificateRefused: It is not good, and why.
        """
        return grant(self, kind, names, authorities, now, address, enforced, revoked)

    # ---------------------------------------------------------------------------------------------------------- issuing

    @classmethod
    def issue(
        cls,
        authority: Signer,
        key: PublicKey,
        kind: CertificateKind,
        *,
        key_id: str,
        principals: Iterable[str],
        valid_before: int,
        valid_after: int = 0,
        serial: int = 0,
        critical_options: Mapping[str, str] | None = None,
        extensions: Mapping[str, str] | None = None,
        algorithm: str | None = None,
        entropy: Entropy = system_entropy,
    ) -> Self:
        """Certify a key.

        Args:
            authority: Signs: a :class:`~sshproto.keys.private.PrivateKey`, or what has one sign elsewhere.
            key: Is certified; its comment becomes the certificate's.
            kind: Whom it is for.
            key_id: Words for the logs of those who accept it.
            principals: The users, or the hosts with wildcards, that it is good for; at least one.
            valid_before: From this second since 1970 on it is no longer good; :data:`FOREVER` for no end.
            valid_after: From when on it is good.
            serial: A number, by which it can be revoked; 0 for none.
            critical_options: Values by name, ``""`` for a flag: ``{"force-command": "ls"}``. Names that are not
                OpenSSH's have an ``@`` and a domain.
            extensions: The same for extensions. None gives a user all of :data:`PERMISSIONS`, and a host nothing.
            algorithm: To sign with; None takes the authority's best.
            entropy: Source of the nonce.

        Raises:
            InvalidArgument: Something does not fit a certificate, or one that OpenSSH would refuse would come of it.
            KeyFormatError: What signs elsewhere has signed something else.
        """
        possible = [each for each in authority.public_key.signature_algorithms if each in SOUND_ALGORITHMS]
        if algorithm is not None and algorithm not in possible:
            raise InvalidArgument(
                f"an authority with a {authority.public_key.type} key signs certificates as {', '.join(possible)}, "
                f"not as {printable(algorithm)}"
            )
        certificate_type = _CERTIFICATE_TYPES.get(key.type)
        if certificate_type is None:
            raise InvalidArgument(f"a key of type {key.type} cannot be certified")
        signed = to_be_signed(
            certificate_type,
            authority.public_key,
            key,
            kind,
            key_id,
            principals,
            valid_after,
            valid_before,
            serial,
            critical_options,
            extensions,
            entropy,
        )
        blob = signed + string(authority.sign(signed, algorithm or possible[0]))
        if len(blob) > MAXIMUM_BLOB:
            raise InvalidArgument(f"a certificate of {len(blob)} bytes is too long: {MAXIMUM_BLOB} are accepted")
        return cls.from_blob(blob, key.comment, minimum_rsa_bits=LOWEST_RSA_BITS, authority_algorithms=SOUND_ALGORITHMS)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.blob, self.comment)

    def __repr__(self) -> str:
        return (
            f"<Certificate {self.type} {self.kind.name.lower()} {printable(self.key_id, 64)!r} serial {self.serial} "
            f"{self.fingerprint()} signed by {self.authority.fingerprint()}>"
        )


def certified_key(blob: Buffer, *, minimum_rsa_bits: int = MINIMUM_RSA_BITS) -> PublicKey:
    """The key that a certificate is for, and nothing but that: the rest is not read, let alone verified.

    It is for who watches others, and so must not stop at what is wrong with a certificate.

    Raises:
        KeyFormatError: There is none, or it is malformed.
    """
    kind = blob_type(blob)
    key_type = _KEY_TYPES.get(kind)
    if key_type is None:
        raise _unsupported(kind)
    reader = Reader(blob, f"{kind} certificate")
    try:
        reader.string("type")
        reader.string("nonce")
        key = _key_blob(reader, key_type)
    except WireError as error:
        raise KeyFormatError(f"malformed certificate: {error}") from None
    return PublicKey.from_blob(key, minimum_rsa_bits=minimum_rsa_bits)


def _key_blob(reader: Reader, key_type: str) -> bytes:
    return text(key_type) + b"".join(string(reader.string("key")) for _ in range(_STRINGS[key_type]))


def _restore(blob: bytes, comment: str) -> Certificate:
    return Certificate.from_blob(
        blob, comment, minimum_rsa_bits=LOWEST_RSA_BITS, authority_algorithms=tuple(SIGNATURES)
    )


def _unsupported(kind: str) -> KeyFormatError:
    """The error for a certificate of type ``kind``, which may be none at all."""
    have = ", ".join(_KEY_TYPES)
    if kind in KEY_TYPES:
        return KeyFormatError(f"not a certificate: this is a plain key of type {kind}; certificates are of type {have}")
    return KeyFormatError(f"unsupported certificate type {printable(kind)}; supported are {have}")


def _one_line(content: str) -> tuple[str, str, str]:
    """The type, the base64 and the comment of the only line of ``content``."""
    expected = "expected one line 'type base64 comment'"
    what = describe(content)
    if what:
        raise KeyFormatError(f"not a certificate: this is {what}; {expected}")
    lines = [words for words in map(split_words, content.split("\n")) if words and not words[0].startswith("#")]
    if len(lines) != 1 or len(lines[0]) < 2:
        came = f"{len(lines)} lines" if len(lines) != 1 else f"one word, {printable(lines[0][0], 40)!r},"
        raise KeyFormatError(f"not a certificate: {came} came; {expected}")
    kind, word, *comment = lines[0]
    return kind, word, "".join(comment)


def _read(reader: Reader, key_type: str, minimum: int) -> dict[str, Any]:
    """The fields up to the signature, checked, by the names of :class:`Certificate`."""
    reader.string("type")
    nonce = reader.string("nonce")
    if not nonce:
        raise reader.error("nonce", "is empty")
    key = _key_blob(reader, key_type)
    serial, number, key_id = reader.uint64("serial"), reader.uint32("type"), read_plain(reader, "key id")
    principals = _principals(reader.string("valid principals"))
    valid_after, valid_before = reader.uint64("valid after"), reader.uint64("valid before")
    options = _options(reader.string("critical options"), "critical options")
    extensions = _options(reader.string("extensions"), "extensions")
    reader.string("reserved")
    authority = reader.string("signature key")
    kinds = {kind.value: kind for kind in CertificateKind}
    if number not in kinds:
        raise KeyFormatError(f"malformed certificate: it is for kind {number}; 1 is for users, 2 for hosts")
    if blob_type(authority) in _KEY_TYPES:
        raise KeyFormatError("malformed certificate: its signing key is itself a certificate; there are no chains")
    return {
        "nonce": nonce,
        "key": PublicKey.from_blob(key, minimum_rsa_bits=minimum),
        "serial": serial,
        "kind": kinds[number],
        "key_id": key_id,
        "principals": principals,
        "valid_after": valid_after,
        "valid_before": valid_before,
        "critical_options": options,
        "extensions": extensions,
        "authority": PublicKey.from_blob(authority, minimum_rsa_bits=minimum),
    }


def signed_with(signature: bytes) -> str:
    """The algorithm that a signature blob names.

    Raises:
        SignatureInvalid: It is no signature blob.
    """
    try:
        return Reader(signature, "signature").name("algorithm")
    except WireError as error:
        raise SignatureInvalid(f"not a signature blob: {error}") from None


def _verify(authority: PublicKey, signature: bytes, signed: bytes, algorithms: Collection[str]) -> None:
    """Check the authority's signature.

    Raises:
        KeyFormatError: It does not verify, or is made with an algorithm that is not among ``algorithms``.
    """
    try:
        algorithm = signed_with(signature)
        if algorithm not in algorithms:
            have = ", ".join(algorithms)
            raise KeyFormatError(f"the certificate is signed with {printable(algorithm, 64)}; accepted are {have}")
        authority.verify(signature, signed, algorithm)
    except SignatureInvalid as error:
        raise KeyFormatError(f"the certificate's signature is no good: {error}") from None
