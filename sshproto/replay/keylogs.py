"""Key logs, looked at line by line: what is in them, what is wrong with them, which connections they open.

What a line opens shows only in captures: :class:`Uses` sits beside an analysis and notes which cookies came, and what
was opened by what.  With that the private values of a key log become shared secrets, which open the same connections
and nothing else, whoever reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum

import attrs

from sshproto.replay.analysis import Conversation
from sshproto.replay.events import KexSeen, KeysMissing, Observed, OfferSeen, Reopened, SecretFound, Side
from sshproto.replay.methods import ObservedMethod
from sshproto.replay.secrets import (
    PRIVATE,
    PRIVATE_KEY,
    SHARED,
    SHARED_SECRET,
    KeyLogError,
    KeyLogLine,
    Secrets,
    parse_key_log,
    plain_text,
)
from sshproto.values import define, frozen
from sshproto.wire.messages import Message

LINES = 1 << 20
"""So many lines are looked at."""


@frozen
class Line:
    """A line of a key-log file.

    Attributes:
        number: Its number, from 1.
        entry: What it says; None if it is empty, a comment, or wrong.
        text: The line itself, if it is a comment.
        problem: What is wrong with it, or ``""``.
        old: It has two fields, as the first versions had it.
    """

    number: int
    entry: KeyLogLine | None = None
    text: str = attrs.field(default="", repr=False)
    problem: str = ""
    old: bool = False


def read(text: str | bytes) -> Iterator[Line]:
    """The lines of a key log, wrong ones too; none of the empty ones.

    Args:
        text: The file.
    """
    for number, line in enumerate(plain_text(text).splitlines()[:LINES], 1):
        if not line.strip():
            continue
        try:
            entries = list(parse_key_log(line))
        except KeyLogError as error:
            yield Line(number, problem=f"{error}".partition(": ")[2])
            continue
        if entries:
            yield Line(number, entries[0], old=len(line.split()) == 2)
        else:
            yield Line(number, text=line.strip())


@frozen(kw_only=True)
class Contents:
    """What is in a key log.

    Attributes:
        counts: How many lines of each kind: ``SHARED_SECRET``, ``PRIVATE_KEY``, ``comment``.
        old: How many have two fields.
        wrong: Those that are none, with the reason.
        repeated: Those that say again what an earlier one says: the line, and the earlier one.
        disagreeing: Those that say something else of a cookie than an earlier one of the same kind: both.
        empty: Those whose value is no value.
    """

    counts: dict[str, int]
    old: int
    wrong: tuple[Line, ...]
    repeated: tuple[tuple[Line, Line], ...]
    disagreeing: tuple[tuple[Line, Line], ...]
    empty: tuple[Line, ...]


def contents(lines: Iterable[Line]) -> Contents:
    """What is in a key log."""
    counts = {SHARED_SECRET: 0, PRIVATE_KEY: 0, "comment": 0}
    old = 0
    wrong: list[Line] = []
    empty: list[Line] = []
    repeated: list[tuple[Line, Line]] = []
    disagreeing: list[tuple[Line, Line]] = []
    known: dict[tuple[bytes, str], list[Line]] = {}
    for line in lines:
        entry = line.entry
        if entry is None:
            if line.problem:
                wrong.append(line)
            else:
                counts["comment"] += 1
            continue
        counts[entry.kind] += 1
        old += line.old
        if not any(entry.value):
            empty.append(line)
        before = known.setdefault((entry.cookie, entry.kind), [])
        same = next((each for each in before if each.entry == entry), None)
        if same is not None:
            repeated.append((line, same))
            continue
        if before:
            disagreeing.append((line, before[0]))
        before.append(line)
    return Contents(
        counts=counts,
        old=old,
        wrong=tuple(wrong),
        repeated=tuple(repeated),
        disagreeing=tuple(disagreeing),
        empty=tuple(empty),
    )


# ------------------------------------------------------------------------------------------------------- in captures


@define(eq=False)
class Exchange:
    """A key exchange that was seen.

    Attributes:
        epoch: How many there were before.
        cookies: Of its KEXINITs, by who sent them.
        complete: Its public part is there.
        source: What opened it, or ``""``.
        verified: The server's signature shows that what opened it is right.
    """

    epoch: int
    cookies: dict[Side, bytes] = attrs.Factory(dict[Side, bytes])
    complete: bool = False
    source: str = ""
    verified: bool = False


class Use:
    """A sink: the key exchanges of one connection, and what has opened them.

    Attributes:
        capture: The name of the capture that it begins in.
        number: Its number there.
        dialler, dialled: Its ends.
        exchanges: Its key exchanges, in order; those that come after what could not be opened don't show.
        sealed: Who has sent something that could not be opened.
    """

    def __init__(self, conversation: Conversation) -> None:
        connection = conversation.connection
        self.capture = conversation.capture
        self.number = connection.number
        self.dialler, self.dialled = f"{connection.dialler}", f"{connection.dialled}"
        self.exchanges: list[Exchange] = []
        self.sealed: set[Side] = set()

    def add(self, seen: Observed, /) -> None:
        """Take one of the observer's events, in their order."""
        match seen.event:
            case OfferSeen(kexinit=kexinit, epoch=epoch):
                self._exchange(epoch).cookies[seen.side] = kexinit.cookie
            case KexSeen(epoch=epoch, host_key_blob=host_key):
                self._exchange(epoch).complete = bool(host_key)  # else it is only told what was offered
            case SecretFound(epoch=epoch, source=source, verified=verified):
                found = self._exchange(epoch)
                found.source, found.verified = source, verified
            case KeysMissing():
                self.sealed.add(seen.side)
            case Reopened():
                self.sealed.discard(seen.side)
            case _:
                pass

    def _exchange(self, epoch: int) -> Exchange:
        found = next((each for each in reversed(self.exchanges) if each.epoch == epoch), None)
        if found is None:
            found = Exchange(epoch)
            self.exchanges.append(found)
        return found

    @property
    def opened(self) -> int:
        """How many of its key exchanges were opened."""
        return sum(bool(each.source) for each in self.exchanges)

    @property
    def whole(self) -> bool:
        """Whether all of it was opened."""
        return bool(self.opened) and not self.sealed


