"""One message of every kind that is right where it stands, and what may come of it and of what is damaged in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs

from sshproto import events as ev
from sshproto.auth import methods
from sshproto.channels import requests as r
from sshproto.errors import WireError
from sshproto.transport.kex.groups import GROUP14
from sshproto.wire import messages as m
from sshproto.wire.codec import Fixed, Struct, Uint32, string, uint32
from sshproto.wire.table import Role
from tests.support.puppet import CHANNEL, PEER_CHANNEL, SHARE, WINDOW, Puppet, bring, request
from tests.support.seeds import HOST_KEY, USER_CERTIFICATE, USER_KEY

UINT32 = Uint32.__metadata__[0]  # type: ignore[attr-defined]

USER_BLOB = USER_KEY.public_key.blob
HOST_BLOB = HOST_KEY.public_key.blob
CERTIFICATE_BLOB = USER_CERTIFICATE.blob
SIGNATURE = string(b"ssh-ed25519") + string(bytes(64))
BIG = GROUP14.prime // 3


@attrs.frozen
class Spot:
    """A number in a payload that says how long something is, how many there are, or just a number.

    Attributes:
        field: Its name.
        offset: Where its four bytes are.
    """

    field: str
    offset: int


def spots(value: Struct, base: int) -> Iterator[Spot]:
    """The spots of a structure that starts at ``base``."""
    offset = base
    for field, codec in value.codecs():
        content = getattr(value, field)
        written = codec.write(content)
        if isinstance(content, tuple) and field in {"extensions", "prompts", "responses", "keys"}:
            position = offset
            if field != "keys":  # those just follow one another
                yield Spot(f"{field}.count", position)
                position += 4
            for index, item in enumerate(content):
                for part in item if isinstance(item, tuple) else (item,):
                    if isinstance(part, bool):
                        position += 1
                        continue
                    yield Spot(f"{field}[{index}]", position)
                    position += 4 + len(part)
        elif codec is UINT32 or (len(written) >= 4 and not isinstance(codec, Fixed) and field != "payload"):
            yield Spot(field, offset)
        offset += len(written)


@attrs.frozen
class Sample:
    """A message without a fault, and what may come of it and its variations.

    Attributes:
        name: For the test's name.
        role, state: Where it is waited for, see tests/support/puppet.py.
        message: It.
        good: What may come of it, and of what still is such a message.
        inner: What its ``payload`` decodes to.
        broken: What comes of it when that is malformed; None if the message as a whole is, then.
        blobs: Keys and signatures in it, whose own strings are spots as well.
        bad_blob: What comes of it when one of them is malformed.
        prepare: What the connection has done before.
    """

    name: str
    role: Role
    state: str
    message: m.Message | Callable[[Puppet], m.Message]
    good: frozenset[str]
    inner: Struct | None = None
    broken: str | None = None
    blobs: tuple[bytes, ...] = ()
    bad_blob: str = ""
    prepare: Callable[[Puppet], object] | None = None

    def ready(self) -> Puppet:
        """A connection that waits for it."""
        puppet = bring(self.role, self.state)
        if self.prepare is not None:
            self.prepare(puppet)
            puppet.pump()
            puppet.heard()
        return puppet

    def made(self, puppet: Puppet) -> m.Message:
        return self.message(puppet) if callable(self.message) else self.message

    def spots(self, message: m.Message) -> Iterator[tuple[Spot, bool]]:
        """All spots, and whether each is in a blob."""
        payload = message.encode()
        for spot in spots(message, 1):
            yield spot, False
        if self.inner is not None:
            flag = getattr(self.inner, "flag", None) is not None
            start = len(payload) - len(self.inner.encode()) + flag
            for spot in spots(self.inner, start):
                yield spot, False
        for blob in self.blobs:
            start = payload.index(blob)
            second = start + 4 + int.from_bytes(blob[:4], "big")
            yield Spot("blob.type", start), True
            yield Spot("blob.value", second), True

    def expected(self, payload: bytes, message: m.Message) -> frozenset[str]:
        """What may come of a damaged payload: the codec's word on whether it still is a message."""
        try:
            found = type(message).parse(payload)
            if self.inner is not None:
                decode_inner(found)
        except BrokenInside:
            good = frozenset({self.broken or "D"})
        except WireError:
            return frozenset({"D"})
        else:
            good = self.good
        return good if getattr(found, "want_reply", True) else frozenset(map(unreplied, good))


def unreplied(outcome: str) -> str:
    """What an outcome is if no reply is wanted."""
    return "/".join(word for word in outcome.split("/") if not word.isdigit()) or "."


class BrokenInside(Exception):
    """The message is one, its method-, kind- or request-specific part is not."""


