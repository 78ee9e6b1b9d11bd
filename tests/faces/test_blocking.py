"""The blocking face: what it moves, what it waits for, how it ends. Both ends are ours, over real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sshproto import events as ev
from sshproto.channels.requests import EndOfWrite, Exec, ExitSignal, ExitStatus
from sshproto.config import ClientConfig, Limits, ServerConfig, Timeouts
from sshproto.errors import AuthExhausted, ConnectionLoss, HostKeyRejected, PeerDisconnected, TimedOut, UnexpectedEof
from sshproto.keys.private import PrivateKey
from sshproto_io import ConnectFailed, OpenRefused, RequestRefused
from sshproto_io.blocking import Client, Driver, Server, SimpleCredentials, connect, dial, listen
from sshproto_io.relays import nonblocking
from tests.support.peers import free_port

HOST = "127.0.0.1"
HOST_KEY = PrivateKey.generate("ssh-ed25519")
USER_KEY = PrivateKey.generate("ssh-ed25519")
PASSWORD = "open sesame"
BLOCK = bytes(range(256)) * 256


class Echo:
    """The server's application: its commands are words that say what a session does."""

    def __init__(self, driver: Driver[Any], notices: list[Any]) -> None:
        self.driver = driver
        self.conn = driver.conn
        self.notices = notices
        self.words: dict[int, list[str]] = {}
        self.queues: dict[int, bytearray] = {}
        self.ending: set[int] = set()
        self.ended = False

    def closed(self) -> None:
        self.ended = True

    def on_event(self, event: ev.Event) -> None:
        conn = self.conn
        match event:
            case ev.KeyAuth():
                (conn.accept_auth if event.key == USER_KEY.public_key else conn.reject_auth)(event)
            case ev.PasswordAuth():
                (conn.accept_auth if event.password == PASSWORD else conn.reject_auth)(event)
            case ev.InteractiveAuth():
                conn.prompt(event, [ev.Prompt(text="Word: ", echo=False)])
            case ev.PromptsAnswered():
                (conn.accept_auth if event.answers == (PASSWORD,) else conn.reject_auth)(event)
            case ev.ChannelOpenRequested():
                if event.channel > 20:
                    conn.reject_channel(event, description="enough")
                else:
                    conn.accept_channel(event)
            case ev.ChannelRequested(request=Exec(command=command)):
                self.start(event, command.decode().split())
            case ev.DataReceived():
                if self.words[event.channel][0] == "stall":
                    return
                conn.credit(event.channel, len(event.data))
                if self.words[event.channel][0] == "cat":
                    self.queues[event.channel] += event.data
                    self.push(event.channel)
            case ev.EofReceived():
                if self.words[event.channel][0] == "cat":
                    self.ending.add(event.channel)
                    self.push(event.channel)
            case ev.ChannelWritable():
                self.push(event.channel)
            case ev.ChannelNotified():
                self.notices.append(event.notice)
            case ev.Question():
                conn.refuse(event)
            case _:
                pass

    def start(self, question: ev.ChannelRequested, words: list[str]) -> None:
        if words[0] == "refuse":
            self.conn.fail(question)
            return
        self.conn.succeed(question)
        channel = question.channel
        self.words[channel] = words
        self.queues[channel] = bytearray()
        if words[0] == "status":
            self.conn.send(channel, b"out", 0)
            self.conn.send(channel, b"err", 1)
            self.conn.request(channel, ExitStatus(int(words[1])), want_reply=False)
            self.conn.close_channel(channel)
        elif words[0] == "signal":
            self.conn.request(channel, ExitSignal(words[1]), want_reply=False)
            self.conn.close_channel(channel)
        elif words[0] == "silent":
            self.conn.close_channel(channel)
        elif words[0] in {"flood", "deaf-flood"}:
            self.push(channel)
        elif words[0] == "bug":
            raise RuntimeError("the application is broken")
        elif words[0] == "vanish":
            self.driver.close()
        elif words[0] == "eow":
            self.conn.request(channel, EndOfWrite(), want_reply=False)

    def push(self, channel: int) -> None:
        word = self.words[channel][0]
        with contextlib.suppress(Exception):
            while word in {"flood", "deaf-flood"}:
                if self.conn.send(channel, BLOCK) < len(BLOCK):
                    return
        queue = self.queues[channel]
        while queue and (taken := self.conn.send(channel, bytes(queue[: 1 << 16]))):
            del queue[:taken]
        if not queue and channel in self.ending:
            self.ending.discard(channel)
            self.conn.send_eof(channel)
            self.conn.request(channel, ExitStatus(0), want_reply=False)
            self.conn.close_channel(channel)


