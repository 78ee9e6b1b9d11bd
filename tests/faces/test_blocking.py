"""The blocking face: what its names do. Both ends are ours, over real sockets; the threads are in test_driver.py."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import http.client
import http.server
import io
import json
import os
import signal
import socket
import tarfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from sshproto import events as ev
from sshproto.config import ClientConfig, Limits, Timeouts
from sshproto.errors import (
    AuthExhausted,
    ChannelEnded,
    ConnectionLoss,
    HostKeyChanged,
    HostKeyRejected,
    HostKeyUnknown,
    InvalidArgument,
    OpenRefused,
    PeerDisconnected,
    RequestRefused,
    TimedOut,
    UnexpectedEof,
)
from sshproto.keys import known_hosts
from sshproto.keys.private import PrivateKey
from sshproto.operations.login import LoginPlan, log_in
from sshproto_io import CommandFailed, ConnectFailed, TimeoutExpired
from sshproto_io import calls as places
from sshproto_io.blocking import Client, Handler, Incoming, ServerSession, connect, listen
from sshproto_io.runner import Runner
from sshproto_io.sockets import dial
from tests.support.peers import free_port
from tests.support.seeds import HOST, HOST_KEY, QUICK, USER, USER_KEY
from tests.support.talk import BLOCK, PASSWORD, Talk, settled, talking, wait_for

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def talk() -> Iterator[Talk]:
    with talking() as talk:
        yield talk


@pytest.fixture
def client(talk) -> Iterator[Client]:
    with talk.connect() as client:
        yield client


def config(**options: Any) -> ClientConfig:
    return ClientConfig(user=USER, preferences=QUICK, **options)


# ------------------------------------------------------------------------------------------------------------- commands


def test_output_errors_and_status_come_back(client):
    done = client.run("status 7")
    assert (done.stdout, done.stderr, done.exit_status, done.exit_signal) == (b"out", b"err", 7, None)
    assert client.run(b"signal TERM").exit_signal.name == "TERM"
    with pytest.raises(CommandFailed, match="status 3"):
        client.run("status 3", check=True)
    assert client.run("say gr\u00fc\u00df").stdout.decode() == "gr\u00fc\u00df"


def test_more_than_any_window_goes_both_ways_at_once(client):
    data = os.urandom(1 << 20) * 6
    assert client.run("cat", input=data).stdout == data
    assert client.run("cat").stdout == b""


def test_small_socket_buffers_and_windows(talk):
    limits = Limits(window=20_000, channel_packet=3000, output_high=10_000)
    sock = socket.create_connection((HOST, talk.server.port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with Client(sock, config(limits=limits)) as client:
        client.perform(log_in(client.hub, lambda question: True, LoginPlan([USER_KEY])))
        data = os.urandom(500_000)
        assert client.run("cat", input=data).stdout == data


def test_rekeying_all_the_time(talk):
    seen: list[Any] = []
    with talk.connect(config=config(limits=Limits(rekey_bytes=100_000, window=50_000)), on_event=seen.append) as client:
        data = os.urandom(2_000_000)
        assert client.run("cat", input=data).stdout == data
        assert client.run("rekey").exit_status == 0
        client.rekey()
    assert sum(isinstance(event, ev.KeysExchanged) for event in seen) > 10


def test_refusals_leave_the_connection(client):
    with pytest.raises(RequestRefused):
        client.run("refuse")
    with pytest.raises(OpenRefused) as caught:
        client.open_tcp(HOST, free_port())
    assert caught.value.reason == 2
    assert client.hub.lost is None
    settled(client)


def test_the_name_of_what_takes_too_long_is_printable(client):
    with pytest.raises(TimeoutExpired) as caught:
        client.run(b"stall \x1b[2J\xff" + b"x" * 200, timeout=0.01)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_a_bug_of_a_handler_ends_its_session_only(client, talk):
    talk.bugs.clear()
    assert client.run("bug").exit_status == 255
    with pytest.raises(OpenRefused):
        client.open_tcp("bug.example", 1)
    assert [type(bug) for bug in talk.bugs] == [RuntimeError, RuntimeError]
    assert client.run("exit").exit_status is None  # SystemExit is a thread's own business
    settled(client)


# ---------------------------------------------------------------------------------------------------------------- files


def test_csv_and_json_read_and_write(client):
    rows = [["name", "size"], ["a, b", "1"], ["\u00fc", "2"]]
    with client.start("cat") as process:
        text = io.TextIOWrapper(process.stdin, encoding="utf-8", newline="", write_through=True)
        csv.writer(text).writerows(rows)
        text.close()  # is EOF
        assert list(csv.reader(io.TextIOWrapper(process.stdout, encoding="utf-8", newline=""))) == rows
        assert process.wait() == 0
    with client.start("cat") as process:
        process.stdin.write(json.dumps({"rows": rows}).encode())
        process.stdin.close()
        assert json.load(process.stdout) == {"rows": rows}


def test_tar_streams_through(client):
    content = os.urandom(3_000_000)
    with client.start("cat") as process:

        def pack() -> None:
            with tarfile.open(fileobj=process.stdin, mode="w|") as archive:
                for name in ("one", "two"):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
            process.stdin.close()

        packer = threading.Thread(target=pack, daemon=True)
        packer.start()
        found = {}
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for entry in archive:
                file = archive.extractfile(entry)
                assert file is not None
                found[entry.name] = file.read()
        packer.join(10)
        assert found == {"one": content, "two": content}


def test_lines_and_pieces(client):
    with client.start("cat") as process:
        assert process.stdin.writable()
        assert process.stdout.readable()
        assert not process.stdout.seekable()
        assert process.stdin.write(b"one\ntwo\n") == 8
        process.stdin.flush()
        assert process.stdout.readline() == b"one\n"
        assert process.stdin.write(memoryview(b"\x01\x02\x03\x04").cast("H")) == 4
        assert process.stdout.read(8) == b"two\n\x01\x02\x03\x04"
        process.stdin.write(b"a\nb\nc")
        with process.stdin:
            pass
        assert list(process.stdout) == [b"a\n", b"b\n", b"c"]
        assert process.stdout.read() == b""
        assert process.stderr.read() == b""
        with pytest.raises(ValueError, match="closed"):
            process.stdin.write(b"more")
        process.stdin.close()
        process.stdout.close()
        with pytest.raises(ValueError, match="closed"):
            process.stdout.read(1)
    assert process.exit_status == 0


def test_a_reader_that_is_closed_holds_up_nobody(client):
    with client.start("flood") as process:
        assert process.stdout.read(len(BLOCK)) == BLOCK
        process.stdout.close()
        with pytest.raises(TimeoutExpired):
            process.wait(0.2)
        assert process.channel.inbox(0).size == 0
    settled(client)


def test_writing_to_who_does_not_read(client):
    with client.start("eow") as process, pytest.raises(ChannelEnded, match="does not read"):
        for _ in range(1000):
            process.stdin.write(BLOCK)
    process.stdin.close()
    with client.start("say hello") as process:
        assert process.wait() == 0
        assert process.stdout.read() == b"hello"
        with pytest.raises(ChannelEnded):
            for _ in range(1000):
                process.stdin.write(BLOCK)


def test_terminals_signals_and_sizes():
    class Handling(Handler):
        def none(self, user: str) -> bool:
            return True

        def allow_pty(self, session: Any, request: Any) -> bool:
            return True

        def allow_env(self, session: Any, name: str, value: bytes) -> bool:
            return True

        def session(self, session: ServerSession) -> int:
            session.stdout.write(repr((session.user, session.command, session.subsystem)).encode())
            if session.pty is not None:
                session.stdout.write(f" {session.pty.term} {session.env}".encode())
                for _ in range(2):
                    session.stdout.write(f" {session.next_notice(10)!r}".encode())
                with pytest.raises(TimeoutExpired):
                    session.next_notice(0.01)
            return 0

    from sshproto.requests import PtyRequest

    options = {"ask_none": True}
    with talking(config=options) as talk:
        talk.server._handler = lambda incoming: Handling()  # type: ignore[assignment]
        with talk.connect(keys=()) as client:
            with client.shell(pty=PtyRequest("vt100", 80, 24), env={"LANG": "C"}) as process:
                process.resize(100, 50)
                process.send_signal("INT")
                text = process.stdout.read().decode()
                assert text.startswith(f"({USER!r}, None, None) vt100 {{'LANG': b'C'}} WindowChange(columns=100")
                assert "Signal(name='INT')" in text
                assert process.wait(10) == 0
                with pytest.raises(ChannelEnded):
                    for _ in range(1000):
                        process.send_signal("INT")
            with client.subsystem("sftp") as process:
                assert process.stdout.read() == f"({USER!r}, None, 'sftp')".encode()
            assert client.run("x y").stdout == f"({USER!r}, b'x y', None)".encode()


def test_memory_stays_flat_with_a_slow_reader_and_a_slow_writer(client):
    """What has left a side can only be in windows and in the buffers of sockets."""
    window = client.conn._engine.config.limits.window
    with client.start("flood") as flood, client.start("stall") as stall:
        written: list[int] = []

        def write() -> None:
            with contextlib.suppress(ChannelEnded):
                while True:
                    written.append(stall.stdin.write(BLOCK))

        flood.stdout.read(1)
        writer = threading.Thread(target=write, daemon=True)
        tracemalloc.start()
        writer.start()
        for _ in range(20):
            assert client.run("say meanwhile").stdout == b"meanwhile"
            assert flood.channel.inbox(0).size <= window
            flood.stdout.read(20_000)
            time.sleep(0.02)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(written) <= window
        assert peak < 12 << 20
        stall.close()
        writer.join(10)
        assert not writer.is_alive()
    settled(client)


def test_both_ends_write_at_once_and_nobody_reads(client):
    """Windows are full both ways; then everything is read, and nothing was lost."""
    size = 6 << 20
    data = os.urandom(1 << 16) * (size >> 16)
    with client.start("cat") as process:
        writer = threading.Thread(target=process.stdin.write, args=(data,), daemon=True)
        writer.start()
        wait_for(lambda: client.driver._leader is not None)
        time.sleep(0.3)
        assert writer.is_alive()
        assert client.run("say meanwhile").stdout == b"meanwhile"
        hasher, count = hashlib.sha256(), 0
        while count < size:
            piece = process.stdout.read1(1 << 20)
            hasher.update(piece)
            count += len(piece)
        writer.join(10)
        assert hasher.digest() == hashlib.sha256(data).digest()
    settled(client)


# ------------------------------------------------------------------------------------------------- streams and forwards


class _Pages(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.path.encode() * 10_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def website() -> Iterator[int]:
    with http.server.ThreadingHTTPServer((HOST, 0), _Pages) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(10)


def get(address: Any) -> bytes:
    web = http.client.HTTPConnection(*address, timeout=20)
    with contextlib.closing(web):
        web.request("GET", "/page")
        return web.getresponse().read()


def test_streams_are_like_sockets(client, website):
    with client.open_tcp(HOST, website) as stream:
        web = http.client.HTTPConnection("unused")
        web.sock = stream  # type: ignore[assignment]
        for _ in range(3):
            web.request("GET", "/over")
            assert web.getresponse().read() == b"/over" * 10_000
        web.request("GET", "/last", headers={"Connection": "close"})
        response = web.getresponse()  # closes the stream, which stays open for the file that the response reads
        assert web.sock is None
        assert response.read() == b"/last" * 10_000
        wait_for(lambda: stream.channel.closed, 1)
    with client.open_tcp("mirror.example", 1) as stream:
        stream.sendall(b"one\ntwo\n")
        with stream.makefile("r", encoding="ascii") as text, stream.makefile("wb") as binary:
            assert text.readline() == "one\n"
            assert text.readline() == "two\n"
            binary.write(b"three")
            binary.flush()
            assert stream.recv(10) == b"three"
        with stream.makefile("rwb") as both:
            both.write(b"four\n")
            both.flush()
            assert both.readline() == b"four\n"
        stream.write(b"five")  # closing files has not closed it
        stream.send_eof()
        stream.send_eof()
        assert stream.read() == b"five"
        assert stream.read(10) == b""
        with pytest.raises(InvalidArgument, match="mode"):
            stream.makefile("a")
    with pytest.raises(ChannelEnded):
        stream.write(b"six")
    settled(client)


def test_forwards_both_ways(client, website, tmp_path):
    here, path = (HOST, 0), str(tmp_path / "socket")
    with client.forward_local(here, (HOST, website)) as forward:
        assert repr(forward) == f"<Forward from {HOST}:{forward.port}>"
        assert get(forward.address) == b"/page" * 10_000
    with client.forward_remote(here, (HOST, website)) as forward:
        assert forward.port > 0
        assert get(forward.address) == b"/page" * 10_000
    with client.forward_local(path, (HOST, website)) as forward:
        assert (forward.address, forward.port) == (path, 0)
        with client.open_unix(path) as stream, socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            for send in (sock.sendall, stream.sendall):
                send(b"GET /x HTTP/1.0\r\n\r\n")
            assert sock.recv(12) == stream.makefile("rb").read(12) == b"HTTP/1.1 200"
    assert not (tmp_path / "socket").exists()
    forward.close()
    with pytest.raises(OSError, match="in use"), client.forward_local(here, here) as first:
        client.forward_local(first.address, here)
    settled(client)
    client.close()
    with pytest.raises(ConnectionRefusedError):
        get(first.address)
    forward.close()


def test_a_forward_ends_with_its_connection(talk, website):
    client = talk.connect()
    forward = client.forward_local((HOST, 0), (HOST, website))
    with socket.create_connection(forward.address) as sock, socket.create_connection(forward.address) as idle:
        sock.sendall(b"GET /x HTTP/1.0\r\n\r\n")
        assert sock.recv(4) == b"HTTP"
        talk.handlers[-1].incoming.abort()
        for one in (sock, idle):
            one.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                while one.recv(65536):
                    pass
    wait_for(lambda: not any(thread.name == "ssh connection" for thread in threading.enumerate()))
    with pytest.raises(ConnectionRefusedError):
        get(forward.address)
    with pytest.raises(UnexpectedEof):
        client.run("say no")
    client.close()


def test_socks(client, website):
    with client.forward_dynamic((HOST, 0)) as forward, socket.create_connection(forward.address, 10) as sock:
        sock.sendall(b"\x04\x01" + website.to_bytes(2, "big") + bytes((127, 0, 0, 1)) + b"me\0")
        assert sock.recv(8)[:2] == b"\0\x5a"
        sock.sendall(b"GET /x HTTP/1.0\r\n\r\n")
        assert sock.recv(12) == b"HTTP/1.1 200"
    settled(client)


def test_jumps(talk):
    with talk.connect() as outer:
        options: dict[str, Any] = {"user": USER, "host_key": HOST_KEY.public_key, "keys": [USER_KEY]}
        with outer.jump(HOST, talk.server.port, **options) as middle:
            with middle.jump(HOST, talk.server.port, **options) as inner:
                data = os.urandom(1_000_000)
                assert inner.run("cat", input=data).stdout == data
                assert middle.run("status 1").exit_status == 1
                with pytest.raises(ConnectFailed, match="refused"):
                    inner.jump(HOST, free_port(), **options)
            settled(middle)
            with socket.create_server((HOST, 0)) as silent, pytest.raises(TimeoutExpired, match="connecting"):
                middle.jump(HOST, silent.getsockname()[1], timeout=0.1, **options)
            settled(middle)
        with pytest.raises(HostKeyRejected):
            outer.jump(HOST, talk.server.port, **options | {"host_key": lambda question: False})
        settled(outer)
        middle = outer.jump(HOST, talk.server.port, **options)
        outer.abort()
        with pytest.raises(UnexpectedEof):
            middle.run("say no")
        middle.close()


# ---------------------------------------------------------------------------------------------------------------- login


def test_passwords_and_prompts(talk):
    with talk.connect(password=PASSWORD) as client:
        assert client.run("status 5").exit_status == 5
    with talking(("keyboard-interactive",)) as other, other.connect(password=PASSWORD) as client:
        assert client.run("status 5").exit_status == 5
    here: list[int] = []

    def ask() -> str:
        here.append(threading.get_ident())
        time.sleep(0.3)  # a person types; that is not the connection's time
        return PASSWORD

    with talk.connect(credentials=LoginPlan(password=ask), timeout=0.25) as client:
        assert here == [threading.get_ident()]
        assert client.run("status 5").exit_status == 5


def test_keys_are_tried_in_turn(talk):
    keys = [PrivateKey.generate(), PrivateKey.generate(), USER_KEY]
    with talk.connect(keys=keys) as client:
        assert client.run("status 5").exit_status == 5
    with pytest.raises(AuthExhausted):
        talk.connect(keys=keys[:2], password="wrong")


def test_who_the_server_is(talk):
    known = known_hosts.parse(f"[{HOST}]:{talk.server.port} {HOST_KEY.public_key.openssh()}\n")
    for good in (known, HOST_KEY.public_key, lambda question: question.key == HOST_KEY.public_key):
        with talk.connect(host_key=good) as client:
            assert client.conn.host_key == HOST_KEY.public_key
    for bad, error in (
        (known_hosts.parse(""), HostKeyUnknown),
        (USER_KEY.public_key, HostKeyChanged),
        (lambda question: False, HostKeyRejected),
    ):
        with pytest.raises(error):
            talk.connect(host_key=bad)


def test_functions_must_not_be_asynchronous(talk):
    """Their result would be true."""

    async def good(question: Any) -> bool:
        return False

    with pytest.raises(InvalidArgument, match="asynchronous"):
        talk.connect(host_key=good)


def test_arguments_that_do_not_go_together(talk):
    for options in ({"config": None}, {"credentials": LoginPlan(), "password": "x"}, {"host_key": "a string"}):
        with pytest.raises(InvalidArgument):
            talk.connect(**options)
    with talk.connect(user="other") as client:
        assert client.conn._engine.config.user == "other"


# ------------------------------------------------------------------------------------------------------------- dialling


def test_nobody_listens():
    options: dict[str, Any] = {"user": USER, "host_key": HOST_KEY.public_key}
    with pytest.raises(ConnectFailed, match="refused") as caught:
        connect(HOST, free_port(), **options)
    assert isinstance(caught.value.__cause__, OSError)
    for name in ("a" * 70 + ".invalid", "\udcff.invalid"):
        with pytest.raises(ConnectFailed, match="cannot connect"):
            connect(name, 22, **options)


def test_a_server_that_says_nothing():
    with socket.create_server((HOST, 0)) as listener:
        options: dict[str, Any] = {"host_key": HOST_KEY.public_key}
        port = listener.getsockname()[1]
        with pytest.raises(TimedOut):
            connect(HOST, port, config=config(timeouts=Timeouts(handshake=0.2)), **options)
        started = time.monotonic()
        with pytest.raises(TimeoutExpired, match=rf"connecting to {HOST} port {port} took longer than 0\.2 seconds"):
            connect(HOST, port, user=USER, timeout=0.2, **options)
        assert time.monotonic() - started < 5


def test_a_name_that_takes_long_to_look_up(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: release.wait(20))
    monkeypatch.setattr("sshproto_io.sockets.dial.__defaults__", (socket.getaddrinfo,), raising=False)
    started = time.monotonic()
    with pytest.raises(TimeoutExpired):
        Runner().run(dial(("slow.example", 22), socket.getaddrinfo), 0.1, inline=False)
    assert time.monotonic() - started < 5
    release.set()


# --------------------------------------------------------------------------------------------------------------- server


def test_many_clients_at_once(talk):
    statuses: list[int | None] = []

    def one(number: int) -> None:
        with talk.connect() as client:
            data = os.urandom(100_000)
            assert client.run("cat", input=data).stdout == data
            statuses.append(client.run(f"status {number}").exit_status)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert sorted(statuses) == list(range(10))


def test_a_brief_session_is_passed_to_no_other_thread(talk, monkeypatch):
    passed: list[object] = []
    start = places.workers.start
    monkeypatch.setattr(places.workers, "start", lambda function: (passed.append(function), start(function)))

    def alone() -> bool:
        with talk.connect() as client:
            passed.clear()
            assert client.run("say hello").stdout == b"hello"
            return not passed

    wait_for(alone)  # unless the machine takes a moment for itself


def test_one_whose_session_takes_long_is_relieved(client, talk):
    with client.start("pause 1.5") as slow:
        started = time.monotonic()
        with client.start("cat") as process:
            process.stdin.write(b"meanwhile")
            assert process.stdout.read(9) == b"meanwhile"
        # after a slow one, others are not waited for
        with contextlib.ExitStack() as stack:
            some = [stack.enter_context(client.start("pause 0.2")) for _ in range(4)]
            assert [each.wait() for each in some] == [0] * 4
        assert time.monotonic() - started < 1.2
        assert slow.wait() == 0
    assert talk.handlers[-1].threads == {"ssh call"}


def test_a_connection_ends_though_a_session_still_runs():
    with talking() as talk, talk.connect() as client:
        started = time.monotonic()
        client.start("pause 1.5")
        client.abort()
        wait_for(lambda: not talk.server._connections)
        assert time.monotonic() - started < 1.2


def test_a_session_can_close_its_server():
    with talking() as talk, talk.connect() as client:
        setattr(talk.handlers[-1], "do_stop", lambda session: talk.server.close())  # noqa: B010
        with pytest.raises(ConnectionLoss):
            client.run("stop")
        wait_for(lambda: not talk.server._connections)


def test_sessions_run_side_by_side_and_logins_in_the_connection(client, talk):
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(client.start("stall")) for _ in range(20)]
        for process in processes:
            assert process.stdout.read(8) == b"stalling"
        assert client.run("say hello").stdout == b"hello"
        assert talk.handlers[-1].threads == {"ssh call"}
    wait_for(lambda: not any(thread.name == "ssh call" for thread in threading.enumerate()))


@pytest.mark.covers("V83")
def test_strangers_are_counted_and_friends_are_not():
    with talking(max_strangers=2, max_connections=6) as talk, contextlib.ExitStack() as stack:
        friends = [stack.enter_context(talk.connect()) for _ in range(3)]
        strangers = [stack.enter_context(socket.create_connection((HOST, talk.server.port))) for _ in range(2)]
        for stranger in strangers:
            assert stranger.recv(4) == b"SSH-"
        with socket.create_connection((HOST, talk.server.port)) as third:
            assert third.recv(4) == b""
        assert friends[0].run("status 1").exit_status == 1
        strangers[0].close()
        wait_for(lambda: len(talk.server._connections) == 4)
        friends += [stack.enter_context(talk.connect()) for _ in range(2)]
        with socket.create_connection((HOST, talk.server.port)) as seventh:
            assert seventh.recv(4) == b""
        assert friends[-1].run("status 1").exit_status == 1


def test_stopping_says_good_bye():
    with talking() as talk:
        client = talk.connect()
        with pytest.raises(PeerDisconnected, match="stopping"):
            threading.Timer(0.1, talk.server.close).start()
            client.run("stall")
        client.close()
        talk.server.close()
        with pytest.raises(ConnectFailed):
            talk.connect()


def test_a_client_that_does_not_read_cannot_hold_up_the_end():
    limits = Limits(window=100 << 20, channel_packet=1 << 18, packet=1 << 19)
    with talking(config={"timeouts": Timeouts(linger=0.2)}) as talk:
        client = talk.connect(config=config(limits=limits))
        process = client.start("flood")
        wait_for(lambda: talk.handlers[0].incoming.driver._unsent)
        started = time.monotonic()
        talk.server.close()
        assert time.monotonic() - started < 5
        assert process.channel.number == 0
        client.abort()


def test_a_handler_that_hangs_cannot_hold_up_the_end():
    class Slow(Handler):
        def password(self, user: str, password: str, new_password: str | None) -> bool:
            time.sleep(3)
            return True

    incomings: list[Incoming] = []
    with talking() as talk:
        talk.server._handler = lambda incoming: incomings.append(incoming) or Slow()  # type: ignore[assignment,func-returns-value]
        with pytest.raises(TimeoutExpired):
            talk.connect(password="x", timeout=0.2)
        started = time.monotonic()
        talk.server.close(patience=0.2)
        assert time.monotonic() - started < 2
        assert incomings[0].driver.closed
        wait_for(lambda: not talk.server._connections)


def test_a_server_in_this_thread_ends_by_a_signal_handler():
    """It accepts in the main thread, and a signal's handler stops it."""
    assert threading.current_thread() is threading.main_thread()
    with contextlib.ExitStack() as stack:
        talk = Talk(("publickey",), {}, {})
        before = signal.signal(signal.SIGUSR1, lambda number, frame: talk.server.stop())
        stack.callback(signal.signal, signal.SIGUSR1, before)
        answers: list[Any] = []

        def visit() -> None:
            with talk.connect() as client:
                answers.append(client.run("status 6").exit_status)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

        visitor = threading.Thread(target=visit)
        visitor.start()
        talk.server.serve_forever()
        visitor.join(10)
        assert answers == [6]


