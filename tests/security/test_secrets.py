"""Canaries: secrets that are looked for wherever they must not be.

Passwords, answers, passphrases, private keys, shared secrets and derived keys are put into whole runs, and then looked
for, in every form in which they could be written, in what is shown of events, errors, traces, configurations and
connections, in tracebacks with the variables of their frames, in pickles, on the wire, and in what a connection still
holds when it needs them no more.
"""

from __future__ import annotations

import base64
import copy
import gc
import logging
import pickle
import secrets
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from sshproto import events as ev
from sshproto.config import ClientConfig, Limits, Preferences, Trace
from sshproto.errors import AuthExhausted, InternalError, InvalidArgument, KeyFormatError, SignatureInvalid, SSHError
from sshproto.keys.private import PrivateKey
from sshproto.transport import keyexchange, macs
from sshproto.wire import messages as m
from sshproto_io import blocking
from tests.support.middle import Middle
from tests.support.pair import End, Pair
from tests.support.rogue import inject, loss
from tests.support.seeds import HOST, HOST_KEY, USER_KEY
from tests.support.talk import talking

CORE = Path(__file__).resolve().parents[2]
PASSWORD, REPLACEMENT, ANSWER = "canary-pass-Zürich", "canary-new-9d1f", "canary-answer-77aa"
PASSPHRASE = b"canary-phrase-5c5c"
SUITES = {
    "gcm": ("aes256-gcm@openssh.com", "hmac-sha2-256"),
    "chacha20-poly1305": ("chacha20-poly1305@openssh.com", "hmac-sha2-256"),
    "ctr-etm": ("aes256-ctr", "hmac-sha2-256-etm@openssh.com"),
    "ctr": ("aes256-ctr", "hmac-sha2-256"),
}


def forms(secret: str | bytes) -> Iterator[str]:
    """What a secret may look like in a text."""
    data = secret.encode() if isinstance(secret, str) else secret
    yield data.decode("latin-1")
    yield repr(data)[2:-1]
    yield data.hex()
    yield data.hex(":")
    yield base64.b64encode(data).decode().rstrip("=")[:-1]
    yield ", ".join(map(str, data))
    yield str(int.from_bytes(data, "big"))
    if isinstance(secret, str):
        yield secret
        yield repr(secret)[1:-1]


class Canaries:
    """Secrets, and where they have been seen."""

    def __init__(self, *found: str | bytes) -> None:
        self._forms: set[str] = set()
        self.add(*found)

    def add(self, *found: str | bytes) -> None:
        for secret in found:
            if len(secret) >= 8:
                self._forms.update(forms(secret))

    def hunt(self, text: str, where: str) -> None:
        for form in self._forms:
            assert form not in text, f"a secret is in {where}: {text[:300]!r}"

    def hunt_bytes(self, data: bytes, where: str) -> None:
        self.hunt(data.decode("latin-1"), where)


def with_locals(error: BaseException) -> str:
    """All that a service for error reports sees."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def our_frames(error: BaseException) -> list[types.FrameType]:
    """The frames of ours that an error has come through."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = f"{CORE}/sshproto/", f"{CORE}/adapters/"
    return [frame for frame in frames if frame.f_code.co_filename.startswith(ours)]


def private_bytes(key: PrivateKey) -> bytes:
    found: bytes = key._handle.private_bytes_raw()
    return found


# ----------------------------------------------------------------------------------------------------------- whole runs


class App:
    """Logs in with everything in turn: a key, a password that has expired, and questions."""

    def __call__(self, conn: Any, question: ev.Question) -> None:
        match question:
            case ev.HostKeyOffered():
                conn.accept_host_key(question)
            case ev.CredentialNeeded(attempt=0):
                conn.auth_public_key(question, USER_KEY, probe=True)
            case ev.CredentialNeeded(attempt=1):
                conn.auth_password(question, PASSWORD)
            case ev.CredentialNeeded():
                conn.auth_keyboard_interactive(question)
            case ev.PasswordExpired():
                conn.new_password(question, PASSWORD, REPLACEMENT)
            case ev.PromptsReceived():
                conn.answer_prompts(question, [ANSWER])
            case _:
                conn.refuse(question)