class Running:
    def __init__(self, methods: tuple[str, ...] = ("publickey", "password"), **options: Any) -> None:
        self.handlers: list[Echo] = []
        self.notices: list[Any] = []
        self.bugs: list[Exception] = []
        listener = listen(HOST, 0)
        self.port: int = listener.getsockname()[1]
        self.listener = listener
        config = ServerConfig(host_keys=(HOST_KEY,), auth_methods=methods)
        self.server = Server(listener, config, self.handler, on_bug=self.bugs.append, **options)
        self.thread = threading.Thread(target=self.server.serve)

    def handler(self, driver: Driver[Any], address: Any) -> Echo:
        assert address[0] == HOST
        self.handlers.append(Echo(driver, self.notices))
        return self.handlers[-1]

    def connect(self, credentials: Any = None, config: ClientConfig | None = None, **options: Any) -> Client:
        return connect(
            HOST,
            self.port,
            config or ClientConfig(user="alice"),
            host_key=lambda question: question.key == HOST_KEY.public_key,
            credentials=credentials or SimpleCredentials([USER_KEY]),
            **options,
        )


@contextlib.contextmanager
def serving(methods: tuple[str, ...] = ("publickey", "password"), **options: Any) -> Iterator[Running]:
    running = Running(methods, **options)
    running.thread.start()
    try:
        yield running
    finally:
        running.server.stop()
        running.thread.join(20)
        assert not running.thread.is_alive()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving() as found:
        yield found


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


# -------------------------------------------------------------------------------------------------------------- running


def test_output_errors_and_status_come_back(running):
    with running.connect() as client:
        done = client.run("status 7")
        assert (done.stdout, done.stderr, done.exit_status, done.exit_signal) == (b"out", b"err", 7, None)
        assert client.run(b"signal TERM").exit_signal.name == "TERM"
        silent = client.run("silent")
        assert (silent.exit_status, silent.exit_signal) == (None, None)


def test_more_than_any_window_goes_both_ways_at_once(running):
    data = os.urandom(1 << 20) * 6
    with running.connect() as client:
        assert client.run("cat", input=data).stdout == data


def test_no_input_is_end_of_file(running):
    with running.connect() as client:
        assert client.run("cat").stdout == b""


def test_small_socket_buffers_and_windows(running):
    limits = Limits(window=20_000, channel_packet=3000, output_high=10_000)
    sock = dial(HOST, running.port)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client = Client(
        sock,
        ClientConfig(user="alice", limits=limits),
        host_key=lambda question: True,
        credentials=SimpleCredentials([USER_KEY]),
    )
    with client:
        client.login()
        data = os.urandom(500_000)
        assert client.run("cat", input=data).stdout == data


def test_rekeying_all_the_time(running):
    seen = []
    config = ClientConfig(user="alice", limits=Limits(rekey_bytes=100_000, window=50_000))
    with running.connect(config=config, on_event=seen.append) as client:
        data = os.urandom(2_000_000)
        assert client.run("cat", input=data).stdout == data
    assert sum(isinstance(event, ev.KeysExchanged) for event in seen) > 10


def test_descriptors_are_used_and_left_as_they_were(running):
    data = os.urandom(3_000_000)
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    got = bytearray()

    def write() -> None:
        with os.fdopen(in_write, "wb") as pipe:
            pipe.write(data)

    def read() -> None:
        with os.fdopen(out_read, "rb") as pipe:
            while piece := pipe.read(1 << 16):
                got.extend(piece)

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    with running.connect() as client:
        for thread in threads:
            thread.start()
        done = client.run("cat", input=in_read, stdout=out_write)
        assert os.get_blocking(in_read)
        assert os.get_blocking(out_write)
        os.close(out_write)
        for thread in threads:
            thread.join(10)
    os.close(in_read)
    assert done.stdout == b""
    assert got == data


