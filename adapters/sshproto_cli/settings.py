"""The files of ssh_config(5), as the verbs that connect read them: for each host what holds for it."""

from __future__ import annotations

import argparse
import functools
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sshproto_cli.options import Failure, complain

if TYPE_CHECKING:
    from sshproto.ssh_config import HostConfig, Source, World

VARIABLE = "SSHPROTO_CONFIG"
"""The environment variable that is ``-F`` where that is not given."""
SYSTEM = Path("/etc/ssh/ssh_config")
_LARGEST = 1024 * 1024
_PATIENCE = 60.0  # seconds that a command of Match exec may take


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose files, and stand for lines in them."""
    parser.add_argument(
        "-F",
        dest="config",
        metavar="FILE",
        help="read this ssh_config file and no other, or none; by default ~/.ssh/config, and then that of the system",
    )
    parser.add_argument(
        "-o",
        dest="options",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a line of an ssh_config file that comes before all others",
    )


def quoted(text: str) -> str:
    """A word as a line of a file has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Settings:
    """What files and options say.

    Args:
        file: The only file to read, ``"none"``, or None for the usual ones.
        options: Those of ``-o``, which are for the destination alone.

    Raises:
        Failure: A file can't be read.
    """

    def __init__(self, file: str | None, options: Sequence[str] = ()) -> None:
        self._options = tuple(options)
        self._sources = tuple(_sources(os.environ.get(VARIABLE) or None if file is None else file))
        self._world: World | None = None

    def of(self, host: str, more: Sequence[str] = (), *, last: bool = True) -> HostConfig:
        """What holds for a host.

        Args:
            host: As it was typed.
            more: Lines that come before all others.
            last: It is the destination.

        Raises:
            Failure: The files are wrong somewhere; every place is told.
        """
        from sshproto.ssh_config import ConfigError, resolve

        if self._world is None:
            self._world = world()
        options = (*more, *(self._options if last else ()))
        try:
            return resolve(host, self._sources, self._world, options=options)
        except ConfigError as error:
            *others, problem = error.problems
            for other in others:
                complain(str(other))
            raise Failure(str(problem)) from None


def _sources(file: str | None) -> Iterable[Source]:
    from sshproto.ssh_config import Source

    if file is not None:
        if file.lower() == "none":
            return
        try:
            yield Source(file, _read(Path(file)))
        except OSError as error:
            raise Failure(f"configuration file {file}: {error.strerror or error}") from None
        return
    for path, system in ((home() / ".ssh" / "config", False), (SYSTEM, True)):
        try:
            yield Source(str(path), _read(path, guarded=not system), system)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Failure(f"configuration file {path}: {error.strerror or error}") from None


def _read(path: Path, *, guarded: bool = False) -> bytes:
    """The content of a file.

    Args:
        path: Which.
        guarded: Nobody but the user, and root, may be able to write it.

    Raises:
        OSError: It can't be read, or somebody else can write it.
    """
    with path.open("rb") as file:
        if guarded and others_may_write(os.fstat(file.fileno())):
            raise PermissionError(1, "bad owner or permissions: others may write it", str(path))
        return file.read(_LARGEST + 1)  # one more than there may be: who reads it says so


def others_may_write(status: os.stat_result) -> bool:
    """Whether somebody can write a file who is neither the user nor root."""
    if status.st_uid not in (0, os.getuid()) or status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _own_group(status.st_gid)


def _own_group(number: int) -> bool:
    """Whether nobody but the user is in a group."""
    import grp
    import pwd

    try:
        me, group = pwd.getpwuid(os.getuid()), grp.getgrgid(number)
    except KeyError:
        return False
    if me.pw_gid != number or any(name != me.pw_name for name in group.gr_mem):
        return False
    return all(one.pw_uid == me.pw_uid for one in pwd.getpwall() if one.pw_gid == number)


def home() -> Path:
    """The user's home directory.

    Raises:
        Failure: There is none.
    """
    try:
        return Path.home()
    except RuntimeError as error:
        raise Failure(str(error)) from None


def whoami() -> str:
    """The name of the user.

    Raises:
        Failure: It is not known.
    """
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise Failure("it is not known who you are; say whom to log in as with -l USER") from None


# ------------------------------------------------------------------------------------------------ what is outside of it


def world() -> World:
    """What a configuration depends on beside its text, of this process and machine."""
    import socket

    from sshproto.ssh_config import World

    return World(
        user=whoami(),
        home=str(home()),
        uid=os.getuid(),
        local_host=socket.gethostname(),
        environment=os.environ,
        include=_include,
        run=_run,
        homes=_home_of,
        address=_address,
        canonical=_canonical,
        service=_service,
    )


def _include(pattern: str) -> list[tuple[str, bytes]]:
    import glob

    names = sorted(glob.glob(os.path.expanduser(pattern)))  # noqa: PTH111,PTH207  it may be absolute
    return [(name, _read(Path(name), guarded=True)) for name in names if not Path(name).is_dir()]


def _run(command: str) -> int:
    import subprocess

    shell = os.environ.get("SHELL") or "/bin/sh"
    try:
        return subprocess.run(  # noqa: S603  the user's own, and nobody else can have written it
            [shell, "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=False,
        ).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"Match exec {command!r}: {error}") from None


def _home_of(name: str) -> str | None:
    import pwd

    try:
        return pwd.getpwnam(name).pw_dir
    except KeyError:
        return None


def _address(text: str) -> str | None:
    import socket

    try:
        found = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    return socket.getnameinfo(found[0][4], socket.NI_NUMERICHOST)[0]


def _canonical(name: str) -> str | None:
    import socket

    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
    except (OSError, UnicodeError):
        return None
    return found[0][3] or name


def _service(name: str) -> int | None:
    import socket

    try:
        return socket.getservbyname(name, "tcp")
    except (OSError, UnicodeError, ValueError):
        return None


# -------------------------------------------------------------------------------------------------- what is not obeyed


@functools.cache
def _told() -> set[str]:
    return set()


def tell_rest(config: HostConfig) -> None:
    """Say once what of a configuration has no effect here, and what is odd about it."""
    for line in rest(config):
        if line not in _told():
            _told().add(line)
            complain(line)


def rest(config: HostConfig) -> list[str]:
    """What of a configuration has no effect here, and what is odd about it."""
    from sshproto.ssh_config import KEYWORDS, Standing

    lines = [*map(str, config.notes), *(f"{one.place}: {one.keyword} is ignored" for one in config.unknown)]
    idle = (Standing.KEPT, Standing.NEWER)
    names = [one.name for one in KEYWORDS if one.key in config.said and one.standing in idle and one.key != "tag"]
    if names:
        lines.append(f"of the configuration of {config.host}, this has no effect here: {', '.join(names)}")
    return list(dict.fromkeys(lines))
