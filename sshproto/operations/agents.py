"""Conversations with agents as operations, at both ends, over any :class:`~sshproto.operations.forwarding.ByteStream`.

:class:`Agent` is a client's: its callers take turns, since replies have no number.  Who gives up in the midst of a
request leaves a reply behind that nobody wants, which the next one takes out of the way first.  :class:`AgentService`
is the other end: one keyring for all who come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from sshproto.agent import messages as m
from sshproto.agent import replies as r
from sshproto.agent.constraints import Constraints, DestinationConstraint
from sshproto.agent.framing import AgentMessageError, AgentUnavailable, Framer, frame
from sshproto.agent.server import AgentServer, ConfirmNeeded
from sshproto.errors import SSHError, forget_frames
from sshproto.operations.forwarding import take_all
from sshproto.operations.steps import Operation, Sleep, Together, Wait, call

if TYPE_CHECKING:
    from sshproto.agent.keyring import Keyring
    from sshproto.agent.server import AgentEvent
    from sshproto.keys.certificates import Certificate
    from sshproto.keys.private import PrivateKey
    from sshproto.keys.public import PublicKey
    from sshproto.operations.forwarding import ByteStream, Listener

T = TypeVar("T")


_PIECE = 64 * 1024
_LONGEST = 3600.0  # seconds of one sleep
MAXIMUM_CONNECTIONS = 256
"""Connections to an agent at once; more are closed as they come."""


def _without_frames(operation: Operation[T]) -> Operation[T]:
    """Run an operation that has secrets in its variables: errors leave it without the frames in which those are."""
    try:
        return (yield from operation)
    except SSHError as error:
        failure = error
    forget_frames(failure)
    try:
        raise failure
    finally:
        del failure


class Agent:
    """A client's connection to an agent.

    All methods but :meth:`close` are operations and raise, besides what they say:

    * :class:`~sshproto.agent.AgentRefused`: the agent will not; the connection goes on.
    * :class:`~sshproto.agent.AgentUnavailable`: it has gone, or this was closed.
    * :class:`~sshproto.agent.AgentMessageError`: it answers what is no answer, which closes the connection.

    Args:
        stream: Leads to the agent; it belongs to this from now on.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._framer = Framer("reply")
        self._queue: deque[object] = deque()  # who asks, and behind it who waits to
        self._turn = Wait()
        self._owed = 0  # replies to requests that were given up
        self._closed = ""

    def __repr__(self) -> str:
        return f"<Agent{', closed' if self._closed else ''}>"

    @property
    def closed(self) -> bool:
        """Whether there is nobody to ask any more."""
        return bool(self._closed)

    def close(self) -> None:
        """Close the connection. Repeated calls do nothing."""
        self._close("the connection to the agent is closed")

    def _close(self, why: str) -> None:
        if not self._closed:
            self._closed = why
            self._framer.discard()
            self._stream.close()

    # -------------------------------------------------------------------------------------------------------- questions

    def identities(self) -> Operation[tuple[r.Identity, ...]]:
        """The keys and certificates that it holds and shows here. A locked agent shows none."""
        found: tuple[r.Identity, ...] = yield from self._ask(m.RequestIdentities())
        return found

    def sign(
        self, key: r.Identity | PublicKey | Certificate | bytes, data: bytes, algorithm: str | None = None
    ) -> Operation[bytes]:
        """Have something signed.

        Args:
            key: With which key: of :meth:`identities`, a key, a certificate, or the blob of one.
            data: What to sign.
            algorithm: How: the name of a signature algorithm, or of a certificate's; None takes the key's best.

        Returns:
            The signature blob, ``string name, string body``.

        Raises:
            InvalidArgument: Such a key can't sign so.
        """
        request, name = r.sign_request(key, data, algorithm)
        signature: bytes = yield from self._ask(request)
        r.check_signature(signature, name)
        return signature

    def add(
        self,
        key: PrivateKey,
        certificate: Certificate | None = None,
        *,
        comment: str | None = None,
        lifetime: int | None = None,
        confirm: bool = False,
        destinations: Iterable[DestinationConstraint] = (),
    ) -> Operation[None]:
        """Have a key held.

        Args:
            key: The key.
            certificate: To be used with it; None adds the plain key. Who wants both adds it twice.
            comment: Words for people; the key's or the certificate's own if None.
            lifetime: Seconds after which the agent forgets it.
            confirm: The agent is to ask somebody each time.
            destinations: What it may be used for; none for everything.

        Raises:
            InvalidArgument: This can't be asked for.
        """
        if comment is None:
            comment = key.comment if certificate is None else certificate.comment
        constraints = Constraints(lifetime, confirm, tuple(destinations))
        yield from self._ask(m.AddIdentity(key, certificate, comment, constraints))

    def add_token(self, reader: str, pin: bytes = b"", *, constraints: Constraints | None = None) -> Operation[None]:
        """Have the keys of a token held.

        Args:
            reader: Which token; for OpenSSH's agent the path of a PKCS#11 library.
            pin: What opens it.
            constraints: What its keys may be used for.

        Raises:
            InvalidArgument: This can't be asked for.
        """
        return self._ask(m.AddSmartcardKey(reader, pin, constraints or Constraints()))

    def remove(self, key: r.Identity | PublicKey | Certificate | bytes) -> Operation[None]:
        """Have a key, or a certificate, forgotten."""
        yield from self._ask(m.RemoveIdentity(key if isinstance(key, bytes) else key.blob))

    def remove_all(self) -> Operation[None]:
        """Have all keys forgotten."""
        yield from self._ask(m.RemoveAllIdentities())

    def remove_token(self, reader: str, pin: bytes = b"") -> Operation[None]:
        """Have the keys of a token forgotten; see :meth:`add_token`."""
        return self._ask(m.RemoveSmartcardKey(reader, pin))

    def lock(self, passphrase: bytes) -> Operation[None]:
        """Have it do nothing until it is unlocked."""
        return self._ask(m.Lock(passphrase))

    def unlock(self, passphrase: bytes) -> Operation[None]:
        """Unlock it."""
        return self._ask(m.Unlock(passphrase))

    def extension(self, name: str, contents: bytes = b"") -> Operation[bytes]:
        """Ask what only some agents know.

        Args:
            name: Of the extension.
            contents: The rest, whose form depends on that.

        Returns:
            What it says; ``b""`` mostly.

        Raises:
            ExtensionUnsupported: It does not know the extension.
        """
        said: bytes = yield from self._ask(m.Extension(name, contents))
        return said

    def query(self) -> Operation[tuple[str, ...]]:
        """The names of the extensions that it knows, as far as it tells.

        Raises:
            ExtensionUnsupported: It does not tell.
        """
        return r.parse_query((yield from self.extension(m.QUERY)))

    def bind(
        self, host_key: bytes, session_id: bytes, signature: bytes, *, forwarding: bool = False
    ) -> Operation[None]:
        """Bind this connection to an SSH connection, so that keys with destination constraints can be used for that.

        Args:
            host_key: The blob of the server's key, or of its certificate, as it was shown in the first key exchange.
            session_id: The hash of that exchange.
            signature: The server's, over it.
            forwarding: What comes from now on comes from that server, to which the agent is forwarded.

        Raises:
            ExtensionUnsupported: The agent knows no destination constraints.
        """
        bind = m.SessionBind(host_key, session_id, signature, forwarding)
        yield from self.extension(m.SESSION_BIND, bind.encode())

    # ----------------------------------------------------------------------------------------------------- the exchange

    def _ask(self, request: m.Request) -> Operation[Any]:
        # Who gives it a secret is no generator: a frame keeps what it was called with.
        return _without_frames(self._exchange(request))

    def _exchange(self, request: m.Request) -> Operation[Any]:
        message = frame(request.encode())
        ticket = object()
        self._queue.append(ticket)
        try:
            while self._queue[0] is not ticket:
                yield self._turn
            while self._owed:
                yield from self._reply()
            if self._framer.waiting:  # or it would be taken for the reply to what is sent now
                self._close("the agent has said something that nobody has asked for")
                raise AgentMessageError(self._closed)
            yield from self._send(message)
            reply = yield from self._reply()
        finally:
            self._queue.remove(ticket)
            self._turn.fire()
        try:
            return r.parse_reply(reply, request)
        except AgentMessageError as error:
            self._close(str(error))
            raise

    def _check(self) -> None:
        if self._closed:
            raise AgentUnavailable(self._closed)

    def _send(self, message: bytes) -> Operation[None]:
        self._check()
        try:
            yield from self._stream.send(message)
        except OSError as error:
            raise self._gone(error) from error
        except BaseException:  # nobody knows how much of it was sent
            self._close("a request to the agent was given up while it was sent")
            raise
        self._owed += 1

    def _reply(self) -> Operation[bytes]:
        """The next reply. Who is cancelled here leaves it to be read by the next one."""
        while True:
            self._check()
            try:
                reply = self._framer.next()
                if reply is not None:
                    self._owed -= 1
                    return reply
                data = yield from self._stream.receive(_PIECE)
                if not data:
                    self._framer.end()
                    self._close("the agent has closed the connection")
                self._framer.feed(data)
            except OSError as error:
                raise self._gone(error) from error
            except AgentMessageError as error:
                self._close(str(error))
                raise

    def _gone(self, error: OSError) -> AgentUnavailable:
        self._close(f"the connection to the agent has failed: {error.strerror or error}")
        return AgentUnavailable(self._closed)


