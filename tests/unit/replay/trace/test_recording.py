"""What a recorder writes, at which level, and that it leaves the connection alone."""

from __future__ import annotations

import gc
import inspect
import json
import re
from typing import Any

import attrs
import pytest

from sshproto import errors, events, requests
from sshproto.channels.requests import Exec, PtyRequest, Session, Signal, UnknownRequest, X11Request
from sshproto.client import ClientConnection
from sshproto.config import ClientConfig, Limits, Preferences, SecurityKeyPolicy, ServerConfig, Timeouts
from sshproto.connection import Connection
from sshproto.errors import InvalidArgument, UsageError
from sshproto.keys.private import PrivateKey
from sshproto.keys.security_keys import Assertion
from sshproto.replay.trace import values
from sshproto.replay.trace.file import EVENTS, Privacy, TraceError, read
from sshproto.replay.trace.recording import Recorder, methods
from sshproto.replay.trace.values import Decoder, exact, shown
from sshproto.replay.trace.verify import verify
from sshproto.server import ServerConnection
from sshproto.wire.table import Role
from tests.support import scenario, traces
from tests.support.pair import HOST_KEY, USER_KEY, Pair, seeded

LOW = [Privacy.LENGTHS, Privacy.METADATA, Privacy.PAYLOAD]


def records(trace: bytes | bytearray) -> list[Any]:
    return list(read(bytes(trace)).records)


def named(trace: bytes | bytearray, name: str) -> list[Any]:
    return [record.data for record in records(trace) if record.name == name]


# -------------------------------------------------------------------------------------------------------------- privacy


@pytest.fixture(scope="module", params=LOW, ids=lambda level: level.value)
def confided(request: pytest.FixtureRequest) -> tuple[Privacy, traces.Recorded]:
    return request.param, traces.confide(request.param)


@pytest.fixture(scope="module")
def whole() -> traces.Recorded:
    return traces.confide(Privacy.REPLAY)


def forms(secret: bytes) -> list[bytes]:
    return [secret, secret.hex().encode(), json.dumps(secret.decode()).encode()]


def test_the_search_finds_what_is_there(whole: traces.Recorded) -> None:
    """A trace that can be replayed has all of it, so that the next tests can fail."""
    for canary in traces.CANARIES:
        assert any(form in trace for trace in whole.both() for form in forms(canary)), canary


def test_no_level_but_replay_has_passwords_or_answers(confided: tuple[Privacy, traces.Recorded]) -> None:
    for canary in (traces.PASSWORD.encode(), traces.ANSWER.encode()):
        for trace in confided[1].both():
            assert not any(form in trace for form in forms(canary))


def test_content_is_in_traces_of_payload_and_above_only(confided: tuple[Privacy, traces.Recorded]) -> None:
    level, recorded = confided
    for canary in (traces.COMMAND, traces.DATA, traces.VALUE):
        for trace in recorded.both():
            assert any(form in trace for form in forms(canary)) is (level is Privacy.PAYLOAD), (level, canary)


def test_no_level_but_replay_has_random_bytes(confided: tuple[Privacy, traces.Recorded]) -> None:
    for trace in confided[1].both():
        assert not named(trace, "ssh:entropy")
        assert not named(trace, "ssh:oracle")
        assert all("data" not in data["raw"] for data in named(trace, "ssh:bytes_in"))
        assert all("data" not in data["raw"] for data in named(trace, "ssh:bytes_out"))


def test_no_level_but_replay_tells_how_long_a_password_is(confided: tuple[Privacy, traces.Recorded]) -> None:
    for trace in confided[1].both():
        for record in records(trace):
            if record.name.startswith("ssh:packet_") and record.data.get("msg") in (50, 61):
                assert "raw" not in record.data
            if record.data.get("call") in ("auth_password", "answer_prompts"):
                secrets = [value for name, value in record.data["args"].items() if name != "question"]
                assert all(set(value) == {"$hidden"} for value in secrets)


