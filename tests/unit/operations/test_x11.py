"""X11 forwarding, both roles, in memory: who gets to a display, and what gets to it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from sshproto.channels.requests import X11, Exec, OpenFailure, Session, X11Request
from sshproto.errors import ChannelEnded, InvalidArgument, OpenRefused, RequestRefused
from sshproto.operations.displays import MAGIC_COOKIE, Cookie, Display
from sshproto.operations.session import run, start
from sshproto.operations.steps import Operation, Sleep, Wait
from sshproto.operations.visits import MAXIMUM_WARNINGS
from sshproto.operations.x11 import STRANGERS, X11Forwarding
from sshproto.operations.x11_setup import read_setup
from sshproto.wire import messages as m
from tests.support.rogue import inject
from tests.support.running import Blow, Host, MemoryStream, Moment, Scene, Task
from tests.unit.operations.test_x11_setup import setup

TRUE = Cookie(MAGIC_COOKIE, b"the true cookie!")
SCREEN = ("screen", 6000)
FIRST, FIRST_6 = ("127.0.0.1", 6010), ("::1", 6010)


class Displays(Host):
    """Gives displays to whoever asks.

    Attributes:
        sessions: Whom it was asked for.
    """

    verdict: Any = True

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[Any] = []

    def allow_x11(self, session: Any, request: Any) -> Any:
        self.sessions.append(session)
        return self.verdict


@attrs.define
class Desk:
    """A scene with an X server at the client's side.

    Attributes:
        scene: The connection.
        forwarding: What sessions are given.
        warnings: What the client was told.
        seen: What the X server was sent, by connection.
        cookies: Those that were made up.
    """

    scene: Any
    forwarding: X11Forwarding
    warnings: list[str]
    seen: list[bytearray]
    cookies: list[bytes]

    @property
    def handler(self) -> Displays:
        found: Displays = self.scene.handler
        return found

    def start(self, **changes: Any) -> Any:
        """Start a program that has the display."""
        x11 = attrs.evolve(self.forwarding, **changes)
        return self.scene.client.perform(start(self.scene.client.hub, Exec(b"wait"), x11=x11))

    def program(self, data: bytes, address: Any = FIRST) -> MemoryStream:
        """A program connects, and says something; its end of the connection."""
        stream: MemoryStream = self.scene.net.listeners[address].connect("program", room=100_000)
        self.scene.server.begin(stream.send(data))
        self.settle()
        return stream

    def settle(self) -> None:
        """Go on until nothing moves, and let dialling take its moment."""
        self.scene.pass_time(0.1)

    def answer(self, stream: MemoryStream) -> bytes:
        """What has come to a program, to the end."""
        data: bytes = self.scene.server.perform(_all(stream))
        return data


def _all(stream: Any) -> Operation[bytes]:
    found = b""
    while data := (yield from stream.receive(1000)):
        found += data
    return found


def greeting(cookie: bytes, order: str = "l", protocol: bytes = MAGIC_COOKIE.encode()) -> bytes:
    return setup(order, protocol, cookie)


@pytest.fixture
def make_desk(make: Callable[..., Scene]) -> Callable[..., Desk]:
    def build(handler: Host | None = None, **limits: int) -> Desk:
        scene = make(handler or Displays(), **limits)
        warnings: list[str] = []
        seen: list[bytearray] = []
        cookies: list[bytes] = []

        def entropy(count: int) -> bytes:
            cookies.append(bytes((len(cookies) + 1,)) * count)
            return cookies[-1]

        listener = scene.net.listener(SCREEN)

        def display() -> Operation[None]:
            while True:
                stream = yield from listener.accept()
                seen.append(bytearray())
                scene.client.spawn(shown(stream, seen[-1]))

        def shown(stream: Any, data: bytearray) -> Operation[None]:
            while more := (yield from stream.receive(1000)):
                data += more
                yield from stream.send(b"<%d>" % len(more))
            stream.close()

        scene.client.begin(display())
        forwarding = X11Forwarding(
            display=Display("screen", 0, 2), cookie=TRUE, dial=scene.net.dial, entropy=entropy, warn=warnings.append
        )
        return Desk(scene, forwarding, warnings, seen, cookies)

    return build


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()


# ----------------------------------------------------------------------------------------------------------- what works


@pytest.mark.covers("R101", "R102")
@pytest.mark.parametrize("address", [FIRST, FIRST_6])
@pytest.mark.parametrize("order", ["B", "l"])
def test_the_cookie_is_replaced(desk: Desk, order: str, address: Any) -> None:
    desk.start()
    (session,) = desk.handler.sessions
    assert session.provided == {"DISPLAY": "localhost:10.2"}
    assert session.display.cookie == Cookie(MAGIC_COOKIE, desk.cookies[0])
    assert (session.display.number, session.display.screen) == (10, 2)
    stream = desk.program(greeting(desk.cookies[0], order) + b"and more", address)
    assert desk.seen == [greeting(TRUE.data, order) + b"and more"]
    desk.scene.server.begin(stream.send(b"later"))
    desk.settle()
    assert desk.seen[0].endswith(b"and morelater")
    desk.scene.server.perform(stream.send_eof())
    assert desk.answer(stream) == b"<56><5>"
    assert desk.warnings == []


def test_in_single_bytes(desk: Desk) -> None:
    desk.start()
    data = greeting(desk.cookies[0])
    stream = desk.program(data[:1])
    for index in range(1, len(data)):
        assert desk.seen == []
        desk.scene.server.perform(stream.send(data[index : index + 1]))
        desk.settle()
    assert desk.seen == [greeting(TRUE.data)]


def test_a_display_without_a_cookie_is_shown_none(desk: Desk) -> None:
    desk.start(cookie=None)
    desk.program(greeting(desk.cookies[0]))
    assert desk.seen == [greeting(b"", protocol=b"")]


def test_each_session_has_a_display_and_a_cookie_of_its_own(desk: Desk) -> None:
    other = desk.scene.net.listener(("other", 6000))
    desk.start()
    desk.start(display=Display("other", 0))
    assert len(set(desk.cookies)) == 2
    assert [session.display.number for session in desk.handler.sessions] == [10, 11]
    desk.program(greeting(desk.cookies[1]), ("127.0.0.1", 6011))
    assert desk.seen == []
    assert len(other._waiting) == 1
    desk.program(greeting(desk.cookies[0]))
    assert len(desk.seen) == 1


@pytest.mark.covers("V75")
@pytest.mark.parametrize("how", ["client", "server", "lost"])
def test_it_ends_with_the_session(desk: Desk, how: str) -> None:
    channel = desk.start()
    assert set(desk.scene.net.listeners) == {SCREEN, FIRST, FIRST_6}
    before = desk.program(greeting(desk.cookies[0]))
    if how == "client":
        channel.close()
    elif how == "server":
        desk.handler.sessions[0].channel.close()
    else:
        desk.scene.cut()
    desk.settle()
    assert set(desk.scene.net.listeners) == {SCREEN}
    assert desk.scene.client.hub.offers == {}
    if how != "lost":
        desk.scene.server.perform(before.send(b"!"))
        desk.settle()
        assert desk.seen[0].endswith(b"!")  # what was there before goes on
        with pytest.raises(OpenRefused) as caught:
            desk.scene.server.perform(desk.scene.server.hub.open_channel(X11("", 0)))
        assert caught.value.reason == OpenFailure.ADMINISTRATIVELY_PROHIBITED
    assert not desk.scene.bugs


@pytest.mark.covers("R102")
def test_the_true_cookie_does_not_leave_the_client(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects, whatever becomes of it: it is in no packet, and in nothing that is shown."""
    sealer = desk.scene.client.conn._engine.outbox.sealer
    kind, seal, sent = type(sealer), type(sealer).seal, bytearray()

    def watched(self: Any, *parts: Any, **options: Any) -> Any:
        if self is sealer:
            sent.extend(b"".join(parts))
        return seal(self, *parts, **options)

    monkeypatch.setattr(kind, "seal", watched)
    desk.start()
    desk.start(display=Display("nowhere", 0))
    for cookie in desk.cookies:
        for address in (FIRST, ("127.0.0.1", 6011)):
            for data in (greeting(cookie), greeting(cookie)[:-1], greeting(bytes(16))):
                stream = desk.program(data, address)
                desk.scene.server.perform(stream.send_eof())
                desk.settle()
    assert desk.cookies[0].hex().encode() in sent  # what was made up has left, so that what leaves is seen
    assert len(desk.seen) == 2
    shown = repr(desk.forwarding) + "".join(desk.warnings)
    for form in (TRUE.data, TRUE.data.hex().encode(), repr(TRUE.data).encode()):
        assert form not in sent
        assert form.decode() not in shown


