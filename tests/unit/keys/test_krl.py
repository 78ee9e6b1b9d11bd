"""Revocation lists: exchanged with the real ssh-keygen, asked, bounded, and written in little room."""

from __future__ import annotations

import copy
import hashlib
import pickle
import time
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys import KRL, Certificate, CertificateKind, PrivateKey, PublicKey, RevokedCertificates, krl
from sshproto.wire.codec import boolean, byte, mpint, string, text, uint32, uint64

AUTHORITY = PrivateKey.generate(comment="the authority")
OTHER_AUTHORITY = PrivateKey.generate("ecdsa-sha2-nistp256")
KEY = PrivateKey.generate(comment="me").public_key
OTHER_KEY = PrivateKey.generate().public_key
LAST = 2**64 - 1
HEAD = krl.MAGIC + uint32(1) + uint64(3) + uint64(1_700_000_000) + uint64(0) + string(b"") + text("a comment")


def certificate(
    serial: int, key_id: str = "id", authority: PrivateKey = AUTHORITY, key: PublicKey = KEY
) -> Certificate:
    return Certificate.issue(
        authority, key, CertificateKind.USER, key_id=key_id, principals=["alice"], valid_before=LAST, serial=serial
    )


def section(kind: int, *parts: bytes) -> bytes:
    return byte(kind) + string(b"".join(parts))


def certificates(*sections: bytes, authority: bytes = AUTHORITY.public_key.blob) -> bytes:
    return HEAD + section(1, string(authority), string(b"reserved"), *sections)


def serials(list_: KRL) -> tuple[tuple[int, int], ...]:
    """The ranges of the only authority."""
    (only,) = list_.certificates
    return only.serials


def contents(list_: KRL) -> tuple[object, ...]:
    return list_.certificates, list_.keys, list_.sha1, list_.sha256


# ----------------------------------------------------------------------------------------------------------- ssh-keygen


@pytest.fixture
def keygen_list(ssh_keygen, tmp_path):
    """What ssh-keygen makes of a specification."""

    def made(*lines: str, authority: object = AUTHORITY) -> bytes:
        spec, path, public = tmp_path / "spec", tmp_path / "krl", tmp_path / "ca.pub"
        spec.write_text("".join(f"{line}\n" for line in lines))
        public.write_text(AUTHORITY.public_key.openssh() + "\n")
        ssh_keygen("-q", "-k", "-z", 9, "-s", public if authority else "none", "-f", path, spec)
        return path.read_bytes()

    return made


@pytest.fixture
def listed(ssh_keygen, tmp_path):
    """The lines that ssh-keygen shows of a list of ours, without comments."""

    def shown(list_: KRL) -> list[str]:
        path, public = tmp_path / "ours", tmp_path / "unused.pub"
        path.write_bytes(list_.encode())
        public.write_text(OTHER_AUTHORITY.public_key.openssh() + "\n")
        lines = ssh_keygen("-Q", "-l", "-f", path, public).splitlines()[:-1]
        return [line for line in lines if line and not line.startswith("#")]

    return shown


@pytest.fixture
def revoked(ssh_keygen, tmp_path):
    """Which of some keys and certificates ssh-keygen finds revoked by a list of ours."""

    def asked(list_: KRL, items: Sequence[PublicKey | Certificate]) -> list[bool]:
        path = tmp_path / "ours"
        path.write_bytes(list_.encode())
        for at, item in enumerate(items):
            (tmp_path / f"{at}.pub").write_text(item.openssh() + "\n")
        said = ssh_keygen("-Q", "-f", path, *(tmp_path / f"{at}.pub" for at in range(len(items))), check=False)
        verdicts = [line.rpartition(": ")[2] for line in said.splitlines()]
        assert set(verdicts) <= {"ok", "REVOKED"}
        return [verdict == "REVOKED" for verdict in verdicts]

    return asked


