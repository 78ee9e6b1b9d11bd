"""The transport half of a connection: what waits for a key exchange, what is bounded, what is traced, how it ends.

What holds for whole sessions (chunking, rekeying anywhere, misuse) is in tests/property/test_pair.py, bad packets and
early messages are in tests/security/test_bad_input.py, the legality table on live connections in
tests/unit/wire/test_table.py.
"""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from sshproto import events as ev
from sshproto.channels.requests import Session, UnknownGlobal
from sshproto.config import ClientConfig, Limits, Preferences, ServerConfig, Timeouts, Trace
from sshproto.errors import (
    HostKeyRejected,
    InternalError,
    InvalidArgument,
    LimitExceeded,
    LimitReached,
    LocalClose,
    PeerDisconnected,
    ProtocolViolation,
    ServiceRefused,
    TimedOut,
    UnexpectedEof,
    WrongPhase,
)
from sshproto.keys import PrivateKey
from sshproto.server import ServerConnection
from sshproto.transport import keyexchange
from sshproto.transport.link import Phase
from sshproto.wire import messages as m
from tests.support import scenario
from tests.support.pair import HOST_KEY, USER_KEY, End, Pair
from tests.support.panic import PanicException
from tests.support.rogue import IDENT, frame, goodbye, inject, kexinit, loss, push

SIDES = ("client", "server")
RELAXED = Preferences(kex=("curve25519-sha256",), cipher=("aes128-gcm@openssh.com",), strict_kex=False)


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(*, client: dict[str, Any] | None = None, server: dict[str, Any] | None = None, **more: Any) -> Pair:
    return Pair.make(
        ClientConfig(**{"user": "alice", "debug_raise": True, **(client or {})}),
        ServerConfig(**{"host_keys": (HOST_KEY,), "debug_raise": True, **(server or {})}),
        **more,
    )


def both(**changes: Any) -> Pair:
    """A pair of which both ends are configured the same."""
    return make(client=changes, server=changes)


def ends(pair: Pair, side: str) -> tuple[End, End]:
    """The end ``side`` and its peer."""
    return (pair.client, pair.server) if side == "client" else (pair.server, pair.client)


def trust(conn: Any, question: ev.Question) -> None:
    """Accept the host key and answer nothing more."""
    if isinstance(question, ev.HostKeyOffered):
        conn.accept_host_key(question)


def numbers(traces: list[Trace]) -> list[int]:
    return [trace.number for trace in traces]


# ---------------------------------------------------------------------------------------------- what waits for new keys


@pytest.mark.covers("R33", "R42")
def test_commands_during_a_key_exchange_leave_after_it_in_order(side: str) -> None:
    """Between our KEXINIT and our NEWKEYS only the exchange's own messages leave."""
    traces: list[Trace] = []
    pair = make(**{side: {"trace": traces.append}}).login()
    end, peer = ends(pair, side)
    end.conn.rekey()
    end.conn.ignore(b"1")
    end.conn.debug("2")
    end.conn.ping(b"3")
    end.conn.ignore(b"4")
    assert numbers([trace for trace in traces if trace.sent])[-1] == 20
    before = end.conn.output_size
    end.conn.ping(b"5")
    assert end.conn.output_size == before
    pair.run()
    sent = numbers([trace for trace in traces if trace.sent])
    start = len(sent) - sent[::-1].index(20) - 1
    assert sent[start:] == [20, 30 if side == "client" else 31, 21, 2, 4, 192, 2, 192]
    assert peer.of(ev.DebugReceived) == [ev.DebugReceived("2", False)]
    assert end.of(ev.PongReceived) == [ev.PongReceived(b"3"), ev.PongReceived(b"5")]


@pytest.mark.covers("P8")
@pytest.mark.covers("R33", "R128", "V03", "R125")
@pytest.mark.parametrize("strict", [True, False])
def test_neither_side_ever_sends_what_a_key_exchange_forbids(strict: bool) -> None:
    """A monitor on a whole session with many rekeyings."""
    traces: dict[str, list[Trace]] = {"client": [], "server": []}
    preferences = attrs.evolve(RELAXED, strict_kex=strict)
    limits = Limits(rekey_bytes=20_000, peer_rekey_bytes=1000)
    common = {"preferences": preferences, "limits": limits}
    pair = make(
        client={**common, "trace": traces["client"].append},
        server={**common, "trace": traces["server"].append},
        latency=0.01,
    )
    pair.client.react, pair.server.react = scenario.ClientApp(rekey=False), scenario.ServerApp()
    scenario.check_complete(pair.run())
    for name, seen in traces.items():
        for sent in (True, False):
            exchanging, exchanges, after = False, 0, []
            for trace in seen:
                if trace.sent is not sent:
                    continue
                if trace.number == 20:
                    assert not exchanging
                    exchanging = True
                    exchanges += 1
                    offered = trace.message.kex_algorithms  # type: ignore[union-attr]
                    marks = [mark for mark in offered if mark.startswith(("ext-info-", "kex-strict-"))]
                    assert len(marks) == (0 if exchanges > 1 else 2 if strict else 1)
                elif trace.number == 21:
                    exchanging = False
                elif exchanging:
                    assert 30 <= trace.number <= 49, f"{name} {'sent' if sent else 'received'} {trace.number}"
                elif exchanges == 1:
                    after.append(trace.number)
            assert exchanges > 3
            assert after[0] == 7  # EXT_INFO is the first packet under the first keys, both ways


