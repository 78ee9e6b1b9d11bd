"""What the login methods put into SSH_MSG_USERAUTH_REQUEST, and what a public-key login signs.

One class a form: ``none`` (RFC 4252 section 5.2), ``publickey`` as a query and signed (section 7), the same bound to
the server's host key (OpenSSH PROTOCOL section 3.1, ``publickey-hostbound-v00@openssh.com``), ``password`` plain and
with a replacement (RFC 4252 section 8), ``keyboard-interactive`` (RFC 4256 section 3.1).  Two forms of one method
differ by the boolean that comes first; it is part of the class, not a field, so that a query can never be taken for a
proof.

A certificate stands in place of the key, under the name of a certificate algorithm (OpenSSH's PROTOCOL.certkeys); what
signs is the key that is certified, under the plain algorithm.

Secrets are fields without ``repr``.  The checks on text that both roles need stand here, too.
"""

# No "from __future__ import annotations" here: the annotations are the wire types themselves.

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import attrs

from sshproto.errors import InvalidArgument
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire import codec
from sshproto.wire.codec import Buffer, Name, Reader, String, Struct, Text
from sshproto.wire.messages import UserauthRequest

if TYPE_CHECKING:
    from sshproto.keys.certificates import Certificate
    from sshproto.keys.public import PublicKey

SERVICE = "ssh-connection"
"""The only service that a login can be for (RFC 4254)."""

NONE = "none"
PUBLIC_KEY = "publickey"
HOST_BOUND = "publickey-hostbound-v00@openssh.com"
"""``publickey`` in all but the form of its request: that is how lists of methods and applications know it."""
PASSWORD = "password"
KEYBOARD_INTERACTIVE = "keyboard-interactive"


# ---------------------------------------------------------------------------------------------------------------- forms


@frozen
class Form(Struct):
    """The method-specific fields of a USERAUTH_REQUEST.

    Attributes:
        method: The method's name.
        flag: The boolean that comes first, where the method has one.
    """

    method: ClassVar[str]
    flag: ClassVar[bool | None] = None

    @classmethod
    def prefix(cls) -> bytes:
        return b"" if cls.flag is None else codec.boolean(cls.flag)

    @classmethod
    def read_prefix(cls, reader: Reader) -> None:
        found = reader.boolean("flag")
        if found is not cls.flag:
            raise reader.error("flag", f"is {found}, expected {cls.flag}", 0)


@frozen
class NoneForm(Form):
    """``none``: nothing."""

    method = NONE


@frozen
class PublicKeyQuery(Form):
    """``publickey`` with FALSE: would this key do?"""

    method = PUBLIC_KEY
    flag = False
    algorithm: Name
    key: String


@frozen
class PublicKeySigned(Form):
    """``publickey`` with TRUE: the proof, a signature over :func:`signed_data`."""

    method = PUBLIC_KEY
    flag = True
    algorithm: Name
    key: String
    signature: String = attrs.field(repr=False)


@frozen
class HostBoundQuery(Form):
    """:class:`PublicKeyQuery`, with the server's host key as it came in the first key exchange."""

    method = HOST_BOUND
    flag = False
    algorithm: Name
    key: String
    host_key: String


@frozen
class HostBoundSigned(Form):
    """:class:`PublicKeySigned`, with the server's host key, which the signature covers."""

    method = HOST_BOUND
    flag = True
    algorithm: Name
    key: String
    host_key: String
    signature: String = attrs.field(repr=False)


KeyQuery = PublicKeyQuery | HostBoundQuery
KeySigned = PublicKeySigned | HostBoundSigned


@frozen
class Password(Form):
    """``password`` with FALSE."""

    method = PASSWORD
    flag = False
    password: Text = attrs.field(repr=False)


@frozen
class PasswordChange(Form):
    """``password`` with TRUE: the old password and its replacement."""

    method = PASSWORD
    flag = True
    old: Text = attrs.field(repr=False)
    new: Text = attrs.field(repr=False)


@frozen
class KeyboardInteractive(Form):
    """``keyboard-interactive``: a deprecated language tag, and hints at what the user would like to be asked."""

    method = KEYBOARD_INTERACTIVE
    language: Text = ""
    submethods: Text = ""


FORMS: dict[str, tuple[type[Form], ...]] = {
    NONE: (NoneForm,),
    PUBLIC_KEY: (PublicKeyQuery, PublicKeySigned),
    HOST_BOUND: (HostBoundQuery, HostBoundSigned),
    PASSWORD: (Password, PasswordChange),
    KEYBOARD_INTERACTIVE: (KeyboardInteractive,),
}
"""The forms of each method; where there are two, the first is the one that starts with FALSE."""


def listed(method: str) -> str:
    """The name under which a method stands in lists of methods."""
    return PUBLIC_KEY if method == HOST_BOUND else method


def parse(method: str, payload: Buffer) -> Form | None:
    """Decode the method-specific part of a request, all of it.

    Returns:
        The form, or None for a method that is not implemented; its payload is then unknown territory.

    Raises:
        WireError: A field is malformed or missing, or bytes are left over.
    """
    forms = FORMS.get(method)
    if forms is None:
        return None
    # All non-zero values are TRUE; a missing boolean is the first form's WireError.
    return forms[-1 if bytes(payload[:1]) not in (b"", b"\0") else 0].parse(payload)


