"""What a peer can make grow: each bound where it still holds and one past it, memory under floods, work for a byte.

Nothing here looks at a clock: memory is counted by allocations, work by calls and by bytes that are moved.
"""

from __future__ import annotations

import functools
import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from sshproto import events as ev
from sshproto.auth import methods
from sshproto.channels import requests as r
from sshproto.channels.fields import MAX_ENV_NAME, MAX_ENV_VALUE, MAX_MODES, MAX_SOCKET_PATH, MAX_TERM
from sshproto.config import Limits
from sshproto.errors import LimitExceeded, LimitReached
from sshproto.keys.public import PublicKey
from sshproto.keys.security_keys import Assertion
from sshproto.transport.compression import Deflater
from sshproto.transport.packets import Sealer
from sshproto.transport.suites import DirectionKeys, key_sizes
from sshproto.wire import messages as m
from sshproto.wire.codec import name, string, text, uint32
from sshproto.wire.table import Role
from tests.support.puppet import CHANNEL, PEER_CHANNEL, STATES, WINDOW, Puppet, bring, bring_with, request
from tests.support.rogue import IDENT, frame, loss
from tests.support.seeds import HOST_KEY, USER_CERTIFICATE, USER_KEY

pytestmark = pytest.mark.slow

CLIENT, SERVER = Role.CLIENT, Role.SERVER
BLOB = USER_KEY.public_key.blob


# --------------------------------------------------------------------------------------------------- Limits, one by one


@attrs.frozen
class Bound:
    """One of :class:`~sshproto.config.Limits`, and something of just that size.

    Attributes:
        field: The limit.
        size: What it is set to, so that ``act`` just fits.
        role, state: Where it is tried.
        act: What is tried.
        fits: What comes of it.
        past: What comes of it when the limit is one less.
        covers: The claims.
        config: What else is configured.
        smallest: The limit is the least that is accepted, not the most.
    """

    field: str
    size: int
    role: Role
    state: str
    act: Callable[[Puppet], object]
    fits: str
    past: str
    covers: tuple[str, ...]
    config: dict[str, Any] = attrs.field(factory=dict)
    smallest: bool = False

    def outcome(self, size: int) -> tuple[str, Puppet]:
        limits = Limits(**{self.field: size, **self.config})
        puppet = bring_with(self.role, self.state, limits=limits)
        return puppet.outcome_of(lambda: self.act(puppet)), puppet


def say(*messages: m.Message | bytes, times: int = 1) -> Callable[[Puppet], object]:
    return lambda puppet: puppet.say(*messages * times)


def write(data: bytes) -> Callable[[Puppet], object]:
    return lambda puppet: puppet.write(data)


def ignore_of(packet_length: int) -> bytes:
    """An IGNORE in a packet of just that packet_length."""
    packet = frame(m.Ignore(bytes(packet_length - 10)).encode(), padding=4)
    assert len(packet) == packet_length + 4
    return packet


def languages(*names: str) -> Callable[[Puppet], object]:
    return lambda puppet: puppet.say(puppet.kexinit(languages_client_to_server=names))


def opens(kind: str, count: int, payload: bytes = b"") -> Callable[[Puppet], object]:
    return say(*[m.ChannelOpen(kind, number, WINDOW, 32768, payload) for number in range(count)])


def asks(kind: str, payload: bytes = b"") -> m.Message:
    return m.ChannelRequest(CHANNEL, kind, True, payload)


def env(variable: str, value: bytes) -> m.Message:
    return asks("env", text(variable) + string(value))


def prompts(count: int) -> m.Message:
    return m.UserauthInfoRequest("", "", "", (("Word: ", False),) * count)


def password(words: str) -> m.Message:
    return methods.request("alice", methods.Password(words))


def signed(puppet: Puppet) -> object:
    data = methods.signed_data(puppet.conn.session_id, "alice", "ssh-connection", "ssh-ed25519", BLOB)
    form = methods.PublicKeySigned("ssh-ed25519", BLOB, USER_KEY.sign(data, "ssh-ed25519"))
    return puppet.say(methods.request("alice", form))


def certified(puppet: Puppet) -> object:
    """A login with a certificate, bound to the host."""
    name, blob, host_key = "ssh-ed25519-cert-v01@openssh.com", USER_CERTIFICATE.blob, HOST_KEY.public_key.blob
    data = methods.signed_data(puppet.conn.session_id, "alice", "ssh-connection", name, blob, host_key)
    form = methods.HostBoundSigned(name, blob, host_key, USER_KEY.sign(data, "ssh-ed25519"))
    return puppet.say(methods.request("alice", form))


def two_rounds(puppet: Puppet) -> None:
    puppet.say(prompts(1))
    puppet.conn.answer_prompts(puppet.asked(ev.PromptsReceived), [""])
    puppet.say(prompts(1))


def two_attempts(puppet: Puppet) -> None:
    for _ in range(2):
        puppet.conn.auth_password(puppet.asked(ev.CredentialNeeded), "")
        puppet.say(m.UserauthFailure(("password",), False))


def fill_window(puppet: Puppet) -> None:
    """Accept a channel with the default window, and use all of it."""
    puppet.say(m.ChannelOpen("session", PEER_CHANNEL, WINDOW, 32768))
    puppet.conn.accept_channel(puppet.asked(ev.ChannelOpenRequested))
    puppet.say(m.ChannelData(CHANNEL, bytes(1000)), m.ChannelData(CHANNEL, bytes(500)))


def one_packet(puppet: Puppet) -> None:
    puppet.say(m.ChannelOpen("session", PEER_CHANNEL, WINDOW, 32768))
    puppet.conn.accept_channel(puppet.asked(ev.ChannelOpenRequested))
    puppet.say(m.ChannelData(CHANNEL, bytes(100)))


def open_three(puppet: Puppet) -> None:
    for _ in range(3):
        puppet.conn.open_channel(r.UnknownOpen("x@example.org"))


def request_thrice(puppet: Puppet) -> None:
    for _ in range(3):
        puppet.conn.request(CHANNEL, r.KeepaliveChannel())


def ask_thrice(puppet: Puppet) -> None:
    for _ in range(3):
        puppet.conn.global_request(r.Keepalive())


