"""The gauntlet, E: what a peer can do to the application, its user and its terminal, if nobody pays attention.

Words of the peer reach a person through events, through errors, and through our own commands; and names of the peer
reach files, shells and environments, unless they are kept from there.
"""

from __future__ import annotations

import ast
import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from sshproto import errors
from sshproto import events as ev
from sshproto.channels import requests as r
from sshproto.client import ClientConnection
from sshproto.config import ClientConfig, ServerConfig
from sshproto.keys import FOREVER, Certificate, CertificateKind
from sshproto.keys.public import PublicKey
from sshproto.keys.security_keys import Assertion
from sshproto.operations.serving import Handler
from sshproto.server import ServerConnection
from sshproto.wire import messages as m
from sshproto.wire.codec import string, text, uint32
from tests.support import ours, peers
from tests.support.middle import Middle, alone
from tests.support.pair import End, Pair, server_answers
from tests.support.rogue import frame, inject, kexinit, loss, push
from tests.support.seeds import HOST, HOST_KEY
from tests.support.talk import wait_for

EVIL = "\x1b]0;owned\x07\x9b2J\u202eknil\r\x08\x7f\u2066\ufeff"
"""Sets a window's title, clears the screen, turns the reading order, and overwrites what stands there."""

HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
CHECKOUT = Path(__file__).resolve().parents[3]


def harmless(shown: str) -> None:
    found = HARMFUL.search(shown.replace("\r\n", "\n"))
    assert found is None, f"{found!r} in {shown!r}"
    assert "owned" in shown, "it should be shown, and was left out"


# ------------------------------------------------------------------------------------------------ V70 events and errors


EVIL_CERTIFICATE = Certificate.issue(
    HOST_KEY, HOST_KEY.public_key, CertificateKind.USER, key_id=EVIL, principals=(EVIL,), valid_before=FOREVER
)


def filled(kind: type[Any]) -> Any:
    """An event whose every word is the peer's."""
    values: dict[str, Any] = {
        "int": 1,
        "float": 1.0,
        "bool": True,
        "str": EVIL,
        "str | None": EVIL,
        "bytes": EVIL.encode(),
        "PublicKey": HOST_KEY.public_key,
        "PublicKey | None": HOST_KEY.public_key,
        "Assertion | None": Assertion(1, 2, EVIL),
        "Certificate | None": EVIL_CERTIFICATE,
        "tuple[str, ...]": (EVIL, "password"),
        "tuple[Prompt, ...]": (ev.Prompt(text=EVIL, echo=True),),
        "tuple[tuple[str, bytes], ...]": ((EVIL, EVIL.encode()),),
        "Negotiated": None,
        "GlobalRequestData": r.UnknownGlobal(EVIL, EVIL.encode()),
        "ChannelOpenData": r.DirectTcpip(EVIL, 1, EVIL),
        "ChannelRequestData": r.ExitSignal(EVIL, False, EVIL),
        "ConnectionLoss": errors.PeerDisconnected(2, EVIL),
    }
    return kind(**{field.name.lstrip("_"): values[str(field.type)] for field in attrs.fields(kind)})


EVENTS = [
    kind
    for kind in vars(ev).values()
    if isinstance(kind, type) and issubclass(kind, ev.Event) and attrs.has(kind) and attrs.fields(kind)
]


@pytest.mark.covers("V70", "R8", "R48", "R50")
@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_events_show_no_control_characters(kind: type[Any]) -> None:
    """Whoever prints an event, in whatever way, prints one harmless line."""
    event = filled(kind)
    for shown in (str(event), repr(event), ev.show(event), f"{event}", f"{[event]}"):
        assert HARMFUL.search(shown) is None
        assert "\n" not in shown


