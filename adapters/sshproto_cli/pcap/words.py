"""The command line's words, as :class:`sshproto.replay.picture.timeline.Timeline` wants them."""

from __future__ import annotations

from sshproto_cli import describe


class Words(describe.Describer):
    """Says also what was agreed, and what protects a side's packets."""

    chosen = staticmethod(describe.chosen)
    protection = staticmethod(describe.protection)
