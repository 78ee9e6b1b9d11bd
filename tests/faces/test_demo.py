"""``sshproto demo``: what it shows is what happened, in whatever form it is asked for."""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from sshproto import algorithms
from sshproto.client import ClientConnection
from sshproto.keys.private import PrivateKey
from sshproto.transport import keyexchange
from sshproto.wire import messages
from sshproto.wire.table import Role
from sshproto_cli import demo, describe, timeline

ROOT = Path(__file__).resolve().parents[2]
FIRST_LOOK = ROOT / "docs" / "tutorial" / "first-look.md"

KEYS = [
    "step",
    "phase",
    "direction",
    "number",
    "message",
    "encrypted",
    "sequence_number",
    "length",
    "summary",
    "fields",
]
UP, DOWN = "client to server", "server to client"
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@attrs.frozen
class Result:
    status: int
    out: str
    err: str

    @property
    def steps(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Output(io.StringIO):
    """Standard output, a terminal or not, in some encoding."""

    def __init__(self, terminal: bool, encoding: str) -> None:
        super().__init__()
        self._terminal = terminal
        self._encoding = encoding

    def isatty(self) -> bool:
        return self._terminal

    @property
    def encoding(self) -> str:
        return self._encoding


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """Run the verb with some arguments."""
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words: str, terminal: bool = False, encoding: str = "utf-8") -> Result:
        parser = argparse.ArgumentParser(prog="sshproto")
        demo.add_parser(parser.add_subparsers(required=True))
        out, err = Output(terminal, encoding), io.StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            args = parser.parse_args(["demo", *words])
            status = args.run(args)
        return Result(status, out.getvalue(), err.getvalue())

    return call


def same_each_time(text: str) -> str:
    """``text`` without what differs from one run to the next, or with every release."""
    text = re.sub(r"SHA256:[A-Za-z0-9+/]{43}", "SHA256:" + 43 * ".", text)
    text = re.sub(r"sshproto_[0-9.]+", "sshproto_X", text)
    return re.sub(r"[0-9,]{5} bytes on the wire", "..... bytes on the wire", text)


# -------------------------------------------------------------------------------------------------------------- content


def names(steps: list[dict[str, Any]], direction: str) -> list[str]:
    return [step["message"] for step in steps if step["direction"] == direction and step["message"]]


def test_the_whole_connection(run) -> None:
    result = run("--json")
    assert (result.status, result.err) == (0, "")
    assert names(result.steps, UP) == [
        "identification", "KEXINIT", "KEX_ECDH_INIT", "NEWKEYS", "EXT_INFO", "SERVICE_REQUEST",
        "USERAUTH_REQUEST", "USERAUTH_REQUEST", "CHANNEL_OPEN", "CHANNEL_REQUEST", "CHANNEL_DATA",
        "CHANNEL_WINDOW_ADJUST", "KEXINIT", "KEX_ECDH_INIT", "NEWKEYS", "CHANNEL_DATA", "CHANNEL_EOF",
        "CHANNEL_CLOSE", "DISCONNECT",
    ]  # fmt: skip
    assert names(result.steps, DOWN) == [
        "identification", "KEXINIT", "KEX_ECDH_REPLY", "NEWKEYS", "EXT_INFO", "SERVICE_ACCEPT",
        "USERAUTH_PK_OK", "USERAUTH_SUCCESS", "CHANNEL_OPEN_CONFIRMATION", "CHANNEL_SUCCESS", "CHANNEL_DATA",
        "KEXINIT", "KEX_ECDH_REPLY", "NEWKEYS", "CHANNEL_DATA", "CHANNEL_REQUEST", "CHANNEL_EOF", "CHANNEL_CLOSE",
    ]  # fmt: skip


def test_json_keys(run) -> None:
    steps = run("--json").steps
    for count, step in enumerate(steps, 1):
        assert list(step) == KEYS
        assert step["step"] == count
        assert step["phase"] in timeline.PHASES
        assert step["direction"] in {UP, DOWN, None}
        assert step["summary"]
        if step["number"] is not None:
            cls = [cls for cls in messages.ALL if cls.number == step["number"]]
            assert any(f"SSH_MSG_{step['message']} " in (each.__doc__ or "") for each in cls), step
            assert step["length"] >= 1
    assert {step["phase"] for step in steps} == set(timeline.PHASES)
    documented = demo.__doc__ or ""
    assert re.findall(r"^``(\w+)`` ", documented, re.MULTILINE) == KEYS


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_encryption_begins_with_new_keys(run, direction: str) -> None:
    steps = [step for step in run("--json").steps if step["direction"] == direction]
    first = next(index for index, step in enumerate(steps) if step["message"] == "NEWKEYS")
    assert not any(step["encrypted"] for step in steps[: first + 1])
    assert all(step["encrypted"] for step in steps[first + 1 :])
    note = steps[first + 1]
    assert note["message"] is None
    assert note["fields"]["cipher"] == "aes256-gcm@openssh.com"


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_sequence_numbers_restart_with_new_keys(run, direction: str) -> None:
    expected = 0
    for step in run("--json").steps:
        if step["direction"] == direction and step["number"] is not None:
            assert step["sequence_number"] == expected, step
            expected = 0 if step["message"] == "NEWKEYS" else expected + 1