LOSSES: dict[str, Callable[[], Exception]] = {
    "disconnected": lambda: errors.PeerDisconnected(2, EVIL),
    "incompatible": lambda: errors.Incompatible("kex", ("a",), (EVIL, "b")),
    "another version": lambda: loss(push(alone("client"), f"SSH-1.5-{EVIL}\n".encode())),
    "no SSH": lambda: loss(push(alone("server"), f"owned {EVIL}\r\n".encode() + b"x" * 300)),
    "key type": lambda: _raised(lambda: PublicKey.from_blob(text(EVIL.encode("ascii", "ignore").decode()) + b"xx")),
    "key line": lambda: _raised(lambda: PublicKey.parse(f"{EVIL} AAAA")),
    "name in KEXINIT": lambda: loss(
        push(alone("client"), b"SSH-2.0-x\r\n" + frame(kexinit(kex_algorithms=("owned\x1b[2J" * 10,))))
    ),
    "service": lambda: _accepted("owned\x1b[2J"),
}


def _raised(call: Callable[[], object]) -> Exception:
    try:
        call()
    except errors.SSHError as error:
        return error
    raise AssertionError("nothing was raised")


def _accepted(service: str) -> Exception:
    middle = Middle()
    middle.server.conn._engine._dispatch_service = lambda payload: inject(middle.server, m.ServiceAccept(service))
    return loss(middle.run().client.events)


@pytest.mark.covers("V70", "R8", "R48")
@pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)
def test_errors_show_no_control_characters(make: Callable[[], Exception]) -> None:
    error = make()
    harmless(str(error))
    assert HARMFUL.search(repr(error)) is None


@pytest.mark.covers("V70", "R8", "R48", "B36")
def test_texts_for_people_are_harmless_by_themselves() -> None:
    """The attributes that an application shows: the raw words stand beside them, under a name that says so."""
    pair = Pair.make(
        client_answer=lambda conn, question: (
            conn.accept_host_key(question) if isinstance(question, ev.HostKeyOffered) else None
        )
    ).run()
    client, server = pair.client, pair.server
    (question,) = client.conn.questions
    conn: Any = client.conn
    inject(server, m.UserauthBanner(EVIL))
    pair.run()
    conn.auth_keyboard_interactive(question)
    client.drain()
    inject(server, m.UserauthInfoRequest(EVIL, EVIL, EVIL, ((EVIL, False),)))
    client.conn.receive_data(server.drain(), 0.0)
    client.drain()
    (banner,) = client.of(ev.BannerReceived)
    (prompts,) = client.of(ev.PromptsReceived)
    for shown in (banner.text, prompts.name, prompts.instruction, prompts.prompts[0].text):
        harmless(shown)
    assert banner.raw == EVIL
    inject(server, m.Debug(True, EVIL))
    inject(server, m.Disconnect(11, EVIL))
    client.conn.receive_data(server.drain(), 0.0)
    client.drain()
    harmless(client.of(ev.DebugReceived)[0].message)
    error: Any = loss(client.events)
    harmless(error.description)
    harmless(str(error))


@pytest.mark.covers("V70", "R8")
def test_words_of_an_identification_are_harmless_by_themselves() -> None:
    conn = alone("client")
    events = push(conn, f"hello owned {EVIL}\r\nSSH-2.0-owned{chr(27)}[2J owned {EVIL[:-6]}\r\n".encode())
    version: Any = events[0]
    assert isinstance(version, ev.VersionReceived)
    for shown in (version.line, version.software, version.comments, *version.preamble):
        harmless(shown)


# ------------------------------------------------------------------------------------------------- V70 our own commands

Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def listening(serve: Serve) -> Iterator[int]:
    """A server of any kind on a port of this machine, for one connection."""
    with socket.create_server((HOST, 0)) as listener:

        def run() -> None:
            with contextlib.suppress(OSError):
                connection = listener.accept()[0]
                connection.settimeout(20)
                with connection:
                    serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.close()
            thread.join(20)


