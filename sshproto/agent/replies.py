"""What an agent answers (RFC 9987 section 5), which reply fits which request, and how a client asks for signatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from sshproto.agent.framing import AgentMessageError, AgentRefused, ExtensionUnsupported
from sshproto.agent.messages import (
    CERTIFICATE_TYPES,
    RSA_SHA2_256,
    RSA_SHA2_512,
    AddIdentity,
    AddSmartcardKey,
    Extension,
    Lock,
    RemoveAllIdentities,
    RemoveIdentity,
    RemoveSmartcardKey,
    Request,
    RequestIdentities,
    SignRequest,
    Unlock,
    request_name,
)
from sshproto.errors import InvalidArgument, KeyFormatError, SignatureInvalid, WireError
from sshproto.keys.certificates import CERTIFICATE_ALGORITHMS, Certificate, signed_with
from sshproto.keys.public import MINIMUM_RSA_BITS, PublicKey, blob_type, fingerprint_of
from sshproto.keys.signatures import signature_algorithms
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import Buffer, Reader, byte, string, text, uint32

FAILURE = 5
SUCCESS = 6
IDENTITIES_ANSWER = 12
SIGN_RESPONSE = 14
EXTENSION_FAILURE = 28
EXTENSION_RESPONSE = 29

MAXIMUM_IDENTITIES = 2048
"""Most keys that an agent may list, as in OpenSSH."""

_FLAGS = {"rsa-sha2-512": RSA_SHA2_512, "rsa-sha2-256": RSA_SHA2_256}
_MAXIMUM_NAME = 1024


@frozen
class Identity:
    """A key that an agent holds, as it lists it.

    Attributes:
        blob: The public key, or the certificate; of whatever type, and not looked into.
        comment: The agent's words about it, unverified; show them through :func:`sshproto.text.printable`.
    """

    blob: bytes = attrs.field(repr=fingerprint_of)
    comment: str = attrs.field(default="", eq=False, repr=printable)

    @property
    def type(self) -> str:
        """The type that the blob names; ``""`` if it names none."""
        try:
            return blob_type(self.blob)
        except KeyFormatError:
            return ""

    def load(self, *, minimum_rsa_bits: int = MINIMUM_RSA_BITS) -> PublicKey | Certificate:
        """The key, or the certificate, checked.

        Raises:
            KeyFormatError: It is malformed, too weak, or of a type that is not supported here.
        """
        made = Certificate if self.type in CERTIFICATE_TYPES else PublicKey
        return made.from_blob(self.blob, self.comment, minimum_rsa_bits=minimum_rsa_bits)

    def fingerprint(self, hash_name: str = "sha256") -> str:
        """The fingerprint: of a certificate that of the key in it; of what can't be read, that of the blob.

        Raises:
            InvalidArgument: Another hash than ``"sha256"`` or ``"md5"`` was named.
        """
        try:
            return self.load(minimum_rsa_bits=1024).fingerprint(hash_name)
        except KeyFormatError:
            return fingerprint_of(self.blob, hash_name)


def encode_identities(identities: tuple[Identity, ...]) -> bytes:
    """The reply that lists keys."""
    listed = b"".join(string(each.blob) + text(each.comment) for each in identities)
    return byte(IDENTITIES_ANSWER) + uint32(len(identities)) + listed


def encode_signature(signature: bytes) -> bytes:
    """The reply that has a signature."""
    return byte(SIGN_RESPONSE) + string(signature)


def encode_extension(name: str, contents: bytes) -> bytes:
    """The reply to an extension that has something to say."""
    return byte(EXTENSION_RESPONSE) + text(name) + contents


def _identities(reader: Reader, request: Any) -> tuple[Identity, ...]:
    count = reader.uint32("nkeys")
    if count > MAXIMUM_IDENTITIES:
        raise reader.error("nkeys", f"is {count}, at most {MAXIMUM_IDENTITIES} are accepted")
    return tuple(Identity(reader.string("key blob"), reader.text("comment")) for _ in range(count))


def _signature(reader: Reader, request: Any) -> bytes:
    return reader.string("signature")


def _nothing(reader: Reader, request: Any) -> None:
    return None


def _said(reader: Reader, request: Extension) -> bytes:
    name = reader.text("extension type", _MAXIMUM_NAME)
    if name != request.name:
        raise reader.error("extension type", f"is {printable(name, 64)!r}, not {request.name!r}")
    return reader.rest()


def _said_before(reader: Reader, request: Extension) -> bytes:
    """Before there was a reply of its own, extensions had what they say behind SSH_AGENT_SUCCESS."""
    return reader.rest()


_REPLIES: dict[type, dict[int, Callable[[Reader, Any], Any]]] = {
    RequestIdentities: {IDENTITIES_ANSWER: _identities},
    SignRequest: {SIGN_RESPONSE: _signature},
    Extension: {SUCCESS: _said_before, EXTENSION_RESPONSE: _said},
}


def parse_reply(payload: Buffer, request: Request) -> Any:
    """Read the reply to ``request``.

    Args:
        payload: The message without its length.
        request: What it is a reply to.

    Returns:
        Of :class:`RequestIdentities` a tuple of :class:`Identity`; of :class:`SignRequest` the signature; of
        :class:`Extension` what it says, ``b""`` mostly; else None.

    Raises:
        AgentRefused: The agent will not.
        ExtensionUnsupported: It does not know the extension.
        AgentMessageError: The reply is malformed, or no reply to this request.
    """
    asked = request_name(request.number)
    if not payload:
        raise AgentMessageError(f"the agent's reply to {asked} is empty")
    number = payload[0]
    reader = Reader(payload, f"agent's reply to {asked}", 1)
    read = _REPLIES.get(type(request), {SUCCESS: _nothing}).get(number)
    if read is not None:
        try:
            value = read(reader, request)
            reader.end()
        except WireError as error:
            raise AgentMessageError(str(error)) from None
        return value
    if isinstance(request, Extension) and number == FAILURE:
        raise ExtensionUnsupported(f"the agent does not know the extension {printable(request.name, 64)}")
    if number == FAILURE or (isinstance(request, Extension) and number == EXTENSION_FAILURE):
        raise AgentRefused(f"the agent refused {_REFUSALS[type(request)]}")
    raise AgentMessageError(f"the agent answered {asked} with message {number}, which is no answer to that")


_REFUSALS = {
    RequestIdentities: "to list its keys",
    SignRequest: "to sign",
    AddIdentity: "to take the key",
    RemoveIdentity: "to remove the key: perhaps it has none such",
    RemoveAllIdentities: "to remove its keys",
    AddSmartcardKey: "to take the keys of the token",
    RemoveSmartcardKey: "to remove the keys of the token",
    Lock: "to be locked: perhaps it is",
    Unlock: "to be unlocked: the passphrase is another, or it is not locked",
    Extension: "what an extension asked for",
}


def parse_query(contents: bytes) -> tuple[str, ...]:
    """The names of the extensions that an agent knows, out of its reply to :data:`QUERY`.

    Raises:
        AgentMessageError: They are malformed.
    """
    reader = Reader(contents, "agent's extensions")
    names: list[str] = []
    try:
        while reader.remaining:
            names.append(reader.text("extension type", _MAXIMUM_NAME))
    except WireError as error:
        raise AgentMessageError(str(error)) from None
    return tuple(names)


# ------------------------------------------------------------------------------------------------------ what to sign as


def plain_algorithm(algorithm: str) -> str:
    """The signature algorithm behind a name, which may be a certificate's."""
    certified = CERTIFICATE_ALGORITHMS.get(algorithm)
    return algorithm if certified is None else certified.signature


