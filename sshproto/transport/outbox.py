"""The way out: messages are held back during a key exchange, sealed whole as they are queued, handed out as one piece.

RFC 4253 section 7.1 lets nothing but the messages 1 to 4 and the exchange's own leave between our KEXINIT and our
NEWKEYS.  Channel data is then not taken at all (:attr:`Outbox.held`); the few other messages wait here, in order and
within :class:`~sshproto.config.Limits`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from sshproto.config import Trace
from sshproto.errors import InvalidArgument, LimitReached
from sshproto.transport.packets import Sealer
from sshproto.wire.messages import LARGEST_PAYLOAD, decode

if TYPE_CHECKING:
    from sshproto.config import Config
    from sshproto.wire.codec import Buffer
    from sshproto.wire.messages import Message

_TAGS_KEPT = 64


class Outbox:
    """What one side has to send.

    Args:
        config: Limits, entropy for padding, and the trace.
        worn: Called when the key has served for as much as ``Limits.rekey_bytes`` or ``rekey_packets`` allow.

    Attributes:
        sealer: Payloads to packets.
        size: Bytes that wait to be taken.
        held: True from our KEXINIT to our NEWKEYS; the key exchange sets it.
        sealed: Called with each message as its packet is made, unless None.
    """

    __slots__ = (
        "_deferred",
        "_deferred_size",
        "_limits",
        "_packets",
        "_rekey_bytes",
        "_rekey_packets",
        "_tags",
        "_trace",
        "_worn",
        "held",
        "sealed",
        "sealer",
        "size",
    )

    def __init__(self, config: Config, *, worn: Callable[[], None]) -> None:
        self._limits = config.limits
        self._rekey_bytes = config.limits.rekey_bytes
        self._rekey_packets = config.limits.rekey_packets
        self._trace = config.trace
        self._worn = worn
        self.sealer = Sealer(entropy=config.entropy)
        self.size = 0
        self.held = False
        self.sealed: Callable[[Message], object] | None = None
        self._packets: list[Buffer] = []
        self._deferred: deque[tuple[Message, bytes, int | None]] | tuple[()] = ()  # empty, a deque is not small
        self._deferred_size = 0
        self._tags: dict[int, int] | None = None

    # --------------------------------------------------------------------------------------------------------------- in

    def raw(self, data: bytes) -> None:
        """Queue bytes that are no packet: the identification line."""
        self._packets.append(data)
        self.size += len(data)

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
        if sealer.bytes >= self._rekey_bytes or sealer.packets >= self._rekey_packets:
            self._worn()

    def send_now(self, message: Message, payload: bytes | None = None) -> None:
        """Queue a message that may leave during a key exchange; see :meth:`send`."""
        self.send(message, None, payload, now=True)

    def send_data(self, head: bytes, body: Buffer) -> None:
        """Queue the payload ``head + body``, of the connection protocol. Not while :attr:`held`."""
        sealer = self.sealer
        if self._tags:
            self._tags.pop(sealer.sequence_number, None)  # see send
        if self._trace is not None:
            payload = b"".join((head, body))
            self._trace_sent(payload, decode(payload))
        packet = sealer.seal(head, body)
        self._packets.append(packet)
        self.size += len(packet)
        if sealer.bytes >= self._rekey_bytes or sealer.packets >= self._rekey_packets:
            self._worn()

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
        self.size = 0
        return data

    def tag(self, sequence_number: int) -> int | None:
        """The tag of the message that was sent under a number, once; None if it had none, or is long gone."""
        return None if self._tags is None else self._tags.pop(sequence_number, None)

    def drop_deferred(self) -> None:
        """Nothing that waits will be sent."""
        self._deferred = ()
        self._deferred_size = 0