def test_a_program_that_runs_to_its_end(desk: Desk) -> None:
    completed = desk.scene.client.perform(run(desk.scene.client.hub, "echo hi", x11=desk.forwarding))
    assert completed.stdout == b"hi\n"
    desk.settle()
    assert set(desk.scene.net.listeners) == {SCREEN}
    assert desk.scene.client.hub.offers == {}
    assert desk.scene.client.running() == []


# -------------------------------------------------------------------------------------------------- who is turned away


@pytest.mark.covers("V75", "R102")
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (greeting(bytes(16)), "it has a wrong cookie"),
        (greeting(TRUE.data), "it has a wrong cookie"),
        (greeting(b"", protocol=b""), "it has no cookie"),
        (greeting(b"\1" * 16, protocol=b"OTHER"), "it has a wrong cookie"),
        (greeting(b"\1" * 15), "it has a wrong cookie"),
        (greeting(b"\1" * 17), "it has a wrong cookie"),
        (greeting(bytes(300)), "an X11 connection begins with 18 bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", "an X11 connection begins with 0x42 or 0x6c, not with 0x47"),
    ],
)
def test_who_does_not_show_the_cookie_is_turned_away(desk: Desk, data: bytes, words: str) -> None:
    desk.start()
    stream = desk.program(data + b"more")
    assert desk.answer(stream) == b""
    assert desk.seen == []
    assert len(desk.warnings) == 1
    assert words in desk.warnings[0]
    assert TRUE.data.hex() not in desk.warnings[0]
    assert repr(TRUE.data) not in desk.warnings[0]
    desk.program(greeting(desk.cookies[0]))
    assert len(desk.seen) == 1  # others get in


