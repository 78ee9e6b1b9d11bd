"""What every key-exchange family has in common.

A *family* is a sequence of messages and the way they enter the exchange hash; a *method* is a family with a hash and a
group, a curve or a KEM, and has a name; an *exchange* is one run of a method on one live side.  An exchange computes
the secret and nothing else: host key, signature and exchange hash are its caller's.

Invariants: the transcript holds the public messages of both sides, alternating, the client's first; a message out of
turn is refused before it is looked at; a private value is not made before it is needed (on the server: not before the
first right message came) and is dropped as soon as the secret is known; a public value is checked before it is used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import attrs

from sshproto.config import Entropy, Oracle
from sshproto.errors import ProtocolViolation, WrongPhase
from sshproto.values import Unpicklable, frozen
from sshproto.wire.messages import Message

ENTROPY_LABEL = "kex"
"""What private values are drawn for (:data:`sshproto.config.Entropy`)."""


@frozen
class Family:
    """A sequence of public messages.

    Attributes:
        context: The meaning of the numbers 30 to 49, for :func:`sshproto.wire.messages.lookup`.
        messages: The messages in order, the client's first, then alternating.
        hash_fields: The method's part of the exchange hash, encoded, from the messages in that order; the host key
            and the signature of the last one do not count. The same for client, server and observer.
    """

    context: str
    messages: tuple[type[Message], ...]
    hash_fields: Callable[[Sequence[Message]], bytes] = attrs.field(repr=False)


@frozen
class KexMethod(ABC):
    """A key-exchange method.

    Attributes:
        name: Its name in KEXINIT.
        hash_name: Its hash, as :mod:`hashlib` calls it.
    """

    name: str
    hash_name: str

    family: ClassVar[Family]

    @abstractmethod
    def client(self, entropy: Entropy, oracle: Oracle, gex_bits: tuple[int, int, int]) -> ClientExchange:
        """A client's run; see :func:`sshproto.transport.kex.client_exchange`."""

    @abstractmethod
    def server(self, entropy: Entropy, oracle: Oracle, host_key: bytes) -> ServerExchange:
        """A server's run; see :func:`sshproto.transport.kex.server_exchange`."""


class Exchange(Unpicklable, ABC):
    """One run of a method on one live side.

    Attributes:
        transcript: The public messages so far, of both sides.
        secret: K, encoded as it is hashed; None until it is known.
    """

    __slots__ = ("_entropy", "_method_name", "secret", "transcript")

    family: ClassVar[Family]
    _turn: ClassVar[int]  # our messages have the indices of the family's that are this modulo 2

    def __init__(self, method_name: str, entropy: Entropy) -> None:
        self._method_name = method_name
        self._entropy = entropy
        self.transcript: list[Message] = []
        self.secret: bytes | None = None

    @property
    def expects(self) -> type[Message] | None:
        """The class of the peer's next message; None if it is our turn or nothing more will come."""
        done = len(self.transcript)
        messages = self.family.messages
        return messages[done] if done < len(messages) and done % 2 != self._turn else None

    def _take(self, message: Message) -> None:
        expected = self.expects
        if expected is None or type(message) is not expected:
            wanted = "nothing" if expected is None else expected.__name__
            raise ProtocolViolation(f"{self._method_name}: {type(message).__name__} came, expected {wanted}")
        self.transcript.append(message)


class ClientExchange(Exchange):
    """A client's run."""

    __slots__ = ()

    _turn = 0

    def start(self) -> Message:
        """Our first message. To be called once, before anything else.

        Raises:
            WrongPhase: It was called before.
        """
        if self.transcript:
            raise WrongPhase(f"{self._method_name} has been started already")
        message = self._first()
        self.transcript.append(message)
        return message

    def receive(self, message: Message) -> Message | None:
        """The server's next message.

        Returns:
            Our next message, or None if there is none: then :attr:`secret` is known.

        Raises:
            ProtocolViolation: It is not what :attr:`expects` says.
            KeyExchangeFailed: Its public value or group is not acceptable.
        """
        self._take(message)
        answer = self._answer(message)
        if answer is not None:
            self.transcript.append(answer)
        return answer

    @abstractmethod
    def _first(self) -> Message: ...

    @abstractmethod
    def _answer(self, message: Any) -> Message | None: ...


class ServerExchange(Exchange):
    """A server's run."""

    __slots__ = ("_host_key",)

    _turn = 1

    def __init__(self, method_name: str, entropy: Entropy, host_key: bytes) -> None:
        super().__init__(method_name, entropy)
        self._host_key = host_key

    def receive(self, message: Message) -> Message:
        """The client's next message.

        Returns:
            Our answer. It is the reply if :attr:`secret` is known then: it has the host key in it and an empty
            signature, to be filled in by the caller.

        Raises:
            ProtocolViolation: It is not what :attr:`expects` says.
            KeyExchangeFailed: Its public value or sizes are not acceptable.
        """
        self._take(message)
        answer = self._answer(message)
        self.transcript.append(answer)
        return answer

    @abstractmethod
    def _answer(self, message: Any) -> Message: ...
