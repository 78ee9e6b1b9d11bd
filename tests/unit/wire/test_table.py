"""Which message is legal when, against a table written by hand: all numbers, both roles, all states, also live.

The table is the plan's (robustness, section 3.1), copied in its own terms, not made from :mod:`sshproto.wire.table`.
"""

from __future__ import annotations

from typing import Any

import pytest

from sshproto import events as ev
from sshproto.errors import ProtocolViolation
from sshproto.wire import messages as m
from sshproto.wire.table import MESSAGES, VERDICTS, Role, State, Verdict, message_name, verdict
from tests.support.pair import Pair
from tests.support.rogue import IDENT, frame, kexinit, push

# Columns: a server receives K k T A C R, a client receives K k T A C R; R is the plan's R2, from the peer's KEXINIT to
# its NEWKEYS.  The plan's R1, our KEXINIT sent and the peer's not yet seen, reads "as base" throughout, so it has no
# column here, only a live state below.  ok: handle.  D: disconnect.  U: UNIMPLEMENTED.  ign: drop and count.
# "ok" leaves more to the machine: turn, method, first packet, outstanding request (the plan's footnotes 2 to 10).
PLAN = """
0          D   D   D   D   D   D   | D   D   D   D   D   D      nothing
1          ok  ok  ok  ok  ok  ok  | ok  ok  ok  ok  ok  ok     DISCONNECT
2          D   ign ign ign ign ign | D   ign ign ign ign ign    IGNORE
3          D   ign ign ign ign ign | D   ign ign ign ign ign    UNIMPLEMENTED; never answered by U
4          D   ign ign ign ign ign | D   ign ign ign ign ign    DEBUG
5          D   D   ok  ok  D   D   | D   D   D   D   D   D      SERVICE_REQUEST
6          D   D   D   D   D   D   | D   D   ok  D   D   D      SERVICE_ACCEPT
7          D   D   ok  D   D   D   | D   D   ok  ok  ign D      EXT_INFO
8-19       D   U   U   U   U   D   | D   U   U   U   U   D      NEWCOMPRESS and unassigned
20         ok  ok  ok  ok  ok  D   | ok  ok  ok  ok  ok  D      KEXINIT
21         ok  ok  D   D   D   ok  | ok  ok  D   D   D   ok     NEWKEYS, when the method is complete
22-29      D   U   U   U   U   D   | D   U   U   U   U   D      see NOT_IN_THE_PLAN
30-49      ok  ok  D   D   D   ok  | ok  ok  D   D   D   ok     the method's next message
50         D   D   D   ok  ign D   | D   D   D   D   D   D      USERAUTH_REQUEST
51-52      D   D   D   D   D   D   | D   D   D   ok  D   D      USERAUTH_FAILURE, USERAUTH_SUCCESS
53         D   D   D   D   D   D   | D   D   D   ok  ign D      BANNER
54-59      D   D   D   U   U   D   | D   D   D   U   U   D
60         D   D   D   D   D   D   | D   D   D   ok  D   D      PK_OK, PASSWD_CHANGEREQ, INFO_REQUEST
61         D   D   D   ok  ign D   | D   D   D   D   D   D      INFO_RESPONSE
62         D   D   D   U   U   D   | D   D   D   U   U   D
63         D   D   D   ok  ign D   | D   D   D   D   D   D      GSSAPI
64-65      D   D   D   ok  ign D   | D   D   D   ok  D   D      GSSAPI
66         D   D   D   ok  ign D   | D   D   D   D   D   D      GSSAPI
67-79      D   D   D   U   U   D   | D   D   D   U   U   D
80         D   D   D   D   ok  D   | D   D   D   D   ok  D      GLOBAL_REQUEST
81-82      D   D   D   D   ok  D   | D   D   D   D   ok  D      REQUEST_SUCCESS, REQUEST_FAILURE
83-89      D   D   D   D   U   D   | D   D   D   D   U   D
90         D   D   D   D   ok  D   | D   D   D   D   ok  D      CHANNEL_OPEN
91-100     D   D   D   D   ok  D   | D   D   D   D   ok  D      CHANNEL_*, by the plan's section 3.2
101-127    D   D   D   D   U   D   | D   D   D   D   U   D
128-191    D   D   D   D   U   D   | D   D   D   D   U   D
192        D   D   D   D   ok  D   | D   D   D   D   ok  D      PING; U if we did not advertise it
193        D   D   D   D   ok  D   | D   D   D   D   ok  D      PONG
194-255    D   D   D   D   U   D   | D   D   D   D   U   D
"""

NOT_IN_THE_PLAN = range(22, 30)
"""Numbers that the plan's table leaves out. RFC 4250 section 4.1.1 reserves them for algorithm negotiation and none is
assigned, so they are unrecognised messages like 8 to 19 (RFC 4253 section 11.4)."""

