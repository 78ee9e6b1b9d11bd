"""Both directions of somebody else's connection: bytes in, events out, nothing sent.

An :class:`Observer` is two openers and a key exchange that watches.  It uses what the live roles use: the same codecs,
the same negotiation, the same key schedule, the same ciphers.  It differs in what it may assume, which is little:

* Who dialled need not be the client; the key exchange tells.
* The two directions depend on each other (keys need both KEXINITs; a reply means something only with its request) but
  arrive as they were captured.  So a direction that can't go on waits for the other, and what it gives then does not
  depend on whose bytes came first.
* Secrets may be missing, wrong or late; bytes may be missing at the start, in the middle, at the end, or all of one
  side's.  What can't be followed is stated, never guessed.

It never raises for what it is fed.  What it keeps is bounded, except for what was fed and not asked for yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sshproto.errors import ConnectionLoss
from sshproto.events import VersionReceived
from sshproto.replay.events import (
    Ended,
    Integrity,
    KeysMissing,
    Missing,
    Observed,
    PacketOpened,
    PacketSealed,
    Problem,
    Reopened,
    Side,
    Ssh1Packet,
)
from sshproto.replay.framing import PACKET_LIMIT, Framing, Half, Lock, Packet, Sealed, Told, Version, framing, words
from sshproto.replay.interpret import Interpreter, decode, of_method
from sshproto.replay.kexwatch import Candidate, KexWatch, Round
from sshproto.replay.secrets import Secrets
from sshproto.replay.ssh1 import SENDERS, Ssh1Reader, begins, is_version_1, versions_agree
from sshproto.transport.ciphers import PLAIN_ALIGNMENT
from sshproto.wire.codec import Buffer
from sshproto.wire.messages import KexInit, Message
from sshproto.wire.table import message_name

HOLD = 16 * 1024 * 1024
"""Bytes of each side that are kept by default while they can't be read."""

_PATIENCE = 1024 * 1024
"""Bytes of a side that wait for the other, at least, whatever is to be held."""

_TRIAL = 64
"""Bytes after which unproven keys are tried first; then each time that so many more have come as there were."""

_SHOWN = 64 * 1024
"""Bytes of what is sealed that are made events at a time."""

_KEXINIT, _NEWKEYS = 20, 21
_AUTH_REQUEST, _AUTH_SUCCESS, _AUTH_BANNER = 50, 52, 53

_Input = tuple[Callable[..., None], tuple[object, ...]]


