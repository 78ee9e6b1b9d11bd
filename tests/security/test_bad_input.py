"""Bad input, each with the right disconnect and nothing raised."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from sshproto import events as ev
from sshproto.channels.requests import Session
from sshproto.client import ClientConnection
from sshproto.config import ClientConfig, Limits, Preferences, ServerConfig, Timeouts
from sshproto.errors import (
    Incompatible,
    InvalidArgument,
    LimitExceeded,
    MacError,
    PeerDisconnected,
    ProtocolViolation,
    TimedOut,
    UnexpectedEof,
    VersionUnsupported,
)
from sshproto.keys.private import PrivateKey
from sshproto.server import ServerConnection
from sshproto.timers import Timer
from sshproto.wire import messages as m
from tests.support.pair import HOST_KEY, USER_KEY, Pair, server_answers
from tests.support.rogue import IDENT, frame, goodbye, inject, kexinit, loss, push

MARK = {"client": "kex-strict-s-v00@openssh.com", "server": "kex-strict-c-v00@openssh.com"}


def make(role: str, **changes: Any) -> Any:
    if role == "client":
        return ClientConnection(ClientConfig(user="alice", debug_raise=True, **changes), 0.0)
    return ServerConnection(ServerConfig(host_keys=(HOST_KEY,), debug_raise=True, **changes), 0.0)


@pytest.fixture(params=["client", "server"])
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def strict(role: str) -> bytes:
    """The peer's KEXINIT with the strict marker."""
    return kexinit(kex_algorithms=("curve25519-sha256", MARK[role]))


# ---------------------------------------------------------------------------------------------------------- packets (8)


@pytest.mark.covers("V21", "V22", "R22")
@pytest.mark.parametrize(
    "head",
    [
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"\x00\x04\x00\x01",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x04",
        b"\x00\x00\x88\xb9",
    ],
    ids=["2^32-1", "2^31-1", "past-256KiB", "0", "4", "past-35000"],
)
def test_a_bad_length_is_refused_at_its_fourth_byte(role: str, head: bytes) -> None:
    conn = make(role)
    assert not [event for event in push(conn, IDENT + head[:3]) if isinstance(event, ev.ConnectionLost)]
    error = loss(push(conn, head[3:]))
    assert isinstance(error, ProtocolViolation)
    assert goodbye(conn.data_to_send()) == 2


@pytest.mark.covers("V23", "V24", "R19")
@pytest.mark.parametrize(
    "packet",
    [
        frame(b"\x02\0\0\0\0", padding=0, length=13)[:17] + bytes(7),
        frame(b"\x02\0\0\0\0\0\0\0", padding=3),
        b"\x00\x00\x00\x0c\xff\x02" + bytes(10),
        b"\x00\x00\x00\x0c\x0b" + bytes(11),
        b"\x00\x00\x00\x0c\x0c" + bytes(11),
        b"\x00\x00\x00\x0d\x04" + bytes(12),
    ],
    ids=["padding-0", "padding-3", "padding-255", "empty-payload", "padding-is-all", "unaligned"],
)
def test_bad_framing(role: str, packet: bytes) -> None:
    conn = make(role)
    error = loss(push(conn, IDENT + packet))
    assert isinstance(error, ProtocolViolation)
    assert goodbye(conn.data_to_send()) == 2


@pytest.mark.covers("V23")
def test_a_padding_of_255_is_fine_where_it_fits(role: str) -> None:
    conn = make(role)
    push(conn, IDENT + frame(m.Ignore(bytes(7)).encode(), padding=255) + frame(m.Ignore(b"").encode()))
    assert conn.error is None
    assert conn._engine.opener.packets == 2


@pytest.mark.covers("V36")
def test_ten_megabytes_of_noise(role: str) -> None:
    conn = make(role)
    noise = bytes(range(256)) * 4
    ended = 0
    for _ in range(10_240):
        ended += sum(isinstance(event, ev.ConnectionLost) for event in push(conn, noise))
        conn.data_to_send()
    assert ended == 1
    assert conn.should_close


