"""The properties that every sans-I/O connection must have: any chunking, no raise, determinism, rekey anywhere."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto import algorithms
from sshproto import events as ev
from sshproto.channels.requests import Exec, Session
from sshproto.client import ClientConnection
from sshproto.config import ClientConfig, Limits, Preferences, ServerConfig
from sshproto.errors import SSHError, UsageError
from sshproto.server import ServerConnection
from sshproto.transport.link import Phase
from tests.support import scenario
from tests.support.pair import HOST_KEY, Pair, bytewise, pieces, seeded

FAST = Preferences(kex=("curve25519-sha256",), cipher=("aes128-gcm@openssh.com",))


class Quiet:
    """Holds a large value that hypothesis should not print."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "<recorded>"


def outcome(pair: Pair) -> tuple[Any, ...]:
    """Everything about a run that chunking must not change."""
    return (
        [ev.show(event) for event in pair.client.events],
        [ev.show(event) for event in pair.server.events],
        bytes(pair.client.sent),
        bytes(pair.server.sent),
    )


@pytest.fixture(scope="module")
def reference() -> Quiet:
    tape = scenario.Tape()
    pair = scenario.make(tape=tape).run()
    scenario.check_complete(pair)
    return Quiet((tape, outcome(pair)))


def test_the_same_entropy_clock_and_inputs_give_the_same_bytes(reference: Any) -> None:
    tape, expected = reference.value
    assert outcome(scenario.make(tape=tape, replay=True).run()) == expected


@pytest.mark.covers("R163")
def test_byte_by_byte_gives_the_same_events_and_output(reference: Any) -> None:
    tape, expected = reference.value
    assert outcome(scenario.make(tape=tape, replay=True, chunker=bytewise).run()) == expected


@pytest.mark.covers("R163")
@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 4000), min_size=1, max_size=8), latency=st.sampled_from([0.0, 0.1]))
def test_any_chunking_gives_the_same_events_and_output(reference: Any, sizes: list[int], latency: float) -> None:
    tape, expected = reference.value
    pair = scenario.make(tape=tape, replay=True, chunker=pieces(sizes), latency=latency)
    assert outcome(pair.run()) == expected


@pytest.mark.covers("R164")
@pytest.mark.parametrize("cipher", algorithms.CIPHER_DEFAULT + algorithms.CIPHER_LEGACY)
@pytest.mark.parametrize("compression", ["none", "zlib", "zlib@openssh.com"])
def test_every_cipher_and_compression_carries_a_whole_session(cipher: str, compression: str) -> None:
    preferences = Preferences(
        kex=("curve25519-sha256",),
        cipher=(cipher,),
        mac=("hmac-sha2-256-etm@openssh.com",),
        compression=(compression,),
    )
    scenario.check_complete(scenario.make(preferences=preferences).run())


@pytest.mark.covers("R164")
@pytest.mark.parametrize("mac", algorithms.MAC_DEFAULT + algorithms.MAC_LEGACY)
@pytest.mark.parametrize("cipher", ["aes256-ctr", "aes128-cbc", "3des-cbc"])
def test_every_mac_carries_a_whole_session(mac: str, cipher: str) -> None:
    preferences = Preferences(kex=("curve25519-sha256",), cipher=(cipher,), mac=(mac,))
    scenario.check_complete(scenario.make(preferences=preferences).run())


@pytest.mark.covers("R164", "R122")
@pytest.mark.parametrize("kex", algorithms.KEX_DEFAULT + algorithms.KEX_EXTRA + algorithms.KEX_LEGACY)
def test_every_key_exchange_carries_a_whole_session_and_a_rekey(kex: str) -> None:
    pair = scenario.make(preferences=Preferences(kex=(kex,))).run()
    scenario.check_complete(pair)
    assert [event.first for event in pair.client.of(ev.KeysExchanged)] == [True, False]
    assert {event.negotiated.kex for event in pair.client.of(ev.KeysExchanged)} == {kex}


@pytest.mark.covers("R23", "R24", "R27")
def test_directions_are_independent() -> None:
    preferences = Preferences(
        kex=("curve25519-sha256",),
        cipher=("aes128-ctr",),
        cipher_server_to_client=("aes256-gcm@openssh.com",),
        mac=("hmac-sha2-512",),
        mac_server_to_client=("hmac-sha2-256",),
        compression=("zlib",),
        compression_server_to_client=("none",),
    )
    pair = scenario.make(preferences=preferences).run()
    scenario.check_complete(pair)
    chosen = pair.client.of(ev.KeysExchanged)[0].negotiated
    assert (chosen.cipher_client_to_server, chosen.cipher_server_to_client) == ("aes128-ctr", "aes256-gcm@openssh.com")
    assert (chosen.mac_client_to_server, chosen.mac_server_to_client) == ("hmac-sha2-512", None)
    assert (chosen.compression_client_to_server, chosen.compression_server_to_client) == ("zlib", "none")


