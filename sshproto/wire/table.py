"""Which message is legal when: the one place that says so.

Every packet of a live connection is looked up here before anything else happens to it.  The default is to refuse;
a message is handled only in the states that its row names.  Rows hold what a *receiver* does, one letter a state:

=====  ==========================================================================================
``h``  handle: a machine takes it, and may still refuse it by its own finer state
``i``  ignore, but count it (:attr:`Limits.ignored_messages <sshproto.config.Limits>`)
``u``  answer SSH_MSG_UNIMPLEMENTED (RFC 4253 section 11.4)
``D``  disconnect: a protocol error
=====  ==========================================================================================

The states, in the order of a row's letters:

=====  ==========================================================================================
``K``  first key exchange, strict (OpenSSH PROTOCOL section 1.9): nothing but the exchange itself
``k``  first key exchange, not strict, or not yet known to be
``T``  keys in use, no service accepted yet
``A``  user authentication
``C``  connection protocol
``R``  rekeying, from the peer's KEXINIT to its NEWKEYS; lies over T, A and C
=====  ==========================================================================================

Between our own KEXINIT and the peer's, what the peer sent before it saw ours is still legal as in T, A or C (RFC 4253
section 7.1), so that stretch has no column.  Channel messages have a finer table, in :mod:`sshproto.channels.channel`.
"""

from __future__ import annotations

from enum import Enum

from sshproto.values import frozen
from sshproto.wire import messages


class Role(Enum):
    """A side of a connection."""

    __hash__ = object.__hash__  # a member equals only itself; Enum's own is written in Python

    CLIENT = "client"
    SERVER = "server"

    @property
    def peer(self) -> Role:
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


class Verdict(Enum):
    """What the receiver of a message does with it."""

    HANDLE = "h"
    IGNORE = "i"
    UNIMPLEMENTED = "u"
    DISCONNECT = "D"


class State(Enum):
    """The columns of the table."""

    __hash__ = object.__hash__  # see Role

    FIRST_KEX_STRICT = "K"
    FIRST_KEX = "k"
    TRANSPORT = "T"
    AUTH = "A"
    OPEN = "C"
    REKEY = "R"


@frozen
class Row:
    """What a server and a client do with the messages ``first`` to ``last`` in the states K, k, T, A, C and R."""

    first: int
    last: int
    server: str
    client: str


MESSAGES: tuple[Row, ...] = (
    #              server    client       K k T A C R
    Row(0, 0, "DDDDDD", "DDDDDD"),
    Row(1, 1, "hhhhhh", "hhhhhh"),  # DISCONNECT
    Row(2, 4, "Dhhhhh", "Dhhhhh"),  # IGNORE, UNIMPLEMENTED, DEBUG
    Row(5, 5, "DDhhDD", "DDDDDD"),  # SERVICE_REQUEST
    Row(6, 6, "DDDDDD", "DDhDDD"),  # SERVICE_ACCEPT
    Row(7, 7, "DDhDDD", "DDhhiD"),  # EXT_INFO
    Row(8, 19, "DuuuuD", "DuuuuD"),  # NEWCOMPRESS, which needs an extension that we do not offer; unassigned
    Row(20, 20, "hhhhhD", "hhhhhD"),  # KEXINIT
    Row(21, 21, "hhDDDh", "hhDDDh"),  # NEWKEYS
    Row(22, 29, "DuuuuD", "DuuuuD"),  # unassigned
    Row(30, 49, "hhDDDh", "hhDDDh"),  # the key-exchange method's own
    Row(50, 50, "DDDhiD", "DDDDDD"),  # USERAUTH_REQUEST; after success ignored (RFC 4252 section 5.1)
    Row(51, 52, "DDDDDD", "DDDhDD"),  # USERAUTH_FAILURE, USERAUTH_SUCCESS
    Row(53, 53, "DDDDDD", "DDDhiD"),  # USERAUTH_BANNER
    Row(54, 59, "DDDuuD", "DDDuuD"),
    Row(60, 60, "DDDDDD", "DDDhDD"),  # the authentication method's own
    Row(61, 61, "DDDhiD", "DDDDDD"),
    Row(62, 62, "DDDuuD", "DDDuuD"),
    Row(63, 66, "DDDDiD", "DDDDDD"),  # GSSAPI methods, which we do not offer
    Row(67, 79, "DDDuuD", "DDDuuD"),
    Row(80, 82, "DDDDhD", "DDDDhD"),  # GLOBAL_REQUEST, REQUEST_SUCCESS, REQUEST_FAILURE
    Row(83, 89, "DDDDuD", "DDDDuD"),
    Row(90, 100, "DDDDhD", "DDDDhD"),  # CHANNEL_*
    Row(101, 191, "DDDDuD", "DDDDuD"),
    Row(192, 193, "DDDDhD", "DDDDhD"),  # PING, PONG
    Row(194, 255, "DDDDuD", "DDDDuD"),
)


def _column(role: Role, state: State) -> tuple[Verdict, ...]:
    index = list(State).index(state)
    verdicts: list[Verdict] = []
    for row in MESSAGES:
        letter = (row.server if role is Role.SERVER else row.client)[index]
        verdicts.extend([Verdict(letter)] * (row.last - row.first + 1))
    return tuple(verdicts)


VERDICTS: dict[Role, dict[State, tuple[Verdict, ...]]] = {
    role: {state: _column(role, state) for state in State} for role in Role
}
"""``VERDICTS[receiver][state][number]``: the table as it is looked up."""


def verdict(number: int, receiver: Role, state: State) -> Verdict:
    """What ``receiver`` does with message ``number`` in ``state``."""
    return VERDICTS[receiver][state][number]


_RANGE_NAMES: tuple[tuple[int, int, str], ...] = (
    (30, 49, "key-exchange method message"),
    (60, 79, "authentication method message"),
)


def message_name(number: int, context: str = "") -> str:
    """The name of a message number for people: the standard's where there is one.

    Args:
        number: 0 to 255.
        context: See :func:`sshproto.wire.messages.lookup`.
    """
    cls = messages.lookup(number, context)
    if cls is not None:
        return (cls.__doc__ or cls.__name__).split(" ", 1)[0].removeprefix("SSH2_MSG_").removeprefix("SSH_MSG_")
    for first, last, name in _RANGE_NAMES:
        if first <= number <= last:
            return f"{name} {number}"
    return f"message {number}"


def name_of(message: messages.Message) -> str:
    """The name of a message for people."""
    return message_name(message.number, message.context)