def decode_inner(message: Any) -> None:
    try:
        if isinstance(message, m.UserauthRequest):
            methods.parse(message.method, message.payload)
        elif isinstance(message, m.ChannelOpen):
            r.decode_open(message)
        elif isinstance(message, m.ChannelRequest):
            r.decode_request(message)
        elif isinstance(message, m.GlobalRequest):
            r.decode_global(message)
    except WireError:
        raise BrokenInside from None


# -------------------------------------------------------------------------------------------------------------- samples

LISTS: dict[str, Any] = {
    "cookie": bytes(16),
    "kex_algorithms": ("curve25519-sha256",),
    "server_host_key_algorithms": ("ssh-ed25519",),
    "encryption_algorithms_client_to_server": ("aes128-ctr",),
    "encryption_algorithms_server_to_client": ("aes128-ctr",),
    "mac_algorithms_client_to_server": ("hmac-sha2-256",),
    "mac_algorithms_server_to_client": ("hmac-sha2-256",),
    "compression_algorithms_client_to_server": ("none",),
    "compression_algorithms_server_to_client": ("none",),
}


def one(name: str, role: Role, state: str, message: Any, good: str, **rest: Any) -> Sample:
    return Sample(name, role, state, message, frozenset(good.split()), **rest)


def both(name: str, state: str, message: Any, good: str, **rest: Any) -> list[Sample]:
    return [one(name, role, state, message, good, **rest) for role in Role]


def signed(puppet: Puppet) -> m.Message:
    """A login that succeeds, as far as the signature goes."""
    data = methods.signed_data(puppet.conn.session_id, "alice", "ssh-connection", "ssh-ed25519", USER_BLOB)
    form = methods.PublicKeySigned("ssh-ed25519", USER_BLOB, USER_KEY.sign(data, "ssh-ed25519"))
    return methods.request("alice", form)


def signed_bound(puppet: Puppet) -> m.Message:
    """The same, bound to the server's host key, with a certificate."""
    name = "ssh-ed25519-cert-v01@openssh.com"
    data = methods.signed_data(puppet.conn.session_id, "alice", "ssh-connection", name, CERTIFICATE_BLOB, HOST_BLOB)
    return methods.request(
        "alice", methods.HostBoundSigned(name, CERTIFICATE_BLOB, HOST_BLOB, USER_KEY.sign(data, "ssh-ed25519"))
    )


def login(form: methods.Form, good: str, **rest: Any) -> Sample:
    name = f"USERAUTH_REQUEST {type(form).__name__}"
    return one(name, Role.SERVER, "A", methods.request("alice", form), good, inner=form, **rest)


def expire(puppet: Puppet) -> None:
    puppet.say(methods.request("alice", methods.Password("old")))
    puppet.conn.change_password(puppet.asked(ev.PasswordAuth), "new?")


def opening(puppet: Puppet) -> None:
    puppet.conn.open_channel(r.UnknownOpen("x@example.org"), window=WINDOW)


def port_asked(puppet: Puppet) -> None:
    puppet.conn.global_request(r.TcpipForward("", 0))


def reply_awaited(puppet: Puppet) -> None:
    puppet.conn.request(CHANNEL, r.KeepaliveChannel())


KINDS = [
    r.Session(),
    r.DirectTcpip("host", 22, "::1", 1),
    r.ForwardedTcpip("host", 22, "::1", 1),
    r.DirectStreamlocal("/run/x"),
    r.ForwardedStreamlocal("/run/x"),
    r.X11("::1", 1),
    r.AuthAgent(),
    r.AgentConnect(),
]
REQUESTS = [
    r.PtyRequest("vt100", modes=((53, 1), (42, 1))),
    r.X11Request(False, "MIT-MAGIC-COOKIE-1", "00"),
    r.AuthAgentRequest(),
    r.AgentRequest(),
    r.Env("LANG", b"C"),
    r.Shell(),
    r.Exec(b"id"),
    r.Subsystem("sftp"),
    r.WindowChange(80, 24),
    r.XonXoff(True),
    r.Signal("TERM"),
    r.Break(1000),
    r.ExitStatus(0),
    r.ExitSignal("TERM", False, "x", "en"),
    r.EndOfWrite(),
    r.KeepaliveChannel(),
]
GLOBALS = [
    r.TcpipForward("host", 22),
    r.CancelTcpipForward("host", 22),
    r.StreamlocalForward("/run/x"),
    r.CancelStreamlocalForward("/run/x"),
    r.Keepalive(),
    r.NoMoreSessions(),
    r.HostKeysAnnounced((HOST_BLOB, b"x")),
    r.HostKeysProve((HOST_BLOB, b"x")),
]

