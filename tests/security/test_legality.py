"""Every message number in every state of every role: what comes of it, on a connection that came into the state itself.

The tables below are written by hand, from the RFCs: what they forbid ends the connection, what they leave open is
refused, what they want ignored leaves no trace, and what nobody has defined is answered UNIMPLEMENTED.  They are not
made from :mod:`sshproto.wire.table`, and say more: not only whether a machine takes a message, but what it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sshproto import events as ev
from sshproto.channels.requests import Keepalive, KeepaliveChannel, Session, UnknownOpen
from sshproto.config import Limits
from sshproto.errors import LimitExceeded, UnknownChannel
from sshproto.transport.kex.groups import GROUP14
from sshproto.wire import messages as m
from sshproto.wire.table import Role
from tests.support.puppet import (
    CHANNEL,
    PEER_CHANNEL,
    SHARE,
    STATES,
    WINDOW,
    Puppet,
    bring,
    request,
)
from tests.support.rogue import loss
from tests.support.seeds import USER_KEY

# What comes of a message.  D: DISCONNECT with code 2, and another code where one is given.  U: UNIMPLEMENTED with the
# packet's sequence number.  A dot: nothing at all.  bye: the peer has ended the connection, nothing is sent.  Numbers:
# messages of those numbers are sent.  Names: those events, without ConnectionLost.  A star: the state says.
#
# The columns are K: first key exchange, strict; k: first key exchange, not strict; T: keys, no service yet; A: login;
# C: connection; R: rekey, from the peer's KEXINIT to its NEWKEYS.
SERVER = """
            K     k     T     A     C                 R
0           D     D     D     D     D                 D
1           bye   bye   bye   bye   bye               bye
2           D     .     .     .     .                 .
3           D     UnimplementedReceived  *  *  *      *
4           D     DebugReceived          *  *  *      *
5           D     D     6     6     D                 D
6           D     D     D     D     D                 D
7           D     D     *     D     D                 D
8-19        D     U     U     U     U                 D
20          *     *     20    20    *                 D
21          *     *     D     D     D                 *
22-29       D     U     U     U     U                 D
30-49       *     *     D     D     D                 *
50          D     D     D     *     .                 D
51-53       D     D     D     D     D                 D
54-59       D     D     D     U     U                 D
60          D     D     D     D     D                 D
61          D     D     D     *     .                 D
62          D     D     D     U     U                 D
63-66       D     D     D     D     .                 D
67-79       D     D     D     U     U                 D
80          D     D     D     D     GlobalRequested   D
81-82       D     D     D     D     .                 D
83-89       D     D     D     D     U                 D
90          D     D     D     D     ChannelOpenRequested  D
91-100      D     D     D     D     *                 D
101-191     D     D     D     D     U                 D
192         D     D     D     D     *                 D
193         D     D     D     D     PongReceived      D
194-255     D     D     D     D     U                 D
"""
CLIENT = """
            K     k     T     A     C                 R
