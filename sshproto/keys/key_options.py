"""The options in front of a key in ``authorized_keys``, or of a name in a file of principals (sshd(8)).

Options are ``name`` or ``name="value"``, separated by commas; names are of either case, and within quotes ``\\"`` is a
quote.  They are obeyed from left to right, so that ``restrict,pty`` gives back what was taken and ``pty,restrict`` does
not.  What is not known, or stands where it means nothing, makes the line unusable: an option takes something away, and
nobody can tell what one would take that is not understood.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys.known_hosts import match_pattern
from sshproto.keys.permits import Permit, Target
from sshproto.keys.timestamps import LocalTime, read_timestamp, utc
from sshproto.text import printable
from sshproto.values import frozen

MOST_TARGETS = 4096
"""Of ``permitopen``, and of ``permitlisten``, in one line."""

MOST_VARIABLES = 1024
"""Of ``environment``, in one line."""

_LONGEST_HOST = 1024
_LARGEST_TUNNEL = 2**31 - 4
_NAME = re.compile("[A-Za-z0-9@.-]+")
_VARIABLE = re.compile("[A-Za-z0-9_]+")


@frozen
class KeyOptions:
    """What the options of a line say.

    Attributes:
        permit: What they leave of all that a login may do.
        sources: From where, as in ``from``: see :func:`source_allowed`; None: from anywhere.
        principals: For whom a certificate is to be, of an authority's line; None: for the user.
        authority: The key is the one of a certificate authority.
    """

    permit: Permit = Permit()
    sources: str | None = None
    principals: tuple[str, ...] | None = None
    authority: bool = False


# -------------------------------------------------------------------------------------------------------------- reading


def options_field(line: str) -> str:
    """The options at the start of a line: everything up to the first white space outside quotes.

    Raises:
        KeyFormatError: A quote does not end.
    """
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


def _pieces(field: str) -> Iterator[str]:
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


def split_options(field: str) -> list[tuple[str, str | None]]:
    """Pairs of a name in lower case and a value, None for a flag, in order.

    Between two commas there may be nothing, as in OpenSSH.

    Raises:
        KeyFormatError: Something is not of the form ``name`` or ``name="value"``.
    """
    options: list[tuple[str, str | None]] = []
    for option in filter(None, _pieces(field)):
        name, equals, value = option.partition("=")
        if not _NAME.fullmatch(name):
            raise KeyFormatError(f'not an option: {printable(option, 40)!r}; expected name or name="value"')
        name = name.lower()
        if not equals:
            options.append((name, None))
            continue
        inner = value[1:-1]
        if len(value) < 2 or value[0] != '"' or value[-1] != '"' or '"' in inner.replace('\\"', ""):
            raise KeyFormatError(f"the value of option {name} is not in quotes: {printable(value, 40)}")
        if "\0" in inner:
            raise KeyFormatError(f"there is a NUL in the value of option {name}")
        options.append((name, inner.replace('\\"', '"')))
    return options


_Values = dict[str, Any]

_SWITCHES = {
    "agent-forwarding": ("agent_forwarding", True),
    "port-forwarding": ("port_forwarding", True),
    "pty": ("pty", True),
    "touch-required": ("touch_required", True),
    "user-rc": ("user_rc", True),
    "verify-required": ("verify_required", True),
    "x11-forwarding": ("x11_forwarding", True),
}
_SWITCHES.update({f"no-{name}": (field, False) for name, (field, _) in tuple(_SWITCHES.items())})
_RESTRICTED: _Values = dict.fromkeys(("agent_forwarding", "port_forwarding", "pty", "user_rc", "x11_forwarding"), False)


def _once(field: str, name: str, values: _Values, value: Any) -> None:
    if field in values:
        raise KeyFormatError(f"option {name} stands there twice")
    values[field] = value


def _environment(values: _Values, value: str) -> None:
    name, equals, content = value.partition("=")
    if not equals or not _VARIABLE.fullmatch(name):
        raise KeyFormatError(f"option environment: {printable(value, 40)!r} is not NAME=value with letters, digits, _")
    found: dict[str, str] = values.setdefault("environment", {})
    found.setdefault(name, content)  # the first counts
    if len(found) > MOST_VARIABLES:
        raise KeyFormatError(f"option environment: more than {MOST_VARIABLES} variables")


def _expiry(local: LocalTime) -> Callable[[_Values, str], None]:
    def read(values: _Values, value: str) -> None:
        try:
            moment = read_timestamp(value, local)
        except KeyFormatError as error:
            raise KeyFormatError(f"option expiry-time: {error}") from None
        values["expires"] = min(moment, values.get("expires", moment))  # the earliest counts

    return read


def _tunnel(values: _Values, value: str) -> None:
    if value == "any":
        values["tunnel"] = value
    elif value.isascii() and value.isdigit() and len(value) <= 10 and int(value) <= _LARGEST_TUNNEL:
        values["tunnel"] = int(value)
    else:
        raise KeyFormatError(f"option tunnel: {printable(value, 40)!r} is neither a number nor any")


def read_target(value: str) -> Target:
    """``host:port``, ``[host]:port`` or ``host:*``.

    Raises:
        KeyFormatError: It is something else.
    """
    if value.startswith("["):
        host, bracket, rest = value[1:].partition("]")
        good = bracket and rest[:1] in (":", "/")
        port = rest[1:]
    else:
        host, port = re.split("[:/]", value, maxsplit=1) if re.search("[:/]", value) else (value, "")
        good = True
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    if not good or not host or len(host) > _LONGEST_HOST or (port != "*" and not 0 < number < 65536):
        raise KeyFormatError(
            f"{printable(value, 64)!r} is not host:port, the port from 1 to 65535 or *; an IPv6 address is in brackets"
        )
    return host, None if port == "*" else number


def _target(name: str, field: str, values: _Values, value: str) -> None:
    if name == "permitlisten" and ":" not in value:
        value = f"*:{value}"
    try:
        target = read_target(value)
    except KeyFormatError as error:
        raise KeyFormatError(f"option {name}: {error}") from None
    found: list[Target] = values.setdefault(field, [])
    found.append(target)
    if len(found) > MOST_TARGETS:
        raise KeyFormatError(f"option {name}: more than {MOST_TARGETS} times")


def _sources(values: _Values, value: str) -> None:
    try:
        _criteria(value)
    except InvalidArgument as error:
        raise KeyFormatError(f"option from: {error}") from None
    _once("sources", "from", values, value)


_VALUED: dict[str, Callable[[_Values, str], None]] = {
    "command": lambda values, value: _once("force_command", "command", values, value),
    "environment": _environment,
    "from": _sources,
    "permitlisten": lambda values, value: _target("permitlisten", "permit_listen", values, value),
    "permitopen": lambda values, value: _target("permitopen", "permit_open", values, value),
    "principals": lambda values, value: _once("principals", "principals", values, tuple(value.split(","))),
    "tunnel": _tunnel,
}


def read_options(options: Iterable[tuple[str, str | None]], local: LocalTime = utc) -> KeyOptions:
    """What options say, in the order in which they stand.

    Args:
        options: From :func:`split_options`.
        local: What time it is where ``expiry-time`` names no zone.

    Raises:
        KeyFormatError: One is not known, stands there twice, has no value or an odd one, or means nothing where it is.
    """
    values: _Values = {}
    valued = {**_VALUED, "expiry-time": _expiry(local)}
    for name, value in options:
        takes = name in valued
        if not takes and name not in _SWITCHES and name not in ("restrict", "cert-authority"):
            raise KeyFormatError(f"option {printable(name, 40)} is not known")
        if takes != (value is not None):
            raise KeyFormatError(f"option {name} {'needs a value' if takes else 'has no value'}")
        if value is not None:
            valued[name](values, value)
        elif name == "restrict":
            values.update(_RESTRICTED)
        elif name == "cert-authority":
            values["authority"] = True
        else:
            field, allowed = _SWITCHES[name]
            values[field] = allowed
    sources, principals = values.pop("sources", None), values.pop("principals", None)
    authority = values.pop("authority", False)
    if principals is not None and not authority:
        raise KeyFormatError("option principals goes with cert-authority")
    for field in ("permit_open", "permit_listen"):
        if field in values:
            values[field] = tuple(values[field])
    values["environment"] = tuple(values.get("environment", {}).items())
    return KeyOptions(Permit(**values), sources, principals, authority)


# -------------------------------------------------------------------------------------------------------------- sources


@frozen
class _Criterion:
    """One pattern of ``from``.

    Attributes:
        pattern: As it is written, in lower case, without the ``!``.
        negated: Whether there is one.
        network: What it stands for if it is an address or a network, of :mod:`ipaddress`.
    """

    pattern: str
    negated: bool
    network: Any


_ADDRESS_CHARACTERS = frozenset("0123456789abcdefABCDEF.:")
_OLD_FORM = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)(?:\.(?:0[xX][0-9a-fA-F]*|[0-9]+)){0,3}")
"""What inet_aton(3) may take for an address: ``127.1``, ``0x7f.0.0.1``, ``0177.0.0.1``, ``2130706433``."""


def _criteria(patterns: str) -> list[_Criterion]:
    """The patterns of a list.

    Raises:
        InvalidArgument: One is empty, a network with bits outside its mask, or an address in an old form.
    """
    import ipaddress

    found: list[_Criterion] = []
    for entry in patterns.split(","):
        negated = entry.startswith("!")
        pattern = entry[1:] if negated else entry
        if not pattern:
            raise InvalidArgument(f"there is an empty pattern in {printable(patterns, 64)!r}")
        address, slash, bits = pattern.partition("/")
        network: Any = None
        if _ADDRESS_CHARACTERS.issuperset(address):
            try:
                network = ipaddress.ip_address(address)
            except ValueError:  # a name such as cafe.de, or a pattern such as 10.0.*
                pass
            else:
                try:
                    network = ipaddress.ip_network(pattern if slash else address)
                except ValueError:
                    raise InvalidArgument(f"{printable(pattern, 64)!r} is an address, but no network") from None
                if slash and not (bits.isascii() and bits.isdigit()):
                    raise InvalidArgument(f"{printable(pattern, 64)!r} is no network: the mask is a number of bits")
        if network is None and _OLD_FORM.fullmatch(address):  # which sshd knows, and excludes where there is a ! before
            raise InvalidArgument(f"the address {printable(pattern, 64)!r} is not written as four numbers up to 255")
        found.append(_Criterion(pattern.lower(), negated, network))
    return found


def source_allowed(patterns: str, address: str | None, hostnames: Iterable[str] = ()) -> bool:
    """Whether a client may come from where it does, as ``from`` has it.

    Args:
        patterns: Separated by commas: addresses, networks (``192.0.2.0/24``), and patterns with ``*`` and ``?`` for
            addresses and for names. One that is negated by ``!`` and matches refuses, whatever else does.
        address: The client's, numeric; None if it is not known.
        hostnames: Names of the client's that have been verified; patterns match them in either case.

    Raises:
        InvalidArgument: There is an empty pattern, a network with bits outside its mask, or an address in an old form
            (``127.1``).
    """
    import ipaddress

    criteria = _criteria(patterns)
    came: Any = None
    try:
        came = ipaddress.ip_address(address or "")
    except ValueError:
        pass
    else:
        came = (came.ipv4_mapped if came.version == 6 else None) or came
    names = [name.lower() for name in hostnames]
    if came is not None:
        names.append(str(came))

    def matches(criterion: _Criterion) -> bool:
        if criterion.network is not None:
            return came is not None and came in criterion.network
        return any(match_pattern(name, criterion.pattern) for name in names)

    if any(criterion.negated and matches(criterion) for criterion in criteria):
        return False
    return any(not criterion.negated and matches(criterion) for criterion in criteria)
