"""The ``sshproto`` command: finds the verb, and imports nothing that another verb needs."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence

from sshproto_cli.options import Parser

VERBS = {
    "exec": "run a command on another machine",
    "shell": "work on another machine, in a terminal",
    "forward": "take connections through another machine",
    "config": "show what the configuration says about a host",
    "serve": "be a server",
    "scan": "show what a server offers",
    "demo": "show a whole SSH connection, step by step",
    "pcap": "look into captures",
    "key": "make, show and change keys, certificates and revocation lists",
    "known-hosts": "look into files of host keys, and edit them",
    "sign": "sign files",
    "verify": "check signatures of files",
    "agent": "use an agent, and be one",
    "keylog": "check and convert key logs",
    "trace": "replay what was recorded of a connection of ours",
}
"""The verbs and what they do. Each is a module ``sshproto_cli.<verb>``, with underscores for dashes. It has
``add_parser(subparsers)``, which sets ``run`` to a function from the parsed arguments to the exit status. One that has
verbs of its own has a table of these, too, and leaves it to them to set ``run``."""


class _Version(argparse.Action):
    """Prints the version; only then is the package imported."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from sshproto.config import VERSION

        print(f"sshproto {VERSION}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The arguments; the process's if None.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog="sshproto", description="SSH-2 from the command line.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    mine = _add_verbs(parser, "sshproto_cli", VERBS, words)
    try:
        # argparse takes "--" away, which may matter
        args, more = parser.parse_known_args(words, argparse.Namespace(words=words))
        if more:  # the verb's own error, which has the verb's status
            mine.error(f"unrecognized arguments: {' '.join(more)}")
        status: int = args.run(args)
    except SystemExit as ended:  # argparse's way
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return status


def _add_verbs(
    parser: argparse.ArgumentParser, package: str, verbs: Mapping[str, str], words: Sequence[str]
) -> argparse.ArgumentParser:
    """Add the verb that ``words`` begin with, or if there is none all of them, but only what ``--help`` shows.

    Returns:
        The parser of the verb, the innermost that there is.
    """
    subparsers = parser.add_subparsers(metavar="VERB", required=True)
    if not words or words[0] not in verbs:
        for name, purpose in verbs.items():
            subparsers.add_parser(name, help=purpose)
        return parser
    module = importlib.import_module(f"{package}.{words[0].replace('-', '_')}")
    mine: argparse.ArgumentParser = module.add_parser(subparsers)
    if hasattr(module, "VERBS"):
        return _add_verbs(mine, module.__name__, module.VERBS, words[1:])
    return mine


if __name__ == "__main__":
    sys.exit(main())
