"""What the environment says of displays and agents, and the sockets that are made for them."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from sshproto.agent import Keyring
from sshproto.errors import InvalidArgument
from sshproto.operations.agent_forwarding import AgentForwarding
from sshproto.operations.agents import AgentService
from sshproto.operations.displays import (
    MAGIC_COOKIE,
    Cookie,
    Display,
    XauthorityError,
    authorities_for,
    write_authorities,
)
from sshproto_io import displays, offers
from sshproto_io.displays import display
from sshproto_io.runner import Runner
from sshproto_io.sockets import listen_privately

COOKIE = Cookie(MAGIC_COOKIE, b"sixteen secrets!")


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the cookie of display 7, which nobody has."""
    monkeypatch.setenv("DISPLAY", ":7.1")
    monkeypatch.delenv("XAUTHORITY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "authority"
    path.write_bytes(write_authorities(authorities_for(7, COOKIE, socket.gethostname())))
    return path


def test_a_display_of_the_environment(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    assert display(trusted=True, warn=warnings.append).cookie is None
    assert warnings == ["display :7.1 has no cookie: who connects to it will show none"]
    monkeypatch.setenv("XAUTHORITY", str(authority))
    found = display(trusted=True, timeout=5, single=True, optional=True)
    assert (found.display, found.cookie, found.dial) == (Display("", 7, 1), COOKIE, None)
    assert (found.timeout, found.single, found.optional) == (5, True, True)
    assert found.entropy(16) != found.entropy(16)
    monkeypatch.delenv("XAUTHORITY")
    authority.rename(authority.with_name(".Xauthority"))
    assert display(trusted=True).cookie == COOKIE
    assert display("localhost:7", trusted=True).cookie == COOKIE
    assert display(":8", trusted=True).cookie is None


def test_what_is_wrong_with_a_display_is_said(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgument, match="no name of a display"):
        display("nonsense", trusted=True)
    authority.write_bytes(b"\0\0\xff\xff")
    with pytest.raises(XauthorityError):
        display(trusted=True, authority=authority)
    with pytest.raises(IsADirectoryError):
        display(trusted=True, authority=authority.parent)
    for value in ("", None):
        monkeypatch.delenv("DISPLAY", raising=False)
        if value is not None:
            monkeypatch.setenv("DISPLAY", value)
        with pytest.raises(InvalidArgument, match="DISPLAY is not set"):
            display(trusted=True)


def test_the_addresses_of_another_machine_are_looked_up(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(host: str, port: object, **options: Any) -> list[Any]:
        if host != "far":
            raise socket.gaierror("no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    entry = b"\0\0\0\4\x0a\0\0\1\0\1" + b"7\0\x12" + MAGIC_COOKIE.encode() + b"\0\4abcd"
    authority.write_bytes(entry)
    assert display("far:7", trusted=True, authority=authority).cookie == Cookie(MAGIC_COOKIE, b"abcd")
    assert display("other:7", trusted=True, authority=authority).cookie is None


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'one line' >&2; echo 'the last line' >&2; exit 1", "the last line"),
        ("exit 0", "the X server makes none"),
        ("printf '\\033[2Jhello' >&2", r"\\x1b\[2Jhello"),
        ('printf nonsense > "$2"', "the X server makes none"),
        ("exec sleep 60", "does not end"),
    ],
)
def test_without_a_limited_cookie_there_is_no_display(
    authority: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    """The true one is for who is trusted, and takes nobody's place."""
    program = authority.with_name("xauth")
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(displays, "_XAUTH_SECONDS", 1.0)
    with pytest.raises(OSError, match=f"no cookie for programs that are not trusted: .*{words}"):
        display(trusted=False, authority=authority, xauth=program)


def test_a_limited_cookie_is_asked_for(authority: Path) -> None:
    """With a time that is a little longer than that in which it can be used; and it is the one that is made."""
    program, limited = authority.with_name("xauth"), authority.with_name("limited")
    limited.write_bytes(write_authorities(authorities_for(7, Cookie(MAGIC_COOKIE, b"limited"), socket.gethostname())))
    told = authority.with_name("told")
    program.write_text(f'#!/bin/sh\necho "$XAUTHORITY $*" > {told}\ncp {limited} "$2"\n')
    program.chmod(0o755)
    found = display(trusted=False, timeout=100, authority=authority, xauth=program)
    assert found.cookie == Cookie(MAGIC_COOKIE, b"limited")
    words = told.read_text().split()
    assert words[0] == str(authority)
    assert words[1] == "-f"
    assert words[3:] == ["generate", ":7.1", MAGIC_COOKIE, "untrusted", "timeout", "160"]
    assert not Path(words[2]).parent.exists()
    with pytest.raises(OSError, match="there is no program"):
        display(trusted=False, authority=authority, xauth=authority.with_name("nothing"))


def test_a_socket_for_one_user_alone() -> None:
    listener = Runner().run(listen_privately())
    path = Path(str(listener.address))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
    listener.close()
    listener.close()
    assert not path.parent.exists()


def test_a_socket_that_can_not_be_had_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    (tmp_path / ("x" * 100)).mkdir()
    with pytest.raises(OSError, match="too long"):
        Runner().run(listen_privately())
    assert list((tmp_path / ("x" * 100)).iterdir()) == []


def test_what_an_agent_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = Keyring()
    service = AgentService(keyring, lambda: 0.0)
    forwarding = AgentForwarding(source="x", dial=lambda: None)  # type: ignore[arg-type,return-value]
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    assert offers.agent_forwarding(None) is None
    assert offers.agent_forwarding(False) is None
    assert offers.agent_forwarding(forwarding) is forwarding
    for agent, source in (
        (True, "/run/agent"),
        ("/run/other", "/run/other"),
        (Path("/run/other"), "/run/other"),
        (keyring, keyring),
        (service, keyring),
    ):
        found = offers.agent_forwarding(agent, optional=True)
        assert found is not None
        assert (found.source, found.optional) == (source, True)
    monkeypatch.delenv("SSH_AUTH_SOCK")
    nothing: Any = 7
    for agent in (True, nothing, b"/run/agent"):
        with pytest.raises(InvalidArgument):
            offers.agent_forwarding(agent)
    with pytest.raises(InvalidArgument, match="X11Forwarding"):
        offers.x11_forwarding(nothing, socket.getaddrinfo)
    assert os.environ.get("SSH_AUTH_SOCK") is None
