"""SSH messages in few words, for people who look at a connection.

A :class:`Describer` sees the messages of a connection in the order in which they were sent, knows no secret, and says
for each what it carries: the numbers and names stand in the message, nothing is made up here.  What may be a secret
(passwords, prompts' answers) is left out, long binary values are given by their size, keys by their fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, cast

import attrs

from sshproto.auth import methods
from sshproto.channels.requests import (
    DirectStreamlocal,
    DirectTcpip,
    Env,
    Exec,
    ExitStatus,
    ForwardedStreamlocal,
    ForwardedTcpip,
    OpenFailure,
    PtyRequest,
    Subsystem,
    Unknown,
    WindowChange,
    decode_global,
    decode_open,
    decode_request,
)
from sshproto.errors import DisconnectCode, Incompatible, KeyFormatError, WireError
from sshproto.keys.certificates import Certificate
from sshproto.keys.public import PublicKey
from sshproto.text import printable
from sshproto.transport import negotiation
from sshproto.transport.kex import METHODS
from sshproto.transport.kex.hybrid import HybridMethod
from sshproto.transport.macs import MACS
from sshproto.transport.negotiation import Negotiated
from sshproto.transport.suites import CIPHERS
from sshproto.values import frozen
from sshproto.wire import messages as m
from sshproto.wire.codec import Reader
from sshproto.wire.table import Role

Detail = tuple[str, str | tuple[str, ...]]
"""A label and its value: words, or names in an order of preference, which may be shortened where they are shown."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_TEXT_SHOWN = 40
_TEXTS = frozenset({"command", "data", "description", "message"})
"""Fields of bytes that are words."""
_HEXADECIMAL = frozenset({"cookie", "session_id"})
"""Fields of bytes that are public, and are known by what they are."""
SECRETS = frozenset({"password", "old", "new", "new_password", "answers", "responses"})
"""Fields that may be shown if they are asked for."""


@frozen
class Words:
    """What a message carries.

    Attributes:
        summary: One short line.
        details: What does not fit in it.
        fields: The message's fields by their names, as JSON has them.
    """

    summary: str
    details: tuple[Detail, ...] = ()
    fields: Mapping[str, Any] = _NOTHING