@pytest.mark.covers("B11", "V13")
@pytest.mark.parametrize("count", [3, 4])
def test_what_may_wait_is_bounded_and_a_command_too_many_changes_nothing(count: int) -> None:
    """At the limit of packets, and one more."""
    pair = make(client={"limits": Limits(deferred_packets=3)}).login()
    conn = pair.client.conn
    conn.rekey()
    for _ in range(3):
        conn.ping(b"x")
    if count == 4:
        with pytest.raises(LimitReached, match="3 messages wait"):
            conn.ping(b"y")
        with pytest.raises(LimitReached):
            conn.open_channel(Session())
        assert conn.channels == ()
    pair.run()
    assert pair.client.of(ev.PongReceived) == [ev.PongReceived(b"x")] * 3
    conn.rekey()
    conn.ping(b"z")  # the room is free again
    pair.run()
    assert len(pair.client.of(ev.PongReceived)) == 4


@pytest.mark.covers("B11")
def test_what_may_wait_is_bounded_in_bytes() -> None:
    """A PING of n bytes is 5 + n long."""
    pair = make(client={"limits": Limits(deferred_bytes=1000)}).login()
    conn = pair.client.conn
    conn.rekey()
    conn.ping(bytes(495))
    with pytest.raises(LimitReached):
        conn.ping(bytes(496))
    conn.ping(bytes(495))
    with pytest.raises(LimitReached):
        conn.ping(b"")
    pair.run()
    assert len(pair.client.of(ev.PongReceived)) == 2
    conn.rekey()
    conn.ping(bytes(995))  # the room is free again
    pair.run()
    assert len(pair.client.of(ev.PongReceived)) == 3


@pytest.mark.covers("V13")
@pytest.mark.parametrize(("asked", "lost"), [(5, False), (6, True)])
@pytest.mark.parametrize(
    "message",
    [m.Ping(b"x"), m.GlobalRequest("keepalive@openssh.com", True)],
    ids=["ping", "global"],
)
def test_a_peer_that_makes_us_answer_while_we_exchange_keys_is_cut(
    message: Any, asked: int, lost: bool, side: str
) -> None:
    """CVE-2025-26466: Its requests, sent before it saw our KEXINIT, wait for NEWKEYS; but not for ever."""
    pair = make(**{side: {"limits": Limits(deferred_packets=5)}}).login()
    end, peer = ends(pair, side)
    end.conn.rekey()
    for _ in range(asked):
        inject(peer, message)
    end.conn.receive_data(peer.conn.data_to_send(), 0.0)
    end.drain()
    assert (end.lost is not None) == lost
    if lost:
        error = loss(end.events)
        assert isinstance(error, LimitExceeded)
        assert error.limit == "deferred_packets"


@pytest.mark.covers("R51", "R33")
def test_unimplemented_does_not_wait_for_new_keys(side: str) -> None:
    """RFC 4253 section 7.1 allows the messages 1 to 4, and what does not wait needs no room to wait in."""
    traces: list[Trace] = []
    pair = make(**{side: {"limits": Limits(deferred_packets=1), "trace": traces.append}}).login()
    end, peer = ends(pair, side)
    start = peer.conn._engine.outbox.sealer.sequence_number
    end.conn.rekey()
    for _ in range(3):
        inject(peer, b"\xc8unknown")
    pair.run()
    assert [event.sequence_number for event in peer.of(ev.UnimplementedReceived)] == [start, start + 1, start + 2]
    sent = numbers([trace for trace in traces if trace.sent])
    assert sent[-6:] == [20, 3, 3, 3, 30 if side == "client" else 31, 21]
    assert len(end.of(ev.KeysExchanged)) == 2


@pytest.mark.covers("R42")
@pytest.mark.parametrize("first", SIDES)
def test_keys_can_be_exchanged_again_before_login(first: str) -> None:
    """Nothing but KEXINIT's own rules keeps it from phase A; the login goes on under the new keys."""
    pair = make(client_answer=trust).run()
    end, _ = ends(pair, first)
    assert pair.server.conn.phase is Phase.AUTH
    end.conn._engine._start_rekey()
    pair.run()
    for each in (pair.client, pair.server):
        assert [event.first for event in each.of(ev.KeysExchanged)] == [True, False]
    [question] = pair.client.conn.questions
    pair.client.conn.auth_public_key(question, USER_KEY)
    pair.run()
    assert pair.client.conn.phase is pair.server.conn.phase is Phase.OPEN


@pytest.mark.covers("R38", "V19")
def test_the_session_id_is_the_first_exchanges_for_ever() -> None:
    pair = both().login()
    before = pair.client.conn.session_id
    for end in (pair.client, pair.server):
        end.conn.rekey()
        pair.run()
    seen = {event.session_id for end in (pair.client, pair.server) for event in end.of(ev.KeysExchanged)}
    assert seen == {before}
    assert pair.server.conn.session_id == before
    assert len(pair.client.of(ev.KeysExchanged)) == 3


@pytest.mark.covers("V19")
def test_another_host_key_in_a_rekeying_ends_the_connection() -> None:
    pair = both().login()
    kex = pair.server.conn._engine.kex
    kex._config = attrs.evolve(kex._config, host_keys=(PrivateKey.generate("ssh-ed25519"),))
    pair.client.conn.rekey()
    pair.run()
    error = loss(pair.client.events)
    assert isinstance(error, HostKeyRejected)
    assert "changed its host key while rekeying" in str(error)
    assert loss(pair.server.events).code == 9


