"""Sessions of ours with stock OpenSSH and with ourselves, captured by tcpdump: we open all of it, tshark what it can.

One capture has all connections.  Each connection forces an algorithm, so that it can only succeed by it, and is
compared with what its live end has told while it ran.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from typing import Any

import attrs
import pytest

from sshproto import algorithms
from sshproto import events as ev
from sshproto.config import ClientConfig, Limits, Preferences, ServerConfig, Trace, system_entropy
from sshproto.keys.private import PrivateKey
from sshproto.keys.public import PublicKey
from sshproto.replay.analysis import Conversation, analyze
from sshproto.replay.events import (
    Integrity,
    KeysMissing,
    PacketOpened,
    PacketSealed,
    SecretFound,
    Side,
)
from sshproto.replay.secrets import Secrets
from sshproto.transport.kex.base import ENTROPY_LABEL
from sshproto.wire.messages import KexInit
from sshproto_io import blocking
from tests.interop.test_openssh import KEX, LEGACY_SSHD
from tests.replay.sessions import told, troubles
from tests.support import peers
from tests.support.ours import INPUT, PROBE
from tests.support.peers import HOST, Key, Server
from tests.support.sniffing import as_tshark_sees_it, as_we_see_it, tcpdump, tshark

pytestmark = pytest.mark.timeout(120)

ALL_KEX = sorted(algorithms.KNOWN["kex"])
CIPHERS = algorithms.CIPHER_DEFAULT + algorithms.CIPHER_LEGACY
MACS = algorithms.MAC_DEFAULT + algorithms.MAC_LEGACY
QUICK: dict[str, Any] = {"kex": ("curve25519-sha256",), "cipher": ("aes128-gcm@openssh.com",)}


@attrs.define
class Live:
    """A connection as its live end saw it.

    Attributes:
        name: Which case.
        client: Whether that end was the client.
        traces: All packets, in order.
        session_id: The exchange hash of its first key exchange.
        private: What it has drawn for its key exchanges.
    """

    name: str
    client: bool
    traces: list[Trace]
    session_id: bytes = b""
    private: list[bytes] = attrs.Factory(list[bytes])


def options() -> Iterator[tuple[str, dict[str, Any]]]:
    """Preferences, one algorithm forced at a time."""
    for kex in ALL_KEX:
        yield kex, {**QUICK, "kex": (kex,)}
    for cipher in CIPHERS:
        yield cipher, {**QUICK, "cipher": (cipher,), "mac": ("hmac-sha2-256",)}
    for mac in MACS:
        yield mac, {**QUICK, "cipher": ("aes128-ctr",), "mac": (mac,)}
    for compression in ("zlib", "zlib@openssh.com"):
        yield compression, {**QUICK, "compression": (compression,)}
    for cipher in ("chacha20-poly1305@openssh.com", "aes256-ctr", "aes256-gcm@openssh.com"):
        for who in ("client", "server"):
            yield f"rekeys of the {who}, {cipher}", {"cipher": (cipher,), "compression": ("zlib@openssh.com",)}
    for kex in ("curve25519-sha256", "ecdh-sha2-nistp256", "diffie-hellman-group14-sha256"):
        yield f"no strict kex {kex}", {**QUICK, "kex": (kex,), "strict_kex": False}


SSH = {"zlib": None, "zlib@openssh.com": ["-oCompression=yes"]}


def words_for_ssh(name: str, chosen: dict[str, Any]) -> list[str] | None:
    """The same as options of OpenSSH's client; None if it has no such thing."""
    if name in SSH:
        return SSH[name]
    if name.startswith(("no strict", "rekeys of the server")):
        return None
    if name.startswith("rekeys"):
        return ["-oRekeyLimit=16K", "-oCompression=yes", f"-oCiphers={chosen['cipher'][0]}"]
    if any(kex not in KEX for kex in chosen.get("kex", ())):
        return None
    words = {"kex": "KexAlgorithms", "cipher": "Ciphers", "mac": "MACs"}
    return [f"-o{word}={chosen[kind][0]}" for kind, word in words.items() if kind in chosen]


