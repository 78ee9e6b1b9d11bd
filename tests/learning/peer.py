"""A peer that sends what it is told, when it is told, under the right keys.

It is the other end of a connection in memory: real packets, real key exchanges, real signatures.  Whatever it can't do
properly at some moment (answer a key exchange that has not begun, say) it does improperly.  All randomness is a
function of where it is drawn, so that the same words have the same answers, always.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import attrs

from sshproto.config import Entropy, Limits, Preferences, compute_now
from sshproto.keys.public import PublicKey
from sshproto.transport import kex
from sshproto.transport.keyschedule import direction_keys, exchange_hash
from sshproto.transport.packets import Opener, Sealer
from sshproto.transport.suites import DirectionKeys, key_sizes
from sshproto.wire import messages as m
from sshproto.wire.table import Role
from tests.support.puppet import CURVE, EXTENSIONS, SHARE, STRICT
from tests.support.rogue import IDENT, kexinit
from tests.support.seeds import HOST_KEY

CIPHER, MAC = "aes128-ctr", "hmac-sha2-256"
"""With a MAC over the sequence number, so that a wrong count is heard; and allowed without a strict key exchange."""

PREFERENCES = Preferences(kex=(CURVE,), host_key=("ssh-ed25519",), cipher=(CIPHER,), mac=(MAC,))

LIMITS = Limits(
    **dict.fromkeys(
        """ignored_messages unsolicited_replies peer_rekeys rekeys_before_auth service_requests auth_failures
        auth_requests client_auth_attempts info_rounds banners banner_bytes empty_adjusts requests_pending""".split(),
        10**9,
    )
)
"""Nothing is counted, or each count would be a state. The bounds have tests of their own."""

NAMES = {
    30: "KEX30",
    31: "KEX31",
    60: "AUTH60",
    61: "AUTH61",
}
METHOD = kex.METHODS[CURVE]


def entropy() -> Entropy:
    """A source of bytes that no two draws have in common, and that every connection has alike."""
    drawn = 0

    def draw(count: int, label: str) -> bytes:
        nonlocal drawn
        drawn += 1
        return hashlib.shake_128(f"{label} {drawn}".encode()).digest(count)

    return draw


@functools.cache
def name(number: int) -> str:
    """What a message is called in the machines: as in the standards, without what is common to all."""
    if number in NAMES:
        return NAMES[number]
    words = (m.lookup(number).__doc__ or "").split(" ", 1)[0]
    return words.removeprefix("SSH_MSG_").removeprefix("SSH2_MSG_")


@functools.cache
def _signed(digest: bytes) -> bytes:
    return HOST_KEY.sign(digest, "ssh-ed25519")


@functools.cache
def _verify(blob: bytes, signature: bytes, digest: bytes) -> None:
    PublicKey.from_blob(blob).verify(signature, digest, "ssh-ed25519")


@attrs.define
class _Keys:
    """What NEWKEYS brings into use, each way once."""

    sending: DirectionKeys | None
    receiving: DirectionKeys | None


class Peer:
    """The other end of ``conn``.

    Args:
        role: The peer's own role.
        conn: The connection that it talks to.

    Attributes:
        session_id: The first exchange's hash, once there is one.
        strict: Whether both sides asked for a strict key exchange.
    """

    def __init__(self, role: Role, conn: Any) -> None:
        self.role = role
        self.conn = conn
        self.session_id = b""
        self.strict = False
        self._entropy = entropy()
        self._sealer = Sealer(entropy=self._entropy)
        self._opener = Opener(packet_limit=300_000)
        self._line = b""
        self._mine = b""
        self._theirs = b""
        self._init: m.KexEcdhInit | None = None
        self._half: Any = None
        self._keys: _Keys | None = None

    # ------------------------------------------------------------------------------------------------------------- says

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.conn.receive_data(data, 0.0)

    def version(self) -> bool:
        """Identify ourselves; not once there are keys, under which a line is the beginning of some packet."""
        if not self.session_id:
            self.write(IDENT)
        return not self.session_id

    def say(self, message: m.Message | bytes) -> None:
        """Send a message."""
        payload = message if isinstance(message, bytes) else message.encode()
        self.write(bytes(self._sealer.seal(payload)))

    def garbage(self) -> None:
        """No packet; or, once there are keys, one with a flipped bit in its tag."""
        if not self.session_id:
            self.write(b"\xff" * 300)
            return
        packet = bytearray(self._sealer.seal(m.Ignore(b"").encode()))
        packet[-1] ^= 1
        self.write(bytes(packet))

    def kexinit(self, *, strict: bool = True, guess: bool = False) -> None:
        """Begin a key exchange, or answer that one has begun; ``guess``: and say that a wrong guess follows."""
        marks = (EXTENSIONS[self.role], *((STRICT[self.role],) if strict else ()))
        names = ("guess@example.org", CURVE) if guess else (CURVE,)
        self._mine = kexinit(
            cookie=self._entropy(16, "cookie"),
            kex_algorithms=(*names, *(() if self.session_id else marks)),
            first_kex_packet_follows=guess,
        )
        self._begin()
        self.say(self._mine)

    def _begin(self) -> None:
        """Both KEXINITs may be known: note what they say, and make a half of our own."""
        if self.role is Role.CLIENT:
            self._half = kex.client_exchange(
                METHOD, entropy=self._entropy, oracle=compute_now, gex_bits=(2048, 2048, 8192)
            )
            self._init = self._half.start()
        if not self.session_id:
            mine, other = STRICT[self.role].encode(), STRICT[self.role.peer].encode()
            self.strict = mine in self._mine and other in self._theirs

    def init(self, *, bad: bool = False) -> None:
        """A client's share; ``bad``: a point of small order."""
        self.say(m.KexEcdhInit(bytes(32)) if bad or self._init is None else self._init)

    def reply(self, *, bad: bool = False) -> None:
        """A server's share and signature; ``bad``: of something else."""
        if self._init is None or self.role is Role.CLIENT:
            self.say(m.KexEcdhReply(HOST_KEY.public_key.blob, SHARE, _signed(b"")))
            return
        half = kex.server_exchange(METHOD, entropy=self._entropy, oracle=compute_now, host_key=HOST_KEY.public_key.blob)
        answer = half.receive(self._init)
        assert isinstance(answer, m.KexEcdhReply)
        digest = self._agree(half)
        self.say(attrs.evolve(answer, signature=_signed(b"" if bad else digest)))

    def new_keys(self) -> None:
        """NEWKEYS; and new keys, if there are some."""
        self.say(m.NewKeys())
        if self._keys is not None and self._keys.sending is not None:
            self._sealer.switch(CIPHER, MAC, self._keys.sending, reset_sequence=self.strict)
            self._keys.sending = None

    def _agree(self, half: Any) -> bytes:
        """Make keys of a finished exchange. The exchange hash."""
        client, server = (self.role is Role.CLIENT, self.role is Role.SERVER)
        ident = IDENT.rstrip(b"\r\n")
        secret = half.secret or b""
        digest = exchange_hash(
            METHOD.hash_name,
            client_ident=ident if client else self._line,
            server_ident=ident if server else self._line,
            client_kexinit=self._mine if client else self._theirs,
            server_kexinit=self._mine if server else self._theirs,
            host_key=HOST_KEY.public_key.blob,
            fields=METHOD.family.hash_fields(half.transcript),
            secret=secret,
        )
        self.session_id = self.session_id or digest
        ours, theirs = (
            direction_keys(
                METHOD.hash_name, secret, digest, self.session_id, sender=sender, sizes=key_sizes(CIPHER, MAC)
            )
            for sender in (self.role, self.role.peer)
        )
        self._keys = _Keys(ours, theirs)
        return digest

    # ------------------------------------------------------------------------------------------------------------ hears

    def hear(self) -> list[str]:
        """What the connection has sent since the last time, by name."""
        data = self.conn.data_to_send()
        found = []
        if not self._line and data.startswith(b"SSH-"):
            line, data = data.split(b"\r\n", 1)
            self._line = line
            found.append("VERSION")
        self._opener.feed(data)
        while (payload := self._opener.next_packet()) is not None:
            found.append(self._take(bytes(payload)))
        return found

    def _take(self, payload: bytes) -> str:
        match payload[0]:
            case m.Disconnect.number:
                return f"DISCONNECT {m.Disconnect.parse(payload).reason}"
            case m.KexInit.number:
                self._theirs = payload
                self._begin()
            case 30:
                self._init = m.KexEcdhInit.parse(payload)
            case 31:
                answer = m.KexEcdhReply.parse(payload)
                self._half.receive(answer)
                _verify(answer.host_key, answer.signature, self._agree(self._half))
            case m.NewKeys.number if self._keys is not None and self._keys.receiving is not None:
                self._opener.switch(CIPHER, MAC, self._keys.receiving, reset_sequence=self.strict)
                self._keys.receiving = None
        return name(payload[0])


def summary(sent: Sequence[str]) -> list[str]:
    """Messages that waited for the end of a key exchange are one word, whatever and however many they are."""
    if "NEWKEYS" not in sent:
        return list(sent)
    stop = sent.index("NEWKEYS") + 1
    prompt = [word for word in sent[stop:] if word in PROMPT]
    return [*sent[:stop], *prompt, *(["..."] if len(prompt) < len(sent) - stop else [])]


PROMPT = {"EXT_INFO", "SERVICE_REQUEST"}
"""What may follow NEWKEYS at once without having waited for it."""