@pytest.mark.covers("R157", "B13")
@pytest.mark.covers("R114")
@pytest.mark.parametrize("packets", [30, 31])
def test_keys_are_changed_after_so_many_packets(packets: int, side: str) -> None:
    """Either direction: one side sends, the other only counts what it receives."""
    pair = make(**{side: {"limits": Limits(rekey_packets=packets)}}).login()
    end, peer = ends(pair, side)
    session = end.conn._engine
    while session.opener.packets < packets - 1:
        inject(peer, m.Ignore(b""))
        pair.run()
    assert not end.conn.rekeying
    assert len(end.of(ev.KeysExchanged)) == 1
    inject(peer, m.Ignore(b""))
    pair.run()
    assert [event.first for event in end.of(ev.KeysExchanged)] == [True, False]


@pytest.mark.covers("B13")
@pytest.mark.covers("V54", "R9", "R114")
@pytest.mark.parametrize("way", ["sealer", "opener"])
def test_no_key_sees_all_sequence_numbers(way: str, side: str) -> None:
    """A peer that never ends its key exchange can't make a key live on: hard end before 2^32 packets."""
    pair = make(**{side: {"limits": Limits(rekey_packets=2**32 - 2**16)}}).login()
    end, peer = ends(pair, side)
    session = end.conn._engine
    half = session.outbox.sealer if way == "sealer" else session.opener
    half.packets = 2**32 - 2**16 - 1
    session._near_limit = True
    session.kex.start()  # one is under way, so another is no way out
    if way == "sealer":
        inject(end, m.Ignore(b""))
        session.key_worn()
    else:
        inject(peer, m.Ignore(b""))
        end.conn.receive_data(peer.conn.data_to_send(), 0.0)
    end.drain()
    error = loss(end.events)
    assert isinstance(error, LimitExceeded)
    assert error.limit == "rekey_packets"


@pytest.mark.covers("B12", "V13")
def test_a_peer_may_rekey_as_time_and_data_allow() -> None:
    """A bucket that is refilled by the minute and by bytes."""
    pair = make(
        server={"limits": Limits(peer_rekeys=5, peer_rekey_bytes=10_000)}, client={"timeouts": Timeouts(rekey=None)}
    ).login()

    def rekey(times: int) -> bool:
        for _ in range(times):
            pair.client.conn.rekey()
            pair.run()
            if pair.server.lost is not None:
                return False
        return True

    assert rekey(5)
    pair.sleep(61)
    assert rekey(5)
    for _ in range(3):
        pair.client.conn.ignore(bytes(10_000))
    assert rekey(3)
    assert not rekey(3)


@pytest.mark.covers("R128")
def test_the_first_packet_of_a_client_under_keys_is_ext_info_and_later_it_is_refused() -> None:
    pair = make(client_answer=trust)
    pair.client.conn._engine._our_extensions = lambda: ()  # it sends none
    pair.client.conn._engine._transport_ready = lambda: None  # and asks for no service
    pair.run()
    assert pair.server.conn.phase is Phase.AUTH
    inject(pair.client, m.Ignore(b""))
    inject(pair.client, m.ExtInfo((("x", b""),)))
    pair.run()
    assert "EXT_INFO came late" in str(loss(pair.server.events))


@pytest.mark.covers("R130")
@pytest.mark.covers("R149", "R126", "R134")
@pytest.mark.covers("R129", "R132", "B21")
def test_a_server_may_tell_more_before_login_and_a_third_time_is_too_often() -> None:
    pair = make(client_answer=trust).run()
    inject(pair.server, m.ExtInfo((("server-sig-algs", b"rsa-sha2-256"), ("b", b"1\0\xff"), ("b", b"2"))))
    pair.run()
    assert pair.client.conn.peer_extensions["server-sig-algs"] == b"rsa-sha2-256"
    assert pair.client.conn.peer_extensions["b"] == b"1\0\xff"  # of two of a name the first counts
    inject(pair.server, m.ExtInfo(()))
    pair.run()
    assert "a third EXT_INFO" in str(loss(pair.client.events))


def test_ext_info_after_login_is_ignored_and_changes_nothing() -> None:
    """RFC 4252 section 5.3 ends the login, and with it what EXT_INFO could say."""
    pair = both().login()
    before = pair.client.conn.peer_extensions
    inject(pair.server, m.ExtInfo((("server-sig-algs", b"ssh-rsa"),)))
    pair.run()
    assert pair.client.lost is None
    assert pair.client.conn.peer_extensions == before


@pytest.mark.covers("R128", "R51")
def test_ext_info_stays_first_when_an_answer_waited_for_the_keys(side: str) -> None:
    """A peer that sends a message we don't know while keys are exchanged the first time."""
    pair = both(preferences=RELAXED)
    _, peer = ends(pair, side)
    unknown = [b"\x16"]

    def once(conn: Any, event: ev.Event) -> None:
        if isinstance(event, ev.VersionReceived) and unknown:
            inject(peer, unknown.pop())

    peer.react = once
    pair.run()
    assert peer.of(ev.ExtInfoReceived)
    assert peer.lost is None


# ------------------------------------------------------------------------------------------------------------ bounds in


@pytest.mark.covers("R63", "R65")
@pytest.mark.parametrize("over", [False, True])
def test_late_login_messages_are_ignored_so_often_and_no_more(over: bool, side: str) -> None:
    pair = both(limits=Limits(ignored_messages=7)).login()
    end, peer = ends(pair, side)
    late: m.Message = m.UserauthBanner("x") if side == "client" else m.UserauthRequest("root", "ssh-connection", "none")
    for _ in range(7 + over):
        inject(peer, late)
    pair.run()
    assert (end.lost is not None) == over
    assert not peer.of(ev.AuthFailed)[1:]
    if over:
        error = loss(end.events)
        assert isinstance(error, LimitExceeded)
        assert error.limit == "ignored_messages"
        assert ("USERAUTH_BANNER" if side == "client" else "USERAUTH_REQUEST") in str(error)


