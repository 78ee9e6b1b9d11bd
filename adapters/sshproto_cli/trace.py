"""``sshproto trace``: replay what was recorded of a connection of ours, show it, compare it, cut it down."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sshproto_cli.options import Failure, complain, describe, put

if TYPE_CHECKING:
    from sshproto.replay.trace.file import Header, Record, Trace
    from sshproto.replay.trace.minimise import Predicate

DIVERGED = 1
"""The status when a replay is not what was recorded, or two traces differ."""
TROUBLE = 2
"""The status when a file cannot be read or replayed, and of options that make no sense."""

_PIECE = 1 << 20
_LARGEST = 1 << 30  # bytes of a trace that has to be in memory as a whole
_SHOWN = 160  # characters of a value
_ENDS = ("a trace of a connection, as 'sshproto exec --record' and others write it; '-' is standard input",)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "trace",
        help="replay what was recorded of a connection of ours",
        description="Work with traces (.sqlog): what one connection of sshproto's was given and what it gave.",
        epilog=f"The exit status is 0 if all is well, {DIVERGED} if something differs, {TROUBLE} if a file can't be"
        " read or replayed, or for options that make no sense.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verify = verbs.add_parser(
        "verify",
        help="replay a trace: the same inputs have to give the same events and the same bytes",
        description="Replay FILE, which was recorded with the level 'replay', and report the first difference.",
        epilog="Under 'git bisect run' this finds the commit that made it; turn status 2 into 125 there, which skips.",
    )
    verify.add_argument("--json", action="store_true", help="one JSON object")
    verify.add_argument("file", metavar="FILE", help=_ENDS[0])
    verify.set_defaults(run=_guarded(_verify))

    show = verbs.add_parser(
        "show",
        help="show a trace, a line for each record",
        description="Show FILE. What a trace of the level 'replay' holds of secrets is not shown, but with --json.",
    )
    show.add_argument("--json", action="store_true", help="the records as they are, one JSON object a line")
    show.add_argument("--all", action="store_true", help="idle steps and results that say nothing, too")
    show.add_argument("file", metavar="FILE", help=_ENDS[0])
    show.set_defaults(run=_guarded(_show))

    diff = verbs.add_parser(
        "diff",
        help="the first difference of two traces",
        description="Compare two traces, record by record, and show the first difference. Times, random bytes and"
        " whatever else differs by its nature between two connections counts only with --exact.",
    )
    diff.add_argument("--exact", action="store_true", help="every byte counts")
    diff.add_argument("--json", action="store_true", help="one JSON object")
    diff.add_argument("file", metavar="FILE", help=_ENDS[0])
    diff.add_argument("other", metavar="OTHER")
    diff.set_defaults(run=_guarded(_diff))

    minimise = verbs.add_parser(
        "minimise",
        help="cut a trace to the smallest that still shows a failure",
        description="Leave out of FILE what it takes not to show the failure: the chunks, commands, answers and"
        " moments without which it shows all the same. The outcome is a trace that replays exactly.",
    )
    minimise.add_argument(
        "--until",
        metavar="WHAT",
        default="same-end",
        help="what it is to show: same-end (the connection ends with the same kind of error; the default), end=NAME,"
        " raises=NAME (a call raises that exception), event=NAME (a class of sshproto.events), finding=CODE (of those"
        " that 'sshproto pcap check' has)",
    )
    minimise.add_argument("--tries", metavar="N", type=_count, help="how often to run parts of it at most")
    minimise.add_argument("--seed", metavar="FILE", help="write what is left as a seed for fuzzing, too")
    minimise.add_argument("-o", dest="output", metavar="FILE", required=True, help="where to; a file that is not there")
    minimise.add_argument("file", metavar="FILE", help=_ENDS[0])
    minimise.set_defaults(run=_guarded(_minimise))
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not int(text):
        raise argparse.ArgumentTypeError(f"not a number from 1 on: {text!r}")
    return int(text)


def _guarded(verb: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Carries out a verb, and tells what goes wrong in one line."""

    def run(args: argparse.Namespace) -> int:
        from sshproto.errors import SSHError
        from sshproto_cli.terminal import Interrupted, Interrupts, fill_standard_descriptors

        fill_standard_descriptors()
        try:
            with Interrupts().installed():
                return verb(args)
        except Interrupted as interrupted:
            return 128 + interrupted.signal
        except BrokenPipeError:
            return 0
        except SSHError as error:
            complain(f"{args.file}: {describe(error)}")
        except (Failure, OSError) as error:
            complain(describe(error))
        return TROUBLE

    return run


