"""Inboxes: what is taken is what came, credit is given once, and nothing costs more the smaller the pieces are."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.errors import InvalidArgument, LimitReached
from sshproto.streams import Inbox


class Credited:
    """An inbox and the credit that it has given."""

    def __init__(self) -> None:
        self.credit = 0
        self.inbox = Inbox(self._give)

    def _give(self, count: int) -> None:
        assert count > 0
        self.credit += count

    def feed(self, *pieces: bytes) -> Inbox:
        for piece in pieces:
            self.inbox.feed(piece)
        return self.inbox


class Visits(deque[bytes]):
    """A deque that counts how often somebody looks at one of its items."""

    count = 0

    def __getitem__(self, index: Any) -> Any:
        self.count += 1
        return super().__getitem__(index)


# --------------------------------------------------------------------------------------------------------------- taking


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 7, 8, 9, 100])
def test_what_came_is_taken_in_order(limit):
    inbox = Credited().feed(b"abc", b"d", b"efgh", b"i" * 2000, b"j")
    taken = []
    while piece := inbox.take(limit):
        assert len(piece) <= limit
        taken.append(piece)
    assert b"".join(taken) == b"abcdefgh" + b"i" * 2000 + b"j"
    assert all(len(piece) == limit for piece in taken[:-1])
    assert inbox.size == 0


@pytest.mark.parametrize("limit", [0, -1])
def test_nothing_is_taken_by_who_wants_nothing(limit):
    credited = Credited()
    assert credited.feed(b"abc").take(limit) == b""
    assert (credited.inbox.size, credited.credit) == (3, 0)


def test_nothing_is_taken_of_nothing():
    assert Credited().inbox.take(5) == b""
    assert Credited().inbox.take_chunk(5) == b""


def test_a_large_piece_is_handed_on_as_it_came():
    piece = b"x" * 5000
    inbox = Credited().feed(piece, b"y" * 5000)
    assert inbox.take_chunk(1 << 20) is piece
    assert inbox.take_chunk(100) == b"y" * 100
    assert inbox.take_chunk(1 << 20) == b"y" * 4900


def test_credit_is_given_for_what_is_taken_and_no_more():
    credited = Credited()
    credited.feed(b"abc", b"def")
    assert credited.credit == 0
    credited.inbox.take(4)
    assert credited.credit == 4
    credited.inbox.take(100)
    assert credited.credit == 6


def test_who_waits_for_much_in_one_piece_gives_credit_ahead_and_only_once():
    credited = Credited()
    credited.feed(b"abcde").expect(4)
    assert credited.credit == 4
    credited.inbox.expect(4)
    assert credited.credit == 4
    credited.inbox.expect(10)
    assert credited.credit == 5
    credited.feed(b"fgh").take(6)
    assert credited.credit == 6
    credited.inbox.take(2)
    assert credited.credit == 8


def test_what_is_discarded_gives_credit_now_and_later():
    credited = Credited()
    credited.feed(b"abc").expect(2)
    credited.inbox.discard()
    assert (credited.inbox.size, credited.credit) == (0, 3)
    credited.feed(b"de")
    assert (credited.inbox.size, credited.credit) == (0, 5)
    assert credited.inbox.take(10) == b""


def test_many_small_pieces_take_little_room():
    credited = Credited()
    credited.feed(*[b"x"] * 10_000)
    assert len(credited.inbox._chunks) < 20
    assert credited.inbox.take(20_000) == b"x" * 10_000


# ------------------------------------------------------------------------------------------------------------ gathering


def test_all_can_be_gathered():
    credited = Credited()
    gathered = credited.feed(b"abc").gather()
    assert (bytes(gathered), credited.credit) == (b"abc", 3)
    credited.feed(b"def")
    assert (bytes(gathered), credited.credit, credited.inbox.size) == (b"abcdef", 6, 0)
    assert credited.inbox.gather() is gathered


def test_what_was_gathered_can_be_read_again_without_credit_for_it():
    credited = Credited()
    credited.feed(b"abc").gather()
    credited.feed(b"def")
    woken = []
    credited.inbox.arrived.subscribe(lambda: woken.append(True))
    credited.inbox.release()
    assert woken == [True]
    credited.feed(b"ghi")
    assert credited.inbox.take(7) == b"abcdefg"
    assert credited.credit == 7
    assert credited.inbox.take(7) == b"hi"
    assert credited.credit == 9


def test_releasing_nothing_changes_nothing():
    credited = Credited()
    credited.feed(b"abc").release()
    assert credited.inbox.take(9) == b"abc"
    credited.inbox.gather()
    credited.inbox.release()
    credited.feed(b"def")
    assert credited.inbox.take(9) == b"def"


def test_discarding_ends_gathering():
    credited = Credited()
    gathered = credited.feed(b"abc").gather()
    credited.inbox.discard()
    credited.feed(b"def")
    assert bytes(gathered) == b"abc"
    assert credited.credit == 6
    credited.inbox.release()
    assert credited.inbox.size == 0


# --------------------------------------------------------------------------------------------------------------- waking


def test_who_waits_is_woken_by_data_and_by_the_end_once():
    inbox = Credited().inbox
    woken = []

    def wait(name: str) -> None:
        inbox.arrived.subscribe(lambda: woken.append(name))

    wait("data")
    inbox.feed(b"x")
    wait("end")
    inbox.finish()
    wait("never")
    inbox.finish()
    assert woken == ["data", "end"]
    assert inbox.ended


def test_its_repr_says_how_much_there_is():
    inbox = Credited().feed(b"abc")
    assert repr(inbox) == "<Inbox, 3 bytes>"
    inbox.finish()
    assert repr(inbox) == "<Inbox, 3 bytes, ended>"


# -------------------------------------------------------------------------------------------------------------- finding


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0\0\0\0", b"abcab"])
@pytest.mark.parametrize("size", [1, 2, 3, 1500, 4000])
def test_a_separator_is_found_wherever_the_pieces_end(separator, size):
    for before in (0, 1, 2, 3, 1498, 1499, 1500, 3998, 3999, 4000, 9000):
        data = b"x" * before + separator + b"rest"
        inbox = Credited().inbox
        for start in range(0, len(data), size):
            inbox.feed(data[start : start + size])
        assert inbox.find(separator, 1 << 20) == before + len(separator)


def test_the_first_separator_is_found_also_behind_what_was_taken():
    inbox = Credited().feed(b"\r\n" * 3000, b"one\r\n", b"\r", b"\ntwo\r\n")
    assert inbox.take(6000)
    assert inbox.find(b"\r\n", 100) == 5
    assert inbox.take(4) == b"one\r"
    assert inbox.find(b"\r\n", 100) == 3  # the LF alone is none: its CR was taken
    assert inbox.take(3) == b"\n\r\n"
    assert inbox.find(b"\r\n", 100) == 5


def test_what_was_taken_is_no_part_of_a_separator():
    inbox = Credited().feed(b"a" * 3000 + b"\r", b"\n" + b"b" * 3000)
    inbox.take(3001)
    assert inbox.find(b"\r\n", 1 << 20) == 0
    inbox = Credited().feed(b"a" * 3000 + b"\r\n\r", b"\n" + b"b" * 3000)
    inbox.take(3002)
    assert inbox.find(b"\r\n\r\n", 1 << 20) == 0


def test_a_search_can_be_gone_on_with():
    inbox = Credited().feed(b"x" * 2000)
    assert inbox.find(b"ab", 1 << 20) == 0
    inbox.feed(b"y" * 2000 + b"a")
    assert inbox.find(b"ab", 1 << 20, 2000) == 0
    inbox.feed(b"b")
    assert inbox.find(b"ab", 1 << 20, 4001) == 4002


def test_a_separator_has_to_end_within_the_limit():
    assert Credited().feed(b"abc\r\n").find(b"\r\n", 5) == 5
    with pytest.raises(LimitReached, match="first 4 bytes"):
        Credited().feed(b"abc\r\n").find(b"\r\n", 4)
    assert Credited().feed(b"abc").find(b"\r\n", 4) == 0
    with pytest.raises(LimitReached):
        Credited().feed(b"abcd").find(b"\r\n", 4)


def test_a_separator_that_comes_first_counts_even_if_there_is_one_past_the_limit():
    assert Credited().feed(b"a\n", b"b" * 3000, b"\n").find(b"\n", 2) == 2


def test_a_separator_of_nothing_is_refused():
    with pytest.raises(InvalidArgument):
        Credited().feed(b"abc").find(b"", 10)


def test_a_long_line_in_many_pieces_is_searched_once():
    inbox = Credited().inbox
    inbox._chunks = visits = Visits()
    pieces, searched = 400, 0
    for _ in range(pieces):
        inbox.feed(b"x" * 2000)
        assert inbox.find(b"\r\n", 1 << 30, searched) == 0
        searched = inbox.size
    assert visits.count < 10 * pieces


def test_nobody_looks_for_a_separator_far_behind_the_limit():
    inbox = Credited().inbox
    inbox._chunks = visits = Visits()
    for _ in range(400):
        inbox.feed(b"x" * 2000)
    with pytest.raises(LimitReached):
        inbox.find(b"\n", 3000)
    assert visits.count <= 4


def test_many_lines_that_have_come_are_found_without_looking_at_all_of_them():
    inbox = Credited().inbox
    inbox._chunks = visits = Visits()
    line = b"y" * 99 + b"\n"
    for _ in range(100):
        inbox.feed(line * 20)
    for _ in range(2000):
        assert inbox.take(inbox.find(b"\n", 1 << 20)) == line
    assert inbox.size == 0
    assert visits.count < 10 * 2000


# ------------------------------------------------------------------------------------------------------------ the model

PIECES = st.binary(max_size=6) | st.sampled_from([b"a", b"ab", b"b" * 1023, b"a" * 1024, b"ab" * 700])
STEPS = st.lists(
    st.tuples(st.just("feed"), PIECES)
    | st.tuples(st.just("take"), st.integers(-1, 3000))
    | st.tuples(st.just("chunk"), st.integers(0, 3000))
    | st.tuples(st.just("expect"), st.integers(0, 3000))
    | st.tuples(st.just("find"), st.sampled_from([b"a", b"ba", b"bab", b"aab"]))
    | st.tuples(st.just("gather"), st.none()),
    max_size=30,
)


@given(STEPS)
def test_it_behaves_as_one_piece_of_bytes_would(steps):
    credited = Credited()
    inbox = credited.inbox
    came = taken = b""
    ahead = 0
    searched: dict[bytes, int] = {}
    for step, value in steps:
        waits = came[len(taken) :]
        match step:
            case "feed" if value:
                inbox.feed(value)
                came += value
            case "take":
                piece = inbox.take(value)
                assert piece == waits[: max(0, value)]
                taken += piece
            case "chunk":
                piece = inbox.take_chunk(value)
                assert waits.startswith(piece)
                assert bool(piece) == bool(value and waits)
                taken += piece
            case "expect":
                inbox.expect(value)
                ahead = max(ahead, len(taken) + min(value, len(waits)))
            case "find":
                start = searched.pop(value, 0)
                found = inbox.find(value, 1 << 20, start)
                assert found == waits.find(value) + len(value) if value in waits else found == 0
                if not found:
                    searched[value] = len(waits)
            case "gather":
                assert bytes(inbox.gather()) == waits
                inbox.release()
                ahead = max(ahead, len(came))
            case _:
                pass
        if step in ("take", "chunk"):
            searched.clear()
        assert inbox.size == len(came) - len(taken)
        assert credited.credit == max(len(taken), ahead)