@pytest.mark.covers("V14", "B14")
@pytest.mark.parametrize("over", [False, True])
def test_input_before_login_is_bounded_in_bytes(over: bool) -> None:
    """Bytes of packets that were opened, not of what merely arrived."""
    packet = frame(m.Ignore(bytes(100)).encode())
    allowed = len(IDENT) + 10 * len(packet)
    limits = Limits(input_before_auth=allowed - over)
    pair = make(server={"limits": limits, "preferences": RELAXED})
    events = push(pair.server.conn, IDENT + packet * 10)
    if not over:
        assert [type(event) for event in events] == [ev.VersionReceived]
    else:
        error = loss(events)
        assert isinstance(error, LimitExceeded)
        assert error.limit == "input_before_auth"


@pytest.mark.covers("B4")
def test_input_that_nobody_processes_is_bounded() -> None:
    """A question holds up the input; want_read asks for a pause, and an application that reads on is stopped."""
    pair = make(client={"limits": Limits(packet=35_000, input_hard=200_000)}, client_answer=None).run()
    conn = pair.client.conn
    assert isinstance(conn.blocked_on, ev.HostKeyOffered)
    waiting = conn._engine.opener.buffered
    while waiting <= 200_000:
        assert conn.want_read == (waiting <= 35_000 + 65_536)
        conn.receive_data(bytes(10_000), 0.0)
        waiting += 10_000
        assert conn.next_event() is None
        assert conn.error is None
    conn.receive_data(b"\0", 0.0)
    error = loss([conn.next_event()])
    assert isinstance(error, LimitExceeded)
    assert error.limit == "input_hard"
    assert not conn.want_read


@pytest.mark.covers("B6")
def test_want_read_is_false_while_output_is_not_taken() -> None:
    pair = make(client={"limits": Limits(output_high=1000)}).login()
    conn = pair.client.conn
    assert conn.want_read
    conn.ignore(bytes(400))
    assert conn.want_read
    conn.ignore(bytes(600))
    assert not conn.want_read
    channel_free = conn.output_size
    assert channel_free >= 1000
    conn.data_to_send()
    assert conn.want_read
    conn.receive_eof(0.0)
    assert not conn.want_read


@pytest.mark.covers("B6")
def test_full_output_stops_data_and_taking_it_lets_it_go_on() -> None:
    pair = make(client={"limits": Limits(output_high=10_000)}).login()
    conn = pair.client.conn
    channel = conn.open_channel(Session())
    pair.run()
    assert conn.send(channel, bytes(20_000)) == 10_000
    assert conn.send(channel, bytes(10_000)) == 0
    assert conn.next_event() is None
    data = conn.data_to_send()
    assert conn.output_size == 0
    assert conn.next_event() == ev.ChannelWritable(channel)
    assert conn.send(channel, bytes(10_000)) == 10_000
    pair.server.conn.receive_data(data, 0.0)
    pair.run()
    assert len(pair.server.data[channel, 0]) == 20_000


# ------------------------------------------------------------------------------------------------------------- services


@pytest.mark.covers("R45", "V18")
def test_another_service_than_login_is_refused_with_code_7() -> None:
    for service in ("ssh-connection", "ssh-userauth@example.org", "SSH-USERAUTH", "", "evil\x1b[2J"):
        pair = make(client_answer=trust).run()
        inject(pair.client, m.ServiceRequest(service))
        pair.run()
        error = loss(pair.server.events)
        assert isinstance(error, ServiceRefused)
        assert error.code == loss(pair.client.events).code == 7
        assert "\x1b" not in str(error)


@pytest.mark.covers("B16", "V18")
@pytest.mark.parametrize("times", [4, 5])
def test_login_may_be_asked_for_four_times(times: int) -> None:
    """The first is the client's own. Only the server is looked at: the client takes one answer."""
    pair = make(client_answer=trust).run()
    for _ in range(times - 1):
        inject(pair.client, m.ServiceRequest("ssh-userauth"))
    pair.server.conn.receive_data(pair.client.conn.data_to_send(), 0.0)
    pair.server.drain()
    assert (pair.server.lost is not None) == (times == 5)
    if times == 5:
        error = loss(pair.server.events)
        assert isinstance(error, LimitExceeded)
        assert error.limit == "service_requests"


@pytest.mark.covers("R46")
def test_a_client_takes_no_other_service_than_it_asked_for() -> None:
    pair = make()
    pair.server.conn._engine._dispatch_service = lambda payload: inject(pair.server, m.ServiceAccept("ssh-connection"))
    pair.run()
    assert "SERVICE_ACCEPT for 'ssh-connection' came, expected 'ssh-userauth'" in str(loss(pair.client.events))


# ----------------------------------------------------------------------------------- UNIMPLEMENTED, PING, DEBUG, IGNORE


@pytest.mark.covers("R52")
@pytest.mark.covers("R51")
@pytest.mark.parametrize("strict", [True, False])
def test_unknown_messages_are_answered_in_order_with_their_numbers(strict: bool, side: str) -> None:
    """A burst, also after a strict exchange has set the numbers back."""
    pair = both(preferences=attrs.evolve(RELAXED, strict_kex=strict)).login()
    end, _ = ends(pair, side)
    end.conn.rekey()
    pair.run()
    start = end.conn._engine.outbox.sealer.sequence_number
    assert (start < 5) == strict
    for number in (101, 150, 255):
        inject(end, bytes((number,)))
    pair.run()
    assert [event.sequence_number for event in end.of(ev.UnimplementedReceived)] == [start, start + 1, start + 2]


