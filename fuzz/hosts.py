"""known_hosts and authorized_keys, whatever is in them: every line is an entry or a problem, and nothing is raised.

The first byte of an input chooses the file.
"""

from __future__ import annotations

import contextlib

from fuzz.clear import fit_to_show
from fuzz.running import main
from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys import authorized_keys, known_hosts
from tests.support.seeds import HOST_KEY, USER_KEY

MODULES = ("sshproto.keys.known_hosts", "sshproto.keys.authorized_keys")
_HOSTS = (("host.example.org", 22), ("host.example.org", 2222), ("::1", 22), ("10.0.0.1", 22))


def _problems(problems: tuple[tuple[int, str], ...], content: bytes, entries: int) -> None:
    lines = content.decode("utf-8", "replace").split("\n")
    meant = [line for line in lines if line.strip(" \t\r") and not line.strip(" \t\r").startswith("#")]
    if len(problems) + entries != len(meant):
        raise AssertionError(f"{len(meant)} lines, {entries} entries, {len(problems)} problems")
    for number, words in problems:
        fit_to_show(words)
        if not 1 <= number <= len(lines):
            raise AssertionError(f"there is no line {number}")


def _known(content: bytes) -> None:
    found = known_hosts.parse(content)
    _problems(found.problems, content, len(found.entries))
    for entry in found.entries:
        with contextlib.suppress(KeyFormatError):
            entry.key()
    for host, port in _HOSTS:
        for key in (HOST_KEY.public_key, USER_KEY.public_key):
            match = found.lookup(host, port, key)
            blobs = {entry.blob for entry in found.find(host, port) if not entry.marker}
            if match.trust is known_hosts.Trust.MATCH and key.blob not in blobs:
                raise AssertionError("a key is trusted that no line has")
        found.algorithms_for(host, port)
    try:
        line = known_hosts.line_for(content[:80].decode("latin-1"), 22, HOST_KEY.public_key)
    except InvalidArgument:
        return
    if known_hosts.parse(line).problems or line.count("\n") > 1:
        raise AssertionError(f"a line is written that cannot be read: {line!r}")


def _authorized(content: bytes) -> None:
    found = authorized_keys.parse(content)
    _problems(found.problems, content, len(found.entries))
    for entry in found.entries:
        entry.unsupported()
    entry = found.find(USER_KEY.public_key)
    if entry is not None and (entry.authority or entry.key != USER_KEY.public_key):
        raise AssertionError("a key is let in that no line has")


def fuzz(data: bytes) -> None:
    """Read the file that the first byte says."""
    (_authorized if data and data[0] & 1 else _known)(data[1:])


def seeds() -> list[bytes]:
    """Lines of all kinds."""
    mine, other = HOST_KEY.public_key, USER_KEY.public_key.openssh()
    hashed = [
        known_hosts.line_for(host, port, mine, hashed=hashed, entropy=lambda count, label: bytes(count))
        for host, port in _HOSTS
        for hashed in (False, True)
    ]
    names = ("*", "!host.example.org,*", "[host.example.org]:2222", "*.example.org,10.0.0.?", "@revoked *", "|1|x|y",
             "@cert-authority *.example.org", "@odd x", "host.example.org", "1024 35 12")  # fmt: skip
    options = (
        *("", 'command="echo \\"x\\" y" ', 'from="10.0.0.0/8,!10.0.0.1",no-pty ', "restrict,pty ", "cert-authority "),
        *('environment="A=B",environment="C=D" ', 'command="x ', ",, ", 'permitopen="*:22" '),
    )
    known = [f"{name} {mine.openssh()} comment\n" for name in names] + [f"{line}\n" for line in hashed]
    let_in = [f"{option}{other} alice\n" for option in options]
    return [
        *(b"\0" + line.encode() for line in known),
        b"\0" + "".join(known).encode(),
        *(b"\1" + line.encode() for line in let_in),
        b"\1# comment\r\n\r\n" + "".join(let_in).encode(),
    ]


if __name__ == "__main__":
    main("hosts", fuzz, seeds, modules=MODULES)