def test_who_ends_too_early_is_turned_away(desk: Desk) -> None:
    desk.start()
    for size in (0, 1, 11, 47):
        stream = desk.program(greeting(desk.cookies[0])[:size])
        desk.scene.server.perform(stream.send_eof())
        assert desk.answer(stream) == b""
        assert f"it ended after {size} bytes" in desk.warnings[-1]
    assert desk.seen == []


def test_a_cookie_of_a_session_that_has_ended_is_none(desk: Desk) -> None:
    channel = desk.start()
    desk.start()
    stream = desk.program(b"", ("127.0.0.1", 6011))
    channel.close()
    desk.settle()
    desk.scene.server.perform(stream.send(greeting(desk.cookies[0])))
    assert desk.answer(stream) == b""
    assert desk.seen == []


def test_a_display_that_is_not_there_is_said_to_the_program(desk: Desk) -> None:
    desk.start(display=Display("nowhere", 0))
    answer = desk.answer(desk.program(greeting(desk.cookies[0])))
    assert answer[0] == 0  # failed
    assert b"cannot be reached" in answer
    assert desk.warnings == ["cannot connect to display nowhere:0.0: Connection refused"]


def test_the_first_address_that_answers_is_taken(desk: Desk) -> None:
    tried: list[Any] = []

    def dial(address: Any) -> Operation[Any]:
        tried.append(address)
        if not address.startswith("\0"):
            raise OSError(errno.ENOENT, "no such thing")
        return (yield from desk.scene.net.dial(SCREEN))

    desk.start(display=Display("", 3), dial=dial)
    desk.program(greeting(desk.cookies[0]))
    assert tried == ["/tmp/.X11-unix/X3", "\0/tmp/.X11-unix/X3"]
    assert len(desk.seen) == 1


# --------------------------------------------------------------------------------------------------- single, time's end


@pytest.mark.covers("R102")
def test_a_single_connection(desk: Desk) -> None:
    """The server listens no more after it; one that opens channels all the same is refused."""
    desk.start(single=True)
    assert desk.handler.sessions[0].channel.kind == Session()
    first = desk.scene.net.listeners[FIRST].connect("program", room=10_000)
    desk.settle()
    assert set(desk.scene.net.listeners) == {SCREEN}
    desk.scene.server.perform(first.send(greeting(desk.cookies[0])))
    desk.settle()
    assert len(desk.seen) == 1
    with pytest.raises(OpenRefused) as caught:
        desk.scene.server.perform(desk.scene.server.hub.open_channel(X11("", 0)))
    assert caught.value.reason == OpenFailure.ADMINISTRATIVELY_PROHIBITED


def test_of_two_that_come_at_once_one_is_the_single_one(desk: Desk) -> None:
    """A second session, which wants many, must not lend its right to the first."""
    desk.start(single=True)
    desk.start()
    hub = desk.scene.server.hub
    channels = [desk.scene.server.perform(hub.open_channel(X11("", 0))) for _ in range(2)]
    for channel in channels:
        desk.scene.server.perform(channel.write(greeting(desk.cookies[0])))
    desk.settle()
    assert len(desk.seen) == 1
    assert desk.warnings == ["a connection to the display was refused: there was one before it"]


