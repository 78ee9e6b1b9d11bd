"""The keys that an agent holds: with what they were added, until when, and behind which passphrase.

One :class:`Keyring` serves many connections.  It has no clock: ``now`` comes with every call that needs it, in seconds
since 1970, and should not go back.  A key whose time is over is gone with the first call after that.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

import attrs

from sshproto.agent.constraints import Constraints, DestinationConstraint
from sshproto.agent.framing import MAXIMUM_MESSAGE
from sshproto.agent.replies import Identity
from sshproto.config import Entropy, system_entropy
from sshproto.errors import InvalidArgument, LimitReached, discreet
from sshproto.keys.certificates import Certificate
from sshproto.keys.private import PrivateKey
from sshproto.keys.public import MINIMUM_RSA_BITS
from sshproto.text import printable
from sshproto.values import Unpicklable, frozen

MAXIMUM_KEYS = 1024
"""Most keys and certificates that are held."""

MAXIMUM_CONSTRAINTS = 1024 * 1024
"""Most bytes that the destination constraints of all keys may have, as they travel."""

UNLOCK_DELAY = 0.1
"""Seconds after a wrong passphrase in which no other is looked at; so many more after each that follows."""

LONGEST_DELAY = 10.0
"""No more than these, however many passphrases were wrong."""

_MAXIMUM_COMMENT = 1024
_LIST_HEAD = 5
_SALT = 16
# Some milliseconds and 2 MiB: what is guessed by way of the agent waits longer anyway.
_SCRYPT = {"n": 2048, "r": 8, "p": 1, "dklen": 32}


@frozen(eq=False)
class HeldKey(Unpicklable):
    """A key that is held.

    Attributes:
        key: The key.
        certificate: With which it is used; None if by itself.
        comment: Words for people; show them through :func:`sshproto.text.printable`.
        confirm: Somebody has to be asked each time.
        destinations: What it may be used for; none for everything.
        until: When it is forgotten, in seconds since 1970; None for never.
    """

    key: PrivateKey
    certificate: Certificate | None = None
    comment: str = attrs.field(default="", repr=printable)
    confirm: bool = False
    destinations: tuple[DestinationConstraint, ...] = ()
    until: float | None = None

    @property
    def blob(self) -> bytes:
        """The key, or the certificate, as it travels: what it is asked for by."""
        return self.key.public_key.blob if self.certificate is None else self.certificate.blob

    @property
    def type(self) -> str:
        """The type that the blob names."""
        return self.key.public_key.type if self.certificate is None else self.certificate.type

    @property
    def identity(self) -> Identity:
        """As it is listed."""
        return Identity(self.blob, self.comment)


class Keyring(Unpicklable):
    """Keys, and a lock in front of them.

    Args:
        sha1: Sign with SHA-1 (``ssh-rsa``) for clients that ask for nothing else.
        minimum_rsa_bits: Smallest RSA modulus of keys that are added by way of a connection; 1024 at least.
        lifetime: Seconds for keys that are added without a lifetime of their own; None for ever (``ssh-agent -t``).
        entropy: Source of the salt of the lock's passphrase.
    """

    __slots__ = (
        "_entropy",
        "_failures",
        "_keys",
        "_lifetime",
        "_lock",
        "_locked_out",
        "_weights",
        "minimum_rsa_bits",
        "sha1",
    )

    def __init__(
        self,
        *,
        sha1: bool = False,
        minimum_rsa_bits: int = MINIMUM_RSA_BITS,
        lifetime: int | None = None,
        entropy: Entropy = system_entropy,
    ) -> None:
        if lifetime is not None and lifetime <= 0:
            raise InvalidArgument(f"a lifetime is 1 second at least, not {lifetime}")
        self.sha1 = sha1
        self.minimum_rsa_bits = minimum_rsa_bits
        self._lifetime = lifetime
        self._entropy = entropy
        self._keys: dict[bytes, HeldKey] = {}
        self._lock: tuple[bytes, bytes] | None = None  # salt and digest
        self._failures = 0
        self._locked_out = 0.0  # until then no passphrase is looked at

    def __repr__(self) -> str:
        return f"<Keyring, {len(self._keys)} keys{', locked' if self.locked else ''}>"

    # ------------------------------------------------------------------------------------------------------------- keys

    def add(
        self,
        key: PrivateKey,
        certificate: Certificate | None = None,
        comment: str | None = None,
        *,
        now: float,
        lifetime: int | None = None,
        confirm: bool = False,
        destinations: Iterable[DestinationConstraint] = (),
    ) -> HeldKey:
        """Hold a key, in the place of the same one that may be there.

        Args:
            key: The key.
            certificate: To be used with it; None adds the plain key. Who wants both adds it twice.
            comment: Words for people; the key's or certificate's own if None.
            now: Seconds since 1970.
            lifetime: Seconds after which it is forgotten; None for the keyring's.
            confirm: Somebody is to be asked each time.
            destinations: What it may be used for; none for everything.

        Raises:
            InvalidArgument: The certificate is another key's, or the constraints make no sense.
            LimitReached: There is no room: there are too many keys or constraints, or the list of keys would not fit
                into a message.
        """
        if certificate is not None and certificate.key != key.public_key:
            raise InvalidArgument(
                f"the certificate is for the key {certificate.fingerprint()}, not for {key.public_key.fingerprint()}"
            )
        constraints = Constraints(lifetime, confirm, tuple(destinations))
        constraints.check()
        if comment is None:
            comment = key.comment if certificate is None else certificate.comment
        if len(comment) > _MAXIMUM_COMMENT:
            raise InvalidArgument(f"a comment has at most {_MAXIMUM_COMMENT} characters, not {len(comment)}")
        seconds = self._lifetime if lifetime is None else lifetime
        until = None if seconds is None else now + seconds
        held = HeldKey(key, certificate, comment, confirm, constraints.destinations, until)
        self.expire(now)
        others = [each for blob, each in self._keys.items() if blob != held.blob]
        if len(others) >= MAXIMUM_KEYS:
            raise LimitReached(f"the agent holds {len(others)} keys, more do not fit")
        size = _LIST_HEAD + sum(map(_listed_size, (*others, held)))
        if size > MAXIMUM_MESSAGE:
            raise LimitReached(f"the agent's keys would fill {size} bytes, {MAXIMUM_MESSAGE} fit into a message")
        total = sum(map(_weight, (*others, held)))
        if total > MAXIMUM_CONSTRAINTS:
            raise LimitReached(f"the keys' constraints have {total} bytes, at most {MAXIMUM_CONSTRAINTS} are kept")
        self._keys[held.blob] = held
        return held

    def keys(self, now: float) -> tuple[HeldKey, ...]:
        """What is held, in the order in which it was added; also while it is locked."""
        self.expire(now)
        return tuple(self._keys.values())

    def find(self, blob: bytes, now: float) -> HeldKey | None:
        """The key, or the certificate, of this blob."""
        self.expire(now)
        return self._keys.get(blob)

    def remove(self, blob: bytes) -> bool:
        """Forget a key or a certificate; False if there is none such."""
        return self._keys.pop(blob, None) is not None

    def remove_all(self) -> None:
        """Forget all keys."""
        self._keys.clear()

    def expire(self, now: float) -> None:
        """Forget the keys whose time is over."""
        for blob, held in tuple(self._keys.items()):
            if held.until is not None and held.until <= now:
                del self._keys[blob]

    def next_deadline(self) -> float | None:
        """When the next key is to be forgotten, in seconds since 1970; None for never."""
        moments = [held.until for held in self._keys.values() if held.until is not None]
        return min(moments) if moments else None

    # --------------------------------------------------------------------------------------------------------- the lock

    @property
    def locked(self) -> bool:
        """Whether it does nothing until it is unlocked."""
        return self._lock is not None

    @discreet
    def lock(self, passphrase: bytes) -> bool:
        """Lock it. False if it is locked."""
        if self._lock is not None:
            return False
        salt = self._entropy(_SALT, "agent lock salt")
        self._lock = (salt, _digest(passphrase, salt))
        self._failures, self._locked_out = 0, 0.0
        return True

    @discreet
    def unlock(self, passphrase: bytes, now: float) -> bool:
        """Unlock it. False if it is not locked, if this is another passphrase, or if one was wrong just now.

        After a wrong one, none is looked at for a while, which gets longer with each: see :meth:`unlock_after`.
        """
        if self._lock is None or now < self.unlock_after(now):
            return False
        salt, digest = self._lock
        if not hmac.compare_digest(_digest(passphrase, salt), digest):
            self._failures += 1
            self._locked_out = now + min(LONGEST_DELAY, UNLOCK_DELAY * self._failures)
            return False
        self._lock = None
        self._failures, self._locked_out = 0, 0.0
        return True

    def unlock_after(self, now: float) -> float:
        """When a passphrase will be looked at again; the past if it would be now."""
        return min(self._locked_out, now + LONGEST_DELAY)  # whatever was done to the clock


def _listed_size(held: HeldKey) -> int:
    return 8 + len(held.blob) + len(held.comment.encode("utf-8", "surrogateescape"))


def _weight(held: HeldKey) -> int:
    return sum(len(each.encode()) for each in held.destinations)


def _digest(passphrase: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(passphrase, salt=salt, **_SCRYPT)