def test_a_trace_of_lengths_has_no_names(confided: tuple[Privacy, traces.Recorded]) -> None:
    level, recorded = confided
    if level is Privacy.LENGTHS:
        for trace in recorded.both():
            body = b"".join(trace.split(b"\x1e")[2:])
            assert b"alice" not in body
            assert b"sshproto" not in body
            assert b"curve25519" not in body
    else:
        assert all(b"alice" in trace for trace in recorded.both())


def test_levels_are_obeyed(confided: tuple[Privacy, traces.Recorded]) -> None:
    level, recorded = confided
    for trace in recorded.both():
        assert all(level.covers(EVENTS[record.name].level) for record in records(trace))


@pytest.mark.parametrize("level", list(Privacy))
def test_no_private_key_is_ever_written(level: Privacy) -> None:
    for trace in traces.lively(level).both():
        for key in (HOST_KEY, USER_KEY):
            private = key.openssh()
            seed = key._handle.private_bytes_raw()
            assert seed.hex().encode() not in trace
            assert seed not in trace
            assert private not in trace


def test_no_text_is_shown_as_metadata_unless_it_is_listed() -> None:
    """A new field of an event or a request is content until somebody decides."""
    for module in (events, requests):
        for kind in vars(module).values():
            if not (isinstance(kind, type) and attrs.has(kind)):
                continue
            for field in attrs.fields(kind):
                told = shown("canary", Privacy.METADATA, field.name)
                listed = field.name in values.PUBLIC_TEXT and field.name not in values.SECRET
                assert (told == "canary") is listed, (kind, field.name)
    for name in (
        "message",
        "text",
        "raw",
        "prompt",
        "instruction",
        "description",
        "command",
        "value",
        "data",
        "payload",
    ):
        assert name not in values.PUBLIC_TEXT


def test_what_does_not_show_in_a_repr_shows_in_no_trace_below_replay() -> None:
    request = X11Request(False, "MIT", "canary")
    for level in LOW:
        assert "canary" not in str(shown(request, level))
        banner = events.BannerReceived("text", "canary")
        assert "canary" not in str(shown(banner, level))


def test_the_words_of_a_callers_mistake_may_hold_what_it_gave() -> None:
    for level in LOW:
        assert "canary" not in str(shown(InvalidArgument("'canary' is no password"), level))
    assert "no such" in str(shown(errors.ProtocolViolation("no such message"), Privacy.METADATA))


# ------------------------------------------------------------------------------------------------------------- recorder


def test_every_public_method_that_changes_something_is_recorded() -> None:
    for kind in (ClientConnection, ServerConnection):
        public = {name for name, member in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}
        assert public - set(methods(kind)) == {"next_deadline", "sendable"}


def test_a_connection_that_is_recorded_does_the_same() -> None:
    def sent(record: bool) -> list[bytes]:
        extra = [{"record": Recorder(lambda _: None, Privacy.REPLAY)} if record else {} for _ in range(2)]
        tape = scenario.Tape()
        common: dict[str, Any] = {"preferences": traces.FAST, "oracle": tape.recorder(), "debug_raise": True}
        pair = Pair.make(
            ClientConfig(user="alice", entropy=seeded("client"), **common, **extra[0]),
            ServerConfig(host_keys=(HOST_KEY,), entropy=seeded("server"), **common, **extra[1]),
        )
        pair.client.react, pair.server.react = scenario.ClientApp(), scenario.ServerApp()
        pair.run()
        return [bytes(pair.client.sent), bytes(pair.server.sent)]

    assert sent(record=True) == sent(record=False)


def test_it_costs_nothing_when_it_is_off() -> None:
    conn = ClientConnection(ClientConfig(user="alice"), 0.0)
    assert set(vars(conn)) == {"_engine"}


def test_a_problem_with_writing_ends_the_recording_and_nothing_else() -> None:
    written: list[bytes] = []

    def write(record: bytes) -> None:
        if len(written) == 30:
            raise OSError("the disk is full")
        written.append(record)

    recorder = Recorder(write, Privacy.REPLAY)
    pair = Pair.make(
        ClientConfig(user="alice", debug_raise=True, record=recorder),
        ServerConfig(host_keys=(HOST_KEY,), debug_raise=True),
    )
    pair.login()
    assert str(recorder.problem) == "the disk is full"
    assert len(written) == 30
    assert len(read(b"".join(written)).records) == 29