# ---------------------------------------------------------------------------------------------------------------- files


def _pieces(name: str) -> Iterator[bytes]:
    """The content of a file, piece by piece.

    Raises:
        OSError: It cannot be read.
    """
    if name == "-":
        yield from iter(lambda: os.read(sys.stdin.fileno(), _PIECE), b"")
        return
    with Path(name).open("rb") as file:
        yield from iter(lambda: file.read(_PIECE), b"")


def _shown_pieces(name: str) -> Iterator[bytes]:
    """The same; how far that is shows on a terminal, if it takes long.

    Raises:
        OSError: It cannot be read.
    """
    from sshproto_cli.pcap.progress import Progress

    progress = Progress(shown=Progress.wanted())
    total = None if name == "-" else Path(name).stat().st_size
    done = 0
    try:
        for piece in _pieces(name):
            yield piece
            done += len(piece)
            progress(done, total)
    finally:
        progress.clear()


def _read(name: str) -> Trace:
    from sshproto.replay.trace.file import read

    size = 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for piece in _pieces(name):
            size += len(piece)
            if size > _LARGEST:
                raise Failure(f"{name}: more than {_LARGEST} bytes")
            yield piece

    return read(counted())


def _write_new(name: str, data: bytes) -> None:
    """Make a file that only its owner can read: there are keys in it.

    Raises:
        OSError: It cannot be made, or is there already.
    """
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


# --------------------------------------------------------------------------------------------------------------- verify


def _verify(args: argparse.Namespace) -> int:
    from sshproto.replay.trace.verify import verify

    verdict = verify(_shown_pieces(args.file))
    divergence, cut = verdict.divergence, verdict.cut
    if args.json:
        put(
            _json(
                {
                    "file": args.file,
                    "role": verdict.header.role.value,
                    "exact": verdict.exact,
                    "steps": verdict.steps,
                    "cut": None if cut is None else {"offset": cut.offset, "length": cut.length},
                    "divergence": None if divergence is None else divergence.as_dict(),
                }
            )
        )
    elif divergence is not None:
        put(f"{args.file}: after {_number(verdict.steps, 'step')} as recorded, it differs at\n{divergence}\n")
    else:
        put(f"{args.file}: a {verdict.header.role.value}, {_number(verdict.steps, 'step')}, all as recorded\n")
    if cut is not None and not args.json:
        complain(f"{args.file}: cut in a record that starts at byte {cut.offset}; what is before was replayed")
    return 0 if verdict.exact else DIVERGED


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _json(value: object) -> str:
    import json

    return json.dumps(value) + "\n"


# ----------------------------------------------------------------------------------------------------------------- show


def _show(args: argparse.Namespace) -> int:
    from sshproto.replay.trace.file import TraceReader

    reader = TraceReader()
    told = False

    def tell(records: list[Record]) -> None:
        nonlocal told
        header = reader.header
        if header is None:
            return
        if not told:
            told = True
            put(_json(header.as_dict()) if args.json else _title(header))
        if args.json:
            put("".join(_json(record.as_dict()) for record in records))
        else:
            put("".join(_line(record) for record in records if args.all or not _dull(record)))

    for piece in _pieces(args.file):
        tell(reader.feed(piece))
    tell(reader.finish())
    if reader.cut is not None:
        cut = reader.cut
        complain(
            f"{args.file}: cut in a record that starts at byte {cut.offset}, of which {cut.length} bytes are there"
        )
    return 0