class Echo(blocking.Handler):
    """Does what :data:`PROBE` does."""

    def __init__(self, key: PublicKey) -> None:
        self.key = key

    def public_key(self, user: str, key: Any) -> bool:
        return bool(key == self.key)

    def session(self, session: Any) -> int:
        if session.command != PROBE.encode():
            return 0
        while data := session.stdin.read1(65536):
            session.stdout.write(data)
        session.stderr.write(b"oops\n")
        return 7


class Recorder:
    """Makes connections, and remembers what their live ends saw."""

    def __init__(self, key: Key) -> None:
        self.key = PrivateKey.load(key.path.read_bytes())
        self.ssh_key = key
        self.lives: list[Live] = []
        self.key_log: list[str] = []
        self.host_key = PrivateKey.generate()
        self._server = Live("", False, [])
        self._over = threading.Event()

    def dial(self, name: str, chosen: dict[str, Any], port: int, host_key: PublicKey, user: str) -> None:
        """Our client."""
        live = Live(name, True, [])

        def entropy(count: int, label: str) -> bytes:
            value = system_entropy(count, label)
            if label == ENTROPY_LABEL:
                live.private.append(value)
            return value

        config = ClientConfig(
            user=user,
            preferences=Preferences(allow_terrapin=True, **chosen),
            trace=live.traces.append,
            key_log=self.key_log.append,
            entropy=entropy,
        )
        with blocking.connect(HOST, port, host_key=host_key, keys=[self.key], config=config) as client:
            for turn in range(6 if ", rekeys" in name else 1):
                if turn and "rekeys of the client" in name:
                    client.rekey()
                done = client.run(PROBE, input=INPUT)
                assert (done.stdout, done.exit_status) == (INPUT, 7)
                assert done.stderr.endswith(b"oops\n")  # what a login shell's own files say comes before it
            live.session_id = client.conn.session_id or b""
        self.lives.append(live)

    def serve(self) -> blocking.Server:
        """Our server, for one connection at a time."""
        limits = Limits(rekey_packets=24)
        config = ServerConfig(
            host_keys=[self.host_key],
            preferences=Preferences(
                kex=tuple(ALL_KEX),
                cipher=CIPHERS,
                mac=MACS,
                compression=algorithms.COMPRESSION_DEFAULT + algorithms.COMPRESSION_EXTRA,
                allow_terrapin=True,
            ),
            trace=self._trace,
            key_log=self.key_log.append,
            limits=limits,
        )
        return blocking.listen(HOST, 0, config, self._welcome)

    def _trace(self, trace: Trace) -> None:
        self._server.traces.append(trace)

    def _welcome(self, incoming: blocking.Incoming) -> Echo:
        def watch(event: ev.Event) -> None:
            if isinstance(event, ev.KeysExchanged):
                self._server.session_id = incoming.conn.session_id or b""
            elif isinstance(event, ev.ConnectionLost):
                self._over.set()

        incoming.hub.on_event = watch
        return Echo(self.key.public_key)

    def serving(self, name: str, run: Callable[[], None]) -> None:
        """While ``run`` runs, which dials our server."""
        self._over.clear()
        self._server = Live(name, False, [])
        run()
        assert self._over.wait(peers.SECONDS)
        self.lives.append(self._server)


@attrs.frozen
class Captured:
    path: Path
    lives: list[Live]
    key_log: str
    conversations: dict[bytes, Conversation]
    ports: tuple[int, ...]


