"""The command itself: options that no verb has end with the verb's own status, and name its own help."""

from __future__ import annotations

import pytest

from sshproto_cli.main import main


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("exec --bogus host true", 255),
        ("shell --bogus host", 255),
        ("forward --bogus host", 255),
        ("scan --bogus host", 255),
        ("config --bogus host", 255),
        ("known-hosts find --bogus host", 2),
        ("agent list more", 2),
        ("key show --bogus file", 2),
        ("verify --check-novalidate --bogus", 2),
    ],
)
def test_options_that_there_are_not(words: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    verb, _, rest = words.partition(" ")
    if verb in {"known-hosts", "agent", "key"}:
        verb += f" {rest.split()[0]}"
    assert main(words.split()) == status
    said = capsys.readouterr().err
    assert said.startswith("sshproto: unrecognized arguments: ")
    assert said.endswith(f" (see sshproto {verb} --help)\n")
    assert said.count("\n") == 1
