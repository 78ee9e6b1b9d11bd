"""The multiplexer, one rule after the other."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from sshproto.channels import requests as r
from sshproto.channels.requests import OpenFailure
from sshproto.config import Limits
from sshproto.errors import (
    AlreadyAnswered,
    ChannelStateError,
    InvalidArgument,
    LimitExceeded,
    LimitReached,
    ProtocolViolation,
    UnknownChannel,
    UsageError,
    WireError,
)
from sshproto.events import (
    ChannelClosed,
    ChannelNotified,
    ChannelOpened,
    ChannelOpenFailed,
    ChannelOpenRequested,
    ChannelRequested,
    ChannelWritable,
    DataReceived,
    EofReceived,
    GlobalFailed,
    GlobalRequested,
    GlobalSucceeded,
    RequestFailed,
    RequestSucceeded,
)
from sshproto.wire import messages as m
from sshproto.wire.codec import string, text, uint32
from sshproto.wire.table import Role

MAX = 2**32 - 1


def opened(side: Any, *, peer: int = 50, window: int = 1000, packet: int = 100, **options: Any) -> int:
    """A channel that the side (a client) opened, with the peer's conditions."""
    number: int = side.mux.open_channel(r.Session(), **options)
    side.feed(m.ChannelOpenConfirmation(number, peer, window, packet))
    side.take()
    side.told()
    return number


def accepted(side: Any, kind: Any = None, *, peer: int = 50, window: int = 1000, packet: int = 100) -> int:
    """A channel that the peer opened at the side."""
    kind = kind or r.Session()
    side.feed(m.ChannelOpen(kind.type, peer, window, packet, kind.encode()))
    (question,) = side.told()
    side.mux.accept_channel(question)
    side.take()
    return int(question.channel)


@pytest.fixture
def client(make_side: Any) -> Any:
    return make_side(Role.CLIENT, Limits())


@pytest.fixture
def server(make_side: Any) -> Any:
    return make_side(Role.SERVER, Limits())


# -------------------------------------------------------------------------------------------------------------- opening


@pytest.mark.covers("R87")
def test_open_and_accept(pair: Any) -> None:
    number = pair.client.mux.open_channel(r.Session(), window=5000, max_packet=500)
    pair.settle()
    (question,) = pair.server.told()
    assert question == ChannelOpenRequested(id=question.id, channel=0, kind=r.Session())
    pair.server.mux.accept_channel(question)
    pair.settle()
    assert pair.client.told() == [ChannelOpened(number)]
    assert pair.server.mux.sendable(0) == 5000
    assert pair.client.mux.channels == pair.server.mux.channels == (0,)


@pytest.mark.covers("R87", "V70")
def test_open_and_reject(pair: Any) -> None:
    number = pair.client.mux.open_channel(r.DirectTcpip("h", 1))
    pair.settle()
    (question,) = pair.server.told()
    pair.server.mux.reject_channel(question, OpenFailure.CONNECT_FAILED, "no\x1b[2J")
    pair.settle()
    assert pair.client.told() == [ChannelOpenFailed(number, 2, "no\\x1b[2J")]
    assert pair.client.mux.channels == pair.server.mux.channels == ()
    with pytest.raises(UnknownChannel, match="closed"):
        pair.client.mux.send(number, b"x")
    with pytest.raises(UnknownChannel, match="never was"):
        pair.client.mux.send(number + 1, b"x")
    assert pair.client.mux.open_channel(r.Session()) == number + 1  # never used twice


def test_what_a_confirmation_carries_is_told(client: Any) -> None:
    number = client.mux.open_channel(r.Session())
    client.feed(m.ChannelOpenConfirmation(number, 9, 1000, 1000, b"extra"))
    assert client.told() == [ChannelOpened(number, b"extra")]


def test_what_we_open_is_sent_as_the_rfc_says(client: Any) -> None:
    number = client.mux.open_channel(r.DirectTcpip("h", 80, "o", 9), window=7, max_packet=8)
    assert client.take() == [
        m.ChannelOpen("direct-tcpip", number, 7, 8, text("h") + uint32(80) + text("o") + uint32(9))
    ]
    client.mux.open_channel(r.Session())
    assert client.take() == [m.ChannelOpen("session", 1, 2 * 1024 * 1024, 32768)]


@pytest.mark.covers("V75", "R99", "R111", "R101", "V77", "R86")
@pytest.mark.parametrize(
    ("role", "kind", "payload", "code"),
    [
        (Role.CLIENT, "session", b"", 1),
        (Role.CLIENT, "direct-tcpip", text("h") + uint32(1) + text("o") + uint32(2), 1),
        (Role.CLIENT, "direct-streamlocal@openssh.com", text("/s") + text("") + uint32(0), 1),
        (Role.CLIENT, "forwarded-tcpip", text("h") + uint32(1) + text("o") + uint32(2), 1),
        (Role.CLIENT, "forwarded-streamlocal@openssh.com", text("/s") + text(""), 1),
        (Role.CLIENT, "x11", text("h") + uint32(1), 1),
        (Role.CLIENT, "auth-agent@openssh.com", b"", 1),
        (Role.SERVER, "forwarded-tcpip", text("h") + uint32(1) + text("o") + uint32(2), 1),
        (Role.SERVER, "x11", text("h") + uint32(1), 1),
        (Role.SERVER, "auth-agent@openssh.com", b"", 1),
        (Role.SERVER, "", b"", 3),  # no names
        (Role.SERVER, "x" * 65, b"", 3),
        (Role.SERVER, "a,b", b"", 3),
        (Role.SERVER, "session", b"x", 1),  # malformed
        (Role.SERVER, "direct-tcpip", text("h") + uint32(65536) + text("o") + uint32(2), 1),
        (Role.SERVER, "direct-tcpip", text("h" * 256) + uint32(1) + text("o") + uint32(2), 1),
    ],
)
def test_refused_opens(make_side: Any, role: Role, kind: str, payload: bytes, code: int) -> None:
    side = make_side(role, Limits())
    side.feed(m.ChannelOpen(kind, 9, 1000, 1000, payload))
    (answer,) = side.take()
    assert isinstance(answer, m.ChannelOpenFailure)
    assert (answer.recipient_channel, answer.reason) == (9, code)
    assert not side.told()
    assert side.mux.channels == ()


@pytest.mark.covers("B31")
def test_host_name_at_its_limit(server: Any) -> None:
    server.feed(m.ChannelOpen("direct-tcpip", 9, 1000, 1000, r.DirectTcpip("h" * 255, 1).encode()))
    assert isinstance(server.told()[0], ChannelOpenRequested)


@pytest.mark.covers("R85", "R86", "R97")
def test_unknown_kinds_and_requests_are_asked_about(server: Any) -> None:
    server.feed(m.ChannelOpen("tun@x", 9, 1000, 1000, b"p"))
    (question,) = server.told()
    assert question.kind == r.UnknownOpen("tun@x", b"p")
    server.mux.accept_channel(question)
    server.feed(m.ChannelRequest(0, "q@x", True, b"p"))
    (question,) = server.told()
    assert question.request == r.UnknownRequest("q@x", b"p")
    server.feed(m.GlobalRequest("g@x", True, b"p"))
    (asked,) = server.told()
    server.take()
    server.mux.succeed(question)
    server.mux.succeed(asked, b"anything")
    assert server.take() == [m.ChannelSuccess(9), m.RequestSuccess(b"anything")]