def raw(data: bytes) -> Serve:
    """Says this and no more, and hears what is answered."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    return serve


def speaking(react: Callable[[Any, ev.Event, End], None]) -> Serve:
    """A server of ours that lets everybody in, and then does what ``react`` does."""

    def serve(connection: socket.socket) -> None:
        config = ServerConfig(host_keys=(HOST_KEY,), auth_methods=("password",))
        end = End("server", ServerConnection(config, 0.0), None)
        end.react = lambda conn, event: react(conn, event, end)
        while True:
            if data := end.drain():
                connection.sendall(data)
            if end.conn.should_close or not (data := connection.recv(65536)):
                return
            end.conn.receive_data(data, 0.0)

    return serve


def answering(conn: Any, event: ev.Event) -> None:
    if isinstance(event, ev.PasswordAuth):
        conn.accept_auth(event)
    elif isinstance(event, ev.Question):
        server_answers(conn, event)


def at_login(conn: Any, event: ev.Event, end: End) -> None:
    """A banner, odd methods, then a goodbye."""
    if isinstance(event, ev.PasswordAuth):
        inject(end, m.UserauthBanner(EVIL))
        inject(end, m.Debug(True, EVIL))
        inject(end, m.UserauthFailure(("owned\x1b[2J", "\x07"), False))


def goodbye(conn: Any, event: ev.Event, end: End) -> None:
    if isinstance(event, ev.PasswordAuth):
        inject(end, m.Disconnect(11, EVIL))


def refusing(conn: Any, event: ev.Event, end: End) -> None:
    if isinstance(event, ev.ChannelOpenRequested):
        conn.reject_channel(event, 2, EVIL)
    else:
        answering(conn, event)


def ending(conn: Any, event: ev.Event, end: End) -> None:
    """The program was ended by a signal of an odd name, with many words."""
    answering(conn, event)
    if isinstance(event, ev.ChannelRequested) and isinstance(event.request, r.Exec):
        name, words = "owned\x1b[2J", EVIL
        inject(end, m.ChannelRequest(0, "exit-signal", False, text(name) + b"\0" + text(words) + text(EVIL)))
        inject(end, m.GlobalRequest(f"x\x1b[2J@{name}", False, EVIL.encode()))
        inject(end, m.GlobalRequest("hostkeys-00@openssh.com", False, string(text(name) + string(EVIL.encode()))))
        conn.close_channel(event.channel)


TALK: dict[str, Serve] = {
    "before SSH": raw(f"owned {EVIL}\r\nSSH-1.5-{EVIL}\r\n".encode()),
    "no SSH": raw(f"HTTP/1.1 owned {EVIL}\r\n\r\n".encode()),
    "names": raw(b"SSH-2.0-owned\x1b[2J \x9b\r\n" + frame(kexinit(kex_algorithms=("owned\x1b]0;\x07",)))),
    "login": speaking(at_login),
    "goodbye": speaking(goodbye),
    "refusal": speaking(refusing),
    "end": speaking(ending),
}


@pytest.mark.covers("V70", "R8", "R48", "R50")
@pytest.mark.parametrize("serve", TALK.values(), ids=TALK)
def test_the_command_line_shows_no_control_characters(serve: Serve) -> None:
    """Neither what it says by itself nor what -v adds can do anything to the terminal."""
    with listening(serve) as port, peers.scratch() as home:
        argv = ["exec", "-v", "--insecure-accept-any", "-p", str(port), "-l", "guest", HOST, "true"]
        ran = ours.run(argv, ours._environment(home, SSHPROTO_PASSWORD="secret"), seconds=30)
    words = ran.stderr.decode("utf-8", "surrogateescape")
    assert "\udc9b" not in words
    harmless(words)
    assert ran.stdout == b""
    assert ran.returncode != 0
    assert "secret" not in words


@pytest.mark.covers("V70", "V71", "R8")
def test_the_log_of_our_server_shows_no_control_characters() -> None:
    """A client that calls itself, its user and its services all sorts of things."""
    with ours.serve(["-v"], password=True) as server:
        for step in range(3):
            end = End("client", client_of("guest"), None)
            end.react = lambda conn, event, end=end, step=step: mischief(conn, event, end, step)
            with socket.create_connection((HOST, server.port), 20) as connection:
                first = end.drain()
                connection.sendall(first.replace(b"sshproto_", b"owned\x1b[2J_") if step == 1 else first)
                while not end.conn.should_close and (data := connection.recv(65536)):
                    end.conn.receive_data(data, 0.0)
                    if out := end.drain():
                        connection.sendall(out)
        wait_for(lambda: server.log_file.read_bytes().count(b"ConnectionLost") == 3)
        words = server.log_file.read_text("utf-8", "surrogateescape")
    harmless(words)
    assert words.count("$(touch owned)")


def client_of(user: str) -> Any:
    return ClientConnection(ClientConfig(user=user), 0.0)


def mischief(conn: Any, event: ev.Event, end: End, step: int) -> None:
    if isinstance(event, ev.HostKeyOffered):
        conn.accept_host_key(event)
    elif isinstance(event, ev.CredentialNeeded):
        for user in ("owned\x1b[2J", f"owned{EVIL}", "$(touch owned)", "../owned"):
            password = b"\0" + text("x")
            inject(end, m.UserauthRequest(user, "ssh-connection", "password", password))
        inject(end, m.UserauthRequest("x", "owned\x1b[2J", "owned\x07", b""))
        if step == 2:
            inject(end, m.ServiceRequest("owned\x1b[2J"))
        else:
            inject(end, m.Disconnect(11, f"owned {EVIL}"))


# -------------------------------------------------------------------------------------------- V71 shells and expansions

SHELLS = {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell", "expandvars"}


@pytest.mark.covers("V71")
def test_no_shell_but_the_one_that_the_user_asked_for() -> None:
    """Read from the source: nothing is run through a shell, and nothing is expanded. ``serve --exec`` starts the user's
    shell with the client's command as one argument, which is what it is for."""
    found = []
    for path in [*CHECKOUT.glob("sshproto/**/*.py"), *CHECKOUT.glob("adapters/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                shell = [word for word in node.keywords if word.arg == "shell"]
                if name in SHELLS or shell:
                    found.append(f"{path.name}:{node.lineno}: {name}")
    assert not found


@pytest.mark.covers("V71")
@pytest.mark.parametrize("user", ["$(touch owned)", "`id`", "%h%u", "-oProxyCommand=x", "a;b", "../../etc", "~root"])
def test_a_user_name_is_a_name(user: str) -> None:
    """It goes to the server as it is, and nowhere else."""
    told: list[str] = []

    def note(conn: Any, event: ev.Event, end: End) -> None:
        if isinstance(event, ev.PasswordAuth):
            told.append(event.user)
            conn.disconnect("thanks")

    end = End("server", ServerConnection(ServerConfig(host_keys=(HOST_KEY,), auth_methods=("password",)), 0.0), None)
    end.react = lambda conn, event: note(conn, event, end)

    def log_in(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.HostKeyOffered):
            conn.accept_host_key(question)
        elif isinstance(question, ev.CredentialNeeded):
            conn.auth_password(question, "x")

    Pair(End("client", client_of(user), log_in), end).run()
    assert told == [user]


# --------------------------------------------------------------------------------- V75 - V77 what is granted by default

UNASKED = {
    "session": b"",
    "x11": text("h") + uint32(1),
    "auth-agent@openssh.com": b"",
    "agent-connect": b"",
    "forwarded-tcpip": text("127.0.0.1") + uint32(22) + text("o") + uint32(2),
    "forwarded-streamlocal@openssh.com": text("/s") + text(""),
    "direct-tcpip": text("127.0.0.1") + uint32(22) + text("o") + uint32(2),
    "direct-streamlocal@openssh.com": text("/s") + text("") + uint32(0),
}


@pytest.mark.covers("V75", "R12", "R99", "R101", "R110", "R111")
@pytest.mark.parametrize("kind", UNASKED)
def test_nothing_is_opened_towards_a_client_that_asked_for_nothing(kind: str) -> None:
    pair = Pair.make().login()
    inject(pair.server, m.ChannelOpen(kind, 5, 1 << 20, 1 << 15, UNASKED[kind]))
    pair.client.conn.receive_data(pair.server.drain(), 0.0)
    assert pair.client.drain(), "the refusal"
    assert not pair.client.of(ev.ChannelOpenRequested)
    assert pair.client.conn.channels == ()
    assert pair.client.lost is None


@pytest.mark.covers("V75", "R110")
def test_what_was_asked_for_opens_nothing_else() -> None:
    """A forwarding of port 80 is none of port 22, of an agent, or of a display."""
    pair = Pair.make().login()
    pair.client.conn.global_request(r.TcpipForward("10.0.0.1", 80))
    pair.run()
    for kind, payload in UNASKED.items():
        inject(pair.server, m.ChannelOpen(kind, 5, 1 << 20, 1 << 15, payload))
    inject(
        pair.server, m.ChannelOpen("forwarded-tcpip", 6, 1 << 20, 1 << 15, r.ForwardedTcpip("10.0.0.2", 80).encode())
    )
    inject(
        pair.server, m.ChannelOpen("forwarded-tcpip", 7, 1 << 20, 1 << 15, r.ForwardedTcpip("10.0.0.1", 80).encode())
    )
    pair.client.conn.receive_data(pair.server.drain(), 0.0)
    pair.client.drain()
    assert [question.kind for question in pair.client.of(ev.ChannelOpenRequested)] == [r.ForwardedTcpip("10.0.0.1", 80)]


@pytest.mark.covers("V64", "V76", "V77")
def test_a_handler_that_says_nothing_grants_nothing() -> None:
    """A server that was written in a hurry: nobody gets in, nothing runs, nothing is relayed, no variable is set."""
    handler: Any = Handler()
    session: Any = None
    verdicts = {
        "none": handler.none("alice"),
        "password": handler.password("alice", "x", None),
        "public_key": handler.public_key("alice", HOST_KEY.public_key),
        "keyboard_interactive": handler.keyboard_interactive("alice", None),
        "allow_pty": handler.allow_pty(session, r.PtyRequest("xterm")),
        "allow_agent": handler.allow_agent(session),
        "allow_x11": handler.allow_x11(session, r.X11Request(False, "MIT-MAGIC-COOKIE-1", "00")),
        "allow_env": handler.allow_env(session, "LD_PRELOAD", b"/tmp/x.so"),
        "allow_program": handler.allow_program(session),
        "allow_connect": handler.allow_connect(("127.0.0.1", 22), ("", 0)),
        "allow_listen": handler.allow_listen(("", 0)),
        "other_channel": handler.other_channel(None),
    }
    assert not [name for name, verdict in verdicts.items() if verdict is not False]


@pytest.mark.covers("V76", "R103", "B30")
@pytest.mark.parametrize(
    ("name", "told"),
    [("LANG", True), ("A=B", False), ("A\0B", False), ("x" * 256, True), ("x" * 257, False)],
    ids=["LANG", "=", "NUL", "256", "257"],
)
def test_names_of_variables(name: str, told: bool) -> None:
    """What could not be a variable of any program is refused before anybody is asked."""
    pair = Pair.make().login()
    number = pair.client.conn.open_channel(r.Session())
    pair.run()
    inject(pair.client, m.ChannelRequest(number, "env", False, text(name) + string(b"value")))
    pair.run()
    assert bool(pair.server.of(ev.ChannelRequested)) is told
    assert pair.server.lost is None


@pytest.mark.covers("V77", "B31")
@pytest.mark.parametrize(
    ("host", "port"), [("x" * 256, 22), ("localhost", 65536), ("localhost", 2**32 - 1), ("a\0b", 22)]
)
def test_targets_that_are_none(host: str, port: int) -> None:
    pair = Pair.make().login()
    inject(pair.client, m.ChannelOpen("direct-tcpip", 5, 9999, 9999, text(host) + uint32(port) + text("") + uint32(0)))
    pair.server.conn.receive_data(pair.client.drain(), 0.0)
    assert pair.server.drain(), "the refusal"
    assert not pair.server.of(ev.ChannelOpenRequested)
    assert pair.server.lost is None
