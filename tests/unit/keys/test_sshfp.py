"""SSHFP records, beside ssh-keygen -r."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sshproto.errors import KeyFormatError
from sshproto.keys import PrivateKey, PublicKey, Trust
from sshproto.keys.sshfp import Sshfp, compare

KEYS = {
    kind: PrivateKey.generate(kind).public_key
    for kind in ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521")
}
ED25519 = KEYS["ssh-ed25519"]
OTHER = PrivateKey.generate().public_key


@pytest.mark.parametrize("kind", KEYS)
def test_records_are_ssh_keygen_s(ssh_keygen: Callable[..., str], tmp_path: Path, kind: str) -> None:
    path = tmp_path / "key.pub"
    path.write_text(KEYS[kind].openssh() + "\n")
    records = Sshfp.of(KEYS[kind])
    for generic in (False, True):
        said = ssh_keygen("-r", "host.example.org", *(["-g"] if generic else []), "-f", path)
        assert [record.text("host.example.org", generic=generic) for record in records] == said.splitlines()
        assert tuple(Sshfp.parse(line) for line in said.splitlines()) == records
    assert all(record.matches(KEYS[kind]) for record in records)
    assert not any(record.matches(key) for record in records for name, key in KEYS.items() if name != kind)


def test_what_a_zone_file_has_is_read() -> None:
    sha1, sha256 = Sshfp.of(ED25519)
    digits = sha256.fingerprint.hex()
    for text in (
        f"4 2 {digits}",
        f"  4   2 {digits[:20]} {digits[20:].upper()} ",
        f"host 3600 IN SSHFP 4 2 {digits}",
        f"host in sshfp 4 2 {digits}",
        f"\\# 34 0402{digits}",
        f"host IN TYPE44 \\# 34 04 02 {digits}",
        sha256.text(),
    ):
        assert Sshfp.parse(text) == sha256
    assert Sshfp.from_rdata(sha1.rdata) == sha1
    odd = Sshfp.from_rdata(b"\x63\x64abc")
    assert (odd.algorithm, odd.kind, odd.matches(ED25519)) == (99, 100, False)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "two numbers"),
        ("4", "two numbers"),
        ("4 2", "has two and then a fingerprint"),
        ("4 2 xyz", "Non-hexadecimal|Odd-length"),
        ("4 2 abcd", "has 32 bytes, this one 2"),
        ("4 1 " + "00" * 32, "has 20 bytes, this one 32"),
        ("400 2 " + "00" * 32, "range"),
        ("-4 2 " + "00" * 32, "two numbers"),
        ("\\# 33 0402" + "00" * 32, "says 33 bytes, there are 34"),
        ("\\# x 0402", "invalid literal"),
        ("\\#", "not an SSHFP record"),
        ("0" * 5000, "5000 characters"),
        ("\x1b[2J 1 1", "x1b"),
    ],
)
def test_what_is_none_is_refused(text: str, why: str) -> None:
    with pytest.raises(KeyFormatError, match=why) as caught:
        Sshfp.parse(text)
    assert str(caught.value).isprintable()


def test_data_out_of_bounds() -> None:
    for rdata in (b"", b"\4", b"\4\2", b"\4\x63" + bytes(257)):
        with pytest.raises(KeyFormatError, match="two and then a fingerprint"):
            Sshfp.from_rdata(rdata)


def test_keys_without_a_number() -> None:
    blob = b"\0\0\0\x1ask-ssh-ed25519@openssh.com" + ED25519.blob[15:] + b"\0\0\0\4ssh:"
    key = PublicKey.from_blob(blob)
    with pytest.raises(KeyFormatError, match="no number for keys of type sk-ssh-ed25519"):
        Sshfp.of(key)
    assert compare(Sshfp.of(ED25519), key) is Trust.UNKNOWN


def test_comparing() -> None:
    sha1, sha256 = Sshfp.of(ED25519)
    wrong1, wrong256 = Sshfp.of(OTHER)
    assert compare((sha1, sha256), ED25519) is Trust.MATCH
    assert compare((wrong256, sha256), ED25519) is Trust.MATCH  # a host may have several
    assert compare((sha1,), ED25519) is Trust.MATCH
    assert compare((sha1, wrong256), ED25519) is Trust.CHANGED  # what is better says otherwise
    assert compare((wrong1,), ED25519) is Trust.CHANGED
    assert compare(Sshfp.of(KEYS["ssh-rsa"]), ED25519) is Trust.UNKNOWN
    assert compare((), ED25519) is Trust.UNKNOWN
    assert compare((Sshfp(4, 9, b"x"),), ED25519) is Trust.UNKNOWN


@given(
    st.one_of(
        st.text(max_size=80),
        st.lists(st.sampled_from(["4", "2", "SSHFP", "IN", "\\#", "34", "00", "ff", "²"])).map(" ".join),
    )
)
@example("² 2 00")
def test_any_text_is_a_record_or_an_error(text: str) -> None:
    try:
        record = Sshfp.parse(text)
    except KeyFormatError:
        return
    assert Sshfp.parse(record.text()) == record == Sshfp.parse(record.text("x", generic=True))


@given(st.binary(max_size=300))
def test_any_data_is_a_record_or_an_error(data: bytes) -> None:
    with contextlib.suppress(KeyFormatError):
        assert Sshfp.from_rdata(data).rdata == data
