"""What the command line does about host keys: which files, whom it asks, what it says, what it writes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from sshproto.algorithms import SIGNATURE_DEFAULT
from sshproto.events import HostKeyOffered
from sshproto.keys import FOREVER, KRL, Certificate, CertificateKind, PrivateKey, PublicKey, Trust, known_hosts
from sshproto.keys.known_hosts import line_for, marked_line
from sshproto.operations.host_key_update import HostKeyUpdate
from sshproto_cli.hosts import HostPolicy, Unknown
from sshproto_cli.options import Failure
from sshproto_cli.terminal import Terminal

PRIVATE = PrivateKey.generate()
KEY = PRIVATE.public_key
OTHER = PrivateKey.generate().public_key
ECDSA = PrivateKey.generate("ecdsa-sha2-nistp256").public_key
AUTHORITY = PrivateKey.generate()
HOST, PORT = "host.example.org", 2222


class Somebody(Terminal):
    """Answers, and remembers what was asked."""

    def __init__(self, answer: bool | None) -> None:
        super().__init__()
        self._answer = answer
        self.asked: list[str] = []

    @property
    def present(self) -> bool:
        return self._answer is not None

    def confirm(self, text: str) -> bool:
        self.asked.append(text)
        return bool(self._answer)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


def offered(key: PublicKey = KEY, certificate: Certificate | None = None) -> HostKeyOffered:
    return HostKeyOffered(id=1, key=key, algorithm="whatever", certificate=certificate)


def policy(*paths: Path, unknown: Unknown = Unknown.REFUSE, answer: bool | None = None, **more: Any) -> HostPolicy:
    return HostPolicy(HOST, PORT, paths, unknown, Somebody(answer), **more)


def certify(**changes: Any) -> Certificate:
    told: dict[str, Any] = {"principals": ("*.example.org",), "valid_before": FOREVER, **changes}
    return Certificate.issue(AUTHORITY, KEY, CertificateKind.HOST, key_id="x", **told)


def known(path: Path) -> set[bytes]:
    return {entry.blob for entry in known_hosts.parse(path.read_bytes()).find(HOST, PORT)}


@pytest.mark.parametrize(
    ("unknown", "answer", "accepted", "words"),
    [
        (Unknown.REFUSE, True, False, "no host is let in that is not known"),
        (Unknown.ACCEPT, None, True, ""),
        (Unknown.ASK, True, True, ""),
        (Unknown.ASK, False, False, "was not accepted"),
        (Unknown.ASK, None, False, "accept it with --accept-new, or add it to"),
    ],
)
def test_hosts_that_are_not_known(
    mine: Path, unknown: Unknown, answer: bool | None, accepted: bool, words: str
) -> None:
    it = policy(mine, unknown=unknown, answer=answer)
    assert it(offered()) is accepted
    assert words in it.problem
    assert mine.exists() is accepted
    if accepted:
        assert known(mine) == {KEY.blob}


def test_names_are_hidden_if_that_is_wanted(mine: Path) -> None:
    assert policy(mine, unknown=Unknown.ACCEPT, hashed=True)(offered())
    assert mine.read_text().startswith("|1|")
    assert known(mine) == {KEY.blob}


def test_new_hosts_go_to_the_first_file(mine: Path, tmp_path: Path) -> None:
    second, system = tmp_path / "second", tmp_path / "system"
    system.write_text(line_for(HOST, PORT, KEY))
    assert policy(mine, second, system=[system])(offered())
    system.unlink()
    second.write_text(line_for(HOST, PORT, KEY))
    assert policy(mine, second)(offered())
    second.unlink()
    assert policy(mine, second, unknown=Unknown.ACCEPT)(offered())
    assert (mine.exists(), second.exists()) == (True, False)
    assert policy(unknown=Unknown.ACCEPT)(offered())  # no file at all: nothing is remembered


@pytest.mark.covers("V08")
@pytest.mark.parametrize("unknown", [Unknown.REFUSE, Unknown.ACCEPT, Unknown.ASK])
@pytest.mark.parametrize(("known_key", "words"), [(OTHER, "has CHANGED: "), (ECDSA, "is known by another type of key")])
def test_another_key_is_refused_whatever_is_to_be_done_about_new_ones(
    mine: Path, unknown: Unknown, known_key: PublicKey, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mine.write_text("# one\n" + line_for(HOST, PORT, known_key))
    it = policy(mine, unknown=unknown, answer=True)
    assert not it(offered())
    assert words in it.problem
    assert f"{mine} line 2" in it.problem
    said = capsys.readouterr().err
    assert "WARNING" in said
    assert KEY.fingerprint() in said
    assert known_key.fingerprint() in said
    assert f"sshproto known-hosts remove --file {mine} '[{HOST}]:{PORT}'" in said
    assert known(mine) == {known_key.blob}


@pytest.mark.covers("V08")
def test_what_is_revoked(mine: Path, tmp_path: Path) -> None:
    mine.write_text(line_for(HOST, PORT, KEY) + marked_line("@revoked", f"[{HOST}]:*", KEY))
    it = policy(mine, unknown=Unknown.ACCEPT)
    assert not it(offered())
    assert f"is revoked by {mine} line 2" in it.problem
    revoked = tmp_path / "revoked"
    for content in (KEY.openssh().encode() + b"\n", KRL().revoke(KEY).encode()):
        revoked.write_bytes(content)
        for unknown in (Unknown.ACCEPT, Unknown.ANY):
            it = policy(tmp_path / "none", unknown=unknown, revoked=revoked)
            assert not it(offered())
            assert "is revoked" in it.problem
            assert it(offered(OTHER)) is True
    revoked.write_text("rubbish")
    for bad in (revoked, tmp_path / "nowhere"):
        with pytest.raises(Failure, match="file of revoked host keys"):
            policy(mine, revoked=bad)


@pytest.mark.covers("V51")
def test_certificates(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine.write_text(marked_line("@cert-authority", "[*.example.org]:*", AUTHORITY.public_key))
    it = policy(mine)
    assert it.order(SIGNATURE_DEFAULT)[0] == "ssh-ed25519-cert-v01@openssh.com"
    assert it(offered(KEY, certify()))
    assert capsys.readouterr().err == ""
    assert not it(offered(KEY))
    assert not it(offered(KEY, certify(valid_before=int(time.time()) - 5)))
    assert "the host certificate of host.example.org does not count" in capsys.readouterr().err
    mine.write_text(line_for(HOST, PORT, KEY))
    assert policy(mine).order(SIGNATURE_DEFAULT) == SIGNATURE_DEFAULT


def test_algorithms_of_authorities(mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine.write_text(marked_line("@cert-authority", "*", AUTHORITY.public_key))
    marked = mine.read_text().replace("*", f"[{HOST}]:{PORT}")
    mine.write_text(marked)
    assert policy(mine, authority_algorithms=("rsa-sha2-512", "ssh-ed25519"))(offered(KEY, certify()))
    it = policy(mine, authority_algorithms=("rsa-sha2-512",))
    assert not it(offered(KEY, certify()))
    assert "it is signed with ssh-ed25519, which is none of rsa-sha2-512" in capsys.readouterr().err
    mine.write_text(marked + line_for(HOST, PORT, KEY))  # the key alone is good
    assert policy(mine, authority_algorithms=("rsa-sha2-512",))(offered(KEY, certify()))
    revoked = tmp_path / "revoked"
    revoked.write_bytes(KRL().revoke(certify(serial=7)).encode())
    it = policy(mine, authority_algorithms=("rsa-sha2-512",), revoked=revoked)
    assert not it(offered(KEY, certify(serial=7)))
    assert "is revoked" in it.problem


def test_what_is_no_host_is_said_when_it_is_looked_up(mine: Path) -> None:
    it = HostPolicy("a*b", 22, [mine], Unknown.ACCEPT, Somebody(None))
    assert it.order(SIGNATURE_DEFAULT) == SIGNATURE_DEFAULT
    assert not it(offered())
    assert "not a host name" in it.problem


# ---------------------------------------------------------------------------------------------------- keys that change


def update(it: HostPolicy, found: HostKeyUpdate, monkeypatch: pytest.MonkeyPatch) -> bool:
    """What :meth:`HostPolicy.after_login` does with an update; False if it asks for none."""
    asked: list[Any] = []

    def update_host_keys(hub: Any, *where: Any) -> Any:
        asked.append(where)
        yield from ()
        return found

    monkeypatch.setattr("sshproto.operations.host_key_update.update_host_keys", update_host_keys)
    hub: Any = None
    assert list(it.after_login(hub)) == []
    return bool(asked)


def test_keys_are_written(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = tmp_path / "second"
    mine.write_text(line_for("other", 22, KEY) + line_for(HOST, PORT, KEY) + "rubbish")
    second.write_text(line_for(HOST, PORT, OTHER))
    it = policy(mine, second, update=True)
    assert it(offered())
    [gone] = known_hosts.parse(second.read_bytes(), str(second)).entries
    assert update(it, HostKeyUpdate((ECDSA,), (gone,)), monkeypatch)
    assert mine.read_text().startswith(line_for("other", 22, KEY) + line_for(HOST, PORT, KEY) + "rubbish\n")
    assert known(mine) == {KEY.blob, ECDSA.blob}
    assert (second.read_text(), known(second)) == ("", set())
    assert update(it, HostKeyUpdate((ECDSA,), ()), monkeypatch)  # somebody else has learned it meanwhile
    assert len(known_hosts.parse(mine.read_bytes()).find(HOST, PORT)) == 2


def test_a_first_file_that_is_not_there_is_made(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = tmp_path / "second"
    second.write_text(line_for(HOST, PORT, KEY))
    it = policy(mine, second, update=True)
    assert it(offered())
    assert update(it, HostKeyUpdate((ECDSA,), ()), monkeypatch)
    assert (known(mine), known(second)) == ({ECDSA.blob}, {KEY.blob})


def test_nothing_is_asked_where_nothing_may_be_written(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = HostKeyUpdate((ECDSA,), ())
    mine.write_text(line_for(HOST, PORT, KEY))
    off, on = policy(mine), policy(mine, update=True)
    assert not update(on, found, monkeypatch)  # before anything was shown
    assert off(offered())
    assert on(offered())
    assert not update(off, found, monkeypatch)
    assert update(on, found, monkeypatch)
    nowhere = policy(unknown=Unknown.ANY, update=True)
    assert nowhere(offered())
    assert not update(nowhere, found, monkeypatch)
    mine.write_text(marked_line("@cert-authority", "[*]:*", AUTHORITY.public_key))
    certified = policy(mine, update=True)
    assert certified(offered(KEY, certify()))
    assert not update(certified, found, monkeypatch)
    assert known_hosts.parse(mine.read_bytes()).lookup(HOST, PORT, ECDSA).trust is Trust.UNKNOWN


def test_what_goes_wrong_with_a_file_is_said(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine.write_text(line_for(HOST, PORT, KEY))
    it = policy(mine, update=True)
    assert it(offered())
    monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert update(it, HostKeyUpdate((ECDSA,), ()), monkeypatch)
    assert "cannot be updated: No space left" in capsys.readouterr().err
    assert known(mine) == {KEY.blob}
