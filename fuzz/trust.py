"""Who a host is, whatever the files say: known_hosts with certificates and in what order to ask, edited, and SSHFP.

Nobody is believed whom no line has; edited, a file loses the lines that are meant, and no byte besides. The first byte
of an input chooses what the rest is.
"""

from __future__ import annotations

from fuzz.clear import constant, fit_to_show
from fuzz.running import main
from sshproto.algorithms import CERTIFICATE_EXTRA, SIGNATURE_DEFAULT
from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys import (
    CERTIFICATE_ALGORITHMS,
    FOREVER,
    Certificate,
    CertificateKind,
    Trust,
    host_lines,
    known_hosts,
)
from sshproto.keys.sshfp import Sshfp, compare
from tests.support.seeds import HOST_KEY, USER_KEY

MODULES = ("sshproto.keys.known_hosts", "sshproto.keys.host_lines", "sshproto.keys.sshfp")

_HOSTS = (("host.example.org", 22), ("host.example.org", 2222), ("::1", 22))
_CERTIFIED = tuple(name for name in CERTIFICATE_EXTRA if CERTIFICATE_ALGORITHMS[name].signature in SIGNATURE_DEFAULT)
_CERTIFICATE = Certificate.issue(
    USER_KEY,
    HOST_KEY.public_key,
    CertificateKind.HOST,
    key_id="host",
    principals=("*.example.org",),
    valid_before=FOREVER,
    entropy=constant,
)


def _looked_up(content: bytes) -> None:
    """A certificate is believed if an authority for the host has signed it, and nothing about it is revoked."""
    found = known_hosts.parse(content, "hosts")
    key, authority = _CERTIFICATE.key, _CERTIFICATE.authority
    for host, port in _HOSTS:
        match = found.lookup(host, port, key, _CERTIFICATE, now=0)
        fit_to_show(match.problem)
        entries = found.find(host, port)
        marked = {(entry.marker, entry.blob) for entry in entries}
        revoked = not {("@revoked", key.blob), ("@revoked", authority.blob)}.isdisjoint(marked)
        if (match.trust is Trust.REVOKED) != revoked:
            raise AssertionError("what is revoked is not, or the other way round")
        trusted = host.endswith(".example.org") and ("@cert-authority", authority.blob) in marked and not revoked
        if (match.certificate is not None) != trusted:
            raise AssertionError("an authority is believed that no line has, or the other way round")
        if match.trust is Trust.MATCH and not trusted and ("", key.blob) not in marked:
            raise AssertionError("a key is believed that no line has")
        order = found.host_key_order(host, port, SIGNATURE_DEFAULT)
        more = _CERTIFIED if found.authorities(host, port) else ()
        if sorted(order) != sorted((*SIGNATURE_DEFAULT, *more)) or order[: len(more)] != more:
            raise AssertionError(f"an odd order: {order}")


def _edited(content: bytes) -> None:
    """All lines but those that are meant are what they were."""
    for host, port in _HOSTS:
        removed = host_lines.remove(content, host, port)
        gone = {line.line for line in removed.lines}
        lines = content.split(b"\n")
        last = lines.pop()
        kept = [line + b"\n" for number, line in enumerate(lines, 1) if number not in gone]
        if removed.text != b"".join(kept) + (b"" if len(lines) + 1 in gone else last):
            raise AssertionError("other lines are not what they were")
        if any(not line.marker for line in host_lines.find(removed.text, host, port)):
            raise AssertionError("something is left of a host that was removed")
        before = {entry.line for entry in known_hosts.parse(content).find(host, port)}
        if not before <= {line.line for line in host_lines.find(content, host, port)}:
            raise AssertionError("an entry is not found as a line")
    hashed = host_lines.hash_names(content, entropy=constant)
    if host_lines.hash_names(hashed.text, entropy=constant).lines:
        raise AssertionError("what is hashed is hashed again")
    for _, words in hashed.passed_over:
        fit_to_show(words)
    if host_lines.append(content, "x y z").split(b"\n")[-2:] != [b"x y z", b""]:
        raise AssertionError("a line is appended to another")


def _marked(content: bytes) -> None:
    """A line for an authority is read as what it says."""
    patterns = content.decode("utf-8", "surrogateescape")
    try:
        line = known_hosts.marked_line("@cert-authority", patterns, HOST_KEY.public_key)
    except InvalidArgument as error:
        fit_to_show(error)
        return
    found = known_hosts.parse(line)
    if [(it.marker, it.names, it.blob) for it in found.entries] != [
        ("@cert-authority", patterns, HOST_KEY.public_key.blob)
    ]:
        raise AssertionError(f"it is read as something else: {line!r}")


def _record(content: bytes) -> None:
    """Written, an SSHFP record is the same, and it is the fingerprint of one key."""
    for read in (lambda: Sshfp.from_rdata(content), lambda: Sshfp.parse(content.decode("utf-8", "surrogateescape"))):
        try:
            record = read()
        except KeyFormatError as error:
            fit_to_show(error)
            continue
        if Sshfp.from_rdata(record.rdata) != record or Sshfp.parse(record.text("h", generic=True)) != record:
            raise AssertionError("written it is another")
        good = record in Sshfp.of(HOST_KEY.public_key)
        if (
            record.matches(HOST_KEY.public_key) != good
            or (compare((record,), HOST_KEY.public_key) is Trust.MATCH) != good
        ):
            raise AssertionError("a fingerprint of another key")


_KINDS = (_looked_up, _edited, _marked, _record)


def fuzz(data: bytes) -> None:
    """Do what the first byte says."""
    _KINDS[(data[0] if data else 0) % len(_KINDS)](data[1:])


def seeds() -> list[bytes]:
    """Lines of all kinds, and records."""
    mine, other = HOST_KEY.public_key, USER_KEY.public_key.openssh()
    names = ("*", "!host.example.org,*", "[host.example.org]:2222", "@cert-authority *.example.org", "@revoked h*",
             "host.example.org,::1", "|1|x|y", "@odd x")  # fmt: skip
    lines = [f"{name} {key} words" for name in names for key in (mine.openssh(), other)]
    lines += [
        known_hosts.line_for(host, port, mine, hashed=True, entropy=constant).rstrip("\n") for host, port in _HOSTS
    ]
    lines += ["# comment", "host.example.org 1024 35 12", "host.example.org ssh-rsa", "::1 ssh-rsa !", ""]
    whole = [
        "\n".join(lines),
        "\r\n".join(lines[::-1]),
        "\n".join(f"@cert-authority host.* {it}" for it in (other, "x")),
    ]
    records = [record.text(*form) for record in Sshfp.of(mine) for form in ((), ("host",))]
    records += [record.text("host", generic=True) for record in Sshfp.of(mine)]
    return [
        *(bytes((kind,)) + text.encode() for kind in (0, 1) for text in (*lines, *whole)),
        *(
            b"\2" + patterns.encode()
            for patterns in ("*.example.org", "*,!x", "[h]:22", "@x", "|1|", "a b", "\x1b", "ü")
        ),
        *(b"\3" + record.encode() for record in records),
        *(b"\3" + record.rdata for record in Sshfp.of(mine)),
    ]


if __name__ == "__main__":
    main("trust", fuzz, seeds, modules=MODULES)
