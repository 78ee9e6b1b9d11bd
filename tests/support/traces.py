"""Sessions in memory that are recorded, for the tests of traces."""

from __future__ import annotations

from typing import Any

import attrs

from sshproto import events as ev
from sshproto.channels.requests import Env, Exec
from sshproto.config import ClientConfig, Preferences, ServerConfig
from sshproto.replay.trace.file import Privacy
from sshproto.replay.trace.recording import Recorder
from tests.support import scenario
from tests.support.pair import HOST_KEY, Chunker, Pair, client_answers, server_answers, whole

FAST = Preferences(kex=("curve25519-sha256",), cipher=("aes128-gcm@openssh.com",))
PASSWORD = "canary-password-7391"
ANSWER = "canary-answer-2846"
COMMAND = b"canary-command-5520"
DATA = b"canary-data-9917"
VALUE = b"canary-value-3308"
CANARIES = (PASSWORD.encode(), ANSWER.encode(), COMMAND, DATA, VALUE)
"""What a session of :func:`confide` carries."""


@attrs.define
class Recorded:
    """A pair whose ends were recorded.

    Attributes:
        pair: The two ends.
        client, server: Their traces.
    """

    pair: Pair
    client: bytearray
    server: bytearray

    def both(self) -> tuple[bytes, bytes]:
        return bytes(self.client), bytes(self.server)


def make(
    privacy: Privacy = Privacy.REPLAY,
    *,
    preferences: Preferences = FAST,
    chunker: Chunker = whole,
    latency: float = 0.0,
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    client_answer: Any = client_answers,
    server_answer: Any = server_answers,
) -> Recorded:
    """A pair that is recorded and has not started."""
    traces = bytearray(), bytearray()
    common: dict[str, Any] = {"preferences": preferences, "debug_raise": True}
    configs = (
        ClientConfig(**{"user": "alice", **common, "record": Recorder(traces[0].extend, privacy), **(client or {})}),
        ServerConfig(
            **{"host_keys": (HOST_KEY,), **common, "record": Recorder(traces[1].extend, privacy), **(server or {})}
        ),
    )
    pair = Pair.make(
        *configs, chunker=chunker, latency=latency, client_answer=client_answer, server_answer=server_answer
    )
    return Recorded(pair, *traces)


def lively(privacy: Privacy = Privacy.REPLAY, **options: Any) -> Recorded:
    """The session of :mod:`tests.support.scenario`, with data both ways and a rekey."""
    recorded = make(privacy, **options)
    recorded.pair.client.react = scenario.ClientApp()
    recorded.pair.server.react = scenario.ServerApp()
    recorded.pair.run()
    scenario.check_complete(recorded.pair)
    return recorded


def confide(privacy: Privacy) -> Recorded:
    """A session with secrets: a password that fails, prompts, a command, a variable, data both ways."""

    def client_answer(conn: Any, question: ev.Question) -> None:
        match question:
            case ev.HostKeyOffered():
                conn.accept_host_key(question)
            case ev.CredentialNeeded(attempt=0):
                conn.auth_password(question, PASSWORD)
            case ev.CredentialNeeded():
                conn.auth_keyboard_interactive(question)
            case ev.PromptsReceived():
                conn.answer_prompts(question, [ANSWER] * len(question.prompts))
            case _:
                conn.refuse(question)

    def server_answer(conn: Any, question: ev.Question) -> None:
        match question:
            case ev.PasswordAuth():
                conn.reject_auth(question)
            case ev.InteractiveAuth():
                conn.prompt(question, [ev.Prompt(text="What?", echo=False)])
            case ev.PromptsAnswered():
                conn.accept_auth(question)
            case ev.ChannelRequested(request=Exec()):
                conn.succeed(question)
                conn.send(question.channel, DATA)
            case _:
                server_answers(conn, question)

    methods = ("password", "keyboard-interactive")
    recorded = make(privacy, server={"auth_methods": methods}, client_answer=client_answer, server_answer=server_answer)
    from sshproto.channels.requests import Session

    pair = recorded.pair.login()
    conn = pair.client.conn
    channel = conn.open_channel(Session())
    pair.run()
    conn.request(channel, Env("NAME", VALUE))
    conn.request(channel, Exec(COMMAND))
    conn.send(channel, DATA)
    pair.run()
    conn.disconnect()
    pair.run()
    return recorded
