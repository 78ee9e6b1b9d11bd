"""Certificates and revocation lists, whatever is in them: what is accepted is what was signed, and grants no more.

The first byte of an input chooses what the rest is. A certificate is changed before it is signed as well as after, or
next to nothing would get past the signature.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence

from fuzz.clear import constant, fit_to_show
from fuzz.running import main
from fuzz.running import mutate as mutate_bytes
from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys.certificates import Certificate
from sshproto.keys.grants import CRITICAL_OPTIONS, FOREVER, CertificateKind, CertificateRefused, address_allowed
from sshproto.keys.krl import KRL, MAGIC, RevokedCertificates
from sshproto.keys.listing import certificate_text, krl_text
from sshproto.keys.public import PublicKey
from sshproto.keys.specification import revoke_specified
from sshproto.keys.validity import parse_validity
from sshproto.wire.codec import boolean, byte, mpint, string, text, uint32, uint64
from tests.support.seeds import HOST_KEY, USER_KEY

MODULES = ("sshproto.keys.certificates", "sshproto.keys.grants", "sshproto.keys.issuing", "sshproto.keys.krl",
           "sshproto.keys.listing", "sshproto.keys.specification", "sshproto.keys.validity")  # fmt: skip

_NOW = 1_700_000_000
_NAMES = ("alice", "host.example.org")
_ADDRESS = "192.0.2.1"
_ENFORCED = ("force-command", "verify-required")
_TRUSTED = (HOST_KEY.public_key,)


def _certificate(data: bytes) -> None:
    certificate = Certificate.from_blob(data)
    if certificate not in _GOOD:
        raise AssertionError(f"a forgery: {certificate!r}")


def _signed(data: bytes) -> None:
    certificate = Certificate.from_blob(data + string(HOST_KEY.sign(data)))
    fit_to_show(repr(certificate), 12_000)
    fit_to_show(certificate_text(certificate).replace("\n", ""), 500_000)
    if Certificate.parse(certificate.openssh()) != certificate:
        raise AssertionError("written it is another")
    if certificate.authority not in _TRUSTED:
        raise AssertionError("another authority than the one that signed")
    for kind in CertificateKind:
        _granted(certificate, kind)


def _granted(certificate: Certificate, kind: CertificateKind) -> None:
    revoked = KRL().revoke_serials(None, 666)
    try:
        grant = certificate.check(
            kind, _NAMES, authorities=_TRUSTED, now=_NOW, address=_ADDRESS, enforced=_ENFORCED, revoked=revoked
        )
    except CertificateRefused as error:
        fit_to_show(error)
        return
    good = (
        certificate.kind is kind,
        certificate.valid_after <= _NOW < certificate.valid_before,
        certificate.serial != 666,
        grant.principal in certificate.principals,
        grant.principal in _NAMES or (kind is CertificateKind.HOST and {*"*?"} & {*grant.principal}),
        set(certificate.critical_options) <= {*CRITICAL_OPTIONS},
        grant.verify_required == ("verify-required" in certificate.critical_options),
        not grant.verify_required or certificate.key.application is not None,
        kind is CertificateKind.USER or not certificate.critical_options,
        bool(grant.force_command) == ("force-command" in certificate.critical_options),
        bool(grant.source_address) == ("source-address" in certificate.critical_options),
        grant.pty <= ("permit-pty" in certificate.extensions),
        not grant.source_address or address_allowed(_ADDRESS, ",".join(grant.source_address)),
    )
    if not all(good):
        raise AssertionError(f"granted, although: {good}")


def _list(data: bytes) -> None:
    read = KRL.parse(data)
    fit_to_show(repr(read))
    fit_to_show(krl_text(read).replace("\n", ""), 10_000_000)
    written = read.encode()
    again = KRL.parse(written)
    if (again.certificates, again.keys, again.sha1, again.sha256) != (
        read.certificates,
        read.keys,
        read.sha1,
        read.sha256,
    ):
        raise AssertionError("written it is another")
    if again.encode() != written:
        raise AssertionError("not canonical")
    for certificate in _GOOD:
        keys = {certificate.key.blob, certificate.authority.blob}
        parts = [part for part in read.certificates if part.authority in (b"", certificate.authority.blob)]
        listed = keys & read.keys or any(
            certificate.key_id in part.key_ids
            or any(certificate.serial and low <= certificate.serial <= high for low, high in part.serials)
            for part in parts
        )
        why = read.why(certificate)
        fit_to_show(why)
        if bool(listed or "digest" in why) != bool(why):
            raise AssertionError(f"revoked: {why!r}, listed: {listed}")


def _address(data: bytes) -> None:
    address, _, allowed = data.decode("latin-1").partition(" ")
    try:
        address_allowed(address, allowed)
    except InvalidArgument as error:
        fit_to_show(error)
        return
    if address_allowed(_ADDRESS, allowed) and not {*"./:"} & {*allowed}:
        raise AssertionError(f"{_ADDRESS} is in {allowed!r}")


def _line(data: bytes) -> None:
    certificate = Certificate.parse(data)
    if certificate not in _GOOD:
        raise AssertionError(f"a forgery: {certificate!r}")


def _issued(data: bytes) -> None:
    kind = CertificateKind.HOST if data[:1] == b"h" else CertificateKind.USER
    words = data[1:].decode("latin-1").split("\n")
    principals, options, extensions = (line.split("|") if line else [] for line in [*words, "", "", ""][1:4])
    given = [dict(word.partition("=")[::2] for word in line) for line in (options, extensions)]
    try:
        certificate = Certificate.issue(
            HOST_KEY,
            USER_KEY.public_key,
            kind,
            key_id=words[0],
            principals=principals,
            valid_before=FOREVER,
            critical_options=given[0],
            extensions=given[1],
            entropy=constant,
        )
    except InvalidArgument as error:
        fit_to_show(error)
        return
    if (certificate.key_id, certificate.principals) != (words[0], tuple(principals)):
        raise AssertionError(f"issued for others: {certificate!r}")
    if certificate.critical_options.keys() != given[0].keys() or certificate.extensions.keys() != given[1].keys():
        raise AssertionError(f"issued with other options: {certificate!r}")
    if not given[0]:  # nothing but the address could be in the way of those for whom it is
        certificate.check(kind, principals[-1], authorities=_TRUSTED, now=_NOW)


def _specified(data: bytes) -> None:
    """What a specification revokes is listed, and the listing is one that revokes the same."""
    authority = HOST_KEY.public_key
    revoked = revoke_specified(KRL(), data, authorities=[authority])
    if KRL.parse(revoked.encode()) != revoked:
        raise AssertionError("written it is another")
    listing = krl_text(revoked)
    fit_to_show(listing.replace("\n", ""), 2_000_000)
    if any(part.authority not in (b"", authority.blob) for part in revoked.certificates):
        return  # a certificate of another authority
    again = revoke_specified(KRL(), listing, authorities=[authority])
    if "# id, which" not in listing and again.certificates != revoked.certificates:
        raise AssertionError(f"a listing of something else: {listing!r}")
    digests = {hashlib.sha256(blob).digest() for blob in revoked.keys} | revoked.sha256
    if (again.keys, again.sha1, again.sha256) != (frozenset(), revoked.sha1, digests):
        raise AssertionError(f"a listing of other keys: {listing!r}")


def _valid(data: bytes) -> None:
    try:
        after, before = parse_validity(data.decode("utf-8", "surrogateescape"), _NOW)
    except InvalidArgument as error:
        fit_to_show(error)
        return
    if not 0 <= after < before <= FOREVER:
        raise AssertionError(f"valid from {after} to {before}")


_WHAT: tuple[Callable[[bytes], None], ...] = (
    *(_certificate, _signed, _list, _address, _line, _issued, _specified, _valid),
)


def fuzz(data: bytes) -> None:
    """Read ``data`` as what its first byte says."""
    try:
        _WHAT[(data[0] if data else 0) % len(_WHAT)](data[1:])
    except KeyFormatError as error:
        fit_to_show(error)


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Change bytes, or a string as a whole with its length."""
    if data[:1] in (b"\1", b"\2") and rng.randrange(2):
        places = [
            at for at in range(1, len(data) - 4) if int.from_bytes(data[at : at + 4], "big") <= len(data) - at - 4
        ]
        at = rng.choice(places or [1])
        size = int.from_bytes(data[at : at + 4], "big")
        content = rng.choice((b"", data[at + 4 : at + 4 + size] * 2, rng.choice(_WORDS), rng.choice(_WORDS)))
        return data[:at] + string(content) + data[at + 4 + size :]
    return mutate_bytes(data, others, rng)


