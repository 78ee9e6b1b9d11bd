"""A replay gives what was recorded; a core that was changed does not, and the report says where."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from sshproto import algorithms
from sshproto import events as ev
from sshproto.channels import payloads
from sshproto.channels.mux import Mux
from sshproto.channels.requests import Exec, HostKeysProve, Session
from sshproto.config import Preferences
from sshproto.keys import FOREVER, Certificate, CertificateKind
from sshproto.keys.private import PrivateKey
from sshproto.keys.public import PublicKey
from sshproto.replay.trace import recording
from sshproto.replay.trace.file import LONGEST_RECORD, Privacy, Record, Trace, TraceError, read
from sshproto.replay.trace.verify import Divergence, Player, Steps, Verifier, verify
from sshproto.timers import Timer, Timers
from sshproto.transport import packets
from sshproto.transport.link import Link
from sshproto.transport.outbox import Outbox
from tests.support import traces
from tests.support.pair import USER_KEY, bytewise, client_answers, server_answers

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def lively() -> tuple[bytes, bytes]:
    return traces.lively().both()


def step_of(trace: bytes, name: str, **data: Any) -> int:
    """The first step with such a record."""
    for record in read(trace).records:
        if record.name == name and all(record.data.get(key) == value for key, value in data.items()):
            return int(record.data["step"])
    raise AssertionError(f"there is no {name}")


# ---------------------------------------------------------------------------------------------------------------- exact


@pytest.mark.parametrize("kex", algorithms.KEX_DEFAULT + algorithms.KEX_EXTRA + algorithms.KEX_LEGACY)
def test_every_key_exchange_replays(kex: str) -> None:
    """ML-KEM randomises by itself; all else is drawn from what the trace has."""
    for trace in traces.lively(preferences=Preferences(kex=(kex,))).both():
        assert verify(trace).exact


def test_host_certificates_and_proofs_of_host_keys_replay() -> None:
    keys = PrivateKey.generate(), PrivateKey.generate("ssh-rsa")
    authority = PrivateKey.generate()
    certificate = Certificate.issue(
        authority, keys[0].public_key, CertificateKind.HOST, key_id="canary", principals=("h",), valid_before=FOREVER
    )

    def admit(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.GlobalRequested):
            conn.prove_host_keys(question)
        else:
            server_answers(conn, question)

    asking = {"preferences": Preferences(host_key=(certificate.type,))}
    server = {"host_keys": keys, "host_certificates": (certificate,), "preferences": Preferences()}

    def session(privacy: Privacy) -> tuple[bytes, bytes]:
        recorded = traces.make(privacy, client=asking, server=server, server_answer=admit)
        pair = recorded.pair.login()
        pair.server.conn.announce_host_keys()
        pair.run()
        pair.client.conn.global_request(HostKeysProve(tuple(key.public_key.blob for key in keys)))
        pair.run()
        assert pair.client.of(ev.GlobalSucceeded)
        assert pair.client.of(ev.HostKeyOffered)[0].certificate == certificate
        return recorded.both()

    for trace in session(Privacy.REPLAY):
        assert verify(trace).exact
        assert certificate.blob.hex().encode() in trace
    for privacy in (Privacy.METADATA, Privacy.PAYLOAD):
        seen, _ = session(privacy)
        [offered] = [record for record in read(seen).records if record.name == "ssh:host_key_offered"]
        told = json.dumps(offered.data)
        assert authority.public_key.fingerprint() in told
        assert certificate.fingerprint() in told
        assert "canary" not in told


@pytest.mark.parametrize("type", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521", "ssh-rsa"])
@pytest.mark.parametrize("probe", [None, True])
def test_every_kind_of_key_replays_without_its_private_part(type: str, probe: bool | None) -> None:
    key = PrivateKey.generate(type)

    def answer(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.CredentialNeeded):
            conn.auth_public_key(question, key, probe=probe)
        else:
            client_answers(conn, question)

    def admit(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.KeyProbe):
            conn.offer_key(question)
        elif isinstance(question, ev.KeyAuth):
            conn.accept_auth(question)

    recorded = traces.make(
        server={"host_keys": (PrivateKey.generate(type),)}, client_answer=answer, server_answer=admit
    )
    recorded.pair.login()
    for trace in recorded.both():
        assert verify(trace).exact


@pytest.mark.parametrize("type", ["ssh-ed25519", "ssh-rsa"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_logins_with_certificates_replay(type: str, elsewhere: bool) -> None:
    key, authority = PrivateKey.generate(type), PrivateKey.generate()
    certificate = Certificate.issue(
        authority, key.public_key, CertificateKind.USER, key_id="canary", principals=("alice",), valid_before=FOREVER
    )

    def answer(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.CredentialNeeded):
            conn.auth_public_key(question, key.public_key if elsewhere else key, certificate=certificate)
        elif isinstance(question, ev.SignatureNeeded):
            conn.sign(question, key.sign(question.data, question.algorithm))
        else:
            client_answers(conn, question)

    def admit(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.KeyProbe):
            conn.offer_key(question)
        elif isinstance(question, ev.KeyAuth):
            conn.accept_auth(question)

    for privacy in (Privacy.REPLAY, Privacy.METADATA):
        recorded = traces.make(privacy, client_answer=answer, server_answer=admit)
        recorded.pair.login()
        assert recorded.pair.server.of(ev.Authenticated)[0].certificate == certificate
        for trace in recorded.both():
            if privacy is Privacy.REPLAY:
                assert verify(trace).exact
            else:
                assert b"canary" not in trace
        if privacy is Privacy.METADATA:
            told = json.dumps([record.data for record in read(recorded.both()[1]).records])
            assert certificate.fingerprint() in told
            assert authority.public_key.fingerprint() in told


@pytest.mark.parametrize("cipher", ["chacha20-poly1305@openssh.com", "aes256-ctr", "3des-cbc"])
@pytest.mark.parametrize("compression", ["none", "zlib", "zlib@openssh.com"])
def test_ciphers_and_compression_replay(cipher: str, compression: str) -> None:
    preferences = Preferences(kex=("curve25519-sha256",), cipher=(cipher,), compression=(compression,))
    for trace in traces.lively(preferences=preferences).both():
        assert verify(trace).exact


def test_signatures_of_an_agent_are_answers_like_others() -> None:
    key = PrivateKey.generate()

    def answer(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.CredentialNeeded):
            conn.auth_public_key(question, USER_KEY.public_key)
        elif isinstance(question, ev.SignatureNeeded):
            conn.sign(question, USER_KEY.sign(question.data, question.algorithm))
        else:
            client_answers(conn, question)

    def sign(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.SignatureNeeded):
            conn.sign(question, key.sign(question.data, question.algorithm))
        else:
            server_answers(conn, question)

    recorded = traces.make(server={"host_keys": (key.public_key,)}, client_answer=answer, server_answer=sign)
    recorded.pair.login()
    for trace in recorded.both():
        assert verify(trace).exact


def test_passwords_prompts_and_requests_replay() -> None:
    for trace in traces.confide(Privacy.REPLAY).both():
        assert verify(trace).exact


def test_misuse_timeouts_and_a_late_end_replay() -> None:
    recorded = traces.make()
    pair = recorded.pair.login()
    conn = pair.client.conn
    for call in (
        lambda: conn.send(99, b"x"),
        lambda: conn.open_channel("session"),
        lambda: conn.auth_none(ev.CredentialNeeded(id=77)),
        lambda: conn.accept_host_key(pair.client.of(ev.HostKeyOffered)[0]),
        lambda: conn.debug("\udc80"),
        lambda: conn.request(0, Exec(5)),  # type: ignore[arg-type]
        lambda: conn.receive_data("text", 1.0),  # type: ignore[arg-type]
        lambda: conn.handle_timeout("noon"),  # type: ignore[arg-type]
    ):
        with contextlib.suppress(Exception):
            call()
    pair.sleep(3601)
    conn.open_channel(Session())
    pair.lose()
    conn.disconnect("too late")
    raised = {
        record.data["error"]["$error"] for record in read(bytes(recorded.client)).records if "error" in record.data
    }
    assert raised >= {"UnknownChannel", "InvalidArgument", "AlreadyAnswered"}
    for trace in recorded.both():
        assert verify(trace).exact


def test_a_trace_replays_in_another_process_with_other_hashes(lively: tuple[bytes, bytes], tmp_path: Path) -> None:
    path = tmp_path / "client.sqlog"
    path.write_bytes(lively[0])
    verify = "from sshproto.replay.trace.verify import verify"
    code = f"import sys; {verify}; print(verify(open(sys.argv[1], 'rb').read()).exact)"
    for seed in ("0", "1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "True\n"


def test_it_replays_as_it_is_read(lively: tuple[bytes, bytes]) -> None:
    verifier = Verifier()
    for start in range(0, len(lively[0]), 10_000):
        assert verifier.feed(lively[0][start : start + 10_000]) is None
    verdict = verifier.finish()
    assert verdict.exact
    assert verdict.steps == len({record.data["step"] for record in read(lively[0]).records})


def test_what_others_have_said_in_the_file_does_not_matter(lively: tuple[bytes, bytes]) -> None:
    trace = read(lively[0])
    records = [Record(0, "loglevel:info", {"message": "hello"}), *trace.records]
    assert verify(Trace(trace.header, tuple(records), None).encode()).exact


# ------------------------------------------------------------------------------------------------------- a changed core


def diverges(trace: bytes) -> Divergence:
    divergence = verify(trace).divergence
    assert divergence is not None
    return divergence


def test_another_encoding_is_caught_where_the_message_is_sealed(
    lively: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same length, so that only the content tells."""
    encode = payloads.request
    monkeypatch.setattr(payloads, "request", lambda *what, **how: encode(*what, **how)[:-1] + b"X")
    divergence = diverges(lively[0])
    assert divergence.step == step_of(lively[0], "ssh:packet_sent", msg_name="ChannelRequest")
    assert divergence.call == "request"
    assert [where for where, _, _ in divergence.differences()] == ["data.sha256"]