class Describer:
    """Follows one connection and puts its messages into words.

    Args:
        fields: Give the fields of messages, too.

    Attributes:
        negotiated: The algorithms of the last pair of KEXINITs; None before there is one, or if they have nothing in
            common.
    """

    def __init__(self, *, fields: bool = True) -> None:
        self.negotiated: Negotiated | None = None
        self._with_fields = fields
        self._offers: dict[Role, m.KexInit] = {}
        self._earlier: dict[Role, m.KexInit] = {}
        self._strict: bool | None = None

    @staticmethod
    def chosen(negotiated: Negotiated) -> Words:
        """See :func:`chosen`."""
        return chosen(negotiated)

    @staticmethod
    def protection(negotiated: Negotiated, sender: Role) -> Words:
        """See :func:`protection`."""
        return protection(negotiated, sender)

    def describe(self, sender: Role, message: m.Message, *, secrets: bool = False) -> Words:
        """What ``message`` carries.

        Args:
            sender: Who sent it.
            message: The next message of the connection.
            secrets: Show passwords and prompts' answers, too.
        """
        if isinstance(message, m.KexInit):
            words = self._kexinit(sender, message)
        elif isinstance(message, (m.KexEcdhInit, m.KexEcdhReply)):
            words = self._ecdh(sender, message)
        else:
            words = _WORDS.get(type(message), _plain)(message)
        hidden = _hidden(message) if secrets else {}
        if hidden:
            shown = ", ".join(f"{name} {quoted(value)}" for name, values in hidden.items() for value in _listed(values))
            words = attrs.evolve(words, summary=f"{words.summary}, {shown}")
        if not self._with_fields:
            return words
        return attrs.evolve(words, fields={**fields_of(message), **words.fields, **hidden})

    # ----------------------------------------------------------------------------------------------------- key exchange

    def _kexinit(self, sender: Role, message: m.KexInit) -> Words:
        if len(self._offers) == len(Role):  # the first of a new pair
            self._earlier, self._offers = self._offers, {}
        self._offers[sender] = message
        if len(self._offers) == len(Role):
            self._negotiate(self._offers[Role.CLIENT], self._offers[Role.SERVER])
        earlier = self._earlier.get(sender)
        if earlier is not None and _algorithms(earlier) == _algorithms(message):
            return Words("the same algorithms as before, a new cookie")
        real, pseudo = _kex_names(message)
        details: list[Detail] = [("key exchange", real), ("host key", message.server_host_key_algorithms)]
        for label, field in (("cipher", "encryption"), ("MAC", "mac"), ("compression", "compression")):
            up: tuple[str, ...] = getattr(message, f"{field}_algorithms_client_to_server")
            down: tuple[str, ...] = getattr(message, f"{field}_algorithms_server_to_client")
            details += [(label, up)] if up == down else [(f"{label} out", up), (f"{label} back", down)]
        if pseudo:
            details.append(("also says", pseudo))
        counts = (
            (len(real), "key exchange", "key exchanges"),
            (len(message.server_host_key_algorithms), "host key algorithm", "host key algorithms"),
            (len(message.encryption_algorithms_client_to_server), "cipher", "ciphers"),
            (len(message.mac_algorithms_client_to_server), "MAC", "MACs"),
            (len(message.compression_algorithms_client_to_server), "compression", "compressions"),
        )
        return Words("offers " + ", ".join(_count(*each) for each in counts), tuple(details))

    def _negotiate(self, client: m.KexInit, server: m.KexInit) -> None:
        if self._strict is None:  # only the first pair counts
            self._strict = negotiation.strict_agreed(client, server)
        try:
            self.negotiated = negotiation.negotiate(
                client, server, us=Role.CLIENT, preferences=None, strict=self._strict
            )
        except Incompatible:
            self.negotiated = None

    def _ecdh(self, sender: Role, message: m.KexEcdhInit | m.KexEcdhReply) -> Words:
        share = f"{_bytes(message.share)}{self._parts(sender, len(message.share))}"
        if isinstance(message, m.KexEcdhInit):
            return Words("an ephemeral public value", (("public value", share),))
        return _reply(message, share)

    def _parts(self, sender: Role, size: int) -> str:
        """What a public value is made of."""
        method = METHODS.get(self.negotiated.kex) if self.negotiated is not None else None
        if not isinstance(method, HybridMethod):
            return ""
        kem = method.kem
        kem_size, what = (kem.public_size, "key") if sender is Role.CLIENT else (kem.ciphertext_size, "ciphertext")
        return f": {kem.name} {what} {kem_size:,}, {method.curve.name} {size - kem_size:,}"


def chosen(negotiated: Negotiated) -> Words:
    """What two KEXINITs add up to."""
    rows: list[Detail] = [("key exchange", negotiated.kex), ("host key", negotiated.host_key)]
    for label, up, down in (
        ("cipher", negotiated.cipher_client_to_server, negotiated.cipher_server_to_client),
        ("MAC", _mac(negotiated.mac_client_to_server), _mac(negotiated.mac_server_to_client)),
        ("compression", negotiated.compression_client_to_server, negotiated.compression_server_to_client),
    ):
        rows += [(label, up)] if up == down else [(f"{label} out", up), (f"{label} back", down)]
    rows.append(("strict kex", "yes: no stray packet is tolerated" if negotiated.strict_kex else "no"))
    summary = f"{negotiated.kex}, {negotiated.host_key}, {negotiated.cipher_client_to_server}"
    return Words(summary, tuple(rows), attrs.asdict(negotiated))


def protection(negotiated: Negotiated, sender: Role) -> Words:
    """What protects the packets of ``sender`` after its NEWKEYS."""
    if sender is Role.CLIENT:
        cipher, mac = negotiated.cipher_client_to_server, negotiated.mac_client_to_server
        compression = negotiated.compression_client_to_server
    else:
        cipher, mac = negotiated.cipher_server_to_client, negotiated.mac_server_to_client
        compression = negotiated.compression_server_to_client
    spec, mac_spec = CIPHERS.get(cipher), MACS.get(mac or "")
    rows: list[Detail] = [("secrecy", cipher)]
    if spec is not None and spec.aead:
        rows.append(("integrity", "by the same cipher"))
    elif mac_spec is not None:
        order = "over the ciphertext" if mac_spec.etm else "over the plaintext"
        rows.append(("integrity", f"{mac_spec.name}, {mac_spec.tag_size} bytes {order}"))
    if compression != "none":
        rows.append(("compression", compression))
    if negotiated.strict_kex:
        rows.append(("packet number", "starts again at 0 (strict kex)"))
    fields = {"cipher": cipher, "mac": mac, "compression": compression, "strict_kex": negotiated.strict_kex}
    return Words(cipher if mac is None else f"{cipher} with {mac}", tuple(rows), fields)


