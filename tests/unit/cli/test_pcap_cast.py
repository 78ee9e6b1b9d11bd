"""``sshproto pcap cast``: which channel, what is left out, and what it says of what is not there."""

from __future__ import annotations

import pytest

from sshproto.channels.requests import PtyRequest, Shell
from sshproto_cli.main import main
from tests.support import asciicast
from tests.support.tapes import START, Show, command, shell, tape


@pytest.fixture
def cast(capfdbinary, tmp_path):
    """Runs the verb on a capture: status, standard output, the lines of standard error."""

    def run(data, *words):
        path = tmp_path / "a.pcapng"
        path.write_bytes(data)
        status = main(["pcap", "cast", str(path), *map(str, words)])
        out, err = capfdbinary.readouterr()
        return status, out, err.decode().splitlines()

    return run


def test_a_session(cast):
    status, out, err = cast(tape(shell()))
    head, events = asciicast.read(out)
    assert head == {
        "version": 3,
        "term": {"cols": 100, "rows": 30, "type": "xterm"},
        "timestamp": START + 10,
        "env": {"LANG": "C.UTF-8"},
    }
    assert asciicast.at(events) == [
        (1.0, "o", "$ "),
        (2.25, "o", "l"),
        (3.5, "o", "s"),
        (4.5, "r", "120x40"),
        (5.5, "o", "\r\nB"),
        (6.5, "o", "ä" + "r\r\n"),
        (7.5, "x", "3"),
    ]
    assert (status, err) == (0, [])


def test_keys(cast):
    _, out, _ = cast(tape(shell()), "--input", "--idle", "2.5", "--title", "a session")
    head, events = asciicast.read(out)
    assert [(time, data) for time, code, data in asciicast.at(events) if code == "i"] == [(2.0, "l"), (3.25, "s")]
    assert (head["idle_time_limit"], head["title"]) == (2.5, "a session")


def test_into_a_file(cast, tmp_path):
    target = tmp_path / "out.cast"
    assert cast(tape(shell()), "-o", target) == (0, b"", [])
    assert asciicast.read(target.read_bytes())[1][-1][1:] == ("x", "3")


def test_the_first_channel_with_a_terminal(cast):
    show = Show()
    plain, second, third = show.open(), show.open(), show.open()
    show.print(plain, b"no")
    for channel in (second, third):
        show.ask(channel, PtyRequest("xterm", 80, 24), Shell()).print(channel, f"channel {channel}".encode())
    data = tape(show.bye())
    assert b"channel 1" in cast(data)[1]
    assert b"channel 2" in cast(data, "--channel", 2)[1]


def test_no_terminal(cast):
    status, out, err = cast(tape(command()))
    assert (status, out) == (1, b"")
    assert err == ["sshproto: connection 1 has no channel with a terminal; it has one channel, which is 0"]
    status, out, err = cast(tape(command()), "--channel", 0)
    head, events = asciicast.read(out)
    assert head["command"] == "make"
    assert events[0][2] == "one\r\ntwo\r\n"
    assert status == 0
    assert err == ["sshproto: channel 0 has no terminal; one of 80x24 was assumed"]


def test_a_terminal_of_no_size(cast):
    show = Show()
    channel = show.open()
    show.ask(channel, PtyRequest("xterm", 0, 0), Shell()).bye()
    _, out, err = cast(tape(show))
    assert asciicast.read(out)[0]["term"]["cols"] == 80
    assert err == ["sshproto: nothing is said of the terminal's size; 80x24 was assumed"]


def test_no_key(cast, tmp_path):
    target = tmp_path / "out.cast"
    status, _, err = cast(tape(shell(), key_log=False), "-o", target)
    assert status == 1
    assert err == ["sshproto: connection 1 could not be opened: no key is known; no key log was given (--keylog)"]
    assert not target.exists()


def test_a_gap(cast):
    show = shell()
    status, out, err = cast(tape(show, lost={len(show.recording.wire) - 5}))
    assert asciicast.read(out)[1][-1][1:] == ("r", "120x40")
    assert status == 1
    assert "what the server sent is not whole" in err[0]


def test_a_damaged_capture_gives_what_there_is(cast, tmp_path):
    target = tmp_path / "out.cast"
    status, _, err = cast(tape(shell())[:-701], "-o", target)
    assert status == 1
    assert asciicast.read(target.read_bytes())[1][0] == (1.0, "o", "$ ")
    assert "a.pcapng" in err[-1]


@pytest.mark.parametrize("words", [["--idle", "0"], ["--idle", "x"], ["--channel", "-1"], ["--channel", "1e3"]])
def test_wrong_options(cast, words):
    assert cast(tape(shell()), *words)[0] == 2