def test_the_words_are_those_of_the_exchange(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "USER", "bertha")
    monkeypatch.setattr(demo, "COMMAND", b"make noise")
    monkeypatch.setattr(demo, "LINES", (b"one little piggy went\n", b"to the market\n"))
    made: list[PrivateKey] = []
    generate = PrivateKey.generate

    def noted() -> PrivateKey:
        made.append(generate())
        return made[-1]

    monkeypatch.setattr(PrivateKey, "generate", noted)
    steps = run("--json").steps
    [exec_request] = [step for step in steps if step["phase"] == "command" and step["direction"] == UP]
    assert exec_request["fields"]["command"] == "make noise"
    data = [(step["direction"], step["fields"]["data"]) for step in steps if step["message"] == "CHANNEL_DATA"]
    assert data == [
        (UP, "one little piggy went\\n"), (DOWN, "ONE LITTLE PIGGY WENT\\n"),
        (UP, "to the market\\n"), (DOWN, "TO THE MARKET\\n"),
    ]  # fmt: skip
    requests = [step["fields"] for step in steps if step["message"] == "USERAUTH_REQUEST"]
    host, user = (key.public_key.fingerprint() for key in made)
    assert [(each["user"], each["key"]) for each in requests] == [("bertha", user)] * 2
    assert {step["fields"]["host_key"] for step in steps if step["message"] == "KEX_ECDH_REPLY"} == {host}
    text = run().out
    for words in ("bertha, publickey", '"make noise"', '"TO THE MARKET\\n"', "exit-status 0"):
        assert words in text


@pytest.mark.parametrize(
    ("kex", "messages_up"),
    [
        ("curve25519-sha256", ["KEX_ECDH_INIT"]),
        ("diffie-hellman-group14-sha256", ["KEXDH_INIT"]),
        ("diffie-hellman-group-exchange-sha256", ["KEX_DH_GEX_REQUEST", "KEX_DH_GEX_INIT"]),
    ],
)
def test_other_key_exchanges(run, kex: str, messages_up: list[str]) -> None:
    result = run("--json", "--kex", kex)
    assert result.status == 0
    exchanged = [step for step in result.steps if step["phase"] == "key exchange"]
    assert names(exchanged, UP) == messages_up
    [agreed] = [step for step in result.steps if step["direction"] is None and step["phase"] == "negotiation"]
    assert agreed["fields"]["kex"] == kex


@pytest.mark.parametrize("cipher", algorithms.CIPHER_DEFAULT + algorithms.CIPHER_LEGACY)
def test_other_ciphers(run, cipher: str) -> None:
    mac = "hmac-sha2-512"
    result = run("--cipher", cipher, "--mac", mac, "--kex", "curve25519-sha256")
    assert result.status == 0, result.err
    start = result.out.index("encrypted from here on")
    marker = result.out[start : result.out.index("Service request")]
    assert marker.count(cipher) == 2
    aead = "gcm" in cipher or "chacha" in cipher
    assert marker.count("by the same cipher") == (2 if aead else 0)
    assert marker.count(f"{mac}, 64 bytes over the plaintext") == (0 if aead else 2)


def test_unknown_algorithm(run) -> None:
    result = run("--cipher", "rot13")
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("sshproto demo: ")
    assert "rot13" in result.err
    assert result.err.count("\n") == 1