0           D     D     D     D     D                 D
1           bye   bye   bye   bye   bye               bye
2           D     .     .     .     .                 .
3           D     UnimplementedReceived  *  *  *      *
4           D     DebugReceived          *  *  *      *
5           D     D     D     D     D                 D
6           D     D     CredentialNeeded  D  D        D
7           D     D     *     ExtInfoReceived  .      D
8-19        D     U     U     U     U                 D
20          *     *     20/30 20/30 *                 D
21          *     *     D     D     D                 *
22-29       D     U     U     U     U                 D
30-49       *     *     D     D     D                 *
50          D     D     D     D     D                 D
51-52       D     D     D     *     D                 D
53          D     D     D     BannerReceived  .       D
54-59       D     D     D     U     U                 D
60          D     D     D     *     D                 D
61          D     D     D     D     D                 D
62          D     D     D     U     U                 D
63-66       D     D     D     D     D                 D
67-79       D     D     D     U     U                 D
80          D     D     D     D     GlobalRequested   D
81-82       D     D     D     D     .                 D
83-89       D     D     D     D     U                 D
90          D     D     D     D     *                 D
91-100      D     D     D     D     *                 D
101-191     D     D     D     D     U                 D
192         D     D     D     D     *                 D
193         D     D     D     D     PongReceived      D
194-255     D     D     D     D     U                 D
"""

HEARD = {3: "UnimplementedReceived", 4: "DebugReceived"}
"""Messages that every state but a strict first key exchange takes: RFC 4253 section 11 allows them at any time."""
NOTHING = dict.fromkeys(range(256), ".")

# The states of tests/support/puppet.py: the column, and what the stars stand for.
METHOD = dict.fromkeys(range(30, 50), "D")
ONE_DROPPED = dict.fromkeys(range(30, 50), ".")  # RFC 4253 section 7.1: what follows a wrong guess, whatever it is
NO_CHANNEL = dict.fromkeys(range(91, 101), "D")
ON_CHANNEL = {91: "D", 92: "D", 93: ".", 96: "EofReceived", 99: ".", 100: "."}
SERVED = {94: "DataReceived", 95: ".", 97: "97/ChannelClosed", 98: "ChannelRequested"} | ON_CHANNEL
USED = {94: "DataReceived", 95: "DataReceived", 97: "97/ChannelClosed", 98: "ChannelNotified"} | ON_CHANNEL
FAILED = {51: "AuthFailed/CredentialNeeded"}

Stars = dict[int, str]
SERVER_STATES: dict[str, tuple[str, Stars]] = {
    "K0": ("k", {20: ".", 21: "D", **METHOD}),
    "K1": ("K", {20: "D", 21: "D", **METHOD, 30: "31/21"}),
    "k1": ("k", {20: "D", 21: "D", **METHOD, 30: "31/21"}),
    "K1x": ("K", {20: "D", 21: "D", **ONE_DROPPED}),
    "k1x": ("k", {20: "D", 21: "D", **ONE_DROPPED}),
    "Kg1": ("K", {20: "D", 21: "D", **METHOD, 34: "31"}),
    "Kg2": ("K", {20: "D", 21: "D", **METHOD, 32: "33/21"}),
    "kg1": ("k", {20: "D", 21: "D", **METHOD, 34: "31"}),
    "K2": ("K", {20: "D", 21: "KeysExchanged", **METHOD}),
    "k2": ("k", {20: "D", 21: "KeysExchanged", **METHOD}),
    "T": ("T", {7: "ExtInfoReceived"}),
    "t": ("T", {7: "ExtInfoReceived"}),
    "T2": ("T", {7: "D"}),
    "A": ("A", {50: "NoneAuth", 61: "D"}),
    "Akbd": ("A", {50: "NoneAuth", 61: "PromptsAnswered"}),
    "Alate": ("A", {50: "NoneAuth", 61: "."}),
    "C0": ("C", {20: "20", **NO_CHANNEL, 192: "193"}),
    "C-": ("C", {20: "20", **NO_CHANNEL, 192: "U"}),  # nobody told the client that we answer
    "C": ("C", {20: "20", **SERVED, 192: "193"}),
    # Our own KEXINIT is out: what is no part of the exchange has to wait, and the peer's KEXINIT is the answer.
    "CR1": ("C", {20: ".", **SERVED, 97: "ChannelClosed", 192: "."}),
    "TR2": ("R", {21: "D", **METHOD, 30: "31/21"}),
    "AR2": ("R", {21: "D", **METHOD, 30: "31/21"}),
    "CR2": ("R", {21: "D", **METHOD, 30: "31/21"}),
    "CR12": ("R", {21: "D", **METHOD, 30: "31/21"}),
    "CR3": ("R", {21: "KeysExchanged", **METHOD}),
}
CLIENT_STATES: dict[str, tuple[str, Stars]] = {
    "K0": ("k", {20: "30", 21: "D", **METHOD}),
    "K1": ("K", {20: "D", 21: "D", **METHOD, 31: "HostKeyOffered"}),
    "k1": ("k", {20: "D", 21: "D", **METHOD, 31: "HostKeyOffered"}),
    "K1x": ("K", {20: "D", 21: "D", **ONE_DROPPED}),
    "k1x": ("k", {20: "D", 21: "D", **ONE_DROPPED}),
    "Kg1": ("K", {20: "D", 21: "D", **METHOD, 31: "32"}),
    "Kg2": ("K", {20: "D", 21: "D", **METHOD, 33: "D3"}),  # taken, but its signature is none
    "kg1": ("k", {20: "D", 21: "D", **METHOD, 31: "32"}),
    "K2": ("K", {20: "D", 21: "5/KeysExchanged", **METHOD}),
    "k2": ("k", {20: "D", 21: "5/KeysExchanged", **METHOD}),
    "T": ("T", {7: "ExtInfoReceived"}),
    "t": ("T", {7: "ExtInfoReceived"}),
    "T2": ("T", {7: "D"}),
    # The application's turn: nothing is asked of the server.
    "A": ("A", {51: "D", 52: "D", 60: "D"}),
    "Anone": ("A", {**FAILED, 52: "AuthSucceeded", 60: "D"}),
    "Apassword": ("A", {**FAILED, 52: "AuthSucceeded", 60: "PasswordExpired"}),
    "Aquery": ("A", {**FAILED, 52: "D", 60: "50"}),
    "Asigned": ("A", {**FAILED, 52: "AuthSucceeded", 60: "D"}),
    "Akbd": ("A", {**FAILED, 52: "AuthSucceeded", 60: "PromptsReceived"}),
    "Akbd?": ("A", {51: "D", 52: "D", 60: "D"}),
    "Akbd!": ("A", {**FAILED, 52: "AuthSucceeded", 60: "PromptsReceived"}),
    "C0": ("C", {20: "20/30", **NO_CHANNEL, 90: "92", 192: "193"}),
    "C-": ("C", {20: "20/30", **NO_CHANNEL, 90: "92", 192: "U"}),
    "C": ("C", {20: "20/30", **USED, 90: "92", 192: "193"}),
    "CR1": ("C", {20: "30", **USED, 90: ".", 97: "ChannelClosed", 192: "."}),
    "TR2": ("R", {21: "D", **METHOD, 31: "31"}),
    "AR2": ("R", {21: "D", **METHOD, 31: "31"}),
    "CR2": ("R", {21: "D", **METHOD, 31: "31"}),
    "CR12": ("R", {21: "D", **METHOD, 31: "31"}),
    "CR3": ("R", {21: "KeysExchanged", **METHOD}),
}
for _name in ("TR2", "AR2", "CR2", "CR12"):
    CLIENT_STATES[_name][1][31] = "21"  # the host key is known already: nobody is asked
PLACES = {
    Role.SERVER: {"I": ("I", {}), **SERVER_STATES, "A?": ("held", {}), "END": ("held", {})},
    Role.CLIENT: {"I": ("I", {}), **CLIENT_STATES, "K?": ("held", {}), "END": ("held", {})},
}


def columns(text: str) -> dict[str, dict[int, str]]:
    """A table as mappings: the letter of a column to what comes of each number."""
    head, *rows = text.strip().splitlines()
    found: dict[str, dict[int, str]] = {letter: {} for letter in head.split()}
    for row in rows:
        numbers, *cells = row.split()
        first, _, last = numbers.partition("-")
        for number in range(int(first), int(last or first) + 1):
            for letter, cell in zip(found, cells, strict=True):
                assert number not in found[letter]
                found[letter][number] = HEARD.get(number, "") if cell == "*" and number in HEARD else cell
    found["I"] = dict.fromkeys(range(256), "D")  # a packet has NULs in it, and an identification has none
    found["held"] = NOTHING
    return found


COLUMNS = {Role.SERVER: columns(SERVER), Role.CLIENT: columns(CLIENT)}


def expected(role: Role, state: str) -> dict[int, str]:
    """What comes of each number in a state."""
    letter, stars = PLACES[role][state]
    column = COLUMNS[role][letter]
    assert {number for number, cell in column.items() if cell == "*"} == set(stars)
    return column | stars


PAYLOADS: dict[int, m.Message | bytes] = {
    1: m.Disconnect(11, "bye"),
    2: m.Ignore(b"x"),
    3: m.Unimplemented(0xFFFFFFF0),
    4: m.Debug(False, "x"),
    5: m.ServiceRequest("ssh-userauth"),
    6: m.ServiceAccept("ssh-userauth"),
    7: m.ExtInfo((("x@example.org", b""),)),
    21: m.NewKeys(),
    30: m.KexEcdhInit(SHARE),
    31: m.KexEcdhReply(b"", SHARE, b""),
    32: m.KexDhGexInit(GROUP14.prime // 3),
    33: m.KexDhGexReply(b"", GROUP14.prime // 3, b""),
    34: m.KexDhGexRequest(2048, 2048, 8192),
    50: request("none"),
    51: m.UserauthFailure(("password",), False),
    52: m.UserauthSuccess(),
    53: m.UserauthBanner("x"),
    60: m.UserauthPkOk("ssh-ed25519", USER_KEY.public_key.blob),
    61: m.UserauthInfoResponse(("xyzzy",)),
    80: m.GlobalRequest("x@example.org", True),
    81: m.RequestSuccess(),
    82: m.RequestFailure(),
    90: m.ChannelOpen("session", 77, 1000, 32768),
    91: m.ChannelOpenConfirmation(CHANNEL, 77, 1000, 32768),
    92: m.ChannelOpenFailure(CHANNEL, 1, "no"),
    93: m.ChannelWindowAdjust(CHANNEL, 5),
    94: m.ChannelData(CHANNEL, b"data"),
    95: m.ChannelExtendedData(CHANNEL, 1, b"data"),
    96: m.ChannelEof(CHANNEL),
    97: m.ChannelClose(CHANNEL),
    98: m.ChannelRequest(CHANNEL, "exec", True, b"\0\0\0\2id"),
    99: m.ChannelSuccess(CHANNEL),
    100: m.ChannelFailure(CHANNEL),
    192: m.Ping(b"x"),
    193: m.Pong(b"x"),
}
"""A message of each number that has one, without a fault of its own."""

OTHER_PAYLOADS: dict[tuple[Role, str, int], m.Message | Callable[[Puppet], m.Message]] = {
    (Role.CLIENT, "K1", 31): Puppet.reply,
    (Role.CLIENT, "k1", 31): Puppet.reply,
    (Role.CLIENT, "TR2", 31): Puppet.reply,
    (Role.CLIENT, "AR2", 31): Puppet.reply,
    (Role.CLIENT, "CR2", 31): Puppet.reply,
    (Role.CLIENT, "CR12", 31): Puppet.reply,
    (Role.CLIENT, "Kg1", 31): m.KexDhGexGroup(GROUP14.prime, 2),
    (Role.CLIENT, "kg1", 31): m.KexDhGexGroup(GROUP14.prime, 2),
    (Role.CLIENT, "Apassword", 60): m.UserauthPasswdChangereq("new"),
    (Role.CLIENT, "Akbd", 60): m.UserauthInfoRequest("", "", "", ()),
    (Role.CLIENT, "Akbd!", 60): m.UserauthInfoRequest("", "", "", ()),
    **{
        (Role.CLIENT, state, 98): m.ChannelRequest(CHANNEL, "exit-status", False, b"\0\0\0\1") for state in ("C", "CR1")
    },
}
"""Numbers that mean something else there."""


def payload(puppet: Puppet, state: str, number: int) -> m.Message | bytes:
    """What to send to see what comes of ``number``."""
    if number == 20:
        return puppet.kexinit(first=puppet.conn.session_id is None)
    found = OTHER_PAYLOADS.get((puppet.role, state, number), PAYLOADS.get(number, bytes((number,)) + b"xyz"))
    return found(puppet) if callable(found) else found


LARGELY_ANSWERED = {20, 30, 31, 32, 34, 60}
"""Key exchanges, which are bounded in number (Limits.peer_rekeys), and PK_OK, to which we sign what we asked about."""

CASES = [(role, state) for role in Role for state in PLACES[role]]


def test_the_tables_speak_of_all_numbers_and_of_all_states() -> None:
    same = {"K+", "k+", "K-", "K2-", "T-", "A-", "Kd1"}  # as others are
    for role in Role:
        assert set(PLACES[role]) == set(STATES[role]) - same
        assert all(set(column) == set(range(256)) for column in COLUMNS[role].values())


@pytest.mark.covers(
    "R162", "R51", "R54", "R66", "R128", "R156", "V04", "V05", "V06", "V07", "P1", "P7", "P15", "P17", "B7"
)
@pytest.mark.parametrize(("role", "state"), CASES, ids=[f"{role.value}-{state}" for role, state in CASES])
def test_every_number(role: Role, state: str) -> None:
    """All 256 numbers, each put before a connection of its own. No answer is much larger than what it answers."""
    wanted = expected(role, state)
    found = {}
    for number in range(256):
        puppet = bring(role, state)
        written, read = puppet.written, puppet.read
        found[number] = puppet.outcome(payload(puppet, state, number))
        if not puppet.conn.should_close and number not in LARGELY_ANSWERED:
            assert puppet.read - read <= puppet.written - written + 64, number
    assert {number: (cell, wanted[number]) for number, cell in found.items() if cell != wanted[number]} == {}


@pytest.mark.covers("R52")
def test_a_copy_is_another_connection() -> None:
    """The states are copied: one that was used must leave no trace in the next."""
    for role in Role:
        first, second = bring(role, "C"), bring(role, "C")
        before = second.conn._engine.opener.sequence_number
        assert [type(event) for event in first.say(m.ChannelData(CHANNEL, b"x"), b"\0")][-1] is ev.ConnectionLost
        assert (second.conn.channels, second.conn._engine.opener.sequence_number) == ((CHANNEL,), before)
        assert second.conn.error is None
        assert [type(event) for event in second.say(m.ChannelData(CHANNEL, b"x"))] == [ev.DataReceived]
        assert bring(role, "C").conn.error is None


@pytest.mark.covers("R51", "R52", "V02")
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("state", "numbers"), [("k1", (8, 22, 19)), ("A", (54, 79, 8)), ("C", (83, 105, 255))])
def test_unknown_messages_in_a_row(role: Role, state: str, numbers: tuple[int, ...]) -> None:
    """Each is answered by its sequence number, in order, in one feed, and what comes between them counts as well."""
    puppet = bring(role, state)
    first = puppet.sequence
    events = puppet.say(*(payload for number in numbers for payload in (bytes((number,)), m.Ignore(b""))))
    assert not events
    wanted = [m.Unimplemented(first + 2 * index).encode() for index in range(len(numbers))]
    assert puppet.heard() == wanted


@pytest.mark.covers("R125")
@pytest.mark.parametrize("role", Role)
def test_marks_in_a_later_kexinit_mean_nothing(role: Role) -> None:
    """Strict or not is settled by the first exchange: IGNORE stays legal after it, and EXT_INFO is not sent again."""
    puppet = bring(role, "C")
    puppet.say(puppet.kexinit(), m.Ignore(b""))
    puppet.exchange()
    puppet.new_keys()
    assert puppet.conn.error is None
    assert not puppet.heard()
    puppet = bring(role, "t")  # a first exchange that was not strict
    before = puppet.sequence
    puppet.say(puppet.kexinit())
    puppet.exchange()
    puppet.new_keys()
    puppet.sequence = before + 3  # KEXINIT, the method's message, NEWKEYS: the count goes on
    puppet.say(bytes((8,)))
    assert puppet.heard()[-1] == m.Unimplemented(before + 3).encode()


# ------------------------------------------------------------------------------------------------- ignored, but counted

IGNORED = [(Role.SERVER, "C", number) for number in (50, 61, 63, 64, 65, 66)] + [
    (Role.CLIENT, "C", number) for number in (7, 53)
]


@pytest.mark.covers("V17", "V68", "R63", "P12")
@pytest.mark.parametrize(("role", "state", "number"), IGNORED)
def test_what_is_ignored_is_counted(role: Role, state: str, number: int) -> None:
    """What belongs to a login that is over is ignored, for a while (RFC 4252 sections 5.1 and 5.4)."""
    puppet = bring(role, state)
    most = Limits().ignored_messages
    assert not puppet.say(*[PAYLOADS.get(number, bytes((number,)))] * most)
    assert not puppet.heard()
    error = loss(puppet.say(PAYLOADS.get(number, bytes((number,)))))
    assert isinstance(error, LimitExceeded)
    assert (error.limit, error.code) == ("ignored_messages", 2)


@pytest.mark.covers("V17", "B29", "P17")
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("number", [81, 82, 99, 100])
def test_replies_that_nobody_asked_for(role: Role, number: int) -> None:
    puppet = bring(role, "C")
    most = Limits().unsolicited_replies
    assert not puppet.say(*[PAYLOADS[number]] * most)
    assert not puppet.heard()
    error = loss(puppet.say(PAYLOADS[number]))
    assert isinstance(error, LimitExceeded)
    assert (error.limit, error.code) == ("unsolicited_replies", 2)


@pytest.mark.covers("V17")
@pytest.mark.parametrize("role", Role)
def test_a_stray_reply_answers_nothing_that_is_asked_later(role: Role) -> None:
    puppet = bring(role, "C")
    puppet.say(m.RequestSuccess(), m.ChannelSuccess(CHANNEL))
    number = puppet.conn.global_request(Keepalive())
    request_number = puppet.conn.request(CHANNEL, KeepaliveChannel())
    assert not puppet.pump()
    assert puppet.say(m.RequestFailure()) == [ev.GlobalFailed(number)]
    assert puppet.say(m.ChannelFailure(CHANNEL)) == [ev.RequestFailed(CHANNEL, request_number)]


@pytest.mark.covers("V60", "R60")
def test_answers_to_abandoned_prompts_are_counted() -> None:
    puppet = bring(Role.SERVER, "Alate")
    assert not puppet.say(*[PAYLOADS[61]] * 4)
    assert not puppet.heard()
    assert loss(puppet.say(PAYLOADS[61])).code == 2


@pytest.mark.covers("R126", "B21", "V25")
def test_a_client_takes_two_extension_messages() -> None:
    puppet = bring(Role.CLIENT, "T")
    puppet.say(PAYLOADS[7])
    puppet.say(m.ServiceAccept("ssh-userauth"))
    assert [type(event) for event in puppet.say(PAYLOADS[7])] == [ev.ExtInfoReceived]
    assert loss(puppet.say(PAYLOADS[7])).code == 2


# ---------------------------------------------------------------------------------------------------------- one channel

CHANNEL_TABLE = """
            never   freed   opening asked   open    eof     closing