@pytest.mark.covers("V28")
@pytest.mark.parametrize("packet", [0, 1, 8, 63])
def test_peer_with_tiny_packets(client: Any, server: Any, packet: int) -> None:
    server.feed(m.ChannelOpen("session", 9, 1000, packet))
    (answer,) = server.take()
    assert isinstance(answer, m.ChannelOpenFailure)
    assert answer.reason == 4
    number = client.mux.open_channel(r.Session())
    with pytest.raises(LimitExceeded):
        client.feed(m.ChannelOpenConfirmation(number, 9, 1000, packet))


@pytest.mark.parametrize(
    ("packet", "used"), [(64, 64), (32768, 32768), (262080, 262080), (262081, 32768), (MAX, 32768)]
)
def test_peer_with_other_packets(client: Any, packet: int, used: int) -> None:
    number = opened(client, window=MAX, packet=packet)
    assert client.mux.send(number, bytes(600_000)) == 600_000
    assert max(len(message.data) for message in client.take()) == used


@pytest.mark.covers("V16", "R95")
def test_peer_numbers_are_unique(client: Any, server: Any) -> None:
    accepted(server, peer=7)
    with pytest.raises(ProtocolViolation, match="number 7"):
        server.feed(m.ChannelOpen("session", 7, 1000, 1000))
    first = client.mux.open_channel(r.Session())
    second = client.mux.open_channel(r.Session())
    client.feed(m.ChannelOpenConfirmation(first, 7, 1000, 1000))
    with pytest.raises(ProtocolViolation, match="number 7"):
        client.feed(m.ChannelOpenConfirmation(second, 7, 1000, 1000))


@pytest.mark.covers("R95")
def test_peer_number_is_free_after_both_closes(server: Any) -> None:
    number = accepted(server, peer=7)
    server.feed(m.ChannelClose(number))
    assert server.take() == [m.ChannelClose(7)]
    assert server.told() == [ChannelClosed(number)]
    accepted(server, peer=7)


def test_answering_an_open_twice(server: Any) -> None:
    server.feed(m.ChannelOpen("session", 9, 1000, 1000))
    (question,) = server.told()
    server.mux.accept_channel(question)
    before = server.state()
    with pytest.raises(AlreadyAnswered):
        server.mux.accept_channel(question)
    with pytest.raises(AlreadyAnswered):
        server.mux.reject_channel(question, 1, "no")
    assert server.state() == before


@pytest.mark.covers("B24", "B25")
def test_limits_on_opens(make_side: Any) -> None:
    """Each at the limit and one past it."""
    server = make_side(Role.SERVER, Limits(opens_pending=2, sessions=3, channels_from_peer=5))
    questions = []
    for peer in range(2):
        server.feed(m.ChannelOpen("session", peer, 1000, 1000))
    questions += server.told()
    server.feed(m.ChannelOpen("session", 2, 1000, 1000))
    assert [message.reason for message in server.take()] == [4]
    for question in questions:
        server.mux.accept_channel(question)
    accepted(server, peer=2)
    server.feed(m.ChannelOpen("session", 3, 1000, 1000))
    assert [message.reason for message in server.take()] == [4]
    accepted(server, r.DirectTcpip("h", 1), peer=3)
    accepted(server, r.DirectTcpip("h", 1), peer=4)
    server.feed(m.ChannelOpen("direct-tcpip", 5, 1000, 1000, r.DirectTcpip("h", 1).encode()))
    assert [message.reason for message in server.take()] == [4]
    server.feed(m.ChannelClose(0))
    server.take()
    server.told()
    accepted(server, peer=0)
    client = make_side(Role.CLIENT, Limits(channels_from_us=2))
    client.mux.open_channel(r.Session())
    client.mux.open_channel(r.Session())
    before = client.state()
    with pytest.raises(LimitReached):
        client.mux.open_channel(r.Session())
    assert client.state() == before


@pytest.mark.covers("R151")
def test_no_more_sessions(pair: Any) -> None:
    request = pair.client.mux.global_request(r.NoMoreSessions())
    first = pair.client.mux.open_channel(r.Session())
    pair.client.mux.open_channel(r.DirectTcpip("h", 1))
    pair.settle()
    told = pair.client.told()
    assert told[0] == GlobalSucceeded(request)
    assert (told[1].channel, told[1].reason) == (first, 1)
    assert [question.kind for question in pair.server.told()] == [r.DirectTcpip("h", 1)]


# -------------------------------------------------------------------------------------------------------- reverse opens


def forwarded(address: str, port: int, peer: int = 9) -> m.ChannelOpen:
    return m.ChannelOpen("forwarded-tcpip", peer, 1000, 1000, r.ForwardedTcpip(address, port).encode())


def allowed(client: Any, message: m.Message) -> bool:
    client.feed(message)
    events = client.told()
    for question in events:
        client.mux.reject_channel(question, 1, "no")
    client.take()
    return bool(events)


@pytest.mark.covers("V75", "R110", "R109")
def test_forwarded_tcpip_needs_a_forward(client: Any) -> None:
    client.mux.global_request(r.TcpipForward("10.1.1.1", 80))
    assert allowed(client, forwarded("10.1.1.1", 80))  # pending
    client.feed(m.RequestSuccess())
    client.told()
    assert allowed(client, forwarded("10.1.1.1", 80))
    assert not allowed(client, forwarded("10.1.1.1", 81))
    assert not allowed(client, forwarded("10.1.1.2", 80))
    client.mux.global_request(r.TcpipForward("10.1.1.1", 80))  # a second that fails does not spoil the first
    client.feed(m.RequestFailure())
    client.told()
    assert allowed(client, forwarded("10.1.1.1", 80))
    client.mux.global_request(r.CancelTcpipForward("10.1.1.1", 80))
    assert allowed(client, forwarded("10.1.1.1", 80))
    client.feed(m.RequestSuccess())
    client.told()
    assert not allowed(client, forwarded("10.1.1.1", 80))


@pytest.mark.covers("R108")
def test_forward_of_a_port_that_the_server_chooses(client: Any) -> None:
    request = client.mux.global_request(r.TcpipForward("", 0))
    client.feed(m.RequestSuccess(uint32(4711)))
    assert client.told() == [GlobalSucceeded(request, uint32(4711))]
    assert allowed(client, forwarded("192.168.0.1", 4711))
    assert not allowed(client, forwarded("", 4712))


@pytest.mark.covers("R108")
@pytest.mark.parametrize("data", [b"", b"\0\0\0", b"\0\0\0\0\1", uint32(0), uint32(65536)])
def test_reply_that_is_no_port(client: Any, data: bytes) -> None:
    client.mux.global_request(r.TcpipForward("", 0))
    with pytest.raises(ProtocolViolation, match="port"):
        client.feed(m.RequestSuccess(data))


def test_refused_forward(client: Any) -> None:
    client.mux.global_request(r.TcpipForward("", 80))
    client.feed(m.RequestFailure())
    client.told()
    assert not allowed(client, forwarded("", 80))


@pytest.mark.covers("R152", "V75")
def test_streamlocal(client: Any) -> None:
    message = m.ChannelOpen("forwarded-streamlocal@openssh.com", 9, 1000, 1000, r.ForwardedStreamlocal("/s").encode())
    assert not allowed(client, message)
    client.mux.global_request(r.StreamlocalForward("/s"), want_reply=False)
    assert allowed(client, message)
    client.mux.global_request(r.CancelStreamlocalForward("/s"), want_reply=False)
    assert not allowed(client, message)