@pytest.mark.covers("R53")
def test_a_request_that_the_peer_does_not_know_has_failed() -> None:
    """Found by its sequence number; and a number that we never sent is only told."""
    pair = both().login()
    conn = pair.client.conn
    numbers_ = []
    requests = []
    for _ in range(3):
        numbers_.append(conn._engine.outbox.sealer.sequence_number)
        requests.append(conn.global_request(UnknownGlobal("x@example.org", b"")))
    pair.client.conn.data_to_send()  # lost on the way
    inject(pair.server, m.Unimplemented(numbers_[1]))
    inject(pair.server, m.Unimplemented(numbers_[1]))
    inject(pair.server, m.Unimplemented(77_777))
    pair.run()
    assert pair.client.of(ev.GlobalFailed) == [ev.GlobalFailed(requests[1])]
    assert [event.sequence_number for event in pair.client.of(ev.UnimplementedReceived)] == [
        numbers_[1],
        numbers_[1],
        77_777,
    ]
    assert pair.client.lost is None


@pytest.mark.covers("P21")
def test_what_is_remembered_for_unimplemented_is_bounded() -> None:
    """The last 64."""
    pair = make(client={"limits": Limits(requests_pending=100)}).login()
    conn = pair.client.conn
    start = conn._engine.outbox.sealer.sequence_number
    requests = [conn.global_request(UnknownGlobal("x@example.org", b"")) for _ in range(65)]
    conn.data_to_send()
    for offset in (0, 1, 64):
        inject(pair.server, m.Unimplemented(start + offset))
    pair.run()
    assert pair.client.of(ev.GlobalFailed) == [ev.GlobalFailed(requests[1]), ev.GlobalFailed(requests[64])]


@pytest.mark.covers("R148")
def test_a_ping_where_none_was_offered_is_unknown(side: str) -> None:
    pair = both().login()
    end, peer = ends(pair, side)
    peer.conn._engine.extensions.ping_offered = False
    number = end.conn._engine.outbox.sealer.sequence_number
    end.conn.ping(b"x")
    pair.run()
    assert end.of(ev.UnimplementedReceived) == [ev.UnimplementedReceived(number)]
    assert not end.of(ev.PongReceived)


def test_a_ping_to_who_offers_none_is_misuse() -> None:
    pair = both().login()
    pair.client.conn._engine.extensions.peer = {}
    with pytest.raises(WrongPhase, match=r"the peer does not offer ping@openssh\.com"):
        pair.client.conn.ping()


@pytest.mark.covers("R49", "R50")
@pytest.mark.parametrize("size", [0, 1, 32_000])
def test_ignore_and_debug_of_any_size(size: int, side: str) -> None:
    pair = both().login()
    end, peer = ends(pair, side)
    end.conn.ignore(bytes(size))
    end.conn.debug("x" * size, always_display=True)
    pair.run()
    shown = "x" * size if size <= 4096 else "x" * 4096 + "…"  # B36
    assert peer.of(ev.DebugReceived) == [ev.DebugReceived(shown, True)]
    assert peer.lost is end.lost is None


@pytest.mark.covers("R168", "R21")
@pytest.mark.parametrize(("command", "head"), [("ignore", 5), ("ping", 5), ("debug", 10)])
def test_what_no_peer_need_accept_is_refused_by_us(command: str, head: int, side: str) -> None:
    """RFC 4253 section 6.1: 32768 bytes of payload are what everybody takes, and not one more."""
    pair = both().login()
    end, peer = ends(pair, side)
    fill = "x" if command == "debug" else b"x"
    getattr(end.conn, command)(fill * (32_768 - head))
    before = end.conn.output_size
    with pytest.raises(InvalidArgument, match="32769 bytes of payload"):
        getattr(end.conn, command)(fill * (32_769 - head))
    assert end.conn.output_size == before
    pair.run()
    assert peer.lost is None


# ---------------------------------------------------------------------------------------------------------------- trace


@pytest.mark.covers("R26")
def test_every_packet_is_traced_once_with_its_number_and_message() -> None:
    traces: dict[str, list[Trace]] = {"client": [], "server": []}
    pair = make(client={"trace": traces["client"].append}, server={"trace": traces["server"].append}).login()
    channel = pair.client.conn.open_channel(Session())
    pair.run()
    pair.client.conn.send(channel, b"payload")
    inject(pair.client, b"\xc8?")
    pair.run()
    pair.client.conn.disconnect("over")
    pair.run()
    for sender, receiver in (SIDES, SIDES[::-1]):
        sent = [attrs.evolve(trace, sent=False) for trace in traces[sender] if trace.sent]
        received = [trace for trace in traces[receiver] if not trace.sent]
        unknown = [trace for trace in received if trace.number == 200]
        assert [trace for trace in received if trace.number != 200] == sent  # inject() goes past the trace
        assert [(trace.message, trace.length) for trace in unknown] == ([(None, 2)] if receiver == "server" else [])
        starts = [trace.sequence_number for trace in received]
        reset = numbers(received).index(21) + 1
        assert starts == [*range(reset), *range(len(received) - reset)]  # strict: from 0 again
        assert all(trace.length == len(trace.message.encode()) for trace in sent if trace.message is not None)
    names = [type(trace.message).__name__ for trace in traces["client"] if trace.sent]
    assert names[:4] == ["KexInit", "KexEcdhInit", "NewKeys", "ExtInfo"]
    assert names[-2:] == ["ChannelData", "Disconnect"]