def request(user: str, form: Form) -> UserauthRequest:
    """The USERAUTH_REQUEST that carries ``form``.

    Raises:
        InvalidArgument: A value cannot be sent.
    """
    return UserauthRequest(user, SERVICE, form.method, form.encode())


def signed_data(
    session_id: bytes, user: str, service: str, algorithm: str, blob: bytes, host_key: bytes | None = None
) -> bytes:
    """What the signature of a public-key login is over (RFC 4252 section 7).

    Args:
        session_id: The exchange hash of the first key exchange.
        user, service: As in the request.
        algorithm: The algorithm's name, as in the request.
        blob: The public key or the certificate, as in the request.
        host_key: The server's, as in a host-bound request; None for a plain one.
    """
    return b"".join(
        (
            codec.string(session_id),
            _REQUEST,
            codec.text(user),
            _SERVICE if service == SERVICE else codec.name(service),
            _PLAIN if host_key is None else _BOUND,
            _name(algorithm),
            codec.string(blob),
            b"" if host_key is None else codec.string(host_key),
        )
    )


# What all signed data have in common, encoded.
_REQUEST = codec.byte(UserauthRequest.number)
_SERVICE = codec.name(SERVICE)
_PLAIN = codec.name(PUBLIC_KEY) + codec.boolean(True)
_BOUND = codec.name(HOST_BOUND) + codec.boolean(True)
_name = lru_cache(64)(codec.name)


def key_query(algorithm: str, blob: bytes, host_key: bytes | None) -> KeyQuery:
    """The query for a key: bound to the host key, if there is one."""
    return PublicKeyQuery(algorithm, blob) if host_key is None else HostBoundQuery(algorithm, blob, host_key)


def key_signed(algorithm: str, blob: bytes, host_key: bytes | None, signature: bytes) -> KeySigned:
    """The proof of a key: bound to the host key, if there is one."""
    if host_key is None:
        return PublicKeySigned(algorithm, blob, signature)
    return HostBoundSigned(algorithm, blob, host_key, signature)


def bound_to(form: KeyQuery | KeySigned) -> bytes | None:
    """The host key that a request is bound to; None of a plain one."""
    return form.host_key if isinstance(form, HostBoundQuery | HostBoundSigned) else None


def choose_algorithm(key: "PublicKey", willing: Iterable[str], accepted: Iterable[str] | None) -> str:
    """The algorithm to sign a login with.

    Args:
        key: Whose signature.
        willing: What this side wants to use, best first (``Preferences.signature``).
        accepted: What the server said that it takes (``server-sig-algs``, RFC 8308 section 3.1); None if it said
            nothing.  It is asked only where a key has a choice, as OpenSSH does: its releases 7.2 to 7.4 name nothing
            but rsa-sha2-256 and rsa-sha2-512 there, and take all other keys without naming them.

    Raises:
        InvalidArgument: Nothing fits.
    """
    willing, can = tuple(willing), key.signature_algorithms
    fits = [name for name in willing if name in can]
    if not fits:
        raise InvalidArgument(f"a key of type {key.type} can sign with {', '.join(can)}, none of which is allowed: "
                              f"Preferences.signature has {', '.join(willing)}")  # fmt: skip
    if accepted is None or len(can) == 1:
        return fits[0]
    accepted = tuple(accepted)
    for name in fits:
        if name in accepted:
            return name
    theirs = printable(", ".join(accepted), 1024) or "nothing"
    raise InvalidArgument(f"a key of type {key.type} would sign with {', '.join(fits)}; the server takes {theirs}")


def shown_as(certificate: "Certificate", signature: str) -> str:
    """The name of the algorithm under which a certificate is shown whose key signs as ``signature``."""
    from sshproto.keys.certificates import CERTIFICATE_ALGORITHMS

    fits = [each for each in certificate.signature_algorithms if CERTIFICATE_ALGORITHMS[each].signature == signature]
    if not fits:
        raise InvalidArgument(f"a certificate of type {certificate.type} is not shown by a signature of {signature!r}")
    return fits[0]


# ----------------------------------------------------------------------------------------------------------------- text

_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def is_utf8(text: str) -> bool:
    """Whether ``text`` is all characters: decoding leaves bytes that are not UTF-8 as surrogates."""
    return _SURROGATE.search(text) is None


def is_plain(text: str, limit: int) -> bool:
    """Whether ``text`` is UTF-8 without control characters and at most ``limit`` bytes long."""
    return _CONTROL.search(text) is None and len(text) <= limit and len(text.encode()) <= limit


def is_secret(text: str, limit: int) -> bool:
    """Whether ``text`` can be a password: UTF-8 without NUL, at most ``limit`` bytes long."""
    return is_utf8(text) and "\0" not in text and len(text) <= limit and len(text.encode()) <= limit


def check_text(value: object, what: str) -> str:
    """``value``, which an application wants to send as text; ``what`` says which. The value itself is never shown.

    Raises:
        InvalidArgument: It is not a ``str`` that UTF-8 can encode.
    """
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} must be a str, not {type(value).__name__}")
    if not is_utf8(value):
        raise InvalidArgument(f"{what} cannot be encoded as UTF-8: it contains a surrogate")
    return value
