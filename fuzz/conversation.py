"""One connection and a peer that says anything: what the targets of key exchange, login and channels have in common.

The connection is brought to a state (tests/support/puppet.py), then an input goes on from there: packets of the peer,
deeds of the application, time.  Watched are the properties of tests/support/monitors.py, and these: nothing is raised
but misuse, which changes nothing; the end comes once, is the last event, and after it nothing is sent; what is held and
what comes out is bounded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs

from fuzz.clear import ciphers_off, constant, framed
from fuzz.steps import HEAD, Do, script, steps
from sshproto import events as ev
from sshproto.channels import requests as r
from sshproto.config import Limits, Timeouts
from sshproto.errors import UsageError
from sshproto.wire import messages as m
from sshproto.wire.table import Role
from tests.support.monitors import Monitor, bounded
from tests.support.puppet import _COPIED, STATES, Puppet, _step, payload_of
from tests.support.rogue import frame
from tests.support.seeds import HOST_KEY, USER_KEY

LIMITS = Limits(window=4000, channels_from_peer=4, requests_pending=4, deferred_packets=20)
TIMEOUTS = Timeouts(keepalive=60.0)
_PER_BYTE = 64  # of output, for each byte of input
_OUTPUT = 20_000  # and for each step
_REPEATED = 50  # how often what an application sends is in one call

Deed = Callable[[Any, Any, bytes], object]


class Fault(AssertionError):
    """What must not be."""


def _prompts(data: bytes) -> list[ev.Prompt]:
    return [ev.Prompt(text="?" * (1 + octet % 3), echo=bool(octet & 1)) for octet in data[:4]]


def _text(data: bytes) -> str:
    return data.decode("latin-1")


_PASSWORD = "xyzzy"
_DEEDS: dict[type[ev.Question], list[Deed]] = {
    ev.HostKeyOffered: [
        lambda conn, asked, data: conn.accept_host_key(asked),
        lambda conn, asked, data: conn.accept_host_key(asked),
        lambda conn, asked, data: conn.reject_host_key(asked),
    ],
    ev.CredentialNeeded: [
        lambda conn, asked, data: conn.auth_none(asked),
        lambda conn, asked, data: conn.auth_password(asked, _PASSWORD + _text(data)),
        lambda conn, asked, data: conn.auth_public_key(asked, USER_KEY),
        lambda conn, asked, data: conn.auth_public_key(asked, USER_KEY, probe=True),
        lambda conn, asked, data: conn.auth_public_key(asked, USER_KEY.public_key),
        lambda conn, asked, data: conn.auth_keyboard_interactive(asked, _text(data)),
        lambda conn, asked, data: conn.give_up(asked),
    ],
    ev.PromptsReceived: [
        lambda conn, asked, data: conn.answer_prompts(asked, [_text(data)] * len(asked.prompts)),
        lambda conn, asked, data: conn.answer_prompts(asked, [_text(data)]),
        lambda conn, asked, data: conn.give_up(asked),
    ],
    ev.PasswordExpired: [
        lambda conn, asked, data: conn.new_password(asked, _PASSWORD, _text(data)),
        lambda conn, asked, data: conn.give_up(asked),
    ],
    ev.SignatureNeeded: [
        lambda conn, asked, data: conn.sign(asked, USER_KEY.sign(asked.data, "ssh-ed25519")),
        lambda conn, asked, data: conn.sign(asked, data),
        lambda conn, asked, data: conn.decline_sign(asked),
    ],
    ev.AuthQuestion: [
        lambda conn, asked, data: conn.accept_auth(asked),
        lambda conn, asked, data: conn.reject_auth(asked),
        lambda conn, asked, data: conn.reject_auth(asked, partial=True),
        lambda conn, asked, data: conn.reject_auth(asked, methods=("password", "publickey")[: len(data)]),
        lambda conn, asked, data: conn.offer_key(asked),
        lambda conn, asked, data: conn.prompt(asked, _prompts(data)),
        lambda conn, asked, data: conn.change_password(asked, _text(data)),
    ],
    ev.ChannelOpenRequested: [
        lambda conn, asked, data: conn.accept_channel(asked),
        lambda conn, asked, data: conn.accept_channel(asked, window=len(data)),
        lambda conn, asked, data: conn.reject_channel(asked),
        lambda conn, asked, data: conn.reject_channel(asked, len(data), _text(data)),
    ],
    ev.ChannelRequested: [
        lambda conn, asked, data: conn.succeed(asked),
        lambda conn, asked, data: conn.fail(asked),
    ],
    ev.GlobalRequested: [
        lambda conn, asked, data: conn.succeed(asked, data),
        lambda conn, asked, data: conn.fail(asked),
    ],
}
"""What an application may answer."""


def _number(conn: Any, data: bytes) -> int:
    channels = conn.channels
    return channels[data[0] % len(channels)] if data and channels else len(data)


def _pick(values: Iterable[Any], data: bytes) -> Any:
    kinds = list(values)
    return kinds[data[0] % len(kinds)] if data else kinds[0]


_OPENS = (r.Session(), r.DirectTcpip("host", 22, "::1", 1), r.AuthAgent(), r.UnknownOpen("x@example.org", b"x"))
_REQUESTS = (
    *(r.Shell(), r.Exec(b"id"), r.PtyRequest("vt100"), r.WindowChange(80, 24), r.ExitStatus(1), r.EndOfWrite()),
    *(r.Signal("TERM"), r.KeepaliveChannel(), r.Env("LANG", b"C"), r.UnknownRequest("x@example.org", b"x")),
)
_GLOBALS = (
    *(r.TcpipForward("", 0), r.CancelTcpipForward("", 2222), r.StreamlocalForward("/run/x"), r.Keepalive()),
    *(r.CancelStreamlocalForward("/run/x"), r.NoMoreSessions(), r.HostKeysProve((HOST_KEY.public_key.blob,))),
    r.UnknownGlobal("x@example.org", b"x"),
)
_COMMANDS: list[Deed] = [
    lambda conn, asked, data: conn.open_channel(_pick(_OPENS, data), window=(None, 0, 1000, 2**32 - 1)[len(data) % 4]),
    lambda conn, asked, data: conn.request(_number(conn, data), _pick(_REQUESTS, data[1:]), want_reply=len(data) < 3),
    lambda conn, asked, data: conn.global_request(_pick(_GLOBALS, data), want_reply=len(data) < 2),
    lambda conn, asked, data: conn.send(_number(conn, data), data * _REPEATED, len(data) & 1),
    lambda conn, asked, data: conn.send_eof(_number(conn, data)),
    lambda conn, asked, data: conn.close_channel(_number(conn, data)),
    lambda conn, asked, data: conn.credit(_number(conn, data), int.from_bytes(data[1:3], "big")),
    lambda conn, asked, data: conn.rekey(),
    lambda conn, asked, data: conn.ping(data),
    lambda conn, asked, data: conn.ignore(data),
    lambda conn, asked, data: conn.debug(_text(data)),
    lambda conn, asked, data: conn.disconnect(_text(data)),
    lambda conn, asked, data: conn.refuse(asked),
    lambda conn, asked, data: conn.sendable(_number(conn, data)),
]
"""What it may do of its own accord."""


@functools.cache
def _made(role: Role, state: str) -> Puppet:
    return _fresh(role, state)


def _fresh(role: Role, state: str) -> Puppet:
    before = STATES[role][state][0]
    if before is None:
        monitor = Monitor(role)
        changes: dict[str, Any] = {"limits": LIMITS, "timeouts": TIMEOUTS, "entropy": constant, "trace": monitor}
        puppet = Puppet.new(role, **changes)
    else:
        puppet = bring(role, before)
        monitor = puppet.conn._engine._trace
    # The steps of tests/support/puppet.py accept the host key.
    monitor.trusted = role is Role.SERVER or state[:1] not in "IKk" or state[1:2] in {"2", "3"}
    return _step(puppet, state)


def bring(role: Role, state: str) -> Puppet:
    """A connection in a state of tests/support/puppet.py, watched."""
    return _made(role, state).copy() if state in _COPIED else _fresh(role, state)


@attrs.define
class Conversation:
    """A connection, and what must be true of it.

    Attributes:
        puppet: It.
        given: Bytes that it was given.
        ours: Bytes that the application asked it to send, at most.
        sent: What it has sent.
    """

    puppet: Puppet
    given: int = 0
    ours: int = 0
    sent: bytearray = attrs.Factory(bytearray)
    now: float = 0.0
    deeds: int = 0
    ended: bool = False

    def play(self, data: bytes) -> None:
        """Do what an input says."""
        conn = self.puppet.conn
        for what, content in steps(data):
            match what:
                case Do.SAY | Do.SAY_MORE:
                    self._receive(framed(content))
                case Do.FRAME:
                    self._receive(frame(content[1:] or b"\0", (content or b"\0")[0]))
                case Do.RAW:
                    self._receive(content)
                case Do.ACT:
                    self.act(content)
                case Do.WAIT:
                    self.now += int.from_bytes(content[:2], "big") / 16
                    conn.handle_timeout(self.now)
                case Do.TAKE:
                    self._take()
                case _:
                    conn.receive_eof(self.now)
            if what is not Do.SAY_MORE:
                self._pump()
                if data[0] & 1:
                    self._take()
                bounded(conn)
        while True:
            self._pump()
            if not self._take():
                break
        if conn.next_event() is not None:
            raise Fault("an event came out of nothing")

    def _receive(self, data: bytes) -> None:
        self.given += len(data)
        self.puppet.conn.receive_data(data, self.now)

    def _pump(self) -> None:
        puppet = self.puppet
        monitor = puppet.conn._engine._trace
        for _ in range(self.given + 100 + 20 * self.deeds):
            event = puppet.conn.next_event()
            if event is None:
                break
            if self.ended:
                raise Fault(f"{event!r} came after the end")
            puppet.events.append(event)
            monitor.told(event)
            self.ended = isinstance(event, ev.ConnectionLost)
            if isinstance(event, ev.DataReceived) and event.data[:1] != b"k":  # what is kept is credited by a deed
                puppet.conn.credit(event.channel, len(event.data))
        else:
            raise Fault(f"more events than bytes: {puppet.events[-3:]}")
        if puppet.conn.should_close is not self.ended:
            raise Fault("the end is not told, or what is told is not the end")

    def _take(self) -> bool:
        ended = self.ended
        data = self.puppet.conn.data_to_send()
        self.sent += data
        if len(self.sent) > _PER_BYTE * self.given + _OUTPUT * (self.deeds + 1) + self.ours:
            raise Fault(f"{len(self.sent)} bytes came of {self.given}, and {self.ours} of the application's own")
        if ended and self.puppet.conn.data_to_send():
            raise Fault("something is sent after the last of the output")
        return bool(data)

    def act(self, data: bytes) -> None:
        """Answer a question, or do something else; misuse changes nothing."""
        conn = self.puppet.conn
        self.deeds += 1
        self.ours += _REPEATED * len(data)
        how, rest = (data or b"\0")[0], data[1:]
        asked = None
        deeds: Sequence[Deed] = _COMMANDS
        if conn.questions and how < 192:
            asked = conn.questions[how // 64 % len(conn.questions)]
            deeds = next(them for kind, them in _DEEDS.items() if isinstance(asked, kind))
        elif self.puppet.events and isinstance(self.puppet.events[-1], ev.Question):
            asked = self.puppet.events[-1]  # may have been answered
        before = self._state()
        try:
            if isinstance(asked, ev.HostKeyOffered):
                conn._engine._trace.trusted = True  # or it is rejected
            deeds[how % 64 % len(deeds)](conn, asked, rest)
        except UsageError:
            if self._state() != before:
                raise Fault("misuse has changed something") from None
        except AttributeError:
            # A deed that this role, or this question, does not have.
            if asked is not None and isinstance(asked, ev.Question) and deeds is not _COMMANDS:
                raise

    def _state(self) -> tuple[Any, ...]:
        conn = self.puppet.conn
        return conn.phase, conn.output_size, conn.questions, conn.channels, conn.error, conn.rekeying, conn.blocked_on


def fuzz(role: Role, states: Sequence[str], data: bytes) -> None:
    """Run an input that begins in one of ``states``, as its second byte chooses.

    Raises:
        Fault: It is not as it must be. Whatever else is raised is wrong as well.
    """
    data = data.ljust(HEAD, b"\0")
    puppet = bring(role, states[data[1] % len(states)])
    with ciphers_off():
        Conversation(puppet).play(data)


def seeds(role: Role, states: Sequence[str], samples: Iterable[Any]) -> list[bytes]:
    """What tests/support/samples.py has for some states, and the way there and on."""
    found = [script((flags, place)) for place in range(len(states)) for flags in (0, 1)]
    for sample in samples:
        if sample.role is not role or sample.state not in states:
            continue
        puppet = sample.ready()
        said = payload_of(sample.made(puppet))
        head = 1, states.index(sample.state)
        found.append(script(head, (Do.SAY, said)))
        found += [script(head, (Do.SAY, said), (Do.ACT, bytes((how,)) + b"xy")) for how in range(3)]
    return found


__all__ = ["Conversation", "Fault", "fuzz", "m", "seeds"]
