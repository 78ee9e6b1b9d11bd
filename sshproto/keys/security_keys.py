"""Signatures of security keys (FIDO tokens), verified: OpenSSH's PROTOCOL.u2f.

A token does not sign what it is given.  It signs a hash of that, together with the application that the key was made
for, flags that say whether somebody touched it and whether it knows who, and a counter.  A browser (``webauthn-...``)
has it sign the hash of a JSON text of its own making in which the data stand as the challenge.

Private halves never leave their token, so there is nothing here that signs.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from sshproto.config import SecurityKeyPolicy
from sshproto.errors import SignatureInvalid, WireError
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import Buffer, Reader, byte, uint32

USER_PRESENT = 0x01
USER_VERIFIED = 0x04
_ATTESTED = 0x40
_EXTENDED = 0x80

WEBAUTHN = "webauthn-sk-ecdsa-sha2-nistp256@openssh.com"

DEFAULT_POLICY = SecurityKeyPolicy()


@frozen
class SecurityKey:
    """The public half of a key in a token.

    Attributes:
        key: `cryptography`'s key.
        application: What it was made for, ``b"ssh:"`` mostly; of a browser the domain.
    """

    key: Any
    application: bytes


@frozen
class Assertion:
    """What a token says besides its signature, which covers it.

    Attributes:
        flags: As they came.
        counter: How many signatures the token has made, by this key or by all; 0 from tokens that do not count. Should
            it ever be less than before, there is a copy of the token.
        origin: Of ``webauthn`` signatures, the site that had it sign; else ``""``. Show it through
            :func:`sshproto.text.printable`.
    """

    flags: int
    counter: int
    origin: str = ""

    @property
    def user_present(self) -> bool:
        """Whether somebody touched the token for this signature."""
        return bool(self.flags & USER_PRESENT)

    @property
    def user_verified(self) -> bool:
        """Whether the token has found out who that was, by a PIN or a fingerprint."""
        return bool(self.flags & USER_VERIFIED)


def read(reader: Reader, algorithm: str, application: bytes, data: Buffer) -> tuple[Assertion, bytes]:
    """What follows the inner signature, and the bytes that the token has signed.

    Raises:
        SignatureInvalid: It cannot be a signature over ``data``.
    """
    try:
        flags, counter = reader.byte("flags"), reader.uint32("counter")
        origin, client_data, extensions = b"", b"", b""
        if algorithm == WEBAUTHN:
            origin = reader.string("origin")
            client_data, extensions = reader.string("clientData"), reader.string("extensions")
        reader.end()
    except WireError as error:
        raise SignatureInvalid(f"not a signature of a security key: {error}") from None
    message: Buffer = data
    if algorithm == WEBAUTHN:
        _check_client_data(flags, origin, client_data, extensions, bytes(data))
        message = client_data
    signed = hashlib.sha256(application).digest() + byte(flags) + uint32(counter) + extensions
    return Assertion(flags, counter, origin.decode("utf-8", "surrogateescape")), signed + hashlib.sha256(
        message
    ).digest()


def _check_client_data(flags: int, origin: bytes, client_data: bytes, extensions: bytes, data: bytes) -> None:
    """Check that a browser's text is about ``data`` and was made at ``origin``.

    Browsers write it without choice, in this order and without spaces, for those who do not parse JSON (Web
    Authentication level 2, section 5.8.1.1); what follows the origin does not matter.
    """
    if b'"' in origin or b"\0" in origin:
        raise SignatureInvalid(f"webauthn: {printable(origin)!r} is no origin")
    if flags & _ATTESTED or bool(flags & _EXTENDED) != bool(extensions):
        raise SignatureInvalid(f"webauthn: flags {flags:02x} do not fit {len(extensions)} bytes of extensions")
    challenge = base64.urlsafe_b64encode(data).rstrip(b"=")
    start = b'{"type":"webauthn.get","challenge":"' + challenge + b'","origin":"' + origin + b'"'
    if not client_data.startswith(start):
        raise SignatureInvalid("webauthn: what the browser had signed is not about this, or from another origin")


def check(assertion: Assertion, policy: SecurityKeyPolicy | None) -> None:
    """Check that a valid signature shows what is asked of it; None asks for the default.

    Raises:
        SignatureInvalid: It does not.
    """
    policy = policy or DEFAULT_POLICY
    if policy.user_presence and not assertion.user_present:
        raise SignatureInvalid("the security key signed without being touched (user presence is required)")
    if policy.user_verification and not assertion.user_verified:
        raise SignatureInvalid("the security key signed without a PIN or the like (user verification is required)")
