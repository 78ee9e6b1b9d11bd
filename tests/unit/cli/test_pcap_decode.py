"""``sshproto pcap decode``: all that was said, for people and for programs; secrets only if they are asked for."""

from __future__ import annotations

import re

import pytest

from sshproto import events as ev
from sshproto.config import ServerConfig
from sshproto.replay.events import Side
from sshproto.replay.rows import EVENT_COLUMNS
from tests.replay.sessions import Scribe
from tests.support.pair import HOST_KEY, client_answers, server_answers
from tests.support.tapes import Show, command, shell, tape
from tests.support.verbs import capture, runner

PASSWORD, ANSWER = "open sesame", "forty-two"
MORE = {"sequence_number", "epoch", "offset", "length", "integrity", "guessed", "context"}


@pytest.fixture
def decode(capfd, tmp_path):
    return runner("decode", capfd, tmp_path)


def test_a_line_a_packet(decode):
    ran = decode(tape(command()))
    assert (ran.status, ran.err) == (0, [])
    assert re.fullmatch(
        r"connection 1, 10\.0\.0\.1:40001 to 10\.0\.0\.2:22, in .*0\.pcap, 2023-11-14 22:13:20\.000000 UTC", ran.out[0]
    )
    words = [line.split() for line in ran.out]
    kexinit = next(line for line in words if "KEXINIT" in line)
    assert kexinit[0] == "1"
    assert kexinit[3:6] == ["client", "0", "clear"]
    data = next(line for line in ran.out if "CHANNEL_DATA" in line and "oops" not in line and "input" in line)
    assert re.search(r"client +\d+ MAC right +\d+ c0 +CHANNEL_DATA  5 bytes \"input\"$", data)
    assert sum('exec "make"' in line for line in ran.out) == 1
    assert "server" in next(line for line in ran.out if "exit-status 2" in line)
    assert any("agreed: " in line for line in ran.out)
    assert any("the server's signature confirms it" in line for line in ran.out)
    assert not any("OfferSeen" in line or "DataReceived" in line for line in ran.out)


def test_a_line_an_event(decode):
    ran = decode("--level", "events", tape(command()))
    assert not any("CHANNEL_DATA" in line for line in ran.out)
    assert any("ChannelRequested  id " in line and "exec, command make" in line for line in ran.out)
    assert any("agreed: " in line for line in ran.out)
    every = decode("--level", "all", tape(command())).out
    assert len(every) > len(ran.out)
    assert any("CHANNEL_DATA" in line for line in every)
    assert any("DataReceived" in line for line in every)


def test_details(decode):
    lines = decode("--details", tape(command())).out
    assert any(line.strip().startswith("fingerprint: SHA256:") for line in lines)


def test_objects(decode):
    ran = decode("--json", tape(command()))
    columns = {column.name for column in EVENT_COLUMNS}
    for number, it in enumerate(ran.objects, 1):
        assert it["event"] == number
        assert set(it) == columns | {"fields"} | (MORE if it["kind"] == "PacketOpened" else set())
        assert it["role"] in ("client", "server")
    kinds = [it["kind"] for it in ran.objects]
    assert {"VersionReceived", "PacketOpened", "KexSeen", "SecretFound", "DataReceived", "Ended"} <= set(kinds)
    (login,) = (it for it in ran.objects if it["message"] == "USERAUTH_SUCCESS")
    assert (login["number"], login["role"], login["integrity"], login["epoch"]) == (52, "server", "verified", 1)
    (execute,) = (it for it in ran.objects if it["fields"].get("request_type") == "exec")
    assert execute["fields"]["command"] == "make"
    assert execute["frames"]
    assert isinstance(execute["time"], int)
    assert not any("payload" in it for it in ran.objects)