@pytest.fixture(scope="module")
def captured(keys: dict[str, Key]) -> Iterator[Captured]:
    key = keys["ed25519"]
    recorder = Recorder(key)
    with (
        peers.scratch() as folder,
        peers.sshd([*LEGACY_SSHD], authorized_keys=[key.public]) as sshd,
        recorder.serve() as ours,
    ):
        path = folder / "all.pcap"
        listed = Server(port=ours.port, user=peers.current_user(), host_keys=(recorder.host_key.public_key.openssh(),))
        jobs: list[Future[None]] = []
        with tcpdump(path, (sshd.port, ours.port)), ThreadPoolExecutor(1) as aside:
            for name, chosen in options():
                words = words_for_ssh(name, chosen)

                def stock(
                    words: list[str] | None = words, data: bytes = INPUT * (20 if "rekeys" in name else 1)
                ) -> None:
                    ran = peers.ssh(listed, PROBE, key=key, options=words or (), stdin=data)
                    assert (ran.stdout, ran.returncode) == (data, 7), ran.stderr

                def own(name: str = name, chosen: dict[str, Any] = chosen) -> None:
                    recorder.dial(f"us to us, {name}", chosen, ours.port, recorder.host_key.public_key, "guest")

                if words is not None:
                    host_key = PublicKey.parse(sshd.host_keys[0])
                    jobs.append(
                        aside.submit(recorder.dial, f"us to sshd, {name}", chosen, sshd.port, host_key, sshd.user)
                    )
                    recorder.serving(f"ssh to us, {name}", stock)
                recorder.serving(f"us to us, {name}, the server", own)
        for job in jobs:
            job.result()
        key_log = "".join(f"{line}\n" for line in recorder.key_log)
        secrets = Secrets()
        secrets.add_key_log(key_log)
        found = {it.summary.session_id or b"": it for it in analyze(path.read_bytes(), secrets=secrets)}
        yield Captured(path, recorder.lives, key_log, found, (sshd.port, ours.port))


def test_all_of_it_opens(captured: Captured) -> None:
    """All messages each way, as the live ends have seen them."""
    assert len(captured.lives) > 100
    assert set(captured.conversations) == {live.session_id for live in captured.lives}
    for live in captured.lives:
        found = captured.conversations[live.session_id]
        events, client = found.events, found.observer.client
        assert client is Side.DIALLER
        assert troubles(events) == [], live.name
        assert found.summary.complete, live.name
        assert found.summary.opened, live.name
        assert not told(events, PacketSealed)
        assert not told(events, KeysMissing)
        assert {it.verified for it in told(events, SecretFound)} == {True}
        assert {it.integrity for it in told(events, PacketOpened) if it.epoch} == {Integrity.VERIFIED}
        values = found.summary.as_dict()
        for role, side in (("client", client), ("server", client.other)):
            mine = [it for it in live.traces if it.sent is (live.client is (role == "client"))]
            theirs = told(events, PacketOpened, side)
            seen = [(it.sequence_number, it.number, it.length) for it in mine]
            assert [(it.sequence_number, it.number, len(it.payload)) for it in theirs] == seen, (live.name, role)
            assert [it.message for it in theirs] == [it.message for it in mine]
            digest = hashlib.sha256(b"".join(it.message.encode() for it in mine if it.message)).hexdigest()
            assert values["decrypted"][role] == {"messages": [it.number for it in mine], "payload_sha256": digest}


def test_key_exchanges_in_the_middle(captured: Captured) -> None:
    """Begun by clients and by servers: each line of the key log opens one, and none is missing."""
    rekeyed = [live for live in captured.lives if "rekeys" in live.name]
    assert {live.name.partition(",")[0] for live in rekeyed} == {"us to sshd", "ssh to us", "us to us"}
    begun = {[it.sent is live.client for it in live.traces if it.number == 20][2] for live in rekeyed}
    assert begun == {True, False}
    lines = 0
    for live in captured.lives:
        found = captured.conversations[live.session_id]
        epochs = found.summary.as_dict()["kex_epochs"]
        assert epochs == sum(trace.number == 21 for trace in live.traces if trace.sent)
        assert len(told(found.events, SecretFound)) == epochs
        assert epochs >= 2 or live not in rekeyed
        lines += epochs
    assert len(captured.key_log.splitlines()) == lines  # of a connection with ourselves both ends have written