@pytest.mark.covers("R101", "V75", "R12", "R102")
def test_x11_and_agent(client: Any) -> None:
    x11 = m.ChannelOpen("x11", 9, 1000, 1000, r.X11("h", 1).encode())
    agent = m.ChannelOpen("auth-agent@openssh.com", 9, 1000, 1000)
    number = opened(client)
    client.mux.request(number, r.X11Request(False, "MIT-MAGIC-COOKIE-1", "00"))
    client.mux.request(number, r.AuthAgentRequest())
    client.feed(m.ChannelSuccess(number))
    client.feed(m.ChannelFailure(number))
    client.told()
    assert allowed(client, x11)
    assert allowed(client, x11)
    assert not allowed(client, agent)
    client.mux.request(number, r.AuthAgentRequest())
    assert allowed(client, agent)
    client.feed(m.ChannelClose(number))
    client.told()
    assert not allowed(client, x11)
    assert not allowed(client, agent)
    number = opened(client)
    client.mux.request(number, r.X11Request(True, "MIT-MAGIC-COOKIE-1", "00"))
    assert allowed(client, x11)
    assert not allowed(client, x11)


@pytest.mark.covers("V75", "R12")
@pytest.mark.parametrize("request_", [r.AgentRequest(), r.AuthAgentRequest()], ids=lambda request: request.type)
def test_an_agent_is_offered_by_both_names_at_once(client: Any, request_: Any) -> None:
    """It is one offer, and a server that is asked by one name may know the other better."""
    opens = [m.ChannelOpen(name, 9, 1000, 1000) for name in ("agent-connect", "auth-agent@openssh.com")]
    number = opened(client)
    for open_ in opens:
        client.feed(open_)
        assert client.take() == [m.ChannelOpenFailure(9, r.OpenFailure.ADMINISTRATIVELY_PROHIBITED, "not requested")]
    client.mux.request(number, request_)
    assert all(allowed(client, open_) for open_ in opens)
    client.feed(m.ChannelFailure(number))
    client.told()
    assert not any(allowed(client, open_) for open_ in opens)


# ----------------------------------------------------------------------------------------------------------------- data


def test_data_event(client: Any) -> None:
    number = opened(client)
    payload = bytearray(m.ChannelData(number, b"hello").encode())
    event = client.mux.data(memoryview(payload))
    payload[:] = bytes(len(payload))
    assert event == DataReceived(number, b"hello", 0)
    assert type(event.data) is bytes


@pytest.mark.parametrize("payload", [b"\x5e", b"\x5e" + bytes(7), b"\x5e" + bytes(7) + b"\1", b"\x5e" + bytes(9)])
def test_malformed_data(client: Any, payload: bytes) -> None:
    opened(client)
    with pytest.raises(WireError):
        client.mux.data(memoryview(payload))


@pytest.mark.parametrize("payload", [b"\x5d", b"\x5d" + bytes(7), b"\x5d" + bytes(9)])
def test_malformed_adjust(client: Any, payload: bytes) -> None:
    opened(client)
    with pytest.raises(WireError):
        client.mux.adjust(memoryview(payload))


@pytest.mark.covers("V30", "R91")
def test_window_and_packet_size_bind_the_peer(client: Any) -> None:
    """Each at the limit and one past it, both kinds of data."""
    for make in (m.ChannelData, lambda n, d: m.ChannelExtendedData(n, 1, d)):
        number = opened(client, peer=len(client.mux.channels), window=1000, packet=100)
        other = client.mux.open_channel(r.Session(), window=25, max_packet=10)
        client.feed(m.ChannelOpenConfirmation(other, 100 + other, 1000, 100))
        client.feed(make(other, bytes(10)))
        with pytest.raises(ProtocolViolation, match="takes 10"):
            client.feed(make(other, bytes(11)))
        client.feed(make(other, bytes(10)))
        client.feed(make(other, bytes(5)))
        with pytest.raises(ProtocolViolation, match="0 left"):
            client.feed(make(other, b"x"))
        client.feed(make(number, bytes(32768)))


@pytest.mark.covers("V31")
def test_credit_goes_back_at_half_the_window(client: Any) -> None:
    number = opened(client, window=1000, packet=100)
    other = client.mux.open_channel(r.Session(), window=101, max_packet=100)
    client.feed(m.ChannelOpenConfirmation(other, 51, 1000, 100))
    client.take()
    client.feed(m.ChannelData(other, bytes(60)))
    client.mux.credit(other, 50)
    assert not client.take()
    client.mux.credit(other, 1)
    assert client.take() == [m.ChannelWindowAdjust(51, 51)]
    client.feed(m.ChannelData(other, bytes(92)))
    with pytest.raises(ProtocolViolation):
        client.feed(m.ChannelData(other, b"x"))
    before = client.state()
    for wrong in (102, -1, 1.0, "1", None):
        with pytest.raises(InvalidArgument):
            client.mux.credit(other, wrong)
    assert client.state() == before
    with pytest.raises(UnknownChannel):
        client.mux.credit(99, 0)
    client.feed(m.ChannelClose(other))
    client.take()
    client.mux.credit(other, 101)  # it is too late to matter
    assert not client.take()
    assert number in client.mux.channels


# Two windows of 1000 fill the pool but for 300.
POOL = Limits(window=1000, window_pool=2300, window_floor=200, opens_pending=10)


@pytest.mark.covers("B26")
def test_windows_share_a_pool(make_side: Any) -> None:
    """Whoever names no window gets what is left, and never less than the floor."""
    client = make_side(Role.CLIENT, POOL)

    def offered(**options: Any) -> int:
        client.mux.open_channel(r.Session(), **options)
        (message,) = client.take()
        return int(message.initial_window_size)

    assert [offered() for _ in range(5)] == [1000, 1000, 300, 200, 200]
    assert offered(window=700) == 700  # named: not cut
    assert offered(window=0) == 0
    assert offered() == 200
    for number in (0, 1):
        client.feed(m.ChannelOpenFailure(number, 1, "no"))
    assert offered() == 700  # 300 + 3 * 200 + 700 are promised still
    assert offered() == 200
    client.feed(m.ChannelOpenFailure(5, 1, "no"))
    assert offered() == 500
    assert offered() == 200


@pytest.mark.covers("B26")
@pytest.mark.parametrize(("spare", "window"), [(-1, 200), (0, 200), (1, 201), (799, 999), (800, 1000), (801, 1000)])
def test_the_pool_at_its_limits(make_side: Any, spare: int, window: int) -> None:
    """``spare`` is what the pool holds past the floor."""
    client = make_side(Role.CLIENT, POOL)
    client.mux.open_channel(r.Session(), window=2300 - 200 - spare)
    client.mux.open_channel(r.Session())
    assert [message.initial_window_size for message in client.take()] == [2100 - spare, window]


