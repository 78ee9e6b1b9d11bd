"""Findings as SARIF 2.1.0, the form in which tools that look for faults tell others of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sshproto.config import VERSION
from sshproto.replay.events import role_of
from sshproto.replay.findings import Severity
from sshproto.replay.rows import community_id
from sshproto.text import printable
from sshproto_cli.pcap.catalogue import RULES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sshproto.replay.analysis import Conversation
    from sshproto.replay.findings import Finding

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

_LEVELS = {
    Severity.INFO: "note",
    Severity.LOW: "note",
    Severity.MEDIUM: "warning",
    Severity.HIGH: "error",
    Severity.CRITICAL: "error",
}
_SCORES = {
    Severity.INFO: "0.0",
    Severity.LOW: "3.0",
    Severity.MEDIUM: "5.5",
    Severity.HIGH: "8.0",
    Severity.CRITICAL: "9.5",
}
"""Where each severity lies on the scale of 0 to 10 that readers of SARIF sort by."""

_INDEX = {code: index for index, code in enumerate(RULES)}


class Report:
    """Collects findings of many connections."""

    def __init__(self) -> None:
        self._results: list[dict[str, Any]] = []

    def add(self, conversation: Conversation, findings: Iterable[Finding]) -> None:
        """Take findings of a connection."""
        for finding in findings:
            self._add(conversation, finding)

    def _add(self, conversation: Conversation, finding: Finding) -> None:
        connection = conversation.connection
        name = f"connection {connection.number}"
        ends = f"{connection.dialler} to {connection.dialled}"
        role = None if finding.side is None else role_of(finding.side, conversation.summary.client)
        where = community_id(connection.flow)
        identity = "\0".join((finding.code, finding.words, where, str(connection.time), f"{finding.side}"))
        self._results.append(
            {
                "ruleId": finding.code,
                "ruleIndex": _INDEX[finding.code],
                "level": _LEVELS[finding.severity],
                "message": {"text": _sentence(conversation, finding)},
                "locations": [
                    {
                        "physicalLocation": {"artifactLocation": {"uri": _uri(conversation.capture)}},
                        "logicalLocations": [{"name": name, "fullyQualifiedName": ends, "kind": "resource"}],
                    }
                ],
                "partialFingerprints": {"finding/v1": hashlib.sha256(identity.encode("utf-8", "replace")).hexdigest()},
                "properties": {
                    "connection": connection.number,
                    "communityId": where,
                    "frames": list(finding.frames),
                    "severity": finding.severity.value,
                    "reference": finding.reference,
                    "role": None if role is None else role.value,
                },
            }
        )  # fmt: skip

    def as_dict(self, problems: list[str]) -> dict[str, Any]:
        """The whole of it.

        Args:
            problems: What could not be read, in words.
        """
        notifications = [{"level": "error", "message": {"text": problem}} for problem in problems]
        invocation = {"executionSuccessful": not problems, "toolExecutionNotifications": notifications}
        driver = {
            "name": "sshproto",
            "version": VERSION,
            "semanticVersion": VERSION,
            "rules": [_rule(code) for code in RULES],
        }
        run = {
            "tool": {"driver": driver},
            "invocations": [invocation],
            "columnKind": "unicodeCodePoints",
            "results": self._results,
        }
        return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, Any]:
    rule = RULES[code]
    worst = rule.severities[-1]
    sources = f"See {', '.join(rule.references)}."
    return {
        "id": code,
        "name": "".join(word.capitalize() for word in code.split("-")),
        "shortDescription": {"text": f"{rule.title}."},
        "fullDescription": {"text": rule.meaning},
        "help": {"text": f"{rule.meaning} {sources}"},
        "defaultConfiguration": {"level": _LEVELS[worst]},
        "properties": {"tags": ["security", "ssh"], "security-severity": _SCORES[worst]},
    }


def _sentence(conversation: Conversation, finding: Finding) -> str:
    connection = conversation.connection
    frames = f", frame {', '.join(map(str, finding.frames))}" if finding.frames else ""
    words = printable(finding.words, 2048)
    return f"{words} ({finding.reference}; {connection.dialler} to {connection.dialled}{frames})."


def _uri(name: str) -> str:
    """A file as SARIF names it: relative to where the command ran if it was named so."""
    if name == "-":
        return "stdin"
    path = Path(name)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