QUERY = methods.request("alice", methods.PublicKeyQuery("ssh-ed25519", BLOB))
LATE = request("none")
NO_ADJUST, NO_DATA = m.ChannelWindowAdjust(CHANNEL, 0), m.ChannelData(CHANNEL, b"")
NO_EXTENDED_DATA = m.ChannelExtendedData(CHANNEL, 9, b"")
STRAY = (m.RequestFailure(), m.ChannelFailure(CHANNEL), m.RequestSuccess())
UNKNOWN_LOGIN = request("x@example.org")
FORWARD = m.GlobalRequest("tcpip-forward", True, text("host1") + uint32(22))
DIRECT = m.ChannelOpen("direct-tcpip", 9, WINDOW, 32768, text("host1") + uint32(22) + text("::1") + uint32(1))
KEYS = m.GlobalRequest("hostkeys-00@openssh.com", True, string(BLOB) * 3)
PONGS = 100 * len(frame(m.Pong(bytes(19)).encode()))


def replied(message: str, count: int) -> str:
    return "/".join([message] * count)


BOUNDS: list[Bound] = [
    *[Bound("ident_line", len(IDENT), role, "I", write(IDENT), fits, "D", ("B1", "V36"))
      for role, fits in ((CLIENT, "VersionReceived"), (SERVER, "20/VersionReceived"))],
    Bound("preamble_lines", 3, CLIENT, "I", write(b"a\n" * 3 + IDENT), "VersionReceived", "D", ("B2", "V36", "R15")),
    Bound("preamble_bytes", 6, CLIENT, "I", write(b"a\n" * 3 + IDENT), "VersionReceived", "D", ("B2", "V36", "R15")),
    *[Bound("packet_before_auth", 2004, role, "K0", write(ignore_of(2004)), ".", "D", ("B3", "V21")) for role in Role],
    *[Bound("packet", 40_004, role, "C", write(ignore_of(40_004)), ".", "D", ("B3", "V21")) for role in Role],
    *[Bound("packets_before_auth", 10, role, "K0", say(m.Ignore(b""), times=10), ".", "D", ("B14", "V14"))
      for role in Role],
    *[Bound("input_before_auth", len(IDENT) + 10_000, role, "K0", write(ignore_of(996) * 10), ".", "D", ("B14", "V14"))
      for role in Role],
    *[Bound("name_list", 200, role, "K0", languages("x" * 64, "y" * 64, "z" * 64, "abcde"), fits, "D3", ("B8", "V37"))
      for role, fits in ((CLIENT, "30"), (SERVER, "."))],
    *[Bound("names", 9, role, "K0", languages(*"abcdefghi"), fits, "D3", ("B8", "V37"))
      for role, fits in ((CLIENT, "30"), (SERVER, "."))],
    Bound("host_key", len(BLOB), CLIENT, "K1", lambda p: p.say(p.reply()), "HostKeyOffered", "D3", ("B9",)),
    Bound("signature", 83, CLIENT, "K1", lambda p: p.say(p.reply()), "HostKeyOffered", "D3", ("B9",)),
    Bound("host_key", len(BLOB), SERVER, "A", signed, "KeyAuth", "51", ("B22",)),
    Bound("host_key", len(BLOB), SERVER, "A", say(QUERY), "KeyProbe", "51", ("B22",)),
    Bound("signature", 83, SERVER, "A", signed, "KeyAuth", "51", ("B22",)),
    Bound("host_key", len(USER_CERTIFICATE.blob), SERVER, "A", certified, "KeyAuth", "51", ("B22", "V51")),
    Bound("signature", 83, SERVER, "A", certified, "KeyAuth", "51", ("B22",)),
    *[Bound("output_hard", PONGS, role, "C", say(m.Ping(bytes(19)), times=100), replied("193", 100),
            f"{replied('193', 100)}/D", ("B6", "B7", "V13")) for role in Role],
    *[Bound("deferred_packets", 10, role, "CR1", say(m.Ping(b""), times=10), ".", "D", ("B5", "B7", "B11", "V13"))
      for role in Role],
    *[Bound("deferred_bytes", 10 * 24, role, "CR1", say(m.Ping(bytes(19)), times=10), ".", "D",
            ("B5", "B7", "B11", "V13")) for role in Role],
    Bound("ignored_messages", 3, SERVER, "C", say(LATE, times=3), ".", "D", ("V17", "R63")),
    Bound("ignored_messages", 3, CLIENT, "C", say(m.UserauthBanner("x"), times=3), ".", "D", ("V68", "R63")),
    Bound("service_requests", 3, SERVER, "T", say(m.ServiceRequest("ssh-userauth"), times=3), "6/6/6", "6/6/D",
          ("B16", "V18")),
    Bound("auth_failures", 3, SERVER, "A", say(UNKNOWN_LOGIN, times=3), "51/51/51", "51/51/D14", ("B17", "V61", "R55")),
    Bound("auth_requests", 4, SERVER, "A", say(UNKNOWN_LOGIN, times=4), "51/51/51/51", "51/51/51/D14",
          ("B17", "V61", "R55")),
    Bound("client_auth_attempts", 3, CLIENT, "A", two_attempts,
          "50/50/AuthFailed/CredentialNeeded/AuthFailed/CredentialNeeded",
          "50/50/AuthFailed/CredentialNeeded/AuthFailed/D14", ("V10",)),
    Bound("info_rounds", 2, CLIENT, "Akbd", two_rounds, "61/PromptsReceived/PromptsReceived", "61/PromptsReceived/D14",
          ("B17", "V10", "R76")),
    Bound("user_name", 5, SERVER, "A", say(request("none")), "NoneAuth", "51", ("B18", "V62")),
    Bound("password", 5, SERVER, "A", say(password("xyzzy")), "PasswordAuth", "51", ("B18", "V62")),
    Bound("password", 5, SERVER, "Akbd", say(m.UserauthInfoResponse(("xyzzy",))), "PromptsAnswered", "51",
          ("B18", "V62")),
    Bound("prompts", 3, CLIENT, "Akbd", say(prompts(3)), "PromptsReceived", "D", ("B19", "V25")),
    Bound("banners", 3, CLIENT, "A", say(m.UserauthBanner("x"), times=3), replied("BannerReceived", 3),
          "BannerReceived/BannerReceived/D", ("B20", "V68")),
    Bound("banner_bytes", 6, CLIENT, "A", say(m.UserauthBanner("xy"), times=3), replied("BannerReceived", 3),
          "BannerReceived/BannerReceived/D", ("B20", "V68")),
    *[Bound(field, 3, role, "C0", opens("x@example.org", 3), replied("ChannelOpenRequested", 3),
            "92/ChannelOpenRequested/ChannelOpenRequested", ("B24", "R87"))
      for role in Role for field in ("channels_from_peer", "opens_pending")],
    Bound("sessions", 3, SERVER, "C0", opens("session", 3), replied("ChannelOpenRequested", 3),
          "92/ChannelOpenRequested/ChannelOpenRequested", ("B24",)),
    *[Bound("undecided_bytes", 300, role, "C", say(message, times=3), replied(event, 3), past, ("B5", "B28", "P21"))
      for role in Role
      for message, event, past in (
          (asks("x@example.org", bytes(100)), "ChannelRequested", replied("ChannelRequested", 2)),
          (m.GlobalRequest("x@example.org", True, bytes(100)), "GlobalRequested", replied("GlobalRequested", 2)))],
    *[Bound("undecided_bytes", 300, role, "C0", opens("x@example.org", 3, bytes(100)),
            replied("ChannelOpenRequested", 3), "92/ChannelOpenRequested/ChannelOpenRequested", ("B5", "P21"))
      for role in Role],
    *[Bound("channels_from_us", 3, role, "C0", open_three, "90/90/90", "LimitReached", ("B25",)) for role in Role],
    Bound("window", 1500, SERVER, "C0", fill_window, "91/ChannelOpenRequested/DataReceived/DataReceived",
          "91/ChannelOpenRequested/DataReceived/D", ("B26", "V30")),
    Bound("channel_packet", 100, SERVER, "C0", one_packet, "91/ChannelOpenRequested/DataReceived",
          "91/ChannelOpenRequested/D", ("V30", "R90")),
    *[Bound("smallest_channel_packet", 64, role, "C0", say(m.ChannelOpen("x@example.org", 1, WINDOW, 64)),
            "ChannelOpenRequested", "92", ("V28",), smallest=True) for role in Role],
    *[Bound("requests_pending", 3, role, "C", say(asks("x@example.org"), times=3), replied("ChannelRequested", 3),
            "ChannelRequested/ChannelRequested/D", ("B28",)) for role in Role],
    *[Bound("requests_pending", 3, role, "C", say(m.GlobalRequest("x@example.org", True), times=3),
            replied("GlobalRequested", 3), "GlobalRequested/GlobalRequested/D", ("B28",)) for role in Role],
    *[Bound("requests_pending", 3, role, "C", request_thrice, "98/98/98", "LimitReached", ("B28",)) for role in Role],
    *[Bound("requests_pending", 3, role, "C", ask_thrice, "80/80/80", "LimitReached", ("B28",)) for role in Role],
    *[Bound("empty_adjusts", 3, role, "C", say(message, times=3), ".", "D", ("B27", "V29"))
      for role in Role for message in (NO_ADJUST, NO_DATA, NO_EXTENDED_DATA)],
    *[Bound("unsolicited_replies", 3, role, "C", say(*STRAY), ".", "D", ("B29", "V17")) for role in Role],
    Bound("environment", 3, SERVER, "C", say(env("A", b""), times=3), replied("ChannelRequested", 3),
          "ChannelRequested/ChannelRequested", ("B30", "V76")),
    Bound("forwards", 3, SERVER, "C", say(FORWARD, times=3), replied("GlobalRequested", 3),
          "GlobalRequested/GlobalRequested", ("B31",)),
    Bound("host_name", 5, SERVER, "C", say(FORWARD), "GlobalRequested", "82", ("B31", "V77")),
    Bound("host_name", 5, SERVER, "C", say(DIRECT), "ChannelOpenRequested", "92", ("B31", "V77")),
    Bound("host_keys_announced", 3, CLIENT, "C", say(KEYS), "GlobalRequested", "82", ("B35", "R153")),
]  # fmt: skip

