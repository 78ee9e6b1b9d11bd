"""Our own connections, recorded and replayed: the same inputs give the same events and the same bytes.

:mod:`~sshproto.replay.trace.recording` records a connection, :mod:`~sshproto.replay.trace.file` is the file,
:mod:`~sshproto.replay.trace.verify` replays it, :mod:`~sshproto.replay.trace.minimise` cuts it down, and
:mod:`~sshproto.replay.trace.seeds` makes it food for fuzzers.
"""

from __future__ import annotations

from sshproto.replay.trace.file import Header, Privacy, Record, Trace, TraceError, TraceReader, read

__all__ = ["Header", "Privacy", "Record", "Trace", "TraceError", "TraceReader", "read"]