@pytest.mark.parametrize("by_us", [False, True])
def test_a_closed_channel_returns_its_share(make_side: Any, by_us: bool) -> None:
    server = make_side(Role.SERVER, POOL)

    def offered(peer: int, **options: Any) -> int:
        server.feed(m.ChannelOpen("session", peer, 1000, 1000))
        (question,) = server.told()
        server.mux.accept_channel(question, **options)
        (message,) = server.take()
        return int(message.initial_window_size)

    assert offered(0, window=2300) == 2300
    assert offered(1) == 200
    if by_us:
        server.mux.close_channel(0)
        assert server.take() == [m.ChannelClose(0)]
        assert offered(2) == 200  # the peer may still send
    server.feed(m.ChannelClose(0))
    server.take()
    assert server.told() == [ChannelClosed(0)]
    assert offered(3) == 1000
    server.feed(m.ChannelOpen("session", 4, 1000, 1000))
    (question,) = server.told()
    server.mux.reject_channel(question, 1, "no")  # it has no share
    server.take()
    assert offered(5) == (900 if by_us else 1000)


@pytest.mark.covers("V31", "R92")
def test_extended_data(client: Any, server: Any) -> None:
    number = client.mux.open_channel(r.Session(), window=100, max_packet=100)
    client.feed(m.ChannelOpenConfirmation(number, 50, 1000, 100))
    client.told()
    client.take()
    client.feed(m.ChannelExtendedData(number, 1, b"err"))
    assert client.told() == [DataReceived(number, b"err", 1)]
    client.mux.credit(number, 3)
    for kind in (0, 2, MAX):
        for _ in range(100):
            client.feed(m.ChannelExtendedData(number, kind, bytes(25)))
    assert not client.told()
    assert sum(message.bytes_to_add for message in client.take()) >= 7400
    number = accepted(server)
    server.feed(m.ChannelExtendedData(number, 1, b"err"))
    assert not server.told()
    direct = accepted(server, r.DirectTcpip("h", 1), peer=51)
    server.feed(m.ChannelExtendedData(direct, 1, b"err"))
    assert server.told() == [DataReceived(direct, b"err", 1)]


@pytest.mark.covers("B27")
@pytest.mark.parametrize("stream", [0, 1])
def test_empty_messages_are_counted(make_side: Any, stream: int) -> None:
    client = make_side(Role.CLIENT, Limits(empty_adjusts=3))
    number = opened(client)
    empty = m.ChannelExtendedData(number, 1, b"") if stream else m.ChannelData(number, b"")
    for message in (empty, m.ChannelWindowAdjust(number, 0), empty):
        client.feed(message)
    for message in (empty, m.ChannelWindowAdjust(number, 0)):
        with pytest.raises(LimitExceeded):
            client.feed(message)
    assert not client.told()


@pytest.mark.covers("R89")
def test_send_respects_window_and_packet(server: Any) -> None:
    number = accepted(server, window=250, packet=100)
    data = bytes(range(256)) * 2
    assert server.mux.sendable(number) == 250
    assert server.mux.send(number, data) == 250
    sent = server.take()
    assert [len(message.data) for message in sent] == [100, 100, 50]
    assert b"".join(message.data for message in sent) == data[:250]
    assert {message.recipient_channel for message in sent} == {50}
    assert server.mux.send(number, data) == 0
    assert server.mux.sendable(number) == 0
    server.feed(m.ChannelWindowAdjust(number, 1))
    assert server.told() == [ChannelWritable(number)]
    server.feed(m.ChannelWindowAdjust(number, 9))
    assert not server.told()  # once is enough
    assert server.mux.send(number, b"abcd", stream=1) == 4
    assert server.mux.send(number, b"abcdefgh", stream=1) == 6
    assert server.take() == [m.ChannelExtendedData(50, 1, b"abcd"), m.ChannelExtendedData(50, 1, b"abcdef")]
    assert server.mux.send(number, b"") == 0


@pytest.mark.parametrize(
    "data", [bytearray(b"abc"), memoryview(b"abc"), memoryview(b"abcdef")[::2][:3], memoryview(bytes(12)).cast("I")]
)
def test_send_takes_any_buffer(server: Any, data: Any) -> None:
    number = accepted(server, window=1000, packet=100)
    if isinstance(data, memoryview) and not data.contiguous:
        with pytest.raises(InvalidArgument):
            server.mux.send(number, data)
        return
    whole = bytes(memoryview(data).cast("B"))
    assert server.mux.send(number, data) == len(whole)
    assert server.take() == [m.ChannelData(50, whole)]


def test_send_misuse(client: Any) -> None:
    number = opened(client)
    opening = client.mux.open_channel(r.Session())
    before = client.state()
    for wrong in ("text", None, 5):
        with pytest.raises(InvalidArgument):
            client.mux.send(number, wrong)
    for stream in (1, 2, -1):
        with pytest.raises(InvalidArgument):
            client.mux.send(number, b"x", stream)
    with pytest.raises(ChannelStateError, match="OPENING"):
        client.mux.send(opening, b"x")
    assert client.state() == before
    client.mux.send_eof(number)
    before = client.state()
    for command in (lambda: client.mux.send(number, b"x"), lambda: client.mux.send_eof(number)):
        with pytest.raises(ChannelStateError, match="EOF was sent"):
            command()
    assert client.state() == before


@pytest.mark.covers("V29", "R88")
def test_window_overflow(client: Any) -> None:
    number = opened(client, window=MAX, packet=100)
    with pytest.raises(ProtocolViolation, match="4294967296"):
        client.feed(m.ChannelWindowAdjust(number, 1))
    other = opened(client, peer=51, window=1, packet=100)
    client.feed(m.ChannelWindowAdjust(other, MAX - 1))
    with pytest.raises(ProtocolViolation):
        client.feed(m.ChannelWindowAdjust(other, 1))


def test_send_waits_for_room(server: Any) -> None:
    number = accepted(server, window=1000, packet=100)
    other = accepted(server, peer=51)
    server.outlet.free = 0
    assert server.mux.send(number, b"x") == 0
    assert server.mux.send(number, bytes(500)) == 0
    server.mux.writable()
    assert not server.told()
    server.feed(m.ChannelWindowAdjust(number, 5))
    assert not server.told()
    server.outlet.free = 1
    server.mux.writable()
    assert server.told() == [ChannelWritable(number)]
    server.mux.writable()
    assert not server.told()
    assert server.mux.send(number, b"xy") == 1 or server.take()
    assert other in server.mux.channels


def test_window_and_room_both_gone(server: Any) -> None:
    """The adjust comes while a key exchange is under way."""
    number = accepted(server, window=10, packet=100)
    assert server.mux.send(number, bytes(11)) == 10
    server.outlet.free = 0
    server.feed(m.ChannelWindowAdjust(number, 5))
    assert not server.told()
    server.outlet.free = 100
    server.mux.writable()
    assert server.told() == [ChannelWritable(number)]


def test_room_ends_amid_a_send(server: Any) -> None:
    number = accepted(server, window=1000, packet=100)
    plain = server.outlet.send_data

    def send_data(head: bytes, body: Any) -> None:
        plain(head, body)
        server.outlet.free = 0  # this packet made a key exchange due

    server.outlet.send_data = send_data
    assert server.mux.send(number, bytes(500)) == 100


def test_closing_ends_the_waiting(server: Any) -> None:
    number = accepted(server)
    other = accepted(server, peer=51)
    server.outlet.free = 0
    server.mux.send(number, b"x")
    server.mux.send(other, b"x")
    server.mux.close_channel(number)
    server.mux.send_eof(other)
    server.outlet.free = 100
    server.mux.writable()
    assert not server.told()


# ----------------------------------------------------------------------------------------------------------- life cycle


