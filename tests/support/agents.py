"""Conversations with an agent in memory, and keys for them."""

from __future__ import annotations

from typing import Any

from sshproto.agent import AgentServer, ConfirmNeeded, DestinationConstraint, Hop, HostKeySpec, Keyring
from sshproto.agent.framing import Framer, frame
from sshproto.agent.messages import AddIdentity, Request, SessionBind
from sshproto.agent.replies import parse_reply
from sshproto.keys import FOREVER, Certificate, CertificateKind, PrivateKey
from sshproto.wire.codec import byte, string, text

NOW = 1_800_000_000.0
TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
KEYS = {name: PrivateKey.generate(name, 2048 if name == "ssh-rsa" else None, comment=name) for name in TYPES}
KEY = KEYS["ssh-ed25519"]
AUTHORITY = PrivateKey.generate()
HOSTS = {name: PrivateKey.generate() for name in ("one", "two", "three")}


def user_certificate(key: PrivateKey) -> Certificate:
    return Certificate.issue(
        AUTHORITY, key.public_key, CertificateKind.USER, key_id="id", principals=["alice"], valid_before=FOREVER
    )


def host_certificate(name: str, *, valid_before: int = FOREVER) -> Certificate:
    return Certificate.issue(
        AUTHORITY,
        HOSTS[name].public_key,
        CertificateKind.HOST,
        key_id=name,
        principals=[name],
        valid_before=valid_before,
    )


CERTIFICATES = {name: user_certificate(key) for name, key in KEYS.items()}


def hop(name: str, user: str = "", *, authority: bool = False) -> Hop:
    """A host, known by its key, or by who certifies it; ``""`` is where the agent is."""
    if not name:
        return Hop()
    key = AUTHORITY if authority else HOSTS[name]
    return Hop(name, (HostKeySpec(key.public_key.blob, authority),), user)


def way(start: str, end: str, user: str = "", *, authority: bool = False) -> DestinationConstraint:
    return DestinationConstraint(hop(start, authority=authority), hop(end, user, authority=authority))


def session(name: str) -> bytes:
    """The identifier of a session with a host."""
    return name.encode().ljust(32, b".")


def binding(name: str, *, forwarding: bool = False, certificate: Certificate | None = None) -> SessionBind:
    blob = HOSTS[name].public_key.blob if certificate is None else certificate.blob
    return SessionBind(blob, session(name), HOSTS[name].sign(session(name)), forwarding)


def login(
    name: str,
    key: PrivateKey | Certificate = KEY,
    user: str = "alice",
    *,
    bound: bool = True,
    host_key: bytes | None = None,
    algorithm: str | None = None,
    service: str = "ssh-connection",
    signed: int = 1,
) -> bytes:
    """What a login on a session with a host has signed."""
    shown = key if isinstance(key, Certificate) else key.public_key
    parts = [
        string(session(name)) + byte(50) + text(user) + text(service),
        text("publickey-hostbound-v00@openssh.com" if bound else "publickey") + byte(signed),
        text(algorithm or shown.signature_algorithms[0]) + string(shown.blob),
    ]
    if bound:
        parts.append(string(host_key or HOSTS[name].public_key.blob))
    return b"".join(parts)


class Talk:
    """A connection to an agent.

    Attributes:
        now: The time, to be set.
        events: What the agent has told.
    """

    def __init__(self, keyring: Keyring | None = None) -> None:
        self.now = NOW
        self.keyring = Keyring() if keyring is None else keyring
        self.server = AgentServer(self.keyring, self.now)
        self.events: list[Any] = []
        self._framer = Framer("reply")

    def give(self, data: bytes) -> list[bytes]:
        """Give it bytes; what it replies."""
        self.server.receive_data(data, self.now)
        return self.replies()

    def replies(self) -> list[bytes]:
        found: list[bytes] = []
        while True:
            while (event := self.server.next_event()) is not None:
                self.events.append(event)
            data = self.server.data_to_send()
            if not data:
                return found
            self._framer.feed(data)
            while (reply := self._framer.next()) is not None:
                found.append(reply)

    def ask(self, request: Request) -> Any:
        """The reply to a request; what the codec raises."""
        [reply] = self.give(frame(request.encode()))
        return parse_reply(reply, request)

    def add(self, key: PrivateKey = KEY, **values: Any) -> None:
        self.ask(AddIdentity(key, **values))

    @property
    def question(self) -> ConfirmNeeded:
        """What it wants confirmed."""
        [found] = [event for event in self.events if isinstance(event, ConfirmNeeded)]
        return found

    @property
    def refusals(self) -> list[str]:
        """Why it has refused what."""
        return [event.why for event in self.events if hasattr(event, "why")]
