"""What the verbs have in common: options for algorithms, errors on one line, events on standard error."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sshproto.config import Preferences, Record
    from sshproto.events import Event
    from sshproto.keys.private import PrivateKey
    from sshproto.ssh_config import HostConfig
    from sshproto_cli.terminal import Terminal

PASSPHRASE_VARIABLE = "SSHPROTO_KEY_PASSPHRASE"

MISUSED = 2
"""The status when options make no sense."""

AGENT_PATIENCE = 120.0
"""Seconds for an agent to do something; it may ask somebody first."""

LISTING_PATIENCE = 30.0
"""Seconds for an agent to say what it has, or to take a key."""

FACES = ("blocking", "asyncio", "trio")
"""The modules of ``sshproto_io`` that can move the bytes; the first is the usual one."""

_LEVELS = ("lengths", "metadata", "payload", "replay")  # those of sshproto.replay.trace.file.Privacy
_LONGEST = 1000  # of a line that shows an event
_FEW = 16  # bytes that are shown themselves

_ALGORITHMS = {  # option: field of Preferences, category, what it is
    "--kex": ("kex", "kex", "key exchange methods"),
    "--cipher": ("cipher", "cipher", "ciphers"),
    "--mac": ("mac", "mac", "message authentication codes"),
    "--host-key-alg": ("host_key", "signature", "signature algorithms of host keys"),
    "--compression": ("compression", "compression", "compression methods"),
}


class Failure(Exception):
    """What ends a verb; its words are for the user, on one line."""


class Misuse(Failure):
    """Options that make no sense together."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and end with the status of the verb's own failures."""

    failure = 2

    def error(self, message: str) -> NoReturn:
        """See the base class."""
        self.exit(self.failure, f"sshproto: {message} (see {self.prog} --help)\n")


def carry_out(work: Callable[[argparse.Namespace], int], args: argparse.Namespace, failed: int = 1) -> int:
    """Run a verb: what goes wrong is one line on standard error, and a status.

    Args:
        work: Takes the arguments, returns the exit status.
        args: Parsed arguments.
        failed: The status after a :class:`Failure` or an error of the system.

    Returns:
        The exit status: with 128 added to a signal's number if that ended it, of which SIGPIPE is one.
    """
    from sshproto_cli.terminal import Interrupted, Interrupts, fill_standard_descriptors

    fill_standard_descriptors()
    try:
        with Interrupts().installed():
            return work(args)
    except Interrupted as interrupted:
        return 128 + interrupted.signal
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except Misuse as error:
        complain(describe(error))
        return MISUSED
    except (Failure, OSError) as error:
        complain(describe(error))
        return failed


def complain(message: str) -> None:
    """One line on standard error, in one write: several threads may do so."""
    from sshproto.text import printable

    say(f"sshproto: {printable(message, 4096)}")


def say(line: str) -> None:
    """A line as it is on standard error. If nobody reads that any more, so be it."""
    if sys.stderr is not None:
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass


def describe(error: BaseException) -> str:
    """An exception in words for the user."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return reason(error) or type(error).__name__


def reason(error: BaseException) -> str:
    """An exception's words, without the colon of one that had none to add."""
    return str(error).removesuffix(": ")


def put(text: str) -> None:
    """Write to standard output, now; characters that its encoding has not are escaped.

    Raises:
        BrokenPipeError: Nobody reads it any more.
        Failure: It cannot be written.
    """
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]  what Python makes of a closed descriptor
        raise Failure("standard output is closed")
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer must not meet the same error at the interpreter's exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise Failure(f"standard output: {describe(error)}") from None


