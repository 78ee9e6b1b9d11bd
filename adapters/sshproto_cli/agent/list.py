"""``sshproto agent list``: the keys that an agent holds."""

from __future__ import annotations

import argparse
import base64
import json
from typing import TYPE_CHECKING

from sshproto_cli.agent.common import REFUSED, STATUS, add_socket, carry_out, opened
from sshproto_cli.options import LISTING_PATIENCE, put, say

if TYPE_CHECKING:
    from sshproto.agent import Identity

_LEAST = 1024  # bits of an RSA key that is shown


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "list",
        help="the keys that an agent holds",
        description="Show the keys and certificates that an agent holds, a line for each: size, fingerprint, comment"
        " and type, as ssh-add -l.",
        epilog=f"{STATUS} It is {REFUSED}, too, if the agent shows no keys: it may be locked.",
    )
    add_socket(parser)
    parser.add_argument("-L", "--keys", action="store_true", help="the keys themselves, as lines of .pub files")
    parser.add_argument(
        "-E", "--hash", choices=("sha256", "md5"), default="sha256", help="of the fingerprint; %(default)s if not given"
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line, for each key")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_list, args)


def _list(args: argparse.Namespace) -> int:
    with opened(args, LISTING_PATIENCE) as agent:
        identities = agent.identities()
    for identity in identities:
        put(_shown(identity, args) + "\n")
    if not identities and not args.json:
        say("The agent has no identities.")
    return 0 if identities else REFUSED


def _shown(identity: Identity, args: argparse.Namespace) -> str:
    from sshproto.errors import KeyFormatError
    from sshproto.keys import Certificate
    from sshproto.keys.listing import short_name
    from sshproto.text import printable

    comment = printable(identity.comment, 1024)
    encoded = base64.b64encode(identity.blob).decode("ascii")
    if args.keys:
        return f"{printable(identity.type)} {encoded} {comment}".rstrip()
    try:
        loaded = identity.load(minimum_rsa_bits=_LEAST)
    except KeyFormatError:
        bits, name = "?", printable(identity.type) or "unknown"
    else:
        certified = isinstance(loaded, Certificate)
        key = loaded.key if isinstance(loaded, Certificate) else loaded
        bits, name = str(key.bits), short_name(key.type, certified=certified)
    told = identity.fingerprint(args.hash)
    if args.json:
        found = {"type": identity.type, "bits": int(bits) if bits.isdigit() else None, "fingerprint": told}
        return json.dumps({**found, "comment": identity.comment, "key": encoded})
    return f"{bits} {told} {comment or 'no comment'} ({name})"