def test_after_a_time_nobody_is_let_in(desk: Desk) -> None:
    desk.start(timeout=100.0)
    before = desk.program(greeting(desk.cookies[0]))
    late = desk.program(b"")
    desk.scene.pass_time(101.0)
    assert desk.answer(desk.program(greeting(desk.cookies[0]))) == b""
    desk.scene.server.perform(late.send(greeting(desk.cookies[0])))
    assert desk.answer(late) == b""
    assert desk.warnings == [
        "a connection to the display came too late, and was refused",
        "a connection to the display was refused: it came too late",
    ]
    assert len(desk.seen) == 1
    desk.scene.server.perform(before.send(b"!"))
    desk.settle()
    assert desk.seen[0].endswith(b"!")
    desk.start()
    desk.program(greeting(desk.cookies[1]), ("127.0.0.1", 6011))
    assert len(desk.seen) == 2


def test_a_session_that_ends_before_its_time_leaves_no_clock(desk: Desk) -> None:
    desk.start(timeout=1e6).close()
    desk.settle()
    assert desk.scene.client.running() == []


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_times_that_make_no_sense(desk: Desk, timeout: float) -> None:
    with pytest.raises(InvalidArgument):
        attrs.evolve(desk.forwarding, timeout=timeout)


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("verdict", [False, None, "yes", 1])
def test_only_true_is_yes(desk: Desk, verdict: Any) -> None:
    Displays.verdict = verdict
    try:
        with pytest.raises(RequestRefused, match="x11-req"):
            desk.start()
        channel = desk.start(optional=True)
    finally:
        Displays.verdict = True
    assert not channel.closed
    assert desk.warnings == ["the server refuses to forward X11"]
    assert set(desk.scene.net.listeners) == {SCREEN}
    assert desk.scene.client.hub.offers == {}
    assert desk.handler.sessions[1].provided == {}


def test_who_does_not_say_is_asked_for_nothing(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(Host())
    with pytest.raises(RequestRefused):
        desk.start()


def test_a_handler_that_fails_says_no(make_desk: Callable[..., Desk]) -> None:
    class Broken(Displays):
        def allow_x11(self, session: Any, request: Any) -> Any:
            raise ZeroDivisionError

    desk = make_desk(Broken())
    with pytest.raises(RequestRefused):
        desk.start()
    assert [type(error) for error in desk.handler.errors] == [ZeroDivisionError]


@pytest.mark.parametrize(
    "request_",
    [X11Request(False, "a b", "00"), X11Request(False, MAGIC_COOKIE, "xx"), X11Request(False, MAGIC_COOKIE, "")],
)
def test_cookies_that_are_none_are_refused_unasked(desk: Desk, request_: X11Request) -> None:
    channel = desk.scene.client.perform(desk.scene.client.hub.open_channel(Session()))
    assert desk.scene.client.perform(channel.request(request_)) is False
    assert desk.handler.sessions == []


def test_a_session_has_one_display(desk: Desk) -> None:
    channel = desk.scene.client.perform(desk.scene.client.hub.open_channel(Session()))
    request = X11Request(False, MAGIC_COOKIE, "00" * 16)
    assert desk.scene.client.perform(channel.request(request)) is True
    assert desk.scene.client.perform(channel.request(request)) is False
    assert set(desk.scene.net.listeners) == {SCREEN, FIRST, FIRST_6}


def test_displays_that_are_taken_are_passed_over(desk: Desk) -> None:
    for address in (FIRST, ("::1", 6011), ("127.0.0.1", 6012)):
        desk.scene.net.listener(address)
    desk.start()
    assert desk.handler.sessions[0].display.number == 13
    assert ("127.0.0.1", 6011) not in desk.scene.net.listeners  # what was begun there was given back


def test_when_all_are_taken_it_is_refused(desk: Desk) -> None:
    for number in range(1000):
        desk.scene.net.listener(("127.0.0.1", 6010 + number))
    with pytest.raises(RequestRefused):
        desk.start()


@pytest.mark.parametrize(
    ("missing", "granted"), [(("::1",), True), (("127.0.0.1",), True), (("127.0.0.1", "::1"), False)]
)
def test_a_machine_may_lack_a_kind_of_address(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], granted: bool
) -> None:
    listener = desk.scene.net.listener

    def listen(address: Any) -> Any:
        if address[0] in missing:
            raise OSError(errno.EADDRNOTAVAIL, "no such address")
        return listener(address)

    monkeypatch.setattr(desk.scene.net, "listener", listen)
    desk.start(optional=True)
    assert (desk.handler.sessions[0].display is not None) == granted


def test_nobody_to_connect_with_is_said_before_anything_is_sent(desk: Desk) -> None:
    with pytest.raises(InvalidArgument, match="dial"):
        desk.start(dial=None)
    assert desk.handler.sessions == []