def test_a_trace_of_a_message_that_does_not_decode_has_none() -> None:
    traces: list[Trace] = []
    pair = make(server={"trace": traces.append}).login()
    inject(pair.client, b"\x02\0")
    pair.run()
    broken = [trace for trace in traces if trace.number == 2]
    assert [(trace.message, trace.length, trace.sent) for trace in broken] == [(None, 2, False)]
    assert "Ignore" in str(loss(pair.server.events))


@pytest.mark.covers("R169")
def test_a_trace_shows_no_password() -> None:
    traces: list[Trace] = []

    def answer(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.CredentialNeeded) and question.attempt == 0:
            conn.auth_password(question, "hunter2")
        else:
            trust(conn, question)

    config = {"auth_methods": ("password",), "trace": traces.append}
    make(client={"trace": traces.append}, server=config, client_answer=answer).run()
    assert 50 in numbers(traces)
    assert "hunter2" not in repr(traces)


# ----------------------------------------------------------------------------------------------------------------- time


def test_time_never_goes_back() -> None:
    pair = both().login()
    conn = pair.client.conn
    conn.receive_data(b"", 100.0)
    deadline = conn.next_deadline()
    conn.receive_data(b"", 50.0)
    conn.handle_timeout(1.0)
    assert conn._engine.timers.now == 100.0
    assert conn.next_deadline() == deadline


def test_a_timeout_that_comes_early_does_nothing_and_one_that_comes_late_counts(side: str) -> None:
    pair = make(client_answer=None)
    end, _ = ends(pair, side)
    end.conn.handle_timeout(59.999)
    assert end.conn.next_event() is None
    assert end.conn.next_deadline() == 60.0
    end.conn.handle_timeout(1e9)
    error = loss([end.conn.next_event()])
    assert isinstance(error, TimedOut)
    assert error.timer == "handshake"
    assert goodbye(end.conn.data_to_send()) == 11


def test_no_deadline_where_none_is_wanted(side: str) -> None:
    timeouts = Timeouts(handshake=None, auth=None, kex=None, rekey=None, linger=None)
    pair = both(timeouts=timeouts)
    end, _ = ends(pair, side)
    assert end.conn.next_deadline() is None
    pair.login()
    end.conn.rekey()
    assert end.conn.next_deadline() is None
    pair.run()
    end.conn.disconnect()
    assert end.conn.next_deadline() is None


def test_what_is_not_sent_in_time_is_dropped() -> None:
    pair = both(timeouts=Timeouts(linger=5.0)).login()
    conn = pair.client.conn
    conn.disconnect("over")
    assert conn.should_close
    assert conn.output_size > 0
    assert conn.next_deadline() == 5.0
    conn.handle_timeout(1.0)  # a command brings no time: the seconds count from the next input on
    assert conn.next_deadline() == 6.0
    conn.handle_timeout(5.9)
    assert conn.output_size > 0
    conn.handle_timeout(6.0)
    assert conn.output_size == 0
    assert conn.data_to_send() == b""
    assert conn.next_deadline() is None


def test_an_input_that_ends_the_connection_brings_the_time() -> None:
    pair = make(client_answer=None)
    conn = pair.client.conn
    conn.handle_timeout(60.0)
    assert isinstance(conn.error, TimedOut)
    assert conn.next_deadline() == 65.0
    conn.handle_timeout(65.0)
    assert conn.output_size == 0
    assert conn.next_deadline() is None


@pytest.mark.covers("R165")
def test_after_the_end_only_linger_is_due() -> None:
    """A machine slept through the deadline of login and the age of the keys."""
    pair = make(client_answer=trust).run()
    conn = pair.server.conn
    conn.handle_timeout(4000.0)
    assert isinstance(conn.error, TimedOut)
    for _ in range(3):
        if (deadline := conn.next_deadline()) is not None:
            conn.handle_timeout(deadline)
    assert conn.next_deadline() is None


def test_a_keepalive_needs_no_room_among_our_own_requests() -> None:
    """Replies that the peer owes the application tell as much about it as a keepalive's would."""
    config = {"limits": Limits(requests_pending=2), "timeouts": Timeouts(keepalive=10.0, keepalive_count=2)}
    pair = make(client=config).login()
    conn = pair.client.conn
    for _ in range(2):
        conn.global_request(UnknownGlobal("x@example.org", b""))
    for seconds in (10.0, 20.0):
        conn.handle_timeout(seconds)
        assert conn.error is None
    conn.handle_timeout(30.0)
    assert isinstance(conn.error, TimedOut)


# ----------------------------------------------------------------------------------------------------------------- ends


@pytest.mark.covers("R166")
@pytest.mark.parametrize("where", ["packet", "authentication", "connection"])
def test_an_eof_says_where_it_came(where: str, side: str) -> None:
    pair = make(client_answer=trust if where == "authentication" else Pair.make().client.answer).run()
    end, peer = ends(pair, side)
    if where == "packet":
        peer.conn.ignore(b"x")
        end.conn.receive_data(peer.conn.data_to_send()[:-1], 0.0)
    end.conn.receive_eof(0.0)
    end.conn.receive_eof(0.0)
    end.drain()
    error = loss(end.events)
    assert isinstance(error, UnexpectedEof)
    assert (error.where, error.code) == (where, None)
    assert end.conn.data_to_send() == b""  # nobody would read a DISCONNECT


@pytest.mark.covers("R167", "R96")
def test_what_came_before_eof_is_not_lost() -> None:
    pair = both().login()
    channel = pair.client.conn.open_channel(Session())
    pair.run()
    pair.client.conn.send(channel, b"last words")
    pair.server.conn.receive_data(pair.client.drain(), 0.0)
    pair.server.conn.receive_eof(0.0)
    pair.server.drain()
    assert pair.server.data[channel, 0] == b"last words"
    assert isinstance(loss(pair.server.events), UnexpectedEof)