ELSEWHERE = {
    "input_hard": "test_input_that_waits",
    "output_high": "test_output_that_waits",
    "minimum_rsa_bits": "tests/unit/keys/test_public.py",
    "rekey_bytes": "test_a_worn_key",
    "rekey_packets": "test_a_worn_key",
    "rekeys_before_auth": "test_rekeys_of_the_peer_before_login",
    "peer_rekeys": "test_rekeys_of_the_peer",
    "peer_rekey_bytes": "test_rekeys_of_the_peer",
    "forwarded_pending": "tests/unit/operations/test_forwarding.py",
    "window_max": "tests/unit/channels/test_windows.py",
    "window_pool": "test_windows_share_a_pool",
    "window_floor": "test_windows_share_a_pool",
}
"""Limits that are no plain number of something that comes."""


def test_every_limit_is_tried() -> None:
    assert {bound.field for bound in BOUNDS} | set(ELSEWHERE) == {field.name for field in attrs.fields(Limits)}


@pytest.mark.parametrize(
    "bound",
    [
        pytest.param(bound, marks=pytest.mark.covers(*bound.covers), id=f"{bound.field}-{bound.role.value}-{index}")
        for index, bound in enumerate(BOUNDS)
    ],
)
def test_at_the_limit_and_past_it(bound: Bound) -> None:
    found, puppet = bound.outcome(bound.size)
    assert found == bound.fits
    assert puppet.conn.error is None
    found, puppet = bound.outcome(bound.size + (1 if bound.smallest else -1))
    assert found == bound.past
    if puppet.conn.error is not None and bound.field not in {
        "window",
        "channel_packet",
        "packet",
        "packet_before_auth",
    }:
        assert type(puppet.conn.error).__name__ in {"LimitExceeded", "AuthExhausted", "KeyExchangeFailed"}
        assert getattr(puppet.conn.error, "limit", bound.field) in {bound.field, "deferred_packets"}


@pytest.mark.covers("B3", "R21", "R22")
@pytest.mark.parametrize("role", Role)
def test_the_packet_sizes_that_everybody_must_take(role: Role) -> None:
    """35000 bytes in all, before login as well (RFC 4253 section 6.1)."""
    puppet = bring(role, "K0")
    assert puppet.outcome_of(lambda: puppet.write(ignore_of(34_996))) == "."
    assert puppet.outcome_of(lambda: puppet.write(ignore_of(35_004))) == "D"
    puppet = bring(role, "C")
    assert puppet.outcome_of(lambda: puppet.write(ignore_of(256 * 1024 - 4))) == "."
    assert puppet.outcome_of(lambda: puppet.write(ignore_of(256 * 1024 + 4))) == "D"


# --------------------------------------------------------------------------------------------- sizes that are constants


@attrs.frozen
class Constant:
    """A bound that is not configured: what comes of ``limit``, and of one more."""

    title: str
    limit: int
    role: Role
    state: str
    make: Callable[[int], m.Message]
    fits: str
    past: str
    covers: tuple[str, ...]


def pty(term: str, modes: bytes) -> m.Message:
    return asks("pty-req", text(term) + bytes(16) + string(modes))


