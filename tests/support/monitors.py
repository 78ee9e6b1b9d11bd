"""Properties of whole runs, watched on the plain trace of one side's messages.

A :class:`Monitor` is a connection's ``trace``.  It knows nothing of the connection but the packets that go by, and
keeps its own account of keys, login and channels; what must never happen fails at the packet with which it happens,
what must have happened is asked for when all is quiet (:meth:`Monitor.at_rest`).  The names P1 to P21 are those of
:mod:`tests.support.claims`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs

from sshproto.config import Trace
from sshproto.wire import messages as m
from sshproto.wire.table import Role

MARKERS = {Role.CLIENT: "kex-strict-c-v00@openssh.com", Role.SERVER: "kex-strict-s-v00@openssh.com"}
DURING_KEX = {1, 2, 3, 4, 21, *range(30, 50)}
LOGIN_REPLIES = {51, 52, 60}
MASK = 0xFFFFFFFF


class Violation(AssertionError):
    """A property does not hold."""


@attrs.define
class Line:
    """A channel, as its messages show it.

    Attributes:
        theirs: The peer's number of it.
        window, packet: What we may send.
        offered, granted: The window that we have offered, and what is left of it for the peer.
        eof, closed, closed_by_peer: What has been said.
        owed: Requests of the peer that want a reply and have none.
    """

    theirs: int
    window: int
    packet: int
    offered: int
    granted: int
    eof: bool = False
    closed: bool = False
    closed_by_peer: bool = False
    owed: int = 0


class Monitor:
    """Watches one side.

    Args:
        role: Which.

    Attributes:
        trusted: On a client: its application has accepted the host key. To be set by who plays the application.
        over: Nothing may come any more.
        prompting: On a server: it has asked, and the client has not answered.
        strict: Whether both first KEXINITs ask for a strict key exchange; None as long as one is missing.
    """

    def __init__(self, role: Role) -> None:
        self.role = role
        self.trusted = False
        self.over = False
        self.strict: bool | None = None
        self.sent: Counter[int] = Counter()
        self.received: Counter[int] = Counter()
        self._offers: dict[bool, m.KexInit] = {}
        self._kex_out = False
        self._kex_in = False
        self._expected = {True: 0, False: 0}
        self._doomed = ""
        self._in = False
        self._awaiting = 0  # login requests and answers that the server owes an answer
        self.prompting = False
        self._global_owed = 0
        self._opens_owed: list[int] = []
        self._pending: dict[int, tuple[int, int]] = {}  # window and packet of the peer's opens
        self._offered: dict[int, int] = {}  # the windows of ours that are not confirmed
        self.lines: dict[int, Line] = {}  # by our number

    def fail(self, name: str, words: str) -> None:
        raise Violation(f"{name} at the {self.role.value}: {words}")

    def need(self, condition: object, name: str, words: str) -> None:
        if not condition:
            self.fail(name, words)

    # ---------------------------------------------------------------------------------------------------------- packets

    def __call__(self, trace: Trace) -> None:
        number = trace.number
        self._count(trace)
        if trace.sent:
            self.need(not self.over, "P1 P7", f"message {number} was sent after the end")
            if self._doomed:
                self.need(number == 1, "P15", f"message {number} was sent after {self._doomed}")
            self._exchange_out(number)
            self._login_out(trace)
            if number >= 80:
                self.need(self._in, "P4", f"message {number} was sent before login")
                self._channels_out(trace.message)
            self.over = number == 1
        else:
            self.need(not self.over, "P1", f"message {number} was looked at after the end")
            self.need(not self._doomed, "P15", f"message {number} was looked at after {self._doomed}")
            self._exchange_in(trace)
            self._login_in(trace)
            if self._in:
                self._channels_in(trace.message)
            self.over = number == 1 and trace.message is not None  # else it is a fault, and answered
        (self.sent if trace.sent else self.received)[number] += 1

    def _count(self, trace: Trace) -> None:
        """P16: each direction counts on by itself, and from 0 after NEWKEYS if and only if it is strict."""
        expected = self._expected[trace.sent]
        way = "sent" if trace.sent else "received"
        self.need(
            trace.sequence_number == expected,
            "P16",
            f"message {trace.number} was {way} as packet {trace.sequence_number}, expected {expected}",
        )
        restart = trace.number == 21 and self.strict
        self._expected[trace.sent] = 0 if restart else (expected + 1) & MASK

    def _offer(self, sent: bool, message: Any) -> None:
        if sent in self._offers or not isinstance(message, m.KexInit):
            return
        self._offers[sent] = message
        if len(self._offers) == 2:
            mine, other = MARKERS[self.role], MARKERS[self.role.peer]
            self.strict = mine in self._offers[True].kex_algorithms and other in self._offers[False].kex_algorithms

    def _exchange_out(self, number: int) -> None:
        if number == 20:
            self.need(not self._kex_out, "P8", "a second KEXINIT was sent before NEWKEYS")
            self._kex_out = True
        elif self._kex_out:
            self.need(number in DURING_KEX, "P8", f"message {number} was sent between KEXINIT and NEWKEYS")
            self._kex_out = number != 21
        else:
            self.need(number not in {21, *range(30, 50)}, "P8", f"message {number} was sent without a KEXINIT")

    def _exchange_in(self, trace: Trace) -> None:
        number = trace.number
        first = not self.received[21]
        if number == 20:
            self._offer(False, trace.message)
            if first and self.strict and trace.sequence_number:
                self._doomed = "a KEXINIT that was not the first packet of a strict key exchange"
            self._kex_in = True
        elif number == 21:
            self._kex_in = False
        elif first and self.strict and number != 1 and number not in range(30, 50):
            self._doomed = f"message {number} in a strict key exchange"

    def told(self, event: Any) -> None:
        """An event was handed to the application."""
        if type(event).__name__ == "ConnectionLost":
            self.over = True

    # ------------------------------------------------------------------------------------------------------------ login

    def _keys(self) -> bool:
        return bool(self.sent[21] and self.received[21])

    def _login_out(self, trace: Trace) -> None:
        number = trace.number
        if trace.sent and number == 20:
            self._offer(True, trace.message)
        if self.role is Role.SERVER:
            if number == 6:
                self.need(self._keys(), "P3", "a service was accepted before the keys")
                self.need(self.sent[6] < self.received[5], "P9 P17", "a service was accepted that nobody asked for")
            if number in LOGIN_REPLIES:
                self.need(self.sent[6], "P3", "a login was answered without a service")
                self.need(not self._in, "P12", f"message {number} was sent after success")
                self.need(self._awaiting, "P17", f"message {number} was sent though nothing was asked")
                self._awaiting -= 1
                self.prompting = isinstance(trace.message, m.UserauthInfoRequest)
            if number == 52:
                self.need(not self.sent[52], "P11", "success was sent twice")
                self._in = True
        elif number in {5, 50, 61}:
            self.need(self._keys(), "P18", f"message {number} was sent before the keys")
            self.need(self.trusted, "P18", f"message {number} was sent before the host key was accepted")
            if number != 5:
                self.need(self.received[6], "P18", f"message {number} was sent before the service was accepted")

    def _login_in(self, trace: Trace) -> None:
        number = trace.number
        if self.role is Role.CLIENT:
            self._in = self._in or number == 52
            return
        if self._in:
            return
        if number == 50:
            self.need(not self._awaiting, "P10", "a login request was looked at before the one before was answered")
            self._awaiting, self.prompting = 1, False
        elif number == 61 and self.prompting:
            self._awaiting, self.prompting = 1, False

    # --------------------------------------------------------------------------------------------------------- channels

    def _line(self, theirs: int) -> Line:
        for line in self.lines.values():
            if line.theirs == theirs:
                return line
        raise Violation(f"P13 at the {self.role.value}: a message for the peer's channel {theirs}, which is not open")

    def _channels_out(self, message: Any) -> None:
        match message:
            case m.GlobalRequest():
                pass
            case m.RequestSuccess() | m.RequestFailure():
                self.need(self._global_owed, "P17", "a global reply was sent that nobody waits for")
                self._global_owed -= 1
            case m.ChannelOpen():
                taken = message.sender_channel in self._offered or message.sender_channel in self.lines
                self.need(not taken, "P13", f"channel number {message.sender_channel} was used twice")
                self._offered[message.sender_channel] = message.initial_window_size
            case m.ChannelOpenConfirmation() | m.ChannelOpenFailure():
                self.need(
                    message.recipient_channel in self._opens_owed, "P17", "an open was answered twice, or unasked"
                )
                self._opens_owed.remove(message.recipient_channel)
                window, packet = self._pending.pop(message.recipient_channel)
                if isinstance(message, m.ChannelOpenConfirmation):
                    mine = message.initial_window_size
                    self.lines[message.sender_channel] = Line(message.recipient_channel, window, packet, mine, mine)
            case m.ChannelSuccess() | m.ChannelFailure():
                line = self._open_line(message)
                self.need(line.owed, "P17", "a channel reply was sent that nobody waits for")
                line.owed -= 1
            case m.ChannelData() | m.ChannelExtendedData():
                line = self._open_line(message)
                size = len(message.data)
                self.need(not line.eof, "P13", "data was sent after EOF")
                self.need(size <= line.window, "P20", f"{size} bytes were sent into a window of {line.window}")
                self.need(size <= line.packet, "P20", f"{size} bytes were sent in a packet of {line.packet}")
                line.window -= size
            case m.ChannelEof():
                line = self._open_line(message)
                self.need(not line.eof, "P13", "EOF was sent twice")
                line.eof = True
            case m.ChannelClose():
                self._open_line(message).closed = True
                self._forget()
            case m.ChannelWindowAdjust():
                line = self._open_line(message)
                line.granted += message.bytes_to_add
                self.need(line.granted <= line.offered, "P21", f"{line.granted} bytes of {line.offered} were granted")
            case m.ChannelRequest():
                self._open_line(message)
            case _:
                pass

    def _open_line(self, message: Any) -> Line:
        line = self._line(message.recipient_channel)
        self.need(not line.closed, "P13", f"{type(message).__name__} was sent after CLOSE")
        return line

    def _forget(self) -> None:
        for number in [number for number, line in self.lines.items() if line.closed and line.closed_by_peer]:
            del self.lines[number]

    def _channels_in(self, message: Any) -> None:
        match message:
            case m.GlobalRequest(want_reply=True):
                self._global_owed += 1
            case m.ChannelOpen():
                self._opens_owed.append(message.sender_channel)
                self._pending[message.sender_channel] = message.initial_window_size, message.maximum_packet_size
            case m.ChannelOpenConfirmation() if message.recipient_channel in self._offered:
                mine = self._offered.pop(message.recipient_channel)
                self.lines[message.recipient_channel] = Line(
                    message.sender_channel, message.initial_window_size, message.maximum_packet_size, mine, mine
                )
            case m.ChannelOpenFailure():
                self._offered.pop(message.recipient_channel, None)
            case m.ChannelRequest(want_reply=True) if message.recipient_channel in self.lines:
                self.lines[message.recipient_channel].owed += 1
            case m.ChannelWindowAdjust() if message.recipient_channel in self.lines:
                self.lines[message.recipient_channel].window += message.bytes_to_add
            case m.ChannelData() | m.ChannelExtendedData() if message.recipient_channel in self.lines:
                self.lines[message.recipient_channel].granted -= len(message.data)
            case m.ChannelClose() if message.recipient_channel in self.lines:
                self.lines[message.recipient_channel].closed_by_peer = True
                self._forget()
            case _:
                pass

    # ---------------------------------------------------------------------------------------------------------- at rest

    def at_rest(self) -> None:
        """All that was sent has arrived and no question is open: what was due has come, or the connection has ended."""
        if self.over:
            return
        unanswered = self.received[20] - self.sent[20]
        self.need(not unanswered, "P5 P6", f"{unanswered} KEXINITs were not answered")
        self.need(self.sent[21] == self.received[21] == self.sent[20], "P5 P6", "a key exchange did not end")
        if self.role is Role.SERVER:
            self.need(self.sent[6] >= self.received[5], "P9", "a service request was not answered")
            self.need(self._in or not self._awaiting, "P10", "a login request was not answered")
        for number, line in self.lines.items():
            self.need(line.closed or not line.closed_by_peer, "P13", f"CLOSE of channel {number} was not answered")


def bounded(conn: Any) -> None:
    """P21: what a connection keeps is within its limits."""
    engine = conn._engine
    limits = engine.config.limits
    outbox, mux, opener = engine.outbox, engine.mux, engine.opener
    held = {
        "deferred messages": (len(outbox._deferred), limits.deferred_packets),
        "deferred bytes": (outbox._deferred_size, limits.deferred_bytes),
        "output": (outbox.size, limits.output_hard + limits.packet),
        "input": (opener.buffered, limits.input_hard + limits.packet),
        "tags": (len(outbox._tags or ()), 64),
        "channels of the peer": (len(mux.channels) - mux._registry.by_us, limits.channels_from_peer),
        "channels of ours": (mux._registry.by_us, limits.channels_from_us),
        "global replies owed": (len(mux._global._owed), limits.requests_pending),
        "global requests": (len(mux._global._requested), limits.requests_pending + 1),
        "extensions": (len(engine.extensions.peer), 2 * 1024),
    }
    for channel in mux._channels.values():
        held[f"replies owed on {channel.number}"] = len(channel.owed), limits.requests_pending
        held[f"requests on {channel.number}"] = len(channel.requested), limits.requests_pending
        held[f"window of {channel.number}"] = channel.receive_window + channel.unread, 2**32 - 1
    for what, (size, most) in held.items():
        if size > most:
            raise Violation(f"P21: {size} {what}, at most {most} are allowed")