def test_what_ssh_keygen_writes_is_read(keygen_list):
    line = KEY.openssh()
    data = keygen_list(
        *("serial: 5-10", "serial: 77", "serial: 18446744073709551615", "id: an id", "id: another"),
        *(f"sha1: {line}", f"sha256: {OTHER_KEY.openssh()}", f"key: {line}", f"hash: {KEY.fingerprint()}"),
    )
    read = KRL.parse(data)
    assert read.version == 9
    assert abs(read.generated - time.time()) < 100
    assert read.comment == ""
    assert read.certificates == (
        RevokedCertificates(AUTHORITY.public_key.blob, ((5, 10), (77, 77), (LAST, LAST)), {"an id", "another"}),
    )
    assert read.keys == {KEY.blob}
    assert read.sha1 == {hashlib.sha1(KEY.blob).digest()}
    assert read.sha256 == {hashlib.sha256(key.blob).digest() for key in (KEY, OTHER_KEY)}
    assert contents(KRL.parse(read.encode())) == contents(read)


def test_a_list_of_ssh_keygen_s_for_all_authorities(keygen_list):
    read = KRL.parse(keygen_list("serial: 3", "id: x", authority=None))
    assert read.certificates == (RevokedCertificates(b"", ((3, 3),), {"x"}),)


SETS = [
    [(1, 1)],
    [(1, LAST)],
    [(LAST, LAST)],
    [(1, 1), (3, 3), (5, 9), (20, 20), (2**40, 2**40 + 5), (LAST - 1, LAST)],
    [(n, n) for n in range(1, 4000, 3)],
    [(n, n + 700) for n in range(1, 10**6, 997)],
    [(n * n, n * n) for n in range(1, 300)],
    [(n, n + n % 5) for n in range(2**63, 2**63 + 3000, 9)],
    [(n, n) for n in range(1, 2**20, 2**14)],
    [(1, 16384), (16386, 16386), (16400, 40000)],
    [(2, 16384 + 1), (16384 + 3, 16384 + 3)],
]


@pytest.mark.parametrize("ranges", SETS, ids=range(len(SETS)))
def test_serials_to_and_from_ssh_keygen(keygen_list, listed, ranges):
    ours = KRL().revoke_serials(AUTHORITY.public_key, *ranges)
    lines = [f"serial: {low}" if low == high else f"serial: {low}-{high}" for low, high in ranges]
    assert listed(ours) == lines
    theirs = keygen_list(*lines)
    assert serials(KRL.parse(theirs)) == serials(ours) == tuple(ranges)
    assert len(ours.encode()) <= len(theirs)


def test_a_bitmap_that_openssh_writes_and_does_not_read(keygen_list, listed):
    """Of 60,000 bits; it cannot use its own list. We read it, and what we write, it can."""
    ranges = tuple((n, n) for n in range(1, 60_000, 3))
    theirs = keygen_list(*(f"serial: {low}" for low, _ in ranges))
    read = KRL.parse(theirs)
    assert serials(read) == ranges
    assert listed(read) == [f"serial: {low}" for low, _ in ranges]


def test_key_ids_keys_and_digests_in_ssh_keygen(listed):
    list_ = KRL(comment="ours").revoke_key_ids(None, "b", "a", "ü\N{SNOWMAN}").revoke(KEY)
    list_ = list_.revoke_fingerprints(OTHER_KEY.fingerprint())
    lines = listed(list_)
    assert lines[:2] == [
        f"hash: {KEY.fingerprint()} # ssh-ed25519",
        f"hash: SHA256:{hashlib.sha256(OTHER_KEY.blob).hexdigest()}",
    ]
    assert lines[2:4] == ["id: a", "id: b"]
    assert len(lines) == 5


def test_ssh_keygen_and_we_agree_about_what_is_revoked(revoked):
    items = (
        KEY,
        OTHER_KEY,
        certificate(5),
        certificate(6, "other"),
        certificate(0),
        certificate(5, "x", OTHER_AUTHORITY),
    )
    nothing = KRL()
    lists = (
        nothing,
        nothing.revoke(KEY),
        nothing.revoke(OTHER_KEY),
        nothing.revoke(AUTHORITY.public_key),
        nothing.revoke(items[2]),
        nothing.revoke(items[4]),
        nothing.revoke_serials(None, 5),
        nothing.revoke_serials(OTHER_AUTHORITY.public_key, (1, 5)),
        nothing.revoke_key_ids(AUTHORITY.public_key, "other", "x"),
        nothing.revoke_fingerprints(KEY.fingerprint()),
        nothing.revoke_fingerprints("SHA1:" + _base64(hashlib.sha1(AUTHORITY.public_key.blob).digest())),
    )
    verdicts = [[list_.revokes(item) for item in items] for list_ in lists]
    assert verdicts == [revoked(list_, items) for list_ in lists]
    assert verdicts[0] == [False] * len(items)
    assert all(any(row) and not all(row) for row in verdicts[1:])


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode().rstrip("=")


