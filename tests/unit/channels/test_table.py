"""Every message in every state of a channel, against a table written by hand from RFC 4254."""

from __future__ import annotations

from typing import Any

import pytest

from sshproto.channels.channel import CHANNEL_MESSAGES, COMMANDS, Channel, ChannelState, Command, allowing
from sshproto.channels.requests import Session
from sshproto.errors import InvalidArgument, ProtocolViolation, UnknownChannel
from sshproto.wire import messages as m

#           unknown  opening asked  open  eof    closed by us
EXPECTED = {
    "91": ["drop!", "ok", "drop!", "drop!", "drop!", "drop!"],
    "92": ["drop!", "ok", "drop!", "drop!", "drop!", "drop!"],
    "93": ["drop!", "drop!", "drop!", "ok", "ok", "ignore"],
    "94": ["drop!", "drop!", "drop!", "ok", "drop!", "ignore"],
    "95": ["drop!", "drop!", "drop!", "ok", "drop!", "ignore"],
    "96": ["drop!", "drop!", "drop!", "ok", "drop!", "ignore"],
    "97": ["drop!", "drop!", "drop!", "ok", "ok", "ok"],
    "98": ["drop!", "drop!", "drop!", "ok", "ok", "ignore"],
    "99": ["drop!", "drop!", "drop!", "ok", "ok", "ignore"],
    "100": ["drop!", "drop!", "drop!", "ok", "ok", "ignore"],
}
STATES = ["unknown", "opening", "asked", "open", "eof", "closed by us"]


def message(number: int, recipient: int) -> m.Message:
    return {
        91: m.ChannelOpenConfirmation(recipient, 77, 1000, 1000),
        92: m.ChannelOpenFailure(recipient, 1, "no"),
        93: m.ChannelWindowAdjust(recipient, 5),
        94: m.ChannelData(recipient, b"data"),
        95: m.ChannelExtendedData(recipient, 1, b"data"),
        96: m.ChannelEof(recipient),
        97: m.ChannelClose(recipient),
        98: m.ChannelRequest(recipient, "exit-status", False, b"\0\0\0\1"),
        99: m.ChannelSuccess(recipient),
        100: m.ChannelFailure(recipient),
    }[number]


def prepared(pair: Any, state: str) -> tuple[Any, int]:
    """A side whose channel is in ``state``, and its number."""
    side = pair.client
    if state == "unknown":
        return side, 0
    if state == "asked":
        pair.server.feed(m.ChannelOpen("session", 0, 1000, 1000))
        pair.server.told()
        return pair.server, 0
    if state == "opening":
        number = side.mux.open_channel(Session())
    else:
        number, _ = pair.open()
        if state == "eof":
            side.feed(m.ChannelEof(number))
        elif state == "closed by us":
            side.mux.close_channel(number)
    side.take()
    side.told()
    return side, number


@pytest.mark.covers("V16", "V17", "R162")
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("number", sorted(map(int, EXPECTED)))
def test_message_in_state(make_pair: Any, number: int, state: str) -> None:
    side, channel = prepared(make_pair(), state)
    expected = EXPECTED[str(number)][STATES.index(state)]
    before = side.state()
    if expected == "drop!":
        with pytest.raises(ProtocolViolation, match=f"channel {channel}"):
            side.feed(message(number, channel))
        assert side.state() == before
        return
    side.feed(message(number, channel))
    if expected == "ignore":
        assert not side.take()
        assert not side.told()
        if number not in (94, 95):  # which use up the window
            assert side.state() == before
    else:
        assert side.state() != before or side.told()


@pytest.mark.covers("V16", "P13")
@pytest.mark.parametrize("number", [91, 92, 97])
def test_a_second_one_is_one_too_many(make_pair: Any, number: int) -> None:
    side, channel = prepared(make_pair(), "opening" if number != 97 else "open")
    side.feed(message(number, channel))
    with pytest.raises(ProtocolViolation):
        side.feed(message(number, channel))


def test_the_table_is_complete() -> None:
    assert [row.message.number for row in CHANNEL_MESSAGES] == sorted(map(int, EXPECTED))
    assert {len(row.letters) for row in CHANNEL_MESSAGES} == {len(ChannelState)}
    assert set(COMMANDS) == set(Command)
    assert {len(letters) for letters in COMMANDS.values()} == {len(ChannelState)}


@pytest.mark.parametrize("state", STATES)
def test_credit_needs_no_row(make_pair: Any, state: str) -> None:
    """The page says that it goes wherever there is a channel."""
    side, number = prepared(make_pair(), state)
    if state == "unknown":
        with pytest.raises(UnknownChannel):
            side.mux.credit(number, 0)
        return
    side.mux.credit(number, 0)
    with pytest.raises(InvalidArgument):
        side.mux.credit(number, 1)


@pytest.mark.parametrize("state", list(ChannelState))
def test_what_the_hot_path_looks_at_agrees_with_the_tables(state: ChannelState) -> None:
    channel = Channel(0, Session(), ours=True)
    channel.move(state)
    assert channel.sending == (state in allowing(Command.SEND)) == (state in (ChannelState.OPEN, ChannelState.EOF_IN))
    assert channel.receiving == (state is ChannelState.OPEN)
    channel.eof_sent = True
    channel.move(state)
    assert not channel.sending
