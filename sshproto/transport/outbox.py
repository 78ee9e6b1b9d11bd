"""The way out: messages are held back during a key exchange, sealed whole as they are queued, handed out as one piece.

RFC 4253 section 7.1 lets nothing but the messages 1 to 4 and the exchange's own leave between our KEXINIT and our
NEWKEYS.  Channel data is then not taken at all (:attr:`Outbox.held`); the few other messages wait here, in order and
within :class:`~sshproto.config.Limits`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from sshproto.config import Trace
from sshproto.errors import InvalidArgument, LimitReached
from sshproto.transport.packets import LEAST, Sealer
from sshproto.wire.messages import LARGEST_PAYLOAD, decode

if TYPE_CHECKING:
    from sshproto.config import Config
    from sshproto.transport.suites import DirectionKeys
    from sshproto.wire.codec import Buffer
    from sshproto.wire.messages import Message

_TAGS_KEPT = 64


class Owner(Protocol):
    """Whose output it is."""

    def key_worn(self) -> None:
        """The key has served for as much as ``Limits.rekey_bytes`` or ``rekey_packets`` allow."""

    def output_full(self) -> None:
        """More waits than ``Limits.output_hard`` allows."""


class Outbox:
    """What one side has to send.

    Args:
        config: Limits, entropy for padding, and the trace.
        owner: Told of limits that are reached, with each packet from then on.

    Attributes:
        sealer: Payloads to packets.
        size: Bytes that wait to be taken.
        held: True from our KEXINIT to our NEWKEYS; the key exchange says so, see :meth:`hold` and :meth:`switch`.
        sealed: Called with each message that is a value, as its packet is made; unless None. Those that come encoded
            are values where they wait or are traced.
    """

    __slots__ = (
        "_deferred",
        "_deferred_size",
        "_enough",
        "_limits",
        "_owner",
        "_packets",
        "_plain",
        "_served_then",
        "_tags",
        "_trace",
        "held",
        "sealed",
        "sealer",
        "size",
    )

    def __init__(self, config: Config, owner: Owner) -> None:
        self._limits = config.limits
        self._trace = config.trace
        self._owner = owner
        self.sealer = Sealer(entropy=config.entropy)
        self.size = 0
        # No limit can be reached before ``size`` is ``_enough``; the key will have served ``_served_then`` bytes then.
        self._enough = self._served_then = 0
        self.held = False
        self.sealed: Callable[[Message], object] | None = None
        self._packets: list[Buffer] = []
        self._deferred: deque[tuple[Message, bytes, int | None]] | tuple[()] = ()  # empty, a deque is not small
        self._deferred_size = 0
        self._tags: dict[int, int] | None = None
        self._plain = self._trace is None  # an encoded message is just queued

    # ------------------------------------------------------------------------------------------ what messages must mind

    def hold(self) -> None:
        """Our KEXINIT has left: most messages must wait."""
        self.held = True
        self._plain = False

    def switch(self, cipher: str, mac: str | None, keys: DirectionKeys, *, reset_sequence: bool) -> None:
        """Our NEWKEYS has left: go on under new keys, see :meth:`Sealer.switch`; and no message must wait any more."""
        self.sealer.switch(cipher, mac, keys, reset_sequence=reset_sequence)
        self._served_then = self._enough - self.size
        self.held = False
        self._plain = self._trace is None and not self._tags  # a number with a tag may come again

    # --------------------------------------------------------------------------------------------------------------- in

    def raw(self, data: bytes) -> None:
        """Queue bytes that are no packet: the identification line."""
        self._packets.append(data)
        self.size += len(data)
        self._enough += len(data)

    def send(
        self, message: Message, tag: int | None = None, payload: bytes | None = None, *, now: bool = False
    ) -> None:
        """Queue ``message``, or let it wait for the end of the key exchange.

        Args:
            message: What to send.
            tag: What :meth:`tag` is to give for its sequence number.
            payload: What it is encoded, if that is known.
            now: It may leave during a key exchange, past those that may not.

        Raises:
            InvalidArgument: It cannot be sent, or is too large for any peer.
            LimitReached: Too much waits already.
        """
        if payload is None:
            payload = message.encode()
        if len(payload) > LARGEST_PAYLOAD and not now:
            kind = type(message).__name__
            raise InvalidArgument(f"a {kind} of {len(payload)} bytes: at most {LARGEST_PAYLOAD} can be sent")
        if self.held and not now:
            self._defer(message, payload, tag)
            return
        sealer = self.sealer
        if tag is not None:
            if self._tags is None:
                self._tags = {}
            self._tags[sealer.sequence_number] = tag
            if len(self._tags) > _TAGS_KEPT:
                del self._tags[next(iter(self._tags))]
        elif self._tags:
            self._tags.pop(sealer.sequence_number, None)  # numbers come again with a strict key exchange
        if self._trace is not None:
            self._trace_sent(payload, message)
        packet = sealer.seal(payload, conceal=message.conceal)
        self._packets.append(packet)
        self.size += len(packet)
        if self.sealed is not None:
            self.sealed(message)
        if self.size >= self._enough:
            self._look()

    def send_now(self, message: Message, payload: bytes | None = None) -> None:
        """Queue a message that may leave during a key exchange; see :meth:`send`."""
        self.send(message, None, payload, now=True)

    def send_payload(self, payload: bytes) -> None:
        """Queue a message of the connection protocol that is encoded already, or let it wait; see :meth:`send`.

        Raises:
            InvalidArgument: It is too large for any peer.
            LimitReached: Too much waits already.
        """
        if not self._plain or len(payload) > LARGEST_PAYLOAD:
            self.send(cast("Message", decode(payload)), None, payload)
            return
        packet = self.sealer.seal(payload)
        self._packets.append(packet)
        self.size = size = self.size + len(packet)
        if size >= self._enough:
            self._look()

    def send_data(self, head: bytes, body: Buffer) -> None:
        """Queue the payload ``head + body``, of a channel. Not while :attr:`held`."""
        if self._trace is not None:
            payload = b"".join((head, body))
            self._trace_sent(payload, decode(payload))
        packet = self.sealer.seal(head, body)
        self._packets.append(packet)
        self.size = size = self.size + len(packet)
        if size >= self._enough:
            self._look()

    @property
    def served(self) -> int:
        """Bytes sealed under the current key, as they are on the wire."""
        return self._served_then - (self._enough - self.size)

    def _look(self) -> None:
        """See whether limits have been reached, and after how much more one can be."""
        limits = self._limits
        size = self.size
        served = self.served
        key = min(limits.rekey_bytes - served, (limits.rekey_packets - self.sealer.packets) * LEAST)
        more = min(key, limits.output_hard + 1 - size)
        self._enough = size + more
        self._served_then = served + more
        if size > limits.output_hard:
            self._owner.output_full()
        if key <= 0:
            self._owner.key_worn()  # which may fail: it begins a key exchange

    def _defer(self, message: Message, payload: bytes, tag: int | None) -> None:
        limits = self._limits
        size = len(payload)
        if len(self._deferred) >= limits.deferred_packets or self._deferred_size + size > limits.deferred_bytes:
            raise LimitReached(f"{len(self._deferred)} messages wait for the end of the key exchange already")
        if not self._deferred:
            self._deferred = deque()
        self._deferred.append((message, payload, tag))
        self._deferred_size += size

    def release(self) -> None:
        """Queue what has waited, unless it must wait on."""
        while self._deferred and not self.held:
            message, payload, tag = self._deferred.popleft()
            self._deferred_size -= len(payload)
            self.send(message, tag, payload)
        if not self._deferred:
            self._deferred = ()

    def _trace_sent(self, payload: bytes, message: Message | None) -> None:
        if self._trace is not None:
            number = self.sealer.sequence_number
            self._trace(
                Trace(sent=True, sequence_number=number, message=message, number=payload[0], length=len(payload))
            )

    # -------------------------------------------------------------------------------------------------------------- out

    def take(self) -> bytes:
        """All that is queued, which is then no longer queued."""
        data = b"".join(self._packets)
        self._packets.clear()
        self._enough -= self.size
        self.size = 0
        return data

    def tag(self, sequence_number: int) -> int | None:
        """The tag of the message that was sent under a number, once; None if it had none, or is long gone."""
        return None if self._tags is None else self._tags.pop(sequence_number, None)

    def drop_deferred(self) -> None:
        """Nothing that waits will be sent."""
        self._deferred = ()
        self._deferred_size = 0