LOOKED_AT = (
    "the plan's ign needs a look at the message all the same: one that does not parse is a violation (V27), DEBUG"
    " becomes an event (R50), UNIMPLEMENTED may answer a request of ours (R53); before login every packet"
    " counts (B14), after login these have no cap (B15)"
)
NO_GSSAPI = "the plan's footnote 8 makes it depend on the method of now, and no GSSAPI method is offered or implemented"
Cell = tuple[int, Role, State]
EVERY = (State.FIRST_KEX, State.TRANSPORT, State.AUTH, State.OPEN, State.REKEY)
DIFFERENCES: dict[Cell, tuple[str, str, str]] = {
    **{(number, role, state): ("ign", "h", LOOKED_AT) for number in (2, 3, 4) for role in Role for state in EVERY},
    **{(number, Role.SERVER, State.AUTH): ("ok", "D", NO_GSSAPI) for number in (63, 64, 65, 66)},
    **{(number, Role.CLIENT, State.AUTH): ("ok", "D", NO_GSSAPI) for number in (64, 65)},
}
"""Where sshproto is not what the plan says: what it says, what we do, why."""

LETTERS = {"ok": "h", "D": "D", "U": "u", "ign": "i"}


def planned() -> dict[Cell, str]:
    """The plan as a mapping of cells to the words of the table."""
    cells: dict[Cell, str] = {}
    for line in PLAN.strip().splitlines():
        numbers, *words = line.replace("|", " ").split()
        first, _, last = numbers.partition("-")
        keys = [(role, state) for role in (Role.SERVER, Role.CLIENT) for state in State]
        for number in range(int(first), int(last or first) + 1):
            for (role, state), word in zip(keys, words[:12], strict=True):
                assert (number, role, state) not in cells
                cells[number, role, state] = word
    return cells


PLANNED = planned()
EXPECTED = {
    cell: Verdict(DIFFERENCES[cell][1] if cell in DIFFERENCES else LETTERS[word]) for cell, word in PLANNED.items()
}


def test_the_states_and_their_letters() -> None:
    assert [state.value for state in State] == ["K", "k", "T", "A", "C", "R"]
    assert {member.value for member in Verdict} == {"h", "i", "u", "D"}
    assert (Role.CLIENT.peer, Role.SERVER.peer) == (Role.SERVER, Role.CLIENT)


def test_the_plan_has_a_word_for_every_cell() -> None:
    assert len(PLANNED) == 256 * 2 * 6
    assert {PLANNED[number, role, state] for number in NOT_IN_THE_PLAN for role in Role for state in State} == {
        "D",
        "U",
    }


@pytest.mark.covers("R162", "V01", "V04", "V05", "V06", "V07", "V13")
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("state", State)
def test_every_number_is_judged_as_planned(role: Role, state: State) -> None:
    found = {number: verdict(number, role, state) for number in range(256)}
    assert found == {number: EXPECTED[number, role, state] for number in range(256)}
    assert VERDICTS[role][state] == tuple(found.values())


def test_the_differences_are_real() -> None:
    for cell, (plan, ours, reason) in DIFFERENCES.items():
        assert PLANNED[cell] == plan
        assert verdict(*cell).value == ours != LETTERS[plan]
        assert reason


def test_the_rows_follow_one_another_without_a_gap() -> None:
    assert [row.first for row in MESSAGES] == [0] + [row.last + 1 for row in MESSAGES[:-1]]
    assert MESSAGES[-1].last == 255
    assert {len(letters) for row in MESSAGES for letters in (row.server, row.client)} == {len(State)}


@pytest.mark.parametrize("cls", m.ALL, ids=lambda cls: cls.__name__)
def test_every_message_that_may_be_handled_has_a_class_and_the_other_way_round(cls: type[m.Message]) -> None:
    handled = {state for role in Role for state in State if verdict(cls.number, role, state) is Verdict.HANDLE}
    assert bool(handled) == (cls is not m.NewCompress)


# -------------------------------------------------------------------------------------------------------- on a live one


def until(pair: Pair, role: Role, kind: type[ev.Event]) -> Any:
    """Run the pair; stop at once when ``role`` sees an event of ``kind``. Its connection."""
    for _ in range(100):
        for end, peer in ((pair.client, pair.server), (pair.server, pair.client)):
            while (event := end.conn.next_event()) is not None:
                if isinstance(event, kind) and end.name == role.value:
                    return end.conn
                if isinstance(event, ev.Question) and end.answer is not None:
                    end.answer(end.conn, event)
            peer.conn.receive_data(end.conn.data_to_send(), 0.0)
    raise AssertionError(f"no {kind.__name__} at the {role.value}")


