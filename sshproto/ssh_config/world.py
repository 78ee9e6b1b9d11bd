"""What a configuration depends on beside its text: who one is, and what only others can find out. All is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import attrs

from sshproto.values import frozen


def _nobody(name: str) -> str | None:
    return None


def _no_files(pattern: str) -> Iterable[tuple[str, bytes]]:
    return ()


def _no_port(name: str) -> int | None:
    return None


@frozen(kw_only=True)
class World:
    """What is outside.

    Attributes:
        user: The name of the local user (``%u``, ``Match localuser``).
        home: Their home directory (``%d``, ``~``).
        uid: Their number (``%i``).
        local_host: The name of this machine (``%l``; ``%L`` is its first part).
        environment: Variables of the process, for ``${NAME}``.
        include: Takes what follows ``Include``, with ``~/.ssh/`` or ``/etc/ssh/`` before it if it was relative, and
            returns names and contents of the files that match it, in lexical order; those that are not there are left
            out. It may raise :class:`OSError`, which ends the reading with an error at the line.
        run: Takes a command of ``Match exec`` and returns its exit status. If it is None commands are not run, and
            such a condition is an error.
        homes: Takes the name of a user, returns the home directory; None if there is no such user.
        address: Takes what may be a numeric address in any form, returns its usual form; None if it is none.
        canonical: Takes a name to look up, ``"host.example.org."`` with its last dot where it is complete, and returns
            its canonical name (the end of its CNAMEs; itself if it has none); None if there is no such host.
        service: Takes the name of a TCP service, returns its port; None if there is none.
    """

    user: str
    home: str
    uid: int = 0
    local_host: str = "localhost"
    environment: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    include: Callable[[str], Iterable[tuple[str, bytes]]] = _no_files
    run: Callable[[str], int] | None = None
    homes: Callable[[str], str | None] = _nobody
    address: Callable[[str], str | None] = _nobody
    canonical: Callable[[str], str | None] = _nobody
    service: Callable[[str], int | None] = _no_port

    def home_of(self, name: str) -> str | None:
        """The home directory of a user; one's own for ``""``."""
        return self.homes(name) if name else self.home


@frozen
class Source:
    """A file.

    Attributes:
        name: Its name, for errors.
        content: What is in it.
        system: It is the machine's, not the user's: what it includes is relative to ``/etc/ssh``.
    """

    name: str
    content: bytes = attrs.field(repr=False)
    system: bool = False