@pytest.mark.covers("R93", "R94", "R96", "P13")
def test_half_close_both_ways(pair: Any) -> None:
    mine, theirs = pair.open()
    pair.client.mux.send(mine, b"bye")
    pair.client.mux.send_eof(mine)
    pair.settle()
    assert pair.server.told() == [DataReceived(theirs, b"bye"), EofReceived(theirs)]
    assert pair.server.mux.send(theirs, b"still here") == 10
    pair.server.mux.send_eof(theirs)
    pair.server.mux.close_channel(theirs)
    pair.settle()
    assert pair.client.told() == [DataReceived(mine, b"still here"), EofReceived(mine), ChannelClosed(mine)]
    assert pair.server.told() == [ChannelClosed(theirs)]
    assert pair.client.mux.channels == pair.server.mux.channels == ()


@pytest.mark.covers("P13", "R95")
def test_both_close_at_once(pair: Any) -> None:
    mine, theirs = pair.open()
    pair.client.mux.close_channel(mine)
    pair.server.mux.send(theirs, b"late")
    pair.server.mux.request(theirs, r.ExitStatus(0))
    pair.server.mux.close_channel(theirs)
    pair.settle()
    assert pair.client.told() == [ChannelClosed(mine)]
    assert pair.server.told() == [ChannelClosed(theirs)]


@pytest.mark.covers("V16")
def test_data_after_our_close_is_held_to_the_window(client: Any) -> None:
    number = client.mux.open_channel(r.Session(), window=10, max_packet=10)
    client.feed(m.ChannelOpenConfirmation(number, 50, 1000, 100))
    client.mux.close_channel(number)
    client.told()
    client.feed(m.ChannelData(number, bytes(6)))
    client.feed(m.ChannelExtendedData(number, 9, bytes(4)))
    with pytest.raises(ProtocolViolation):
        client.feed(m.ChannelData(number, b"x"))
    assert not client.told()


@pytest.mark.covers("V16")
def test_close_while_opening(pair: Any) -> None:
    first = pair.client.mux.open_channel(r.Session())
    second = pair.client.mux.open_channel(r.Session())
    for number in (first, second):
        pair.client.mux.close_channel(number)
        before = pair.client.state()
        with pytest.raises(ChannelStateError, match="closed by us"):
            pair.client.mux.close_channel(number)
        assert pair.client.state() == before
    pair.settle()
    accept, reject = pair.server.told()
    pair.server.mux.accept_channel(accept)
    pair.server.mux.reject_channel(reject, 1, "no")
    pair.settle()
    told = pair.client.told()
    assert [type(event) for event in told] == [ChannelOpenFailed, ChannelClosed]
    assert [event.channel for event in told] == [second, first]
    assert pair.server.told() == [ChannelClosed(accept.channel)]


def test_close_of_what_is_not_decided_on(server: Any) -> None:
    server.feed(m.ChannelOpen("session", 9, 1000, 1000))
    before = server.state()
    with pytest.raises(ChannelStateError, match="ASKED"):
        server.mux.close_channel(0)
    assert server.state() == before


# ------------------------------------------------------------------------------------------------------------- requests


@pytest.mark.covers("R97", "R84")
def test_replies_leave_in_order(server: Any) -> None:
    number = accepted(server)
    for request in (r.Env("A", b"1"), r.PtyRequest("x"), r.Shell()):
        server.feed(m.ChannelRequest(number, request.type, True, request.encode()))
        server.feed(m.ChannelRequest(number, "keepalive@openssh.com", True))
    first, second, third = server.told()
    server.mux.succeed(third)
    server.mux.succeed(second)
    assert not server.take()
    server.mux.fail(first)
    ok, no = m.ChannelSuccess(50), m.ChannelFailure(50)
    assert server.take() == [no, no, ok, no, ok, no]
    server.mux.succeed(first)  # nothing is owed any more
    assert not server.take()


@pytest.mark.covers("V17", "R105")
def test_replies_are_matched_in_order(client: Any) -> None:
    number = opened(client)
    first = client.mux.request(number, r.Env("A", b"1"))
    client.mux.request(number, r.Env("B", b"1"), want_reply=False)
    client.mux.request(number, r.WindowChange(80, 24))
    second = client.mux.request(number, r.Exec(b"ls"))
    sent = client.take()
    assert [(message.request_type, message.want_reply) for message in sent] == [
        ("env", True),
        ("env", False),
        ("window-change", False),
        ("exec", True),
    ]
    client.feed(m.ChannelFailure(number))
    client.feed(m.ChannelSuccess(number))
    assert client.told() == [RequestFailed(number, first), RequestSucceeded(number, second)]
    assert first != second


@pytest.mark.covers("R104")
def test_only_one_program(server: Any) -> None:
    number = accepted(server)

    def ask(request: Any, want_reply: bool = True) -> Any:
        server.feed(m.ChannelRequest(number, request.type, want_reply, request.encode()))
        return server.told()

    (question,) = ask(r.Subsystem("sftp"))
    assert not ask(r.Shell())
    server.mux.fail(question)
    assert server.take() == [m.ChannelFailure(50)] * 2
    (question,) = ask(r.Exec(b"ls"), want_reply=False)
    assert not question.want_reply
    assert question.id not in server.outlet.owed
    server.mux.succeed(question)
    server.mux.fail(question)
    assert not ask(r.Exec(b"ls"))
    assert server.take() == [m.ChannelFailure(50)]


@pytest.mark.covers("R107", "V33", "R97")
@pytest.mark.parametrize("want_reply", [False, True])
@pytest.mark.parametrize(
    ("role", "name", "payload"),
    [
        (Role.SERVER, "exit-status", uint32(0)),
        (Role.SERVER, "exit-signal", text("TERM") + b"\0" + text("") + text("")),
        (Role.SERVER, "xon-xoff", b"\1"),
        (Role.CLIENT, "exec", text("ls")),
        (Role.CLIENT, "pty-req", r.PtyRequest("x").encode()),
        (Role.CLIENT, "window-change", bytes(16)),
        (Role.CLIENT, "x" * 65, b""),  # no name
        (Role.CLIENT, "keepalive@openssh.com", b""),
        (Role.SERVER, "keepalive@openssh.com", b""),
        (Role.SERVER, "exec", b""),
        (Role.SERVER, "exec", uint32(5) + b"abcd"),
        (Role.SERVER, "shell", b"x"),
        (Role.SERVER, "env", text("A\0") + text("")),
        (Role.CLIENT, "exit-status", b"\0\0\0"),
    ],
)
def test_requests_that_fail_by_themselves(
    make_side: Any, role: Role, name: str, payload: bytes, want_reply: bool
) -> None:
    side = make_side(role, Limits())
    number = opened(side) if role is Role.CLIENT else accepted(side)
    side.feed(m.ChannelRequest(number, name, want_reply, payload))
    assert side.take() == ([m.ChannelFailure(50)] if want_reply else [])
    assert not side.told()


def test_session_requests_belong_to_sessions(server: Any, client: Any) -> None:
    number = accepted(server, r.DirectTcpip("h", 1))
    server.feed(m.ChannelRequest(number, "shell", True))
    assert server.take() == [m.ChannelFailure(50)]
    server.feed(m.ChannelRequest(number, "eow@openssh.com", False))
    assert server.told() == [ChannelNotified(number, r.EndOfWrite())]
    number = client.mux.open_channel(r.DirectTcpip("h", 1))
    client.feed(m.ChannelOpenConfirmation(number, 50, 1000, 100))
    with pytest.raises(InvalidArgument, match="direct-tcpip"):
        client.mux.request(number, r.Shell())