def wanting_all(conn: Any, question: ev.Question) -> None:
    match question:
        case ev.KeyProbe():
            conn.offer_key(question)
        case ev.KeyAuth():
            conn.reject_auth(question, partial=True)
        case ev.PasswordAuth(new_password=None):
            conn.change_password(question, "expired")
        case ev.PasswordAuth():
            conn.reject_auth(question, partial=True)
        case ev.InteractiveAuth():
            conn.prompt(question, [ev.Prompt(text="Code: ", echo=False)])
        case ev.PromptsAnswered():
            conn.accept_auth(question)
        case _:
            conn.refuse(question)


def slots(thing: Any) -> dict[str, Any]:
    """What an object holds that has no dict."""
    return {name: getattr(thing, name) for name in type(thing).__slots__}


class Run:
    """A run with all secrets in it.

    Attributes:
        middle: The pair.
        canaries: Everything secret.
        traces: What both trace hooks were given.
    """

    def __init__(self, suite: tuple[str, str], patch: pytest.MonkeyPatch, **options: Any) -> None:
        self.canaries = Canaries(PASSWORD, REPLACEMENT, ANSWER, private_bytes(USER_KEY), private_bytes(HOST_KEY))
        self.traces: list[Trace] = []
        original = keyexchange.direction_keys

        def noting(hash_name: str, secret: bytes, *arguments: Any, **more: Any) -> Any:
            keys = original(hash_name, secret, *arguments, **more)
            self.canaries.add(secret, secret[4:], keys.key, keys.mac_key)
            return keys

        patch.setattr(keyexchange, "direction_keys", noting)
        ephemerals = self.canaries

        def entropy(count: int, label: str) -> bytes:
            found = secrets.token_bytes(count)
            if label == "kex":
                ephemerals.add(found)
            return found

        cipher, mac = suite
        common = {
            "preferences": Preferences(kex=("curve25519-sha256",), cipher=(cipher,), mac=(mac,)),
            "trace": self.traces.append,
            "entropy": entropy,
            **options,
        }
        self.middle = Middle(
            client=common,
            server={**common, "auth_methods": ("publickey", "password", "keyboard-interactive")},
            client_answer=App(),
            server_answer=wanting_all,
        )

    def hunt_everywhere(self) -> None:
        hunt = self.canaries.hunt
        for trace in self.traces:
            hunt(repr(trace) + str(trace.message), "a trace")
        for end in (self.middle.client, self.middle.server):
            conn = end.conn
            for event in end.events:
                hunt(f"{event} {event!r} {ev.show(event)}", f"the event {type(event).__name__}")
            engine = conn._engine
            shown = [conn, engine, engine.config, engine.kex, engine.auth, engine.outbox, engine.opener, engine.mux]
            shown += [conn.questions, conn.negotiated, conn.host_key, engine.kex._round, slots(engine.kex)]
            for thing in shown:
                hunt(f"{thing} {thing!r}", f"a {type(thing).__name__}")
            self.canaries.hunt_bytes(bytes(end.sent), "what was sent")


