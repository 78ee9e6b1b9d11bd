"""What data to be signed are, as far as they say it: an agent looks into them before it signs.

A login signs the session identifier and the whole SSH_MSG_USERAUTH_REQUEST (RFC 4252 section 7), and with
``publickey-hostbound-v00@openssh.com`` also the server's key (OpenSSH's PROTOCOL section 3.1).  Signatures over files
(SSHSIG) begin with a magic word and say what they are for.
"""

from __future__ import annotations

from sshproto.errors import WireError
from sshproto.keys.certificates import CERTIFICATE_ALGORITHMS
from sshproto.keys.public import MAXIMUM_BLOB
from sshproto.keys.signatures import SIGNATURES
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import Buffer, Reader

_USERAUTH_REQUEST = 50
_SERVICE = "ssh-connection"
_METHODS = {"publickey": False, "publickey-hostbound-v00@openssh.com": True}
_SSHSIG = b"SSHSIG"
_MAXIMUM_NAME = 1024

MAXIMUM_SESSION_ID = 256
"""Longest session identifier in bytes; they are hashes, of 64 at most."""


@frozen
class LoginRequest:
    """A login that is to be signed.

    Attributes:
        session_id: Of the SSH connection.
        user: Who is to be logged in.
        algorithm: The name under which the key is shown.
        key: The blob of the key, or of the certificate.
        host_key: The blob of the server's key, if the request is bound to it; else None.
    """

    session_id: bytes
    user: str
    algorithm: str
    key: bytes
    host_key: bytes | None


@frozen
class SignPurpose:
    """What something is signed for, to be shown to who confirms it.

    Attributes:
        login: A login, if it is one.
        namespace: What a signature over a file or a message is for, if it is one.
    """

    login: LoginRequest | None = None
    namespace: str | None = None

    def __str__(self) -> str:
        if self.login is not None:
            return f"a login as {printable(self.login.user)}"
        if self.namespace is not None:
            return f"a signature for {printable(self.namespace)!r}"
        return "something that says not what it is"


def parse_login(data: Buffer) -> LoginRequest:
    """Read what a login signs, all of it.

    Raises:
        WireError: It is something else.
    """
    reader = Reader(data, "login request")
    session_id = reader.string("session identifier", MAXIMUM_SESSION_ID)
    number = reader.byte("message")
    if number != _USERAUTH_REQUEST:
        raise reader.error("message", f"is {number}, not SSH_MSG_USERAUTH_REQUEST ({_USERAUTH_REQUEST})")
    user, service, method = reader.text("user", _MAXIMUM_NAME), reader.name("service"), reader.name("method")
    if service != _SERVICE:
        raise reader.error("service", f"is {printable(service, 64)!r}, not {_SERVICE!r}")
    bound = _METHODS.get(method)
    if bound is None:
        raise reader.error("method", f"is {printable(method, 64)!r}: {' and '.join(_METHODS)} sign")
    if reader.byte("has_signature") != 1:
        raise reader.error("has_signature", "says that there is to be none")
    algorithm, key = reader.name("algorithm"), reader.string("public key", MAXIMUM_BLOB)
    host_key = reader.string("server host key", MAXIMUM_BLOB) if bound else None
    reader.end()
    return LoginRequest(session_id, user, algorithm, key, host_key)


def fits(login: LoginRequest, key: bytes, key_type: str) -> bool:
    """Whether a login is by the key that is to sign it, under a name that is one of that key's.

    Args:
        login: What is to be signed.
        key: The blob of the key, or of the certificate, with which it is to be signed.
        key_type: The type that this names.
    """
    plain, certified = SIGNATURES.get(login.algorithm), CERTIFICATE_ALGORITHMS.get(login.algorithm)
    kind = plain.key_type if plain is not None else certified.type if certified is not None else ""
    return login.key == key and kind == key_type


def purpose_of(data: Buffer) -> SignPurpose:
    """What ``data`` are to be signed for, as far as they say it. Never raises."""
    try:
        return SignPurpose(login=parse_login(data))
    except WireError:
        pass
    if bytes(data[: len(_SSHSIG)]) == _SSHSIG:
        try:
            return SignPurpose(namespace=Reader(data, "SSHSIG", len(_SSHSIG)).text("namespace", _MAXIMUM_NAME))
        except WireError:
            pass
    return SignPurpose()
