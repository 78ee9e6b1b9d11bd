"""The legality tables of the code, as the page docs/reference/messages.md shows them.

``python -m tests.support.render`` rewrites the page; a test holds that it is up to date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sshproto.channels import channel as channels
from sshproto.wire import messages, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "messages.md"

CONTEXTS = ("", "dh", "ecdh", "gex", "publickey", "password", "keyboard-interactive")

HEAD = """\
# Which message is legal when

<!-- Written by `python -m tests.support.render` from sshproto/wire/table.py and sshproto/channels/channel.py. -->

Every packet of a live connection is looked up in a table before anything else happens to it. This page is that table,
written out by a program from the one that runs. The default is to refuse: a message is handled only where its row
says so.

How the tables are meant, and why there are two of them, is told in [State](../explanation/state.md).

## Messages of the connection

A row says what the *receiver* of a message does with it: a server on the left, a client on the right.

| letter | what happens |
|---|---|
| h | The message is handled. The machine that takes it may still refuse it by its own finer state. |
| i | It is ignored, and counted: [`Limits.ignored_messages`](limits.md#transport). |
| u | It is answered with UNIMPLEMENTED (RFC 4253 section 11.4). |
| D | The connection ends with a `ProtocolViolation`. |

| column | state |
|---|---|
| K | First key exchange, once both sides have offered the strict one: nothing but the exchange itself. |
| k | First key exchange, not strict, or not yet known to be. |
| T | Keys are in use, no service has been accepted yet. |
| A | User authentication. |
| C | The connection protocol: somebody is logged in. |
| R | A rekeying, from the peer's KEXINIT to its NEWKEYS. It lies over T, A and C. |

Between our own KEXINIT and the peer's there is no column of its own: what the peer sent before it saw ours is still
legal as in T, A or C (RFC 4253 section 7.1).

UNIMPLEMENTED is itself never answered with UNIMPLEMENTED, so two puzzled sides can't keep each other busy.
"""

CHANNELS = """\
## Messages of one channel

The messages 91 to 100 name a channel, and what may come for it depends on where that channel is. This is a second,
finer table; it is the same for clients and servers, and it is asked after the first has said `h`.

| letter | what happens |
|---|---|
| h | The message is handled. |
| i | It is ignored: it was under way when we sent CLOSE. |
| c | The data is thrown away, but still counted against the window that we gave. |
| D | The connection ends with a `ProtocolViolation`. |

| state | meaning |
|---|---|
| FREE | No such channel: there never was, or both sides have closed it. |
| OPENING | We have asked for it, the peer has not answered. |
| ASKED | The peer has asked for it, the application has not answered. |
| OPEN | Both ways are open for all we know of the peer; we may have sent EOF. |
| EOF_IN | The peer has sent EOF; we may still send. |
| CLOSE_OUT | We have sent CLOSE, the peer's is still to come. |

A close by the peer is answered at once, so there is no state for one that is not. Nothing is tolerated for a channel
that is FREE: its number gets free only when both sides have closed it, so no message for it can still be on its way.
"""

COMMANDS = """\
## Commands on one channel

The same states decide what the application may do. Where it may not, the command raises `ChannelStateError`
(`UnknownChannel` if the channel is FREE) and changes nothing.

| letter | what happens |
|---|---|
| y | The command is carried out. |
| s | It is carried out, unless we have sent EOF. |
| n | It raises. |
"""

COMMANDS_TAIL = """\
Two entries deserve a word. `close_channel` on a channel that is OPENING waits for the peer's confirmation and closes it
then, without a `ChannelOpened`. `credit` on a channel that is FREE *because it has closed* does nothing instead of
raising: an application that hands back room for the last bytes it used can't know that the channel has gone meanwhile.
"""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _names(number: int) -> str:
    """All names of a message number."""
    found = [table.message_name(number, context) for context in CONTEXTS if messages.lookup(number, context)]
    return ", ".join(dict.fromkeys(found))


def message_lines() -> Iterator[tuple[str, str, str, str]]:
    """Number or range, name, a server's letters and a client's; neighbours that are alike share a line."""
    lines: list[tuple[int, int, str, str, str]] = []
    for number in range(256):
        server, client = (
            "".join(table.verdict(number, role, state).value for state in table.State)
            for role in (table.Role.SERVER, table.Role.CLIENT)
        )
        name = _names(number)
        if lines and not name and lines[-1][2:] == ("", server, client):
            lines[-1] = (lines[-1][0], number, "", server, client)
        else:
            lines.append((number, number, name, server, client))
    for first, last, name, server, client in lines:
        yield str(first) if first == last else f"{first}–{last}", name or "(unassigned, or not ours)", server, client


def messages_table() -> Iterator[str]:
    """The table of the connection's messages."""
    columns = [state.value for state in table.State]
    rows = ([n, name, *server, "", *client] for n, name, server, client in message_lines())
    yield from _table(["no.", "message", *columns, "", *columns], rows)


def channels_table() -> Iterator[str]:
    """The table of a channel's messages."""
    columns = [state.name for state in channels.ChannelState]
    rows = ([str(row.message.number), _names(row.message.number), *row.letters] for row in channels.CHANNEL_MESSAGES)
    yield from _table(["no.", "message", *columns], rows)


def commands_table() -> Iterator[str]:
    """The table of a channel's commands."""
    calls = {
        channels.Command.SEND: "`send`",
        channels.Command.SEND_EOF: "`send_eof`",
        channels.Command.CLOSE: "`close_channel`",
        channels.Command.REQUEST: "`request`",
    }
    columns = [state.name for state in channels.ChannelState]
    rows = [[calls[name], *letters] for name, letters in channels.COMMANDS.items()]
    # Nothing has to be looked up for it: it goes wherever there is a channel.
    rows.append(["`credit`", *("n" if state is channels.ChannelState.FREE else "y" for state in channels.ChannelState)])
    yield from _table(["command", *columns], rows)


def page() -> str:
    """The whole of docs/reference/messages.md."""
    parts = [HEAD, "\n".join(messages_table())]
    parts += [CHANNELS, "\n".join(channels_table()), COMMANDS, "\n".join(commands_table()), COMMANDS_TAIL]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
