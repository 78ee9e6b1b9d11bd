"""A blocking server whose handler is made of plain functions, which use files; and clients for it, on loopback."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from sshproto.channels.requests import EndOfWrite, ExitSignal
from sshproto.config import ClientConfig, Limits, ServerConfig
from sshproto.operations.serving import Challenge
from sshproto_io.blocking import Client, Handler, Incoming, Server, ServerSession, connect, listen
from tests.support.seeds import HOST, HOST_KEY, QUICK, USER, USER_KEY

PASSWORD = "open sesame"
BLOCK = bytes(range(256)) * 256


class Talker(Handler):
    """Commands are words that say what a session does; see the methods that start with ``do``."""

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        self.threads: set[str] = set()
        self.ended = threading.Event()

    # ------------------------------------------------------------------------------------------------------------ login

    def public_key(self, user: str, key: Any) -> bool:
        return bool(key == USER_KEY.public_key)

    def password(self, user: str, password: str, new_password: str | None) -> bool:
        return password == PASSWORD

    def keyboard_interactive(self, user: str, answers: Any) -> Any:
        return Challenge([("Word: ", False)]) if answers is None else tuple(answers) == (PASSWORD,)

    # --------------------------------------------------------------------------------------------------------- sessions

    def allow_program(self, session: Any) -> bool:
        return getattr(session.program, "command", b"") != b"refuse"

    def allow_connect(self, target: Any, origin: Any) -> Any:
        if target == ("bug.example", 1):
            raise RuntimeError("a bug, on purpose")
        return self._mirror if target == ("mirror.example", 1) else True

    def allow_listen(self, address: Any) -> bool:
        return True

    def _mirror(self, stream: Any) -> None:
        with stream:
            while data := stream.recv(65536):
                stream.sendall(data)

    def session(self, session: ServerSession) -> Any:
        self.threads.add(threading.current_thread().name)
        name, *words = (session.command or b"cat").decode(errors="replace").split()
        return getattr(self, "do_" + name)(session, *words)

    def do_say(self, session: ServerSession, *words: str) -> None:
        session.stdout.write(" ".join(words).encode())

    def do_status(self, session: ServerSession, status: str) -> int:
        session.stdout.write(b"out")
        session.stderr.write(b"err")
        return int(status)

    def do_signal(self, session: ServerSession, name: str) -> ExitSignal:
        return ExitSignal(name)

    def do_cat(self, session: ServerSession) -> None:
        while data := session.stdin.read1(65536):
            session.stdout.write(data)

    def do_flood(self, session: ServerSession) -> None:
        while True:
            session.stdout.write(BLOCK)

    def do_stall(self, session: ServerSession, *words: str) -> None:
        """Reads nothing, until it is hung up on or gets a signal."""
        session.stdout.write(b"stalling")
        session.next_notice()

    def do_eow(self, session: ServerSession) -> None:
        self.incoming.perform(session.channel.notify(EndOfWrite()))
        session.next_notice()

    def do_pause(self, session: ServerSession, seconds: str) -> None:
        time.sleep(float(seconds))

    def do_bug(self, session: ServerSession) -> None:
        raise RuntimeError("a bug, on purpose")

    def do_exit(self, session: ServerSession) -> None:
        raise SystemExit(3)

    def do_vanish(self, session: ServerSession) -> None:
        self.incoming.abort()

    def do_rekey(self, session: ServerSession) -> None:
        self.incoming.perform(self.incoming.hub.rekey())

    def do_deaf(self, session: ServerSession) -> None:
        """The whole process hears nothing for a while, as far as this connection goes."""
        time.sleep(0.2)  # the reply to the request for it is with the client by then
        self.incoming.apply(lambda: time.sleep(1.5))


class Talk:
    """A server that runs.

    Attributes:
        server: It.
        handlers: Those of its connections.
        bugs: What was reported.
    """

    def __init__(self, methods: tuple[str, ...], limits: dict[str, Any], options: dict[str, Any]) -> None:
        self.handlers: list[Talker] = []
        self.bugs: list[Exception] = []
        limits.setdefault("limits", Limits(sessions=200, opens_pending=200))
        config = ServerConfig(host_keys=(HOST_KEY,), auth_methods=methods, preferences=QUICK, **limits)
        self.server: Server = listen(HOST, 0, config, self._handler, on_bug=self.bugs.append, **options)

    def _handler(self, incoming: Incoming) -> Talker:
        assert incoming.peer[0] == HOST
        self.handlers.append(Talker(incoming))
        return self.handlers[-1]

    def connect(self, **options: Any) -> Client:
        """A client that is logged in; the options are ``connect``'s."""
        options.setdefault("config", ClientConfig(user=USER, preferences=QUICK))
        options.setdefault("host_key", HOST_KEY.public_key)
        if "password" not in options and "credentials" not in options:
            options.setdefault("keys", [USER_KEY])
        return connect(HOST, self.server.port, **options)


@contextlib.contextmanager
def talking(
    methods: tuple[str, ...] = ("publickey", "password"), *, config: Any = None, **options: Any
) -> Iterator[Talk]:
    """A server until the block is left; ``options`` are ``listen``'s."""
    talk = Talk(methods, config or {}, options)
    with talk.server:
        yield talk
    assert not talk.server._connections


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something that nobody tells."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def settled(client: Client) -> None:
    """See that nobody waits, and that no channel is left, after one more exchange with the server."""
    assert client.run("status 0", timeout=20).exit_status == 0
    wait_for(lambda: client.run("status 0", timeout=20) and not client.hub.channels)
    if client.driver._thread is None:
        assert client.driver._leader is None
        assert not client.driver._followers
    else:
        wait_for(lambda: client.driver._leader is client.driver._service)