def test_what_ssh_keygen_revokes_we_do(ssh_keygen, tmp_path):
    """A key, a certificate with a serial number and one without, one after the other."""
    path = tmp_path / "krl"
    items = (KEY, certificate(8), certificate(0, "by id", OTHER_AUTHORITY, OTHER_KEY))
    expected = KRL()
    for at, item in enumerate(items):
        public = tmp_path / f"{at}.pub"
        public.write_text(item.openssh() + "\n")
        ssh_keygen("-q", "-k", *(["-u"] if at else []), "-f", path, public)
        expected = expected.revoke(item)
        assert contents(KRL.parse(path.read_bytes())) == contents(expected)
        assert expected.revokes(item)
    assert contents(KRL().revoke(*items)) == contents(expected)


# --------------------------------------------------------------------------------------------------------------- asking


def test_why():
    item = certificate(5)
    assert KRL().why(item) == KRL().why(KEY) == ""
    for list_, why in (
        (KRL().revoke(KEY), f"the key ssh-ed25519 {KEY.fingerprint()} is listed"),
        (KRL().revoke_fingerprints(KEY.fingerprint()), "is listed by its SHA-256 digest"),
        (
            KRL().revoke(AUTHORITY.public_key),
            f"its authority is: the key ssh-ed25519 {AUTHORITY.public_key.fingerprint()}",
        ),
        (KRL().revoke(item), "its authority's certificates with the serial number 5 are listed"),
        (KRL().revoke_key_ids(None, "id"), "anybody's certificates with the key id 'id' are listed"),
    ):
        assert why in list_.why(item)


@pytest.mark.covers("V51")
def test_a_key_is_revoked_whoever_certifies_it_and_an_authority_with_all_it_certified():
    list_ = KRL().revoke(KEY, AUTHORITY.public_key)
    assert list_.revokes(certificate(1, authority=OTHER_AUTHORITY))
    assert list_.revokes(certificate(1, key=OTHER_KEY))
    assert not list_.revokes(certificate(1, authority=OTHER_AUTHORITY, key=OTHER_KEY))


def test_a_certificate_is_revoked_without_its_key():
    list_ = KRL().revoke(certificate(5), certificate(0, "x"))
    assert list_.certificates == (RevokedCertificates(AUTHORITY.public_key.blob, [(5, 5)], {"x"}),)
    assert not list_.keys
    assert not list_.revokes(KEY)
    assert not list_.revokes(certificate(6))


def test_no_serial_number_is_revoked_by_a_range():
    """0 says that the authority does not count."""
    everything = KRL().revoke_serials(None, (1, LAST))
    assert everything.revokes(certificate(1))
    assert everything.revokes(certificate(LAST))
    assert not everything.revokes(certificate(0))
    assert not RevokedCertificates(b"", [(0, 5)]).covers(0)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 20)), max_size=12), st.integers(1, 80))
@example([(1, 20), (2, 3), (30, 0)], 10)
def test_ranges_cover_what_they_were_made_of(given, asked):
    ranges = [(low, low + more) for low, more in given]
    numbers = {number for low, high in ranges for number in range(low, high + 1)}
    (part,) = KRL().revoke_serials(None, *ranges).certificates or (RevokedCertificates(),)
    assert part.covers(asked) == (asked in numbers)
    assert sum(high - low + 1 for low, high in part.serials) == len(numbers)
    assert all(after[0] > before[1] + 1 for before, after in zip(part.serials, part.serials[1:], strict=False))


# ------------------------------------------------------------------------------------------------------------- changing