# --------------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.covers("V75", "B13", "P21")
def test_a_server_that_opens_channels_unasked_gets_none(desk: Desk) -> None:
    for number in range(1000):
        inject(desk.scene.server, m.ChannelOpen("x11", number, 1 << 20, 32768, X11("", 0).encode()))
    desk.settle()
    assert desk.scene.client.hub.channels == {}
    assert desk.scene.client.running() == []
    assert desk.seen == []


@pytest.mark.covers("V75", "B13", "P21")
def test_connections_that_show_nothing_are_few(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.start()
    hub = desk.scene.server.hub
    opened, refused = [], []
    for _ in range(STRANGERS + 5):
        try:
            opened.append(desk.scene.server.perform(hub.open_channel(X11("", 0))))
        except OpenRefused as error:
            refused.append(error.reason)
    assert (len(opened), refused) == (STRANGERS, [OpenFailure.RESOURCE_SHORTAGE] * 5)
    desk.scene.server.perform(opened[0].write(greeting(desk.cookies[0])))
    desk.settle()
    assert len(desk.seen) == 1
    desk.scene.server.perform(hub.open_channel(X11("", 0)))  # one that has shown it makes room
    for channel in opened[1:]:
        channel.close()
    desk.settle()
    assert len(desk.scene.client.hub.channels) == 3


def test_a_server_does_not_fill_the_terminal(desk: Desk) -> None:
    desk.start()
    for _ in range(MAXIMUM_WARNINGS + 5):
        desk.program(greeting(bytes(16))).close()
    assert len(desk.warnings) == MAXIMUM_WARNINGS
    assert desk.warnings[0] == "a connection to the display was refused: it has a wrong cookie"
    assert desk.warnings[-1] == f"{desk.warnings[0]}; no more of this session is told"


@pytest.mark.covers("B31", "P21")
def test_programs_that_the_client_does_not_decide_on_wait_at_the_display(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(server_forwarded_pending=2)
    desk.start()
    desk.scene.client.answers = False
    for _ in range(7):
        desk.scene.net.listeners[FIRST].connect()
    desk.settle()
    assert len(desk.scene.server.conn.channels) == 3
    desk.scene.client.answers = True
    desk.settle()
    assert len(desk.scene.server.conn.channels) == 8


# --------------------------------------------------------------------------------------------------------- cancellation


@pytest.mark.parametrize("moment", list(Moment))
def test_giving_up_at_any_yield_leaves_nothing(make_desk: Callable[..., Desk], moment: Moment) -> None:
    number = 0
    while True:
        number += 1
        desk = make_desk()
        blow = Blow(number, moment, Task.cancel)
        task = desk.scene.client.begin(start(desk.scene.client.hub, Exec(b"wait"), x11=desk.forwarding), blow)
        desk.scene.run(lambda task=task: task.done, 10.0)
        if not blow.fallen or task.error is None:
            break
        desk.settle()
        assert desk.scene.client.hub.offers == {}
        assert desk.scene.client.hub.channels == {}
        assert desk.scene.client.running() == []
        desk.scene.client.perform(_pause())
        assert set(desk.scene.net.listeners) == {SCREEN}
        assert not desk.scene.bugs
        assert number < 50
    assert number > 3


def _pause() -> Operation[None]:
    yield Sleep(1.0)


def test_a_session_that_ends_while_the_handler_thinks_gets_no_display(make_desk: Callable[..., Desk]) -> None:
    decided = Wait()

    class Thinking(Displays):
        def allow_x11(self, session: Any, request: Any) -> Any:
            yield decided
            return True

    desk = make_desk(Thinking())
    task = desk.scene.client.begin(start(desk.scene.client.hub, Exec(b"wait"), x11=desk.forwarding))
    desk.settle()
    task.cancel()
    desk.settle()
    decided.fire()
    desk.settle()
    assert set(desk.scene.net.listeners) == {SCREEN}
    assert not desk.scene.bugs


def test_a_session_that_has_ended_offers_nothing(desk: Desk) -> None:
    channel = desk.start()
    channel.close()
    with pytest.raises(ChannelEnded):
        desk.scene.client.perform(desk.forwarding.offer(channel))
    desk.settle()
    assert desk.scene.client.hub.offers == {}
    assert desk.scene.client.running() == []


def test_what_is_shown_to_the_display_is_a_setup_again(desk: Desk) -> None:
    desk.start()
    desk.program(greeting(desk.cookies[0], "B"))
    found = read_setup(bytes(desk.seen[0]))
    assert found is not None
    assert found.shows(TRUE)
