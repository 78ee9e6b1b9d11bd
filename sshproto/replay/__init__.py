"""Captured traffic in, events out; nothing is ever sent.

:func:`analyze` is all that most need: the SSH connections of a capture, each with what was said.  Below it stand

* :mod:`sshproto.replay.capture`: files, networks and TCP: the byte streams in a capture;
* :mod:`sshproto.replay.observer`: both directions of one connection, opened as far as the :class:`Secrets` go;
* what listens to an observer: :mod:`~sshproto.replay.summary`, :mod:`~sshproto.replay.findings`,
  :mod:`~sshproto.replay.channels`, :mod:`~sshproto.replay.rows`, :mod:`~sshproto.replay.cast`,
  :mod:`~sshproto.replay.portrait`, and :mod:`sshproto.replay.picture`, which draws.

Beside it stands :mod:`sshproto.replay.trace`, the replay of our own connections, which is another thing: there
everything is known, and the same bytes are sent again.
"""

from __future__ import annotations

from sshproto.replay.analysis import Analysis, AnalysisLimits, Conversation, Sink, analyze
from sshproto.replay.capture import CaptureError, CaptureLimits, CaptureReader
from sshproto.replay.events import Observed, Side
from sshproto.replay.findings import Finding, Findings, Memory, Policy, Severity
from sshproto.replay.observer import Observer
from sshproto.replay.secrets import KeyLogError, Secrets
from sshproto.replay.summary import Summary

__all__ = [
    "Analysis",
    "AnalysisLimits",
    "CaptureError",
    "CaptureLimits",
    "CaptureReader",
    "Conversation",
    "Finding",
    "Findings",
    "KeyLogError",
    "Memory",
    "Observed",
    "Observer",
    "Policy",
    "Secrets",
    "Severity",
    "Side",
    "Sink",
    "Summary",
    "analyze",
]