@pytest.mark.covers("V40")
@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"])
@pytest.mark.parametrize("mac", ["hmac-sha2-256", "hmac-sha2-256-etm@openssh.com"])
def test_a_wrong_mac(cipher: str, mac: str) -> None:
    preferences = Preferences(cipher=(cipher,), mac=(mac,))
    pair = Pair.make(
        ClientConfig(user="alice", preferences=preferences, debug_raise=True),
        ServerConfig(host_keys=(HOST_KEY,), preferences=preferences, debug_raise=True),
    ).login()
    pair.client.conn.ignore(b"x" * 20)
    data = bytearray(pair.client.drain())
    data[-1] ^= 1
    pair.server.conn.receive_data(bytes(data), 0.0)
    pair.server.drain()
    assert isinstance(loss(pair.server.events), MacError)
    assert loss(pair.server.events).code == 5


# --------------------------------------------------------------------------------------------------- identification (8)


@pytest.mark.covers("V36", "R17")
@pytest.mark.parametrize("line", [b"SSH-1.5-OpenSSH_2.1\n", b"SSH-2.01-x\r\n", b"SSH-3.0-x\r\n"])
def test_other_versions_get_an_event_and_code_8(role: str, line: bytes) -> None:
    conn = make(role)
    events = push(conn, line)
    assert isinstance(events[0], ev.VersionReceived)
    assert isinstance(loss(events), VersionUnsupported)
    assert line.decode().strip() in str(loss(events))
    assert goodbye(conn.data_to_send()) == 8


