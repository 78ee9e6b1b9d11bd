"""Charts of connections that were made up, for those that draw them."""

from __future__ import annotations

from typing import Any

from sshproto import events as ev
from sshproto.config import ServerConfig
from sshproto.replay.analysis import Analysis, Conversation
from sshproto.replay.picture.steps import Chart
from sshproto.replay.picture.timeline import Timeline, chart
from sshproto_cli.describe import Describer
from tests.support.pair import HOST_KEY
from tests.support.tapes import Show

WHISPERED = "hunter2"


def charts(data: bytes, **options: Any) -> list[Chart]:
    """What is drawn of a capture; ``options`` are a timeline's."""
    lines: dict[int, Timeline] = {}

    def ask(conversation: Conversation) -> None:
        lines[conversation.connection.number] = timeline = Timeline(Describer(), **options)
        conversation.sinks.append(timeline)

    analysis = Analysis(ask=ask)
    found = [*analysis.read([data]), *analysis.finish()]
    return [chart(each, lines[each.connection.number]) for each in found]


def whispered() -> Show:
    """A login with all that must not be shown: a password, a new one, answers to prompts; each is :data:`WHISPERED`."""

    def client(conn: Any, question: ev.Question) -> None:
        match question:
            case ev.HostKeyOffered():
                conn.accept_host_key(question)
            case ev.CredentialNeeded(attempt=0):
                conn.auth_password(question, f"{WHISPERED}-1")
            case ev.PasswordExpired():
                conn.new_password(question, f"{WHISPERED}-2", f"{WHISPERED}-3")
            case ev.CredentialNeeded(attempt=1 | 2):
                conn.auth_keyboard_interactive(question)
            case ev.PromptsReceived():
                conn.answer_prompts(question, [f"{WHISPERED}-4"])
            case _:
                conn.refuse(question)

    def server(conn: Any, question: ev.Question) -> None:
        match question:
            case ev.PasswordAuth(new_password=None):
                conn.change_password(question, "it is old")
            case ev.InteractiveAuth():
                conn.prompt(question, [ev.Prompt(text="token: ", echo=False)])
            case ev.PromptsAnswered():
                conn.accept_auth(question)
            case _:
                conn.refuse(question)

    config = ServerConfig(host_keys=(HOST_KEY,), auth_methods=("password", "keyboard-interactive"), debug_raise=True)
    return Show(server=config, client_answer=client, server_answer=server)


def chart_of(data: bytes, **options: Any) -> Chart:
    (found,) = charts(data, **options)
    return found