class Fit(Enum):
    """What a line of a key log is good for; the best first."""

    OPENS = "opens"
    SPARE = "spare"
    """Its key exchange was opened by something else."""
    WRONG = "wrong"
    """Its key exchange came, and it does not open it."""
    UNTRIED = "untried"
    """Its key exchange came, but not all of it."""
    UNSEEN = "unseen"
    """Its cookie did not come."""


class Watched(Secrets):
    """Secrets that remember what was tried.

    Attributes:
        tried: Of each pair of cookies, what the shared secret may be, and what it was found by.
        problems: Why private values lead to nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tried: dict[frozenset[bytes], list[tuple[str, bytes]]] = {}
        self.problems: dict[frozenset[bytes], str] = {}

    def add_key_log(self, text: str | bytes) -> int:
        """Key logs that stand in captures are passed over: what is known is what was given."""
        return 0

    def candidates(
        self,
        client_cookie: bytes,
        server_cookie: bytes,
        method: ObservedMethod,
        transcript: Sequence[Message],
        problem: Callable[[str], None] | None = None,
    ) -> Iterator[tuple[str, bytes]]:
        """See the base class."""
        cookies = frozenset((client_cookie, server_cookie))

        def note(words: str) -> None:
            self.problems[cookies] = words
            if problem is not None:
                problem(words)

        for each in super().candidates(client_cookie, server_cookie, method, transcript, note):
            self.tried.setdefault(cookies, []).append(each)
            yield each


class Uses:
    """What key logs open, in captures.

    Give :attr:`secrets` to an analysis and :meth:`begin` as its ``ask``.

    Attributes:
        secrets: What the analysis opens connections with.
        all: The connections that were seen.
    """

    def __init__(self) -> None:
        self.secrets = Watched()
        self.all: list[Use] = []

    def begin(self, conversation: Conversation) -> None:
        """A connection has begun."""
        use = Use(conversation)
        self.all.append(use)
        conversation.sinks.append(use)

    def _shared(self, exchange: Exchange) -> bytes | None:
        """The shared secret that has opened an exchange, if it is known which it was."""
        tried = self.secrets.tried.get(frozenset(exchange.cookies.values()), [])
        if not exchange.source or not tried:
            return None
        if exchange.verified:
            return tried[-1][1]  # nothing is tried after it
        values = {value for source, value in tried if source == exchange.source}
        return values.pop() if len(values) == 1 else None

    def _exchanges(self, cookie: bytes) -> list[Exchange]:
        return [each for use in self.all for each in use.exchanges if cookie in each.cookies.values()]

    def fit(self, line: KeyLogLine) -> Fit:
        """What a line is good for."""
        exchanges = self._exchanges(line.cookie)
        if not exchanges:
            return Fit.UNSEEN
        found = {self._fit(line, exchange) for exchange in exchanges}
        return next(fit for fit in Fit if fit in found)

    def _fit(self, line: KeyLogLine, exchange: Exchange) -> Fit:
        mine = SHARED if line.kind == SHARED_SECRET else PRIVATE
        if not exchange.complete:
            return Fit.UNTRIED
        if exchange.source and exchange.source != mine:
            return Fit.SPARE  # of this kind nothing had to be tried
        if not exchange.source:
            return Fit.WRONG
        right = self._shared(exchange)
        if mine == SHARED and right is not None and right.lstrip(b"\0") != line.value.lstrip(b"\0"):
            return Fit.WRONG
        return Fit.OPENS

    def why(self, line: KeyLogLine) -> str:
        """Why a private value leads to nothing; ``""`` if nobody knows."""
        cookies = [frozenset(each.cookies.values()) for each in self._exchanges(line.cookie)]
        return next(filter(None, (self.secrets.problems.get(each, "") for each in cookies)), "")

    def shared(self, line: KeyLogLine) -> KeyLogLine | None:
        """A private value as the shared secret that it leads to; None if no capture shows it."""
        for exchange in self._exchanges(line.cookie):
            secret = self._shared(exchange)
            if secret is not None:
                return KeyLogLine(line.cookie, SHARED_SECRET, secret)
        return None
