"""Lists of algorithms: ``+``, ``-`` and ``^`` before them, and patterns in them.

What a list stands for depends on who asks: ``+`` adds to *their* default.  :data:`OPENSSH_9_2` is what OpenSSH 9.2 has
and offers, with which these lists mean what they mean to ``ssh``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import takewhile

from sshproto import algorithms
from sshproto.keys.known_hosts import match_pattern
from sshproto.ssh_config.problems import LineError
from sshproto.text import printable
from sshproto.values import frozen


@frozen
class AlgorithmList:
    """A list as it was written.

    Attributes:
        text: All of it.
    """

    text: str

    @property
    def sign(self) -> str:
        """``"+"``: these as well; ``"-"``: not these; ``"^"``: these first; ``""``: these and no others."""
        return self.text[:1] if self.text[:1] in ("+", "-", "^") else ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names and patterns."""
        return tuple(self.text.removeprefix(self.sign).split(","))

    def choose(self, default: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
        """The names that the list stands for, each once, best first.

        Args:
            default: Those that are offered if nothing is said.
            known: Those that there are, in the order in which a pattern stands for several.

        Returns:
            What is left may be nothing: that is the caller's to refuse.
        """
        default, known = tuple(default), tuple(known)
        if self.sign == "-":
            return tuple(name for name in default if not any(match_pattern(name, each) for each in self.names))
        wanted = {"+": (*default, *self.names), "^": (*self.names, *default)}.get(self.sign, self.names)
        return self.choose_from(wanted, known)

    @staticmethod
    def choose_from(patterns: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
        """The names that patterns stand for, each once, in the order of the patterns."""
        known = tuple(known)
        return tuple(dict.fromkeys(name for pattern in patterns for name in known if match_pattern(name, pattern)))


@frozen
class Catalogue:
    """Which algorithms there are, by category, and which are offered if nothing is said.

    Attributes:
        known: Names by category: ``"cipher"``, ``"mac"``, ``"kex"``, ``"signature"`` (of keys and certificates),
            ``"authority"`` (what a certificate may be signed with).
        default: Likewise.
    """

    known: Mapping[str, tuple[str, ...]]
    default: Mapping[str, tuple[str, ...]]

    def check(self, category: str, text: str, what: str) -> AlgorithmList:
        """A list as it was written.

        Raises:
            LineError: It names what is not known. Patterns are allowed for keys; what ``-`` takes away need not exist.
        """
        found = AlgorithmList(text)
        if found.sign == "-":
            return found
        known = self.known[category]
        if found.names == ("",):
            raise LineError(f"{what}: there is no name in {printable(text)!r}")
        for name in takewhile(bool, found.names):  # as ssh, which looks no further than to an empty name
            good = name in known
            if not good and category in ("signature", "authority") and any(sign in name for sign in "*?"):
                good = any(match_pattern(each, name) for each in known)
            if not good:
                raise LineError(f"{what}: nobody knows {printable(name, 80)!r} in {printable(text)!r}")
        return found

    def choose(self, category: str, wanted: AlgorithmList | None) -> tuple[str, ...]:
        """What a list stands for; None stands for what is offered if nothing is said."""
        if wanted is None:
            return self.default[category]
        return wanted.choose(self.default[category], self.known[category])


_CERTIFIED = "-cert-v01@openssh.com"
_SK_ED25519, _SK_ECDSA = "sk-ssh-ed25519", "sk-ecdsa-sha2-nistp256"
_ECDSA = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
_PLAIN = ("ssh-ed25519", *_ECDSA, f"{_SK_ED25519}@openssh.com", f"{_SK_ECDSA}@openssh.com")
_RSA = ("rsa-sha2-512", "rsa-sha2-256")
_CERTIFICATES = tuple(
    f"{name}{_CERTIFIED}" for name in ("ssh-ed25519", *_ECDSA, _SK_ED25519, _SK_ECDSA, "rsa-sha2-512", "rsa-sha2-256")
)
_AUTHORITY = (
    *("ssh-ed25519", f"{_SK_ED25519}@openssh.com", *_ECDSA, f"{_SK_ECDSA}@openssh.com"),
    *("webauthn-sk-ecdsa-sha2-nistp256@openssh.com", "ssh-dss", "ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"),
)


def _with_certificates(name: str) -> tuple[str, ...]:
    if name.startswith("webauthn"):
        return (name,)
    return name, name.removesuffix("@openssh.com") + _CERTIFIED


OPENSSH_9_2 = Catalogue(
    known={
        "cipher": (
            *("3des-cbc", "aes128-cbc", "aes192-cbc", "aes256-cbc", "aes128-ctr", "aes192-ctr", "aes256-ctr"),
            *("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"),
        ),
        "mac": (
            *("hmac-sha1", "hmac-sha1-96", "hmac-sha2-256", "hmac-sha2-512", "hmac-md5", "hmac-md5-96"),
            *("umac-64@openssh.com", "umac-128@openssh.com", "hmac-sha1-etm@openssh.com"),
            *("hmac-sha1-96-etm@openssh.com", "hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"),
            *("hmac-md5-etm@openssh.com", "hmac-md5-96-etm@openssh.com", "umac-64-etm@openssh.com"),
            "umac-128-etm@openssh.com",
        ),
        "kex": (
            *("diffie-hellman-group1-sha1", "diffie-hellman-group14-sha1", "diffie-hellman-group14-sha256"),
            *("diffie-hellman-group16-sha512", "diffie-hellman-group18-sha512", "diffie-hellman-group-exchange-sha1"),
            *("diffie-hellman-group-exchange-sha256", "ecdh-sha2-nistp256", "ecdh-sha2-nistp384"),
            *("ecdh-sha2-nistp521", "curve25519-sha256", "curve25519-sha256@libssh.org", "sntrup761x25519-sha512"),
            "sntrup761x25519-sha512@openssh.com",
        ),
        "signature": tuple(each for name in _AUTHORITY for each in _with_certificates(name)),
        "authority": _AUTHORITY,
    },
    default={
        "cipher": (
            *("chacha20-poly1305@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr"),
            *("aes128-gcm@openssh.com", "aes256-gcm@openssh.com"),
        ),
        "mac": (
            *("umac-64-etm@openssh.com", "umac-128-etm@openssh.com", "hmac-sha2-256-etm@openssh.com"),
            *("hmac-sha2-512-etm@openssh.com", "hmac-sha1-etm@openssh.com", "umac-64@openssh.com"),
            *("umac-128@openssh.com", "hmac-sha2-256", "hmac-sha2-512", "hmac-sha1"),
        ),
        "kex": (
            *("sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com", "curve25519-sha256"),
            *("curve25519-sha256@libssh.org", "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521"),
            *("diffie-hellman-group-exchange-sha256", "diffie-hellman-group16-sha512"),
            *("diffie-hellman-group18-sha512", "diffie-hellman-group14-sha256"),
        ),
        "signature": (*_CERTIFICATES, *_PLAIN, *_RSA),
        "authority": (*_PLAIN, *_RSA),
    },
)
"""The algorithms of OpenSSH 9.2."""


def _joined(*parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in parts for name in part))


_SIGNATURES = _joined(algorithms.SIGNATURE_DEFAULT, algorithms.SIGNATURE_EXTRA, algorithms.SIGNATURE_LEGACY)

OURS = Catalogue(
    known={
        "cipher": _joined(algorithms.CIPHER_DEFAULT, algorithms.CIPHER_LEGACY),
        "mac": _joined(algorithms.MAC_DEFAULT, algorithms.MAC_LEGACY),
        "kex": _joined(algorithms.KEX_DEFAULT, algorithms.KEX_EXTRA, algorithms.KEX_LEGACY),
        "signature": _joined(_SIGNATURES, algorithms.CERTIFICATE_EXTRA, algorithms.CERTIFICATE_LEGACY),
        "authority": _SIGNATURES,
    },
    default={
        "cipher": algorithms.CIPHER_DEFAULT,
        "mac": algorithms.MAC_DEFAULT,
        "kex": algorithms.KEX_DEFAULT,
        "signature": algorithms.SIGNATURE_DEFAULT,
        "authority": algorithms.SIGNATURE_DEFAULT,
    },
)
"""The algorithms of sshproto: a list that only these are chosen from may leave nothing."""

_NEWER = {
    "cipher": ("rijndael-cbc@lysator.liu.se", "arcfour", "arcfour128", "arcfour256", "blowfish-cbc", "cast128-cbc"),
    "mac": ("hmac-ripemd160", "hmac-ripemd160@openssh.com", "hmac-ripemd160-etm@openssh.com"),
    "kex": ("sntrup4591761x25519-sha512@tinyssh.org",),
    "signature": ("ssh-mldsa44-ed25519@openssh.com",),
    "authority": ("ssh-mldsa44-ed25519@openssh.com",),
}

ANYBODYS = Catalogue(
    known={name: _joined(OURS.known[name], OPENSSH_9_2.known[name], _NEWER[name]) for name in OURS.known},
    default=OURS.default,
)
"""The algorithms of sshproto and of any OpenSSH: a name that is none of these is a slip of the pen."""