def _title(header: Header) -> str:
    from sshproto.text import printable

    told = f"a {header.role.value}, recorded by {printable(header.software)}, level {header.privacy.value}"
    return f"{told}{f': {printable(header.title)}' if header.title else ''}\n"


_DULL = frozenset({"ssh:idle", "ssh:entropy", "ssh:oracle"})


def _dull(record: Record) -> bool:
    return record.name in _DULL or (record.name == "ssh:api_result" and not record.data.keys() & {"error", "result"})


def _line(record: Record) -> str:
    """A record for people; secrets by their length only."""
    from sshproto.text import printable

    data = dict(record.data)
    step = data.pop("step", "")
    name = record.name.removeprefix("ssh:")
    if record.name == "ssh:api_call":
        name = f"call {printable(str(data.get('call')), _SHOWN)}"
        words = _fields(data.get("args"))
    elif "event" in data:
        words = _fields(data["event"])
    else:
        data.pop("config", None)
        data.pop("sha256", None)
        words = _fields(data)
    return (
        f"{record.time / 1000:12.3f} {printable(str(step), 12):>6}  {printable(name, _SHOWN):22} {words}".rstrip()
        + "\n"
    )


def _fields(value: Any) -> str:
    from sshproto.replay.trace.file import as_object
    from sshproto.replay.trace.values import SECRET
    from sshproto.text import printable

    told = as_object(value)
    if told is None:
        return _value(value)
    kind = told.get("$class")
    words = [] if kind is None else [printable(str(kind), _SHOWN)]
    for name, held in told.items():
        if name == "$class":
            continue
        shown = "…" if name in SECRET else _value(held)
        words.append(f"{printable(name, _SHOWN)}={shown}")
    return " ".join(words)


def _value(value: Any) -> str:
    """A value in few words: bytes by their number, keys by their fingerprint."""
    from sshproto.replay.trace.file import as_list, as_object
    from sshproto.text import printable

    told, listed = as_object(value), as_list(value)
    if told is not None:
        for key, words in _SPECIAL.items():
            if key in told:
                return printable(words(told), _SHOWN)
        return f"{{{_fields(told)}}}" if len(told) < _FEW else f"{{{len(told)} fields}}"
    if listed is not None:
        shown = [_value(item) for item in listed[:_FEW]]
        return f"[{', '.join(shown)}{', …' if len(listed) > _FEW else ''}]"
    return printable(str(value), _SHOWN)


_FEW = 10


