"""Key logs in files: :func:`key_log_to` makes what a configuration takes as ``key_log``.

A key log is what Wireshark and ``sshproto pcap`` open recordings of connections with: one line for each key exchange.
**Whoever has it can read all that was recorded of these connections**, so it is written only where it is asked for, and
the file is its owner's alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def key_log_to(path: str | Path, *, on_problem: Callable[[OSError], object] | None = None) -> Callable[[str], None]:
    """Append the keys of connections to a file; several connections and processes may share it.

    Each line is in the file before the first packet goes out that it opens, and is written in one piece::

        config = ClientConfig(user="alice", key_log=key_log_to("keys.log"))

    Args:
        path: The file. It is made if it is not there, readable for its owner only; lines are added to one that is.
        on_problem: Called when a line can't be written. The connection goes on.

    Raises:
        OSError: The file can't be opened, or made.
    """
    given = os.path.abspath(path)  # noqa: PTH100 - the process may go elsewhere; "~" and links stay what they are
    os.close(_opened(given))

    def write(line: str) -> None:
        try:
            descriptor = _opened(given)  # anew each time: there are few lines, and a log may have been moved away
            try:
                os.write(descriptor, f"{line}\n".encode("ascii"))
            finally:
                os.close(descriptor)
        except OSError as error:
            if on_problem is not None:
                on_problem(error)

    return write


def _opened(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    return os.open(path, flags, 0o600)