def test_a_recorder_is_for_one_connection() -> None:
    config = ClientConfig(user="alice", record=Recorder(lambda _: None))
    ClientConnection(config, 0.0)
    with pytest.raises(InvalidArgument, match="records one connection"):
        ClientConnection(config, 0.0)


def test_the_end_is_told_when_all_has_been_taken_and_after_what_follows() -> None:
    ends: list[int] = []
    trace = bytearray()
    recorder = Recorder(trace.extend, Privacy.REPLAY, on_end=lambda: ends.append(len(trace)))
    conn = ClientConnection(ClientConfig(user="alice", record=recorder), 0.0)
    conn.data_to_send()
    conn.disconnect("that is all")
    assert conn.next_event() is not None
    assert not ends
    assert conn.data_to_send()
    assert ends == [len(trace)]
    conn.disconnect()
    conn.data_to_send()
    assert len(ends) == 2
    assert ends[-1] == len(trace)
    assert named(trace, "ssh:api_call")[-1]["call"] == "disconnect"


def test_asking_again_for_nothing_is_not_recorded() -> None:
    trace = bytearray()
    conn = ClientConnection(ClientConfig(user="alice", record=Recorder(trace.extend, Privacy.REPLAY)), 0.0)
    conn.data_to_send()
    for _ in range(5):
        assert conn.next_event() is None
        assert conn.data_to_send() == b""
        assert conn.next_deadline()
    assert [record.name for record in records(trace)][-2:] == ["ssh:bytes_out", "ssh:idle"]
    conn.handle_timeout(1.0)
    conn.next_event()
    assert [record.name for record in records(trace)][-3:] == ["ssh:clock", "ssh:api_result", "ssh:idle"]


def test_of_what_is_to_be_sent_only_what_is_taken_is_written() -> None:
    """A writer gives what is left again and again; a trace has it once."""
    recorded = traces.make()
    pair = recorded.pair.login()
    conn = pair.client.conn
    channel = conn.open_channel(Session())
    pair.run()
    size = len(recorded.client)
    data = memoryview(bytes(5_000_000))
    pair.server.auto_credit = False
    taken = conn.send(channel, data)
    assert 0 < taken < len(data)
    assert conn.send(channel, data[taken:]) == 0
    sends = [
        data["args"]["data"]["$bytes"] for data in named(recorded.client, "ssh:api_call") if data["call"] == "send"
    ]
    first, second = (len(text) // 2 for text in sends)
    assert taken < first < taken + 2000  # room is reckoned without the packets' own bytes
    assert second == 1
    assert len(recorded.client) - size < 3 * taken
    assert verify(bytes(recorded.client)).exact


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"aXbXcX")[::2], "abc", 7])
def test_data_of_any_kind_is_recorded_or_refused(data: Any) -> None:
    recorded = traces.make()
    pair = recorded.pair.login()
    channel = pair.client.conn.open_channel(Session())
    pair.run()
    try:
        pair.client.conn.send(channel, data)
    except (UsageError, TypeError):
        assert "error" in named(recorded.client, "ssh:api_result")[-1]
    else:
        assert named(recorded.client, "ssh:api_call")[-1]["args"]["data"] == {"$bytes": b"abc".hex()}


def test_an_answer_by_another_answer_is_one_step() -> None:
    recorded = traces.make(server_answer=None)
    pair = recorded.pair
    pair.run()
    question = pair.server.conn.questions[0]
    pair.server.conn.refuse(question)
    assert [data["call"] for data in named(recorded.server, "ssh:api_call")] == ["refuse"]