def test_ctrl_c_ends_a_server():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for started in (False, True):
            talk = Talk(("publickey",), {}, {})
            if started:
                talk.server.start()
            threading.Timer(0.2, signal.pthread_kill, [threading.main_thread().ident or 0, signal.SIGINT]).start()
            with pytest.raises(KeyboardInterrupt):
                talk.server.serve_forever()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((HOST, talk.server.port))
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_maker_of_handlers_may_fail(talk):
    talk.bugs.clear()
    make = talk.server._handler
    talk.server._handler = lambda incoming: 1 / 0  # type: ignore[assignment, return-value]
    try:
        with pytest.raises(PeerDisconnected, match="internal error"):
            talk.connect()
    finally:
        talk.server._handler = make
    assert [type(bug) for bug in talk.bugs] == [ZeroDivisionError]


def test_bugs_are_told_to_the_handler_that_wants_to_know():
    told: list[Exception] = []

    class Wanting(Handler):
        def password(self, user: str, password: str, new_password: str | None) -> bool:
            raise ZeroDivisionError

        def bug(self, error: Exception) -> None:
            told.append(error)

    with talking() as talk:
        talk.server._handler = lambda incoming: Wanting()  # type: ignore[assignment]
        with pytest.raises(AuthExhausted):
            talk.connect(password="x")
        assert [type(bug) for bug in told] == [ZeroDivisionError]
        assert not talk.bugs


