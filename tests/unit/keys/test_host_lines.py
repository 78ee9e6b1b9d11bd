"""Editing known_hosts: ssh-keygen -F, -R and -H say the same of files that are made up."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sshproto.errors import InvalidArgument
from sshproto.keys import PrivateKey, host_lines, known_hosts
from sshproto.keys.known_hosts import hash_name, line_for, parse
from tests.unit.keys.conftest import SSH_KEYGEN

KEY = PrivateKey.generate().public_key
OTHER = PrivateKey.generate().public_key
ECDSA = PrivateKey.generate("ecdsa-sha2-nistp256").public_key
SALT = b"s" * 20


def shown(key: object) -> str:
    return " ".join(str(getattr(key, "openssh")()).split()[:2])  # noqa: B009


NAMES = ["alpha", "ALPHA", "beta.example.org", "10.0.0.1", "[alpha]:2222", "[beta.example.org]:22", "2001:db8::1"]
PATTERNS = ["*", "!alpha", "al?ha", "*.example.org", "!*.example.org", "[al*]:2222", "[alpha]:22??", "!"]
KEYS = [shown(KEY), shown(OTHER), shown(ECDSA), "ssh-ed25519 AAAA", "ssh-rsa !!!!", "ssh-dss AAAAB3NzaC1kc3MAAACB"]
BAD = [
    "1024 35 1234", "ssh-ed25519", "", "# ssh-ed25519 AAAA", "ssh-ed25519 #", "7 AAAA",
]  # fmt: skip
"""What makes a line invalid to ssh-keygen."""

HOSTS = [("alpha", 22), ("alpha", 2222), ("beta.example.org", 22), ("10.0.0.1", 22), ("2001:db8::1", 22), ("x", 22)]

plain_names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(",".join)
patterns = st.lists(st.sampled_from(NAMES + PATTERNS), min_size=1, max_size=3).map(",".join)
hashed = st.sampled_from([name for name in NAMES if name.islower() or not name.isupper()]).map(
    lambda name: hash_name(name.lower(), SALT)
)
bad_hash = st.sampled_from(["|1|AAAA|AAAA", "|2|x|y", "|1|", "|"])
blanks = st.sampled_from([" ", "  ", "\t", " \t"])
comments = st.sampled_from(["", " a comment", "\tit's", " #", " \u00fc", "  "])
markers = st.sampled_from(["@revoked ", "@cert-authority "])
bad_markers = st.sampled_from(["@odd ", "@revoked @revoked ", "@ "])


@st.composite
def good_line(draw: st.DrawFn) -> str:
    return "".join(
        (
            draw(st.sampled_from(["", "", " ", "\t"])),
            draw(st.one_of(st.just(""), st.just(""), markers)),
            draw(st.one_of(plain_names, patterns, hashed)),
            draw(blanks),
            draw(st.sampled_from(KEYS)),
            draw(comments),
        )
    )


@st.composite
def bad_line(draw: st.DrawFn) -> str:
    """One that ssh-keygen does not read; the last choice is one that it does not read in any case."""
    names = draw(plain_names)
    return draw(
        st.sampled_from(
            (
                f"{draw(bad_markers)}{names} {KEYS[0]}",
                f"{draw(bad_hash)} {KEYS[0]}",
                names,
                *(f"{names} {bad}" for bad in BAD),
            )
        )
    )


nothing = st.sampled_from(["", "# a comment", "  # another", "  ", "#"])


def joined(lines: list[str], end: str) -> str:
    """A file. Of names alone at its very end ssh-keygen 9.2 reads on in what the line before has left in its buffer."""
    words = lines[-1].split() if lines else ()
    return "\n".join(lines) + ("\n" if len(words) == 1 else end if lines else "")


files = st.builds(
    joined,
    st.lists(st.one_of(good_line(), good_line(), bad_line(), nothing), max_size=8),
    st.sampled_from(["\n", "\n", ""]),
)

EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def keygen(path: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(SSH_KEYGEN), *arguments, "-f", str(path)],
        capture_output=True,
        check=False,
        timeout=60,
        env={"LC_ALL": "C"},
    )


def named(host: str, port: int) -> str:
    return host if port == 22 else f"[{host}]:{port}"


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def readable(text: str) -> str:
    """The file as ssh-keygen would edit it: it edits none in which a line cannot be read."""
    bad = {number for number, _ in host_lines.remove(text, "nobody.at.all").passed_over}
    lines = [f"#{line}" if number in bad else line for number, line in enumerate(text.split("\n"), 1)]
    return "\n".join(lines)


def restored(edited: str, text: str) -> str:
    """Undoes what :func:`readable` did."""
    bad = {f"#{line}": line for line in text.split("\n")}
    return "\n".join(bad.get(line, line) if line not in text.split("\n") else line for line in edited.split("\n"))


@given(files, st.sampled_from(HOSTS))
@EXAMPLES
@example("alpha " + KEYS[0] + "\nALPHA " + KEYS[1], ("alpha", 22))
def test_find(ssh_keygen: Callable[..., str], tmp_path: Path, text: str, where: tuple[str, int]) -> None:
    said = keygen(written(tmp_path / "hosts", text), "-F", named(*where)).stdout.decode()
    theirs = [
        int(number) for number in re.findall(r"^# Host .* found: line (\d+) *(?:CA|REVOKED)? *$", said, re.MULTILINE)
    ]
    ours = host_lines.find(text, *where)
    assert [line.line for line in ours] == theirs
    assert [line.text for line in ours] == [text.split("\n")[number - 1] for number in theirs]
    # What is found as an entry is found as text.
    assert {entry.line for entry in parse(text).find(*where)} <= set(theirs)


@given(files, st.sampled_from(HOSTS))
@EXAMPLES
@example("# one\nalpha " + KEYS[0] + "\nalpha 1024 35 5\n*,!alpha " + KEYS[1], ("alpha", 22))
def test_remove(ssh_keygen: Callable[..., str], tmp_path: Path, text: str, where: tuple[str, int]) -> None:
    path = written(tmp_path / "hosts", readable(text))
    ran = keygen(path, "-R", named(*where))
    assert b"not a valid known_hosts file" not in ran.stderr, ran.stderr
    theirs = path.read_bytes().decode()
    edited = host_lines.remove(text, *where)
    if b"updated." in ran.stdout:
        theirs = theirs.removesuffix("\n") if not text.endswith("\n") else theirs  # it ends the last line
    else:
        assert not edited.lines
    gone = {line.line for line in edited.lines}
    kept = [line for number, line in enumerate(text.split("\n"), 1) if number not in gone]
    assert edited.text.rstrip("\n") == "\n".join(kept).rstrip("\n")
    assert restored(theirs, text).rstrip("\n") == edited.text.rstrip("\n")
    assert bool(edited.passed_over) == (text != readable(text))
    assert not [line for line in host_lines.find(edited.text, *where) if not line.marker]
    assert host_lines.remove(text.encode(), *where).text == edited.text.encode()


@given(files)
@EXAMPLES
def test_hash(ssh_keygen: Callable[..., str], tmp_path: Path, text: str) -> None:
    """The salts differ, of course: so each name is hashed again with theirs."""
    path = written(tmp_path / "hosts", readable(text))
    ran = keygen(path, "-H")
    assert b"not a valid known_hosts file" not in ran.stderr, ran.stderr
    theirs = restored(path.read_bytes().decode(), text)
    salts = [
        known_hosts.split_hash(word)[0] for word in re.findall(r"\|1\|[A-Za-z0-9+/=]{28}\|[^ \t]{28}(?= )", theirs)
    ]
    fresh = iter([salt for salt in salts if salt != SALT])
    edited = host_lines.hash_names(text, entropy=lambda count, label: next(fresh))
    assert edited.text.rstrip("\n") == theirs.rstrip("\n")
    assert next(fresh, None) is None
    again = host_lines.hash_names(edited.text)
    assert (again.text, again.lines) == (edited.text, ())
    for where in HOSTS:  # it is the same file as before
        before, after = host_lines.find(text, *where), host_lines.find(edited.text, *where)
        assert {(line.marker, line.key) for line in before} == {(line.marker, line.key) for line in after}


# ----------------------------------------------------------------------------------------------------------- on our own


def test_unknown_types_are_found_and_removed_too() -> None:
    """ssh-keygen takes a type that it does not know for a line that cannot be read."""
    text = "alpha ssh-new@example.org AAAA\nbeta ssh-ed25519 AAAA"
    assert [line.line for line in host_lines.find(text, "alpha")] == [1]
    assert host_lines.remove(text, "alpha").text == "beta ssh-ed25519 AAAA"


def test_append_begins_on_a_line_of_its_own() -> None:
    new = line_for("alpha", 22, KEY)
    assert host_lines.append("", new) == new
    assert host_lines.append("x y z", new) == "x y z\n" + new
    assert host_lines.append(b"\xff\n", [new, "a b c"]) == b"\xff\n" + new.encode() + b"a b c\n"
    assert host_lines.append("x", []) == "x"


def test_only_lines_with_certain_keys_are_removed() -> None:
    lines = [f"alpha {shown(key)}\n" for key in (KEY, OTHER, ECDSA)]
    edited = host_lines.remove("".join(lines), "alpha", keys=(OTHER, ECDSA.blob))
    assert edited.text == lines[0]
    assert [line.blob for line in edited.lines] == [OTHER.blob, ECDSA.blob]
    assert host_lines.remove("".join(lines) + "alpha ssh-rsa !!!\n", "alpha", keys=()).lines == ()


def test_what_is_no_text_stays_as_it_is() -> None:
    content = b"\xff\xfe " + shown(KEY).encode() + b" \x80\r\nalpha " + shown(KEY).encode() + b"\r\n\r\n"
    edited = host_lines.remove(content, "alpha")
    assert edited.text == content.partition(b"alpha")[0] + b"\r\n"
    assert not edited.passed_over
    hashed_now = host_lines.hash_names(content).text
    assert b" \x80\r\n" not in hashed_now.partition(b"|1|")[0]
    assert hashed_now.endswith(b"\r\n\r\n")


def test_what_was_passed_over_is_told() -> None:
    text = "*.example.org ssh-rsa AAAA\nalpha\n@odd x\n!x,\x1b ssh-rsa AAAA\n, ssh-rsa AAAA"
    edited = host_lines.hash_names(text)
    assert edited.text == text
    assert [number for number, _ in edited.passed_over] == [1, 2, 3, 4, 5]
    assert all(words.isprintable() for _, words in edited.passed_over)


@pytest.mark.parametrize("host", ["", "*", "a,b", "a b"])
def test_what_is_no_host(host: str) -> None:
    for call in (host_lines.find, host_lines.remove):
        with pytest.raises(InvalidArgument):
            call("", host)


@given(st.binary(max_size=300))
def test_any_bytes_are_edited(content: bytes) -> None:
    for edited in (host_lines.remove(content, "alpha"), host_lines.hash_names(content)):
        assert edited.lines or edited.text == content
    assert host_lines.append(content, "x\n").startswith(content)