91          D       D       opened  D       D       D       D
92          D       D       failed  D       D       D       D
93          D       D       D       D       taken   taken   .
94          D       D       D       D       data    D       .
95          D       D       D       D       data    D       .
96          D       D       D       D       eof     D       .
97          D       D       D       D       97      97      gone
98          D       D       D       D       asked   asked   .
99          D       D       D       D       reply   reply   .
100         D       D       D       D       reply   reply   .
"""
"""RFC 4254 section 5, for one number of ours.

never: there was no such channel; freed: both sides have closed it; opening: we have asked for it; asked: the peer
has, and the application thinks; open; eof: the peer has sent EOF; closing: we have sent CLOSE and wait for
the peer's.  There is no state in which the peer has sent CLOSE and we have not: it is answered at once, and the number
is free.
"""
CHANNEL_STATES = CHANNEL_TABLE.split("\n")[1].split()


def channel_in(role: Role, state: str) -> tuple[Puppet, int]:
    """A connection with a channel in ``state``, and its number."""
    if state in {"opening", "asked"}:
        puppet = bring(role, "C0")
        if state == "opening":
            number = puppet.conn.open_channel(UnknownOpen("x@example.org"), window=WINDOW)
        else:
            puppet.say(m.ChannelOpen("x@example.org", PEER_CHANNEL, WINDOW, 32768))
            number = puppet.asked(ev.ChannelOpenRequested).channel
        puppet.heard()
        return puppet, number
    puppet = bring(role, "C")
    if state == "never":
        return puppet, CHANNEL + 1
    if state == "eof":
        puppet.say(m.ChannelEof(CHANNEL))
    elif state == "freed":
        puppet.say(m.ChannelClose(CHANNEL))
    elif state == "closing":
        puppet.conn.close_channel(CHANNEL)
    elif state == "open":
        puppet.conn.request(CHANNEL, KeepaliveChannel())  # so that there is something to reply to
    if state == "eof":
        puppet.conn.request(CHANNEL, KeepaliveChannel())
    puppet.heard()
    return puppet, CHANNEL


def channel_message(number: int, channel: int) -> m.Message:
    return {
        91: m.ChannelOpenConfirmation(channel, 77, 1000, 32768),
        92: m.ChannelOpenFailure(channel, 1, "no"),
        93: m.ChannelWindowAdjust(channel, 5),
        94: m.ChannelData(channel, b"data"),
        95: m.ChannelExtendedData(channel, 1, b"data"),
        96: m.ChannelEof(channel),
        97: m.ChannelClose(channel),
        98: m.ChannelRequest(channel, "x@example.org", True),
        99: m.ChannelSuccess(channel),
        100: m.ChannelFailure(channel),
    }[number]


CHANNEL_CASES = [
    (number, state, cell)
    for number, *cells in (row.split() for row in CHANNEL_TABLE.strip().splitlines()[1:])
    for state, cell in zip(CHANNEL_STATES, cells, strict=True)
]


@pytest.mark.covers("R162", "R94", "R95", "V16", "V17", "P13")
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("number", "state", "cell"), CHANNEL_CASES)
def test_every_channel_message_in_every_state(role: Role, number: str, state: str, cell: str) -> None:
    puppet, channel = channel_in(role, state)
    before = puppet.conn.sendable(channel) if cell == "taken" else None
    found = puppet.outcome(channel_message(int(number), channel))
    if cell == "data" and number == "95" and role is Role.SERVER:
        assert found == "."  # a session's standard error goes the other way; its room is given back
        return
    assert (
        found
        == {
            "D": "D",
            ".": ".",
            "taken": ".",
            "opened": "ChannelOpened",
            "failed": "ChannelOpenFailed",
            "data": "DataReceived",
            "eof": "EofReceived",
            "97": "97/ChannelClosed",
            "gone": "ChannelClosed",
            "asked": "ChannelRequested",
            "reply": "RequestSucceeded" if number == "99" else "RequestFailed",
        }[cell]
    )
    if cell == "taken":
        assert puppet.conn.sendable(channel) == (before or 0) + 5
    if cell in {"failed", "97", "gone"}:
        assert channel not in puppet.conn.channels
        with pytest.raises(UnknownChannel):
            puppet.conn.send(channel, b"x")
    if state == "closing" and cell == ".":
        assert channel in puppet.conn.channels


@pytest.mark.covers("V16", "V31", "V35")
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("cls", [m.ChannelData, m.ChannelExtendedData])
def test_data_for_a_closing_channel_still_uses_its_window(role: Role, cls: Any) -> None:
    """What was under way when we closed is thrown away, but no more than the peer was allowed to send."""
    puppet, channel = channel_in(role, "closing")
    extra = () if cls is m.ChannelData else (1,)
    assert not puppet.say(cls(channel, *extra, bytes(WINDOW)))
    assert loss(puppet.say(cls(channel, *extra, b"x"))).code == 2


@pytest.mark.covers("V16", "R95")
@pytest.mark.parametrize("role", Role)
def test_two_channels_of_the_peer_with_one_number(role: Role) -> None:
    puppet = bring(role, "C")
    if role is Role.SERVER:
        assert puppet.outcome(m.ChannelOpen("session", PEER_CHANNEL, WINDOW, 32768)) == "D"
        return
    number = puppet.conn.open_channel(Session())
    puppet.heard()
    assert puppet.outcome(m.ChannelOpenConfirmation(number, PEER_CHANNEL, WINDOW, 32768)) == "D"


@pytest.mark.covers("R95")
@pytest.mark.parametrize("role", Role)
def test_a_number_of_the_peer_is_free_after_both_closes_and_ours_is_new(role: Role) -> None:
    puppet, _ = channel_in(role, "freed")
    events = puppet.say(m.ChannelOpen("x@example.org", PEER_CHANNEL, WINDOW, 32768))
    assert [type(event) for event in events] == [ev.ChannelOpenRequested]
    assert puppet.asked(ev.ChannelOpenRequested).channel != CHANNEL


@pytest.mark.covers("R94", "R98")
@pytest.mark.parametrize("role", Role)
def test_what_needs_no_window(role: Role) -> None:
    """Neither side may send a byte of data: requests, their replies, EOF and CLOSE pass all the same, both ways."""
    puppet = bring(role, "C0")
    number = puppet.conn.open_channel(UnknownOpen("x@example.org"), window=0)
    puppet.say(m.ChannelOpenConfirmation(number, PEER_CHANNEL, 0, 32768))
    puppet.heard()
    assert puppet.conn.sendable(number) == 0
    assert puppet.outcome(m.ChannelRequest(number, "x@example.org", True)) == "ChannelRequested"
    assert puppet.outcome_of(lambda: puppet.conn.succeed(puppet.asked(ev.ChannelRequested))) == "99"
    assert puppet.outcome_of(lambda: puppet.conn.request(number, KeepaliveChannel())) == "98"
    assert puppet.outcome(m.ChannelSuccess(number)) == "RequestSucceeded"
    assert puppet.outcome_of(lambda: puppet.conn.send_eof(number)) == "96"
    assert puppet.outcome(m.ChannelEof(number)) == "EofReceived"
    assert puppet.outcome(m.ChannelClose(number)) == "97/ChannelClosed"


# --------------------------------------------------------------------------------------------------------- key exchange


@pytest.mark.covers("R35", "R36", "R18")
def test_what_is_ignored_in_a_kexinit_is_hashed() -> None:
    """Languages and the reserved number change nothing but the exchange hash, of the whole message as it came."""
    puppet = bring(Role.CLIENT, "K0")
    puppet.say(puppet.kexinit(reserved=0xFFFFFFFF, languages_client_to_server=("x", "tlh"), cookie=bytes(range(16))))
    puppet.heard()
    assert puppet.outcome(puppet.reply()) == "HostKeyOffered"


@pytest.mark.covers("R43")
@pytest.mark.parametrize("role", Role)
def test_the_roles_stay_whoever_starts(role: Role) -> None:
    """A server that starts a group exchange waits for the client's request all the same; and a client makes it."""
    puppet = bring(role, "CR1")
    names = ("diffie-hellman-group-exchange-sha256",)
    if role is Role.SERVER:
        assert puppet.outcome(puppet.kexinit(first=False, kex_algorithms=names)) == "."
        assert puppet.outcome(m.KexDhGexRequest(2048, 2048, 8192)) == "31"
    else:
        assert puppet.outcome(puppet.kexinit(first=False, kex_algorithms=names)) == "34"
        assert puppet.outcome(m.KexDhGexGroup(GROUP14.prime, 2)) == "32"