def test_without_keys(captured: Captured) -> None:
    """Less is known, and nothing else."""
    hidden = {"session_id", "kex_epochs", "auth_success", "decrypted"}
    opened = {it.connection.frame: it for it in captured.conversations.values()}
    for sealed in analyze(captured.path.read_bytes()):
        whole = opened[sealed.connection.frame].summary.as_dict()
        public = sealed.summary.as_dict()
        assert {key for key in whole if whole[key] != public[key]} <= hidden
        assert public["decrypted"] is None
        assert public["complete"]


def test_wrong_keys(captured: Captured) -> None:
    """A key log with the right cookies and other values opens nothing, and says so."""
    secrets = Secrets()
    lines = [line.split() for line in captured.key_log.splitlines()]
    for (cookie, kind, _), (_, _, value) in zip(lines, lines[7:] + lines[:7], strict=True):
        secrets.add_key_log(f"{cookie} {kind} {value}")
    conversations = analyze(captured.path.read_bytes(), secrets=secrets)
    assert len(conversations) == len(captured.conversations)
    for found in conversations:
        assert not found.summary.opened
        assert found.summary.session_id is None
        assert not told(found.events, SecretFound)
        assert any("does not" in problem for problem in troubles(found.events)), troubles(found.events)


# ------------------------------------------------------------------------------------------------------------- tshark


def test_tshark_agrees_about_what_is_public(captured: Captured) -> None:
    decode = [word for port in captured.ports for word in ("-d", f"tcp.port=={port},ssh")]
    theirs = as_tshark_sees_it(captured.path, *decode)
    ours = as_we_see_it(captured.conversations.values())
    assert theirs.keys() == ours.keys()
    for way, public in theirs.items():
        assert (public.version, public.lists) == (ours[way].version, ours[way].lists)
        role = int(way[2] in captured.ports)
        assert public.hassh[role] == ours[way].hassh[role]


def test_tshark_opens_what_it_can(captured: Captured, tmp_path: Path) -> None:
    """With the private values that our clients drew: X25519 and AES-GCM are what all its versions open."""
    chosen = [live for live in captured.lives if live.client and live.name.endswith(", aes128-gcm@openssh.com")]
    assert {live.name.partition(",")[0] for live in chosen} == {"us to sshd", "us to us"}
    lines: list[str] = []
    for live in chosen:
        kexinit = next(trace.message for trace in live.traces if trace.sent and trace.number == 20)
        assert isinstance(kexinit, KexInit)
        lines.append(f"{kexinit.cookie.hex()} {live.private[0].hex()}\n")
    (tmp_path / "keys").write_text("".join(lines))
    decode = [word for port in captured.ports for word in ("-d", f"tcp.port=={port},ssh")]
    options = ["-o", f"ssh.keylog_file:{tmp_path / 'keys'}", *decode]
    fields = ["tcp.srcport", "tcp.dstport", "ssh.message_code"]
    for live in chosen:
        found = captured.conversations[live.session_id]
        port = found.connection.dialler.port
        rows = tshark(captured.path, fields, *options, display=f"ssh.message_code && tcp.port=={port}")
        assert found.observer.client is Side.DIALLER
        for side in Side:
            seen = [int(code) for row in rows if (int(row[0]) == port) is (side is Side.DIALLER)
                    for code in row[2].split("|")]  # fmt: skip
            numbers = [it.number for it in told(found.events, PacketOpened, side)]
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(seen, numbers, strict=False)))
            # Where several packets come in one segment it loses its place.
            assert same >= (len(numbers) if side is Side.DIALLER else numbers.index(52) + 1), (live.name, seen, numbers)
