"""known_hosts, authorized_keys and files of principals, whatever is in them: every line is an entry or a problem, and
nothing is raised but the refusal of a login.

The first byte of an input chooses the file.
"""

from __future__ import annotations

import contextlib

from fuzz.clear import fit_to_show
from fuzz.running import main
from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys import FOREVER, Certificate, CertificateKind, LoginRefused, PublicKey, authorized_keys, known_hosts
from tests.support.seeds import HOST_KEY, USER_KEY

MODULES = (
    "sshproto.keys.known_hosts",
    "sshproto.keys.authorized_keys",
    "sshproto.keys.key_options",
    "sshproto.keys.permits",
)
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
    mine = USER_KEY.public_key
    for shown in (mine, _CERTIFICATE):
        for address in ("10.0.0.1", None):
            try:
                permit = found.authorize(shown, "alice", now=_NOW, address=address, hostnames=["host.example.org"])
            except LoginRefused as refusal:
                fit_to_show(refusal)
                continue
            wanted = shown is not mine
            entries = [it for it in found.entries if it.key == _signer(shown) and it.authority == wanted]
            if not any(f"line {it.line}" == permit.grounds.split(",")[0] for it in entries):
                raise AssertionError(f"somebody is let in whom no line lets in: {permit.grounds}")
            if all(it.permit.force_command is not None for it in entries) and permit.force_command is None:
                raise AssertionError("a forced command gets lost")
            if permit.expired(_NOW) or (address is None and all(it.sources == "10.0.0.1" for it in entries)):
                raise AssertionError("a restriction gets lost")
            permit.connects(("host.example.org", 22))
            permit.listens(("localhost", 8080))


def _signer(shown: PublicKey | Certificate) -> PublicKey:
    return shown if isinstance(shown, PublicKey) else shown.authority


def _principals(content: bytes) -> None:
    found = authorized_keys.parse_principals(content)
    for number, words in found.problems:
        fit_to_show(words)
        if not 1 <= number <= content.count(b"\n") + 1:
            raise AssertionError(f"there is no line {number}")
    entry = found.find(_CERTIFICATE)
    if entry is not None and entry.name not in _CERTIFICATE.principals:
        raise AssertionError("a name is found that the certificate does not have")


_NOW = 1_800_000_000
_CERTIFICATE = Certificate.issue(
    HOST_KEY,
    USER_KEY.public_key,
    CertificateKind.USER,
    key_id="alice",
    principals=["alice", "ops"],
    valid_before=FOREVER,
    entropy=lambda count, label: bytes(count),
)
_FILES = (_known, _authorized, _principals)


def fuzz(data: bytes) -> None:
    """Read the file that the first byte says."""
    _FILES[(data[0] if data else 0) % len(_FILES)](data[1:])


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
        *('permitlisten="8080",permitopen="[::1]:1" ', 'expiry-time="20300101Z" ', 'tunnel="any",no-touch-required '),
    )
    trusts = ("cert-authority ", 'cert-authority,principals="ops,x",command="y" ', 'cert-authority,from="10.*" ')
    known = [f"{name} {mine.openssh()} comment\n" for name in names] + [f"{line}\n" for line in hashed]
    let_in = [f"{option}{other} alice\n" for option in options]
    return [
        *(b"\0" + line.encode() for line in known),
        b"\0" + "".join(known).encode(),
        *(b"\1" + line.encode() for line in let_in),
        b"\1# comment\r\n\r\n" + "".join(let_in).encode(),
        *(b"\1" + f"{option}{mine.openssh()}\n".encode() for option in trusts),
        b"\2" + b'# who\nroot # nobody\nno-pty,command="a b"\tops\nfrom="10.0.0.0/8" alice\n',
    ]


if __name__ == "__main__":
    main("hosts", fuzz, seeds, modules=MODULES)
