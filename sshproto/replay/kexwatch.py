"""Watching the key exchanges of somebody else's connection, from KEXINIT to the secret (RFC 4253 sections 7 and 8).

What is told here depends on what each side has sent, never on whose bytes came first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

import attrs

from sshproto.config import UNATTENDED
from sshproto.errors import Incompatible, KeyFormatError, SignatureInvalid, WireError
from sshproto.events import Event, KeysExchanged
from sshproto.keys.certificates import certified_key
from sshproto.keys.public import LOWEST_RSA_BITS, PublicKey, blob_type
from sshproto.replay.events import KexSeen, OfferSeen, Problem, RolesSeen, SecretFound, Side, role_of
from sshproto.replay.framing import Lock
from sshproto.replay.methods import OBSERVED, ObservedMethod
from sshproto.replay.secrets import DERIVED, Secrets
from sshproto.text import printable
from sshproto.transport import negotiation
from sshproto.transport.keyschedule import direction_keys, exchange_hash
from sshproto.transport.negotiation import Negotiated
from sshproto.transport.suites import DirectionKeys
from sshproto.values import define, frozen
from sshproto.wire.codec import Reader
from sshproto.wire.messages import KexDhGexRequestOld, KexInit, Message
from sshproto.wire.table import Role, name_of

_NUMBERS: dict[str, tuple[frozenset[int], frozenset[int]]] = {
    "gex": (frozenset((30, 32, 34)), frozenset((31, 33))),
    "rsa": (frozenset((31,)), frozenset((30, 32))),  # RFC 4432: here the server begins
    "gss": (frozenset((30, 31, 40)), frozenset((31, 32, 33, 34, 41))),
    "": (frozenset((30,)), frozenset((31,))),
}
"""The messages of a method that a client sends, and a server, by a word for the method."""

_KEXGUESS2 = "kexguess2@matt.ucc.asn.au"
_ROUNDS = 64
"""Key exchanges that one side may begin without a word of the other; more are not followed."""


class Tell(Protocol):
    """Where what was seen goes: events, in a message of ``side``."""

    def __call__(self, side: Side, *events: Event) -> None: ...


@frozen
class Solution:
    """What may be the secret of a key exchange.

    Attributes:
        source: What it was found by.
        hash: The exchange hash that it leads to.
        secret: As it is hashed.
        verified: The server has signed that hash.
    """

    source: str
    hash: bytes
    secret: bytes = attrs.field(repr=False)
    verified: bool


@frozen
class Candidate:
    """Keys that may be those of one direction.

    Attributes:
        keys: The keys.
        solution: The secret that they were derived of; None if they were found as they are.
        source: What they were found by.
        session_id: What goes with them, if they were found as they are.
        verified: The server has signed the exchange hash that goes with them.
    """

    keys: DirectionKeys = attrs.field(repr=False)
    source: str
    solution: Solution | None = None
    session_id: bytes | None = None
    verified: bool = False


@define(eq=False)
class Round:
    """One key exchange.

    Attributes:
        epoch: Its number, from 0.
        kexinits: Each side's, as sent and as read.
        chosen, method: What they add up to, once both are there; the method is None if it is not known here.
        guesses: Whose next message of a method was sent on a guess that is wrong.
        transcript: The method's messages, by class.
        host_key, signature: The server's, as they were sent.
        public_key: The key of :attr:`host_key`, or the one that its certificate is for; None if it is of a type that
            is not known here.
        complete: All messages of the method were seen.
        failed: It can't be followed, and why.
        solutions: What its secret may be; only one, if it is verified.
        switched: Who has sent its NEWKEYS.
        opened: Whose packets under its keys can be read.
        told: It was told what it adds up to.
        said: What was told of its secrets.
    """

    epoch: int
    kexinits: dict[Side, tuple[bytes, KexInit]] = attrs.Factory(dict[Side, tuple[bytes, KexInit]])
    chosen: Negotiated | None = None
    method: ObservedMethod | None = None
    guesses: set[Side] = attrs.Factory(set[Side])
    transcript: dict[type[Message], Message] = attrs.Factory(dict[type[Message], Message])
    host_key: bytes = attrs.field(default=b"", repr=False)
    public_key: PublicKey | None = None
    signature: bytes = attrs.field(default=b"", repr=False)
    complete: bool = False
    failed: str = ""
    solutions: list[Solution] = attrs.field(factory=list[Solution], repr=False)
    switched: set[Side] = attrs.Factory(set[Side])
    opened: set[Side] = attrs.Factory(set[Side])
    told: bool = False
    said: set[str] = attrs.Factory(set[str])

    def way(self, side: Side, client: Side | None) -> tuple[str, str | None, str] | None:
        """Cipher, MAC and compression of what ``side`` sends; None if nothing was chosen."""
        chosen = self.chosen
        if chosen is None:
            return None
        if side is client:
            return chosen.cipher_client_to_server, chosen.mac_client_to_server, chosen.compression_client_to_server
        return chosen.cipher_server_to_client, chosen.mac_server_to_client, chosen.compression_server_to_client


class KexWatch:
    """All key exchanges of one connection.

    Attributes:
        secrets: What opens them.
        rounds: The exchanges that still matter, by number.
        idents: Both identification lines, filled in by the observer.
        client: Who is the client, as far as that is known.
        strict: Whether the strict key exchange was agreed (OpenSSH PROTOCOL section 1.9).
        session_id: The exchange hash of the first exchange, if its secret is known.
    """

    def __init__(self, secrets: Secrets, tell: Tell) -> None:
        self.secrets = secrets
        self.rounds: dict[int, Round] = {}
        self.idents: dict[Side, bytes] = {}
        self.client: Side | None = None
        self.strict = False
        self.session_id: bytes | None = None
        self._tell = tell

    # --------------------------------------------------------------------------------------------------------- messages

    def begin(self, side: Side, number: int, payload: bytes, kexinit: KexInit) -> bool:
        """A KEXINIT: the ``number``th of its side. False if it has begun too many that the other knows nothing of."""
        if len(self.rounds) > _ROUNDS:
            return False
        found = self.rounds.setdefault(number, Round(number))
        found.kexinits[side] = (payload, kexinit)
        self._tell(side, OfferSeen(kexinit=kexinit, epoch=number))
        offers = {each: offer for each, (_, offer) in found.kexinits.items()}
        if self.client is not None or _client_by_names(offers) is not None:
            self._settle(side, found, 0)
        return True

    def paired(self, number: int) -> bool:
        """Whether both KEXINITs of an exchange were seen."""
        found = self.rounds.get(number)
        return found is not None and len(found.kexinits) == len(Side)

    def over(self, number: int) -> bool:
        """Whether nothing more will be learned of an exchange from packets: it is complete, or can't be followed."""
        found = self.rounds.get(number)
        return found is None or found.complete or bool(found.failed)

    def message(self, side: Side, number: int, message: int) -> tuple[str, bool]:
        """What gives a method's message its meaning, and whether its receiver ignores it, as a wrong guess.

        Args:
            side: Who sent it.
            number: Of which key exchange.
            message: Its number, 30 to 49.
        """
        found = self.rounds.get(number)
        if found is None:
            return "", False
        if found.chosen is None and not found.failed:
            self._settle(side, found, message)
        if side in found.guesses:
            found.guesses.discard(side)
            return "", True
        return found.method.family.context if found.method is not None else "", False

    def receive(self, side: Side, number: int, message: Message) -> None:
        """A method's message that is no wrong guess."""
        found = self.rounds.get(number)
        name = name_of(message)
        if found is None or found.method is None:
            self._say(side, f"{name} belongs to no key exchange")
            return
        kinds = found.method.family.messages
        kind: type[Message] = type(message)
        if isinstance(message, KexDhGexRequestOld):  # RFC 4419 section 5
            kind = kinds[0]
        if kind not in kinds or (side is self.client) != (kinds.index(kind) % 2 == 0):
            self._say(side, f"{name} is not for a {'client' if side is self.client else 'server'} to send")
            return
        if kind in found.transcript:
            self._say(side, f"{name} came twice")
            return
        found.transcript[kind] = message
        if len(found.transcript) == len(kinds):
            reply = found.transcript[kinds[-1]]
            found.complete = True
            found.host_key = getattr(reply, "host_key", b"")
            found.signature = getattr(reply, "signature", b"")
            found.public_key = _public_key(found.host_key)
            self._solve(found)
            self._see(found)

    def glimpse(self, number: int, payload: bytes) -> None:
        """A server's last message does not decode; the host key stands at its beginning."""
        found = self.rounds.get(number)
        try:
            blob = Reader(payload, "host key", 1).string()
            kind = blob_type(blob)
        except (WireError, KeyFormatError):
            return
        if found is not None and not found.complete and "-" in kind:
            found.host_key, found.public_key = blob, _public_key(blob)

    def lose(self, number: int, problem: str) -> None:
        """An exchange can't be followed."""
        found = self.rounds.get(number)
        if found is not None and not found.complete and not found.failed:
            found.failed = problem if self.paired(number) else "one side of the key exchange is missing"

    def take_role(self, side: Side, role: Role) -> None:
        """Version 1 of the protocol, which has no such key exchanges, shows who is who."""
        if self.client is None:
            self._set_client(side if role is Role.CLIENT else side.other, sure=True)

    def open_again(self) -> None:
        """There are more secrets: try what could not be opened."""
        for found in self.rounds.values():
            if found.complete and not any(solution.verified for solution in found.solutions):
                self._solve(found)

    def forget(self, number: int) -> None:
        """The exchanges before ``number`` don't matter any more."""
        for old in [old for old in self.rounds if old < number]:
            del self.rounds[old]

    def finish(self) -> None:
        """There is no more: say what two KEXINITs alone add up to, and who is the client, for want of better."""
        for found in list(self.rounds.values()):
            if found.chosen is None and not found.failed and len(found.kexinits) == len(Side):
                self._settle(Side.DIALLED, found, 0)
            if found.chosen is not None and not found.told:
                self._see(found)
        if self.client is None and self.idents:
            offers = {side: kexinit for found in self.rounds.values() for side, (_, kexinit) in found.kexinits.items()}
            client = _client_by_names(offers)
            self._set_client(client or Side.DIALLER, sure=client is not None)

    def _say(self, side: Side, problem: str) -> None:
        self._tell(side, Problem(problem=problem, fatal=False))

    # ------------------------------------------------------------------------------------------------------ negotiation

    def _settle(self, side: Side, found: Round, number: int) -> None:
        """Who is the client, and so, what is negotiated; ``number`` is that of a method's message, or 0 at the end."""
        if len(found.kexinits) < len(Side):
            return
        offers = {each: kexinit for each, (_, kexinit) in found.kexinits.items()}
        if self.client is None:
            known = _client_by_names(offers) or (_client_by_message(offers, side, number) if number else None)
            self._set_client(known or Side.DIALLER, sure=known is not None)
        us = self.client or Side.DIALLER
        client, server = offers[us], offers[us.other]
        if found.epoch == 0:
            self.strict = negotiation.strict_agreed(client, server)
        try:
            chosen = negotiation.negotiate(client, server, us=Role.CLIENT, preferences=None, strict=self.strict)
        except Incompatible as error:
            ours, theirs = (printable(", ".join(names), 256) or "nothing" for names in (error.ours, error.theirs))
            found.failed = f"no common {error.category} algorithm: the client offers {ours}; the server offers {theirs}"
            self._say(side, found.failed)
            return
        found.chosen = chosen
        if not _guess_is_right(client, server, chosen):
            found.guesses = {each for each in Side if offers[each].first_kex_packet_follows}
        found.method = OBSERVED.get(chosen.kex)
        if found.method is None:
            found.failed = f"the key-exchange method {printable(chosen.kex)!r} is not known here"
            self._say(side, found.failed)

    def _set_client(self, side: Side, *, sure: bool) -> None:
        self.client = side
        self._tell(side, RolesSeen(client=side, sure=sure))

    def _see(self, found: Round) -> None:
        if found.chosen is not None and not found.told:
            found.told = True
            event = KexSeen(
                negotiated=found.chosen,
                host_key=found.public_key,
                host_key_blob=found.host_key,
                epoch=found.epoch,
                opened=bool(found.solutions),
            )
            self._tell((self.client or Side.DIALLER).other, event)

    # ---------------------------------------------------------------------------------------------------------- secrets

    def _solve(self, found: Round) -> None:
        """Find what the secret of a complete exchange may be."""
        method, client = found.method, self.client
        if method is None or client is None:
            return
        transcript = [found.transcript[kind] for kind in method.family.messages]
        cookies = self._cookies(found)
        found.solutions.clear()

        def unfit(problem: str) -> None:
            say(f"the private value that is known for this key exchange does not open it: {problem}")

        def say(problem: str) -> None:
            if problem not in found.said:
                found.said.add(problem)
                self._say(client, problem)

        for source, secret in self.secrets.candidates(cookies[0], cookies[1], method, transcript, unfit):
            encoded = method.encode(secret)
            digest = exchange_hash(
                method.hash_name,
                client_ident=self.idents[client],
                server_ident=self.idents[client.other],
                client_kexinit=found.kexinits[client][0],
                server_kexinit=found.kexinits[client.other][0],
                host_key=found.host_key,
                fields=method.family.hash_fields(transcript),
                secret=encoded,
            )
            signed = self._signed(found, digest)
            if signed is False:
                say(f"the {source} that is known for this key exchange does not fit it")
                continue
            solution = Solution(source, digest, encoded, verified=signed is True)
            if solution.verified:
                found.solutions = [solution]
                self.agree(found, solution)
                return
            found.solutions.append(solution)

    def agree(self, found: Round, solution: Solution) -> None:
        """It is this."""
        found.solutions = [solution]
        if found.epoch == 0:
            self.session_id = solution.hash

    def accept(self, side: Side, found: Round, candidate: Candidate) -> None:
        """These are the keys of what ``side`` sends."""
        if candidate.solution is not None:
            self.agree(found, candidate.solution)
        elif self.session_id is None:
            self.session_id = candidate.session_id
        session_id, chosen, key = self.session_id, found.chosen, found.public_key
        if not found.opened:
            source, verified = candidate.source, candidate.verified
            self._tell(side, SecretFound(epoch=found.epoch, source=source, session_id=session_id, verified=verified))
        found.opened.add(side)
        if len(found.opened) == len(Side) and session_id is not None and chosen is not None and key is not None:
            first = found.epoch == 0
            self._tell(side, KeysExchanged(negotiated=chosen, session_id=session_id, host_key=key, first=first))

    def _cookies(self, found: Round) -> tuple[bytes, bytes]:
        client = self.client or Side.DIALLER
        return found.kexinits[client][1].cookie, found.kexinits[client.other][1].cookie

    def _signed(self, found: Round, digest: bytes) -> bool | None:
        """Whether the server has signed this hash; None if its key is of a kind that can't be asked."""
        key = found.public_key
        if key is None:
            return None
        try:
            # Some servers sign with another algorithm than the one that was negotiated: it is their hash all the same.
            algorithm = Reader(found.signature, "signature").name("name")
            key.verify(found.signature, digest, algorithm, policy=UNATTENDED)
        except (SignatureInvalid, WireError):
            return False
        return True

    def candidates(self, side: Side, found: Round, lock: Lock, data: bytes) -> Iterator[Candidate | None]:
        """Keys that may open what ``side`` sends after a key exchange; None for such as need more ``data`` to tell."""
        role = role_of(side, self.client)
        if role is None or found.method is None:
            return
        for solution in found.solutions:
            session_id = solution.hash if found.epoch == 0 else self.session_id
            if session_id is None:
                continue
            keys = direction_keys(
                found.method.hash_name, solution.secret, solution.hash, session_id, sender=role, sizes=lock.sizes
            )
            verdict = True if solution.verified else lock.fits(keys, data)
            if verdict is not False:
                yield Candidate(keys, solution.source, solution, verified=solution.verified) if verdict else None
        for derived in self.secrets.derived(self._cookies(found), lock.cipher, role):
            result = lock.search(derived, data)
            if isinstance(result, DirectionKeys):
                signed = found.complete and self._signed(found, derived.exchange_hash) is True
                yield Candidate(result, DERIVED, session_id=derived.session_id or None, verified=signed)
            elif result:
                yield None