def test_another_length_is_caught_and_both_sides_are_told(
    lively: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = payloads.request
    monkeypatch.setattr(payloads, "request", lambda *what, **how: encode(*what, **how) + b"more")
    divergence = diverges(lively[0])
    assert divergence.expected is not None
    assert divergence.got is not None
    before, now = divergence.expected.data["raw"]["length"], divergence.got.data["raw"]["length"]
    assert now == before + 4
    assert f"at data.raw.length: expected {before}, got {now}" in str(divergence)
    told = divergence.as_dict()
    assert told["offset"] == divergence.expected.offset
    assert json.loads(json.dumps(told)) == told
    assert lively[0][told["offset"] :].startswith(b'\x1e{"time"')


def test_another_field_of_an_event_is_caught(lively: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    made = ev.AuthSucceeded.__init__
    monkeypatch.setattr(ev.AuthSucceeded, "__init__", lambda self, method, trivial: made(self, method, not trivial))
    divergence = diverges(lively[0])
    assert divergence.step == step_of(lively[0], "ssh:auth_result")
    assert divergence.call == "next_event"
    assert divergence.differences() == [("data.event.trivial", False, True)]


def test_another_window_rule_is_caught(lively: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    encode = payloads.adjust
    monkeypatch.setattr(payloads, "adjust", lambda recipient, count: encode(recipient, count + 1))
    divergence = diverges(lively[0])
    assert divergence.step == step_of(lively[0], "ssh:packet_sent", msg_name="ChannelWindowAdjust")


def test_a_packet_too_few_is_caught(lively: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mux, "credit", lambda self, channel, count: None)
    divergence = diverges(lively[0])
    assert divergence.step == step_of(lively[0], "ssh:packet_sent", msg_name="ChannelWindowAdjust")
    assert divergence.call == "credit"
    assert divergence.got is not None
    assert divergence.got.name == "ssh:api_result"


def test_an_event_too_many_is_caught(lively: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    emit = Link.emit

    def twice(self: Any, event: ev.Event) -> None:
        emit(self, event)
        if isinstance(event, ev.ExtInfoReceived):
            emit(self, event)

    monkeypatch.setattr(Link, "emit", twice)
    divergence = diverges(lively[0])
    assert divergence.step == step_of(lively[0], "ssh:ext_info") + 1
    assert divergence.got is not None
    assert divergence.got.name == "ssh:ext_info"


def test_another_deadline_is_caught(lively: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    arm = Timers.arm
    monkeypatch.setattr(
        Timers,
        "arm",
        lambda self, timer, seconds: arm(self, timer, seconds and seconds + (timer is Timer.HANDSHAKE)),
    )
    divergence = diverges(lively[0])
    assert divergence.step == 0
    assert divergence.differences() == [("data.deadline", 60.0, 61.0)]


def test_another_use_of_randomness_is_caught(lively: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "_PADDING_POOL", packets._PADDING_POOL // 2)
    divergence = diverges(lively[0])
    assert divergence.expected is not None
    assert divergence.expected.name == "ssh:entropy"
    assert divergence.expected.data["label"] == "padding"


def test_another_order_of_packets_is_caught(lively: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    take = Outbox.take
    monkeypatch.setattr(Outbox, "take", lambda self: take(self)[::-1])
    divergence = diverges(lively[0])
    assert divergence.step == step_of(lively[0], "ssh:bytes_out")
    assert divergence.call == "data_to_send"


def test_a_bug_of_the_core_is_an_outcome_like_others(
    lively: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, payload: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Mux, "data", fail)
    divergence = diverges(lively[0])
    assert divergence.got is not None
    assert divergence.got.data["error"]["$error"] == "ZeroDivisionError"


def test_nothing_is_replayed_after_the_first_difference(
    lively: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mux, "credit", lambda self, channel, count: None)
    verifier = Verifier()
    first = verifier.feed(lively[0])
    assert first is not None
    assert verifier.feed(b"what is no trace at all") is first
    verdict = verifier.finish()
    assert verdict.divergence is first
    assert verdict.steps == first.step


def test_true_is_not_one(lively: tuple[bytes, bytes]) -> None:
    trace = read(lively[0])
    records = list(trace.records)
    place = next(i for i, record in enumerate(records) if record.name == "ssh:auth_result")
    event = {**records[place].data["event"], "trivial": 0}
    records[place] = attrs.evolve(records[place], data={**records[place].data, "event": event})
    assert diverges(Trace(trace.header, tuple(records), None).encode()).differences() == [
        ("data.event.trivial", 0, False)
    ]


def test_a_trace_of_another_version_has_limits_that_this_one_does_not_set(lively: tuple[bytes, bytes]) -> None:
    trace = read(lively[0])
    first, *others = trace.records
    config = {key: value for key, value in first.data["config"].items() if key != "allow_trivial_auth"}
    records = (attrs.evolve(first, data={**first.data, "config": config}), *others)
    assert verify(Trace(trace.header, records, None).encode()).exact


# ------------------------------------------------------------------------------------------------ what cannot be played


def altered(trace: bytes, name: str, **data: Any) -> bytes:
    """A trace with other data in the first record of that name."""
    found = read(trace)
    records = list(found.records)
    place = next(i for i, record in enumerate(records) if record.name == name)
    records[place] = attrs.evolve(records[place], data={**records[place].data, **data})
    return Trace(found.header, tuple(records), None).encode()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("ssh:connection_started", {"now": "noon"}, "seconds were expected"),
        ("ssh:connection_started", {"config": None}, "an object was expected"),
        ("ssh:connection_started", {"step": -1}, "a step after -1"),
        ("ssh:connection_started", {"step": True}, "a step after -1"),
        ("ssh:bytes_in", {"raw": {"length": 1}}, "not hexadecimal"),
        ("ssh:bytes_in", {"raw": None}, "an object with 'data'"),
        ("ssh:bytes_in", {"now": {"$float": "nan"}}, "seconds were expected"),
        ("ssh:api_call", {"call": "_engine"}, "there is no method '_engine'"),
        ("ssh:api_call", {"call": "next_deadline"}, "there is no method 'next_deadline'"),
        ("ssh:api_call", {"call": 5}, "there is no method ''"),
        ("ssh:api_call", {"args": []}, "an object was expected"),
        ("ssh:api_call", {"args": {"question": {"$question": 999}}}, "no question 999"),
        ("ssh:entropy", {"raw": {"data": "x"}}, "not hexadecimal"),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    lively: tuple[bytes, bytes], name: str, data: dict[str, Any], words: str
) -> None:
    trace = altered(lively[0], name, **data)
    with pytest.raises(TraceError, match=words) as caught:
        verify(trace)
    assert trace[caught.value.offset : caught.value.offset + 1] == b"\x1e"


def test_a_trace_of_another_level_is_refused() -> None:
    for level in (Privacy.LENGTHS, Privacy.METADATA, Privacy.PAYLOAD):
        with pytest.raises(TraceError, match=f"not '{level.value}'"):
            verify(traces.lively(level).both()[0])


@pytest.mark.parametrize("count", [0, 1])
def test_a_trace_without_a_beginning_is_refused(lively: tuple[bytes, bytes], count: int) -> None:
    trace = read(lively[0])
    with pytest.raises(TraceError, match=r"begins with ssh:connection_started|before the connection was made"):
        verify(Trace(trace.header, trace.records[5 : 5 + count], None).encode())


def test_a_key_that_has_not_signed_signs_nothing(lively: tuple[bytes, bytes]) -> None:
    """The trace has no private key; without the signature there is none."""
    trace = read(lively[0])
    records = tuple(record for record in trace.records if record.data.get("label") != "signature")
    assert len(records) < len(trace.records)
    divergence = diverges(Trace(trace.header, records, None).encode())
    assert divergence.got is not None
    assert "SignatureInvalid" in str(divergence.got.data["error"])
    assert isinstance(recording.SigningKey(USER_KEY.public_key, None, lambda *_: b"").public_key, PublicKey)


def test_what_a_trace_may_make_grow_is_bounded(lively: tuple[bytes, bytes]) -> None:
    """A compressed packet inflates to no more than a record may have, whatever limit the trace sets itself."""
    config = read(lively[0]).records[0].data["config"]
    limits = {**config["limits"], "packet": 2**60}
    taken = Steps()
    trace = read(altered(lively[0], "ssh:connection_started", config={**config, "limits": limits}))
    first = next(taken.feed(trace.records))
    assert trace.header is not None
    assert Player(trace.header, first).conn._engine.config.limits.packet == LONGEST_RECORD


def test_bytewise(lively: tuple[bytes, bytes]) -> None:
    """A trace has the chunks as they came."""
    recorded = traces.make(chunker=bytewise)
    recorded.pair.login()
    trace = bytes(recorded.client)
    chunks = [record.data["raw"]["length"] for record in read(trace).records if record.name == "ssh:bytes_in"]
    assert set(chunks) == {1}
    assert verify(trace).exact