# ------------------------------------------------------------------------------------------------------- rekey anywhere


@pytest.mark.covers("P20", "B13")
@pytest.mark.parametrize("strict", [True, False])
@settings(max_examples=15)
@given(every=st.integers(2_000, 40_000))
def test_rekeys_by_volume_are_invisible_to_the_data(strict: bool, every: int) -> None:
    limits = Limits(rekey_bytes=every, peer_rekey_bytes=1000)
    preferences = Preferences(kex=("curve25519-sha256",), cipher=("aes128-gcm@openssh.com",), strict_kex=strict)
    pair = scenario.make(preferences=preferences, limits=limits, rekey=False).run()
    scenario.check_complete(pair)
    assert len(pair.client.of(ev.KeysExchanged)) > 2
    assert not pair.client.of(ev.UnimplementedReceived)


@pytest.mark.covers("P20", "P6", "R42")
@settings(max_examples=25)
@given(data=st.data())
def test_rekeys_by_either_side_at_any_event_crossing_or_not(data: st.DataObject) -> None:
    """Both ends rekey at events that hypothesis picks, with latency so that they cross, while channels come and go."""
    pair = scenario.make(preferences=FAST, rekey=False, latency=0.05)
    picks = {end: data.draw(st.sets(st.integers(0, 25), max_size=5), label=end) for end in ("client", "server")}
    for end in (pair.client, pair.server):
        app, chosen = end.react, picks[end.name]

        def react(conn: Any, event: ev.Event, app: Any = app, chosen: Any = chosen, end: Any = end) -> None:
            app(conn, event)
            if len(end.events) in chosen and conn.phase is Phase.OPEN:
                conn.rekey()
                if end.name == "client":
                    extra = conn.open_channel(Session())
                    if len(chosen) % 2:
                        conn.close_channel(extra)

        end.react = react
    pair.run()
    assert bytes(pair.server.data[0, 0]) == scenario.UPLOAD
    assert bytes(pair.client.data[0, 0]) == scenario.DOWNLOAD
    assert bytes(pair.client.data[0, 1]) == scenario.ERRORS


@pytest.mark.covers("R44", "B13")
def test_a_rekey_in_time() -> None:
    pair = Pair.make().login()
    pair.sleep(3601)
    assert [event.first for event in pair.client.of(ev.KeysExchanged)] == [True, False]
    assert pair.client.lost is None


def test_writes_take_nothing_while_a_rekey_runs_and_writable_follows() -> None:
    pair = Pair.make().login()
    conn = pair.client.conn
    channel = conn.open_channel(Session())
    pair.run()
    conn.rekey()
    assert conn.rekeying
    assert conn.send(channel, b"later") == 0
    pair.run()
    assert pair.client.of(ev.ChannelWritable) == [ev.ChannelWritable(channel)]
    assert conn.send(channel, b"later") == 5


def test_a_channel_opened_and_one_closed_while_a_rekey_runs() -> None:
    pair = Pair.make(latency=0.1).login()
    conn = pair.client.conn
    first = conn.open_channel(Session())
    pair.run()
    pair.server.conn.rekey()
    conn.rekey()
    conn.close_channel(first)
    second = conn.open_channel(Session())
    pair.run()
    assert ev.ChannelClosed(first) in pair.client.events
    assert ev.ChannelOpened(second) in pair.client.events
    assert not conn.rekeying


# -------------------------------------------------------------------------------------------------- nothing ever raises


def fresh(role: str) -> Any:
    if role == "client":
        return ClientConnection(ClientConfig(user="alice", entropy=seeded("client"), debug_raise=True), 0.0)
    return ServerConnection(ServerConfig(host_keys=(HOST_KEY,), entropy=seeded("server"), debug_raise=True), 0.0)


def feed(conn: Any, chunks: list[bytes]) -> list[ev.Event]:
    """Push bytes into a connection whose questions nobody answers."""
    found = []
    for chunk in chunks:
        conn.receive_data(chunk, 0.0)
        while (event := conn.next_event()) is not None:
            found.append(event)
        conn.data_to_send()
    conn.receive_eof(0.0)
    while (event := conn.next_event()) is not None:
        found.append(event)
    return found


def check_ended_once(events: list[ev.Event]) -> None:
    losses = [event for event in events if isinstance(event, ev.ConnectionLost)]
    assert len(losses) == 1
    assert events[-1] is losses[0]
    assert str(losses[0].error)


@pytest.mark.covers("P1", "R158")
@pytest.mark.parametrize("role", ["client", "server"])
@given(noise=st.lists(st.binary(max_size=200), max_size=6), ident=st.booleans())
def test_noise_ends_the_connection_once_and_raises_nothing(role: str, noise: list[bytes], ident: bool) -> None:
    prefix = [b"SSH-2.0-noise\r\n"] if ident else []
    check_ended_once(feed(fresh(role), prefix + noise))