def live(role: Role, where: str) -> Any:
    """A connection in the state ``where``; R1 is OPEN with our KEXINIT sent."""
    pair = Pair.make()
    conn = (pair.client if role is Role.CLIENT else pair.server).conn
    peer = (pair.server if role is Role.CLIENT else pair.client).conn
    if where in {"k", "K"}:
        push(conn, IDENT)
        if where == "k":
            push(conn, frame(m.Ignore(b"").encode()))  # what is dispatched below was opened, as the engine sees it
        if where == "K":
            marker = "kex-strict-c-v00@openssh.com" if role is Role.SERVER else "kex-strict-s-v00@openssh.com"
            push(conn, frame(kexinit(kex_algorithms=("curve25519-sha256", marker))))
        return conn
    if where == "T":
        return until(pair, role, ev.KeysExchanged)
    if where == "A":
        return until(pair, role, ev.CredentialNeeded if role is Role.CLIENT else ev.AuthQuestion)
    pair.login()
    if where == "R1":
        conn.rekey()
    elif where == "R":
        peer.rekey()
        assert not push(conn, peer.data_to_send())
    return conn


def dispatch(engine: Any, payload: bytes) -> None:
    """What the pump does with a packet that it has opened."""
    handler = engine._handlers[payload[0]]
    if handler is None:
        engine._not_handled(payload[0])
    else:
        handler(engine, payload)


@pytest.mark.covers("R162")
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("where", ["K", "k", "T", "A", "C", "R", "R1"])
def test_a_live_connection_does_what_the_table_says(role: Role, where: str) -> None:
    """Each number is put before a connection that came into the state by itself."""
    engine = live(role, where)._engine
    state = State("C" if where == "R1" else where)
    sent: list[m.Message] = []
    handled: list[int] = []
    engine._not_implemented = lambda: sent.append(m.Unimplemented(engine._sequence_number()))

    def take(engine: Any, payload: bytes) -> None:
        handled.append(payload[0])

    engine._handlers = tuple(None if handler is None else take for handler in engine._handlers)
    for number in range(256):
        ignored, before = engine._quota._ignored, (len(sent), len(handled))
        expected = EXPECTED[number, role, state]
        payload = bytes((number, 0xFF, 0xFF))
        if expected is Verdict.DISCONNECT:
            with pytest.raises(ProtocolViolation, match=rf" \({number}\) came, which is not allowed ") as caught:
                dispatch(engine, payload)
            assert caught.value.code == 2
        else:
            dispatch(engine, payload)
        grown = (len(sent) - before[0], len(handled) - before[1], engine._quota._ignored - ignored)
        assert (
            grown
            == {
                Verdict.DISCONNECT: (0, 0, 0),
                Verdict.UNIMPLEMENTED: (1, 0, 0),
                Verdict.HANDLE: (0, 1, 0),
                Verdict.IGNORE: (0, 0, 1),
            }[expected]
        ), number
    last = (engine.opener.sequence_number - 1) & 0xFFFFFFFF
    assert set(sent) <= {m.Unimplemented(last)}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("K", "during a strict first key exchange"),
        ("k", "before the first key exchange is complete"),
        ("T", "before a service is accepted"),
        ("A", "from a {peer} before login"),
        ("C", "from a {peer} after login"),
        ("R", "between KEXINIT and NEWKEYS"),
    ],
)
def test_the_error_says_when(role: Role, where: str, words: str) -> None:
    with pytest.raises(ProtocolViolation, match=rf"message 0 \(0\) came, .*{words.format(peer=role.peer.value)}"):
        dispatch(live(role, where)._engine, b"\0")


# ---------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("number", "context", "name"),
    [
        (1, "", "DISCONNECT"),
        (21, "", "NEWKEYS"),
        (30, "", "key-exchange method message 30"),
        (30, "ecdh", "KEX_ECDH_INIT"),
        (30, "dh", "KEXDH_INIT"),
        (35, "gex", "key-exchange method message 35"),
        (49, "", "key-exchange method message 49"),
        (50, "", "USERAUTH_REQUEST"),
        (59, "", "message 59"),
        (60, "", "authentication method message 60"),
        (60, "publickey", "USERAUTH_PK_OK"),
        (79, "", "authentication method message 79"),
        (94, "", "CHANNEL_DATA"),
        (101, "", "message 101"),
        (192, "", "PING"),
        (0, "", "message 0"),
        (255, "", "message 255"),
    ],
)
def test_names_for_people(number: int, context: str, name: str) -> None:
    assert message_name(number, context) == name


def test_every_number_has_a_name() -> None:
    assert all(message_name(number) for number in range(256))