def test_a_server_is_told_http() -> None:
    conn = make("server")
    error = loss(push(conn, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert isinstance(error, VersionUnsupported)
    assert "GET / HTTP/1.1" in str(error)


@pytest.mark.covers("V36", "B1")
def test_a_line_without_end(role: str) -> None:
    conn = make(role)
    events = push(conn, b"SSH-2.0-" + b"x" * 300)
    assert loss(events).code in {2, 8}


@pytest.mark.covers("V70")
def test_terminal_escapes_of_the_peer_are_made_harmless() -> None:
    conn = make("client")
    error = loss(push(conn, b"SSH-1.5-\x1b]0;evil\x07\n"))
    assert "\x1b" not in str(error)


# ----------------------------------------------------------------------------------------------------- key exchange (8)


@pytest.mark.covers("R31")
@pytest.mark.parametrize(
    ("slot", "category"),
    [
        ("kex_algorithms", "kex"),
        ("server_host_key_algorithms", "host key"),
        ("encryption_algorithms_client_to_server", "cipher client to server"),
        ("encryption_algorithms_server_to_client", "cipher server to client"),
        ("mac_algorithms_client_to_server", "mac client to server"),
        ("mac_algorithms_server_to_client", "mac server to client"),
        ("compression_algorithms_client_to_server", "compression client to server"),
        ("compression_algorithms_server_to_client", "compression server to client"),
    ],
)
def test_no_common_algorithm_lists_both_offers(role: str, slot: str, category: str) -> None:
    conn = make(role)
    error = loss(push(conn, IDENT + frame(kexinit(**{slot: ("exotic@example.org", "odd")}))))
    assert isinstance(error, Incompatible)
    assert error.category.lower() == category
    assert error.theirs == ("exotic@example.org", "odd")
    assert error.ours
    assert "exotic@example.org" in str(error)
    assert goodbye(conn.data_to_send()) == 3


@pytest.mark.covers("V07")
def test_newkeys_early(role: str) -> None:
    conn = make(role)
    error = loss(push(conn, IDENT + frame(kexinit()) + frame(b"\x15")))
    assert isinstance(error, ProtocolViolation)
    assert goodbye(conn.data_to_send()) == 2


def test_newkeys_before_kexinit(role: str) -> None:
    conn = make(role)
    assert isinstance(loss(push(conn, IDENT + frame(b"\x15"))), ProtocolViolation)


@pytest.mark.covers("V13")
def test_a_second_kexinit(role: str) -> None:
    conn = make(role)
    assert "second KEXINIT" in str(loss(push(conn, IDENT + frame(kexinit()) * 2)))


@pytest.mark.covers("V01", "V03")
@pytest.mark.parametrize("early", [m.Ignore(b"x"), m.Debug(False, "x"), m.Unimplemented(0)])
def test_strict_kex_wants_kexinit_first(role: str, early: m.Message) -> None:
    """Checked in hindsight, when the marker is seen."""
    conn = make(role)
    error = loss(push(conn, IDENT + frame(early.encode()) + frame(strict(role))))
    assert "strict" in str(error)
    assert goodbye(conn.data_to_send()) == 2


@pytest.mark.covers("V01")
@pytest.mark.parametrize("number", [2, 3, 4, 7, 8, 22, 60, 80, 192, 200])
def test_strict_kex_allows_nothing_else(role: str, number: int) -> None:
    conn = make(role)
    error = loss(push(conn, IDENT + frame(strict(role)) + frame(bytes((number,)) + bytes(8))))
    assert error.code == 2


def test_without_the_marker_ignore_is_ignored(role: str) -> None:
    conn = make(role)
    events = push(conn, IDENT + frame(m.Ignore(b"x").encode()) + frame(kexinit()) + frame(m.Ignore(b"y").encode()))
    assert not [event for event in events if isinstance(event, ev.ConnectionLost)]


@pytest.mark.covers("V04")
@pytest.mark.parametrize(
    "payload", [m.ServiceRequest("ssh-userauth"), m.UserauthRequest("root", "ssh-connection", "none")]
)
def test_login_before_keys(payload: m.Message) -> None:
    conn = make("server")
    assert loss(push(conn, IDENT + frame(kexinit()) + frame(payload.encode()))).code == 2


@pytest.mark.covers("V04", "V07")
@pytest.mark.parametrize("payload", [m.UserauthSuccess(), m.ServiceAccept("ssh-userauth"), m.ExtInfo(())])
def test_success_before_keys(payload: m.Message) -> None:
    conn = make("client")
    assert loss(push(conn, IDENT + frame(kexinit()) + frame(payload.encode()))).code == 2


@pytest.mark.covers("V15")
def test_one_wrong_guess_is_dropped_and_only_one() -> None:
    wrong = kexinit(
        kex_algorithms=("ecdh-sha2-nistp521", "curve25519-sha256"),
        first_kex_packet_follows=True,
    )
    preferences = Preferences(kex=("curve25519-sha256",))
    conn = make("server", preferences=preferences)
    guess = frame(m.KexEcdhInit(b"\x04" + bytes(132)).encode())
    events = push(conn, IDENT + frame(wrong) + guess)
    assert not [event for event in events if isinstance(event, ev.ConnectionLost)]
    assert loss(push(conn, guess)).code == 3  # taken as the real one now: a bad share


@pytest.mark.covers("R166")
@pytest.mark.parametrize("version", ["ident", "kex"])
def test_a_peer_that_goes_away(role: str, version: str) -> None:
    conn = make(role)
    if version == "kex":
        push(conn, IDENT)
    conn.receive_eof(0.0)
    error = conn.next_event().error
    assert isinstance(error, UnexpectedEof)
    assert error.where == {"ident": "identification", "kex": "key exchange"}[version]


# --------------------------------------------------------------------------------------------------- login and channels


@pytest.mark.covers("V05", "R66")
@pytest.mark.parametrize(
    "message",
    [
        m.ChannelOpen("session", 0, 1 << 20, 1 << 15),
        m.ChannelRequest(0, "exec", True, b"\0\0\0\2id"),
        m.GlobalRequest("keepalive@openssh.com", True),
        m.ChannelData(0, b"x"),
        m.Ping(b""),
    ],
)
def test_connection_messages_before_login(message: m.Message) -> None:
    """CVE-2025-32433 and its family."""
    pair = Pair.make(
        client_answer=lambda conn, q: conn.accept_host_key(q) if isinstance(q, ev.HostKeyOffered) else None
    )
    pair.run()
    inject(pair.client, message)
    pair.run()
    assert loss(pair.server.events).code == 2
    assert not pair.server.of(ev.ChannelOpenRequested)


@pytest.mark.covers("V06")
@pytest.mark.parametrize(
    "message", [m.UserauthSuccess(), m.UserauthFailure((), False), m.ServiceAccept("ssh-userauth")]
)
def test_a_client_that_plays_the_server(message: m.Message) -> None:
    """CVE-2018-10933."""
    pair = Pair.make(
        client_answer=lambda conn, q: conn.accept_host_key(q) if isinstance(q, ev.HostKeyOffered) else None
    )
    pair.run()
    inject(pair.client, message)
    pair.run()
    assert loss(pair.server.events).code == 2


def opened() -> tuple[Pair, int]:
    pair = Pair.make().login()
    channel = pair.client.conn.open_channel(Session(), window=1000)
    pair.run()
    return pair, channel


@pytest.mark.covers("V30")
def test_a_window_overrun() -> None:
    pair, channel = opened()
    inject(pair.server, m.ChannelData(channel, bytes(1001)))
    pair.client.auto_credit = False
    pair.run()
    assert loss(pair.client.events).code == 2
    assert not pair.client.of(ev.DataReceived)


@pytest.mark.covers("V29", "R88")
def test_a_window_overflow() -> None:
    pair, channel = opened()
    inject(pair.server, m.ChannelWindowAdjust(channel, 0xFFFFFFFF))
    pair.run()
    assert loss(pair.client.events).code == 2


def test_data_on_a_channel_that_never_was() -> None:
    pair, channel = opened()
    inject(pair.server, m.ChannelData(channel + 1, b"x"))
    pair.run()
    assert loss(pair.client.events).code == 2


@pytest.mark.covers("V13", "R156")
@pytest.mark.parametrize("side", ["client", "server"])
def test_channel_data_between_kexinit_and_newkeys(side: str) -> None:
    pair, channel = opened()
    end, peer = (pair.client, pair.server) if side == "client" else (pair.server, pair.client)
    end.conn.rekey()
    inject(end, m.ChannelData(channel, b"too late"))
    pair.run()
    assert loss(peer.events).code == 2
    assert not peer.of(ev.DataReceived)


@pytest.mark.covers("R51")
@pytest.mark.parametrize("number", [105, 127, 150, 255])
def test_unknown_messages_are_answered_with_their_sequence_number(number: int) -> None:
    pair, _ = opened()
    before = pair.client.conn._engine.outbox.sealer.sequence_number
    inject(pair.client, bytes((number, 1, 2, 3)))
    pair.run()
    assert pair.client.of(ev.UnimplementedReceived) == [ev.UnimplementedReceived(before)]
    assert pair.server.lost is None


@pytest.mark.covers("V27")
def test_trailing_bytes(role: str) -> None:
    pair, _ = opened()
    end, peer = (pair.server, pair.client) if role == "client" else (pair.client, pair.server)
    inject(end, m.Ignore(b"x").encode() + b"!")
    pair.run()
    assert loss(peer.events).code == 2
    assert "1 bytes too many" in str(loss(peer.events))


# ------------------------------------------------------------------------------------------------------ bounds and ends


@pytest.mark.covers("V14", "B14")
def test_a_flood_before_login_is_cut() -> None:
    conn = make("server", limits=Limits(packets_before_auth=100), preferences=Preferences(strict_kex=False))
    packet = frame(m.Ignore(b"").encode())
    assert not [event for event in push(conn, IDENT + packet * 100) if isinstance(event, ev.ConnectionLost)]
    error = loss(push(conn, packet))
    assert isinstance(error, LimitExceeded)
    assert error.limit == "packets_before_auth"


@pytest.mark.covers("V13", "B12")
def test_a_peer_that_rekeys_for_ever_is_cut() -> None:
    limits = Limits(peer_rekeys=5)
    pair = Pair.make(server=ServerConfig(host_keys=(HOST_KEY,), limits=limits)).login()
    for _ in range(8):
        if pair.server.lost is None:
            pair.client.conn.rekey()
            pair.run()
    error = loss(pair.server.events)
    assert isinstance(error, LimitExceeded)
    assert error.limit == "peer_rekeys"


@pytest.mark.covers("V13", "B10")
def test_a_peer_that_never_ends_its_rekey_is_timed_out() -> None:
    pair, _ = opened()
    pair.server.conn.rekey()
    pair.server.drain()
    pair.server.conn.handle_timeout(61.0)  # rekey() brought no time: only here does its deadline start to run
    assert pair.server.conn.next_deadline() == 121.0
    pair.server.conn.handle_timeout(121.0)
    pair.server.drain()
    assert isinstance(loss(pair.server.events), TimedOut)


@pytest.mark.covers("B10")
def test_a_silent_peer_is_timed_out(role: str) -> None:
    conn = make(role)
    assert conn.next_deadline() == 60.0
    conn.handle_timeout(60.0)
    assert isinstance(conn.next_event().error, TimedOut)


@pytest.mark.covers("R55")
def test_login_has_its_time() -> None:
    pair = Pair.make(
        client_answer=lambda conn, q: conn.accept_host_key(q) if isinstance(q, ev.HostKeyOffered) else None
    )
    pair.run()
    pair.sleep(121)
    assert isinstance(loss(pair.server.events), TimedOut)


def test_keepalives_find_a_dead_peer() -> None:

    pair = Pair.make(ClientConfig(user="alice", timeouts=Timeouts(keepalive=10.0, keepalive_count=2))).login()
    pair.sleep(100)
    assert pair.client.lost is None  # the server answers
    start = pair.client.conn.next_deadline()
    assert start is not None
    for step in range(4):
        pair.client.conn.handle_timeout(start + 10 * step)
        pair.client.drain()
    assert isinstance(loss(pair.client.events), TimedOut)


@pytest.mark.covers("R47")
def test_after_a_disconnect_nothing_counts(role: str) -> None:
    pair, _ = opened()
    end, peer = (pair.server, pair.client) if role == "client" else (pair.client, pair.server)
    inject(end, m.Disconnect(11, "bye\x1b[2J"))
    inject(end, m.Ping(b"late"))
    pair.run()
    error = loss(peer.events)
    assert isinstance(error, PeerDisconnected)
    assert (error.code, error.description) == (11, "bye\\x1b[2J")
    assert peer.conn.data_to_send() == b""
    peer.conn.receive_data(b"more", 0.0)
    assert peer.conn.next_event() is None


@pytest.mark.covers("B6", "B7")
def test_output_that_nobody_takes_is_bounded() -> None:
    """A peer that makes us answer and does not read."""
    limits = Limits(output_hard=100_000)
    pair = Pair.make(server=ServerConfig(host_keys=(HOST_KEY,), limits=limits)).login()
    for _ in range(5000):
        inject(pair.client, m.Ping(b"x" * 100))
    data = pair.client.conn.data_to_send()
    pair.server.conn.receive_data(data, 0.0)
    events = []
    while (event := pair.server.conn.next_event()) is not None:  # and the output is never taken
        events.append(event)
    error = loss(events)
    assert isinstance(error, LimitExceeded)
    assert error.limit == "output_hard"
    assert pair.server.conn.output_size < 110_000


def test_a_person_may_take_time_but_the_server_may_not() -> None:
    """A client's deadlines stand while a question is open, and run while the server is to answer."""
    asked: list[ev.Question] = []
    pair = Pair.make(client_answer=lambda conn, question: asked.append(question))
    pair.server.conn._engine.timers.clear()  # an endlessly patient server
    pair.run()
    assert pair.client.conn.next_deadline() is None
    pair.now = 1000.0
    pair.client.conn.accept_host_key(asked.pop())
    pair.client.conn.handle_timeout(1000.0)
    assert pair.client.conn.next_deadline() == 1060.0
    pair.run()
    pair.client.conn._engine.timers.stop(Timer.REKEY)
    assert pair.client.conn.next_deadline() is None
    pair.client.conn.auth_password(asked.pop(), "secret")
    pair.now = 5000.0
    pair.client.conn.handle_timeout(5000.0)
    assert pair.client.conn.next_deadline() == 5120.0
    pair.client.drain()
    pair.client.conn.handle_timeout(5120.0)
    pair.client.drain()
    assert isinstance(loss(pair.client.events), TimedOut)


def test_a_peer_that_goes_away_while_a_question_is_open() -> None:
    pair = Pair.make(client_answer=None)
    pair.run()
    (question,) = pair.client.conn.questions
    pair.client.conn.receive_eof(0.0)
    pair.client.drain()
    assert isinstance(loss(pair.client.events), UnexpectedEof)
    pair.client.conn.accept_host_key(question)  # too late to matter
    assert pair.client.conn.data_to_send() == b""


@pytest.mark.parametrize(
    "make",
    [
        lambda: Limits(channels_from_peer=-1),
        lambda: Limits(packet="many"),  # type: ignore[arg-type]
        lambda: Limits(minimum_rsa_bits=512),
        lambda: Timeouts(auth=0.0),
        lambda: Timeouts(keepalive=-1.0),
    ],
)
def test_bounds_that_make_no_sense(make: Any) -> None:
    with pytest.raises(InvalidArgument):
        make()


# ------------------------------------------------------------------------------------------ found by attacking it, once


@pytest.mark.covers("V26", "R161")
def test_a_ping_too_large_to_be_answered(role: str) -> None:
    """A PONG is as large as its PING, and we send nothing that large."""
    pair, _ = opened()
    end, peer = (pair.server, pair.client) if role == "client" else (pair.client, pair.server)
    inject(end, m.Ping(bytes(261_200)))
    pair.run()
    assert end.of(ev.UnimplementedReceived)
    assert peer.lost is None


def test_an_answer_from_within_the_loop_may_take_its_time() -> None:
    """The user thinks for minutes while the application handles the question's event: no deadline has passed."""
    pair = Pair.make(client_answer=None)

    def slowly(conn: Any, event: ev.Event) -> None:
        if isinstance(event, ev.HostKeyOffered):
            pair.now += 300.0
            conn.accept_host_key(event)
        elif isinstance(event, ev.CredentialNeeded):
            pair.now += 300.0
            conn.auth_public_key(event, USER_KEY)

    pair.client.react = slowly
    pair.server.conn._engine.timers.clear()  # a server that waits
    pair.run()
    pair.client.conn.handle_timeout(pair.now)
    pair.client.drain()
    pair.run()
    assert pair.client.lost is None
    assert pair.client.of(ev.AuthSucceeded)


@pytest.mark.covers("R169")
def test_the_end_keeps_no_payload_with_a_password() -> None:
    """Whoever logs an exception with the variables of its frames must not log a password."""
    limits = Limits(auth_requests=0)
    server = ServerConfig(host_keys=(HOST_KEY,), auth_methods=("password",), limits=limits)

    def answer(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.HostKeyOffered):
            conn.accept_host_key(question)
        elif isinstance(question, ev.CredentialNeeded):
            conn.auth_password(question, "hunter2-canary")

    pair = Pair.make(server=server, client_answer=answer)
    pair.run()
    for end in (pair.server, pair.client):
        report = traceback.TracebackException.from_exception(loss(end.events), capture_locals=True)
        assert "hunter2-canary" not in "".join(report.format())
        assert "hunter2-canary" not in repr(end.events)


def test_a_keepalive_deadline_is_never_now_for_ever() -> None:
    """The rounding of floats must not make an integrator spin."""
    pair = Pair.make(ClientConfig(user="alice", timeouts=Timeouts(keepalive=5.0, rekey=None)))
    conn = pair.client.conn
    pair.login()
    conn.handle_timeout(122.54428540103834)
    pair.client.drain()
    conn.receive_data(pair.server.conn.data_to_send() or b"\0", 124.01595439856949)
    pair.client.drain()
    for _ in range(20):
        deadline = conn.next_deadline()
        if deadline is None or conn.error is not None:
            break
        conn.handle_timeout(deadline)
        pair.client.drain()
        assert conn.next_deadline() != deadline


def test_keepalive_does_not_take_a_peer_that_waits_for_us_for_dead() -> None:
    key = PrivateKey.generate("ssh-ed25519")
    timeouts = Timeouts(keepalive=5.0, kex=None, rekey=None)
    server = ServerConfig(host_keys=(key.public_key,), timeouts=timeouts)

    def sign_first_only(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.SignatureNeeded):
            if conn.negotiated is None:
                conn.sign(question, key.sign(question.data, question.algorithm))
        else:
            server_answers(conn, question)

    pair = Pair.make(server=server, server_answer=sign_first_only).login()
    pair.client.conn.rekey()
    pair.run()
    assert pair.server.conn.blocked_on is not None
    pair.sleep(40)
    assert pair.server.lost is None
