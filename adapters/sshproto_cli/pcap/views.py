"""A connection in short, for people and as JSON: what ``sshproto pcap info`` shows of it.

A view is added to a conversation's sinks, and asked when that is over; see :class:`sshproto_io.scanning.View`.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sshproto.replay.events import KeysMissing, Reopened, SecretFound, Side
from sshproto.replay.findings import Severity
from sshproto.replay.rows import connection_row
from sshproto.text import printable
from sshproto.transport.suites import CIPHERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sshproto.replay.analysis import Conversation
    from sshproto.replay.events import Observed
    from sshproto.replay.findings import Finding

_LABEL = 15
_LONGEST = 1024
_SHORT = 160
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class JsonView:
    """A connection as a JSON object on one line."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    def add(self, seen: Observed, /) -> None:
        """The summary has all that is wanted."""

    def row(self) -> dict[str, Any]:
        """Its number, and the object as ``text``."""
        conversation = self._conversation
        text = json.dumps(connection_row(conversation) | {"decrypted": conversation.summary.as_dict()["decrypted"]})
        return {"connection": conversation.connection.number, "text": text}


class RowView:
    """A connection as a row of a table."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    def add(self, seen: Observed, /) -> None:
        """The summary has all that is wanted."""

    def row(self) -> dict[str, Any]:
        """See :func:`sshproto.replay.rows.connection_row`."""
        return connection_row(self._conversation)


class TextView:
    """A connection as a paragraph."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._sources: dict[str, None] = {}
        self._sealed: dict[Side, str] = {}

    def add(self, seen: Observed, /) -> None:
        """Take an event."""
        match seen.event:
            case SecretFound(source=source):
                self._sources[source] = None
            case KeysMissing(problem=problem):
                self._sealed[seen.side] = problem
            case Reopened():
                self._sealed.pop(seen.side, None)
            case _:
                pass

    def row(self) -> dict[str, Any]:
        """Its number, and the paragraph as ``text``: its lines have their end, but for the last."""
        lines = [heading(self._conversation)]
        lines += [f"  {label:{_LABEL}}  {printable(words, _LONGEST)}" for label, words in self._rows() if words]
        return {"connection": self._conversation.connection.number, "text": "\n".join([*lines, ""])}

    def _rows(self) -> Iterator[tuple[str, str]]:
        conversation = self._conversation
        known = conversation.summary.as_dict()
        yield "client", known["client_version"] or "no identification"
        yield "server", known["server_version"] or "no identification"
        yield "time", _times(conversation)
        if known["kex"] is not None:
            strict = "strict" if known["strict_kex"] else "not strict"
            times = f", {known['kex_epochs']} times" if known["kex_epochs"] > 1 else ""
            yield "key exchange", f"{known['kex']}, {strict}{times}"
            yield "host key", f"{known['host_key_alg']}, {known['host_key_sha256'] or 'which was not seen'}"
            yield "cipher", _ways(known, "cipher")
            yield "MAC", _ways({f"mac_{way}": _mac(known, way) for way in ("c2s", "s2c")}, "mac")
            yield "compression", _ways(known, "compression")
        whose = {"hassh": "client", "hassh_server": "server"}
        yield "HASSH", ", ".join(f"{known[key]} of the {who}" for key, who in whose.items() if known[key])
        yield "login", {True: "succeeded", False: "none succeeded", None: "not known"}[known["auth_success"]]
        yield "bytes", _bytes(conversation)
        yield "complete", self._complete()
        yield "opened", self._opened()
        yield "findings", findings_in_short(conversation.findings)

    def _complete(self) -> str:
        summary = self._conversation.summary
        if summary.complete:
            return "yes"
        problems = len(summary.problems) + summary.more_problems
        why = summary.problems[0] if problems else "its beginning or its end is not in the recording"
        return f"no: {why}" + (f", and {count(problems - 1, 'problem')} more" if problems > 1 else "")

    def _opened(self) -> str:
        summary = self._conversation.summary
        how = f"with {' and '.join(_SOURCES[source] for source in self._sources)}"
        if summary.opened:
            return f"yes, {how}"
        why = "; ".join(dict.fromkeys(self._sealed.values()))
        if self._sources:
            return f"in part, {how}" + (f"; {why}" if why else "")
        unfit = [problem for each in self._conversation.observer.kex.rounds.values() for problem in sorted(each.said)]
        return f"no: {unfit[0] if unfit else why or 'no key exchange was seen to its end'}"


_SOURCES = {"shared secret": "the shared secret", "private value": "a private value", "derived keys": "derived keys"}


def heading(conversation: Conversation) -> str:
    """Which connection it is: number, addresses, and who is the client if that is not who dialled."""
    connection = conversation.connection
    turned = " (the client)" if conversation.summary.client is Side.DIALLED else ""
    file = printable(conversation.capture, 4096)
    return f"connection {connection.number}, {connection.dialler} to {connection.dialled}{turned}, in {file}"


def findings_in_short(findings: Iterable[Finding]) -> str:
    """How many there are of each severity, and what the worst is."""
    found = list(findings)
    if not found:
        return "none"
    numbers = counted(Counter(finding.severity for finding in found))
    return f"{numbers}; {found[0].code}: {printable(found[0].words, _SHORT)}"


def counted(numbers: Counter[Severity]) -> str:
    """How many there are of each severity, the worst first; ``""`` if there are none."""
    return ", ".join(f"{numbers[severity]} {severity.value}" for severity in reversed(Severity) if numbers[severity])


def _times(conversation: Conversation) -> str:
    began, ended = conversation.connection.time, conversation.ended
    return f"{moment(began)}, for {max(0, ended - began) / 1e9:,.3f} s"


def moment(time: int) -> str:
    """A time in nanoseconds since 1970, for people."""
    try:
        return f"{_EPOCH + timedelta(microseconds=time // 1000):%Y-%m-%d %H:%M:%S.%f} UTC"
    except OverflowError:  # a capture may have any
        return f"{time / 1e9:.6f} s after 1970"


def _ways(known: dict[str, Any], what: str) -> str:
    out, back = known[f"{what}_c2s"], known[f"{what}_s2c"]
    return f"{out}" if out == back else f"{out} out, {back} back"


def _mac(known: dict[str, Any], way: str) -> str:
    spec = CIPHERS.get(known[f"cipher_{way}"])
    return "by the cipher" if spec is not None and spec.aead else known[f"mac_{way}"]


def _bytes(conversation: Conversation) -> str:
    client = conversation.summary.client
    sides = (Side.DIALLER, Side.DIALLED) if client is None else (client, client.other)
    names = [side.value for side in sides] if client is None else ["client", "server"]
    return ", ".join(
        f"{conversation.bytes[side]:,} in {count(conversation.packets[side], 'frame')} from the {name}"
        for side, name in zip(sides, names, strict=True)
    )


def count(number: int, what: str) -> str:
    """So many of something, with its plural."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
