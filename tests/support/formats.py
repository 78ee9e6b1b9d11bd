"""What goes between sshproto and other programs' key tools, and which way: what ``tests/interop/test_round_trips.py``
runs, and what ``docs/reference/key-formats.md`` tells.

``python -m tests.support.formats`` writes the tables of that page anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "key-formats.md"

BOTH = "both"
"""What the tool writes we read, and what we write of it the tool reads."""
READ = "read"
"""What the tool writes we read. We don't write it."""

KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
TOKENS = ("sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com")


@attrs.frozen
class Form:
    """A form of a key file, as a tool has it.

    Attributes:
        name: What it is called.
        tool: Which tool.
        ways: For each type of key which way it goes; those that are not named don't go at all.
        options: For the tool.
    """

    name: str
    tool: str
    ways: dict[str, str]
    options: tuple[str, ...] = ()


@attrs.frozen
class Scheme:
    """A way to encrypt a private key.

    Attributes:
        form: The form of the file.
        name: What it is called.
        tool: Which tool.
        way: Which way it goes.
        options: For the tool.
        ours: For ``sshproto key convert``.
        kind: The type of the key that it is tried with.
    """

    form: str
    name: str
    tool: str
    way: str
    options: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()
    kind: str = "ssh-ed25519"


@attrs.frozen
class Same:
    """Options that ``ssh-keygen -s`` and ``sshproto key certify`` make the same certificate of.

    Attributes:
        name: What it is about.
        options: For both.
        kind: The type of the key that is certified.
        authority: The type of the authority's key.
    """

    name: str
    options: tuple[str, ...] = ()
    kind: str = "ssh-ed25519"
    authority: str = "ssh-ed25519"


@attrs.frozen
class List:
    """What ``ssh-keygen -k`` and ``sshproto key revoke`` make the same revocation list of.

    Attributes:
        name: What it is about.
        lines: Of the specification. ``{KEY}``, ``{CERTIFICATE}``, ``{NUMBERLESS}`` and ``{FINGERPRINT}`` are filled in.
        options: For both.
        more: Of a second specification, that is added with ``-u``.
    """

    name: str
    lines: tuple[str, ...]
    options: tuple[str, ...] = ("-s", "ca.pub")
    more: tuple[str, ...] = ()


@attrs.frozen
class Signature:
    """A signature over a file, by ``ssh-keygen -Y sign`` and ``sshproto sign``, which either checks.

    Attributes:
        name: What it is about.
        kind: The type of the key.
        hash: How the file is hashed.
        namespace: What the signature is for.
        certified: By a certificate.
        good: A line of allowed signers that allows it. ``{KEY}`` and ``{AUTHORITY}`` are filled in.
        bad: One that does not.
    """

    name: str
    kind: str = "ssh-ed25519"
    hash: str = "sha512"
    namespace: str = "file"
    certified: bool = False
    good: str = "me {KEY}"
    bad: str = "other {KEY}"


def _all(way: str, kinds: Iterable[str] = KINDS) -> dict[str, str]:
    return dict.fromkeys(kinds, way)


_NOT_ED25519 = KINDS[1:]
_ECDSA = KINDS[1:4]

PRIVATE = (
    Form("OpenSSH", "ssh-keygen", _all(BOTH)),
    Form("PKCS#8", "ssh-keygen", _all(BOTH, _NOT_ED25519), ("-m", "PKCS8")),
    Form("PKCS#1, SEC 1", "ssh-keygen", _all(READ, _NOT_ED25519), ("-m", "PEM")),
    Form("PKCS#8", "openssl", _all(BOTH)),
    Form("PKCS#1, SEC 1", "openssl", _all(READ, _NOT_ED25519), ("-traditional",)),
    Form("OpenSSH", "puttygen", _all(BOTH), ("-O", "private-openssh-new")),
    Form("PPK 2", "puttygen", _all(READ), ("-O", "private", "--ppk-param", "version=2")),
    Form("PPK 3", "puttygen", _all(READ), ("-O", "private", "--ppk-param", "version=3")),
)

