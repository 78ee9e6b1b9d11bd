"""How messages of the agent protocol travel: a length and so many bytes, either way (RFC 9987 section 3)."""

from __future__ import annotations

from sshproto.errors import SSHError
from sshproto.wire.codec import Buffer, string

MAXIMUM_MESSAGE = 256 * 1024
"""Longest message in bytes that is sent or accepted, as in OpenSSH."""

_LENGTH = 4


class AgentError(SSHError):
    """What can go wrong between an agent and who uses it."""


class AgentUnavailable(AgentError):
    """There is no agent, or it has gone; the ``OSError`` that says why is chained if there is one."""


class AgentMessageError(AgentError, ValueError):
    """A message that is not one, or not one that could come here."""


class AgentRefused(AgentError):
    """The agent will not do it. The protocol has no place for why."""


class ExtensionUnsupported(AgentRefused):
    """The agent does not know the extension."""


def frame(payload: bytes) -> bytes:
    """A message as it travels.

    Raises:
        AgentMessageError: It is longer than :data:`MAXIMUM_MESSAGE`.
    """
    if len(payload) > MAXIMUM_MESSAGE:
        raise AgentMessageError(f"an agent message of {len(payload)} bytes: {MAXIMUM_MESSAGE} can be sent")
    return string(payload)


class Framer:
    """Takes messages out of a stream.

    Args:
        where: What comes, for errors: ``"request"`` or ``"reply"``.
    """

    __slots__ = ("_data", "where")

    def __init__(self, where: str) -> None:
        self.where = where
        self._data = bytearray()

    def __repr__(self) -> str:
        return f"<Framer of agent {self.where}s, {len(self._data)} bytes wait>"

    @property
    def waiting(self) -> int:
        """Bytes that have come and were not taken."""
        return len(self._data)

    def feed(self, data: Buffer) -> None:
        """More bytes of the stream."""
        self._data += data

    def next(self) -> bytes | None:
        """The next message, if all of it has come.

        Raises:
            AgentMessageError: It says that it is empty, or longer than :data:`MAXIMUM_MESSAGE`. There is no going on.
        """
        data = self._data
        if len(data) < _LENGTH:
            return None
        size = int.from_bytes(data[:_LENGTH], "big")
        if not 0 < size <= MAXIMUM_MESSAGE:
            raise AgentMessageError(
                f"an agent {self.where} of {size} bytes is announced: 1 to {MAXIMUM_MESSAGE} are accepted"
            )
        if len(data) < _LENGTH + size:
            return None
        message = bytes(data[_LENGTH : _LENGTH + size])
        del data[: _LENGTH + size]
        return message

    @property
    def complete(self) -> bool:
        """Whether a message waits, or what can't become one."""
        if len(self._data) < _LENGTH:
            return False
        size = int.from_bytes(self._data[:_LENGTH], "big")
        return not 0 < size <= MAXIMUM_MESSAGE or len(self._data) >= _LENGTH + size

    def end(self) -> None:
        """The stream has ended.

        Raises:
            AgentMessageError: It did so within a message.
        """
        if self._data:
            raise AgentMessageError(
                f"the stream ended within an agent {self.where}: {len(self._data)} bytes of it came"
            )

    def discard(self) -> None:
        """Forget what waits."""
        self._data.clear()
