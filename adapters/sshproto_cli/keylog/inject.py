"""``sshproto keylog inject``: a key log into a capture, so that one file is enough; or out of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sshproto_cli.keylog.common import TROUBLE, load
from sshproto_cli.options import Failure, Parser, carry_out, complain
from sshproto_cli.output import Output
from sshproto_cli.pcap.opening import FAILED, STDIN

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 8 * 1024 * 1024  # bytes of key log that readers are sure to take


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "inject",
        help="a key log into a capture, or out of it",
        description="Write a capture as pcapng with a key log inside (a Decryption Secrets Block before the packets):"
        " Wireshark and sshproto open it without further ado, and so can everybody who gets the file. With --remove,"
        " key logs that stand in it are left out.",
        epilog=f"The exit status is 0, {FAILED} if the capture stops in the middle of a packet (the rest is written),"
        f" {TROUBLE} if something can't be read or written; then nothing is.",
    )
    if isinstance(parser, Parser):
        parser.failure = TROUBLE
    parser.add_argument(
        "capture", metavar="CAPTURE", help=f'pcap or pcapng, also compressed; "{STDIN}" is standard input'
    )
    parser.add_argument("keylogs", metavar="KEYLOG", nargs="*", help="a key log; none with --remove alone")
    parser.add_argument("--remove", action="store_true", help="leave out the SSH key logs that stand in the capture")
    parser.add_argument("-o", dest="output", metavar="FILE", required=True, help="write to FILE")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_inject, args, TROUBLE)


def _inject(args: argparse.Namespace) -> int:
    from sshproto.replay.capture.pcapng import Rewriter
    from sshproto.replay.capture.reader import CaptureError

    if not args.keylogs and not args.remove:
        raise Failure("there is nothing to do: give a key log, or --remove")
    rewriter = Rewriter(_key_log(args.keylogs), remove=args.remove)
    inputs = [args.capture, *args.keylogs]
    with Output(args.output, inputs=inputs, private=bool(args.keylogs)) as output:
        try:
            for piece in rewriter.rewrite(_chunks(args.capture)):
                output.write(piece)
        except CaptureError as error:
            raise Failure(f"{args.capture}: {error}") from None
    if args.remove and not rewriter.removed:
        complain(f"{args.capture}: there was no key log in it")
    if rewriter.cut is not None:
        complain(f"{args.capture}: {rewriter.cut}")
        return FAILED
    return 0


def _key_log(paths: list[str]) -> bytes:
    """What is put in: the lines, each once. Those of two fields stay so: all readers know them, and some no others.

    Raises:
        Failure: One can't be read, or a line is wrong.
    """
    lines: dict[str, None] = {}
    for path in paths:
        log = load(path)
        if log.derived:
            raise Failure(f"{path}: these are derived keys, which no key log has a line for")
        for line in log.lines:
            if line.problem:
                raise Failure(f"{path}, line {line.number} {line.problem}")
            if line.entry is not None:
                kind = "" if line.old else f"{line.entry.kind} "
                lines[f"{line.entry.cookie.hex()} {kind}{line.entry.value.hex()}\n"] = None
    text = "".join(lines).encode("ascii")
    if paths and not text:
        raise Failure(f"{paths[0]}: there is no line in it")
    if len(text) > _MOST:
        raise Failure(f"the key log has {len(text)} bytes; at most {_MOST} are put into a capture")
    return text


def _chunks(path: str) -> Iterator[bytes]:
    from sshproto.replay.capture.reader import CHUNK

    if path == STDIN:
        yield from _pieces(sys.stdin.buffer, CHUNK)
        return
    with Path(path).open("rb") as file:
        yield from _pieces(file, CHUNK)


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    while data := file.read(size):
        yield data