STREAMLOCAL = r.DirectStreamlocal.type


def streamlocal(path: str) -> m.Message:
    return m.ChannelOpen(STREAMLOCAL, 9, WINDOW, 32768, text(path) + text("") + uint32(0))


CONSTANTS: list[Constant] = [
    Constant("extensions", 1024, CLIENT, "T", lambda n: m.ExtInfo((("x", b""),) * n), "ExtInfoReceived", "D",
             ("B21", "R131", "V25")),
    Constant("extensions", 1024, SERVER, "T", lambda n: m.ExtInfo((("x", b""),) * n), "ExtInfoReceived", "D",
             ("B21", "R131", "V25")),
    Constant("answers", 1, SERVER, "Akbd", lambda n: m.UserauthInfoResponse(("",) * n), "PromptsAnswered", "51",
             ("R78", "V25")),
    Constant("environment name", MAX_ENV_NAME, SERVER, "C", lambda n: env("x" * n, b""), "ChannelRequested", "100",
             ("B30", "R103")),
    Constant("environment value", MAX_ENV_VALUE, SERVER, "C", lambda n: env("x", bytes(n).replace(b"\0", b"x")),
             "ChannelRequested", "100", ("B30", "R103")),
    Constant("terminal", MAX_TERM, SERVER, "C", lambda n: pty("x" * n, b""), "ChannelRequested", "100",
             ("B30", "R100")),
    Constant("terminal modes", MAX_MODES, SERVER, "C", lambda n: pty("x", bytes(n)), "ChannelRequested", "100",
             ("B30", "R100", "V33")),
    Constant("socket path", MAX_SOCKET_PATH, SERVER, "C", lambda n: streamlocal("x" * n), "ChannelOpenRequested", "92",
             ("B31", "R152")),
    *[Constant("address", 255, SERVER, "C", lambda n, make=make: make("x" * n), "ChannelOpenRequested", "92",
               ("B31", "V77", "P21"))
      for make in (
          lambda words: m.ChannelOpen("direct-tcpip", 9, WINDOW, 32768, r.DirectTcpip(words, 1).encode()),
          lambda words: m.ChannelOpen("direct-tcpip", 9, WINDOW, 32768, r.DirectTcpip("h", 1, words).encode()),
          lambda words: m.ChannelOpen(STREAMLOCAL, 9, WINDOW, 32768, r.DirectStreamlocal("/x", words).encode()))],
    Constant("channel type", 64, SERVER, "C", lambda n: m.ChannelOpen("x" * n, 9, WINDOW, 32768),
             "ChannelOpenRequested", "92", ("R6", "R86")),
    Constant("request type", 64, SERVER, "C", lambda n: asks("x" * n), "ChannelRequested", "100", ("R6", "R97")),
    Constant("signal", 64, SERVER, "C", lambda n: m.ChannelRequest(CHANNEL, "signal", False, name("X" * n)),
             "ChannelNotified", ".", ("R6", "R106", "P21")),
    Constant("global request type", 64, SERVER, "C", lambda n: m.GlobalRequest("x" * n, True), "GlobalRequested", "82",
             ("R6", "R85")),
    Constant("port", 65535, SERVER, "C", lambda n: m.GlobalRequest("tcpip-forward", True, text("h") + uint32(n)),
             "GlobalRequested", "82", ("V77",)),
    *[Constant("window", 2**32 - 1 - WINDOW, role, "C", lambda n: m.ChannelWindowAdjust(CHANNEL, n), ".", "D",
               ("V29", "R88")) for role in Role],
    *[Constant("data", WINDOW, role, "C", lambda n: m.ChannelData(CHANNEL, bytes(n)), "DataReceived", "D",
               ("V30", "R89")) for role in Role],
    Constant("extended data", WINDOW, CLIENT, "C", lambda n: m.ChannelExtendedData(CHANNEL, 1, bytes(n)),
             "DataReceived", "D", ("V30", "R92")),
]  # fmt: skip


@pytest.mark.parametrize(
    "constant",
    [
        pytest.param(constant, marks=pytest.mark.covers("R161", *constant.covers), id=f"{constant.title}-{index}")
        for index, constant in enumerate(CONSTANTS)
    ],
)
def test_at_a_constant_and_past_it(constant: Constant) -> None:
    for size, expected in ((constant.limit, constant.fits), (constant.limit + 1, constant.past)):
        assert bring(constant.role, constant.state).outcome(constant.make(size)) == expected


@pytest.mark.covers("B36", "R8", "R48", "V70")
@pytest.mark.parametrize(
    ("message", "text_of"),
    [
        (m.Disconnect(11, "\x1b" + "x" * 100_000), lambda event: event.error.description),
        (m.Debug(True, "\x1b" + "x" * 100_000), lambda event: event.message),
        (m.ChannelOpenFailure(CHANNEL + 1, 1, "\x1b" + "x" * 100_000), lambda event: event.description),
    ],
    ids=["DISCONNECT", "DEBUG", "CHANNEL_OPEN_FAILURE"],
)
def test_what_is_shown_of_long_words(message: m.Message, text_of: Callable[[Any], str]) -> None:
    puppet = bring(CLIENT, "C")
    puppet.conn.open_channel(r.UnknownOpen("x@example.org"))
    (event,) = puppet.say(message)
    shown = text_of(event)
    assert 256 <= len(shown) <= 4096 + len("\\x1b…")
    assert "\x1b" not in shown


# --------------------------------------------------------------------------------------------------------- what waits


@pytest.mark.covers("B4", "B5", "V83")
def test_input_that_waits() -> None:
    """While the application thinks, nothing is looked at; reading pauses, and who reads on all the same is cut off."""
    packets = frame(request("none").encode()) * 1000
    limits = Limits(input_hard=10 * len(packets), packet=65536)
    puppet = bring_with(SERVER, "A", limits=limits)
    puppet.say(request("none"))
    for _ in range(10):
        assert not puppet.write(packets)
        assert puppet.conn.want_read == (puppet.conn._engine.opener.buffered <= 65536 + 65536)
    assert not puppet.conn.want_read
    assert len(puppet.conn.questions) == 1
    assert not puppet.write(b"\0")  # just at the limit: so much waited already
    error = loss(puppet.write(b"\0"))
    assert isinstance(error, LimitExceeded)
    assert error.limit == "input_hard"
    assert puppet.conn._engine.opener.buffered == 0