@pytest.mark.covers("R166")
def test_an_eof_ends_the_wait_for_an_answer() -> None:
    """Nobody is left whom the answer could reach. The rest of the input is not looked at."""
    pair = make(client_answer=None).run()
    conn = pair.client.conn
    [question] = conn.questions
    conn.receive_eof(0.0)
    event = conn.next_event()
    assert isinstance(loss([event]), UnexpectedEof)
    assert conn.next_event() is None
    conn.accept_host_key(question)  # too late to matter
    assert conn.host_key is None
    assert conn.data_to_send() == b""


@pytest.mark.covers("R166")
def test_an_eof_behind_whole_packets_is_not_in_the_middle_of_one() -> None:
    """The server's NEWKEYS waits, complete, behind the question about its host key."""
    pair = make(client_answer=None).run()
    pair.client.conn.receive_eof(0.0)
    error = loss([pair.client.conn.next_event()])
    assert error.where == "key exchange"  # type: ignore[attr-defined]


@pytest.mark.covers("P1")
@pytest.mark.covers("R166")
def test_an_eof_after_disconnect_is_no_second_end(side: str) -> None:
    pair = both().login()
    end, peer = ends(pair, side)
    peer.conn.disconnect("bye", code=12)
    end.conn.receive_data(peer.conn.data_to_send(), 0.0)
    end.conn.receive_eof(0.0)
    end.drain()
    error = loss(end.events)
    assert isinstance(error, PeerDisconnected)
    assert error.code == 12


@pytest.mark.covers("P1", "P7")
@pytest.mark.covers("R47")
def test_disconnecting_is_the_last_event_and_done_once(side: str) -> None:
    pair = both().login()
    end, peer = ends(pair, side)
    end.conn.ping(b"before")
    end.conn.disconnect("going home", code=11)
    end.conn.disconnect("again", code=2)
    end.conn.receive_data(b"late", 0.0)
    pair.run()
    error = loss(end.events)
    assert isinstance(error, LocalClose)
    assert (str(error), error.code) == ("closed by this side: going home", 11)
    assert end.conn.error is error
    assert end.conn.phase is Phase.CLOSED
    assert (end.conn.channels, end.conn.questions) == ((), ())
    told = loss(peer.events)
    assert isinstance(told, PeerDisconnected)
    assert (told.code, told.description) == (11, "going home")


def test_the_end_makes_every_question_void() -> None:
    pair = make(client_answer=trust).run()
    conn = pair.client.conn
    [question] = conn.questions
    conn.disconnect()
    assert conn.questions == ()
    before = conn.output_size
    conn.auth_password(question, "too late")
    assert conn.output_size == before


def test_disconnecting_while_keys_are_exchanged_does_not_wait_for_them(side: str) -> None:
    pair = both().login()
    end, peer = ends(pair, side)
    end.conn.rekey()
    end.conn.ping(b"never sent")
    end.conn.disconnect("over")
    pair.run()
    assert isinstance(loss(peer.events), PeerDisconnected)
    assert not end.of(ev.PongReceived)


@pytest.mark.covers("P7")
@pytest.mark.covers("R47")
def test_nothing_follows_a_disconnect_not_even_a_rekeying() -> None:
    """The DISCONNECT is the packet that brings the key to its limit."""
    traces: list[Trace] = []
    pair = make(client={"limits": Limits(rekey_bytes=20_000), "trace": traces.append}).login()
    conn = pair.client.conn
    while conn._engine.outbox.served < 19_800:
        conn.ignore(bytes(20))
    conn.disconnect("x" * 300)
    assert numbers([trace for trace in traces if trace.sent])[-1] == 1
    assert not conn.rekeying


@pytest.mark.covers("R165", "R168")
def test_a_command_in_the_wrong_phase_says_which_and_after_the_end_why() -> None:
    pair = make(client_answer=trust).run()
    conn = pair.client.conn
    with pytest.raises(WrongPhase, match="can't rekey in the phase of authentication, only in that of connection"):
        conn.rekey()
    conn.disconnect("over")
    with pytest.raises(WrongPhase, match="can't rekey: the connection has ended: closed by this side: over"):
        conn.rekey()


@pytest.mark.covers("R169")
def test_a_bug_ends_the_connection_and_tells_the_peer_nothing_of_the_inside(side: str) -> None:
    pair = both(debug_raise=False).login()
    end, peer = ends(pair, side)

    def broken(number: int, payload: bytes) -> None:
        raise RuntimeError("a secret detail")

    end.conn._engine._handlers = (broken,) * 256
    peer.conn.ignore(b"x")
    pair.run()
    error = loss(end.events)
    assert isinstance(error, InternalError)
    assert isinstance(error.__cause__, RuntimeError)
    told = loss(peer.events)
    assert (told.code, told.description) == (11, "internal error")  # type: ignore[attr-defined]


def test_a_panic_of_the_backend_is_a_bug_and_no_more(side: str) -> None:
    pair = both(debug_raise=False).login()
    end, peer = ends(pair, side)

    def panicking(engine: Any, payload: bytes) -> None:
        raise PanicException("index out of bounds")

    end.conn._engine._handlers = (panicking,) * 256
    peer.conn.ignore(b"x")
    pair.run()
    error = loss(end.events)
    assert isinstance(error, InternalError)
    assert isinstance(error.__cause__, PanicException)