class Observer:
    """One connection, seen from outside.

    Feed it what was captured, in the order in which it was captured as far as that is known; take events with
    :meth:`next_event` until there is none, after each call or at the end. All that it knows (the attributes) is as of
    the last event that was taken.

    Args:
        secrets: What opens it.
        hold: Bytes of each side to keep while they can't be read, in case that a key comes later; 0 for none.
        ordered: What is fed is in an order in which both ends could have read and written it. If it is not (one side's
            whole dump, then the other's), messages that need one of the other side to be understood wait for it, as all
            key exchanges do anyway.

    Attributes:
        kex: The key exchanges: who is the client, what was negotiated, the session identifier, the secrets.
        authenticated: Whether the login was seen to succeed.
        sizes: Whether :class:`PacketSealed` is told; without, what can't be read costs less.
    """

    def __init__(self, secrets: Secrets | None = None, *, hold: int = HOLD, ordered: bool = True) -> None:
        self._hold = hold
        self._patience = max(hold, _PATIENCE)
        self._ordered = ordered
        dialler, dialled = Half(Side.DIALLER), Half(Side.DIALLED)
        # Nothing here refers back to the observer, nor a half to the other: all is gone at once when nobody wants it.
        self._halves = {Side.DIALLER: dialler, Side.DIALLED: dialled}
        self._others = {dialler: dialled, dialled: dialler}
        self._inputs: deque[_Input] = deque()
        self._tell = Told(self._halves)
        self._events = self._tell.events
        self._current = dialler  # whose bytes came last
        self.kex = KexWatch(Secrets() if secrets is None else secrets, self._tell)
        self._interpreter = Interpreter()
        self._finished = False
        self.authenticated = False
        self.sizes = True

    # ----------------------------------------------------------------------------------------------------------- inputs

    def feed(self, side: Side, data: Buffer, *, time: float | None = None, frame: int | None = None) -> None:
        """Bytes that ``side`` has sent.

        Args:
            side: Who.
            data: Any number of bytes.
            time: When they were captured, in seconds.
            frame: In which frame of the capture.
        """
        if len(data):
            self._inputs.append((self._feed, (self._halves[side], bytes(data), time, frame)))

    def gap(self, side: Side, size: int | None = None, *, time: float | None = None, frame: int | None = None) -> None:
        """Bytes of ``side`` are missing here.

        Args:
            side: Whose.
            size: How many, if that is known.
            time, frame: Where that was seen, as for :meth:`feed`.
        """
        self._inputs.append((self._gap, (self._halves[side], size, time, frame)))

    def end(self, side: Side, *, time: float | None = None, frame: int | None = None) -> None:
        """``side`` sends no more: its transport has ended. After both have, :meth:`finish` is not needed."""
        self._inputs.append((self._end, (self._halves[side], time, frame)))

    def add_secrets(self) -> None:
        """The secrets of :attr:`kex` have grown: look again for what could not be opened. Also after the end."""
        self._inputs.append((self._open_again, ()))

    def let_go(self) -> None:
        """Keep nothing any more for keys that may come late."""
        self._hold = 0
        for half in self._halves.values():
            half.let_go()

    def finish(self) -> None:
        """There is no more: say what is left over. Repeated calls do nothing."""
        self._inputs.append((self._finish, ()))

    # ---------------------------------------------------------------------------------------------------------- outputs

    def next_event(self) -> Observed | None:
        """The next thing that was seen, or None until there is more input."""
        while not self._events:
            if not self._advance():
                if not self._inputs:
                    return None
                handler, arguments = self._inputs.popleft()
                handler(*arguments)
        return self._events.popleft()

    @property
    def client(self) -> Side | None:
        """Who is the client, as far as that is known."""
        return self.kex.client

    @property
    def held(self) -> int:
        """Bytes that are kept for keys that may come late."""
        return sum(half.held for half in self._halves.values())

    def _say(self, half: Half, problem: str, *, fatal: bool = False) -> None:
        half.over |= fatal
        self._tell(half.side, Problem(problem=problem, fatal=fatal))

    # -------------------------------------------------------------------------------------------------- inputs, in turn

    def _feed(self, half: Half, data: bytes, time: float | None, frame: int | None) -> None:
        if half.over:
            return
        half.marks.add(len(data), time, frame)
        if half.gap is not None:
            self._follow_gap(half)
            return
        self._current = half
        if half.sealed is not None:
            self._keep(half, half.sealed, data)
        elif half.protocol is None:
            self._identify(half, data)
        else:
            self._follow(half, data)

    def _follow(self, half: Half, data: bytes) -> None:
        """Bytes after the identification."""
        if len(half.first) < _TRIAL:
            half.first += data[:_TRIAL]
        if half.ssh1 is not None:
            half.ssh1.feed(data)
        else:
            half.opener.feed(data)
            half.dry = False
            if half.opener.buffered > self._patience and half.pending is not None:
                half.release = True

    def _gap(self, half: Half, size: int | None, time: float | None, frame: int | None) -> None:
        if half.over or half.gap is not None:
            return
        some = "bytes" if size is None else f"{size} bytes"
        problem = f"{some} are missing here: what follows can't be read"
        if not half.marks.size:
            problem = f"the first {some} of the {half.side.value} are missing"
        half.gap = Missing(size=size, problem=problem)
        half.dry = False
        half.gap_at = (time, () if frame is None else (frame,))
        half.marks.add(size or 0, time, frame)
        half.rest = half.gap_end = half.marks.size
        sealed = half.sealed
        if sealed is not None and sealed.framing is None:
            self._resolve(half, sealed, force=True)
        if half.protocol is None or half.sealed is not None:
            self._lose(half)

    def _lose(self, half: Half) -> None:
        """All before the gap has been read, or can't be."""
        gap, half.lost = half.gap, True
        if gap is not None:
            half.at = half.gap_at
            self._tell(half.side, gap)
            self._follow_gap(half)

    def _follow_gap(self, half: Half) -> None:
        """What comes after a gap: of what is encrypted, at least it shows how much there is."""
        size = half.marks.size - half.rest
        if half.lost and size:
            if half.epoch:
                half.at = half.marks.where(half.rest, half.marks.size)
                self._tell(half.side, PacketSealed(offset=half.rest, size=size, exact=False))
            half.rest += size
            if half.sealed is None or half.sealed.data is None:
                half.marks.forget(half.rest)

    def _end(self, half: Half, time: float | None, frame: int | None) -> None:
        if half.ended:
            return
        half.ended = True
        if half.gap is None:
            if frame is not None or time is not None:
                half.at = (time, () if frame is None else (frame,))
            self._tell(half.side, Ended())
        if all(each.ended for each in self._halves.values()):
            self._finish()

    def _open_again(self) -> None:
        self.kex.open_again()
        for half in self._halves.values():
            sealed = half.sealed
            if sealed is not None and sealed.data is not None:
                sealed.trial = 0
                self._resolve(half, sealed, force=sealed.framing is not None)
        if self._finished:
            self._inputs.appendleft((self._close_all, ()))

    def _finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._inputs.appendleft((self._close_all, ()))

    def _close_all(self) -> None:
        self.kex.finish()
        for half in self._halves.values():
            self._close(half)

    # --------------------------------------------------------------------------------------------------- identification

    def _identify(self, half: Half, data: bytes) -> None:
        reader = half.reader
        try:
            version = reader.feed(data)
        except ConnectionLoss as error:
            version = reader.version
            if version is None or not is_version_1(version.protocol):
                half.at = half.marks.where(0, half.marks.size)
                if version is not None:
                    self._tell(half.side, version)
                    self._say(half, f"{error}", fatal=True)
                else:
                    start = bytes(data[:_TRIAL]).partition(b"\n")[0]
                    problem = "no identification: this is not SSH, or the recording begins in the middle"
                    self._say(half, f"{problem}{words(start)}", fatal=True)
                return
        if version is not None:
            self._identified(half, version)

    def _identified(self, half: Half, version: VersionReceived) -> None:
        half.protocol = version.protocol
        self.kex.idents[half.side] = half.reader.line
        half.read = half.marks.size - len(half.reader.rest)
        half.at = half.marks.where(0, half.read)
        half.marks.forget(half.read)
        self._tell(half.side, version)
        if half.reader.rest:
            self._follow(half, half.reader.rest)

    def _choose_version(self, half: Half) -> bool:
        """Which protocol it is depends on both identifications (RFC 4253 section 5)."""
        other = self._others[half]
        mine, theirs = half.protocol or "", other.protocol
        if theirs is None and not self._alone(half) and (mine != "2.0" and half.opener.buffered <= self._patience):
            return False
        if not versions_agree(mine, theirs):
            self._say(half, f"it speaks version {mine} of SSH, the other side {theirs}", fatal=True)
            return True
        data = half.opener.rest()
        if is_version_1(mine) or is_version_1(theirs) or (theirs is None and mine == "1.99" and begins(data)):
            half.version = Version.SSH1
            half.ssh1 = Ssh1Reader(half.side, half.read)
            half.ssh1.feed(data)
        else:
            half.version = Version.SSH2
            half.opener.feed(data)
        return True

    # ---------------------------------------------------------------------------------------------------------- packets

    def _alone(self, half: Half) -> bool:
        """Whether the other side will say nothing more."""
        other = self._others[half]
        hopeless = other.sealed is not None and other.sealed.framing is not None and other.sealed.data is None
        return self._finished or other.over or other.lost or other.ended or hopeless

    def _advance(self) -> bool:
        """One step, on whichever side can go on; False if neither can."""
        current, other = self._current, self._others[self._current]
        if current.sealed is not None and other.sealed is not None:
            return False
        if self._step(current) or self._step(other):
            return True
        if current.pending is None and other.pending is None:
            return False
        waiting = [half for half in (current, other) if half.pending is not None and not half.over]
        # Nothing that comes can help two sides that wait for one another, and nothing comes to one that is alone.
        stuck = waiting if len(waiting) == len(Side) else [half for half in waiting if self._alone(half)]
        for half in stuck:
            half.release = True
        return bool(stuck)

    def _step(self, half: Half) -> bool:
        if half.over or half.lost or half.protocol is None or half.sealed is not None:
            return False
        if half.version is Version.UNKNOWN:
            return self._choose_version(half)
        if half.ssh1 is not None:
            return self._step_ssh1(half, half.ssh1)
        packet = half.pending
        if packet is None:
            if half.dry:
                return False
            packet = half.pending = self._next_packet(half)
            if packet is None:
                return half.over or half.lost  # if it has just become that, there is something to tell
        if not half.release and not self._ready(half, packet.payload):
            return False
        half.pending = None
        half.release = False
        self._deal_with(half, packet)
        return True

    def _next_packet(self, half: Half) -> Packet | None:
        opener = half.opener
        before, sequence = opener.buffered, opener.sequence_number
        try:
            view = opener.next_packet()
        except ConnectionLoss as error:
            half.at = half.marks.where(half.read, half.read + 1)
            read = "" if half.epoch or half.round >= 0 else words(half.first)
            self._say(half, f"{error}{read}", fatal=True)
            return None
        if view is None:
            half.dry = True
            if half.gap is not None:
                self._lose(half)
            return None
        return Packet(bytes(view), sequence, before - opener.buffered)

    def _ready(self, half: Half, payload: bytes) -> bool:
        """Whether a packet can be dealt with, or has to wait for something that the other side sends."""
        number = payload[0]
        if half.round >= 0:
            if 30 <= number <= 49:
                return self.kex.paired(half.round)
            if number == _NEWKEYS:
                return self.kex.over(half.round)
        return self._ordered or not half.epoch or self._interpreter.ready(half.side, payload)

    def _deal_with(self, half: Half, packet: Packet) -> None:
        payload, number = packet.payload, packet.payload[0]
        offset = half.read
        half.read += packet.size
        half.at = half.marks.where(offset, half.read)
        half.marks.forget(half.read)
        context, guessed = "", False
        if 30 <= number <= 49:
            context, guessed = self.kex.message(half.side, half.round, number)
        elif of_method(number):
            context = self._interpreter.context(half.side, number)
        message, problem = decode(payload, context) if not guessed else (None, "")
        self._tell(
            half.side,
            PacketOpened(
                sequence_number=packet.sequence_number,
                epoch=half.epoch,
                number=number,
                context=context,
                message=message,
                payload=payload,
                offset=offset,
                size=packet.size,
                integrity=half.integrity,
                guessed=guessed,
            ),
        )
        if problem:
            self._say(half, problem)
            if number in (31, 33):
                self.kex.glimpse(half.round, payload)
        if not half.epoch and packet.size % PLAIN_ALIGNMENT:
            problem = f"the packet of {packet.size} bytes is no multiple of {PLAIN_ALIGNMENT} (RFC 4253 section 6)"
            self._say(half, problem)
        if number == _KEXINIT:
            self._kexinit(half, payload, message)
        elif number == _NEWKEYS:
            self._newkeys(half)
        elif 30 <= number <= 49:
            if message is not None:
                self.kex.receive(half.side, half.round, message)
            elif not guessed:
                self.kex.lose(half.round, f"message {number} can't be understood")
        else:
            self._upper(half, number, message)

    def _upper(self, half: Half, number: int, message: Message | None) -> None:
        if not half.epoch and number >= 50:
            return  # nobody believes what is sent in clear
        if (number == _AUTH_REQUEST) is (half.side is not self.client) and _AUTH_REQUEST <= number <= _AUTH_BANNER:
            self._say(half, f"{message_name(number)} is not for this side to send")
            return
        interpreter = self._interpreter
        interpreter.session_id = self.kex.session_id
        self.authenticated |= number == _AUTH_SUCCESS
        if message is not None:
            self._tell(half.side, *interpreter.events(half.side, message))
        interpreter.passed(half.side, number, message)

    # ----------------------------------------------------------------------------------------------------- key exchange

    def _kexinit(self, half: Half, payload: bytes, message: Message | None) -> None:
        half.round += 1
        if isinstance(message, KexInit):
            self.kex.forget(min(each.round for each in self._halves.values()))
            if not self.kex.begin(half.side, half.round, payload, message):
                self._say(half, "key exchanges were begun that the other side knows nothing of", fatal=True)
        else:
            self.kex.lose(half.round, "a KEXINIT can't be understood")

    def _newkeys(self, half: Half) -> None:
        half.epoch += 1
        self._interpreter.client = self.client
        found = self.kex.rounds.get(half.round)
        if found is not None and half.side in found.switched:
            found = None
        problem = ""
        if found is None:
            problem = "no key exchange is under way"
            self._say(half, f"NEWKEYS came, but {problem}")
        elif not found.complete:
            self.kex.lose(half.round, "the key exchange is not complete")
            problem = found.failed
        lock = None
        way = found.way(half.side, self.client) if found is not None else None
        if found is not None and way is not None:
            found.switched.add(half.side)
            sequence = 0 if self.kex.strict else half.opener.sequence_number
            lock = Lock(cipher=way[0], mac=way[1], compression=way[2], sequence_number=sequence)
        data = bytearray(half.opener.rest())
        half.sealed = sealed = Sealed(found, lock, data, half.read, problem=problem)
        self._resolve(half, sealed)

    # ------------------------------------------------------------------------------------------------- with and without

    def _resolve(self, half: Half, sealed: Sealed, *, force: bool = False) -> None:
        """Open what is sealed, if a key is known by now; else say that none is, unless more bytes may tell."""
        lock, found, data = sealed.lock, sealed.found, sealed.data
        undecided = False
        if lock is not None and lock.unknown:
            sealed.problem = sealed.problem or lock.unknown
        elif lock is not None and found is not None and data is not None:
            for candidate in self.kex.candidates(half.side, found, lock, bytes(data[: PACKET_LIMIT + _TRIAL])):
                if candidate is not None:
                    self._unseal(half, sealed, lock, found, candidate)
                    return
                undecided = True
        wanted = lock.wanted(data) if undecided and lock is not None and data is not None else 0
        more = wanted if wanted > len(data or b"") else max(_TRIAL, 2 * len(data or b""))
        sealed.trial = more if undecided else -1
        if sealed.framing is None and (force or not undecided):
            self._give_up(half, sealed)

    def _unseal(self, half: Half, sealed: Sealed, lock: Lock, found: Round, candidate: Candidate) -> None:
        if sealed.framing is not None:
            self._ordered = False  # what was held of one side now comes before all that was held of the other
            self._tell(half.side, Reopened(epoch=half.epoch))
        self.kex.accept(half.side, found, candidate)
        lock.turn(half.opener, candidate.keys)
        half.integrity = Integrity.VERIFIED if lock.verifies(candidate.keys) else Integrity.UNCHECKED
        half.sealed = None
        half.closed = half.lost = half.dry = False
        half.rest = half.gap_end
        half.opener.feed(bytes(sealed.data or b""))

    def _keep(self, half: Half, sealed: Sealed, data: bytes) -> None:
        """More of what no key is known for."""
        frames = sealed.framing
        if sealed.data is not None:
            sealed.data += data
            if 0 <= sealed.trial <= len(sealed.data):
                self._resolve(half, sealed)
                if half.sealed is not sealed:
                    return
            if len(sealed.data) > (self._patience if sealed.framing is None else self._hold):
                if sealed.framing is None:
                    self._give_up(half, sealed)
                sealed.data = None
        if frames is not None and frames.exact:
            self._show(half, sealed, frames, data)
        elif frames is not None:  # as it came; otherwise all of it was just shown, if any was
            self._seal(half, sealed, len(data), exact=False)

    def _give_up(self, half: Half, sealed: Sealed) -> None:
        """No key is known: what can be seen without one?"""
        lock = sealed.lock
        sealed.framing = framing(lock.cipher, lock.mac) if lock is not None else Framing(None)
        why = sealed.problem or "no key is known: this can't be read, nor would a key exchange in it show"
        self._tell(half.side, KeysMissing(epoch=half.epoch, exact=sealed.framing.exact, problem=why))
        data = bytes(sealed.data or b"")
        if len(data) > self._hold or not self._hold or lock is None:
            sealed.data = None
        self._show(half, sealed, sealed.framing, data)

    def _show(self, half: Half, sealed: Sealed, frames: Framing, data: Buffer) -> None:
        if half.sealed is not sealed:
            return
        if len(data) > _SHOWN:  # there may be many packets in it
            data = memoryview(data)
            self._inputs.appendleft((self._show, (half, sealed, frames, data[_SHOWN:])))
            data = data[:_SHOWN]
        pieces = [data] if frames.exact else half.marks.pieces(sealed.offset, data)  # the latter as they came
        for size, exact in (shown for piece in pieces for shown in frames.feed(piece)):
            self._seal(half, sealed, size, exact=exact)

    def _seal(self, half: Half, sealed: Sealed, size: int, *, exact: bool) -> None:
        if self.sizes:
            half.at = half.marks.where(sealed.offset, sealed.offset + size)
            self._tell(half.side, PacketSealed(offset=sealed.offset, size=size, exact=exact))
        sealed.offset += size
        if sealed.data is None:
            half.marks.forget(sealed.offset)

    # ------------------------------------------------------------------------------------------------------------ SSH-1

    def _step_ssh1(self, half: Half, reader: Ssh1Reader) -> bool:
        other = self._others[half].ssh1
        found = reader.next_packet(other, alone=self._alone(half))
        if found is None:
            if half.gap is not None:
                self._lose(half)
                return True
            return False
        offset, size, event = found
        half.at = half.marks.where(offset, offset + size)
        half.marks.forget(offset + size)
        half.over |= isinstance(event, Problem) and event.fatal
        if isinstance(event, Ssh1Packet) and event.number in SENDERS:
            self.kex.take_role(half.side, SENDERS[event.number])
        self._tell(half.side, event)
        return True

    # ---------------------------------------------------------------------------------------------------------- the end

    def _close(self, half: Half) -> None:
        """Say what is left of a side at the end."""
        if half.over or half.closed or half.lost:
            return
        sealed = half.sealed
        if sealed is not None and sealed.framing is None:
            self._inputs.appendleft((self._close_all, ()))  # there is more to be read or shown before
            self._resolve(half, sealed, force=True)
            return
        half.closed = True
        if not half.marks.size:
            self._tell(half.side, Missing(size=None, problem=f"nothing of the {half.side.value} is in the recording"))
        elif half.protocol is None:
            half.at = half.marks.where(0, half.marks.size)
            self._say(half, f"no identification; the first line is {half.reader.words!r}", fatal=True)
        elif left := half.left:
            problem = f"the recording ends within a packet, after {left} bytes of it"
            self._tell(half.side, Missing(size=None, problem=problem))