def test_no_secret_is_shown(run, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets: list[bytes] = []
    derive = keyexchange.direction_keys

    def noted(hash_name: str, secret: bytes, *args: Any, **named: Any) -> Any:
        keys = derive(hash_name, secret, *args, **named)
        secrets.extend(value for value in (secret[4:], keys.key, keys.iv, keys.mac_key) if value)
        return keys

    monkeypatch.setattr(keyexchange, "direction_keys", noted)
    shown = run("--json").out + run().out
    assert len(secrets) >= 16
    for secret in secrets:
        forms = (secret.hex(), base64.b64encode(secret).decode().rstrip("="), repr(secret)[2:-1])
        assert not any(form in shown for form in forms)


# -------------------------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize(("columns", "width"), [("20", 80), ("80", 80), ("97", 97), ("200", 110)])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_width(run, monkeypatch: pytest.MonkeyPatch, columns: str, width: int, encoding: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    result = run(encoding=encoding)
    assert result.status == 0
    lines = result.out.splitlines()
    assert max(map(len, lines)) == width
    assert lines == [line.rstrip() for line in lines]
    rails = "│║" if encoding == "utf-8" else "|#"
    inside = [line for line in lines if line[4:5] and line[4] in rails]
    assert len(inside) > 60
    assert all(line[width - 5] in rails for line in inside)


def test_ascii_where_there_are_no_line_drawing_characters(run) -> None:
    assert run(encoding="ascii").out.isascii()
    assert not run(encoding="utf-8").out.isascii()


@pytest.mark.parametrize(
    ("words", "terminal", "environment", "coloured"),
    [
        ((), False, {}, False),
        ((), True, {}, True),
        ((), True, {"NO_COLOR": "1"}, False),
        ((), True, {"NO_COLOR": ""}, True),
        ((), True, {"TERM": "dumb"}, False),
        (("--color", "always"), False, {"NO_COLOR": "1"}, True),
        (("--color", "never"), True, {}, False),
        (("--color", "auto"), True, {}, True),
        (("--json", "--color", "always"), True, {}, False),
    ],
)
def test_colour(
    run,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    terminal: bool,
    environment: dict[str, str],
    coloured: bool,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b" in run(*words, terminal=terminal).out) is coloured


def test_colours_change_nothing_else(run) -> None:
    coloured = ESCAPE.sub("", run("--color", "always").out)
    stripped = "\n".join(line.rstrip() for line in coloured.splitlines())
    assert same_each_time(stripped) == same_each_time(run().out.rstrip("\n"))


def test_a_reader_that_goes_away() -> None:
    command = [sys.executable, "-c", _PROGRAM, "demo"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "adapters")))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


_PROGRAM = """
import argparse, sys
from sshproto_cli import demo
heavy = [name for name in sys.modules if name.split(".")[0] in ("sshproto", "cryptography", "attrs")]
if heavy:
    sys.exit(f"imported too early: {heavy}")
parser = argparse.ArgumentParser()
demo.add_parser(parser.add_subparsers())
args = parser.parse_args()
sys.exit(args.run(args))
"""


def test_quick_and_lazy() -> None:
    resource = pytest.importorskip("resource", reason="CPU time of children: POSIX only")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "adapters")))}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", _PROGRAM, "demo"], env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (0, b"")
    # CPU time: the machine may be busy with something else.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


# -------------------------------------------------------------------------------------------------------------- failure


def tampered(monkeypatch: pytest.MonkeyPatch, sender: Role, change: Any) -> None:
    """Have ``change(conversation, data)`` come between ``sender`` and the other side."""
    carry = demo.Conversation._carry

    def carried(self: demo.Conversation, role: Role, data: bytes) -> bytes:
        data = carry(self, role, data)
        if role is not sender or not data:
            return data
        return change(self, data)

    monkeypatch.setattr(demo.Conversation, "_carry", carried)


def flip(conversation: demo.Conversation, data: bytes) -> bytes:
    """Change one bit of an encrypted packet."""
    if conversation.client.phase.name != "OPEN":
        return data
    return data[:-1] + bytes([data[-1] ^ 1])


def drop(conversation: demo.Conversation, data: bytes) -> bytes:
    return b"" if conversation.client.phase.name == "OPEN" else data


@pytest.mark.parametrize("sender", list(Role))
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_changed_bit(run, monkeypatch: pytest.MonkeyPatch, sender: Role, words: tuple[str, ...]) -> None:
    tampered(monkeypatch, sender, flip)
    result = run(*words)
    assert result.status == 1
    assert result.err.startswith("sshproto demo: the ")
    assert result.err.count("\n") == 1
    assert "USERAUTH_SUCCESS" in result.out  # what happened until then is shown
    assert "all went well" not in result.out


def test_silence(run, monkeypatch: pytest.MonkeyPatch) -> None:
    tampered(monkeypatch, Role.SERVER, drop)
    result = run()
    assert result.status == 1
    assert result.err == "sshproto demo: the exchange came to a standstill: the client waits for a channel\n"


