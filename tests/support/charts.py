"""Charts of connections that were made up, for those that draw them."""

from __future__ import annotations

from typing import Any

from sshproto.replay.analysis import Analysis, Conversation
from sshproto.replay.steps import Chart
from sshproto.replay.timeline import Timeline, chart
from sshproto_cli.describe import Describer, chosen, protection


class Words(Describer):
    """The command line's words."""

    chosen = staticmethod(chosen)
    protection = staticmethod(protection)


def charts(data: bytes, **options: Any) -> list[Chart]:
    """What is drawn of a capture; ``options`` are a timeline's."""
    lines: dict[int, Timeline] = {}

    def ask(conversation: Conversation) -> None:
        lines[conversation.connection.number] = timeline = Timeline(Words(), **options)
        conversation.sinks.append(timeline)

    analysis = Analysis(ask=ask)
    found = [*analysis.read([data]), *analysis.finish()]
    return [chart(each, lines[each.connection.number]) for each in found]


def chart_of(data: bytes, **options: Any) -> Chart:
    (found,) = charts(data, **options)
    return found
