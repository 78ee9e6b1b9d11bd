"""The messages of the agent protocol (RFC 9987 section 5): requests, replies, and which reply fits which request.

Requests that carry secrets show none of them, and are not pickled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import attrs

from sshproto.agent.constraints import NONE, Constraints
from sshproto.agent.framing import AgentMessageError
from sshproto.agent.signing import MAXIMUM_SESSION_ID
from sshproto.errors import InvalidArgument, KeyFormatError, WireError, discreet
from sshproto.keys.certificates import CERTIFICATE_ALGORITHMS, Certificate
from sshproto.keys.private import PrivateKey, read_half, read_private, write_private
from sshproto.keys.public import MAXIMUM_BLOB, MINIMUM_RSA_BITS
from sshproto.values import Unpicklable, frozen
from sshproto.wire.codec import Buffer, Reader, byte, string, text, uint32

RSA_SHA2_256 = 2
"""Flag of a request to sign with an RSA key: as ``rsa-sha2-256``."""
RSA_SHA2_512 = 4
"""Flag of a request to sign with an RSA key: as ``rsa-sha2-512``."""

QUERY = "query"
SESSION_BIND = "session-bind@openssh.com"

_MAXIMUM_NAME = 1024


# ------------------------------------------------------------------------------------------------------------- requests


@frozen
class RequestIdentities:
    """Which keys are there (SSH_AGENTC_REQUEST_IDENTITIES)?"""

    number: ClassVar[int] = 11

    def encode(self) -> bytes:
        """The message."""
        return byte(self.number)


@frozen
class SignRequest:
    """Sign something (SSH_AGENTC_SIGN_REQUEST).

    Attributes:
        key: The blob of the key, or of a certificate for it.
        data: What to sign.
        flags: :data:`RSA_SHA2_256` or :data:`RSA_SHA2_512` for an RSA key; others have no choice.
    """

    number: ClassVar[int] = 13

    key: bytes
    data: bytes = attrs.field(repr=False)
    flags: int = 0

    def encode(self) -> bytes:
        """The message."""
        return byte(self.number) + string(self.key) + string(self.data) + uint32(self.flags)


@frozen
class AddIdentity(Unpicklable):
    """Hold a key (SSH_AGENTC_ADD_IDENTITY, or SSH_AGENTC_ADD_ID_CONSTRAINED if there are constraints).

    Attributes:
        key: The key.
        certificate: To be used with it; None adds the plain key.
        comment: Words for people.
        constraints: What it may be used for.
    """

    number: ClassVar[int] = 17
    constrained: ClassVar[int] = 25

    key: PrivateKey
    certificate: Certificate | None = None
    comment: str = ""
    constraints: Constraints = NONE

    @discreet
    def encode(self) -> bytes:
        """The message.

        Raises:
            InvalidArgument: The certificate is another key's, or the constraints can't be sent.
        """
        constraints = self.constraints
        if constraints.certificates is not None:
            raise InvalidArgument("associated certificates are for the keys of tokens; give the certificate itself")
        if self.certificate is None:
            fields = write_private(self.key)
        else:
            if self.certificate.key != self.key.public_key:
                raise InvalidArgument(
                    f"the certificate is for the key {self.certificate.fingerprint()}, "
                    f"not for {self.key.public_key.fingerprint()}"
                )
            certificate = text(self.certificate.type) + string(self.certificate.blob)
            fields = certificate + write_private(self.key, half=True)
        number = self.constrained if constraints else self.number
        return byte(number) + fields + text(self.comment) + constraints.encode()


@frozen
class RemoveIdentity:
    """Forget a key (SSH_AGENTC_REMOVE_IDENTITY).

    Attributes:
        key: The blob of the key, or of the certificate.
    """

    number: ClassVar[int] = 18

    key: bytes

    def encode(self) -> bytes:
        """The message."""
        return byte(self.number) + string(self.key)


@frozen
class RemoveAllIdentities:
    """Forget all keys (SSH_AGENTC_REMOVE_ALL_IDENTITIES)."""

    number: ClassVar[int] = 19

    def encode(self) -> bytes:
        """The message."""
        return byte(self.number)


@frozen
class AddSmartcardKey(Unpicklable):
    """Hold the keys of a token (SSH_AGENTC_ADD_SMARTCARD_KEY, or ..._CONSTRAINED if there are constraints).

    Attributes:
        reader: Which token: the path of a PKCS#11 library, mostly.
        pin: What opens it.
        constraints: What its keys may be used for.
    """

    number: ClassVar[int] = 20
    constrained: ClassVar[int] = 26

    reader: str
    pin: bytes = attrs.field(repr=False)
    constraints: Constraints = NONE

    @discreet
    def encode(self) -> bytes:
        """The message."""
        number = self.constrained if self.constraints else self.number
        return byte(number) + text(self.reader) + string(self.pin) + self.constraints.encode()


@frozen
class RemoveSmartcardKey(Unpicklable):
    """Forget the keys of a token (SSH_AGENTC_REMOVE_SMARTCARD_KEY).

    Attributes:
        reader: Which token.
        pin: What opens it; agents do not look at it.
    """

    number: ClassVar[int] = 21

    reader: str
    pin: bytes = attrs.field(repr=False)

    @discreet
    def encode(self) -> bytes:
        """The message."""
        return byte(self.number) + text(self.reader) + string(self.pin)


@frozen
class Lock(Unpicklable):
    """Do nothing until unlocked (SSH_AGENTC_LOCK).

    Attributes:
        passphrase: What unlocks it.
    """

    number: ClassVar[int] = 22

    passphrase: bytes = attrs.field(repr=False)

    @discreet
    def encode(self) -> bytes:
        """The message."""
        return byte(self.number) + string(self.passphrase)


@frozen
class Unlock(Unpicklable):
    """Go on (SSH_AGENTC_UNLOCK).

    Attributes:
        passphrase: The one that it was locked with.
    """

    number: ClassVar[int] = 23

    passphrase: bytes = attrs.field(repr=False)

    @discreet
    def encode(self) -> bytes:
        """The message."""
        return byte(self.number) + string(self.passphrase)


@frozen
class Extension:
    """Something else (SSH_AGENTC_EXTENSION).

    Attributes:
        name: What.
        contents: The rest, whose form depends on that.
    """

    number: ClassVar[int] = 27

    name: str
    contents: bytes = attrs.field(default=b"", repr=False)

    def encode(self) -> bytes:
        """The message."""
        return byte(self.number) + text(self.name) + self.contents


Request = (
    RequestIdentities
    | SignRequest
    | AddIdentity
    | RemoveIdentity
    | RemoveAllIdentities
    | AddSmartcardKey
    | RemoveSmartcardKey
    | Lock
    | Unlock
    | Extension
)
"""What an agent may be asked."""


@frozen
class SessionBind:
    """The contents of ``session-bind@openssh.com``: this connection to the agent serves that SSH connection.

    Attributes:
        host_key: The blob of the server's key, or of its certificate, in the first key exchange.
        session_id: The hash of that exchange.
        signature: The server's, over it.
        forwarding: What comes from now on comes from that server, and not from who logs in there.
    """

    host_key: bytes
    session_id: bytes = attrs.field(repr=False)
    signature: bytes = attrs.field(repr=False)
    forwarding: bool = False

    def encode(self) -> bytes:
        """The contents."""
        return string(self.host_key) + string(self.session_id) + string(self.signature) + bytes((self.forwarding,))

    @classmethod
    def parse(cls, contents: Buffer) -> SessionBind:
        """Read the contents.

        Raises:
            WireError: They are malformed.
        """
        reader = Reader(contents, SESSION_BIND)
        bind = cls(
            reader.string("hostkey", MAXIMUM_BLOB),
            reader.string("session identifier", MAXIMUM_SESSION_ID),
            reader.string("signature", MAXIMUM_BLOB),
            reader.boolean("is_forwarding"),
        )
        reader.end()
        return bind


def _list(reader: Reader, minimum: int) -> RequestIdentities:
    return RequestIdentities()


def _remove_all(reader: Reader, minimum: int) -> RemoveAllIdentities:
    return RemoveAllIdentities()


def _add(reader: Reader, minimum: int) -> AddIdentity:
    start = reader.offset
    kind = reader.name("key type")
    certificate: Certificate | None = None
    if kind in CERTIFICATE_TYPES:
        certificate = Certificate.from_blob(reader.string("certificate"), minimum_rsa_bits=minimum)
        if certificate.type != kind:
            raise reader.error("certificate", f"is of type {certificate.type}, not {kind}", start)
        key = read_half(reader, certificate.key)
    else:
        reader.offset = start
        key = read_private(reader, minimum_rsa_bits=minimum)
    return AddIdentity(key, certificate, reader.text("comment"))


def _add_constrained(reader: Reader, minimum: int) -> AddIdentity:
    add = _add(reader, minimum)
    constraints = Constraints.read(reader)
    if constraints.certificates is not None:
        raise reader.error("constraint", "associated certificates are for the keys of tokens only")
    return AddIdentity(add.key, add.certificate, add.comment, constraints)


def _token(reader: Reader, minimum: int) -> AddSmartcardKey:
    return AddSmartcardKey(reader.text("reader id"), reader.string("PIN"))


def _token_constrained(reader: Reader, minimum: int) -> AddSmartcardKey:
    token = _token(reader, minimum)
    return AddSmartcardKey(token.reader, token.pin, Constraints.read(reader))


_REQUESTS: dict[int, tuple[str, Callable[[Reader, int], Request]]] = {
    RequestIdentities.number: ("SSH_AGENTC_REQUEST_IDENTITIES", _list),
    SignRequest.number: (
        "SSH_AGENTC_SIGN_REQUEST",
        lambda reader, _: SignRequest(reader.string("key blob"), reader.string("data"), reader.uint32("flags")),
    ),
    AddIdentity.number: ("SSH_AGENTC_ADD_IDENTITY", _add),
    RemoveIdentity.number: ("SSH_AGENTC_REMOVE_IDENTITY", lambda reader, _: RemoveIdentity(reader.string("key blob"))),
    RemoveAllIdentities.number: ("SSH_AGENTC_REMOVE_ALL_IDENTITIES", _remove_all),
    AddSmartcardKey.number: ("SSH_AGENTC_ADD_SMARTCARD_KEY", _token),
    RemoveSmartcardKey.number: (
        "SSH_AGENTC_REMOVE_SMARTCARD_KEY",
        lambda reader, _: RemoveSmartcardKey(reader.text("reader id"), reader.string("PIN")),
    ),
    Lock.number: ("SSH_AGENTC_LOCK", lambda reader, _: Lock(reader.string("passphrase"))),
    Unlock.number: ("SSH_AGENTC_UNLOCK", lambda reader, _: Unlock(reader.string("passphrase"))),
    AddIdentity.constrained: ("SSH_AGENTC_ADD_ID_CONSTRAINED", _add_constrained),
    AddSmartcardKey.constrained: ("SSH_AGENTC_ADD_SMARTCARD_KEY_CONSTRAINED", _token_constrained),
    Extension.number: (
        "SSH_AGENTC_EXTENSION",
        lambda reader, _: Extension(reader.text("extension type", _MAXIMUM_NAME), reader.rest()),
    ),
}
CERTIFICATE_TYPES = frozenset(algorithm.type for algorithm in CERTIFICATE_ALGORITHMS.values())


def request_name(number: int) -> str:
    """What RFC 9987 calls the request of a number."""
    known = _REQUESTS.get(number)
    return known[0] if known is not None else f"request {number}"


@discreet
def parse_request(payload: Buffer, *, minimum_rsa_bits: int = MINIMUM_RSA_BITS) -> Request:
    """Read a request.

    Args:
        payload: The message without its length.
        minimum_rsa_bits: Smallest RSA modulus to accept of keys to be held.

    Raises:
        AgentMessageError: It is malformed, unknown, or about a key that is no good.
    """
    if not payload:
        raise AgentMessageError("an agent request is empty")
    known = _REQUESTS.get(payload[0])
    if known is None:
        raise AgentMessageError(f"the agent request {payload[0]} is unknown")
    where, read = known
    reader = Reader(payload, where, 1)
    try:
        request = read(reader, minimum_rsa_bits)
        reader.end()
    except (WireError, KeyFormatError) as error:
        raise AgentMessageError(str(error)) from None
    return request