def test_nothing_in_common(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(algorithms, "KEX_LEGACY", ())
    monkeypatch.setattr(algorithms, "KEX_EXTRA", ())
    result = run("--kex", "curve448-sha512")
    assert result.status == 1
    assert "no common kex algorithm" in result.err
    assert result.err.count("\n") == 1
    assert "KEXINIT" in result.out


def test_a_host_key_that_is_not_the_right_one(run, monkeypatch: pytest.MonkeyPatch) -> None:
    init = demo.ClientApplication.__init__

    def other(self: Any, connection: ClientConnection, host_key: PrivateKey, user_key: PrivateKey) -> None:
        init(self, connection, user_key, user_key)

    monkeypatch.setattr(demo.ClientApplication, "__init__", other)
    result = run()
    assert result.status == 1
    assert "was not accepted" in result.err


def test_a_bug_is_one_line(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, *args: object, **named: object) -> int:
        raise RuntimeError("oh no")

    monkeypatch.setattr(ClientConnection, "open_channel", broken)
    result = run()
    assert result.status == 1
    assert result.err == "sshproto demo: a bug in sshproto: RuntimeError: oh no\n"


@pytest.mark.parametrize("words", ["wrong answer", "wrong status"])
def test_wrong_results_are_noticed(run, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    react = demo.ClientApplication.react

    def altered(self: demo.ClientApplication, event: Any) -> None:
        react(self, event)
        if type(event).__name__ == "ChannelClosed":
            if words == "wrong answer":
                self.output[:1] = b"?"
            else:
                self.status = 3

    monkeypatch.setattr(demo.ClientApplication, "react", altered)
    result = run()
    assert result.status == 1
    assert ("the command answered" if words == "wrong answer" else "the exit status is 3") in result.err


def test_plaintext_on_the_wire_is_noticed(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def leak(conversation: demo.Conversation, data: bytes) -> bytes:
        conversation._wire[Role.CLIENT] += demo.COMMAND
        return data

    tampered(monkeypatch, Role.CLIENT, leak)
    result = run()
    assert result.status == 1
    assert "can be read" in result.err


# ----------------------------------------------------------------------------------------------------------- describing


@pytest.mark.parametrize("cls", messages.ALL, ids=lambda cls: cls.__name__)
def test_every_message_can_be_described(cls: type[messages.Message]) -> None:
    """With empty fields, too: nothing that a peer sends may break the timeline."""
    samples = {"int": 0, "bool": False, "bytes": b"", "str": "", "tuple": ()}
    values: dict[str, Any] = {}
    for field in attrs.fields(cls):
        if field.default is attrs.NOTHING:
            text = str(field.type)
            kind = next((name for name in ("tuple", "bytes", "bool", "int", "str") if name in text), "int")
            values[field.name] = samples[kind]
    message = cls(**values)
    for sender in Role:
        words = describe.Describer().describe(sender, message)
        json.dumps(dict(words.fields))
        assert "\n" not in words.summary


def test_passwords_are_left_out() -> None:
    from sshproto.auth import methods

    for form in (methods.Password("hunter2"), methods.PasswordChange("hunter2", "hunter2")):
        words = describe.Describer().describe(Role.CLIENT, methods.request("alice", form))
        assert "hunter2" not in repr(words)
    words = describe.Describer().describe(Role.CLIENT, messages.UserauthInfoResponse(("hunter2",)))
    assert "hunter2" not in repr(words)


def test_a_peers_words_are_made_printable() -> None:
    words = describe.Describer().describe(Role.SERVER, messages.Disconnect(2, "\x1b[2Jgone"))
    assert "\x1b" not in repr(words)
    assert "\x1b" not in words.summary


# -------------------------------------------------------------------------------------------------------- documentation


def fenced(language: str) -> list[str]:
    text = FIRST_LOOK.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_what_the_tutorial_quotes_is_what_is_printed(run) -> None:
    printed = same_each_time(run().out)
    quotes = fenced("text")
    assert len(quotes) >= 10
    for quote in quotes:
        assert f"\n{same_each_time(quote)}" in f"\n{printed}", quote


def test_the_json_that_the_tutorial_quotes_is_what_is_printed(run) -> None:
    quotes = fenced("json")
    assert quotes
    steps = run("--json").steps
    for quote in quotes:
        assert json.loads(quote) in steps


def test_the_commands_of_the_tutorial_run(run) -> None:
    commands = [line[2:] for block in fenced("console") for line in block.splitlines() if line.startswith("$ ")]
    assert len(commands) >= 3
    for command in commands:
        program, verb, *words = shlex.split(command)
        assert (program, verb) == ("sshproto", "demo")
        assert run(*words).status == 0


def test_the_tutorial_names_all_phases_and_keys() -> None:
    text = FIRST_LOOK.read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == KEYS
    assert all(f"`{phase}`" in text for phase in timeline.PHASES)