def _client_by_names(offers: dict[Side, KexInit]) -> Side | None:
    """Who says what only a client says, or not what only a server says (RFC 8308 section 2.1, OpenSSH PROTOCOL 1.9)."""
    found: set[Side] = set()
    for side, kexinit in offers.items():
        for role in Role:
            if {negotiation.EXT_INFO[role], negotiation.STRICT_KEX[role]} & set(kexinit.kex_algorithms):
                found.add(side if role is Role.CLIENT else side.other)
    return found.pop() if len(found) == 1 else None


def _client_by_message(offers: dict[Side, KexInit], side: Side, number: int) -> Side | None:
    """Who must be the client, so that ``side`` has sent the method's message ``number``."""
    found: set[Side] = set()
    for client in Side:
        try:
            kex = negotiation.negotiate(
                offers[client], offers[client.other], us=Role.CLIENT, preferences=None, strict=False
            ).kex
        except Incompatible:
            continue
        clients, servers = _NUMBERS.get("gex" if "group-exchange" in kex else kex[:3], _NUMBERS[""])
        if number in (clients if side is client else servers):
            found.add(client)
    return found.pop() if len(found) == 1 else None


def _guess_is_right(client: KexInit, server: KexInit, chosen: Negotiated) -> bool:
    """Whether a guess counts: by the standard's rule, or by Dropbear's, if both sides name it."""
    if _KEXGUESS2 in client.kex_algorithms and _KEXGUESS2 in server.kex_algorithms:
        real = [name for name in client.kex_algorithms if name not in negotiation.PSEUDO]
        return real[0] == chosen.kex and client.server_host_key_algorithms[0] == chosen.host_key
    return negotiation.guess_is_right(client, server)


def _public_key(blob: bytes) -> PublicKey | None:
    """A host key, or the one that a certificate is for (what signs), if it is of a kind that is known here."""
    for read in (PublicKey.from_blob, certified_key):
        with suppress(KeyFormatError):
            return read(blob, minimum_rsa_bits=LOWEST_RSA_BITS)
    return None