def test_lists_are_values():
    list_ = KRL().revoke(KEY)
    assert list_ == KRL().revoke(KEY)
    assert hash(list_) == hash(KRL().revoke(KEY))
    assert list_ != KRL()
    assert pickle.loads(pickle.dumps(list_)) == copy.deepcopy(list_) == list_
    shown = repr(list_.revoke_serials(None, 1, (5, 9)).revoke_key_ids(None, "x"))
    assert shown == "<KRL version 0: 2 ranges of serials and 1 key ids of 1 authorities, 1 keys, 0 digests>"


def test_authorities_are_in_order_and_once():
    blobs = sorted((AUTHORITY.public_key.blob, OTHER_AUTHORITY.public_key.blob))
    first = KRL().revoke_serials(AUTHORITY.public_key, 1).revoke_serials(OTHER_AUTHORITY.public_key, 1)
    second = KRL().revoke_serials(OTHER_AUTHORITY.public_key, 1).revoke_serials(AUTHORITY.public_key, 1)
    assert [part.authority for part in first.certificates] == blobs
    assert first == second
    assert first.encode() == second.encode()
    assert KRL().revoke_serials(None).certificates == ()
    grown = (
        first.revoke_serials(None, 4).revoke_key_ids(AUTHORITY.public_key, "x").revoke_serials(AUTHORITY.public_key, 2)
    )
    assert [part.authority for part in grown.certificates] == [b"", *blobs]
    part = next(part for part in grown.certificates if part.authority == AUTHORITY.public_key.blob)
    assert (part.serials, part.key_ids) == (((1, 2),), {"x"})


def test_digests_keys_and_key_ids_are_in_order():
    digests = [bytes([at]) * 32 for at in range(255, -1, -1)]
    ids = [f"id {at:03}" for at in range(99, -1, -1)]
    fingerprints = ["SHA256:" + _base64(digest) for digest in digests]
    list_ = KRL().revoke_fingerprints(*fingerprints).revoke_key_ids(None, *ids)
    assert list_.encode().endswith(b"".join(map(string, digests[::-1])))
    assert section(0x23, *map(text, ids[::-1])) in list_.encode()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda: KRL().revoke_serials(None, 0), "not serial numbers: 0 to 0"),
        (lambda: KRL().revoke_serials(None, (0, 5)), "not serial numbers"),
        (lambda: KRL().revoke_serials(None, (5, 4)), "not serial numbers: 5 to 4"),
        (lambda: KRL().revoke_serials(None, LAST + 1), "not serial numbers"),
        (lambda: KRL().revoke_key_ids(None, "a\0"), "NUL"),
        (lambda: KRL().revoke_fingerprints("MD5:00"), "not a fingerprint"),
        (lambda: KRL().revoke_fingerprints("SHA256:AAAA"), "not a fingerprint"),
        (lambda: KRL().revoke_fingerprints("SHA256:" + "\N{SNOWMAN}" * 43), "not a fingerprint"),
        (lambda: KRL().revoke_fingerprints("SHA1" + KEY.fingerprint()[6:]), "not a fingerprint"),
        (lambda: KRL().revoke_fingerprints(""), "not a fingerprint"),
        (lambda: KRL(version=-1).encode(), "version and time"),
        (lambda: KRL(generated=LAST + 1).encode(), "version and time"),
        (lambda: KRL(comment="\0").encode(), "no NUL"),
    ],
)
def test_what_does_not_fit_a_list(change, problem):
    with pytest.raises(InvalidArgument, match=problem):
        change()


# -------------------------------------------------------------------------------------------------------------- reading