@pytest.mark.covers("R169", "V40")
@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_no_secret_is_shown_in_a_whole_run(
    suite: tuple[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Looked for at every event as well, when the secrets are in use."""
    with caplog.at_level(logging.DEBUG):
        run = Run(suite, monkeypatch)
        for end in (run.middle.client, run.middle.server):
            end.react = lambda conn, event: run.hunt_everywhere()
        run.middle.run()
        run.middle.client.conn.rekey()
        run.middle.run()
    assert run.middle.client.of(ev.AuthSucceeded)
    assert len(run.middle.client.of(ev.KeysExchanged)) == 2
    run.hunt_everywhere()
    run.canaries.hunt(caplog.text, "the log")


FAULTS: dict[str, Callable[[Any, End], None]] = {
    "a bad tag": lambda run, end: None,
    "another message": lambda run, end: inject(end, m.NewKeys()),
    "a malformed message": lambda run, end: inject(end, b"\x32" + b"\xff" * 40),
    "a goodbye": lambda run, end: inject(end, m.Disconnect(2, "bye")),
    "a bomb of requests": lambda run, end: [inject(end, m.UserauthRequest("x", "y", "z")) for _ in range(200)] and None,
}


@pytest.mark.covers("R169")
@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("side", ["client", "server"])
def test_no_secret_is_in_the_error_that_ends_a_run(
    suite: tuple[str, str], fault: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer's fault comes when the password has just been typed, or looked at."""
    run = Run(suite, monkeypatch)
    victim = run.middle.end(side)
    peer = run.middle.end("server" if side == "client" else "client")
    done: list[bool] = []

    def strike(conn: Any, event: ev.Event) -> None:
        if isinstance(event, (ev.PasswordExpired, ev.PasswordAuth)) and not done:
            done.append(True)
            FAULTS[fault](run, peer)
            data = bytearray(peer.conn._engine.outbox.take() or bytes(64))
            if fault == "a bad tag":
                data[-1] ^= 1
            victim.conn.receive_data(bytes(data), 0.0)

    victim.react = strike
    run.middle.run()
    for _ in range(100):
        if victim.lost is not None:
            break
        victim.conn.receive_data(bytes(35_000), 0.0)
        victim.drain()
    error = loss(victim.events)
    for shown in (error, error.__cause__):
        if shown is not None:
            run.canaries.hunt(with_locals(shown), "the error")
            assert shown.__traceback__ is None
            run.canaries.hunt_bytes(pickle.dumps(shown), "the error's pickle")
    run.hunt_everywhere()


@pytest.mark.covers("R169")
@pytest.mark.parametrize("side", ["client", "server"])
def test_a_bug_of_ours_tells_no_secret(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the password is a variable of the frames in which it happens."""
    run = Run(SUITES["gcm"], monkeypatch, debug_raise=False)
    end = run.middle.end(side)
    kind = m.UserauthRequest if side == "server" else m.UserauthPasswdChangereq

    def stumble(conn: Any, event: ev.Event) -> None:
        engine = conn._engine
        if engine.auth is not None:
            original = engine._handlers[kind.number]

            def buggy(engine: Any, payload: Any) -> None:
                held = (bytes(payload), PASSWORD)
                if side == "client" or PASSWORD.encode() in held[0]:
                    raise ZeroDivisionError(f"{len(held)}")
                original(engine, payload)

            handlers = list(engine._handlers)
            handlers[kind.number] = buggy
            engine._handlers = handlers

    end.react = stumble
    run.middle.run()
    error = loss(end.events)
    assert isinstance(error, InternalError)
    assert isinstance(error.__cause__, ZeroDivisionError)
    run.canaries.hunt(with_locals(error) + error.details + str(error), "the error")


# ----------------------------------------------------------------------------------------------- misuse, files, pickles


def asked(kind: type[Any]) -> tuple[Any, Any]:
    """A client that waits for an answer to a question of a kind, and the question."""

    def until(conn: Any, question: ev.Question) -> None:
        if not isinstance(question, kind):
            App()(conn, question)

    middle = Middle(
        server={"auth_methods": ("publickey", "password", "keyboard-interactive")},
        client_answer=until,
        server_answer=wanting_all,
    ).run()
    (question,) = middle.client.conn.questions
    return middle.client.conn, question


LONG = "canary-long-" * 4000
MISUSE: dict[str, tuple[type[Any], Callable[[Any, Any], None]]] = {
    "long password": (ev.CredentialNeeded, lambda conn, q: conn.auth_password(q, LONG)),
    "password that is no text": (ev.CredentialNeeded, lambda conn, q: conn.auth_password(q, "canary-long-\ud800")),
    "bytes": (ev.CredentialNeeded, lambda conn, q: conn.auth_password(q, b"canary-long-")),
    "wrong question": (ev.CredentialNeeded, lambda conn, q: conn.answer_prompts(q, ["canary-long-"])),
    "long answer": (ev.PromptsReceived, lambda conn, q: conn.answer_prompts(q, [LONG])),
    "too many answers": (ev.PromptsReceived, lambda conn, q: conn.answer_prompts(q, ["canary-long-"] * 2)),
    "one answer as a text": (ev.PromptsReceived, lambda conn, q: conn.answer_prompts(q, "canary-long-")),
    "long replacement": (ev.PasswordExpired, lambda conn, q: conn.new_password(q, "canary-long-", LONG)),
}


@pytest.mark.covers("R168", "R169")
@pytest.mark.parametrize(("kind", "call"), MISUSE.values(), ids=MISUSE)
def test_a_secret_that_cannot_be_sent_is_not_in_the_error(kind: type[Any], call: Callable[[Any, Any], None]) -> None:
    """Nor in the variables of our frames, which it has passed; those of the caller are the caller's."""
    conn, question = asked(kind)
    with pytest.raises(SSHError) as raised:
        call(conn, question)
    error = raised.value
    frames = our_frames(error)
    assert frames, "it was raised by us"
    for frame in frames:
        assert "canary-long-" not in repr(frame.f_locals)
    assert "canary-long-" not in f"{error} {error!r} {error.__cause__!r} {error.__context__!r}"
    assert b"canary-long-" not in pickle.dumps(error)
    assert conn.questions == (question,)


@pytest.mark.covers("R169")
def test_a_refused_password_is_not_in_the_frames_of_a_face() -> None:
    """Of the blocking one, whose ``connect`` waits; the others have returned long before."""
    with talking(methods=("password",)) as talk, pytest.raises(AuthExhausted) as raised:
        blocking.connect(
            HOST,
            talk.server.port,
            config=ClientConfig(user="guest"),
            host_key=HOST_KEY.public_key,
            password=PASSWORD,
        )
    frames = our_frames(raised.value)
    assert frames
    for frame in frames:
        Canaries(PASSWORD).hunt(repr(frame.f_locals), "our frames")


def key_files() -> dict[str, tuple[bytes, bytes | None]]:
    """Contents that cannot be loaded, with the passphrase that is tried."""
    key = PrivateKey.generate("ecdsa-sha2-nistp256")
    good = key.openssh(PASSPHRASE, rounds=1)
    plain = key.openssh()
    body = base64.b64decode(b"".join(plain.splitlines()[1:-1]))
    swapped = body[:-40] + bytes(reversed(body[-40:-8])) + body[-8:]
    armoured = b"\n".join((plain.splitlines()[0], base64.b64encode(swapped), plain.splitlines()[-1]))
    return {
        "another passphrase": (good, PASSPHRASE + b"!"),
        "damaged": (good[:-80] + good[-60:], PASSPHRASE),
        "inconsistent": (armoured, None),
        "no key": (b"what it starts with is shown, canary-file-content", PASSPHRASE),
        "too large": (b"canary-file-content" * 10_000, PASSPHRASE),
    }


@pytest.mark.covers("R169", "V82")
@pytest.mark.parametrize("name", key_files())
def test_a_key_that_does_not_load_stays_secret(name: str) -> None:
    content, passphrase = key_files()[name]
    with pytest.raises(KeyFormatError) as raised:
        PrivateKey.load(content, passphrase)
    error = raised.value
    canaries = Canaries(PASSPHRASE, b"canary-file-content", content[40:80])
    for frame in our_frames(error):
        canaries.hunt(repr(frame.f_locals), "our frames")
    canaries.hunt(f"{error!r} {error.__cause__!r} {error.__context__!r}", "the error")


@pytest.mark.covers("R169", "V48")
def test_a_faulty_signature_is_in_no_traceback() -> None:
    """It gives the key away as well there as on the wire."""
    key = PrivateKey.generate("ssh-rsa", 2048)
    faulty: list[bytes] = []

    class Handle:
        def sign(self, *arguments: Any) -> bytes:
            faulty.append(bytes(reversed(key._handle.sign(*arguments))))
            return faulty[-1]

    broken = PrivateKey(Handle(), key.public_key)
    with pytest.raises(SignatureInvalid) as raised:
        broken.sign(b"data")
    for frame in our_frames(raised.value):
        Canaries(*faulty).hunt(repr(frame.f_locals), "our frames")


@pytest.mark.covers("R169")
@pytest.mark.parametrize(
    "event",
    [
        ev.PasswordAuth(id=1, user="alice", password=PASSWORD, new_password=REPLACEMENT),
        ev.PromptsAnswered(id=1, user="alice", answers=(ANSWER,)),
    ],
    ids=["PasswordAuth", "PromptsAnswered"],
)
def test_questions_with_secrets_are_not_pickled(event: Any) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="holds a secret and is not pickled"):
            pickle.dumps(event, protocol)
    assert copy.copy(event) is copy.deepcopy(event) is event
    assert attrs.evolve(event, id=2).id == 2
    Canaries(PASSWORD, REPLACEMENT, ANSWER).hunt(repr(event), "its repr")


@pytest.mark.covers("R169")
@pytest.mark.parametrize("when", ["new", "host key", "open"])
def test_a_connection_is_not_pickled_with_its_secrets(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(SUITES["gcm"], monkeypatch)
    if when == "host key":
        run.middle.client.answer = None
    if when != "new":
        run.middle.run()
    for end in (run.middle.client, run.middle.server):
        for thing in (end.conn, end.conn._engine.kex, end.conn._engine.config, end.conn._engine.auth):
            try:
                data = pickle.dumps(thing)
            except (TypeError, AttributeError, pickle.PicklingError):
                continue
            run.canaries.hunt_bytes(data, "a pickle")


# --------------------------------------------------------------------------------------------------------- what is left


def reachable(start: Any) -> Iterator[Any]:
    """All values that an object holds, and those that they hold, as far as they are data."""
    seen: set[int] = set()
    todo = [start]
    skipped = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.FrameType, types.CodeType)
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, skipped):
            continue
        seen.add(id(thing))
        yield thing
        todo.extend(gc.get_referents(thing))


@pytest.mark.covers("R169")
@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_nothing_is_kept_of_a_password_that_was_used(suite: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of the words, nor of the secret that the keys were made of, once there are keys."""
    run = Run(suite, monkeypatch)
    run.middle.run()
    assert run.middle.client.of(ev.AuthSucceeded)
    run.traces.clear()
    for end in (run.middle.client, run.middle.server):
        end.events.clear()
        engine = end.conn._engine
        assert engine.kex._round is None
        engine.config = engine.kex._config = None  # it is the application's, and so is what it refers to
        words = (PASSWORD, REPLACEMENT, ANSWER)
        for thing in reachable([engine.auth, engine.kex, engine.outbox, engine.opener, engine.questions]):
            if isinstance(thing, str):
                assert thing not in words
            elif isinstance(thing, (bytes, bytearray)):
                for word in words:
                    assert word.encode() not in thing


# ---------------------------------------------------------------------- V41 comparisons (of the source: test_source.py)


@pytest.mark.covers("V41", "R123")
@pytest.mark.parametrize("suite", ["ctr-etm", "ctr"])
def test_tags_are_compared_in_constant_time(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones that are ours to compare; those of AES-GCM and Poly1305 are OpenSSL's."""
    compared: list[int] = []
    original = macs.compare_digest

    def noting(one: Any, other: Any) -> bool:
        compared.append(len(one))
        return original(one, other)

    monkeypatch.setattr(macs, "compare_digest", noting)
    run = Run(SUITES[suite], monkeypatch)
    run.middle.run()
    received = sum(not trace.sent and trace.sequence_number is not None for trace in run.traces)
    clear = 6  # KEXINIT, the method's message and NEWKEYS, each way
    assert compared == [32] * (received - clear)


@pytest.mark.covers("R169")
def test_a_limit_on_passwords_does_not_tell_them() -> None:
    limits = Limits(password=4)
    pair = Pair.make(ClientConfig(user="alice", limits=limits), client_answer=None)
    assert "canary" not in repr(pair.client.conn._engine.config)
    with pytest.raises(InvalidArgument) as raised:
        ClientConfig(user="canary-user\0")
    assert "canary" not in str(raised.value)
