"""Agents in all faces, which use them and are one: the same scenarios for each."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sshproto.agent import AgentMessageError, AgentRefused, AgentUnavailable, ConfirmNeeded, Keyring
from sshproto.agent.framing import Framer, frame
from sshproto.agent.replies import Identity, encode_identities, encode_signature
from sshproto.config import ClientConfig, ServerConfig
from sshproto.errors import AuthExhausted
from sshproto.keys import PrivateKey
from sshproto.operations.serving import Handler
from sshproto.wire.codec import byte, uint32
from sshproto_io import LoginPlan, TimeoutExpired, blocking
from tests.support import faces, peers
from tests.support.agents import KEY, KEYS, user_certificate
from tests.support.faces import Face, Moment
from tests.support.seeds import HOST, HOST_KEY, QUICK

SECOND = KEYS["ecdsa-sha2-nistp256"]
BLOB = KEY.public_key.blob


@pytest.fixture(params=faces.NAMES)
def face(request: pytest.FixtureRequest) -> Face:
    return faces.get(request.param)


@pytest.fixture
def home() -> Iterator[Path]:
    with peers.scratch() as directory:
        yield directory


@contextlib.contextmanager
def puppet(path: Path, answer: Callable[[bytes, socket.socket], None]) -> Iterator[list[bytes]]:
    """An agent that does what ``answer`` does with each request."""
    requests: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    framer = Framer("request")
                    while data := connection.recv(65536):
                        framer.feed(data)
                        while (request := framer.next()) is not None:
                            requests.append(request)
                            answer(request, connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield requests
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


# ------------------------------------------------------------------------------------------------------------ using one


def test_all_methods(face: Face, home: Path) -> None:
    async def scenario(face: Face) -> None:
        async with face.serve_agent(Keyring(), home / "agent") as served, face.open_agent(served.path) as agent:
            assert served.path == str(home / "agent")
            await agent.add(KEY, comment="mine")
            await agent.add(KEY, user_certificate(KEY), lifetime=100)
            assert [identity.comment for identity in await agent.identities()] == ["mine", "ssh-ed25519"]
            KEY.public_key.verify(await agent.sign(KEY.public_key, b"data"), b"data", "ssh-ed25519")
            assert await agent.query() == ("query", "session-bind@openssh.com")
            await agent.bind(HOST_KEY.public_key.blob, bytes(32), HOST_KEY.sign(bytes(32)), forwarding=True)
            with pytest.raises(AgentRefused):
                await agent.extension("x@example.org", b"")
            await agent.lock(b"x")
            assert await agent.identities() == ()
            await agent.unlock(b"x")
            await agent.remove(BLOB)
            assert len(await agent.identities()) == 1
            await agent.remove_all()
            assert await agent.identities() == ()
        assert agent.closed
        with pytest.raises(AgentUnavailable, match="the connection to the agent is closed"):
            await agent.identities()

    face.play(scenario)
    assert list(home.iterdir()) == []


def modes(path: str) -> list[int]:
    """Of a directory, and of the socket in it."""
    return [place.stat().st_mode & 0o777 for place in (Path(path).parent, Path(path))]


def inside(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def test_where_the_environment_says(face: Face, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(face: Face) -> None:
        monkeypatch.setenv("TMPDIR", str(home))
        monkeypatch.setattr("tempfile.tempdir", None)
        async with face.serve_agent(Keyring()) as served:
            assert modes(served.path) == [0o700, 0o600]
            monkeypatch.setenv("SSH_AUTH_SOCK", served.path)
            async with face.open_agent(None) as agent:
                assert await agent.identities() == ()
        assert inside(home) == []
        with pytest.raises(AgentUnavailable, match=r"cannot reach the agent at .*: No such file or directory"):
            await face.open_agent(None)
        monkeypatch.delenv("SSH_AUTH_SOCK")
        with pytest.raises(AgentUnavailable, match="SSH_AUTH_SOCK is not set"):
            await face.open_agent(None)
        with pytest.raises(OSError, match="No such file"):
            async with face.serve_agent(Keyring(), home / "no" / "socket"):
                pass

    before = os.umask(0o022)
    os.umask(before)
    face.play(scenario)
    assert os.umask(before) == before


def test_many_at_once(face: Face, home: Path) -> None:
    """One connection, many callers: each gets what it has asked for."""

    async def scenario(face: Face) -> None:
        async with face.serve_agent(Keyring(), home / "agent") as served, face.open_agent(served.path) as agent:
            await agent.add(KEY)
            await agent.add(SECOND)

            async def one(number: int) -> None:
                key, data = (KEY, SECOND)[number % 2], b"%d" % number
                signature = await agent.sign(key.public_key, data)
                key.public_key.verify(signature, data, key.public_key.type)

            await face.gather(*faces.commands(20, one))

    face.play(scenario)


@pytest.mark.covers("V74")
def test_who_gives_up_leaves_nothing_to_others(face: Face, home: Path) -> None:
    release = threading.Event()

    def answer(request: bytes, connection: socket.socket) -> None:
        if request[0] == 13:
            release.wait(20)
            connection.sendall(frame(encode_signature(KEY.sign(b"late"))))
        else:
            connection.sendall(frame(encode_identities((Identity(b"blob", "here"),))))

    async def scenario(face: Face) -> None:
        async with face.open_agent(home / "agent") as agent:
            assert await face.cancelled(Moment(seconds=0.1), lambda: agent.sign(BLOB, b"data"))
            assert await face.cancelled(Moment(seconds=0.1), agent.identities)
            release.set()
            assert [identity.comment for identity in await agent.identities()] == ["here"]
            assert not agent.closed

    with puppet(home / "agent", answer) as requests:
        face.play(scenario)
    assert [request[0] for request in requests] == [13, 11]  # the second had not been its turn


@pytest.mark.covers("V74")
@pytest.mark.parametrize(
    ("reply", "error", "said"),
    [
        (None, AgentUnavailable, "the agent has closed the connection"),
        (b"\0\0\0\5\6", AgentMessageError, "ended within an agent reply"),
        (uint32(0), AgentMessageError, "reply of 0 bytes is announced"),
        (uint32(2**18 + 1), AgentMessageError, "reply of 262145 bytes is announced"),
        (frame(byte(6)), AgentMessageError, "which is no answer to that"),
        (frame(byte(12) + uint32(9)), AgentMessageError, "needs 4 bytes"),
    ],
)
def test_an_agent_that_is_out_of_order(face: Face, home: Path, reply: bytes | None, error: type, said: str) -> None:
    def answer(request: bytes, connection: socket.socket) -> None:
        connection.sendall(reply or b"")
        connection.shutdown(socket.SHUT_RDWR)

    async def scenario(face: Face) -> None:
        async with face.open_agent(home / "agent") as agent:
            with pytest.raises(error, match=said):
                await agent.identities()
            assert agent.closed
            with pytest.raises(AgentUnavailable):
                await agent.identities()

    with puppet(home / "agent", answer):
        face.play(scenario)


def test_a_blocking_agent_has_a_limit(home: Path) -> None:
    release = threading.Event()
    with (
        puppet(home / "agent", lambda *_: release.wait(20) and None),
        blocking.open_agent(home / "agent", timeout=0.1) as agent,
    ):
        with pytest.raises(TimeoutExpired, match=r"the agent took longer than 0\.\d+ seconds"):
            agent.identities()
        release.set()


# ------------------------------------------------------------------------------------------------------------ being one


def test_keys_are_confirmed(face: Face, home: Path) -> None:
    asked: list[str] = []

    def plain(question: ConfirmNeeded) -> bool:
        asked.append(str(question.purpose))
        return len(asked) == 1

    async def asynchronous(question: ConfirmNeeded) -> bool:
        await face.sleep(0)
        return plain(question)

    async def scenario(face: Face) -> None:
        confirm = plain if face.name == "blocking" else asynchronous
        async with (
            face.serve_agent(Keyring(), home / "agent", confirm=confirm) as served,
            face.open_agent(served.path) as agent,
            face.open_agent(served.path) as other,
        ):
            await agent.add(KEY, confirm=True)
            await agent.sign(BLOB, b"data")
            with pytest.raises(AgentRefused):
                await other.sign(BLOB, b"data")

    face.play(scenario)
    assert asked == ["something that says not what it is"] * 2


def test_keys_are_forgotten_in_time(face: Face, home: Path) -> None:
    """Even if nobody asks."""
    keyring = Keyring()

    async def scenario(face: Face) -> None:
        async with face.serve_agent(keyring, home / "agent") as served, face.open_agent(served.path) as agent:
            await agent.add(KEY, lifetime=1)
            await face.until(lambda: not keyring._keys, "the key is forgotten")

    face.play(scenario)


def test_wrong_passphrases_take_time(face: Face, home: Path) -> None:
    async def scenario(face: Face) -> None:
        async with face.serve_agent(Keyring(), home / "agent") as served, face.open_agent(served.path) as agent:
            await agent.lock(b"x")
            with pytest.raises(AgentRefused):
                await agent.unlock(b"y")
            await agent.unlock(b"x")  # a tenth of a second later

    face.play(scenario)


def test_events_are_told(face: Face, home: Path) -> None:
    events: list[Any] = []

    async def scenario(face: Face) -> None:
        async with (
            face.serve_agent(Keyring(), home / "agent", on_event=events.append) as served,
            face.open_agent(served.path) as agent,
        ):
            await agent.add(KEY)
            await agent.sign(BLOB, b"data")
            with pytest.raises(AgentRefused):
                await agent.remove(SECOND.public_key)

    face.play(scenario)
    assert [type(event).__name__ for event in events] == ["KeyUsed", "RequestRefused"]


def test_at_the_end_who_is_there_is_cut_off(face: Face, home: Path) -> None:
    async def scenario(face: Face) -> None:
        async with face.serve_agent(Keyring(), home / "agent") as served:
            agent = await face.open_agent(served.path)
            await agent.identities()
            await served.aclose()
            with pytest.raises(AgentUnavailable):
                await agent.identities()
            await agent.aclose()
            await served.aclose()
        assert not (home / "agent").exists()

    face.play(scenario)


def test_what_is_not_ours_is_not_removed(face: Face, home: Path) -> None:
    async def scenario(face: Face) -> None:
        async with face.serve_agent(Keyring(), home / "agent"):
            (home / "agent").unlink()
            (home / "agent").write_text("somebody else's")

    face.play(scenario)
    assert (home / "agent").read_text() == "somebody else's"


# --------------------------------------------------------------------------------------------------------------- logins


class Choosy(Handler):
    """Lets in who has one of some keys; tells which were tried."""

    def __init__(self, good: set[bytes], tried: list[bytes]) -> None:
        self._good = good
        self._tried = tried

    def public_key(self, user: str, key: Any) -> bool:
        self._tried.append(key.blob)
        return key.blob in self._good


OTHERS = [PrivateKey.generate() for _ in range(3)]


@pytest.mark.parametrize(
    ("given", "held", "only", "expected"),
    [
        ([0], [1, 2], False, [1, 2, 0]),
        ([0, 1], [2, 1], False, [1, 2, 0]),
        ([0, 1], [2, 1], True, [1, 0]),
        ([], [1, 0], False, [1, 0]),
        ([0], [], False, [0]),
    ],
)
def test_the_order_of_keys(
    face: Face, home: Path, given: list[int], held: list[int], only: bool, expected: list[int]
) -> None:
    """OpenSSH's: those of the agent that were named, the agent's others, the other named ones."""
    tried: list[bytes] = []
    last = OTHERS[expected[-1]].public_key.blob

    async def scenario(face: Face) -> None:
        async with (
            face.serve_agent(Keyring(), home / "agent") as served,
            face.listen(lambda _: Choosy({last}, tried)) as server,
            face.open_agent(served.path) as agent,
        ):
            for number in held:
                await agent.add(OTHERS[number])
            inner = getattr(agent, "inner", agent)
            plan = LoginPlan([OTHERS[number] for number in given], agent=inner, identities_only=only)
            config = ClientConfig(user="alice", preferences=QUICK)
            key = HOST_KEY.public_key
            async with face.connect(HOST, server.port, config=config, host_key=key, credentials=plan):
                assert plan.agent_problem is None

    face.play(scenario)
    assert list(dict.fromkeys(tried)) == [OTHERS[number].public_key.blob for number in expected]


@pytest.mark.parametrize("what", ["refuses", "gone"])
def test_what_an_agent_does_not_sign_another_key_may(face: Face, home: Path, what: str) -> None:
    tried: list[bytes] = []
    good = {key.public_key.blob for key in OTHERS}

    async def scenario(face: Face) -> None:
        async with (
            face.serve_agent(Keyring(), home / "agent") as served,
            face.listen(lambda _: Choosy(good, tried)) as server,
            face.open_agent(served.path) as agent,
        ):
            await agent.add(OTHERS[0], confirm=True)  # and there is nobody to ask
            if what == "gone":
                await served.aclose()
            config = ClientConfig(user="alice", preferences=QUICK)
            options = {"config": config, "host_key": HOST_KEY.public_key}
            inner = getattr(agent, "inner", agent)
            plan = LoginPlan([OTHERS[1]], agent=inner)
            async with face.connect(HOST, server.port, credentials=plan, **options):
                assert isinstance(plan.agent_problem, AgentRefused if what == "refuses" else AgentUnavailable)
            with pytest.raises(AuthExhausted):
                async with face.connect(HOST, server.port, credentials=LoginPlan(agent=inner), **options):
                    pass

    face.play(scenario)


@pytest.mark.parametrize("limit", [None, 60.0])
def test_a_login_by_a_silent_agent_ends_in_its_own_time(tmp_path: Path, limit: float | None) -> None:
    key = PrivateKey.generate()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        config = ServerConfig(host_keys=[key])
        with (
            blocking.listen("127.0.0.1", 0, config, lambda incoming: blocking.Handler()) as server,
            blocking.open_agent(tmp_path / "silent", timeout=limit) as agent,
            pytest.raises(TimeoutExpired, match=r"connecting .* took longer"),
        ):
            blocking.connect(
                "127.0.0.1",
                server.port,
                user="me",
                host_key=key.public_key,
                credentials=LoginPlan([key], agent=agent),
                timeout=0.5,
            )