@pytest.mark.covers("B5", "V81", "R64")
@pytest.mark.parametrize("role", Role)
def test_one_packet_for_one_event(role: Role) -> None:
    """What has come is opened as its events are asked for, so that no queue of events can grow."""
    puppet = bring(role, "C")
    puppet.conn.receive_data(frame(m.Pong(b"x").encode()) * 1000, 0.0)
    before = puppet.conn._engine.opener.buffered
    for count in range(1, 4):
        assert isinstance(puppet.conn.next_event(), ev.PongReceived)
        assert before - puppet.conn._engine.opener.buffered == count * len(frame(m.Pong(b"x").encode()))
        assert not puppet.conn._engine.events


@pytest.mark.covers("B6", "B7", "V13")
def test_output_that_waits() -> None:
    """At the high-water mark nothing more is taken and reading pauses; taking the output lets both go on."""
    pong = len(frame(m.Pong(bytes(19)).encode()))
    puppet = bring_with(SERVER, "C", limits=Limits(output_high=10 * pong))
    puppet.say(*[m.Ping(bytes(19))] * 9)
    assert puppet.conn.want_read
    assert puppet.conn.sendable(CHANNEL)
    puppet.say(m.Ping(bytes(19)))
    assert not puppet.conn.want_read
    assert puppet.conn.sendable(CHANNEL) == 0
    assert puppet.conn.send(CHANNEL, b"x") == 0
    assert len(puppet.heard()) == 10
    assert puppet.conn.want_read
    assert puppet.pump() == [ev.ChannelWritable(CHANNEL)]


@pytest.mark.covers("B11", "V13")
@pytest.mark.parametrize("role", Role)
def test_what_the_application_sends_while_keys_are_exchanged(role: Role) -> None:
    """Data is not taken, small messages are up to a limit, and then raise; nothing is lost that was taken."""
    puppet = bring_with(role, "CR1", limits=Limits(deferred_packets=3))
    assert puppet.conn.send(CHANNEL, b"x") == 0
    for _ in range(3):
        puppet.conn.request(CHANNEL, r.KeepaliveChannel())
    with pytest.raises(LimitReached):
        puppet.conn.request(CHANNEL, r.KeepaliveChannel())
    assert not puppet.heard()
    puppet.say(puppet.kexinit(first=False))
    puppet.exchange()
    puppet.say(m.NewKeys())
    assert puppet.conn._engine.outbox._deferred_size == 0


def rekey(puppet: Puppet, now: float = 0.0) -> bool:
    """The peer rekeys, from its KEXINIT to its NEWKEYS; whether it may."""
    puppet.say(puppet.kexinit(first=False), now=now)
    if puppet.conn.should_close:
        return False
    puppet.exchange()
    puppet.new_keys()
    return True


@pytest.mark.covers("B12", "V13", "V45", "P5")
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("state", ["T", "A"])
def test_rekeys_of_the_peer_before_login(role: Role, state: str) -> None:
    """So many in all, time and data earn none; those that we start don't count, and those after login don't either."""
    limits = Limits(rekeys_before_auth=3)
    puppet = bring_with(role, state, limits=limits)
    assert [rekey(puppet, 100.0 * index) for index in range(4)] == [True, True, True, False]
    error = puppet.conn.error
    assert isinstance(error, LimitExceeded)
    assert error.limit == "rekeys_before_auth"
    assert error.code == 2

    puppet = bring_with(role, state, limits=limits)
    for _ in range(5):
        puppet.conn._engine._start_rekey()  # nothing in there does so before login
        puppet.heard()
        assert rekey(puppet)
    assert [rekey(puppet) for _ in range(4)] == [True, True, True, False]


@pytest.mark.covers("B12", "P5", "P6")
@pytest.mark.parametrize("role", Role)
def test_rekeys_of_the_peer_after_login_are_others(role: Role) -> None:
    puppet = bring_with(role, "A", limits=Limits(rekeys_before_auth=3))
    assert all(rekey(puppet) for _ in range(3))
    STATES[role]["C0"][1](puppet)
    assert all(rekey(puppet) for _ in range(10))


@pytest.mark.covers("B12", "V13", "V15")
@pytest.mark.parametrize("role", Role)
def test_rekeys_of_the_peer(role: Role) -> None:
    """So many in a row; after a while, or for so many bytes, more."""
    limits = Limits(peer_rekeys=3, peer_rekey_bytes=10_000)

    puppet = bring_with(role, "C", limits=limits)
    assert [rekey(puppet, 0.0) for _ in range(4)] == [True, True, True, False]
    error = puppet.conn.error
    assert isinstance(error, LimitExceeded)
    assert error.limit == "peer_rekeys"

    puppet = bring_with(role, "C", limits=limits)
    assert all(rekey(puppet, 20.0 * index) for index in range(10))  # three in a minute

    puppet = bring_with(role, "C", limits=limits)
    for _ in range(10):
        puppet.write(ignore_of(10_004 - 8))
        assert rekey(puppet, 0.0)


@pytest.mark.covers("B13", "R9", "R10", "R44", "R114", "R115")
@pytest.mark.parametrize("role", Role)
def test_a_worn_key(role: Role) -> None:
    """The packet that reaches a limit starts the exchange, not one before it and not one after."""
    size = len(ignore_of(996))
    opener = bring_with(role, "C").conn._engine.opener
    for limits in (Limits(rekey_packets=opener.packets + 8), Limits(rekey_bytes=opener.served + 8 * size)):
        puppet = bring_with(role, "C", limits=limits)
        assert [puppet.outcome_of(functools.partial(puppet.write, ignore_of(996))) for _ in range(9)] == [
            *["."] * 7,
            "20",
            ".",  # once is enough
        ]


@pytest.mark.covers("B26")
def test_windows_share_a_pool() -> None:
    """What the peers of all channels together may send is bounded, whatever it is that they open."""
    puppet = bring_with(SERVER, "C0", limits=Limits(window=1000, window_pool=2500, window_floor=100))
    offered = []
    for number in range(5):
        puppet.say(m.ChannelOpen("session", number, WINDOW, 32768))
        puppet.conn.accept_channel(puppet.asked(ev.ChannelOpenRequested))
        (payload,) = puppet.heard()
        offered.append(m.ChannelOpenConfirmation.parse(payload).initial_window_size)
    assert offered == [1000, 1000, 500, 100, 100]