def seconds(longest: float) -> Callable[[str], float]:
    """A number of seconds, more than 0 and up to ``longest``; the type of an option."""

    def read(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = 0.0
        if not 0 < found <= longest:
            raise argparse.ArgumentTypeError(f"not a number of seconds, more than 0, up to {longest:g}: {text!r}")
        return found

    return read


def local_time(moment: datetime) -> float:
    """Seconds since 1970 of a date and time without a zone, as OpenSSH takes it: as standard time, in summer too."""
    return time.mktime((*moment.timetuple()[:8], 0))


def port(text: str, least: int = 1) -> int:
    """A port number; the type of an option.

    Args:
        text: What was given.
        least: The smallest that is one; 0 where that leaves the choice to somebody.

    Raises:
        ArgumentTypeError: It is none.
    """
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not least <= int(text) < 65536:
        raise argparse.ArgumentTypeError(f"not a port number: {text!r}")
    return int(text)


def add_face(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses what moves the bytes."""
    parser.add_argument(
        "--io",
        choices=FACES,
        default=FACES[0],
        help=f"what moves the bytes: {FACES[0]} sockets (the default), or a framework; trio takes sshproto[trio]",
    )


def add_algorithms(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose algorithms, and ``-v``."""
    group = parser.add_argument_group("algorithms", "Comma-separated names, best first; weak ones count when named.")
    for option, (_, _, what) in _ALGORITHMS.items():
        group.add_argument(option, metavar="NAMES", help=what)
    parser.add_argument("-v", dest="verbose", action="store_true", help="show events on standard error as they happen")


def add_record(parser: argparse.ArgumentParser, *, many: bool = False) -> None:
    """Add the options that have connections recorded, or their keys.

    Args:
        parser: A verb's.
        many: There may be many, so that a directory is needed.
    """
    parser.add_argument(
        "--record",
        metavar="DIR" if many else "FILE",
        help="write a trace of each connection into a directory" if many else "write a trace of the connection",
    )
    parser.add_argument(
        "--record-level",
        choices=_LEVELS,
        default=_LEVELS[1],
        help="what the trace tells: %(default)s, if not given, is no content; replay is what 'sshproto trace verify'"
        " needs, and holds the session's keys and passwords",
    )
    parser.add_argument(
        "--keylog",
        metavar="FILE",
        help="append the keys of each connection to a key log, with which 'sshproto pcap' and Wireshark open recordings"
        " of it: whoever has the file can read them",
    )


def recording(args: argparse.Namespace, *, many: bool = False) -> Record | None:
    """What records connections as ``args`` say; None if they don't.

    Raises:
        Failure: The file is there already, or can't be made.
    """
    if args.record is None:
        return None
    from sshproto.replay.trace.file import Privacy
    from sshproto_io.recording import record_in, record_to

    def tell(error: OSError) -> None:
        complain(f"--record: {describe(error)}; the connection is not recorded any more")

    make = record_in if many else record_to
    try:
        return make(args.record, Privacy(args.record_level), on_problem=tell)
    except OSError as error:
        raise Failure(f"--record: {describe(error)}") from None


def key_log(args: argparse.Namespace) -> Callable[[str], None] | None:
    """What writes the key log that ``args`` ask for; None if they don't.

    Raises:
        Failure: The file can't be opened.
    """
    if args.keylog is None:
        return None
    from sshproto_io.keylogs import key_log_to

    def tell(error: OSError) -> None:
        complain(f"--keylog: {describe(error)}")

    try:
        return key_log_to(args.keylog, on_problem=tell)
    except OSError as error:
        raise Failure(f"--keylog: {describe(error)}") from None


def preferences(
    args: argparse.Namespace,
    order: Callable[[tuple[str, ...]], tuple[str, ...]] | None = None,
    settings: HostConfig | None = None,
    *,
    verbose: bool = False,
) -> Preferences:
    """The algorithms that ``args`` name, or else the configuration.

    Args:
        args: Parsed arguments.
        order: Puts the signature algorithms of host keys in another order, unless the configuration has them in order.
        settings: What the configuration says.
        verbose: Say which of the algorithms that the configuration names are passed over.

    Raises:
        Failure: A name is not known.
    """
    import attrs

    from sshproto.algorithms import KNOWN
    from sshproto.config import Preferences
    from sshproto.errors import InvalidArgument

    chosen: dict[str, Any] = {} if settings is None else _configured(settings, verbose=verbose)
    ordered = settings is not None and settings.host_key_algorithms
    if ordered and ordered.sign in ("", "^") and args.host_key_alg is None:
        order = None  # as in ssh, somebody has said in which order
    for option, (field, category, _) in _ALGORITHMS.items():
        given = getattr(args, option.removeprefix("--").replace("-", "_"))
        if given is None:
            continue
        names = tuple(dict.fromkeys(name.strip() for name in given.split(",")))
        known = KNOWN[category] | (KNOWN["certificate"] if field == "host_key" else frozenset[str]())
        for name in names:
            if name not in known:
                raise Failure(f"{option}: unknown algorithm {name!r}; known are {', '.join(sorted(known))}")
        chosen[field] = names
    try:
        wanted = Preferences(**chosen)
        return wanted if order is None else attrs.evolve(wanted, host_key=order(wanted.host_key))
    except InvalidArgument as error:
        raise Failure(str(error)) from None


def _configured(settings: HostConfig, *, verbose: bool) -> dict[str, Any]:
    """The algorithms that a configuration names.

    Raises:
        Failure: There are none of those here.
    """
    from sshproto.keys.certificates import CERTIFICATE_ALGORITHMS
    from sshproto.ssh_config import OURS

    chosen: dict[str, Any] = {}
    for field, name in _CONFIGURED.items():
        wanted = getattr(settings, field)
        if wanted is None:
            continue
        found = settings.algorithms(field, OURS)
        if not found:
            raise Failure(
                f"the configuration wants {wanted.text} for {field.replace('_', ' ')}, and there is none here"
            )
        if name == "signature":  # a certificate is shown where its key's own algorithm is allowed
            plain = (CERTIFICATE_ALGORITHMS[one].signature if one in CERTIFICATE_ALGORITHMS else one for one in found)
            found = tuple(dict.fromkeys(plain))
        chosen[name] = found
        lacking = settings.lacking(field, OURS)
        if verbose and lacking:
            complain(f"passed over for {settings.host}, since there is no such thing here: {', '.join(lacking)}")
    if settings.compression:
        chosen["compression"] = ("zlib@openssh.com", "zlib", "none")
    return chosen


_CONFIGURED = {
    "kex_algorithms": "kex",
    "ciphers": "cipher",
    "macs": "mac",
    "host_key_algorithms": "host_key",
    "pubkey_accepted_algorithms": "signature",
}


def reporter(prefix: str = "") -> Callable[[Event], None]:
    """What shows events on standard error. Never a secret; of channel data only how many there are."""
    import attrs

    def report(event: Event) -> None:
        kind: Any = type(event)  # the base alone is no attrs class
        names = [field.name for field in attrs.fields(kind) if field.repr]
        words = [kind.__name__, *(f"{name}={_value(name, getattr(event, name))}" for name in names)]
        line = prefix + " ".join(words)
        say(line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…")

    return report


def _value(name: str, value: Any) -> str:
    """A field of an event: the peer's words printable, keys by their fingerprint, bytes by their number."""
    from sshproto.channels.requests import HostKeysAnnounced, HostKeysProve
    from sshproto.keys.public import PublicKey
    from sshproto.text import printable

    items = value
    match value:
        case bytes():
            if name == "session_id":  # the start is enough to tell connections apart
                return f"{value[:8].hex()}…"
            shown = name != "data" and (len(value) <= _FEW or name == "extensions")  # those are text
            return repr(value) if shown else f"<{len(value)} bytes>"
        case str():
            return printable(value)
        case PublicKey():
            return f"{value.type} {value.fingerprint()}"
        case tuple():
            return f"[{', '.join(_value(name, item) for item in items)}]"
        case HostKeysAnnounced(keys=keys) | HostKeysProve(keys=keys):
            return f"{type(value).__name__}(keys=[{', '.join(map(_fingerprint, keys))}])"
        case BaseException():
            return printable(reason(value), _LONGEST)
        case _:
            return str(value)


def _fingerprint(blob: bytes) -> str:
    """Of a key that may be of a type that is not known here, with that."""
    from sshproto.errors import KeyFormatError
    from sshproto.keys.public import blob_type
    from sshproto.text import printable

    try:
        kind = printable(blob_type(blob))
    except KeyFormatError:
        kind = "no key"
    return f"{kind} {fingerprint(blob)}"


def fingerprint(blob: bytes) -> str:
    """``SHA256:...`` of a key blob, whatever is in it."""
    import base64
    import hashlib

    return f"SHA256:{base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip('=')}"


def read_file(path: str, what: str, limit: int = 16 * 1024 * 1024) -> bytes:
    """The content of a file.

    Raises:
        Failure: It cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise Failure(f"{what} {path}: {error.strerror or error}") from None
    if len(data) > limit:
        raise Failure(f"{what} {path}: more than {limit} bytes")
    return data


def warn_of_readers(path: str) -> None:
    """Say so if others than its owner may use the file of a private key."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return
    if stat.S_ISREG(mode) and stat.S_IMODE(mode) & (stat.S_IRWXG | stat.S_IRWXO):
        complain(f"private key {path}: others than its owner may read or write it; chmod 600 would help")


def check_openable(data: bytes, path: str) -> None:
    """See that an encrypted private key can be decrypted here, before anybody types its passphrase.

    Raises:
        Failure: A package is missing.
    """
    if b"BEGIN OPENSSH PRIVATE KEY" in data and importlib.util.find_spec("bcrypt") is None:
        raise Failure(
            f"private key {path}: it is encrypted, and the package bcrypt, which that takes, is not installed;"
            " pip install 'sshproto[encrypted-keys]'"
        )


def unlock(data: bytes, path: str, terminal: Terminal) -> PrivateKey | None:
    """An encrypted private key, with a passphrase from the environment or the terminal; None if there is none.

    Args:
        data: The content of the key file.
        path: Its name.
        terminal: Who to ask.

    Raises:
        Failure: The passphrase is wrong, or the key is no good.
    """
    check_openable(data, path)
    from sshproto.errors import KeyFormatError
    from sshproto.keys.private import PassphraseWrong, PrivateKey

    given = os.environ.get(PASSPHRASE_VARIABLE)
    for _ in range(3):
        passphrase = terminal.ask(f"Passphrase for key {path}: ") if given is None else given
        if not passphrase:
            return None
        try:
            return PrivateKey.load(data, passphrase.encode("utf-8", "surrogateescape"))
        except PassphraseWrong:
            if given is not None:
                raise Failure(f"private key {path}: the passphrase in {PASSPHRASE_VARIABLE} is wrong") from None
        except KeyFormatError as error:
            raise Failure(f"private key {path}: {error}") from None
    raise Failure(f"private key {path}: wrong passphrase")