def test_files_and_one_descriptor_for_both_outputs(running, tmp_path):
    (tmp_path / "in").write_bytes(b"x" * 300_000)
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target, running.connect() as client:
        client.run("cat", input=source.fileno(), stdout=target.fileno(), stderr=target.fileno())
        client.run("status 0", stdout=target.fileno(), stderr=target.fileno())
    assert (tmp_path / "out").read_bytes() == b"x" * 300_000 + b"outerr"


def test_a_slow_reader_holds_the_server_back(running):
    """What has left the server can only be in windows, socket buffers and pipes."""
    read, write = os.pipe()
    stop = threading.Event()
    handled: list[int] = []

    def observe(event: ev.Event) -> None:
        if isinstance(event, ev.DataReceived):
            handled.append(len(event.data))

    def check() -> None:
        if stop.is_set():
            raise KeyboardInterrupt

    with running.connect(on_event=observe) as client:
        threading.Timer(1.0, lambda: (stop.set(), client.driver.call(lambda: None))).start()
        with pytest.raises(KeyboardInterrupt):
            client.run("flood", stdout=write, check=check)
    os.close(read)
    os.close(write)
    assert 2_000_000 < sum(handled) < 2_400_000  # the window and the pipe


def test_a_slow_server_holds_the_source_back(running):
    """Of endless input only the window is read, and a chunk."""
    read, write = os.pipe()
    stop = threading.Event()
    taken: list[int] = []

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(write, "wb", buffering=0) as pipe:
            while True:
                taken.append(pipe.write(BLOCK))

    feeder = threading.Thread(target=feed)
    feeder.start()

    def check() -> None:
        if stop.is_set():
            raise KeyboardInterrupt

    with running.connect() as client:
        threading.Timer(1.0, lambda: (stop.set(), client.driver.call(lambda: None))).start()
        with pytest.raises(KeyboardInterrupt):
            client.run("stall", input=read, check=check)
    os.close(read)
    feeder.join(10)
    assert 2_000_000 < sum(taken) < 2_400_000


def test_a_reader_who_leaves_is_told_and_the_command_ends(running):
    read, write = os.pipe()
    os.close(read)
    running.notices.clear()
    with running.connect() as client:
        started = time.monotonic()
        done = client.run("deaf-flood", stdout=write)
        assert done.reader_left
        assert done.exit_status is None
        assert time.monotonic() - started < 5
        assert client.run("status 1").exit_status == 1  # the connection has not suffered
    os.close(write)
    assert EndOfWrite() in running.notices


def test_a_full_disk_is_an_error(running):
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        with running.connect() as client:
            with pytest.raises(OSError, match="standard output"):
                client.run("status 0", stdout=descriptor)
            assert client.run("status 1").exit_status == 1
    finally:
        os.close(descriptor)


def test_a_server_that_reads_no_more_ends_the_input(running):
    read, write = os.pipe()
    os.write(write, b"x")
    with running.connect() as client:
        stop = time.monotonic() + 0.5

        def check() -> None:
            if time.monotonic() > stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            threading.Timer(0.6, client.driver.call, [lambda: None]).start()
            client.run("eow", input=read, check=check)
        assert client.run("status 3").exit_status == 3
    os.close(read)
    os.close(write)


def test_refusals_leave_the_connection(running):
    with running.connect() as client:
        with pytest.raises(RequestRefused):
            client.run("refuse")
        for _ in range(20):
            client.run("status 0")
        with pytest.raises(OpenRefused, match="enough"):
            client.run("status 0")
        assert client.conn.error is None


def test_the_loss_of_the_connection_is_raised(running):
    with running.connect() as client:
        with pytest.raises(ConnectionLoss) as raised:
            client.run("vanish")
        assert isinstance(raised.value, UnexpectedEof)
        with pytest.raises(UnexpectedEof):
            client.run("status 0")


def test_a_handler_with_a_bug_takes_its_connection_only(running):
    with running.connect() as other:
        with running.connect() as client, pytest.raises(PeerDisconnected, match="internal error"):
            client.run("bug")
        assert other.run("status 2").exit_status == 2
    assert isinstance(running.bugs.pop(), RuntimeError)


# ---------------------------------------------------------------------------------------------------------------- login


def test_passwords(running):
    with running.connect(SimpleCredentials(password=PASSWORD)) as client:
        assert client.run("status 5").exit_status == 5
    assert PASSWORD not in repr(SimpleCredentials(password=PASSWORD))