@pytest.fixture(scope="module")
def streams() -> Quiet:
    """What each role receives in a whole session, and the oracle's answers that go with it."""
    tape = scenario.Tape()
    pair = scenario.make(tape=tape, preferences=FAST).run()
    return Quiet({"client": (tape, bytes(pair.server.sent)), "server": (tape, bytes(pair.client.sent))})


@pytest.mark.covers("V40", "P1", "R165")
@pytest.mark.parametrize("role", ["client", "server"])
@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_stream_ends_the_connection_once_and_raises_nothing(
    role: str, streams: Any, data: st.DataObject
) -> None:
    tape, stream = streams.value[role]
    stream = bytearray(stream[:20_000])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(stream) - 1))
        how = data.draw(st.sampled_from(["flip", "drop", "insert", "cut", "double"]))
        if how == "flip":
            stream[place] ^= data.draw(st.integers(1, 255))
        elif how == "drop":
            del stream[place : place + data.draw(st.integers(1, 64))]
        elif how == "insert":
            stream[place:place] = data.draw(st.binary(min_size=1, max_size=64))
        elif how == "double":
            stream[place:place] = stream[place : place + 64]
        else:
            del stream[place:]
            break
    pair = scenario.make(tape=tape, replay=True, preferences=FAST)
    end = pair.client if role == "client" else pair.server
    end.drain()
    end.conn.receive_data(bytes(stream), 0.0)
    end.drain()
    end.conn.receive_eof(0.0)
    end.drain()
    for question in end.conn.questions:
        end.conn.refuse(question)
    end.drain()
    check_ended_once(end.events)


@pytest.mark.slow
@pytest.mark.covers("R166")
@pytest.mark.parametrize("role", ["client", "server"])
def test_a_peer_that_closes_at_every_byte_of_the_handshake(role: str, streams: Any) -> None:
    tape, stream = streams.value[role]
    login = 1700 if role == "client" else 1600
    for length in range(0, login, 1):
        pair = scenario.make(tape=tape, replay=True, preferences=FAST)
        end = pair.client if role == "client" else pair.server
        end.drain()
        end.conn.receive_data(stream[:length], 0.0)
        end.drain()
        end.conn.receive_eof(0.0)
        end.drain()
        check_ended_once(end.events)
        assert end.conn.should_close
        end.conn.receive_data(b"more", 0.0)
        end.conn.receive_eof(0.0)
        assert end.conn.next_event() is None


# ----------------------------------------------------------------------------------------------- misuse changes nothing

COMMANDS = {
    "send": lambda conn, n: conn.send(n, b"data"),
    "send to stderr": lambda conn, n: conn.send(n, b"data", 1),
    "eof": lambda conn, n: conn.send_eof(n),
    "close": lambda conn, n: conn.close_channel(n),
    "request": lambda conn, n: conn.request(n, Exec(b"x")),
    "credit": lambda conn, n: conn.credit(n, 1 << 40),
    "window": lambda conn, n: conn.sendable(n),
    "rekey": lambda conn, n: conn.rekey() if conn.phase is not Phase.OPEN else conn.send_eof(99),
    "ping": lambda conn, n: conn.ping() if conn.phase is not Phase.OPEN else conn.send_eof(99),
    "open": lambda conn, n: conn.open_channel(Session(), window=1 << 33),
    "disconnect": lambda conn, n: conn.disconnect("x", code=1 << 33),
}


def snapshot(conn: Any) -> tuple[Any, ...]:
    return conn.phase, conn.output_size, conn.next_deadline(), conn.questions, conn.channels, conn.rekeying, conn.error


@pytest.mark.covers("R168")
@pytest.mark.parametrize("when", ["ident", "auth", "open", "closed"])
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("channel", [5, 1 << 40, -1])
def test_misuse_raises_usage_error_and_changes_nothing(when: str, name: str, channel: int) -> None:
    pair = Pair.make(client_answer=None if when == "auth" else Pair.make().client.answer)
    if when != "ident":
        pair.run()
    if when == "closed":
        pair.client.conn.disconnect("over")
        pair.run()
    conn = pair.client.conn
    before = snapshot(conn)
    with pytest.raises(UsageError):
        COMMANDS[name](conn, channel)
    assert snapshot(conn) == before
    assert conn.next_event() is None


def test_an_answer_is_taken_once_and_only_by_its_own_connection() -> None:
    asked: list[ev.Question] = []
    pair = Pair.make(client_answer=lambda conn, question: asked.append(question))
    pair.run()
    conn = pair.client.conn
    question = asked[0]
    assert isinstance(question, ev.HostKeyOffered)
    assert conn.blocked_on == question
    with pytest.raises(UsageError):
        conn.auth_none(question)
    other = fresh("client")
    with pytest.raises(SSHError):
        other.accept_host_key(question)
    conn.accept_host_key(question)
    with pytest.raises(UsageError):
        conn.accept_host_key(question)
    conn.disconnect()
    conn.accept_host_key(question)  # too late to matter