def test_sections_may_come_in_any_order_and_again():
    blob = KEY.blob
    data = certificates(
        section(0x20, uint64(9), uint64(5), uint64(5)),
        section(0x22, uint64(4), mpint(0b101)),
        section(0x39, text("note@example.org"), boolean(False), string(b"anything")),
        section(0x21, uint64(7), uint64(8)),
        section(0x23, text("b"), text("a"), text("b")),
        section(0x20),
        section(0x22, uint64(1), string(b"")),
        section(0x22, uint64(30), string(b"\0\0\1")),
        section(0x22, uint64(LAST), string(b"\1")),
    )
    data += section(255, text("note@example.org"), boolean(False), string(b"anything"))
    data += section(2, string(blob)) + section(2, string(blob)) + section(2)
    data += section(5, string(b"b" * 32), string(b"a" * 32)) + section(3, string(b"c" * 20))
    data += certificates(section(0x20, uint64(1)))[len(HEAD) :]
    read = KRL.parse(memoryview(data))
    assert (read.version, read.generated, read.comment) == (3, 1_700_000_000, "a comment")
    assert read.certificates == (
        RevokedCertificates(AUTHORITY.public_key.blob, ((1, 1), (4, 9), (30, 30), (LAST, LAST)), frozenset({"a", "b"})),
    )
    assert read.keys == {blob}
    assert read.sha256 == {b"a" * 32, b"b" * 32}
    assert read.sha1 == {b"c" * 20}
    again = KRL.parse(read.encode())
    assert again == read
    assert again.encode() == read.encode()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not a revocation list: it starts with b''"),
        (b"ssh-ed25519 AAAA", "not a revocation list: it starts with b'ssh-ed25'"),
        (krl.MAGIC, "format version .*needs 4 bytes"),
        (krl.MAGIC + uint32(2) + HEAD[12:], "of format 2, there is 1"),
        (HEAD[:-1], "comment"),
        (HEAD + b"\1", "section .*needs 4 bytes"),
        (HEAD + section(6), "a section of type 6"),
        (HEAD + section(255, text("x"), boolean(True), string(b"")), "has the critical extension 'x'"),
        (HEAD + section(255, text("x"), byte(2), string(b"")), "critical extension"),
        (HEAD + section(255, text("x"), boolean(False), string(b""), b"x"), "1 bytes too many"),
        (HEAD + section(255), "section 255.name"),
        (HEAD + section(2, b"x"), "section 2.entry"),
        (HEAD + section(2, string(b"")), "not a public key"),
        (HEAD + section(2, string(certificate(1).blob)), "a certificate as key, where a plain key"),
        (HEAD + section(3, string(b"x" * 32)), "a digest of 32 bytes, it has 20"),
        (HEAD + section(5, string(b"x" * 20)), "a digest of 20 bytes, it has 32"),
        (HEAD + section(1), "section 1.authority"),
        (HEAD + section(1, string(b"")), "section 1.reserved"),
        (certificates(authority=b"x"), "not a public key"),
        (certificates(authority=certificate(1).blob), "a certificate as authority"),
        (certificates(authority=text("ssh-ed25519") + string(b"x")), "Ed25519 key of 1 bytes"),
        (certificates(section(0x24)), "a certificate section of type 0x24"),
        (certificates(section(0x39, text("x"), boolean(True), string(b""))), "critical extension 'x'"),
        (certificates(section(0x20, b"\0" * 7)), "serial .*needs 8 bytes"),
        (certificates(section(0x20, uint64(0))), "serial numbers 0 to 0"),
        (certificates(section(0x21, uint64(5))), "last .*needs 8 bytes"),
        (certificates(section(0x21, uint64(5), uint64(4))), "serial numbers 5 to 4"),
        (certificates(section(0x21, uint64(0), uint64(4))), "serial numbers 0 to 4"),
        (certificates(section(0x21, uint64(3), uint64(4), b"x")), "1 bytes too many"),
        (certificates(section(0x22, uint64(0), mpint(3))), "serial numbers 0 to 1"),
        (certificates(section(0x22, uint64(LAST), mpint(2))), "serial numbers 18446744073709551616"),
        (certificates(section(0x22, uint64(1), string(b"\x80"))), "is a negative number"),
        (certificates(section(0x22, uint64(1), mpint(1), b"x")), "1 bytes too many"),
        (certificates(section(0x22, uint64(1))), "bitmap"),
        (certificates(section(0x23, text("a\0"))), "NUL"),
        (certificates(section(0x23, b"a")), "key id"),
    ],
)
def test_malformed_lists(data, problem):
    with pytest.raises(KeyFormatError, match=problem) as raised:
        KRL.parse(data)
    assert str(raised.value).isprintable()


def test_an_authority_of_a_type_that_is_not_known_takes_nothing_away_from_the_others():
    blob = text("ssh-dss") + string(b"x")
    data = certificates(section(0x20, uint64(1)), authority=blob) + section(2, string(blob))
    data += certificates(section(0x20, uint64(5)))[len(HEAD) :]
    read = KRL.parse(data)
    assert read.revokes(certificate(5))
    assert not read.revokes(certificate(1))
    assert read.keys == {blob}
    assert KRL.parse(read.encode()) == KRL.parse(data)


