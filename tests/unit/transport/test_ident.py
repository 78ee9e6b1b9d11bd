"""The identification strings (RFC 4253 section 4.2)."""

from __future__ import annotations

import itertools

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.config import Limits
from sshproto.errors import ConnectionLoss, InvalidArgument, LimitExceeded, ProtocolViolation, VersionUnsupported
from sshproto.events import VersionReceived
from sshproto.transport.ident import IdentReader, our_line
from sshproto.wire.table import Role
from tests.support.puppet import bring

LIMITS = Limits()
BOTH = pytest.mark.parametrize("role", list(Role))


def reader(role: Role = Role.CLIENT, limits: Limits = LIMITS) -> IdentReader:
    return IdentReader(receiver=role, limits=limits)


@pytest.mark.covers("R14", "V36")
@BOTH
def test_plain(role: Role) -> None:
    ident = reader(role)
    assert ident.words == ""
    version = ident.feed(b"SSH-2.0-OpenSSH_9.9 Debian-3 x \r\nrest")
    assert version == VersionReceived("SSH-2.0-OpenSSH_9.9 Debian-3 x ", "2.0", "OpenSSH_9.9", "Debian-3 x ")
    assert ident.version is version
    assert ident.line == b"SSH-2.0-OpenSSH_9.9 Debian-3 x "
    assert ident.rest == b"rest"
    assert ident.feed(memoryview(b" and more")) is version
    assert ident.rest == b"rest and more"


@pytest.mark.covers("R18", "V36")
@BOTH
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_line_endings(role: Role, end: bytes) -> None:
    ident = reader(role)
    assert ident.feed(b"SSH-2.0-x-y_1") is None
    assert ident.feed(end[:1]) is None if len(end) == 2 else True
    assert ident.feed(end[-1:]) is not None
    assert (ident.line, ident.rest) == (b"SSH-2.0-x-y_1", b"")
    assert ident.version is not None
    assert ident.version.software == "x-y_1"


@pytest.mark.covers("R17")
@BOTH
def test_199_is_20(role: Role) -> None:
    version = reader(role).feed(b"SSH-1.99-Cisco-1.25\n")
    assert version is not None
    assert (version.protocol, version.software) == ("1.99", "Cisco-1.25")


@pytest.mark.covers("R17", "V36")
@BOTH
@pytest.mark.parametrize("protocol", [b"1.5", b"1.3", b"2.01", b"2.1", b"3.0", b"2", b"02.0", b"", b"2.0 ", b"1.990"])
def test_other_versions(role: Role, protocol: bytes) -> None:
    ident = reader(role)
    with pytest.raises(VersionUnsupported) as caught:
        ident.feed(b"SSH-" + protocol + b"-thing 1\r\n")
    assert caught.value.code == 8
    assert ident.line == b"SSH-" + protocol + b"-thing 1"
    assert ident.version is not None
    assert ident.version.protocol == protocol.decode()
    assert caught.value.received == ident.version.line
    with pytest.raises(VersionUnsupported):
        ident.feed(b"SSH-2.0-x\n")


@pytest.mark.covers("V36", "R14")
@BOTH
@pytest.mark.parametrize("line", [b"SSH-2.0", b"SSH-2.0-", b"SSH-2.0- comment", b"SSH-2.0-a\rb", b"SSH-2.0-a\r"])
def test_malformed(role: Role, line: bytes) -> None:
    ident = reader(role)
    with pytest.raises(ProtocolViolation):
        ident.feed(line + b"\r\n")
    assert ident.version is not None


@pytest.mark.covers("R16", "V36")
@BOTH
def test_nul_is_refused_as_soon_as_it_comes(role: Role) -> None:
    for start in (b"SSH-2.0-x", b"", b"SS", b"\x16\x03\x01"):
        ident = reader(role)
        with pytest.raises(ProtocolViolation, match="NUL"):
            ident.feed(start + b"\0")


@pytest.mark.covers("B1", "R14", "V36")
@BOTH
def test_longest_line(role: Role) -> None:
    for end in (b"\r\n", b"\n"):
        line = b"SSH-2.0-" + b"x" * (255 - 8 - len(end))
        assert reader(role).feed(line + end) is not None
        ident = reader(role)
        with pytest.raises(LimitExceeded) as caught:
            ident.feed(line + b"x" + end)
        assert caught.value.limit == "ident_line"
    ident = reader(role)
    assert ident.feed(b"SSH-2.0-" + b"x" * 246) is None
    with pytest.raises(LimitExceeded):
        ident.feed(b"x")
    assert not ident._buffer


@pytest.mark.covers("R15", "B2", "V36")
def test_a_server_accepts_no_other_line() -> None:
    for line, shown in (
        (b"GET / HTTP/1.1\r\n", "GET / HTTP/1.1"),
        (b"ssh-2.0-x\r\n", "ssh-2.0-x"),
        (b"\r\n", ""),
        (b"\x1b[2J\xff\n", "\\x1b[2J\\xff"),
        (b"a" * 300, "a" * 255),
    ):
        ident = reader(Role.SERVER)
        with pytest.raises(VersionUnsupported) as caught:
            ident.feed(line + b"SSH-2.0-x\r\n")
        assert caught.value.received == shown
        assert shown in str(caught.value)
        assert caught.value.code == 8
        assert ident.version is None