def quoted(data: bytes | str) -> str:
    """``data`` in quotes, safe to show and not long."""
    return f'"{printable(data, _TEXT_SHOWN)}"'


# ---------------------------------------------------------------------------------------------------------------- words


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _bytes(value: bytes | int) -> str:
    return _count(value if isinstance(value, int) else len(value), "byte", "bytes")


def _mac(name: str | None) -> str:
    return name or "none: the cipher authenticates by itself"


def _kex_names(message: m.KexInit) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The methods, and the names in their list that are none."""
    names = message.kex_algorithms
    return (
        tuple(name for name in names if name not in negotiation.PSEUDO),
        tuple(name for name in names if name in negotiation.PSEUDO),
    )


def _algorithms(message: m.KexInit) -> m.KexInit:
    return attrs.evolve(message, cookie=bytes(16), kex_algorithms=_kex_names(message)[0])


def _key(blob: bytes) -> list[Detail]:
    try:
        key = PublicKey.from_blob(blob)
    except KeyFormatError:
        return _certificate(blob)
    return [("key type", key.type), ("fingerprint", key.fingerprint())]


def _certificate(blob: bytes) -> list[Detail]:
    try:
        it = Certificate.from_blob(blob)
    except KeyFormatError:
        return [("key", _bytes(blob))]
    return [
        ("certificate type", it.type),
        ("fingerprint", it.fingerprint()),
        ("signed by", f"{it.authority.type} {it.authority.fingerprint()}"),
        ("names", tuple(printable(name) for name in it.principals)),
    ]


def _signature(signature: bytes) -> str:
    try:
        return f"{Reader(signature, 'signature').name('algorithm')}, {_bytes(signature)}"
    except WireError:
        return _bytes(signature)


def _reply(message: m.KexEcdhReply | m.KexDhReply | m.KexDhGexReply, value: str) -> Words:
    return Words(
        "a public value, the host key, its signature",
        (("public value", value), *_key(message.host_key), ("signature", _signature(message.signature))),
    )


def _dh(message: m.KexDhInit | m.KexDhGexInit) -> Words:
    return Words(f"a public value of {message.e.bit_length():,} bits")


def _dh_reply(message: m.KexDhReply | m.KexDhGexReply) -> Words:
    return _reply(message, f"{message.f.bit_length():,} bits")


def _gex_group(message: m.KexDhGexGroup) -> Words:
    return Words(f"a group of {message.p.bit_length():,} bits, generator {message.g}")


def _gex_request(message: m.KexDhGexRequest) -> Words:
    sizes = f"{message.preferred:,} bits please, {message.minimum:,} to {message.maximum:,} will do"
    return Words(f"a group of {sizes}")


def _service_request(message: m.ServiceRequest) -> Words:
    return Words(f"{message.service}, please")


def _service_accept(message: m.ServiceAccept) -> Words:
    return Words(f"{message.service} it is")


def _ext_info(message: m.ExtInfo) -> Words:
    details: list[Detail] = []
    for name, value in message.extensions:
        text = printable(value)
        details.append((name, tuple(text.split(",")) if "," in text else text))
    return Words(
        _count(len(message.extensions), "extension (RFC 8308)", "extensions (RFC 8308)"),
        tuple(details),
        {"extensions": {name: printable(value, 4096) for name, value in message.extensions}},
    )


def _userauth_request(message: m.UserauthRequest) -> Words:
    who = f"{printable(message.user)}, {methods.listed(message.method)}"
    try:
        form = methods.parse(message.method, message.payload)
    except WireError:
        form = None
    if isinstance(form, methods.PublicKeyQuery | methods.HostBoundQuery):
        return Words(f"{who}: would this key do?", (*_key(form.key), *_bound(form)), fields_of(form))
    if isinstance(form, methods.PublicKeySigned | methods.HostBoundSigned):
        size = {"signature": _bytes(form.signature)}
        details = (*_key(form.key), *_bound(form), ("signature", _signature(form.signature)))
        return Words(f"{who}: here is its signature", details, fields_of(form) | size)
    return Words(who, (), fields_of(form) if form is not None else {})


def _bound(form: methods.KeyQuery | methods.KeySigned) -> Iterable[Detail]:
    """The host key that a login is bound to."""
    host_key = methods.bound_to(form)
    if host_key is None:
        return ()
    shown = dict(_key(host_key))
    return (("host key", shown.get("fingerprint") or shown["key"]),)


def _userauth_failure(message: m.UserauthFailure) -> Words:
    start = "good, but not enough; " if message.partial_success else ""
    return Words(f"{start}can continue: {', '.join(message.methods) or 'nothing'}")


def _pk_ok(message: m.UserauthPkOk) -> Words:
    return Words("it would, if you can sign with it", tuple(_key(message.key)))


def _channel_open(message: m.ChannelOpen) -> Words:
    where = ""
    try:
        kind = decode_open(message)
    except WireError:
        fields = {}
    else:
        fields = fields_of(kind)
        match kind:
            case DirectTcpip(host=host, port=port) | ForwardedTcpip(address=host, port=port):
                where = f" for {printable(host)} port {port}"
            case DirectStreamlocal(path=path) | ForwardedStreamlocal(path=path):
                where = f" for {printable(path)}"
            case _:
                pass
    what = f"{printable(message.channel_type)}{where}, as my channel {message.sender_channel}"
    return Words(what, _room(message), fields)


def _confirmation(message: m.ChannelOpenConfirmation) -> Words:
    return Words(f"my channel {message.sender_channel} is your {message.recipient_channel}", _room(message))


def _room(message: m.ChannelOpen | m.ChannelOpenConfirmation) -> tuple[Detail, ...]:
    packets = f"packets of up to {_bytes(message.maximum_packet_size)}"
    return (("window", f"{_bytes(message.initial_window_size)} may come, in {packets}"),)


def _open_failure(message: m.ChannelOpenFailure) -> Words:
    reason = _enum(OpenFailure, message.reason)
    return Words(f"{reason}: {printable(message.description)}")


def _enum(kind: type[OpenFailure | DisconnectCode], code: int) -> str:
    try:
        return f"{kind(code).name.lower().replace('_', ' ')} ({code})"
    except ValueError:
        return f"code {code}"


def _channel_request(message: m.ChannelRequest) -> Words:
    try:
        request = decode_request(message)
    except WireError:
        return Words(f"{printable(message.request_type)}, malformed")
    name = printable(request.type)
    match request:
        case Exec(command=command):
            what = f"{name} {quoted(command)}"
        case Subsystem(name=subsystem):
            what = f"{name} {quoted(subsystem)}"
        case Env(name=variable, value=value):
            what = f"{name} {printable(variable)}={quoted(value)}"
        case PtyRequest(term=term, columns=columns, rows=rows):
            what = f"{name} {printable(term)}, {columns} by {rows}"
        case WindowChange(columns=columns, rows=rows):
            what = f"{name} to {columns} by {rows}"
        case ExitStatus(status=status):
            what = f"{name} {status}"
        case _:
            what = name
    if message.want_reply:
        what += ", a reply is wanted"
    fields = {} if isinstance(request, Unknown) else fields_of(request)
    return Words(what, (), fields)


def _global_request(message: m.GlobalRequest) -> Words:
    try:
        request = decode_global(message)
    except WireError:
        return Words(f"{printable(message.request_type)}, malformed")
    what = printable(request.type) + (", a reply is wanted" if message.want_reply else "")
    return Words(what, (), {} if isinstance(request, Unknown) else fields_of(request))


def _ignore(message: m.Ignore | m.Ping | m.Pong) -> Words:
    size = _bytes(message.data)
    return Words(size, (), {"data": size})  # it has no meaning


def _debug(message: m.Debug) -> Words:
    return Words(quoted(message.message))


def _data(message: m.ChannelData) -> Words:
    return Words(f"{_bytes(message.data)} {quoted(message.data)}")


def _extended_data(message: m.ChannelExtendedData) -> Words:
    return Words(f"type {message.data_type}, {_bytes(message.data)} {quoted(message.data)}")


def _window_adjust(message: m.ChannelWindowAdjust) -> Words:
    return Words(f"{_bytes(message.bytes_to_add)} more may come")


def _disconnect(message: m.Disconnect) -> Words:
    return Words(f"{_enum(DisconnectCode, message.reason)}: {printable(message.description)}")


def _plain(message: m.Message) -> Words:
    return Words(", ".join(f"{name} {value}" for name, value in fields_of(message).items()))


def _constant(text: str) -> Callable[[Any], Words]:
    words = Words(text)
    return lambda _: words


_WORDS: dict[type[m.Message], Callable[[Any], Words]] = {
    m.Disconnect: _disconnect,
    m.Ignore: _ignore,
    m.Ping: _ignore,
    m.Pong: _ignore,
    m.Debug: _debug,
    m.ServiceRequest: _service_request,
    m.ServiceAccept: _service_accept,
    m.ExtInfo: _ext_info,
    m.NewKeys: _constant("my next packet uses the new keys"),
    m.KexDhInit: _dh,
    m.KexDhReply: _dh_reply,
    m.KexDhGexInit: _dh,
    m.KexDhGexReply: _dh_reply,
    m.KexDhGexGroup: _gex_group,
    m.KexDhGexRequest: _gex_request,
    m.UserauthRequest: _userauth_request,
    m.UserauthFailure: _userauth_failure,
    m.UserauthSuccess: _constant("you are logged in"),
    m.UserauthPkOk: _pk_ok,
    m.GlobalRequest: _global_request,
    m.ChannelOpen: _channel_open,
    m.ChannelOpenConfirmation: _confirmation,
    m.ChannelOpenFailure: _open_failure,
    m.ChannelRequest: _channel_request,
    m.ChannelSuccess: _constant("done"),
    m.ChannelFailure: _constant("no"),
    m.ChannelData: _data,
    m.ChannelExtendedData: _extended_data,
    m.ChannelWindowAdjust: _window_adjust,
    m.ChannelEof: _constant("I send no more data"),
    m.ChannelClose: _constant("this channel is over for me"),
}


# --------------------------------------------------------------------------------------------------------------- fields


def _hidden(message: m.Message) -> dict[str, Any]:
    """The fields of a message that are secrets."""
    form: Any = message
    if isinstance(message, m.UserauthRequest):
        try:
            form = methods.parse(message.method, message.payload)
        except WireError:
            return {}
    if form is None:
        return {}
    fields = fields_of(form, SECRETS)
    return {name: fields[name] for name in fields if name in SECRETS}


def _listed(value: Any) -> list[str]:
    return cast(list[str], value) if isinstance(value, list) else [value]


def fields_of(value: Any, secrets: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The fields of a message, an event, or of a part of one, that are no secret, or among ``secrets``."""
    shown = (
        field
        for field in attrs.fields(cast(Any, type(value)))
        if (field.repr and field.name != "payload") or field.name in secrets
    )
    return {field.name: _json(field.name, getattr(value, field.name)) for field in shown}


def _json(name: str, value: Any) -> Any:
    match value:
        case bytes():
            if name in _TEXTS:
                return printable(value, 4096)
            if name in {"key", "host_key", "keys"}:
                try:
                    return PublicKey.from_blob(value).fingerprint()
                except KeyFormatError:
                    pass
            return value.hex() if name in _HEXADECIMAL else _bytes(value)
        case str():
            return printable(value, 4096)
        case Enum():
            return value.value
        case int() if value.bit_length() > 64:
            return f"{value.bit_length()} bits"
        case PublicKey():
            return value.fingerprint()
        case BaseException():
            return printable(str(value).removesuffix(": "), 4096)
        case Iterable():
            return [_json(name, item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case _ if attrs.has(type(value)):  # pyright: ignore[reportUnknownArgumentType]
            kind = {"type": value.type} if isinstance(getattr(value, "type", None), str) else {}
            return kind | fields_of(value)
        case _:
            return value
