"""Runs verbs of the command line in this process, and makes captures of a wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from sshproto.replay.events import Side
from sshproto_cli.main import main
from tests.replay.sessions import Wire
from tests.support import captures
from tests.support.captures import Talk


@attrs.frozen
class Ran:
    """What a verb did.

    Attributes:
        status: The exit status.
        out: The lines of standard output.
        err: Those of standard error.
    """

    status: int
    out: list[str]
    err: list[str]

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The lines of standard output, as JSON."""
        return [json.loads(line) for line in self.out]


Run = Callable[..., Ran]


def runner(verb: str, output: pytest.CaptureFixture[str], folder: Path) -> Run:
    """A function that runs a verb of ``sshproto pcap``: of its arguments, bytes are put into files, which are named
    ``0.pcap``, ``1.pcap`` and so on."""

    def run(*words: Any) -> Ran:
        given: list[str] = []
        for number, word in enumerate(words):
            if isinstance(word, bytes):
                path = folder / f"{number}.pcap"
                path.write_bytes(word)
                given.append(str(path))
            else:
                given.append(str(word))
        output.readouterr()
        status = main(["pcap", verb, *given])
        out, err = output.readouterr()
        return Ran(status, out.splitlines(), err.splitlines())

    return run


def capture(*wires: Wire, ends: bool = True) -> bytes:
    """A pcap of connections, one after the other, in which each piece of a wire is a packet.

    Args:
        wires: What was sent.
        ends: The connections have ends.
    """
    records: list[Any] = []
    for number, wire in enumerate(wires, 1):
        addresses = captures.CLIENT, captures.SERVER
        ports = (40000 + number).to_bytes(2, "big"), (22).to_bytes(2, "big")
        there = b"".join((*addresses, *ports))
        back = b"".join((*addresses[::-1], *ports[::-1]))
        talk = Talk(flows=(there, back)).dial()
        for side, data in wire:
            talk.send(int(side is Side.DIALLED), data)
        if ends:
            talk.hang_up()
        records += [(time + number * 1_000_000_000, packet) for time, packet in talk.records()]
    return captures.pcap(records)