@pytest.mark.covers("R105", "R150")
@pytest.mark.parametrize("notice", [r.ExitStatus(3), r.ExitSignal("KILL"), r.EndOfWrite(), r.XonXoff(True)])
def test_notices_to_a_client(client: Any, notice: Any) -> None:
    number = opened(client)
    client.feed(m.ChannelRequest(number, notice.type, False, notice.encode()))
    client.feed(m.ChannelRequest(number, notice.type, True, notice.encode()))
    assert client.told() == [ChannelNotified(number, notice)] * 2
    assert client.take() == [m.ChannelFailure(50)]


@pytest.mark.covers("R105", "R106", "R154")
@pytest.mark.parametrize("notice", [r.WindowChange(1, 2), r.Signal("INFO@openssh.com"), r.EndOfWrite()])
def test_notices_to_a_server(server: Any, notice: Any) -> None:
    number = accepted(server)
    server.feed(m.ChannelRequest(number, notice.type, False, notice.encode()))
    assert server.told() == [ChannelNotified(number, notice)]


def test_request_misuse(client: Any, server: Any) -> None:
    number = opened(client)
    opening = client.mux.open_channel(r.Session())
    closed = opened(client, peer=51)
    client.mux.close_channel(closed)
    before = client.state()
    for channel, request, error in (
        (number, r.ExitStatus(0), InvalidArgument),
        (number, r.Exec("ls"), InvalidArgument),  # type: ignore[arg-type]
        (number, r.Keepalive(), InvalidArgument),
        (number, "shell", InvalidArgument),
        (opening, r.Shell(), ChannelStateError),
        (closed, r.Shell(), ChannelStateError),
        (99, r.Shell(), UnknownChannel),
    ):
        with pytest.raises(error):
            client.mux.request(channel, request)
    for kind in (r.X11("h", 1), r.ForwardedTcpip("h", 1), "session", r.DirectTcpip("h", 65536), r.UnknownOpen(" ")):
        with pytest.raises(InvalidArgument):
            client.mux.open_channel(kind)
    for options in ({"window": -1}, {"window": 2**32}, {"max_packet": 0}, {"max_packet": 262081}, {"window": 1.5}):
        with pytest.raises(InvalidArgument):
            client.mux.open_channel(r.Session(), **options)
    for request in (r.HostKeysAnnounced(()), r.Shell(), r.TcpipForward("h", 65536)):
        with pytest.raises(InvalidArgument):
            client.mux.global_request(request)
    assert client.state() == before
    with pytest.raises(InvalidArgument):
        server.mux.global_request(r.TcpipForward("h", 1))
    with pytest.raises(InvalidArgument):
        server.mux.open_channel(r.Session())
    server.feed(m.ChannelOpen("session", 9, 1000, 1000))
    (question,) = server.told()
    before = server.state()
    for options in ({"reason": -1}, {"reason": 2**32}, {"description": "\ud800"}, {"description": b"x"}):
        with pytest.raises(InvalidArgument):
            server.mux.reject_channel(question, **{"reason": 1, "description": "no", **options})
    assert server.state() == before
    assert not server.outlet.sent


@pytest.mark.covers("B28", "B29", "B30")
def test_limits_on_requests(make_side: Any) -> None:
    limits = Limits(requests_pending=2, environment=2, unsolicited_replies=3)
    client = make_side(Role.CLIENT, limits)
    number = opened(client)
    for _ in range(2):
        client.mux.request(number, r.Env("A", b""))
        client.mux.global_request(r.Keepalive())
    before = client.state()
    with pytest.raises(LimitReached):
        client.mux.request(number, r.Env("A", b""))
    with pytest.raises(LimitReached):
        client.mux.global_request(r.Keepalive())
    assert client.state() == before
    client.mux.request(number, r.Env("A", b""), want_reply=False)
    server = make_side(Role.SERVER, limits)
    number = accepted(server)
    for _ in range(2):
        server.feed(m.ChannelRequest(number, "env", True, r.Env("A", b"").encode()))
    with pytest.raises(LimitExceeded):
        server.feed(m.ChannelRequest(number, "env", True, r.Env("A", b"").encode()))
    for question in server.told():
        server.mux.succeed(question)
    server.take()
    server.feed(m.ChannelRequest(number, "env", True, r.Env("A", b"").encode()))
    assert server.take() == [m.ChannelFailure(50)]  # one variable too many
    for message in (m.ChannelSuccess(number), m.RequestFailure(), m.RequestSuccess()):
        server.feed(message)
    with pytest.raises(LimitExceeded):
        server.feed(m.ChannelFailure(number))
    for _ in range(2):
        server.feed(m.GlobalRequest("tcpip-forward", True, r.TcpipForward("", 1).encode()))
    with pytest.raises(LimitExceeded):
        server.feed(m.GlobalRequest("keepalive@openssh.com", True))


def test_questions_are_void_when_the_channel_goes(server: Any) -> None:
    for close in (server.mux.close_channel, lambda number: server.feed(m.ChannelClose(number))):
        number = accepted(server)
        server.feed(m.ChannelRequest(number, "shell", True))
        server.feed(m.ChannelRequest(number, "env", True, r.Env("A", b"").encode()))
        first, second = server.told()
        server.mux.succeed(second)
        close(number)
        assert server.outlet.withdrawn[-1] == first.id
        assert server.take() == [m.ChannelClose(50)]
        server.mux.succeed(first)
        server.mux.fail(first)
        assert not server.take()
        if server.mux.channels:
            server.feed(m.ChannelClose(number))
        server.told()


# ------------------------------------------------------------------------------------------------------ global requests


@pytest.mark.covers("R84", "R85", "R108")
def test_global_requests(pair: Any) -> None:
    first = pair.client.mux.global_request(r.TcpipForward("", 0))
    second = pair.client.mux.global_request(r.Keepalive())
    silent = pair.client.mux.global_request(r.TcpipForward("", 99), want_reply=False)
    third = pair.client.mux.global_request(r.TcpipForward("", 80))
    assert pair.client.outlet.tags == [first, second, third]
    assert len({first, second, third, silent}) == 4
    pair.settle()
    one, quiet, three = pair.server.told()
    assert isinstance(one, GlobalRequested)
    assert not quiet.want_reply
    assert quiet.id not in pair.server.outlet.owed
    pair.server.mux.succeed(quiet)
    pair.server.mux.fail(three)
    pair.settle()
    assert not pair.client.told()
    before = pair.server.state()
    for data in (b"", b"\0\0\0", uint32(0), uint32(65536), "1234"):
        with pytest.raises(InvalidArgument):
            pair.server.mux.succeed(one, data)
    assert pair.server.state() == before
    pair.server.mux.succeed(one, uint32(4000))
    pair.settle()
    assert pair.client.told() == [GlobalSucceeded(first, uint32(4000)), GlobalFailed(second), GlobalFailed(third)]


