"""A connection as a picture: :class:`Timeline` takes its events, :func:`chart` makes steps, :func:`draw` an SVG."""

from __future__ import annotations

from sshproto.replay.picture.svg import draw
from sshproto.replay.picture.timeline import Timeline, chart

__all__ = ["Timeline", "chart", "draw"]