def sign_request(
    key: Identity | PublicKey | Certificate | bytes, data: bytes, algorithm: str | None = None
) -> tuple[SignRequest, str]:
    """What to ask an agent for a signature, and the algorithm that it has to be made with.

    Args:
        key: Whose.
        data: What to sign.
        algorithm: Its name, or that of a certificate; None takes the best for the key.

    Raises:
        InvalidArgument: Such a key can't sign so.
    """
    blob = key if isinstance(key, bytes) else key.blob
    try:
        kind = blob_type(blob)
    except KeyFormatError as error:
        raise InvalidArgument(str(error)) from None
    plain = next((each.key_type for each in CERTIFICATE_ALGORITHMS.values() if each.type == kind), kind)
    possible = signature_algorithms(plain)
    name = plain_algorithm(algorithm) if algorithm is not None else possible[0] if possible else kind
    if possible and name not in possible:
        raise InvalidArgument(f"a {plain} key cannot sign as {printable(name)}; it can as {', '.join(possible)}")
    return SignRequest(blob, data, _FLAGS.get(name, 0)), name


def check_signature(signature: bytes, algorithm: str) -> None:
    """See that an agent's signature is of the kind that was asked for.

    Raises:
        AgentRefused: It is of another: agents that do not know a flag pass it over.
        AgentMessageError: It is no signature.
    """
    try:
        name = signed_with(signature)
    except SignatureInvalid as error:
        raise AgentMessageError(f"the agent's signature is none: {error}") from None
    if name != algorithm:
        raise AgentRefused(
            f"the agent signed as {printable(name, 64)}, though {printable(algorithm, 64)} was asked for"
        )