def test_a_client_that_vanishes_ends_its_sessions(talk):
    client = talk.connect()
    handler = talk.handlers[-1]
    client.start("stall").stdout.read(8)
    client.abort()
    wait_for(lambda: handler.incoming.driver.closed)
    wait_for(lambda: not any(thread.name == "ssh call" for thread in threading.enumerate()))


def test_handlers_use_their_connection():
    """What a handler may do with it besides."""
    with talking() as talk, talk.connect() as client:
        incoming = talk.handlers[-1].incoming
        client.start_thread()
        incoming.perform(incoming.hub.rekey())
        threading.Timer(0.05, incoming.close, ["go away"]).start()
        with pytest.raises(PeerDisconnected, match="go away"):
            client.run("stall")


def test_listening_everywhere_and_somewhere():
    from sshproto.config import ServerConfig

    settings = ServerConfig(host_keys=(HOST_KEY,))
    for host in (None, "", "localhost", "127.0.0.1"):
        with listen(host, 0, settings, lambda incoming: Handler()) as server:
            assert server.port == server.addresses[0][1]
            with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
                assert sock.recv(4) == b"SSH-"
    with listen(HOST, 0, settings, lambda incoming: Handler()) as server, pytest.raises(OSError, match="in use"):
        listen(HOST, server.port, settings, lambda incoming: Handler())
    unused = listen(HOST, 0, settings, lambda incoming: Handler())
    unused.close()
    unused.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, unused.port))