@pytest.mark.covers("B23", "V45")
def test_signatures_that_are_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than logins may fail, and one; queries verify nothing."""
    count = 0
    verify = PublicKey.verify

    def counting(self: PublicKey, *arguments: Any, **options: Any) -> Assertion | None:
        nonlocal count
        count += 1
        return verify(self, *arguments, **options)

    puppet = bring(SERVER, "A")
    monkeypatch.setattr(PublicKey, "verify", counting)
    form = methods.PublicKeySigned("ssh-ed25519", BLOB, string(b"ssh-ed25519") + string(bytes(64)))
    query = methods.request("alice", methods.PublicKeyQuery("ssh-ed25519", BLOB))
    for _ in range(50):
        puppet.say(query)
        for question in puppet.conn.questions:
            puppet.conn.offer_key(question)
    assert count == 0
    for _ in range(20):
        puppet.say(methods.request("alice", form))
    assert puppet.conn.should_close
    assert count == Limits().auth_failures + 1


@pytest.mark.covers("B23", "V45", "V51")
def test_signatures_of_authorities_that_are_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each request with a certificate, of which there are so many as of other requests, and fewer bad ones."""
    count = 0
    verify = PublicKey.verify

    def counting(self: PublicKey, *arguments: Any, **options: Any) -> Assertion | None:
        nonlocal count
        count += 1
        return verify(self, *arguments, **options)

    limits = Limits(auth_requests=30)
    good = USER_CERTIFICATE.blob
    bad = good[:-1] + bytes([good[-1] ^ 1])
    monkeypatch.setattr(PublicKey, "verify", counting)
    for blob, most in ((good, limits.auth_requests), (bad, limits.auth_failures + 1)):
        count, puppet = 0, bring_with(SERVER, "A", limits=limits)
        count = 0
        for _ in range(50):
            puppet.say(methods.request("alice", methods.PublicKeyQuery("ssh-ed25519-cert-v01@openssh.com", blob)))
            for question in puppet.conn.questions:
                puppet.conn.offer_key(question)
        assert puppet.conn.should_close
        assert count == most


@pytest.mark.covers("B5", "V35", "P21")
@pytest.mark.parametrize("role", Role)
def test_what_was_decided_makes_room(role: Role) -> None:
    """Whatever becomes of a question, what it held is given back: it is answered, or void, or all has ended."""
    puppet = bring_with(role, "C", limits=Limits(undecided_bytes=300))
    questions = puppet.conn._engine.questions
    asked, globally = asks("x@example.org", bytes(100)), m.GlobalRequest("x@example.org", True, bytes(100))
    opened = m.ChannelOpen("x@example.org", 9, WINDOW, 32768, bytes(100))
    for _ in range(3):
        puppet.say(asked, globally, opened)
        assert questions.size == 300
        assert puppet.outcome(globally) == "."  # refused, behind the other, which is undecided
        puppet.conn.succeed(puppet.asked(ev.ChannelRequested))
        puppet.conn.fail(puppet.asked(ev.GlobalRequested))
        puppet.conn.reject_channel(puppet.asked(ev.ChannelOpenRequested))
        assert questions.size == 0
        puppet.heard()
    puppet.say(asked, asked)
    assert questions.size == 200
    puppet.conn.close_channel(CHANNEL)
    assert questions.size == 0
    puppet.say(globally, opened)
    assert questions.size == 200
    puppet.conn.disconnect()
    assert questions.size == 0


# --------------------------------------------------------------------------------------------------------------- memory


def refuse_all(puppet: Puppet) -> None:
    for question in puppet.conn.questions:
        if not isinstance(question, ev.CredentialNeeded):  # a user may think; saying no would be the end
            puppet.conn.refuse(question)


def drain(puppet: Puppet) -> None:
    """The pump rule, with an application that refuses everything and throws all data away."""
    while True:
        while (event := puppet.conn.next_event()) is not None:
            if isinstance(event, ev.DataReceived):
                puppet.conn.credit(event.channel, len(event.data))
        refuse_all(puppet)
        if not puppet.conn.data_to_send():
            return


def one_of(*messages: m.Message | bytes) -> Callable[[int], list[m.Message | bytes]]:
    return lambda index: list(messages)


def open_and_close(index: int) -> list[m.Message | bytes]:
    """A channel of the peer, which our application refuses."""
    return [m.ChannelOpen("session", 1000 + index, WINDOW, 32768)]


FLOODS: dict[str, tuple[tuple[Role, ...], str, Callable[[int], list[m.Message | bytes]]]] = {
    "IGNORE": ((CLIENT, SERVER), "C", one_of(m.Ignore(bytes(100)))),
    "DEBUG": ((CLIENT, SERVER), "C", one_of(m.Debug(True, "x" * 100))),
    "UNIMPLEMENTED": ((CLIENT, SERVER), "C", lambda index: [m.Unimplemented(index)]),
    "unknown": ((CLIENT, SERVER), "C", one_of(bytes((200,)) * 100)),
    "PING": ((CLIENT, SERVER), "C", one_of(m.Ping(bytes(100)))),
    "PONG": ((CLIENT, SERVER), "C", one_of(m.Pong(bytes(100)))),
    "GLOBAL_REQUEST": ((CLIENT, SERVER), "C", lambda index: [m.GlobalRequest(f"x{index}@example.org", True)]),
    "GLOBAL_REQUEST without reply": ((CLIENT, SERVER), "C", lambda index: [m.GlobalRequest(f"x{index}", False)]),
    "tcpip-forward": (
        (SERVER,),
        "C",
        lambda index: [m.GlobalRequest("tcpip-forward", True, text(f"h{index}") + uint32(1 + index))],
    ),
    "CHANNEL_OPEN": ((CLIENT, SERVER), "C", open_and_close),
    "CHANNEL_OPEN of no kind": ((CLIENT, SERVER), "C", lambda index: [m.ChannelOpen(f"x{index}", 1000, WINDOW, 32768)]),
    "CHANNEL_WINDOW_ADJUST": ((CLIENT, SERVER), "C", one_of(m.ChannelWindowAdjust(CHANNEL, 1))),
    "CHANNEL_DATA": ((CLIENT, SERVER), "C", one_of(m.ChannelData(CHANNEL, bytes(100)))),
    "CHANNEL_EXTENDED_DATA": ((CLIENT, SERVER), "C", one_of(m.ChannelExtendedData(CHANNEL, 1, bytes(100)))),
    "extended data of no type": ((CLIENT, SERVER), "C", one_of(m.ChannelExtendedData(CHANNEL, 77, bytes(100)))),
    "CHANNEL_REQUEST": ((CLIENT, SERVER), "C", lambda index: [asks(f"x{index}@example.org")]),
    "exit-signal": (
        (CLIENT,),
        "C",
        one_of(m.ChannelRequest(CHANNEL, "exit-signal", False, name("TERM") + b"\0" + text("x" * 50) + text(""))),
    ),
    "env": ((SERVER,), "C", lambda index: [env(f"X{index}", b"x" * 100)]),
    "pty-req": ((SERVER,), "C", one_of(pty("vt100", bytes(50)))),
    "IGNORE before keys": ((CLIENT, SERVER), "K0", one_of(m.Ignore(bytes(100)))),
    "DEBUG before keys": ((CLIENT, SERVER), "K0", one_of(m.Debug(True, "x" * 100))),
    "unknown before keys": ((CLIENT, SERVER), "K0", one_of(bytes((8,)) * 100)),
    "UNIMPLEMENTED before login": ((CLIENT, SERVER), "A", lambda index: [m.Unimplemented(index)]),
    "unknown before login": ((CLIENT, SERVER), "A", one_of(bytes((79,)) * 100)),
}
FLOOD_CASES = [(role, title) for title, (roles, _, _) in FLOODS.items() for role in roles]
ROUNDS = 250
FLAT = 8192
"""Bytes for all rounds together: the least object for each would be more, a fresh pool of padding is less."""