# ---------------------------------------------------------------------------------------------------------- the agent's


class AgentService:
    """An agent: serves a keyring to all who come.

    Args:
        keyring: What it holds.
        clock: The time in seconds since 1970, which should not go back.
        confirm: Asks somebody whether a key that needs it may be used: takes a
            :class:`~sshproto.agent.ConfirmNeeded` and returns True or False. May be asynchronous where functions may
            be, or an operation. Without it such keys are refused.
        on_event: Called with what is signed and what is refused; to look only.
        max_connections: So many at once; more are closed as they come.

    Attributes:
        keyring: What it holds.
        changed: Fires after each request.
    """

    def __init__(
        self,
        keyring: Keyring,
        clock: Callable[[], float],
        *,
        confirm: Callable[[ConfirmNeeded], Any] | None = None,
        on_event: Callable[[AgentEvent], object] | None = None,
        max_connections: int = MAXIMUM_CONNECTIONS,
    ) -> None:
        self.keyring = keyring
        self.changed = Wait()
        self._clock = clock
        self._confirm = confirm
        self._on_event = on_event
        self._max_connections = max_connections
        self._connections = 0

    def __repr__(self) -> str:
        return f"<AgentService, {self._connections} connections to {self.keyring!r}>"

    def listen(self, listener: Listener) -> Operation[None]:
        """Serve who comes, until the listener is closed, and forget keys when their time is over."""
        over = False

        def accept() -> Operation[None]:
            nonlocal over
            yield from take_all(listener, self.serve)
            over = True
            self.changed.fire()

        def forget() -> Operation[None]:
            while not over:
                deadline = self.keyring.next_deadline()
                if deadline is None:
                    yield self.changed
                else:
                    yield Sleep(min(_LONGEST, max(0.0, deadline - self._clock())), self.changed)
                self.keyring.expire(self._clock())

        yield Together(accept(), forget())

    def serve(self, stream: ByteStream) -> Operation[None]:
        """Serve one connection to its end.

        Raises:
            OSError: The stream has failed.
        """
        try:
            if self._connections < self._max_connections:
                self._connections += 1
                try:
                    yield from self._serve(stream, AgentServer(self.keyring, self._clock()))
                finally:
                    self._connections -= 1
        finally:
            stream.close()

    def _serve(self, stream: ByteStream, server: AgentServer) -> Operation[None]:
        while True:
            while (event := server.next_event()) is not None:
                if self._on_event is not None:
                    self._on_event(event)
                if isinstance(event, ConfirmNeeded):
                    allowed = (yield from call(self._confirm, event)) if self._confirm is not None else False
                    server.confirm(event, allowed is True, self._clock())
            self.changed.fire()
            if data := server.data_to_send():
                yield from stream.send(data)
            elif server.should_close:
                return
            elif server.want_read:
                data = yield from stream.receive(_PIECE)
                if data:
                    server.receive_data(data, self._clock())
                else:
                    server.receive_eof(self._clock())
            else:
                deadline = server.next_deadline()
                yield Sleep(0.0 if deadline is None else max(0.0, deadline - self._clock()))
                server.handle_timeout(self._clock())
