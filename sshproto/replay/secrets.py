"""Secrets that open what was observed: key logs, private values, derived keys, a function that is asked.

A key log has one line for each key exchange: the cookie of either side's KEXINIT in hexadecimal, ``SHARED_SECRET`` or
``PRIVATE_KEY``, and the value in hexadecimal; with two fields the value is a private one.  That is what Wireshark
reads, from a file or from a Decryption Secrets Block of a pcapng.

Derived keys are what a process has in its memory (RFC 4253 section 7.2), of one direction each.  With the cookie of
their key exchange it is known where they belong; without, they are tried wherever the cipher is theirs.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import attrs

from sshproto.errors import SSHError
from sshproto.replay.methods import ObservedMethod, Unfit, agree
from sshproto.values import frozen
from sshproto.wire.messages import Message
from sshproto.wire.table import Role

SHARED_SECRET = "SHARED_SECRET"
PRIVATE_KEY = "PRIVATE_KEY"

SHARED = "shared secret"
PRIVATE = "private value"
DERIVED = "derived keys"

_HEXADECIMAL = re.compile("(0x)?[0-9a-fA-F]{8,}")
_COOKIE = 32
_LONGEST = 16 * 1024
_VALUES = 8
"""Values of one cookie that are kept: more than one means that logs disagree, and each is tried."""


class KeyLogError(SSHError, ValueError):
    """A line that is not of a key log, or an entry that is not of a list of session keys.

    Attributes:
        line: Its number, from 1.
        taken: How many others were taken.
    """

    def __init__(self, line: int, problem: str, what: str = "key log, line") -> None:
        super().__init__(f"{what} {line}: {problem}")
        self.line = line
        self.taken = 0


@frozen
class KeyLogLine:
    """A line of a key log.

    Attributes:
        cookie: Of a KEXINIT.
        kind: ``SHARED_SECRET`` or ``PRIVATE_KEY``.
        value: The secret.
    """

    cookie: bytes
    kind: str
    value: bytes = attrs.field(repr=False)


@frozen(kw_only=True)
class DerivedKeys:
    """The keys of one direction.

    Each may be longer than its cipher or MAC needs: the end is cut off.

    Attributes:
        key: The cipher's.
        iv: The initialization vector; with AES-GCM and CTR it may be the one of a later packet, as is found in the
            memory of a process, and is searched for. ``b""`` if it is not known, or the cipher has none.
        mac_key: The MAC's; ``b""`` if it is not known: then nothing is verified.
        cipher: The cipher's name; ``""`` if it is not known.
        cookies: Of the KEXINITs of their key exchange, one or both; empty if they are not known.
        sender: Whose packets they open; None if that is not known.
        session_id: The exchange hash of the connection's first key exchange; ``b""`` if it is not known.
        exchange_hash: That of their own; ``b""`` if it is not known.
    """

    key: bytes = attrs.field(repr=False)
    iv: bytes = attrs.field(default=b"", repr=False)
    mac_key: bytes = attrs.field(default=b"", repr=False)
    cipher: str = ""
    cookies: frozenset[bytes] = frozenset()
    sender: Role | None = None
    session_id: bytes = b""
    exchange_hash: bytes = b""


def parse_key_log(text: str | bytes) -> Iterator[KeyLogLine]:
    """The lines of a key log; empty ones and comments (``#``) are passed over.

    Raises:
        KeyLogError: A line is something else.
    """
    for number, words in _lines(text):
        yield _parse_line(number, words)


def plain_text(text: str | bytes) -> str:
    """What a file of secrets says: UTF-8, or what its byte order mark says it is, as on Windows."""
    if isinstance(text, bytes):
        wide = text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = text.decode("utf-16" if wide else "utf-8", "replace")
    return text.removeprefix("\ufeff").rstrip("\0")  # zeros fill up a Decryption Secrets Block


def _lines(text: str | bytes) -> Iterator[tuple[int, list[str]]]:
    """The lines of a key log that say something, with their numbers."""
    for number, line in enumerate(plain_text(text).splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            yield number, words


def _parse_line(number: int, words: list[str]) -> KeyLogLine:
    if len(words) == 2:
        words.insert(1, PRIVATE_KEY)
    if len(words) != 3:
        raise KeyLogError(number, f"has {len(words)} fields, expected a cookie, a kind and a value")
    cookie, kind, value = words
    if kind not in (SHARED_SECRET, PRIVATE_KEY):
        # Of a line that is laid out otherwise this may be the secret.
        shown = f"{len(kind)} hexadecimal digits" if _HEXADECIMAL.fullmatch(kind) else repr(kind[:32])
        raise KeyLogError(number, f"is of the kind {shown}, expected {SHARED_SECRET} or {PRIVATE_KEY}")
    if len(cookie) != _COOKIE:
        raise KeyLogError(number, f"has a cookie of {len(cookie)} hexadecimal digits, expected {_COOKIE}")
    if len(value) > _LONGEST:
        raise KeyLogError(number, f"has a value of {len(value)} hexadecimal digits, at most {_LONGEST} make sense")
    try:
        return KeyLogLine(bytes.fromhex(cookie), kind, bytes.fromhex(value))
    except ValueError:
        raise KeyLogError(number, "is not hexadecimal") from None


def parse_session_keys(text: str | bytes) -> Iterator[KeyLogLine | DerivedKeys]:
    """Session keys in JSON: a list of objects, or one object a line. All values are hexadecimal.

    Two forms of objects are understood:

    * ``client_cookie`` or ``server_cookie`` or both, and of these what is known: ``K_encoded`` (the secret as it is
      hashed), ``session_id``, ``H``, and for the two directions ``iv_cs``, ``key_cs``, ``mackey_cs``, ``cipher_cs``
      and the same with ``_sc``.
    * ``cipher_name``, ``key`` and ``iv``, as tools give it that search the memory of OpenSSH (Fox-IT's among them).

    Raises:
        KeyLogError: It is something else.
    """
    for number, entry in enumerate(_entries(plain_text(text)), 1):
        if not isinstance(entry, Mapping):
            raise KeyLogError(number, f"is a {type(entry).__name__}, expected an object", "session keys, entry")
        yield from _session_keys(_Entry(number, cast(Mapping[str, Any], entry)))


def _entries(content: str) -> list[Any]:
    try:
        whole: Any = json.loads(content)
    except (ValueError, RecursionError):
        pass
    else:
        return list(cast(Iterable[Any], whole)) if isinstance(whole, list) else [whole]
    entries: list[Any] = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            if line.strip():
                entries.append(json.loads(line))
        except (ValueError, RecursionError):
            raise KeyLogError(number, "is not JSON", "session keys, line") from None
    return entries


@frozen
class _Entry:
    number: int
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        value = self.fields.get(name) or ""
        if not isinstance(value, str):
            raise self.error(f"{name} is a {type(value).__name__}, expected a string")
        return value

    def value(self, name: str) -> bytes:
        text = self.text(name)
        if len(text) > _LONGEST:
            raise self.error(f"{name} has {len(text)} hexadecimal digits, at most {_LONGEST} make sense")
        try:
            return bytes.fromhex(text)
        except ValueError:
            raise self.error(f"{name} is not hexadecimal") from None

    def error(self, problem: str) -> KeyLogError:
        return KeyLogError(self.number, problem, "session keys, entry")


def _session_keys(entry: _Entry) -> Iterator[KeyLogLine | DerivedKeys]:
    if entry.value("key"):
        yield DerivedKeys(key=entry.value("key"), iv=entry.value("iv"), cipher=entry.text("cipher_name"))
        return
    cookies = frozenset(filter(None, (entry.value("client_cookie"), entry.value("server_cookie"))))
    if not cookies:
        raise entry.error("has neither a cookie nor a key")
    secret = entry.value("K_encoded")
    for cookie in cookies if secret else ():
        yield KeyLogLine(cookie, SHARED_SECRET, secret[4:])  # both an mpint and a string begin with their length
    for sender, way in ((Role.CLIENT, "cs"), (Role.SERVER, "sc")):
        if entry.value(f"key_{way}"):
            yield DerivedKeys(
                key=entry.value(f"key_{way}"),
                iv=entry.value(f"iv_{way}"),
                mac_key=entry.value(f"mackey_{way}"),
                cipher=entry.text(f"cipher_{way}"),
                cookies=cookies,
                sender=sender,
                session_id=entry.value("session_id"),
                exchange_hash=entry.value("H"),
            )


class Secrets:
    """What is known about connections that are observed.

    Args:
        ask: Called with the two cookies of a key exchange that nothing else opens, the client's first; the shared
            secret as a key log has it, or None. What it raises is raised by the observer's ``next_event()``.
    """

    def __init__(self, ask: Callable[[bytes, bytes], bytes | None] | None = None) -> None:
        self._ask = ask
        self._shared: dict[bytes, list[bytes]] = {}
        self._private: dict[bytes, list[bytes]] = {}
        self._derived: dict[bytes, list[DerivedKeys]] = {}  # b"": those whose key exchange is not known
        self._directions = 0  # how many there are: both cookies lead to the same

    def __repr__(self) -> str:
        return f"<Secrets, {len(self._shared)} shared, {len(self._private)} private, {self._directions} derived>"

    def __len__(self) -> int:
        return len(self._shared) + len(self._private) + self._directions

    def copy(self) -> Secrets:
        """Secrets that begin with these, and grow on their own."""
        other = Secrets(self._ask)
        other._shared = {cookie: list(values) for cookie, values in self._shared.items()}
        other._private = {cookie: list(values) for cookie, values in self._private.items()}
        other._derived = {cookie: list(known) for cookie, known in self._derived.items()}
        other._directions = self._directions
        return other

    def add_key_log(self, text: str | bytes) -> int:
        """Take the lines of a key log, or of a Decryption Secrets Block; how many there were.

        Raises:
            KeyLogError: A line is something else, the first of such if there are more; all others are taken.
        """
        count = 0
        wrong: KeyLogError | None = None
        for number, words in _lines(text):
            try:
                self.add(_parse_line(number, words))
            except KeyLogError as error:
                wrong = wrong or error
            else:
                count += 1
        if wrong is not None:
            wrong.taken = count
            raise wrong
        return count

    def add_session_keys(self, text: str | bytes) -> int:
        """Take session keys in JSON, see :func:`parse_session_keys`; how many there were.

        Raises:
            KeyLogError: An entry is something else; those before it are taken.
        """
        count = 0
        for found in parse_session_keys(text):
            if isinstance(found, KeyLogLine):
                self.add(found)
            else:
                self.add_derived(found)
            count += 1
        return count

    def add(self, line: KeyLogLine) -> None:
        """Take one line of a key log."""
        values = (self._shared if line.kind == SHARED_SECRET else self._private).setdefault(line.cookie, [])
        if line.value not in values:
            values.append(line.value)
            del values[:-_VALUES]

    def add_derived(self, keys: DerivedKeys) -> None:
        """Take the keys of one direction."""
        lists = [self._derived.setdefault(cookie, []) for cookie in keys.cookies or (b"",)]
        if keys not in lists[0]:
            self._directions += 1
            for known in lists:
                known.append(keys)

    def candidates(
        self,
        client_cookie: bytes,
        server_cookie: bytes,
        method: ObservedMethod,
        transcript: Sequence[Message],
        problem: Callable[[str], None] | None = None,
    ) -> Iterator[tuple[str, bytes]]:
        """What the shared secret of a key exchange may be: what it was found by, and the value as a key log has it.

        Args:
            client_cookie, server_cookie: Of its KEXINITs.
            method: The key-exchange method.
            transcript: Its messages.
            problem: Told why a private value leads to nothing.
        """
        cookies = (client_cookie, server_cookie)
        for shared in dict.fromkeys(value for cookie in cookies for value in self._shared.get(cookie, ())):
            yield SHARED, shared
        for cookie in cookies:
            for private in self._private.get(cookie, ()):
                try:
                    secret = agree(method, private, transcript)
                except Unfit as error:
                    if problem is not None:
                        problem(f"{error}")
                    continue
                yield PRIVATE, secret
        answer = self._ask(client_cookie, server_cookie) if self._ask is not None else None
        if answer is not None:
            yield SHARED, answer

    def derived(self, cookies: Sequence[bytes], cipher: str, sender: Role) -> Iterator[DerivedKeys]:
        """What the keys of one direction may be, those first that are known to belong to the key exchange.

        Args:
            cookies: Of its KEXINITs.
            cipher: The cipher that was negotiated.
            sender: Who sends.
        """
        seen: list[DerivedKeys] = []
        for cookie in (*cookies, b""):
            for keys in self._derived.get(cookie, ()):
                if keys.sender in (None, sender) and keys.cipher in ("", cipher) and keys not in seen:
                    seen.append(keys)
                    yield keys