def test_an_interruption_is_not_ours(side: str) -> None:
    pair = both(debug_raise=False).login()
    end, peer = ends(pair, side)

    def interrupted(engine: Any, payload: bytes) -> None:
        raise KeyboardInterrupt

    end.conn._engine._handlers = (interrupted,) * 256
    inject(peer, m.Ignore(b"x"))
    end.conn.receive_data(peer.conn.data_to_send(), 0.0)
    with pytest.raises(KeyboardInterrupt):
        end.conn.next_event()
    assert end.conn.error is None


def test_a_bug_is_raised_where_that_is_wanted() -> None:
    pair = both(debug_raise=True).login()

    def broken(engine: Any, payload: bytes) -> None:
        raise RuntimeError("found")

    pair.server.conn._engine._handlers = (broken,) * 256
    inject(pair.client, m.ChannelData(0, b"x"))
    pair.server.conn.receive_data(pair.client.conn.data_to_send(), 0.0)
    with pytest.raises(RuntimeError, match="found"):
        pair.server.conn.next_event()


def test_a_trace_that_fails_at_the_goodbye_leaves_nothing_undone(side: str) -> None:
    broken = False

    def trace(packet: Trace) -> None:
        if broken:
            raise RuntimeError("the disk is full")

    pair = make(**{side: {"trace": trace}}).login()
    end, _ = ends(pair, side)
    if side == "client":
        end.conn.open_channel(Session())
    broken = True
    with pytest.raises(RuntimeError, match="full"):
        end.conn.disconnect("over")
    assert end.conn.channels == ()
    assert end.conn.next_deadline() == end.conn._engine.timers.now + Timeouts().linger
    end.drain()
    assert isinstance(loss(end.events), LocalClose)


def test_output_that_is_full_is_noticed_though_no_key_exchange_can_begin() -> None:
    broken = False

    def entropy(count: int, label: str) -> bytes:
        if broken and label == "cookie":
            raise RuntimeError("no entropy")
        return bytes(count)

    pair = make(server={"entropy": entropy, "limits": Limits(rekey_bytes=10_000, output_hard=20_000)}).login()
    conn = pair.server.conn
    broken = True
    with pytest.raises(RuntimeError, match="entropy"):
        conn.ignore(bytes(30_000))
    inject(pair.client, m.Ignore(b""))
    events = push(conn, pair.client.conn.data_to_send())
    assert "does not read" in str(loss(events))


@pytest.mark.covers("R158")
def test_an_undecodable_message_ends_the_connection_by_name(side: str) -> None:
    pair = both().login()
    end, peer = ends(pair, side)
    inject(peer, b"\x5d\0\0\0\0\0")
    pair.run()
    error = loss(end.events)
    assert isinstance(error, ProtocolViolation)
    assert "ChannelWindowAdjust" in str(error)
    assert loss(peer.events).code == 2


# ------------------------------------------------------------------------------------------------------- identification


def test_a_client_that_is_not_eager_waits_for_the_servers_identification() -> None:
    pair = make(client={"eager": False})
    assert pair.client.conn.data_to_send() == b"SSH-2.0-sshproto_0.1.0\r\n"
    push(pair.client.conn, b"SSH-2.0-x\r\n")
    assert pair.client.conn.data_to_send()[5:6] == b"\x14"
    pair = make(client={"eager": False, "comments": "no hurry"}).login()
    assert pair.server.conn.peer_version.comments == "no hurry"


def test_an_eager_client_sends_its_kexinit_at_once() -> None:
    pair = make()
    assert b"\r\n\0\0" in pair.client.conn.data_to_send()


@pytest.mark.covers("V36")
def test_packets_right_behind_the_identification_are_not_lost() -> None:
    pair = make(server={"preferences": Preferences(strict_kex=False)})
    events = push(pair.server.conn, IDENT + frame(m.Debug(True, "glued").encode()) + frame(kexinit()))
    assert [type(event) for event in events] == [ev.VersionReceived, ev.DebugReceived]
    assert pair.server.conn.rekeying


def test_getters_follow_the_events(side: str) -> None:
    pair = both()
    end, _ = ends(pair, side)
    seen: list[tuple[str, Phase]] = []
    end.react = lambda conn, event: seen.append((type(event).__name__, conn.phase))
    assert end.conn.phase is Phase.IDENT
    assert (end.conn.negotiated, end.conn.session_id, end.conn.host_key, end.conn.peer_version) == (None,) * 4
    pair.login()
    phases = dict(seen)
    assert phases["VersionReceived"] is Phase.KEX
    assert phases["KeysExchanged"] is Phase.AUTH
    assert phases["AuthSucceeded" if side == "client" else "Authenticated"] is Phase.OPEN
    assert end.conn.negotiated is not None
    assert end.conn.host_key == HOST_KEY.public_key
    assert "in the phase of connection, 0 channels" in repr(end.conn)


def test_what_is_remembered_of_offers_is_small() -> None:
    """A KEXINIT that is long is read anew each time, and nothing of it is kept."""
    remembered = (keyexchange._read_rest, *keyexchange._HABITS[1:])

    def kept(padding: int) -> list[int]:
        before = [function.cache_info().misses for function in remembered]
        server = ServerConnection(ServerConfig(host_keys=[HOST_KEY]), 0.0)
        names = ("curve25519-sha256", *(f"{'x' * 50}@{number}" for number in range(padding)))
        events = push(server, IDENT + frame(kexinit(kex_algorithms=names)))
        assert not any(isinstance(event, ev.ConnectionLost) for event in events)
        assert server._engine.kex.context == "ecdh"
        return [function.cache_info().misses - old for function, old in zip(remembered, before, strict=True)]

    assert kept(11) == [1, 1, 1]
    assert kept(11) == [0, 0, 0]
    assert kept(100) == [0, 0, 0]