def test_arguments_that_no_method_has_change_nothing() -> None:
    trace = bytearray()
    conn = ClientConnection(ClientConfig(user="alice", record=Recorder(trace.extend, Privacy.REPLAY)), 0.0)
    size = len(trace)
    with pytest.raises(TypeError):
        conn.disconnect(1, 2, 3)  # type: ignore[call-arg,misc]
    assert len(trace) == size


def test_a_subclass_is_recorded_by_what_it_calls() -> None:
    class Mine(ClientConnection):
        def twice(self) -> None:
            self.disconnect("once")

    trace = bytearray()
    Mine(ClientConfig(user="alice", record=Recorder(trace.extend, Privacy.REPLAY)), 0.0).twice()
    assert [data["call"] for data in named(trace, "ssh:api_call")] == ["disconnect"]


def test_a_recorded_connection_goes_away() -> None:
    import weakref

    gone = weakref.ref(ClientConnection(ClientConfig(user="alice", record=Recorder(lambda _: None)), 0.0))
    gc.collect()
    assert gone() is None


def test_a_connection_that_cannot_be_made_is_told() -> None:
    def entropy(count: int, label: str) -> bytes:
        raise OSError("there is none")

    trace = bytearray()
    recorder = Recorder(trace.extend, Privacy.REPLAY)
    with pytest.raises(OSError, match="there is none"):
        ClientConnection(ClientConfig(user="alice", entropy=entropy, record=recorder), 0.0)
    assert named(trace, "ssh:api_result")[0]["error"]["$error"] == "OSError"


# --------------------------------------------------------------------------------------------------------------- values