@pytest.mark.covers("R85", "V77")
@pytest.mark.parametrize(
    ("role", "name", "payload"),
    [
        (Role.SERVER, "", b""),  # no name
        (Role.SERVER, "hostkeys-00@openssh.com", b""),
        (Role.SERVER, "tcpip-forward", b""),
        (Role.SERVER, "tcpip-forward", text("h" * 256) + uint32(1)),
        (Role.SERVER, "keepalive@openssh.com", b""),
        (Role.CLIENT, "tcpip-forward", text("") + uint32(0)),
        (Role.CLIENT, "keepalive@openssh.com", b""),
        (Role.CLIENT, "hostkeys-00@openssh.com", string(b"k") * 65),
        (Role.CLIENT, "no-more-sessions@openssh.com", b""),
    ],
)
def test_global_requests_that_fail_by_themselves(make_side: Any, role: Role, name: str, payload: bytes) -> None:
    side = make_side(role, Limits())
    side.feed(m.GlobalRequest(name, False, payload))
    assert not side.take()
    side.feed(m.GlobalRequest(name, True, payload))
    assert side.take() == [m.RequestFailure()]
    assert not side.told()


FORWARD, CANCEL = r.TcpipForward, r.CancelTcpipForward
LISTENERS = Limits(forwards=2)


def asks(side: Any, request: Any, want_reply: bool = True) -> Any:
    """What the application is told about ``request``, or None if it was refused without asking it."""
    side.feed(m.GlobalRequest(request.type, want_reply, request.encode()))
    return next(iter(side.told()), None)


@pytest.mark.covers("B31")
@pytest.mark.parametrize("granted", [False, True])
def test_limit_on_forwards(make_side: Any, granted: bool) -> None:
    """At the limit and one past it: undecided or granted they count, refused they do not."""
    server = make_side(Role.SERVER, LISTENERS)
    first, second = asks(server, FORWARD("", 1)), asks(server, r.StreamlocalForward("/s"))
    assert asks(server, FORWARD("", 2)) is None
    assert asks(server, r.StreamlocalForward("/t")) is None
    server.mux.succeed(second)
    if granted:
        server.mux.succeed(first)
    else:
        server.mux.fail(first)
    no = m.RequestFailure()
    assert server.take() == [m.RequestSuccess() if granted else no, m.RequestSuccess(), no, no]
    assert (asks(server, FORWARD("", 3)) is None) is granted
    assert asks(server, FORWARD("", 4)) is None


@pytest.mark.covers("R109")
@pytest.mark.parametrize("want_reply", [False, True])
@pytest.mark.parametrize(
    ("forward", "cancel"),
    [
        (FORWARD("h", 1), CANCEL("h", 1)),
        (FORWARD("h", 0), CANCEL("h", 4000)),
        (r.StreamlocalForward("/s"), r.CancelStreamlocalForward("/s")),
    ],
)
def test_a_cancelled_forward_frees_its_place(make_side: Any, forward: Any, cancel: Any, want_reply: bool) -> None:
    server = make_side(Role.SERVER, LISTENERS)
    server.mux.succeed(asks(server, FORWARD("other", 1)))
    data = uint32(4000) if forward == FORWARD("h", 0) else b""
    for _ in range(3):
        server.mux.succeed(asks(server, forward), data)
        assert asks(server, FORWARD("", 9)) is None
        question = asks(server, cancel, want_reply)
        if want_reply:
            server.mux.fail(question)
            assert asks(server, FORWARD("", 9)) is None  # it listens still
            server.mux.succeed(asks(server, cancel))
        assert server.mux._global.forwards == 1


@pytest.mark.covers("R109")
def test_only_a_listener_that_is_there_frees_a_place(make_side: Any) -> None:
    """Else a peer could cancel what never was, and then have more listeners than it may."""
    server = make_side(Role.SERVER, LISTENERS)
    first = asks(server, FORWARD("h", 1))
    asks(server, CANCEL("h", 1), want_reply=False)  # not decided on yet, so there is none
    server.mux.succeed(first)
    server.mux.fail(first)  # answered once and for all
    asks(server, FORWARD("h", 2), want_reply=False)
    for cancel in (CANCEL("h", 3), CANCEL("g", 1), r.CancelStreamlocalForward("h")):
        asks(server, cancel, want_reply=False)
        server.mux.succeed(asks(server, cancel))
        assert asks(server, FORWARD("h", 4)) is None
    asks(server, CANCEL("h", 2), want_reply=False)
    asks(server, CANCEL("h", 2), want_reply=False)
    assert asks(server, FORWARD("h", 4)) is not None
    assert asks(server, FORWARD("h", 5)) is None


@pytest.mark.covers("B31", "R109")
@pytest.mark.parametrize(
    ("forward", "cancel"),
    [(FORWARD("h", 1), CANCEL("h", 1)), (r.StreamlocalForward("/s"), r.CancelStreamlocalForward("/s"))],
)
def test_a_forward_that_wants_no_reply_counts_until_it_is_refused(make_side: Any, forward: Any, cancel: Any) -> None:
    """Once: refusing what was refused, or cancelled, frees no other's place."""
    server = make_side(Role.SERVER, LISTENERS)
    first, second = (asks(server, forward, want_reply=False) for _ in range(2))
    assert asks(server, FORWARD("", 9), want_reply=False) is None
    server.mux.fail(first)
    server.mux.fail(first)
    assert server.mux._global.forwards == 1
    third = asks(server, forward, want_reply=False)
    asks(server, cancel, want_reply=False)  # the oldest that is left
    server.mux.fail(second)
    assert server.mux._global.forwards == 1
    server.mux.succeed(third)
    assert server.mux._global.forwards == 1
    server.mux.fail(third)
    assert server.mux._global.forwards == 0
    assert not server.take()


@pytest.mark.covers("R108")
def test_a_forward_whose_port_nobody_would_learn(client: Any) -> None:
    before = client.state()
    with pytest.raises(InvalidArgument, match="port 0 wants a reply"):
        client.mux.global_request(FORWARD("", 0), want_reply=False)
    assert client.state() == before
    assert not client.take()


@pytest.mark.covers("R153")
def test_host_keys_announced(client: Any) -> None:
    client.feed(m.GlobalRequest("hostkeys-00@openssh.com", False, string(b"k") * 64))
    (event,) = client.told()
    assert event.request == r.HostKeysAnnounced((b"k",) * 64)
    assert not client.outlet.owed


@pytest.mark.covers("R53")
def test_unimplemented(client: Any) -> None:
    first = client.mux.global_request(r.TcpipForward("", 80))
    second = client.mux.global_request(r.Keepalive())
    client.mux.unimplemented(first)
    client.mux.unimplemented(first)
    client.mux.unimplemented(99)
    assert client.told() == [GlobalFailed(first)]
    client.feed(m.RequestSuccess())
    assert client.told() == [GlobalSucceeded(second)]


# -------------------------------------------------------------------------------------------------------- a full outlet


def test_commands_change_nothing_if_the_outlet_is_full(client: Any, server: Any) -> None:
    number = opened(client)
    server.feed(m.ChannelOpen("session", 9, 1000, 1000))
    (question,) = server.told()
    client.outlet.full = server.outlet.full = True
    before = client.state(), server.state()
    for command in (
        lambda: client.mux.open_channel(r.Session()),
        lambda: client.mux.request(number, r.Shell()),
        lambda: client.mux.send_eof(number),
        lambda: client.mux.close_channel(number),
        lambda: client.mux.global_request(r.TcpipForward("", 1)),
        lambda: server.mux.accept_channel(question),
        lambda: server.mux.reject_channel(question, 1, "no"),
    ):
        with pytest.raises(LimitReached):
            command()
    client.outlet.full = server.outlet.full = True
    assert (client.state(), server.state()) == before


