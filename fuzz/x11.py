"""X11: names of displays, Xauthority files, cookies that are asked for, and how connections begin, whatever is in them.

The first byte of an input chooses which; of the beginning of a connection the second one says in what pieces it comes.
"""

from __future__ import annotations

from fuzz.clear import fit_to_show
from fuzz.running import main
from sshproto.channels.requests import X11Request
from sshproto.errors import InvalidArgument
from sshproto.operations import displays
from sshproto.operations.displays import MAGIC_COOKIE, Authority, Cookie, Display, XauthorityError
from sshproto.operations.x11_setup import MAXIMUM_SETUP, SetupRefused, read_setup

MODULES = ("sshproto.operations.displays", "sshproto.operations.x11_setup")
_FAKE = Cookie(MAGIC_COOKIE, bytes(range(16)))
_TRUE = Cookie(MAGIC_COOKIE, bytes(range(100, 116)))


def _name(data: bytes) -> None:
    try:
        display = Display.parse(data.decode("utf-8", "surrogateescape"))
    except InvalidArgument as error:
        fit_to_show(error)
        return
    if Display.parse(str(display)) != display:
        raise AssertionError(f"written anew it is another one: {display!r}")
    for address in display.addresses:
        if isinstance(address, tuple) and not 6000 <= address[1] <= 65535:
            raise AssertionError(f"no port of a display: {address!r}")


def _file(data: bytes) -> None:
    try:
        entries = displays.read_authorities(data)
    except XauthorityError as error:
        fit_to_show(error)
        return
    if displays.write_authorities(entries) != data:
        raise AssertionError("what was read is not what is written")
    for name in (":0", "host:1", "10.0.0.1:0", "[::1]:7"):
        cookie = displays.find_cookie(entries, Display.parse(name), "here", ["192.0.2.1"])
        if cookie is not None and cookie.data not in [entry.data for entry in entries]:
            raise AssertionError("a cookie that is in no entry")


def _request(data: bytes) -> None:
    protocol, _, secret = data.decode("latin-1").partition(" ")
    try:
        cookie = displays.asked_cookie(X11Request(False, protocol, secret))
    except InvalidArgument as error:
        fit_to_show(error)
        return
    if cookie.hex != secret.lower() or cookie.protocol != protocol or not protocol.isascii():
        raise AssertionError(f"another cookie than that which was asked for: {cookie.protocol}")


def _beginning(data: bytes) -> None:
    size = data[0] % 60 + 1 if data else 1
    data = data[1:]
    whole = problem = None
    try:
        whole = read_setup(data)
    except SetupRefused as refusal:
        fit_to_show(refusal)
        problem = str(refusal)
    pieces, found, told = b"", None, None
    for start in range(0, len(data), size):
        pieces += data[start : start + size]
        try:
            found = read_setup(pieces)
        except SetupRefused as refusal:
            told = str(refusal)
        if found is not None or told is not None:
            break
    if (found, told) != (whole, problem):
        raise AssertionError("in pieces it is another one")
    if whole is None:
        return
    if whole.size > min(len(data), MAXIMUM_SETUP):
        raise AssertionError("it is longer than what has come")
    if whole.shows(_FAKE) and (whole.data != _FAKE.data or whole.protocol != MAGIC_COOKIE.encode()):
        raise AssertionError("a cookie was taken that was not shown")
    again = read_setup(whole.encode(_TRUE))
    if again is None or not again.shows(_TRUE) or again.shows(_FAKE):
        raise AssertionError("the cookie was not replaced")
    if (again.order, again.major, again.minor) != (whole.order, whole.major, whole.minor):
        raise AssertionError("more than the cookie was replaced")
    bare = read_setup(whole.encode(None))
    if bare is None or bare.data or bare.protocol:
        raise AssertionError("there is a cookie left")
    if len(whole.failure(data.decode("latin-1"))) % 4:
        raise AssertionError("a failure that is cut off")


_PARTS = (_name, _file, _request, _beginning)


def fuzz(data: bytes) -> None:
    """Read what the first byte says."""
    _PARTS[(data[0] if data else 0) % len(_PARTS)](data[1:])


def seeds() -> list[bytes]:
    """What there is, and what comes near it."""
    names = (
        ":0",
        "unix:0.1",
        "host:10.0",
        "[::1]:1",
        "tcp/host:0",
        "local/:7",
        "/run/x:0.1",
        "host::0",
        ":59536",
        "",
        ":",
    )
    hosts = ((256, b"here"), (65535, b""), (0, bytes((10, 0, 0, 1))), (6, bytes(15) + b"\1"))
    entries = [Authority(family, address, b"0", MAGIC_COOKIE.encode(), bytes(16)) for family, address in hosts]
    files = [displays.write_authorities(entries[:count]) for count in range(5)]
    files += [files[-1][:-3], b"\0\0\xff\xff", displays.write_authorities([Authority(1, b"", b"", b"", b"")])]
    asked = (f"{MAGIC_COOKIE} {_FAKE.hex}", "a 00", "$(x) 00", "a 0", "a 0g", " ", "\u00e9 00", f"{'a' * 65} 00")
    begun = []
    for order in ("B", "l"):
        numbers = read_setup(order.encode() + bytes(11))
        if numbers is not None:
            begun += [numbers.encode(_FAKE), numbers.encode(_TRUE) + b"more", numbers.encode(None)]
            begun.append(numbers.encode(Cookie("x" * 65, bytes(8))))
            begun.append(numbers.encode(Cookie("OTHER", bytes(257))))
    begun += [b"x", b"B", begun[0][:20]]
    return [
        *(b"\0" + name.encode() for name in names),
        *(b"\1" + content for content in files),
        *(b"\2" + words.encode("latin-1") for words in asked),
        *(b"\3" + bytes((size,)) + data for data in begun for size in (0, 11, 59)),
    ]


if __name__ == "__main__":
    main("x11", fuzz, seeds, modules=MODULES)