@pytest.mark.covers("V17", "V25", "V31", "V33", "V35", "B15", "B27", "P21")
@pytest.mark.parametrize(("role", "title"), FLOOD_CASES, ids=[f"{title}-{role.value}" for role, title in FLOOD_CASES])
def test_a_flood_leaves_nothing_behind(role: Role, title: str) -> None:
    """After as many messages again, the connection is no larger."""
    _, state, make = FLOODS[title]
    puppet = bring(role, state)

    def flood(first: int) -> None:
        for index in range(first, first + ROUNDS):
            puppet.conn.receive_data(
                b"".join(frame(p if isinstance(p, bytes) else p.encode()) for p in make(index)), 0.0
            )
            drain(puppet)

    flood(0)
    assert puppet.conn.error is None
    size = held_by(lambda: flood(ROUNDS))
    assert puppet.conn.error is None
    assert size < FLAT


def held_by(action: Callable[[], object]) -> int:
    """Bytes that are allocated by ``action`` and still there after it."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        action()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.covers("V35", "B12", "V15", "P21")
@pytest.mark.parametrize("role", Role)
def test_rekeys_leave_nothing_behind(role: Role) -> None:
    puppet = bring_with(role, "C", limits=Limits(peer_rekeys=1000))

    def rekey(times: int) -> None:
        for _ in range(times):
            puppet.say(puppet.kexinit(first=False))
            puppet.exchange()
            puppet.new_keys()
            puppet.events.clear()

    rekey(10)
    assert held_by(lambda: rekey(20)) < 16 * 1024  # one KEXINIT of each would be more; Python's own caches take some
    assert puppet.conn.error is None


@pytest.mark.covers("V16", "V35", "R95", "P21")
@pytest.mark.parametrize("role", Role)
def test_channels_that_come_and_go_leave_nothing_behind(role: Role) -> None:
    """The peer's channels, with data and requests on them, closed by it; and ours, refused."""
    puppet = bring(role, "C0")

    def come_and_go(times: int) -> None:
        for index in range(times):
            puppet.say(m.ChannelOpen("x@example.org", index, WINDOW, 32768))
            question = puppet.asked(ev.ChannelOpenRequested)
            puppet.conn.accept_channel(question, window=WINDOW)
            number = question.channel
            puppet.say(m.ChannelData(number, bytes(100)), m.ChannelRequest(number, "x@example.org", True))
            puppet.say(m.ChannelClose(number))  # with the request unanswered and the data not credited
            ours = puppet.conn.open_channel(r.UnknownOpen("x@example.org"))
            puppet.say(m.ChannelOpenFailure(ours, 1, "no"))
            puppet.heard()
            puppet.events.clear()
            assert not puppet.conn.channels

    come_and_go(50)
    assert held_by(lambda: come_and_go(ROUNDS)) < FLAT
    assert not puppet.conn.questions


@pytest.mark.covers("B5", "V35", "P21")
@pytest.mark.parametrize("role", Role)
def test_what_a_channel_was_asked_for_with_does_not_stay_with_it(role: Role) -> None:
    """The particulars of an unknown kind count until the application has decided, and are gone then."""
    puppet = bring(role, "C0")

    def accept(first: int) -> None:
        for index in range(first, first + 20):
            puppet.say(m.ChannelOpen("x@example.org", index, WINDOW, 32768, bytes(30_000)))
            puppet.conn.accept_channel(puppet.asked(ev.ChannelOpenRequested), window=WINDOW)
            puppet.heard()
            puppet.events.clear()

    accept(0)
    assert held_by(lambda: accept(20)) < 20 * 4000
    assert len(puppet.conn.channels) == 40


@pytest.mark.covers("V61", "V35", "P21")
def test_logins_leave_nothing_behind() -> None:
    puppet = bring_with(SERVER, "A", limits=Limits(auth_requests=1000, auth_failures=1000))

    def fail(first: int) -> None:
        for index in range(first, first + ROUNDS):
            puppet.say(m.UserauthRequest(f"user{index}", "ssh-connection", f"method{index}"))
            puppet.say(m.UserauthRequest(f"user{index}", "ssh-connection", "none"))
            refuse_all(puppet)
            puppet.heard()
            puppet.events.clear()

    fail(0)
    assert held_by(lambda: fail(ROUNDS)) < FLAT
    assert puppet.conn.error is None


@pytest.mark.covers("B34")
@pytest.mark.parametrize("role", Role)
def test_an_idle_connection_is_small(role: Role) -> None:
    """With one channel, its keys agreed on and its buffers empty."""
    bring_with(role, "C")
    made: list[Puppet] = []
    size = held_by(lambda: made.extend(bring_with(role, "C") for _ in range(5)))
    assert size / len(made) < 64 * 1024


@pytest.mark.covers("V21", "V25", "V26", "B4")
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("state", ["I", "K0", "C"])
def test_what_is_declared_takes_no_memory(role: Role, state: str) -> None:
    """The largest packet there may be, announced and never sent."""
    limit = Limits().packet if state == "C" else Limits().packet_before_auth
    puppet = bring(role, state)
    head = b"SSH-2.0-" if state == "I" else (limit - limit % 8 - 4).to_bytes(4, "big")
    assert held_by(lambda: puppet.write(head + b"\x04")) < 4096
    assert puppet.conn.error is None


# ----------------------------------------------------------------------------------------------------------------- work


class CountingStore(bytearray):
    """Where an opener keeps what it has read halfway; counts the bytes that are put into it."""

    moved = 0

    def __iadd__(self, data: Any) -> Any:
        CountingStore.moved += len(data)
        return super().__iadd__(data)

    def __setitem__(self, index: Any, data: Any) -> None:
        CountingStore.moved += len(data)
        super().__setitem__(index, data)