def test_replies_and_credit_wait_for_the_outlet(server: Any) -> None:
    number = accepted(server)
    server.feed(m.ChannelRequest(number, "shell", True))
    server.feed(m.GlobalRequest("tcpip-forward", True, r.TcpipForward("", 1).encode()))
    shell, forward = server.told()
    for _ in range(40):
        server.feed(m.ChannelData(number, bytes(32768)))
    server.outlet.full = True
    server.mux.succeed(shell)
    server.mux.succeed(forward)
    server.mux.credit(number, 40 * 32768)
    server.mux.writable()
    assert not server.take()
    server.outlet.full = False
    server.mux.writable()
    assert server.take() == [
        m.RequestSuccess(),
        m.ChannelSuccess(50),
        m.ChannelWindowAdjust(50, 40 * 32768),
    ]
    server.mux.writable()
    assert not server.take()


@pytest.mark.parametrize("by_us", [False, True])
def test_what_waits_for_the_outlet_goes_with_its_channel(server: Any, by_us: bool) -> None:
    number = accepted(server)
    server.feed(m.ChannelRequest(number, "shell", True))
    (question,) = server.told()
    server.outlet.full = True
    server.mux.succeed(question)
    server.outlet.full = False
    if by_us:
        server.mux.close_channel(number)
    else:
        server.feed(m.ChannelClose(number))
    assert server.take() == [m.ChannelClose(50)]
    server.mux.writable()
    assert not server.take()


@pytest.mark.covers("V13", "B7")
def test_a_peer_that_fills_the_outlet(server: Any, client: Any) -> None:
    number = accepted(server)
    server.outlet.full = True
    for message in (
        m.ChannelRequest(number, "keepalive@openssh.com", True),
        m.GlobalRequest("keepalive@openssh.com", True),
        m.ChannelOpen("forwarded-tcpip", 1, 1, 1),
        m.ChannelClose(number),
    ):
        with pytest.raises(LimitExceeded):
            server.feed(message)
    abandoned = client.mux.open_channel(r.Session())
    client.mux.close_channel(abandoned)
    client.outlet.full = True
    with pytest.raises(LimitExceeded):
        client.feed(m.ChannelOpenConfirmation(abandoned, 1, 1000, 1000))


# ----------------------------------------------------------------------------------------------------------------- size

MANY = Limits(channels_from_peer=3000, channels_from_us=3000, sessions=3000, opens_pending=3000)


def test_a_thousand_channels(make_pair: Any) -> None:
    pair = make_pair(MANY)
    numbers = [pair.client.mux.open_channel(r.Session()) for _ in range(1000)]
    pair.settle()
    questions = pair.server.told()
    for question in reversed(questions):
        pair.server.mux.accept_channel(question)
    pair.settle()
    assert {event.channel for event in pair.client.told()} == set(numbers)
    for number in numbers:
        assert pair.client.mux.send(number, b"%d" % number) == len(b"%d" % number)
    pair.settle()
    # The server's numbers are in the order of the client's requests.
    assert pair.server.told() == [DataReceived(number, b"%d" % number) for number in numbers]
    pair.server.outlet.free = 0
    for number in numbers[::100]:
        assert pair.server.mux.send(number, b"x") == 0
    pair.server.outlet.free = 100
    pair.server.mux.writable()
    # The first, which had the last of the room, comes last.
    assert pair.server.told() == [ChannelWritable(number) for number in (*numbers[100::100], numbers[0])]
    for number in numbers[::2]:
        pair.client.mux.close_channel(number)
    for number in numbers[1::2]:
        pair.server.mux.close_channel(number)
    pair.settle()
    assert len(pair.client.told()) == len(pair.server.told()) == 1000
    assert pair.client.mux.channels == pair.server.mux.channels == ()


class CountingDict(dict):  # type: ignore[type-arg]
    """Notes when somebody walks over it."""

    walked = 0

    def __iter__(self) -> Any:
        CountingDict.walked += 1
        return super().__iter__()

    def values(self) -> Any:
        CountingDict.walked += 1
        return super().values()

    def items(self) -> Any:
        CountingDict.walked += 1
        return super().items()


@pytest.mark.covers("B33")
def test_nothing_walks_over_all_channels(make_pair: Any) -> None:
    pair = make_pair(MANY)
    for side in (pair.client, pair.server):
        side.mux._channels = side.mux._registry.channels = CountingDict()
    channels = [pair.open() for _ in range(5)]
    mine, theirs = channels[2]
    pair.client.mux.request(mine, r.Shell())
    pair.settle()
    (question,) = pair.server.told()
    pair.server.mux.succeed(question)
    pair.server.mux.send(theirs, bytes(2_000_000))
    pair.settle()
    for event in pair.client.told():
        if isinstance(event, DataReceived):
            pair.client.mux.credit(event.channel, len(event.data))
    pair.client.mux.writable()
    pair.client.mux.send_eof(mine)
    pair.client.mux.close_channel(mine)
    pair.settle()
    assert CountingDict.walked == 0


@pytest.mark.covers("B34")
def test_memory_of_an_idle_channel(make_side: Any) -> None:
    client = make_side(Role.CLIENT, MANY)
    client.outlet.sent = client.outlet.events = NoList()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for peer in range(1000):
            number = client.mux.open_channel(r.Session())
            client.feed(m.ChannelOpenConfirmation(number, peer + 5000, 2**21, 32768))
        size = (tracemalloc.get_traced_memory()[0] - before) / 1000
    finally:
        tracemalloc.stop()
    assert size < 700  # its share of the registry's tables included


class NoList(list):  # type: ignore[type-arg]
    """Keeps nothing."""

    def append(self, thing: Any) -> None:
        pass


@pytest.mark.covers("V35")
def test_memory_of_closed_channels_is_released(make_pair: Any) -> None:
    pair = make_pair()

    def once() -> None:
        mine, theirs = pair.open()
        pair.client.mux.request(mine, r.X11Request(False, "p", "c"))
        pair.client.mux.request(mine, r.Exec(b"ls"))
        pair.client.mux.send(mine, b"x" * 1000)
        pair.settle()
        pair.server.mux.close_channel(theirs)
        pair.settle()
        rejected = pair.client.mux.open_channel(r.DirectTcpip("h", 1))
        pair.settle()
        question = pair.server.told()[-1]
        pair.server.mux.reject_channel(question, 1, "no")
        pair.server.outlet.owed.clear()
        pair.settle()
        pair.client.told()
        pair.server.outlet.withdrawn.clear()
        assert rejected not in pair.client.mux.channels

    for _ in range(20):
        once()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(300):
        once()
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 16 * 1024


def test_lost(pair: Any) -> None:
    mine, theirs = pair.open()
    pair.client.mux.request(mine, r.Shell())
    pair.client.mux.global_request(r.TcpipForward("", 1))
    pair.settle()
    questions = pair.server.told()
    for side in (pair.client, pair.server):
        side.mux.lost()
        assert side.mux.channels == ()
        side.mux.writable()
        assert not side.told()
        with pytest.raises(UsageError):
            side.mux.send(0, b"x")
    for question in questions:
        pair.server.mux.succeed(question)
        pair.server.mux.fail(question)
    pair.server.mux.credit(theirs, 0)
    assert not pair.server.take()
    assert isinstance(questions[0], ChannelRequested)