_CIPHERS = (
    *(f"aes{bits}-{mode}" for mode in ("ctr", "cbc") for bits in (256, 192, 128)),
    *("aes256-gcm@openssh.com", "aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "3des-cbc"),
)

SCHEMES = (
    *(Scheme("OpenSSH", each, "ssh-keygen", BOTH, ("-a", "1", "-Z", each), ("-a", "1", "-Z", each))
      for each in _CIPHERS),
    Scheme("OpenSSH", "aes256-ctr", "puttygen", BOTH, ("-O", "private-openssh-new"), ("-a", "1")),
    Scheme("PKCS#8", "what it does by itself", "ssh-keygen", BOTH, ("-m", "PKCS8"), ("-a", "9"), kind="ssh-rsa"),
    *(
        Scheme("PKCS#8", name, "openssl", way, tuple(options.split()), ("-a", "9"), "ecdsa-sha2-nistp256")
        for name, way, options in (
            ("AES-256-CBC, PBKDF2 with HMAC-SHA-256", BOTH, "-v2 aes-256-cbc -v2prf hmacWithSHA256"),
            ("AES-256-CBC, PBKDF2 with HMAC-SHA-512", READ, "-v2 aes-256-cbc -v2prf hmacWithSHA512"),
            ("AES-128-CBC, PBKDF2 with HMAC-SHA-1", READ, "-v2 aes-128-cbc -v2prf hmacWithSHA1"),
            ("AES-192-CBC, PBKDF2 with HMAC-SHA-256", READ, "-v2 aes-192-cbc"),
            ("3DES, PBKDF2 with HMAC-SHA-256", READ, "-v2 des-ede3-cbc"),
            ("AES-256-CBC, scrypt", READ, "-scrypt"),
            ("PBES1, SHA-1 and 3DES", READ, "-v1 PBE-SHA1-3DES"),
        )
    ),
    Scheme("PKCS#1, SEC 1", "AES-128-CBC", "ssh-keygen", READ, ("-m", "PEM"), kind="ssh-rsa"),
    *(
        Scheme("PKCS#1, SEC 1", name, "openssl", READ, ("-traditional", option), kind="ecdsa-sha2-nistp384")
        for name, option in (("AES-256-CBC", "-aes256"), ("AES-128-CBC", "-aes128"), ("3DES", "-des3"))
    ),
    Scheme("PPK 2", "AES-256-CBC", "puttygen", READ, ("-O", "private", "--ppk-param", "version=2")),
    *(
        Scheme(*("PPK 3", f"AES-256-CBC, Argon2{each}", "puttygen", READ),
               ("-O", "private", "--ppk-param", f"kdf=argon2{each},memory=64,passes=2"))
        for each in ("id", "i", "d")
    ),
)  # fmt: skip

PUBLIC = (
    Form("one line", "ssh-keygen", _all(BOTH, (*KINDS, *TOKENS))),
    Form("RFC 4716", "ssh-keygen", _all(BOTH, (*KINDS, *TOKENS)), ("-m", "RFC4716")),
    Form("PKCS#8", "ssh-keygen", _all(BOTH, _NOT_ED25519), ("-m", "PKCS8")),
    Form("PKCS#1", "ssh-keygen", _all(BOTH, ("ssh-rsa",)), ("-m", "PEM")),
    Form("PKCS#8", "openssl", _all(BOTH)),
    Form("PKCS#1", "openssl", _all(BOTH, ("ssh-rsa",)), ("-RSAPublicKey_out",)),
    Form("one line", "puttygen", _all(BOTH), ("-O", "public-openssh")),
    Form("RFC 4716", "puttygen", _all(BOTH), ("-O", "public")),
)


def _option(name: str, *values: str, kind: str = "ssh-ed25519") -> Same:
    return Same(f"`{name}`", tuple(word for value in values for word in ("-O", value)), kind)


CERTIFICATES = (
    *(Same(f"a user's `{kind}` key", kind=kind) for kind in (*KINDS, *TOKENS)),
    *(Same(f"an authority with a `{kind}` key", authority=kind) for kind in KINDS[1:]),
    *(Same(f"an RSA authority that signs with `{each}`", ("-t", each), authority="ssh-rsa")
      for each in ("rsa-sha2-512", "rsa-sha2-256")),
    Same("a host's key", ("-h", "-n", "host.example.org,192.0.2.1")),
    Same("several principals", ("-n", "alice,bob,carol")),
    Same("a serial number", ("-z", "18446744073709551615")),
    *(Same(f"validity `{each}`", ("-V", each))
      for each in ("always:forever", "+52w1d", "-4w:+4w", "20260101:20400101", "202601010102:20400101010203",
                   "20260101Z:20400101Z", "0x10:0x7fffffff", "always:20400101", "20260101:forever")),
    _option("clear", "clear"),
    *(_option(f"no-{each}", f"no-{each}")
      for each in ("x11-forwarding", "agent-forwarding", "port-forwarding", "pty", "user-rc")),
    *(_option(f"permit-{each}", "clear", f"permit-{each}")
      for each in ("X11-forwarding", "agent-forwarding", "port-forwarding", "pty", "user-rc")),
    _option("force-command", "force-command=ls -l 'a b'"),
    _option("source-address", "source-address=192.0.2.0/24,2001:db8::/32"),
    _option("verify-required", "verify-required", kind=TOKENS[0]),
    _option("no-touch-required", "no-touch-required", kind=TOKENS[1]),
    _option("critical:NAME", "critical:one@example.org"),
    _option("critical:NAME=TEXT", "critical:one@example.org=a b"),
    _option("extension:NAME", "extension:one@example.org"),
    _option("extension:NAME=TEXT", "extension:one@example.org=a b", "extension:two@example.org=c"),
)  # fmt: skip

LISTS = (
    List("a serial number", ("serial: 5",)),
    List("serial numbers in hexadecimal and octal", ("serial: 0x10", "serial: 010")),
    List("a range", ("serial: 5-18446744073709551615",)),
    List("many serial numbers, which become a bitmap", tuple(f"serial: {number}" for number in range(5, 900, 3))),
    List("serial numbers far from one another", tuple(f"serial: {1 << bit}" for bit in range(0, 64, 7))),
    List("an identity", ("id: an id", "id: another # with a comment")),
    List("everybody's certificates", ("serial: 5", "id: an id"), ("-s", "none")),
    List("`key:` and a key", ("key: {KEY}",)),
    List("`key:` and a certificate", ("key: {CERTIFICATE}",)),
    List("`sha1:`", ("sha1: {KEY}",)),
    List("`sha256:`", ("sha256: {KEY}",)),
    List("`hash:`", ("hash: {FINGERPRINT}",)),
    List("a key as it is", ("{KEY}",)),
    List("a certificate with a serial number", ("{CERTIFICATE}",)),
    List("a certificate without one", ("{NUMBERLESS}",)),
    List("a version", ("{KEY}",), ("-z", "77")),
    List("an update", ("serial: 5",), more=("serial: 6-9", "{KEY}")),
)

SIGNATURES = (
    *(Signature(f"a `{kind}` key", kind) for kind in KINDS),
    *(Signature(f"the hash `{each}`", hash=each) for each in ("sha512", "sha256")),
    *(Signature(f"the namespace `{each}`", namespace=each) for each in ("git", "one@example.org")),
    Signature("a certificate", certified=True, good="me cert-authority {AUTHORITY}", bad="me cert-authority {KEY}"),
    Signature("`namespaces`", namespace="git", good='me namespaces="file,g*" {KEY}', bad='me namespaces="file" {KEY}'),
    Signature("`valid-after`", good='me valid-after="20200101Z" {KEY}', bad='me valid-after="20400101Z" {KEY}'),
    Signature("`valid-before`", good='me valid-before="20400101" {KEY}', bad='me valid-before="202001010203" {KEY}'),
    Signature("patterns of signers", good='"!you,m*" {KEY}', bad="*,!me {KEY}"),
)


# ------------------------------------------------------------------------------------------------------------- the page


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _forms(forms: Iterable[Form], kinds: Sequence[str]) -> Iterator[list[str]]:
    for form in forms:
        yield [form.name, f"`{form.tool}`", *(form.ways.get(kind, "—") for kind in kinds)]


def _short(kinds: Iterable[str]) -> list[str]:
    return [kind.removeprefix("ssh-").removeprefix("ecdsa-sha2-").removesuffix("@openssh.com") for kind in kinds]


def tables() -> dict[str, str]:
    """The tables of the page, by the names of their places."""
    kinds = (*KINDS, *TOKENS)
    schemes = ([each.form, each.name, f"`{each.tool}`", each.way] for each in SCHEMES)
    return {
        "private": _table(["form", "tool", *_short(KINDS)], _forms(PRIVATE, KINDS)),
        "encrypted": _table(["form", "encrypted with", "tool", "way"], schemes),
        "public": _table(["form", "tool", *_short(kinds)], _forms(PUBLIC, kinds)),
        "certificates": _table(["what", "way"], ([each.name, BOTH] for each in CERTIFICATES)),
        "lists": _table(["what", "way"], ([each.name, BOTH] for each in LISTS)),
        "signatures": _table(["what", "way"], ([each.name, BOTH] for each in SIGNATURES)),
    }


def filled(page: str) -> str:
    """The page with the tables as they should be."""
    for name, table in tables().items():
        page, count = re.subn(
            rf"(<!-- table: {name} -->\n\n).*?(\n\n|\Z)",
            lambda found, it=table: f"{found[1]}{it}\n\n",
            page,
            flags=re.DOTALL,
        )
        if count != 1:
            raise AssertionError(f"{PAGE.name} has no place for the table {name!r}")
    return page.rstrip("\n") + "\n"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