@pytest.mark.covers("R39")
@pytest.mark.parametrize("role", Role)
def test_new_keys_of_each_direction_come_by_themselves(role: Role) -> None:
    """After our NEWKEYS the peer goes on under its old keys for as long as it likes, with no more than before."""
    puppet = bring(role, "CR3")
    assert not puppet.conn._engine.outbox.held
    for _ in range(10):
        assert puppet.outcome(m.Ignore(b"x")) == "."
    assert puppet.conn.send(CHANNEL, b"x") == 1
    assert [payload[0] for payload in puppet.heard()] == [94]
    assert puppet.outcome(m.NewKeys()) == "KeysExchanged"


@pytest.mark.covers("R148", "R33", "R34", "P20")
@pytest.mark.parametrize("role", Role)
def test_pings_are_answered_in_order(role: Role) -> None:
    """At once, and those that came while we exchange keys after our NEWKEYS."""
    puppet = bring(role, "C")
    puppet.say(*[m.Ping(bytes((index,))) for index in range(5)])
    assert puppet.heard() == [m.Pong(bytes((index,))).encode() for index in range(5)]
    puppet.conn.rekey()
    puppet.heard()
    puppet.say(*[m.Ping(bytes((index,))) for index in range(5)])
    puppet.say(puppet.kexinit(first=False))
    assert 193 not in [payload[0] for payload in puppet.heard()]
    released: list[m.Message] = []
    puppet.conn._engine.outbox.sealed = released.append
    puppet.exchange()
    pongs = [m.Pong(bytes((index,))) for index in range(5)]
    assert released[-6:] == [m.NewKeys(), *pongs]