def test_keyboard_interactive_with_a_password():
    with serving(("keyboard-interactive",)) as running, running.connect(SimpleCredentials(password=PASSWORD)) as client:
        assert client.run("status 5").exit_status == 5


def test_keys_are_tried_in_turn(running):
    keys = [PrivateKey.generate(), PrivateKey.generate(), USER_KEY]
    with running.connect(SimpleCredentials(keys)) as client:
        assert client.run("status 5").exit_status == 5


def test_no_credential_is_left(running):
    with pytest.raises(AuthExhausted):
        running.connect(SimpleCredentials([PrivateKey.generate()], "wrong"))


def test_a_host_key_that_is_not_wanted(running):
    with pytest.raises(HostKeyRejected):
        connect(
            HOST,
            running.port,
            ClientConfig(user="alice"),
            host_key=lambda question: False,
            credentials=SimpleCredentials([USER_KEY]),
        )


def test_nobody_listens():
    with pytest.raises(ConnectFailed, match="refused"):
        dial(HOST, free_port())
    with pytest.raises(ConnectFailed):
        dial("a" * 70 + ".invalid", 22)


def test_a_server_that_says_nothing():
    with socket.create_server((HOST, 0)) as listener:
        config = ClientConfig(user="alice", timeouts=Timeouts(handshake=0.2))
        with pytest.raises(TimedOut):
            connect(
                HOST,
                listener.getsockname()[1],
                config,
                host_key=lambda question: True,
                credentials=SimpleCredentials(),
            )


# --------------------------------------------------------------------------------------------------------------- server


def test_many_clients_at_once(running):
    statuses: list[int | None] = []

    def one(number: int) -> None:
        with running.connect() as client:
            data = os.urandom(100_000)
            assert client.run("cat", input=data).stdout == data
            statuses.append(client.run(f"status {number}").exit_status)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == list(range(10))


def test_strangers_are_counted_and_friends_are_not():
    with serving(max_strangers=2) as running, contextlib.ExitStack() as stack:
        friends = [stack.enter_context(running.connect()) for _ in range(3)]
        strangers = [stack.enter_context(socket.create_connection((HOST, running.port))) for _ in range(2)]
        for stranger in strangers:
            assert stranger.recv(4) == b"SSH-"
        with socket.create_connection((HOST, running.port)) as third:
            assert third.recv(4) == b""
        assert friends[0].run("status 1").exit_status == 1
        strangers[0].close()
        wait_for(lambda: any(handler.ended for handler in running.handlers))
        time.sleep(0.05)
        with running.connect() as client:
            assert client.run("status 1").exit_status == 1


def test_stopping_says_good_bye_and_tells_the_handlers():
    with serving() as running:
        client = running.connect()
        threading.Timer(0.1, running.server.stop).start()
        with pytest.raises(PeerDisconnected, match="stopping"):
            client.run("stall")
        client.close()
        running.thread.join(10)
        assert all(handler.ended for handler in running.handlers)
        with pytest.raises(ConnectFailed):
            dial(HOST, running.port)


def test_a_client_that_vanishes_ends_its_handler(running):
    client = running.connect()
    handler = running.handlers[-1]
    assert not handler.ended
    client.driver.close()
    wait_for(lambda: handler.ended)


def test_calls_to_a_closed_driver_are_refused(running):
    with running.connect() as client:
        called: list[int] = []
        assert client.driver.call(lambda: called.append(1))
        client.driver.step(0.5)
        assert called == [1]
    assert not client.driver.call(lambda: called.append(2))
    assert called == [1]


def test_listening_everywhere_and_somewhere():
    for host in (None, "localhost", "127.0.0.1"):
        with listen(host, 0) as listener, socket.create_connection((HOST, listener.getsockname()[1]), 5):
            pass


def test_terminals_and_files_stay_in_blocking_mode(tmp_path):
    master, slave = os.openpty()
    read, write = os.pipe()
    with (tmp_path / "file").open("wb") as file:
        with nonblocking([slave, file.fileno(), read, write, read]):
            assert os.get_blocking(slave)
            assert os.get_blocking(file.fileno())
            assert not os.get_blocking(read)
            assert not os.get_blocking(write)
        assert os.get_blocking(read)
        assert os.get_blocking(write)
    for descriptor in (master, slave, read, write):
        os.close(descriptor)
