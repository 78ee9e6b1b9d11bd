"""The ``authorized_keys`` file: which keys may log in as a user, and under which restrictions (sshd(8)).

A line is ``[options] type base64 [comment]``.  Options restrict what the key's owner may do, so an option that is not
understood must never be passed over: :meth:`AuthorizedKey.unsupported` says which are not enforced, and an entry that
has any is not to be accepted.  Lines that cannot be read grant nothing and are listed in ``problems``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

import attrs

from sshproto.errors import KeyFormatError
from sshproto.keys.public import (
    KEY_TYPES,
    MINIMUM_RSA_BITS,
    PublicKey,
    decode_text,
    describe,
    split_words,
    unsupported_type,
)
from sshproto.text import printable
from sshproto.values import frozen

PERMISSIVE = frozenset(("agent-forwarding", "port-forwarding", "pty", "user-rc", "x11-forwarding"))
"""Options that only give back what ``restrict`` took: who does not know them allows less, not more."""


@frozen
class AuthorizedKey:
    """One line.

    Attributes:
        line: Its number, from 1.
        key: The key, with the line's comment.
        options: The values by lower-case name, none for a flag: ``{"no-pty": (), "permitopen": ("a:1", "b:2")}``.
    """

    line: int
    key: PublicKey
    options: Mapping[str, tuple[str, ...]] = attrs.field(factory=lambda: MappingProxyType({}), hash=False)

    @property
    def authority(self) -> bool:
        """Whether the key is that of a certificate authority; it does not log in by itself."""
        return "cert-authority" in self.options

    def unsupported(self, enforced: Collection[str] = ()) -> tuple[str, ...]:
        """The options that would go unheeded. Unless there are none, the entry must not be accepted.

        Args:
            enforced: Names of the options that the caller does enforce.
        """
        return tuple(name for name in self.options if name not in PERMISSIVE and name not in enforced)


@frozen
class AuthorizedKeys:
    """The content of a file.

    Attributes:
        entries: The lines that could be read, in order.
        problems: The number of each line that could not, and why.
    """

    entries: tuple[AuthorizedKey, ...] = ()
    problems: tuple[tuple[int, str], ...] = ()

    def matches(self, key: PublicKey) -> tuple[AuthorizedKey, ...]:
        """All lines with this key, those of certificate authorities left out."""
        return tuple(entry for entry in self.entries if entry.key == key and not entry.authority)

    def find(self, key: PublicKey) -> AuthorizedKey | None:
        """The first line with this key that is not a certificate authority's, or None.

        The line may restrict the key: see :meth:`AuthorizedKey.unsupported`.
        """
        found = self.matches(key)
        return found[0] if found else None


def parse(content: str | bytes, *, minimum_rsa_bits: int = MINIMUM_RSA_BITS) -> AuthorizedKeys:
    """Read the content of a file. Never raises for what is in it: see ``AuthorizedKeys.problems``."""
    entries: list[AuthorizedKey] = []
    problems: list[tuple[int, str]] = []
    # Not splitlines(): it also splits at characters that are ordinary ones inside a quoted command.
    for number, line in enumerate(decode_text(content).split("\n"), 1):
        line = line.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        try:
            entries.append(_parse_line(number, line, minimum_rsa_bits))
        except KeyFormatError as error:
            problems.append((number, str(error)))
    return AuthorizedKeys(tuple(entries), tuple(problems))


def _parse_line(number: int, line: str, minimum: int) -> AuthorizedKey:
    words = split_words(line)
    options: dict[str, tuple[str, ...]] = {}
    if words[0] not in KEY_TYPES:
        expected = "expected '[options] type base64 [comment]'"
        if line.startswith("-"):
            raise KeyFormatError(f"this is {describe(line) or 'no key'}; {expected}")
        field = _options_field(line)
        if _looks_like_type(field):
            raise unsupported_type(field)
        words = split_words(line[len(field) :])
        if len(words) < 2:
            raise KeyFormatError(f"{len(words)} words after {printable(field, 40)!r}; {expected}")
        options = parse_options(field)
    if len(words) < 2:
        raise KeyFormatError(f"nothing follows the key type {words[0]}; expected '[options] type base64 [comment]'")
    comment = words[2] if len(words) > 2 else ""
    key = PublicKey.from_words(words[0], words[1], comment, minimum_rsa_bits=minimum)
    return AuthorizedKey(number, key, MappingProxyType(options))


def _looks_like_type(word: str) -> bool:
    return word.startswith(("ssh-", "ecdsa-", "sk-")) and "=" not in word


def _options_field(line: str) -> str:
    """The options: everything up to the first white space outside quotes."""
    quoted = False
    at = 0
    while at < len(line) and (quoted or line[at] not in " \t"):
        if line.startswith('\\"', at):
            at += 1
        elif line[at] == '"':
            quoted = not quoted
        at += 1
    if quoted:
        raise KeyFormatError("a quote in the options does not end")
    return line[:at]


def _split_options(field: str) -> Iterator[str]:
    quoted = False
    start = at = 0
    while at < len(field):
        if field.startswith('\\"', at):
            at += 1
        elif field[at] == '"':
            quoted = not quoted
        elif field[at] == "," and not quoted:
            yield field[start:at]
            start = at + 1
        at += 1
    yield field[start:]


def parse_options(field: str) -> dict[str, tuple[str, ...]]:
    """Read ``name,name="value",...``; within quotes ``\\"`` is a quote. Names are made lower case.

    Raises:
        KeyFormatError: It is not of that form.
    """
    options: dict[str, tuple[str, ...]] = {}
    for option in _split_options(field):
        name, equals, value = option.partition("=")
        if not name or not name.isascii() or not name.replace("-", "").replace("@", "").replace(".", "").isalnum():
            raise KeyFormatError(f'not an option: {printable(option, 40)!r}; expected name or name="value"')
        name = name.lower()
        if not equals:
            options.setdefault(name, ())
            continue
        inner = value[1:-1]
        if len(value) < 2 or value[0] != '"' or value[-1] != '"' or '"' in inner.replace('\\"', ""):
            raise KeyFormatError(f"the value of option {name} is not in quotes: {printable(value, 40)}")
        options[name] = (*options.get(name, ()), inner.replace('\\"', '"'))
    return options