_WORDS = (
    *(b"*", b"alice", b"host.example.org", b"permit-pty", b"force-command", b"source-address", b"verify-required"),
    *(text("ls"), text("192.0.2.0/24"), text("10.0.0.0/8,::/0"), text("alice"), text("permit-pty") + string(b"")),
    *(uint64(0), uint64(FOREVER), uint64(5), uint64(1) + uint64(FOREVER), uint64(3) + mpint(5), b"\1", string(b"")),
)


def _issue(kind: CertificateKind, name: str, **values: object) -> Certificate:
    given = {"key_id": "id", "serial": 5, "valid_before": FOREVER, "entropy": constant} | values
    return Certificate.issue(HOST_KEY, USER_KEY.public_key, kind, principals=(name, "*.org"), **given)  # type: ignore[arg-type]


_OPTIONS = {"force-command": "ls", "source-address": "192.0.2.0/24,2001:db8::/32"}
_GOOD = (
    Certificate.issue(
        HOST_KEY,
        USER_KEY.public_key,
        CertificateKind.USER,
        key_id="id",
        serial=5,
        principals=("alice", "bob"),
        valid_before=FOREVER,
        critical_options=_OPTIONS,
        entropy=constant,
    ),
    _issue(CertificateKind.HOST, "host.*", extensions={"note@example.org": "x"}),
    _issue(CertificateKind.HOST, "*", serial=0, key_id="other"),
    Certificate.issue(
        HOST_KEY,
        PublicKey.from_blob(text("sk-ssh-ed25519@openssh.com") + USER_KEY.public_key.blob[-36:] + text("ssh:")),
        CertificateKind.USER,
        key_id="token",
        principals=("alice",),
        valid_before=FOREVER,
        critical_options={"verify-required": ""},
        extensions={"no-touch-required": ""},
        entropy=constant,
    ),
)