def _count_of(told: dict[str, Any]) -> str:
    length = told.get("length", len(str(told.get("$bytes", ""))) // 2)
    return f"<{length} bytes>"


def _key(told: dict[str, Any]) -> str:
    from sshproto.errors import KeyFormatError
    from sshproto.keys.public import blob_type, fingerprint_of

    try:
        blob = bytes.fromhex(str(told.get("$public_key", told.get("$private_key"))))
        return f"{blob_type(blob)} {fingerprint_of(blob)}"
    except (ValueError, KeyFormatError):
        return "(no key)"


_SPECIAL: dict[str, Callable[[dict[str, Any]], str]] = {
    "$bytes": _count_of,
    "$hidden": lambda told: f"<{told.get('length', 'hidden')}{' bytes' if 'length' in told else ''}>",
    "$question": lambda told: f"question {told.get('$question')}",
    "$public_key": _key,
    "$private_key": _key,
    "fingerprint": lambda told: f"{told.get('type')} {told.get('fingerprint')}",
    "$error": lambda told: f"{told.get('$error')}: {told.get('text', '')}",
    "$float": lambda told: str(told.get("$float")),
    "$opaque": lambda told: f"<{told.get('$opaque')}>",
    "data": lambda told: f"<{told.get('length')} bytes>",
    "length": lambda told: f"<{told.get('length')} bytes>",
}
"""How what is no plain value is shown, by the key that tells what it is."""


# ----------------------------------------------------------------------------------------------------------------- diff


_BY_NATURE = frozenset(
    {"time", "now", "deadline", "raw", "sha256", "session_id", "software", "$question", "$bytes", "length", "data"}
)
"""What differs between two connections that do the same."""
_NOISE = frozenset({"ssh:entropy", "ssh:oracle", "ssh:idle", "ssh:bytes_in", "ssh:bytes_out", "ssh:clock"})
"""Records of how the bytes were cut and when, which differs, too."""


def _diff(args: argparse.Namespace) -> int:
    from itertools import zip_longest

    from sshproto.replay.trace.verify import Divergence

    if args.file == "-" == args.other:
        raise Failure("only one of the two can be standard input")
    left, right = _read(args.file), _read(args.other)
    mine, theirs = (_comparable(trace, exact=args.exact) for trace in (left, right))
    for place, (first, second) in enumerate(zip_longest(mine, theirs)):
        if first is not None and second is not None and first[0] == second[0]:
            continue
        expected, got = first[1] if first else None, second[1] if second else None
        record = expected or got
        step = record.data.get("step", 0) if record is not None else 0
        found = Divergence(step if isinstance(step, int) else 0, "", expected, got)
        if args.json:
            put(_json({"equal": False, "place": place, "file": args.file, "other": args.other, **_sides(found)}))
        else:
            put(f"record {place + 1} of those compared differs\n")
            put("".join(f"  {name}: {_side(side)}" for name, side in ((args.file, expected), (args.other, got))))
        return DIVERGED
    put(
        _json({"equal": True, "records": len(mine)})
        if args.json
        else f"{_number(len(mine), 'record')}, no difference\n"
    )
    return 0


def _side(record: Record | None) -> str:
    return "nothing more\n" if record is None else _line(record).lstrip()


def _sides(found: Any) -> dict[str, Any]:
    told = found.as_dict()
    return {"expected": told["expected"], "got": told["got"]}


def _comparable(trace: Trace, *, exact: bool) -> list[tuple[Any, Record]]:
    if exact:
        return [(record.as_dict(), record) for record in trace.records]
    return [
        ((record.name, _stripped({**record.data, "step": 0, "config": None})), record)
        for record in trace.records
        if record.name not in _NOISE and not _dull(record)
    ]


def _stripped(value: Any) -> Any:
    """A value without what differs by its nature."""
    from sshproto.replay.trace.file import as_list, as_object

    told, listed = as_object(value), as_list(value)
    if told is not None:
        return {name: _stripped(held) for name, held in told.items() if name not in _BY_NATURE}
    return value if listed is None else [_stripped(item) for item in listed]


# ------------------------------------------------------------------------------------------------------------- minimise


def _minimise(args: argparse.Namespace) -> int:
    from sshproto.replay.trace.minimise import TRIES, inputs, minimise
    from sshproto.replay.trace.seeds import seed

    trace = _read(args.file)
    tries: int = args.tries or TRIES
    spent = 0

    def progress(left: int, size: int) -> None:
        nonlocal spent
        spent = tries - left
        if sys.stderr is not None and sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{spent} of {tries} tries, {size} left out of which to leave out")
            sys.stderr.flush()

    try:
        least = minimise(trace, _predicate(args.until, trace), tries=tries, progress=progress)
    finally:
        if spent and sys.stderr is not None and sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
    _write_new(args.output, least.encode())
    if args.seed is not None:
        _write_new(args.seed, seed(least))
    before, after = len(inputs(trace)) - 1, len(inputs(least)) - 1
    put(f"{args.output}: {after} of {_number(before, 'input')}, after running {_number(spent, 'part')}\n")
    return 0


def _predicate(words: str, trace: Trace) -> Predicate:
    from sshproto.replay.trace import minimise

    what, _, name = words.partition("=")
    if words == "same-end":
        return minimise.same_end(trace)
    known = {
        "end": minimise.ends_with,
        "raises": minimise.raises,
        "event": minimise.gives,
        "finding": minimise.finds,
    }
    if what not in known or not name:
        expected = ", ".join(f"{key}=..." for key in known)
        raise Failure(f"--until: same-end or one of {expected} was expected, not {words!r}")
    return known[what](name)