def test_only_what_was_sent(decode):
    kinds = {it["kind"] for it in decode("--json", "--level", "packets", tape(command())).objects}
    assert "PacketOpened" in kinds
    assert not kinds & {"DataReceived", "OfferSeen", "AuthSucceeded"}
    kinds = {it["kind"] for it in decode("--json", "--level", "events", tape(command())).objects}
    assert not kinds & {"PacketOpened", "OfferSeen"}
    assert {"DataReceived", "KexSeen"} <= kinds


def with_password():
    """A login with a password, and with answers to prompts."""

    def client(conn, question):
        match question:
            case ev.CredentialNeeded(attempt=0):
                conn.auth_password(question, PASSWORD)
            case ev.CredentialNeeded():
                conn.auth_keyboard_interactive(question)
            case ev.PromptsReceived():
                conn.answer_prompts(question, [ANSWER])
            case _:
                client_answers(conn, question)

    def server(conn, question):
        match question:
            case ev.PasswordAuth():
                conn.reject_auth(question, methods=("keyboard-interactive",))
            case ev.InteractiveAuth():
                conn.prompt(question, [ev.Prompt(text="6 times 7?", echo=False)])
            case ev.PromptsAnswered():
                conn.accept_auth(question)
            case _:
                server_answers(conn, question)

    config = ServerConfig(host_keys=(HOST_KEY,), auth_methods=("password", "keyboard-interactive"))
    return tape(Show(client_answer=client, server_answer=server, server=config).bye())


def test_secrets_are_left_out(decode):
    """Whatever is shown, unless they are asked for."""
    data = with_password()
    found = [text for secret in (PASSWORD, ANSWER) for text in (secret, secret.encode().hex())]
    for options in ((), ("--details",), ("--level", "all"), ("--json",), ("--json", "--payload")):
        text = "\n".join(decode(*options, data).out)
        assert not any(secret in text for secret in found), options
        text = "\n".join(decode(*options, "--secrets", data).out)
        assert PASSWORD in text, options
        assert ANSWER in text, options
    whole = decode("--json", "--payload", "--secrets", data).objects
    cut = decode("--json", "--payload", data).objects
    hidden = [it["message"] for it, other in zip(whole, cut, strict=True) if it.get("payload") != other.get("payload")]
    # A request to be asked may say more than that.
    assert hidden == ["USERAUTH_REQUEST", "USERAUTH_REQUEST", "USERAUTH_INFO_RESPONSE"]
    assert all(len(it["payload"]) == 2 * it["length"] for it in whole if "payload" in it)


def test_what_can_not_be_read(decode):
    lines = decode(tape(command(), form="pcap")).out
    assert sum("encrypted from here on: no key is known" in line for line in lines) == 2
    assert any(" sealed " in line for line in lines)
    show = command()
    lines = decode(tape(show, lost=(len(show.recording.wire) - 3,))).out
    assert any("missing:" in line and "are missing" in line for line in lines)


def test_messages_that_mean_nothing(decode):
    client, server = Scribe(Side.DIALLER, b"SSH-2.0-a"), Scribe(Side.DIALLED, b"SSH-2.0-b\x1b[1m")
    wire = [server.piece, client.send(b"\xc8what").piece]
    lines = decode(capture(wire)).out
    assert "\x1b" not in "".join(lines)
    assert any("5 bytes that mean nothing here" in line for line in lines)
    assert "taken for the client, since it has dialled" in lines[-1]
    last = decode("--json", capture(wire)).objects[-1]
    assert (last["kind"], last["fields"]) == ("RolesSeen", {"client": "dialler", "sure": False})


def test_numbers_of_two_connections(decode):
    lines = decode(tape(command(), shell())).out
    assert {line[:3] for line in lines if not line.startswith("connection")} == {"  1", "  2"}
    lines = decode("-n", 2, tape(command(), shell())).out
    assert {line[:3] for line in lines if not line.startswith("connection")} == {"  2"}


def test_payload_goes_with_json(decode):
    ran = decode("--payload", "x")
    assert (ran.status, ran.err) == (2, ["sshproto: --payload goes with --json"])