_ORDERS = (
    b"uid\nalice|bob\nforce-command=ls|source-address=10.0.0.0/8,::1\npermit-pty|x@example.org=y|no-touch-required",
    b"hid\n*.example.org\n\nx@example.org=y",
    b"hid\nhost\nforce-command=ls",
    b"u\nalice\nverify-required|z@y",
    b"u\n\n",
)


def _section(kind: int, *parts: bytes) -> bytes:
    return byte(kind) + string(b"".join(parts))


def seeds() -> list[bytes]:
    """Certificates of both kinds, lists with sections of all kinds, addresses."""
    blobs = [certificate.blob for certificate in _GOOD]
    end = len(string(HOST_KEY.sign(b"")))  # of Ed25519, always as long
    unsigned = [blob[:-end] for blob in blobs]
    head = MAGIC + uint32(1) + uint64(1) + uint64(_NOW) + uint64(0) + string(b"") + text("comment")
    authority = HOST_KEY.public_key.blob
    extension = (text("note@example.org"), boolean(False), string(b"x"))
    sections = (
        *(_section(0x20, uint64(5), uint64(9)), _section(0x21, uint64(4), uint64(6)), _section(0x23, text("id"))),
        *(_section(0x22, uint64(3), mpint(5)), _section(0x39, *extension), _section(0x20, uint64(0))),
    )
    lists = [
        head,
        *(head + _section(1, string(authority), string(b""), one) for one in sections),
        head + _section(1, string(b""), string(b""), *sections[:5]) + _section(255, *extension),
        head + _section(2, string(USER_KEY.public_key.blob)) + _section(3, string(bytes(20))),
        head + _section(5, string(bytes(32)), string(hashlib.sha256(authority).digest())),
        KRL(certificates=(RevokedCertificates(authority, tuple((n, n) for n in range(1, 99, 3))),)).encode(),
    ]
    signature = head + byte(4) + string(authority)
    lists.append(signature + string(HOST_KEY.sign(signature)))
    addresses = (
        b"192.0.2.1 192.0.2.0/24,10.0.0.0/8",
        b"::ffff:192.0.2.1 ::/0",
        b"fe80::1%eth0 fe80::/10",
        b" ,",
        b"x y",
    )
    return [
        *(b"\0" + blob for blob in blobs),
        *(b"\1" + blob for blob in unsigned),
        *(b"\2" + content for content in lists),
        *(b"\3" + pair for pair in addresses),
        *(b"\4" + certificate.openssh().encode() for certificate in _GOOD),
        b"\4ssh-ed25519-cert-v01@openssh.com AAAA",
        *(b"\5" + words for words in _ORDERS),
        b"\6serial: 5-0x10\nserial: 010 # x\nid: an id\nkey: " + USER_KEY.public_key.openssh().encode(),
        *(b"\6" + word + USER_KEY.public_key.openssh().encode() for word in (b"", b"sha1: ", b"sha256: ")),
        *(b"\6" + certificate.openssh().encode() for certificate in _GOOD[1:]),
        b"\6hash: " + USER_KEY.public_key.fingerprint().encode(),
        *(b"\7" + words for words in (b"+52w1d", b"-1h30:20300101Z", b"always:forever", b"0x10:0xff", b"203001010203")),
    ]


if __name__ == "__main__":
    main("certificates", fuzz, seeds, mutate, MODULES)