def back(value: Any) -> Any:
    """A value through JSON and back."""
    decoder = Decoder(lambda key: pytest.fail("no private key was written"))
    return decoder.value(json.loads(json.dumps(exact(value))))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -5,
        2**63,
        0.1,
        1e300,
        float("inf"),
        "",
        "ä\udc80\n",
        b"",
        b"\x00\xff",
        (),
        (1, ("a", b"b")),
        Session(),
        Exec(b"ls\xff"),
        PtyRequest("vt100", 80, 25, modes=((1, 3), (2, 4))),
        Signal("TERM"),
        UnknownRequest("x@y", b"\x01"),
        events.Prompt(text="Name?", echo=True),
        events.CredentialNeeded(id=3, methods=("password",), partial_success=True, attempt=2),
        HOST_KEY.public_key,
        events.HostKeyOffered(id=1, key=HOST_KEY.public_key, algorithm="ssh-ed25519"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_come_back(value: Any) -> None:
    assert back(value) == value
    assert type(back(value)) is type(value)


def test_a_number_that_is_none_comes_back() -> None:
    assert str(back(float("nan"))) == "nan"


def test_a_private_key_comes_back_without_its_private_part() -> None:
    made: list[Any] = []

    def sign(key: Any) -> Any:
        made.append(key)
        return key

    assert Decoder(sign).value(exact(USER_KEY)) == USER_KEY.public_key
    assert made == [USER_KEY.public_key]


@pytest.mark.parametrize("role", list(Role))
def test_a_configuration_comes_back(role: Role) -> None:
    common: dict[str, Any] = {
        "preferences": Preferences(cipher=("aes128-ctr",), mac_server_to_client=("hmac-sha2-512",)),
        "limits": Limits(packet=100_000, window=70_000),
        "timeouts": Timeouts(keepalive=5.0, rekey=None),
        "software": "other_1",
        "comments": "more",
        "debug_raise": True,
    }
    config: Any
    if role is Role.CLIENT:
        config = ClientConfig(user="bob", eager=False, gex_bits=(2048, 2048, 4096), **common)
    else:
        keys = (HOST_KEY.public_key, PrivateKey.generate("ecdsa-sha2-nistp256").public_key)
        tokens = SecurityKeyPolicy(user_verification=True)
        common |= {"ask_none": True, "banner": "hello\n", "security_keys": tokens}
        config = ServerConfig(host_keys=keys, auth_methods=("password",), **common)
    written = json.loads(json.dumps(values.config(config, Privacy.REPLAY)))
    assert Decoder(lambda key: pytest.fail("none was given")).config(role, written) == config


def test_what_a_security_key_said_comes_back() -> None:
    for assertion in (None, Assertion(5, 2**32 - 1, "https://example.org")):
        question = events.KeyAuth(
            id=7, user="me", key=HOST_KEY.public_key, algorithm="ssh-ed25519", assertion=assertion
        )
        written = json.loads(json.dumps(exact(question)))
        assert Decoder(lambda key: pytest.fail("none was given")).value(written, "x") == question


def test_a_configuration_of_an_older_version_has_the_defaults_for_what_is_new() -> None:
    written = values.config(ClientConfig(user="bob"), Privacy.REPLAY)
    del written["eager"], written["limits"]["packet"]
    decoder = Decoder(lambda key: pytest.fail("none was given"))
    assert decoder.config(Role.CLIENT, written) == ClientConfig(user="bob")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": 1}, "'colour', which this version"),
        ({"record": None}, "'record', which this version"),
        ({"limits": {"colours": 1}}, "Limits has no field 'colours'"),
        ({"limits": {"packet": -1}}, "packet must be a number from 0"),
        ({"limits": 5}, "an object was expected, int came"),
        ({"limits": None}, "an object was expected"),
        ({"user": ""}, "user must be"),
        ({"user": {"$opaque": "X"}}, "a X was given"),
        ({"preferences": {"cipher": ["rot13"]}}, "'rot13' is not implemented"),
        ({"gex_bits": [1]}, "gex_bits must be three sizes"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(change: dict[str, Any], words: str) -> None:
    written = values.config(ClientConfig(user="bob"), Privacy.REPLAY) | change
    with pytest.raises(TraceError, match=re.escape(words)):
        Decoder(lambda key: pytest.fail("none was given")).config(Role.CLIENT, written)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({}, "an object without a key"),
        ({"other": 1}, "an object without a key"),
        (2**70, "64 bits"),
        ({"$bytes": 5}, "not hexadecimal"),
        ({"$bytes": "0g"}, "not hexadecimal"),
        ({"$bytes": "00", "length": 999, "sha256": "00"}, "only the first bytes"),
        ({"$class": "ClientConfig"}, "there is no class 'ClientConfig'"),
        ({"$class": ["Exec"]}, "there is no class"),
        ({"$class": "Exec", "colour": 1}, "no field 'colour'"),
        ({"$class": "Exec"}, "no Exec"),
        ({"$question": 5}, "no question 5 was asked"),
        ({"$question": [5]}, "no question"),
        ({"$public_key": "00"}, "not a public key"),
        ({"$public_key": HOST_KEY.public_key.blob.hex(), "comment": 1}, "a comment is text"),
        ({"$float": "many"}, "no number"),
        ({"$opaque": "generator"}, "a generator was given"),
        ({"$hidden": "str"}, "an object without a key"),
    ],
)
def test_values_that_make_no_sense_are_refused(written: Any, words: str) -> None:
    with pytest.raises(TraceError, match=re.escape(words)):
        Decoder(lambda key: pytest.fail("none was given")).value(written)


def test_what_cannot_be_written_is_told() -> None:
    assert exact(number for number in ()) == {"$opaque": "generator"}
    assert shown(object(), Privacy.PAYLOAD) == {"$hidden": "object"}


def test_what_holds_itself_is_written_as_far_as_it_goes() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert str(exact(endless)).count("[") < 20
    assert str(shown(endless, Privacy.PAYLOAD)).count("[") < 20
    trace = bytearray()
    conn = ClientConnection(ClientConfig(user="alice", record=Recorder(trace.extend, Privacy.REPLAY)), 0.0)
    with pytest.raises(InvalidArgument):
        conn.disconnect(endless)  # type: ignore[arg-type]
    assert named(trace, "ssh:api_call")[-1]["call"] == "disconnect"


def test_connections_share_nothing_of_their_methods() -> None:
    conn = ClientConnection(ClientConfig(user="alice", record=Recorder(lambda _: None)), 0.0)
    assert "send" in vars(conn)
    assert Connection.send is ClientConnection.send
