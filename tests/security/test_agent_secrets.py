"""Canaries in agents: private keys, passphrases of locks and PINs, looked for wherever they must not be."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from sshproto.agent import AgentError, AgentRefused, Constraints, Keyring
from sshproto.agent import messages as m
from sshproto.agent.framing import frame
from sshproto.errors import SSHError
from sshproto.keys import PrivateKey
from sshproto.keys.private import write_private
from sshproto.wire.codec import Reader
from sshproto_io import asyncio as asyncio_face
from sshproto_io import blocking
from sshproto_io import trio as trio_face
from tests.security.test_secrets import Canaries, private_bytes, reachable, with_locals
from tests.support import peers
from tests.support.agents import CERTIFICATES, KEY, KEYS, NOW, TYPES, Talk

PHRASE, OTHER, PIN = b"canary-lock-1c2d", b"canary-other-77", b"canary-pin-9988"


def numbers(key: PrivateKey) -> list[bytes]:
    """What is private of a key, as it travels."""
    reader = Reader(write_private(key, half=True), "key")
    found = []
    while reader.remaining:
        found.append(reader.string().lstrip(b"\0"))
    return found[1:] if key.public_key.type == "ssh-ed25519" else found


CANARIES = Canaries(PHRASE, OTHER, PIN, private_bytes(KEY), *(one for key in KEYS.values() for one in numbers(key)))
ADDS = [
    m.AddIdentity(KEYS[name], certificate, "words", Constraints(confirm=True))
    for name in TYPES
    for certificate in (None, CERTIFICATES[name])
]
SECRETS: list[Any] = [
    *ADDS,
    m.Lock(PHRASE),
    m.Unlock(PHRASE),
    m.AddSmartcardKey("r", PIN),
    m.RemoveSmartcardKey("r", PIN),
]


@pytest.mark.covers("R169")
@pytest.mark.parametrize("request_", SECRETS, ids=lambda request: type(request).__name__)
def test_requests_show_no_secret_and_stay_here(request_: Any) -> None:
    CANARIES.hunt(f"{request_} {request_!r}", "a request")
    with pytest.raises(TypeError, match="holds a secret and is not pickled or copied"):
        pickle.dumps(request_)
    with pytest.raises(TypeError):
        copy.copy(request_)


@pytest.mark.covers("R169")
def test_keyrings_show_no_secret_and_stay_here() -> None:
    keyring = Keyring()
    held = [keyring.add(key, now=NOW, confirm=True) for key in KEYS.values()]
    keyring.lock(PHRASE)
    for thing in (keyring, *held):
        CANARIES.hunt(f"{thing} {thing!r}", "a keyring")
        with pytest.raises(TypeError, match="is not pickled"):
            pickle.dumps(thing)


@pytest.mark.covers("R169")
@pytest.mark.parametrize("request_", ADDS, ids=lambda add: add.key.public_key.type)
def test_no_error_of_reading_a_key_tells_it(request_: m.AddIdentity) -> None:
    payloads = damaged(request_)
    while payloads:
        try:
            m.parse_request(payloads.pop())
        except AgentError as error:
            hunt(error)


class Hidden(list[bytes]):
    def __repr__(self) -> str:
        return "..."


def damaged(request_: m.AddIdentity) -> Hidden:
    """A request cut, and changed, at some places."""
    encoded = request_.encode()
    found = Hidden()
    for size in range(1, len(encoded), 1 + len(encoded) // 12):
        found += [encoded[:size], encoded[:size] + b"\xff" + encoded[size + 1 :]]
    return found


def hunt(error: BaseException) -> None:
    CANARIES.hunt(with_locals(error), "an error")
    CANARIES.hunt_bytes(pickle.dumps(error), "the pickle of an error")


@pytest.mark.covers("R169")
def test_a_conversation_tells_no_secret() -> None:
    talk = Talk()

    def ask(request: Any) -> None:
        try:
            talk.ask(request)
        except AgentRefused as error:
            hunt(error)
        CANARIES.hunt(f"{talk.server!r} {talk.keyring!r} {talk.events!r}", "what is shown")
        for event in talk.events:
            CANARIES.hunt(f"{event} {event!r}", "an event")
            CANARIES.hunt_bytes(pickle.dumps(event), "the pickle of an event")

    ends = m.Unlock(OTHER), m.RemoveAllIdentities(), m.Lock(PHRASE), m.Unlock(OTHER)
    for request in (*SECRETS, m.RequestIdentities(), *ends):
        ask(request)
    assert talk.keyring.locked
    talk.give(frame(m.Lock(PHRASE).encode()[:-1]))
    ask(m.RequestIdentities())


@pytest.mark.covers("R169")
def test_nothing_is_kept_of_what_was_removed() -> None:
    talk = Talk()
    key = PrivateKey.generate()
    talk.add(key, constraints=Constraints(confirm=True))
    talk.give(frame(m.SignRequest(key.public_key.blob, b"data").encode()))
    talk.server.confirm(talk.question, True, NOW)
    talk.replies()
    assert any(isinstance(thing, PrivateKey) for thing in reachable(talk.server))
    talk.ask(m.RemoveAllIdentities())
    assert not any(isinstance(thing, PrivateKey) for thing in reachable(talk.server))
    talk.ask(m.Lock(PHRASE))
    talk.ask(m.Unlock(PHRASE))
    assert PHRASE not in [bytes(thing) for thing in reachable(talk.server) if isinstance(thing, bytes | bytearray)]


# ----------------------------------------------------------------------------------------------------------- the faces


def refusing(connection: socket.socket) -> None:
    connection.sendall(b"\0\0\0\1\5")


def wrong(connection: socket.socket) -> None:
    connection.sendall(b"\0\0\0\1\x63")


def gone(connection: socket.socket) -> None:
    connection.close()


@pytest.fixture(params=[refusing, wrong, gone], ids=lambda how: how.__name__)
def path(request: pytest.FixtureRequest) -> Iterator[Path]:
    """An agent with which everything goes wrong."""
    with peers.scratch() as home, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "agent"))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    request.param(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield home / "agent"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


CALLS: dict[str, Callable[[Any], Any]] = {
    "add": lambda agent: agent.add(KEY),
    "certified": lambda agent: agent.add(KEYS["ssh-rsa"], CERTIFICATES["ssh-rsa"]),
    "lock": lambda agent: agent.lock(PHRASE),
    "unlock": lambda agent: agent.unlock(PHRASE),
    "wrong": lambda agent: agent.add(KEY, CERTIFICATES["ssh-rsa"]),
}


@pytest.mark.covers("R169")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("face", ["blocking", "asyncio", "trio"])
def test_no_error_of_a_face_tells_what_was_to_be_sent(path: Path, face: str, call: Callable[[Any], Any]) -> None:
    async def main(module: Any) -> None:
        async with module.open_agent(path) as agent:
            await call(agent)

    with pytest.raises(SSHError) as caught:
        match face:
            case "blocking":
                with blocking.open_agent(path) as agent:
                    call(agent)
            case "asyncio":
                asyncio.run(main(asyncio_face))
            case _:
                trio.run(main, trio_face)
    error = caught.value
    del caught
    hunt(error)