def calls_of(action: Callable[[], object]) -> int:
    """How many calls of functions ``action`` leads to, of Python's and of C's."""
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def feed(puppet: Puppet, data: bytes, size: int) -> None:
    for start in range(0, len(data), size):
        puppet.conn.receive_data(data[start : start + size], 0.0)
        while (event := puppet.conn.next_event()) is not None:
            if isinstance(event, ev.DataReceived):
                puppet.conn.credit(event.channel, len(event.data))
        puppet.conn.data_to_send()


Suite = tuple[str, str | None]
SUITES: list[Suite | None] = [
    None,
    ("aes128-gcm@openssh.com", None),
    ("chacha20-poly1305@openssh.com", None),
    ("aes128-ctr", "hmac-sha2-256"),
    ("aes128-ctr", "hmac-sha2-256-etm@openssh.com"),
]


def keys_for(suite: Suite) -> DirectionKeys:
    return DirectionKeys(*(bytes(size) for size in key_sizes(*suite)))


def packed(suite: Suite | None, payload: m.Message, times: int) -> bytes:
    """The same message so many times, in packets of a suite."""
    sealer = Sealer(entropy=lambda count, label: bytes(count))
    if suite is not None:
        sealer.switch(*suite, keys_for(suite), reset_sequence=True)
    return b"".join(bytes(sealer.seal(payload.encode())) for _ in range(times))


def work(role: Role, suite: Suite | None, data: bytes, size: int) -> tuple[int, int]:
    """Calls, and bytes moved in the opener's store, when ``data`` is fed in pieces of ``size``."""
    puppet = bring(role, "C")
    opener = puppet.conn._engine.opener
    if suite is not None:
        opener.switch(*suite, keys_for(suite), reset_sequence=True)
    opener._view.release()
    opener._store = CountingStore()
    opener._view = memoryview(opener._store)
    CountingStore.moved = 0
    calls = calls_of(lambda: feed(puppet, data, size))
    assert puppet.conn.error is None
    assert opener.buffered == 0
    return calls, CountingStore.moved


SMALL = m.ChannelData(CHANNEL, b"x")
LARGE = m.Ignore(bytes(100_000))


@pytest.mark.covers("B33", "R163")
@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_the_work_for_small_packets_is_the_same_however_they_come(suite: Suite | None) -> None:
    """So much for each packet and so much for each feed, from a byte to all at once; nothing for what waits already."""
    packets = 200
    data = packed(suite, SMALL, packets)
    at_once, _ = work(SERVER, suite, data, 2**20)
    assert at_once <= 80 * packets
    for size in (1, 8, 64, 512, 4096):
        feeds = -(-len(data) // size)
        calls, moved = work(SERVER, suite, data, size)
        assert calls <= at_once + 30 * feeds
        assert moved <= 2 * len(data)
    calls, moved = work(SERVER, suite, data, 64)
    twice, moved_twice = work(SERVER, suite, packed(suite, SMALL, 2 * packets), 64)
    assert twice <= 2.1 * calls
    assert moved_twice <= 2.1 * moved


@pytest.mark.covers("B33", "R163")
@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_the_work_for_a_large_packet_is_the_same_however_it_comes(suite: Suite | None) -> None:
    data = packed(suite, LARGE, 1)
    for size in (64, 4096, 65536, 2**20):
        feeds = -(-len(data) // size)
        calls, moved = work(CLIENT, suite, data, size)
        assert calls <= 150 + 30 * feeds
        assert moved <= 2 * len(data)


@pytest.mark.covers("B33", "B4")
@pytest.mark.parametrize("role", Role)
def test_a_backlog_makes_nothing_dearer(role: Role) -> None:
    """What waits unopened, behind a question or because nobody asks for events, is not touched by what comes after."""
    puppet = bring(role, "C")
    puppet.conn.receive_data(packed(None, SMALL, 8000), 0.0)
    store = CountingStore()
    opener = puppet.conn._engine.opener
    store += bytes(opener._view)
    opener._view.release()
    opener._store = store
    opener._view = memoryview(store)
    CountingStore.moved = 0
    calls = calls_of(lambda: [puppet.conn.receive_data(b"\0", 0.0) for _ in range(1000)])
    assert CountingStore.moved == 1000
    assert calls <= 30 * 1000


@pytest.mark.covers("V36", "V37", "B1", "B2", "B33")
@pytest.mark.parametrize("role", Role)
def test_the_work_for_an_identification_is_the_same_however_it_comes(role: Role) -> None:
    lines = b"x" * 60 + b"\n"
    data = (lines * 1000 if role is CLIENT else b"") + b"SSH-2.0-" + b"y" * 240 + b"\r\n"
    for size in (1, 100, 2**20):
        feeds = -(-len(data) // size)
        puppet = bring(role, "I")
        calls = calls_of(lambda puppet=puppet, size=size: feed(puppet, data, size))
        assert puppet.conn.peer_version is not None
        assert calls <= 40 * 1000 + 60 * feeds + 1000


@pytest.mark.covers("V37", "B8")
@pytest.mark.parametrize("role", Role)
def test_the_work_for_a_long_offer(role: Role) -> None:
    """As many unknown names as there may be, in every list, do not make the choice quadratic."""

    def offer(count: int) -> int:
        names = tuple(f"x{index}@y" for index in range(count))
        fields = {
            field.name: (*names, *getattr(m.KexInit.parse(bring(role, "K0").kexinit()), field.name))
            for field in attrs.fields(m.KexInit)
            if field.name.endswith(("_server", "_client", "_algorithms"))
        }
        puppet = bring(role, "K0")
        payload = puppet.kexinit(strict=False, extensions=False, **fields)
        calls = calls_of(lambda: puppet.say(payload))
        assert puppet.conn.error is None
        return calls

    few, many = offer(60), offer(240)
    assert many < 5 * few


@pytest.mark.covers("V34", "B32", "B3")
def test_the_bound_of_a_compressed_payload_is_that_of_a_packet() -> None:
    """A small packet that becomes a large one, at the limit and past it."""
    for size, expected in ((40_000, "."), (40_001, "D6")):
        puppet = bring_with(SERVER, "C", limits=Limits(packet=40_000))
        puppet.conn._engine.opener.set_compression("zlib@openssh.com", authenticated=True)
        packed = Deflater().deflate(m.Ignore(bytes(size - 5)).encode(), b"")
        assert len(packed) < 100
        assert puppet.outcome(packed) == expected
