"""Records a connection of ours: every input, every output, and everything else that it depends on.

A :class:`Recorder` is put into a configuration; the connection that is made with it then writes a trace (see
:mod:`sshproto.replay.trace.file`) as it is used, by whatever uses it::

    trace = bytearray()
    config = ClientConfig(user="alice", record=Recorder(trace.extend, Privacy.REPLAY))

What happens is cut into *steps*, numbered from 0, the making of the connection.  A step is one input, command, answer
or output that the application asked for; all records of a step have its number.  It begins with the record of what was
asked (``ssh:bytes_in``, ``ssh:eof_in``, ``ssh:clock``, ``ssh:api_call``), unless that was the next event or the data to
send; then come the random bytes that were drawn, the oracle's answers and the packets, in order; and it ends with the
record of what came out: ``ssh:api_result``, ``ssh:bytes_out``, ``ssh:idle`` or an event.  Where the connection's
deadline is another than before, that record has it.

What changes nothing is not recorded: getters, and asking again for an event or for data when nothing has happened since
there was none.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import attrs

from sshproto.config import Config, ServerConfig, Trace
from sshproto.errors import InvalidArgument, UsageError
from sshproto.events import ConnectionLost, Event, Question
from sshproto.keys.private import PrivateKey
from sshproto.keys.public import PublicKey
from sshproto.replay.trace import values
from sshproto.replay.trace.file import EVENTS, NAMES, Header, Privacy, Record, encode, milliseconds
from sshproto.wire.codec import Buffer
from sshproto.wire.table import Role, message_name

Put = Callable[[Record], object]

_MODULES = frozenset({"sshproto.connection", "sshproto.client", "sshproto.server"})
_GETTERS = frozenset({"next_deadline", "sendable"})
_INPUTS = {"receive_data": "ssh:bytes_in", "receive_eof": "ssh:eof_in", "handle_timeout": "ssh:clock"}
_DATA = (bytes, bytearray, memoryview, type(None))
_CONCEALED = frozenset({50, 61})  # USERAUTH_REQUEST and USERAUTH_INFO_RESPONSE, when they do not decode


def methods(kind: type) -> tuple[str, ...]:
    """The methods of a class of connections that are recorded: all that are public and change something."""
    return tuple(
        sorted(
            name
            for cls in kind.__mro__
            if cls.__module__ in _MODULES
            for name, member in vars(cls).items()
            if inspect.isfunction(member) and not name.startswith("_") and name not in _GETTERS
        )
    )


class SigningKey(PrivateKey):
    """A private key whose signatures pass through an oracle.

    Args:
        public_key: Its public half.
        oracle: See :data:`sshproto.config.Oracle`.
        sign: Makes them.
    """

    __slots__ = ("_oracle", "_signs")

    _oracle: Any
    _signs: Any

    def __init__(self, public_key: PublicKey, oracle: Any, sign: Callable[[Buffer, str | None], bytes]) -> None:
        super().__init__(None, public_key)
        object.__setattr__(self, "_oracle", oracle)
        object.__setattr__(self, "_signs", sign)

    def sign(self, data: Buffer, algorithm: str | None = None) -> bytes:
        """See the base class."""
        signature: bytes = self._oracle("signature", lambda: self._signs(data, algorithm))
        return signature


class Recording:
    """What watches a connection. It gives records; a :class:`Recorder` writes them down.

    Args:
        put: Called with each record.
        privacy: How much to tell.

    Attributes:
        step: The number of the step that is under way, or was last; -1 before the connection is made.
        ended: Whether the connection has ended, and all that it had to send has been taken.
    """

    def __init__(self, put: Put, privacy: Privacy) -> None:
        self.privacy = privacy
        self.step = -1
        self.ended = False
        self._put = put
        self._conn: Any = None
        self._time = 0.0
        self._inside = False
        self._written = False
        self._idle = False
        self._lost = False
        self._deadline: float | None = None
        self._signatures: dict[str, inspect.Signature] = {}
        self._asked: WeakValueDictionary[int, Question] = WeakValueDictionary()
        self._oracle: Any = None

    def __call__(self, conn: Any, make: Any, config: Config, now: float) -> Any:
        """See :data:`sshproto.config.Record`.

        Raises:
            InvalidArgument: There has been a connection already.
        """
        if self._conn is not None:
            raise InvalidArgument("a recorder records one connection; this one has done so")
        self._conn = conn
        self._time = milliseconds(now)
        self.begin(make.role)
        self.step = 0
        self._inside = True
        started = {"role": make.role.value, "now": values.exact(now)}
        if self.privacy.covers(Privacy.METADATA):
            started["config"] = values.config(config, self.privacy)
        self._record("ssh:connection_started", started)
        try:
            engine = make(self._watched_config(config), now)
        except BaseException as error:
            self._close("ssh:api_result", self._failed(error))
            raise
        finally:
            self._inside = False
        for name in methods(conn.__class__):
            method = getattr(conn, name)
            self._signatures[name] = inspect.signature(method)
            setattr(conn, name, self._watched(name, method))
        self._deadline = engine.next_deadline()
        self._record("ssh:api_result", {"deadline": values.exact(self._deadline)})
        return engine

    def begin(self, role: Role) -> None:
        """A connection is about to be made."""

    # ---------------------------------------------------------------------------------------------------------- methods

    def _watched(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        watches: dict[str, Callable[[Any], Any]] = {"next_event": self._next_event, "data_to_send": self._data_to_send}
        watch = watches.get(name)
        if watch is not None:
            return lambda: method() if self._inside else watch(method)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside:  # one answer may give another
                return method(*args, **kwargs)
            return self._call(name, method, args, kwargs)

        return call

    def _call(self, name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            bound = self._signatures[name].bind(*args, **kwargs).arguments
        except TypeError:  # it will say so itself, and change nothing
            return method(*args, **kwargs)
        self._open(idle=False)
        try:
            self._asked_for(name, bound)
            if self.privacy is Privacy.REPLAY:
                bound = {key: self._signing(value) for key, value in bound.items()}
            result = method(**bound)
        except BaseException as error:
            self._close("ssh:api_result", self._failed(error))
            raise
        self._close("ssh:api_result", {} if result is None else {"result": values.exact(result, output=True)})
        return result

    def _asked_for(self, name: str, bound: dict[str, Any]) -> None:
        """The record that opens a step."""
        now, data = bound.get("now"), bound.get("data")
        if name in _INPUTS and isinstance(now, (int, float)) and isinstance(bound.get("data"), _DATA):
            self._time = milliseconds(now)
            given = {} if data is None else {"raw": self._raw(bytes(data))}
            self._record(_INPUTS[name], {"now": values.exact(now), **given})
            return
        given = dict(bound)  # a command, an answer; or an input that will be refused
        if name == "send":
            given["data"] = self._takeable(given)
        told = {key: self._told(key, value) for key, value in given.items()}
        self._record("ssh:api_call", {"call": name, "args": told})

    def _takeable(self, given: dict[str, Any]) -> Any:
        """Of what is to be sent so much as will be taken, and one byte more if that is not all.

        A writer gives what is left, again and again; what has no effect need not be written down each time.
        """
        data: Any = given.get("data")
        try:
            view: memoryview[Any] = memoryview(data)
        except TypeError:
            return data
        try:
            room: int = self._conn.sendable(given.get("channel"))
        except (TypeError, UsageError):  # the command will say what is wrong
            room = 0
        octets = view.cast("B") if view.c_contiguous else memoryview(bytes(view))
        return bytes(octets[: room + 1])

    def _next_event(self, method: Callable[[], Event | None]) -> Event | None:
        self._open(idle=self._idle)
        try:
            event = method()
        except BaseException as error:
            self._close("ssh:api_result", self._failed(error))
            raise
        if event is None:
            if not self._idle or self._written:
                self._close("ssh:idle", {})
            else:
                self._dismiss()
            self._idle = True
            return None
        if isinstance(event, Question):
            self._asked[event.id] = event
        self._lost = self._lost or isinstance(event, ConnectionLost)
        told = values.exact(event, output=True) if self.privacy is Privacy.REPLAY else self._told("", event)
        self._close(NAMES[type(event).__name__], {"event": told})
        return event

    def _data_to_send(self, method: Callable[[], bytes]) -> bytes:
        self._open(idle=self._idle)
        try:
            data = method()
        except BaseException as error:
            self._close("ssh:api_result", self._failed(error))
            raise
        if data or self._written:
            self._idle = False
            self._close("ssh:bytes_out", {"raw": self._raw(data, output=True)})
        else:
            self._dismiss()
        if self._lost and not self._conn.output_size and not self.ended:
            self.ended = True
            self.over()
        return data

    def over(self) -> None:
        """The connection has ended, and all that it had to send has been taken; or a step was made after that."""

    # ------------------------------------------------------------------------------------------------------------ steps

    def _open(self, *, idle: bool) -> None:
        self.step += 1
        self._inside = True
        self._written = False
        self._idle = idle

    def _dismiss(self) -> None:
        """Nothing has happened: it was no step."""
        self.step -= 1
        self._inside = False

    def _close(self, name: str, data: dict[str, Any]) -> None:
        try:
            deadline = self._conn.next_deadline() if self.step else None
            if deadline != self._deadline:
                self._deadline = deadline
                data["deadline"] = values.exact(deadline)
            self._record(name, data)
        finally:
            self._inside = False
            if name not in ("ssh:idle", "ssh:bytes_out"):
                self._idle = False
            if self.ended:
                self.over()

    def _failed(self, error: BaseException) -> dict[str, Any]:
        return {"error": self._told("", error)}

    def _record(self, name: str, data: dict[str, Any]) -> None:
        self._written = True
        if not self.privacy.covers(EVENTS[name].level):
            return
        if self.privacy is not Privacy.REPLAY and name == "ssh:api_result" and "error" not in data:
            return
        self._put(Record(self._time, name, {"step": self.step, **data}))

    # ------------------------------------------------------------------------------------------------------------ told

    def _told(self, name: str, value: Any) -> Any:
        if self.privacy is Privacy.REPLAY:
            return values.exact(value, known=self._known)
        return values.shown(value, self.privacy, name)

    def _known(self, question: Question) -> bool:
        return self._asked.get(question.id) == question

    def _raw(self, data: bytes, *, output: bool = False) -> dict[str, Any]:
        if self.privacy is Privacy.REPLAY:
            return values.raw(data, output=output)
        return {"length": len(data)}

    # ---------------------------------------------------------------------------------------------------- configuration

    def _watched_config(self, config: Config) -> Config:
        """``config`` with functions that tell what they are asked."""

        def entropy(count: int, label: str) -> bytes:
            data = config.entropy(count, label)
            self._record("ssh:entropy", {"label": label, "raw": values.raw(data)})
            return data

        def trace(packet: Trace) -> None:
            self._packet(packet)
            if config.trace is not None:
                config.trace(packet)

        watched: dict[str, Any] = {"entropy": entropy, "oracle": self._watched_oracle(config), "trace": trace}
        self._oracle = watched["oracle"]
        if self.privacy is Privacy.REPLAY and isinstance(config, ServerConfig):
            watched["host_keys"] = tuple(self._signing(key) for key in config.host_keys)
        return attrs.evolve(config, **watched)

    def _watched_oracle(self, config: Config) -> Any:
        def oracle(label: str, compute: Callable[[], bytes]) -> bytes:
            try:
                data = config.oracle(label, compute)
            except Exception as error:
                self._record("ssh:oracle", {"label": label, **self._failed(error)})
                raise
            self._record("ssh:oracle", {"label": label, "raw": values.raw(data)})
            return data

        return oracle

    def _signing(self, value: Any) -> Any:
        """A private key as one whose signatures are recorded; anything else as it is."""
        if isinstance(value, PrivateKey):
            return SigningKey(value.public_key, self._oracle, value.sign)
        return value

    def _packet(self, packet: Trace) -> None:
        name = "ssh:packet_sent" if packet.sent else "ssh:packet_received"
        concealed = getattr(packet.message, "conceal", packet.number in _CONCEALED)
        # Padding hides on the wire how long a password is; a trace that hides the password must do so, too.
        hidden = concealed and self.privacy is not Privacy.REPLAY
        told: dict[str, Any] = {} if hidden else {"raw": {"length": packet.length}}
        if self.privacy.covers(Privacy.METADATA):
            message = packet.message
            kind = message_name(packet.number) if message is None else type(message).__name__
            told |= {"seq": packet.sequence_number, "msg": packet.number, "msg_name": kind}
        if self.privacy is Privacy.REPLAY and packet.sent and packet.message is not None:
            told["sha256"] = hashlib.sha256(packet.message.encode()).hexdigest()
        self._record(name, told)


class Recorder(Recording):
    """Records one connection: give it to the configuration that the connection is made with, as ``record``.

    Args:
        write: Called with each record as it stands in a file, in order. What it raises ends the recording, and
            nothing else.
        privacy: How much to tell. Only what was recorded with ``Privacy.REPLAY`` can be replayed: **it holds the keys
            of the session and its passwords**.
        on_end: Called when the connection has ended and all that it had to send has been taken; and again after each
            step that the application makes all the same.
        title: For the header.

    Attributes:
        problem: What ``write`` raised, or None.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        privacy: Privacy = Privacy.METADATA,
        *,
        on_end: Callable[[], object] | None = None,
        title: str = "",
    ) -> None:
        super().__init__(self._write_record, privacy)
        self.problem: Exception | None = None
        self._write = write
        self._on_end = on_end
        self._title = title

    def begin(self, role: Role) -> None:
        """See the base class."""
        self._write_value(Header(role=role, privacy=self.privacy, title=self._title).as_dict())

    def over(self) -> None:
        """See the base class."""
        if self._on_end is not None:
            try:
                self._on_end()
            except Exception as error:  # noqa: BLE001  the connection must not suffer
                self.problem = self.problem or error

    def _write_record(self, record: Record) -> None:
        self._write_value(record.as_dict())

    def _write_value(self, value: dict[str, Any]) -> None:
        if self.problem is not None:
            return
        try:
            self._write(encode(value))
        except Exception as error:  # noqa: BLE001  the connection must not suffer
            self.problem = error
