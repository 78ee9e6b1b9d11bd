"""SOCKS 4, 4a and 5: what is granted, what is refused in which words, and what comes in bits and pieces."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.channels.requests import OpenFailure
from sshproto.errors import InvalidArgument, OpenRefused, UnexpectedEof
from sshproto.operations.socks import (
    PATIENCE,
    Pushback,
    SocksError,
    SocksRequest,
    forward_dynamic,
    negotiate,
    requested,
)
from sshproto.operations.steps import Sleep, Together
from tests.support.running import Host, Scene, joined

HERE = ("127.0.0.1", 1080)
NO_AUTHENTICATION = b"\5\1\0"


def request_4(host, port, user=b"alice", command=1):
    """A request of version 4, or 4a if the host is bytes."""
    if isinstance(host, bytes):
        return bytes((4, command)) + port.to_bytes(2, "big") + b"\0\0\0\1" + user + b"\0" + host + b"\0"
    return bytes((4, command)) + port.to_bytes(2, "big") + bytes(map(int, host.split("."))) + user + b"\0"


def request_5(address, port, *, kind=3, command=1, version=5, reserved=0):
    """A request of version 5, what comes before it not included."""
    if kind == 3:
        address = bytes([len(address)]) + address
    return bytes((version, command, reserved, kind)) + address + port.to_bytes(2, "big")


V4 = [
    (request_4("192.0.2.1", 80), SocksRequest(4, "192.0.2.1", 80)),
    (request_4("0.0.0.0", 80), SocksRequest(4, "0.0.0.0", 80)),
    (request_4("0.0.1.0", 80), SocksRequest(4, "0.0.1.0", 80)),
    (request_4("255.255.255.255", 65535, b""), SocksRequest(4, "255.255.255.255", 65535)),
    (request_4(b"db.example", 0), SocksRequest(4, "db.example", 0)),
    (request_4(b"x" * 255, 1, b"u" * 255), SocksRequest(4, "x" * 255, 1)),
    (request_4(b"x", 1, b"\xff\xfe"), SocksRequest(4, "x", 1)),
]
V5 = [
    (request_5(b"\xc0\0\2\1", 80, kind=1), SocksRequest(5, "192.0.2.1", 80)),
    (request_5(bytes(15) + b"\1", 80, kind=4), SocksRequest(5, "::1", 80)),
    (request_5(b"\x20\1\x0d\xb8" + bytes(12), 443, kind=4), SocksRequest(5, "2001:db8::", 443)),
    (request_5(b"db.example", 65535), SocksRequest(5, "db.example", 65535)),
    (request_5(b"x" * 255, 1), SocksRequest(5, "x" * 255, 1)),
    (request_5(b"127.0.0.1", 1), SocksRequest(5, "127.0.0.1", 1)),
    (request_5(b"x", 1, reserved=7), SocksRequest(5, "x", 1)),
]
GREETINGS = [NO_AUTHENTICATION, b"\5\2\0\2", b"\5\3\2\1\0", b"\5\xff" + bytes(range(255))]
GOOD = [(request, wanted, b"") for request, wanted in V4] + [
    (greeting + request, wanted, b"\5\0") for (request, wanted), greeting in itertools.product(V5, GREETINGS)
]


def refused_5(code):
    """What a client of version 5 hears whose greeting was good and whose request was not."""
    return b"\5\0" + bytes((5, code, 0, 1)) + bytes(6)


REFUSED_4 = b"\0\x5b" + bytes(6)
BAD = {
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", b"", "the byte 47"),
    "SSH": (b"SSH-2.0-OpenSSH\r\n", b"", "the byte 53"),
    "version 0": (b"\0", b"", "the byte 00"),
    "4: bind": (request_4("192.0.2.1", 80, command=2), REFUSED_4, "command 2"),
    "4: no command": (request_4("192.0.2.1", 80, command=0), REFUSED_4, "command 0"),
    "4: user too long": (request_4("192.0.2.1", 80, b"u" * 256), REFUSED_4, "user id has more than 255"),
    "4: user without end": (request_4("192.0.2.1", 80, b"u" * 100_000), REFUSED_4, "user id has more than 255"),
    "4a: name too long": (request_4(b"x" * 256, 80), REFUSED_4, "name has more than 255"),
    "4a: no name": (request_4(b"", 80), REFUSED_4, "no host's name"),
    "4a: not ASCII": (request_4("dömäin".encode(), 80), REFUSED_4, "no host's name"),
    "5: no methods": (b"\5\0", b"\5\xff", "methods none"),
    "5: other methods": (b"\5\2\1\2", b"\5\xff", "methods 1, 2"),
    "5: bind": (NO_AUTHENTICATION + request_5(b"x", 1, command=2), refused_5(7), "command 2"),
    "5: UDP": (NO_AUTHENTICATION + request_5(b"x", 1, command=3), refused_5(7), "command 3"),
    "5: version 4": (NO_AUTHENTICATION + request_5(b"x", 1, version=4), refused_5(1), "version 4"),
    "5: address type 2": (NO_AUTHENTICATION + request_5(b"x", 1, kind=2), refused_5(8), "no type"),
    "5: address type 0": (NO_AUTHENTICATION + request_5(b"x", 1, kind=0), refused_5(8), "no type"),
    "5: no name": (NO_AUTHENTICATION + request_5(b"", 1), refused_5(1), "no host's name"),
    "5: not ASCII": (NO_AUTHENTICATION + request_5(b"\xff", 1), refused_5(1), "no host's name"),
    "5: a space": (NO_AUTHENTICATION + request_5(b"a b", 1), refused_5(1), "no host's name"),
    "5: a NUL": (NO_AUTHENTICATION + request_5(b"a\0b", 1), refused_5(1), "no host's name"),
}


def meet(*pieces, end=True):
    """Negotiate with a client that sends these pieces: the result or error, what it was told, and what is left."""
    scene = Scene()
    near, far = joined(room=1 << 20)
    stream = Pushback(near)

    def send():
        for piece in pieces:
            yield from far.send(piece)
            yield Sleep(0.1)
        if end:
            yield from far.send_eof()

    task = scene.client.begin(negotiate(stream))
    scene.client.begin(send())
    scene.pass_time(0.1 * len(pieces) + 1.0)
    result = task.value() if task.error is None else task.error
    heard = bytes(far._waiting)
    rest = bytearray()
    if task.error is None:
        while data := scene.client.perform(stream.receive(7)):
            rest += data
    return result, heard, bytes(rest)


# ------------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize(("data", "wanted", "reply"), GOOD)
def test_a_request_is_understood_and_what_follows_it_is_left(data, wanted, reply):
    assert meet(data + b"GET / HTTP/1.0\r\n") == (wanted, reply, b"GET / HTTP/1.0\r\n")


@pytest.mark.parametrize(("data", "wanted", "reply"), [GOOD[0], GOOD[5], GOOD[7], GOOD[15], GOOD[19]])
def test_a_request_may_come_byte_by_byte(data, wanted, reply):
    assert meet(*(bytes([octet]) for octet in data + b"rest")) == (wanted, reply, b"rest")


@given(st.sampled_from(GOOD), st.data())
def test_a_request_may_come_in_any_pieces(good, choice):
    data, wanted, reply = good
    data += b"what follows"
    cuts = sorted(choice.draw(st.sets(st.integers(1, len(data) - 1), max_size=5)))
    pieces = [data[start:end] for start, end in itertools.pairwise([0, *cuts, len(data)])]
    assert meet(*pieces) == (wanted, reply, b"what follows")


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("bytewise", [False, True])
def test_what_is_no_request_is_refused_in_the_protocols_words(name, bytewise):
    data, words, problem = BAD[name]
    if bytewise and len(data) > 1000:
        data = data[:1000]
    error, heard, _ = meet(*(bytes([octet]) for octet in data) if bytewise else [data])
    assert isinstance(error, SocksError)
    assert problem in str(error)
    assert heard == words


@pytest.mark.parametrize(("data", "wanted", "reply"), [GOOD[0], GOOD[4], GOOD[7], GOOD[15], GOOD[19]])
def test_a_client_that_leaves_early_has_left(data, wanted, reply):
    for length in range(len(data)):
        error, heard, _ = meet(data[:length])
        assert isinstance(error, SocksError)
        assert "left" in str(error)
        assert reply.startswith(heard)


def test_a_client_that_goes_on_and_on_is_not_listened_to():
    error, _, _ = meet(*[b"\4\1\0\x50\1\2\3\4", *[b"u"] * 256], end=False)
    assert "more than 255" in str(error)


def test_the_stream_that_breaks_says_so():
    scene = Scene()
    near, _ = joined()
    near.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        scene.client.perform(negotiate(Pushback(near)))


# -------------------------------------------------------------------------------------------------------------- replies


def test_what_is_granted():
    assert SocksRequest(4, "x", 1).granted == b"\0\x5a" + bytes(6)
    assert SocksRequest(5, "x", 1).granted == b"\5\0\0\1" + bytes(6)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OpenRefused("x", OpenFailure.ADMINISTRATIVELY_PROHIBITED, "no"), 2),
        (OpenRefused("x", OpenFailure.CONNECT_FAILED, "Connection refused"), 5),
        (OpenRefused("x", OpenFailure.CONNECT_FAILED, "Network is unreachable"), 3),
        (OpenRefused("x", OpenFailure.CONNECT_FAILED, "No route to host"), 4),
        (OpenRefused("x", OpenFailure.CONNECT_FAILED, "Name or service not known"), 4),
        (OpenRefused("x", OpenFailure.CONNECT_FAILED, ""), 4),
        (OpenRefused("x", OpenFailure.UNKNOWN_CHANNEL_TYPE, ""), 1),
        (OpenRefused("x", OpenFailure.RESOURCE_SHORTAGE, ""), 1),
        (OpenRefused("x", 4711, ""), 1),
        (InvalidArgument("x"), 1),
        (UnexpectedEof("x", "packet"), 1),
        (None, 1),
    ],
)
def test_what_is_refused(error, code):
    assert SocksRequest(4, "x", 1).refused(error) == REFUSED_4
    assert SocksRequest(5, "x", 1).refused(error) == bytes((5, code, 0, 1)) + bytes(6)


# ------------------------------------------------------------------------------------------------------------- pushback


def test_what_was_looked_at_too_early_is_received_later():
    scene = Scene()
    near, far = joined(origin=("192.0.2.9", 9))
    stream = Pushback(near)
    assert stream.origin == ("192.0.2.9", 9)
    scene.client.perform(far.send(b"abcdef\0ghi"))
    assert scene.client.perform(stream.take(2)) == b"ab"
    assert scene.client.perform(stream.take_string(4)) == b"cdef"
    assert scene.client.perform(stream.receive(2)) == b"gh"
    assert scene.client.perform(stream.receive(20)) == b"i"
    scene.client.perform(far.send(b"later"))
    assert scene.client.perform(stream.receive(20)) == b"later"
    scene.client.perform(stream.send(b"answer"))
    scene.client.perform(stream.send_eof())
    assert scene.client.perform(far.receive(20)) == b"answer"
    assert scene.client.perform(far.receive(20)) == b""
    stream.close()
    stream.close()
    assert near.closed


def test_a_string_has_its_limit():
    scene = Scene()
    for length, wanted in ((5, b"x" * 5), (6, None)):
        near, far = joined()
        scene.client.perform(far.send(b"x" * length + b"\0"))
        assert scene.client.perform(Pushback(near).take_string(5)) == wanted


# ----------------------------------------------------------------------------------------------------------------- time


def test_what_takes_too_long_is_given_up():
    scene = Scene()
    near, _ = joined()
    task = scene.client.begin(requested(Pushback(near), 5.0))
    scene.pass_time(4.9)
    assert not task.done
    scene.pass_time(0.2)
    with pytest.raises(SocksError, match="not said in 5 seconds"):
        task.value()
    assert not near._changed.wanted


def test_what_is_in_time_does_not_wait_for_it():
    scene = Scene()
    near, far = joined()
    task = scene.client.begin(requested(Pushback(near), 5.0))
    scene.pass_time(4.0)
    scene.client.perform(far.send(request_4("192.0.2.1", 80)))
    scene.settle()
    assert task.value() == SocksRequest(4, "192.0.2.1", 80)
    assert scene.now == 4.0
    near, far = joined()
    scene.client.perform(far.send(request_4("192.0.2.1", 80)))
    assert scene.client.perform(requested(Pushback(near), 5.0)).port == 80
    assert scene.now == 4.0


# ----------------------------------------------------------------------------------------------------------- forwarding


def answering(scene, address):
    """There is a service that says back what it was told, in capitals."""
    listener = scene.net.listener(address)

    def answer(stream):
        while data := (yield from stream.receive(1000)):
            yield from stream.send(data.upper())
        stream.close()

    def serve():
        while True:
            stream = yield from listener.accept()
            scene.server.begin(answer(stream))

    return scene.server.begin(serve())


def talk(stream, *pieces):
    """Operation: send pieces, end, and hear all."""

    def send():
        for piece in pieces:
            yield from stream.send(piece)
        yield from stream.send_eof()

    def hear():
        found = bytearray()
        while data := (yield from stream.receive(1000)):
            found += data
        return bytes(found)

    results = yield Together(send(), hear())
    return results[1]


@pytest.fixture
def proxy(scene):
    """A listener for SOCKS clients."""
    listener = scene.net.listener(HERE)
    scene.client.begin(forward_dynamic(scene.client.hub, listener))
    return listener


@pytest.mark.parametrize("host", ["192.0.2.1", "db.example", "::1"])
@pytest.mark.parametrize("version", [4, 5])
def test_a_client_is_taken_to_where_it_wants(scene, proxy, host, version):
    if version == 4:
        if host == "::1":
            host = "localhost"
        data = request_4(host if host[0].isdigit() else host.encode(), 80)
        replies = b"\0\x5a" + bytes(6)
    else:
        data = NO_AUTHENTICATION + (
            request_5(bytes(15) + b"\1", 80, kind=4) if host == "::1" else request_5(host.encode(), 80)
        )
        replies = b"\5\0" + b"\5\0\0\1" + bytes(6)
    answering(scene, (host, 80))
    caller = proxy.connect()
    assert scene.client.perform(talk(caller, data, b"hello ", b"x" * 20_000)) == replies + b"HELLO " + b"X" * 20_000
    caller.close()
    scene.settle()
    assert scene.net.left_open() == []
    assert scene.client.conn.channels == ()
    assert scene.bugs == []


def test_what_is_sent_with_the_request_arrives(scene, proxy):
    answering(scene, ("db.example", 80))
    caller = proxy.connect()
    data = NO_AUTHENTICATION + request_5(b"db.example", 80) + b"eager"
    assert scene.client.perform(talk(caller, data)) == b"\5\0" + b"\5\0\0\1" + bytes(6) + b"EAGER"


def test_the_server_hears_who_asks():
    seen = []

    class Curious(Host):
        def allow_connect(self, target, origin):
            seen.append((target, origin))
            return False

    scene = Scene().serve(Curious()).login()
    listener = scene.net.listener(HERE)
    scene.client.begin(forward_dynamic(scene.client.hub, listener))
    scene.client.perform(talk(listener.connect(), request_4(b"db.example", 80)))
    assert seen == [(("db.example", 80), ("192.0.2.1", 50_000))]


@pytest.mark.parametrize(
    ("host", "code"),
    [(b"forbidden", 2), (b"nobody", 5)],
)
def test_a_client_that_cannot_be_taken_there_is_told(scene, proxy, host, code):
    heard = scene.client.perform(talk(proxy.connect(), NO_AUTHENTICATION + request_5(host, 80)))
    assert heard == refused_5(code)
    assert scene.client.perform(talk(proxy.connect(), request_4(host, 80))) == REFUSED_4
    assert scene.bugs == []
    assert scene.net.left_open() == []


def test_a_client_of_a_lost_connection_is_told(scene, proxy):
    scene.net.slow = 5.0
    answering(scene, ("db.example", 80))
    early = scene.client.begin(talk(proxy.connect(), request_4(b"db.example", 80)))
    scene.settle()
    scene.cut()
    scene.settle()
    assert early.value() == REFUSED_4
    late = scene.client.perform(talk(proxy.connect(), NO_AUTHENTICATION + request_5(b"db.example", 80)))
    assert late == refused_5(1)
    assert scene.client.running() == []


def test_a_client_that_says_nothing_is_hung_up_on_after_a_while(scene, proxy):
    caller = proxy.connect()
    listening = scene.client.begin(caller.receive(10))
    scene.pass_time(PATIENCE - 1)
    assert not listening.done
    scene.pass_time(2)
    assert listening.value() == b""
    assert scene.net.left_open() == []
    assert scene.bugs == []


def test_a_client_that_talks_nonsense_is_hung_up_on(scene, proxy):
    assert scene.client.perform(talk(proxy.connect(), b"GET / HTTP/1.0\r\n\r\n")) == b""
    assert scene.bugs == []
    assert scene.net.left_open() == []


def test_a_client_that_leaves_while_it_is_connected_leaves_nothing(scene, proxy):
    scene.net.slow = 5.0
    answering(scene, ("db.example", 80))
    caller = proxy.connect()
    scene.client.perform(caller.send(request_4(b"db.example", 80)))
    scene.settle()
    caller.close()
    scene.pass_time(10.0)
    assert scene.client.conn.channels == ()
    assert scene.client.running() == []
    assert scene.net.left_open() == []
    assert scene.bugs == []


def test_many_clients_at_once(scene, proxy):
    answering(scene, ("db.example", 80))
    text = [f"client {number}".encode() for number in range(50)]
    tasks = [scene.client.begin(talk(proxy.connect(), request_4(b"db.example", 80), each)) for each in text]
    idle = [proxy.connect() for _ in range(50)]
    scene.pass_time(1.0)
    assert [task.value()[8:] for task in tasks] == [each.upper() for each in text]
    assert not any(stream.far.closed for stream in idle)
    scene.pass_time(PATIENCE)
    assert all(stream.far.closed for stream in idle)
    assert scene.client.running() == []