def test_every_truncation_is_noticed():
    data = KRL(comment="x").revoke(KEY, certificate(5)).revoke_key_ids(None, "x").encode()
    whole = [at for at in range(len(data)) if _reads(data[:at])]
    # A list can end after a section; nothing in the format tells how many there are.
    assert len(whole) == 3


def _reads(data: bytes) -> bool:
    try:
        KRL.parse(data)
    except KeyFormatError:
        return False
    return True


@given(st.data())
def test_mutated_lists_raise_nothing_else(data):
    changed = bytearray(data.draw(st.sampled_from(SAMPLES)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(len(krl.MAGIC) + 4, max(len(changed) - 1, 12)))
        cut = data.draw(st.integers(0, 5))
        changed[place : place + cut] = data.draw(st.binary(max_size=5))
    try:
        read = KRL.parse(changed)
    except KeyFormatError as error:
        assert str(error).isprintable()
    else:
        assert contents(KRL.parse(read.encode())) == contents(read)


@given(st.binary(max_size=100))
def test_any_bytes_raise_nothing_else(data):
    for content in (data, HEAD + data, certificates(data)):
        try:
            KRL.parse(content)
        except KeyFormatError as error:
            assert str(error).isprintable()


SAMPLES = [
    KRL().revoke(KEY, certificate(5)).revoke_key_ids(None, "x").encode(),
    KRL().revoke_serials(None, *range(1, 200, 3), (1000, 5000), 2**50).encode(),
    KRL().revoke_fingerprints(KEY.fingerprint(), "SHA1:" + "A" * 27).encode(),
    certificates(section(0x20, uint64(9)), section(0x22, uint64(4), mpint(0b101)), section(0x23, text("b"), text("a"))),
]


# --------------------------------------------------------------------------------------------------------------- bounds


def test_no_list_costs_more_than_its_bounds(monkeypatch):
    with pytest.raises(KeyFormatError, match="a revocation list of 16777217 bytes came, at most"):
        KRL.parse(bytes(krl.MAXIMUM_SIZE + 1))
    monkeypatch.setattr(krl, "MAXIMUM_ENTRIES", 10)
    for made in (
        lambda n: certificates(section(0x20, *(uint64(at) for at in range(1, n + 1)))),
        lambda n: certificates(*(section(0x21, uint64(1), uint64(2)) for _ in range(n))),
        lambda n: certificates(section(0x22, uint64(1), mpint(sum(1 << 2 * at for at in range(n))))),
        lambda n: certificates(section(0x23, *[text("x")] * n)),
        lambda n: HEAD + section(3, *[string(bytes(20))] * n),
        lambda n: certificates(section(0x23, *[text("x")] * (n - 1))) + section(2, string(KEY.blob)),
    ):
        assert KRL.parse(made(10))
        with pytest.raises(KeyFormatError, match="the list has more than 10 entries"):
            KRL.parse(made(11))
    too_many = KRL().revoke_serials(None, *range(1, 23, 2))
    with pytest.raises(InvalidArgument, match="of 11 entries is too long: 10 are read"):
        too_many.encode()


def test_a_range_of_everything_and_a_bitmap_of_ones_take_no_memory():
    """CVE-like: serials counted one by one, a bitmap allocated by what it says."""
    ones = b"\x7f" + b"\xff" * (krl.MAXIMUM_BITMAP // 8)
    data = certificates(section(0x21, uint64(1), uint64(LAST)), section(0x22, uint64(1), string(ones)))
    tracemalloc.start()
    try:
        started = time.process_time()
        read = KRL.parse(data)
        assert time.process_time() - started < 2
        assert tracemalloc.get_traced_memory()[1] < 12 * len(data) + 2 * 8 * len(ones)
    finally:
        tracemalloc.stop()
    assert serials(read) == ((1, LAST),)
    with pytest.raises(KeyFormatError, match=r"bitmap .*2097154 bytes long, at most 2097153 are accepted"):
        KRL.parse(certificates(section(0x22, uint64(1), string(b"\0" + ones))))


def test_what_is_written_stays_readable_for_openssh():
    """No bitmap of more than 16384 bits."""
    list_ = KRL().revoke_serials(None, *range(1, 60_000, 2))
    data = list_.encode()
    assert KRL.parse(data) == list_
    assert len(data) < 60_000 / 8 + 13 * 10 + 100
    longest = data.split(byte(0x22))
    assert max(map(len, longest)) <= 4 + 8 + 4 + 2049


# ---------------------------------------------------------------------------------------------------------- little room


def cost(ranges: tuple[tuple[int, int], ...]) -> int:
    return sum(len(data) + 5 for _, data in krl._serial_sections(ranges))


@pytest.mark.parametrize(
    ("ranges", "size"),
    [
        ((), 0),
        (((5, 5),), 13),
        (((5, 5), (10**10, 10**10)), 21),
        (((5, 6),), 5 + 8 + 4 + 1),
        (((5, 2**40),), 21),
        (((1, 1), (3, 3), (5, 5), (7, 7)), 5 + 8 + 4 + 1),
        (((1, 16384),), 21),
        (((1, 16385), (16387, 16387), (16389, 16389), (16391, 16391)), 21 + 5 + 8 + 4 + 1),
        (((1, 2**30), (2**30 + 2, 2**30 + 2), (2**30 + 4, 2**30 + 4)), 21 + 5 + 8 + 4 + 1),
    ],
)
def test_how_much_room_serials_take(ranges, size):
    assert cost(ranges) == size


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 200)), min_size=1, max_size=40))
@example([(1, 1), (16384, 1), (1, 200)])
def test_never_more_than_one_kind_of_section_for_all(steps):
    at, ranges = 0, []
    for gap, length in steps:
        ranges.append((at + gap + 1, at + gap + length))
        at += gap + length
    written = tuple(ranges)
    count = sum(high - low + 1 for low, high in written)
    bits = written[-1][1] - written[0][0] + 1
    alone = [21 * len(written), 5 + 8 * count]
    if bits <= krl.WRITTEN_BITMAP:
        alone.append(5 + 8 + 4 + bits // 8 + 1)
    assert cost(written) <= min(alone)
    assert serials(KRL.parse(KRL().revoke_serials(None, *written).encode())) == written


# ----------------------------------------------------------------------------------------------------------- signatures


def signed(data: bytes, *keys: PrivateKey, algorithm: str | None = None) -> bytes:
    for key in keys:
        data += byte(4) + string(key.public_key.blob)
        data += string(key.sign(data, algorithm))
    return data


def test_signatures_of_a_list_are_verified(keys):
    data = KRL().revoke(KEY).encode()
    read = KRL.parse(signed(data, AUTHORITY, keys["ssh-rsa"]))
    assert read.signers == (AUTHORITY.public_key, keys["ssh-rsa"].public_key)
    assert read.revokes(KEY)
    assert read.encode() == data
    assert read.revoke(OTHER_KEY).signers == read.revoke_serials(None, 1).signers == ()
    good = signed(data, AUTHORITY)
    for place in range(len(data) - len(KEY.blob), len(data)):
        changed = bytearray(good)
        changed[place] ^= 1
        with pytest.raises(KeyFormatError):
            KRL.parse(changed)


def test_signatures_that_are_no_good(keys):
    data = KRL().revoke(KEY).encode()
    with pytest.raises(KeyFormatError, match="no good: it is made with SHA-1"):
        KRL.parse(signed(data, keys["ssh-rsa"], algorithm="ssh-rsa"))
    with pytest.raises(KeyFormatError, match="a section of type 2 follows a signature"):
        KRL.parse(signed(data, AUTHORITY) + section(2, string(KEY.blob)))
    with pytest.raises(KeyFormatError, match="no good: the ssh-ed25519 signature does not verify"):
        KRL.parse(signed(data, AUTHORITY)[:-1] + b"\xff")
    with pytest.raises(KeyFormatError, match="more than 16 signatures"):
        KRL.parse(signed(data, *[AUTHORITY] * 17))
    with pytest.raises(KeyFormatError, match="signature"):
        KRL.parse(data + byte(4) + string(AUTHORITY.public_key.blob))
