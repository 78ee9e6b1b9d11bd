"""A peer without manners: sends any bytes or payloads at any moment, by hand."""

from __future__ import annotations

from typing import Any

from sshproto import events as ev
from sshproto.errors import ConnectionLoss
from sshproto.wire import messages
from sshproto.wire.messages import Disconnect, KexInit, Message
from tests.support.pair import End

IDENT = b"SSH-2.0-rogue\r\n"


def frame(payload: bytes, padding: int | None = None, length: int | None = None) -> bytes:
    """A plaintext packet, well-formed unless told otherwise.

    Args:
        payload: Message number and fields.
        padding: padding_length; the least legal if None.
        length: packet_length; the true one if None.
    """
    if padding is None:
        padding = 4 + -(len(payload) + 9) % 8
    if length is None:
        length = 1 + len(payload) + padding
    return length.to_bytes(4, "big") + bytes((padding,)) + payload + bytes(padding)


def kexinit(**changes: Any) -> bytes:
    """A KEXINIT that works with the defaults, changed."""
    fields: dict[str, Any] = {
        "cookie": bytes(16),
        "kex_algorithms": ("curve25519-sha256",),
        "server_host_key_algorithms": ("ssh-ed25519",),
        "encryption_algorithms_client_to_server": ("aes128-ctr",),
        "encryption_algorithms_server_to_client": ("aes128-ctr",),
        "mac_algorithms_client_to_server": ("hmac-sha2-256",),
        "mac_algorithms_server_to_client": ("hmac-sha2-256",),
        "compression_algorithms_client_to_server": ("none",),
        "compression_algorithms_server_to_client": ("none",),
    }
    return KexInit(**{**fields, **changes}).encode()


def push(conn: Any, data: bytes, now: float = 0.0) -> list[ev.Event]:
    """Give ``data`` to a connection; its new events."""
    conn.receive_data(data, now)
    found = []
    while (event := conn.next_event()) is not None:
        found.append(event)
    return found


def loss(events: list[ev.Event]) -> ConnectionLoss:
    """The reason in the last event, which must be the only end."""
    ends = [event for event in events if isinstance(event, ev.ConnectionLost)]
    assert len(ends) == 1, f"no end, or several: {events}"
    assert events[-1] is ends[0]
    return ends[0].error


def goodbye(output: bytes) -> int | None:
    """The reason code of the last plaintext DISCONNECT in some output, or None."""
    code = None
    position = output.index(b"\r\n") + 2 if output.startswith(b"SSH-") else 0
    while position + 5 <= len(output):
        length = int.from_bytes(output[position : position + 4], "big")
        payload = output[position + 5 : position + 4 + length - output[position + 4]]
        if payload[:1] == b"\x01":
            code = Disconnect.parse(payload).reason
        position += 4 + length
    return code


def inject(end: End, message: Message | bytes) -> None:
    """Send a payload under the keys of ``end``, past all of its rules."""
    outbox = end.conn._engine.outbox
    payload = message if isinstance(message, bytes) else message.encode()
    outbox.raw(bytes(outbox.sealer.seal(payload)))


def received_goodbye(end: End) -> int | None:
    """The code of the DISCONNECT that reached ``end``, or None."""
    for event in end.of(ev.ConnectionLost):
        return getattr(event.error, "code", None) if type(event.error).__name__ == "PeerDisconnected" else None
    return None


__all__ = ["IDENT", "frame", "goodbye", "inject", "kexinit", "loss", "messages", "push", "received_goodbye"]