SAMPLES: list[Sample] = [
    *both("DISCONNECT", "C", m.Disconnect(11, "bye", "en"), "bye"),
    *both("IGNORE", "C", m.Ignore(b"x"), "."),
    *both("UNIMPLEMENTED", "C", m.Unimplemented(3), "UnimplementedReceived"),
    *both("DEBUG", "C", m.Debug(False, "x", "en"), "DebugReceived"),
    one("SERVICE_REQUEST", Role.SERVER, "T", m.ServiceRequest("ssh-userauth"), "6 D7"),
    one("SERVICE_ACCEPT", Role.CLIENT, "T", m.ServiceAccept("ssh-userauth"), "CredentialNeeded D"),
    *both("EXT_INFO", "T", m.ExtInfo((("x@example.org", b"xy"), ("z", b""))), "ExtInfoReceived"),
    one("KEXINIT", Role.SERVER, "K0", m.KexInit(**LISTS), ". D D3"),
    one("KEXINIT", Role.CLIENT, "K0", m.KexInit(**LISTS), "30 D D3"),
    one("KEXINIT again", Role.SERVER, "C", m.KexInit(**LISTS), "20 20/D3 D3"),
    one("KEXINIT again", Role.CLIENT, "C", m.KexInit(**LISTS), "20/30 20/D3 D3"),
    one("NEWKEYS", Role.SERVER, "K2", m.NewKeys(), "KeysExchanged"),
    one("NEWKEYS", Role.CLIENT, "K2", m.NewKeys(), "5/KeysExchanged"),
    one("KEX_ECDH_INIT", Role.SERVER, "K1", m.KexEcdhInit(SHARE), "31/21 D3"),
    one(
        "KEX_ECDH_REPLY",
        Role.CLIENT,
        "K1",
        Puppet.reply,
        "HostKeyOffered D3",
        blobs=(HOST_BLOB,),
        bad_blob="D3",
    ),
    one("KEXDH_INIT", Role.SERVER, "Kd1", m.KexDhInit(BIG), "31/21 D3"),
    one(
        "KEXDH_REPLY",
        Role.CLIENT,
        "Kd1",
        m.KexDhReply(HOST_BLOB, 5, SIGNATURE),
        "D3",
        blobs=(HOST_BLOB, SIGNATURE),
        bad_blob="D3",
    ),
    one("KEX_DH_GEX_REQUEST_OLD", Role.SERVER, "Kg1", m.KexDhGexRequestOld(2048), "D"),
    one("KEX_DH_GEX_REQUEST", Role.SERVER, "Kg1", m.KexDhGexRequest(2048, 2048, 8192), "31 D3"),
    one("KEX_DH_GEX_GROUP", Role.CLIENT, "Kg1", m.KexDhGexGroup(GROUP14.prime, 2), "32 D3"),
    one("KEX_DH_GEX_INIT", Role.SERVER, "Kg2", m.KexDhGexInit(BIG), "33/21 D3"),
    one(
        "KEX_DH_GEX_REPLY",
        Role.CLIENT,
        "Kg2",
        m.KexDhGexReply(HOST_BLOB, 5, SIGNATURE),
        "D3",
        blobs=(HOST_BLOB, SIGNATURE),
        bad_blob="D3",
    ),
    login(methods.NoneForm(), "NoneAuth 51"),
    login(methods.PublicKeyQuery("ssh-ed25519", USER_BLOB), "KeyProbe 51", blobs=(USER_BLOB,), bad_blob="51"),
    login(
        methods.HostBoundQuery("ssh-ed25519", USER_BLOB, HOST_BLOB),
        "KeyProbe 51",
        blobs=(USER_BLOB, HOST_BLOB),
        bad_blob="51",
    ),
    login(methods.Password("xyzzy"), "PasswordAuth 51"),
    login(methods.PasswordChange("old", "new"), "PasswordAuth 51", prepare=expire),
    login(methods.KeyboardInteractive("en", "x"), "InteractiveAuth 51"),
    one(
        "USERAUTH_REQUEST PublicKeySigned",
        Role.SERVER,
        "A",
        signed,
        "KeyAuth 51",
        inner=methods.PublicKeySigned("ssh-ed25519", USER_BLOB, string(b"ssh-ed25519") + string(bytes(64))),
        blobs=(USER_BLOB,),
        bad_blob="51",
    ),
    one(
        "USERAUTH_REQUEST HostBoundSigned",
        Role.SERVER,
        "A",
        signed_bound,
        "KeyAuth 51",
        inner=methods.HostBoundSigned(
            "ssh-ed25519-cert-v01@openssh.com",
            CERTIFICATE_BLOB,
            HOST_BLOB,
            string(b"ssh-ed25519") + string(bytes(64)),
        ),
        blobs=(CERTIFICATE_BLOB, HOST_BLOB),
        bad_blob="51",
    ),
    one("USERAUTH_REQUEST of no method", Role.SERVER, "A", request("x@example.org", b"xyz"), "51"),
    one(
        "USERAUTH_FAILURE",
        Role.CLIENT,
        "Apassword",
        m.UserauthFailure(("password", "x"), False),
        "AuthFailed/CredentialNeeded",
    ),
    one("USERAUTH_SUCCESS", Role.CLIENT, "Apassword", m.UserauthSuccess(), "AuthSucceeded"),
    one("USERAUTH_BANNER", Role.CLIENT, "A", m.UserauthBanner("x", "en"), "BannerReceived"),
    one(
        "USERAUTH_PK_OK",
        Role.CLIENT,
        "Aquery",
        m.UserauthPkOk("ssh-ed25519", USER_BLOB),
        "50 D",
        blobs=(USER_BLOB,),
        bad_blob="D",
    ),
    one(
        "USERAUTH_PASSWD_CHANGEREQ", Role.CLIENT, "Apassword", m.UserauthPasswdChangereq("new", "en"), "PasswordExpired"
    ),
    one(
        "USERAUTH_INFO_REQUEST",
        Role.CLIENT,
        "Akbd",
        m.UserauthInfoRequest("name", "do", "en", (("Word: ", False), ("Name: ", True))),
        "PromptsReceived D",
    ),
    one("USERAUTH_INFO_RESPONSE", Role.SERVER, "Akbd", m.UserauthInfoResponse(("xyzzy",)), "PromptsAnswered 51"),
    *both("GLOBAL_REQUEST unknown", "C", m.GlobalRequest("x@example.org", True, b"x"), "GlobalRequested 82"),
    *[
        sample
        for value in GLOBALS
        for sample in both(
            f"GLOBAL_REQUEST {value.type}",
            "C",
            m.GlobalRequest(value.type, True, value.encode()),
            "GlobalRequested 81 82",
            inner=value,
            broken="82",
        )
    ],
    one("REQUEST_SUCCESS", Role.CLIENT, "C", m.RequestSuccess(uint32(2222)), "GlobalSucceeded D", prepare=port_asked),
    one("REQUEST_FAILURE", Role.CLIENT, "C", m.RequestFailure(), "GlobalFailed", prepare=port_asked),
    *[
        sample
        for value in KINDS
        for sample in both(
            f"CHANNEL_OPEN {value.type}",
            "C",
            m.ChannelOpen(value.type, 77, WINDOW, 32768, value.encode()),
            "ChannelOpenRequested 92",
            inner=value,
            broken="92",
        )
    ],
    *both(
        "CHANNEL_OPEN_CONFIRMATION",
        "C0",
        m.ChannelOpenConfirmation(CHANNEL, PEER_CHANNEL, WINDOW, 32768, b"x"),
        "ChannelOpened D",
        prepare=opening,
    ),
    *both(
        "CHANNEL_OPEN_FAILURE",
        "C0",
        m.ChannelOpenFailure(CHANNEL, 1, "no", "en"),
        "ChannelOpenFailed D",
        prepare=opening,
    ),
    *both("CHANNEL_WINDOW_ADJUST", "C", m.ChannelWindowAdjust(CHANNEL, 5), ". D"),
    *both("CHANNEL_DATA", "C", m.ChannelData(CHANNEL, b"data"), "DataReceived D"),
    *both("CHANNEL_EXTENDED_DATA", "C", m.ChannelExtendedData(CHANNEL, 1, b"data"), "DataReceived . D"),
    *both("CHANNEL_EOF", "C", m.ChannelEof(CHANNEL), "EofReceived D"),
    *both("CHANNEL_CLOSE", "C", m.ChannelClose(CHANNEL), "97/ChannelClosed D"),
    *[
        sample
        for value in REQUESTS
        for sample in both(
            f"CHANNEL_REQUEST {value.type}",
            "C",
            m.ChannelRequest(CHANNEL, value.type, True, value.encode()),
            "ChannelRequested 100/ChannelNotified 100 D",
            inner=value,
            broken="100",
        )
    ],
    *both("CHANNEL_SUCCESS", "C", m.ChannelSuccess(CHANNEL), "RequestSucceeded D", prepare=reply_awaited),
    *both("CHANNEL_FAILURE", "C", m.ChannelFailure(CHANNEL), "RequestFailed D", prepare=reply_awaited),
    *both("PING", "C", m.Ping(b"x"), "193"),
    *both("PONG", "C", m.Pong(b"x"), "PongReceived"),
]