@pytest.mark.covers("R15")
def test_a_client_accepts_other_lines() -> None:
    ident = reader()
    version = ident.feed(b"hello\r\n\xff\x1b[0m\n\nSSH\nXSSH-2.0-no\nSSH-2.0-yes\r\n")
    assert version is not None
    assert version.preamble == ("hello", "\\xff\\x1b[0m", "", "SSH", "XSSH-2.0-no")
    assert version.software == "yes"
    assert ident.line == b"SSH-2.0-yes"


@pytest.mark.covers("R15", "B2", "V36")
@pytest.mark.parametrize("count", [0, 1, 1024, 1025])
def test_number_of_other_lines(count: int) -> None:
    data = b"x\r\n" * count + b"SSH-2.0-x\r\n"
    if count <= 1024:
        version = reader().feed(data)
        assert version is not None
        assert len(version.preamble) == count
    else:
        with pytest.raises(LimitExceeded) as caught:
            reader().feed(data)
        assert caught.value.limit == "preamble_lines"


@pytest.mark.covers("B2", "V36")
def test_bytes_of_other_lines() -> None:
    for size in (65536, 65537):
        data = b"a" * 30000 + b"\n" + b"b" * (size - 30002) + b"\n"
        ident = reader()
        if size <= 65536:
            assert ident.feed(data) is None
            assert ident.feed(b"SSH-2.0-x\n") is not None
        else:
            with pytest.raises(LimitExceeded) as caught:
                ident.feed(data)
            assert caught.value.limit == "preamble_bytes"
    ident = reader()
    with pytest.raises(LimitExceeded):
        for _ in range(1000):
            ident.feed(b"x" * 1000)
    assert not ident._buffer


@pytest.mark.covers("R18", "V70")
def test_non_ascii_is_kept_in_the_line_and_escaped_where_shown() -> None:
    ident = reader()
    version = ident.feed("SSH-2.0-caf\xe9 \x1b]0;x\x07\n".encode("latin-1"))
    assert version is not None
    assert ident.line == b"SSH-2.0-caf\xe9 \x1b]0;x\x07"
    assert version.line == "SSH-2.0-caf\\xe9 \\x1b]0;x\\x07"


def outcome(role: Role, limits: Limits, pieces: list[bytes]) -> object:
    ident = reader(role, limits)
    for index, piece in enumerate(pieces):
        try:
            version = ident.feed(piece)
        except ConnectionLoss as error:
            return type(error), str(error), ident.line, ident.version
        if version is not None:
            return version, ident.line, ident.rest + b"".join(pieces[index + 1 :])
    return None


@pytest.mark.covers("R163", "V36")
@given(
    role=st.sampled_from(Role),
    data=st.lists(
        st.sampled_from(
            [
                b"SSH-",
                b"SS",
                b"2.0",
                b"1.99",
                b"-",
                b"x",
                b" ",
                b"\r",
                b"\n",
                b"\r\n",
                b"\0",
                b"\xff",
                b"SSH-2.0-ok\r\n",
                b"y" * 9,
            ]
        ),
        max_size=14,
    ).map(b"".join),
    cuts=st.lists(st.integers(0, 100), max_size=6),
)
def test_chunking_does_not_matter(role: Role, data: bytes, cuts: list[int]) -> None:
    limits = attrs.evolve(LIMITS, ident_line=20, preamble_lines=3, preamble_bytes=24)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    whole = outcome(role, limits, [data])
    assert outcome(role, limits, pieces) == whole
    assert outcome(role, limits, [data[i : i + 1] for i in range(len(data))]) == whole


@pytest.mark.covers("V36")
@given(st.lists(st.binary(max_size=50)))
def test_noise_only_ever_raises_a_loss(pieces: list[bytes]) -> None:
    for role in Role:
        outcome(role, LIMITS, pieces)


@pytest.mark.covers("R14", "R16")
def test_our_line() -> None:
    assert our_line("sshproto_0.1", "") == b"SSH-2.0-sshproto_0.1"
    assert our_line("a", "b c") == b"SSH-2.0-a b c"
    assert len(our_line("a", "b" * 243)) == 253
    for software, comments in (("a", "b" * 244), ("a\n", ""), ("a", "\xe9"), ("a\0", "")):
        with pytest.raises(InvalidArgument):
            our_line(software, comments)


@pytest.mark.covers("V70")
def test_the_words_of_who_does_not_identify_himself() -> None:
    ident = reader()
    assert ident.feed(b"220 mail.exam") is None
    assert ident.words == "220 mail.exam"
    assert ident.feed(b"ple\x1b ESMTP\r\n250 ok\r\n") is None
    assert ident.words == "220 mail.example\\x1b ESMTP"


@pytest.mark.covers("R18", "R41")
@pytest.mark.parametrize(
    "line", [b"SSH-2.0-x", b"SSH-2.0-x a comment, and spaces  ", b"SSH-1.99-x \xff", b"SSH-2.0-x\t"]
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_exchange_hash_takes_the_line_as_it_came(line: bytes, end: bytes) -> None:
    """Without its end and with all the rest: the server's signature is over a hash of that."""
    for signed, event in ((line, "HostKeyOffered"), (line + b" ", "D3")):
        puppet = bring(Role.CLIENT, "I")
        puppet.write(b"other lines\r\n" + line + end)
        puppet.line = signed
        puppet.say(puppet.kexinit())
        puppet.heard()
        assert puppet.outcome(puppet.reply()) == event
