"""The commands in docs/how-to/keys.md do what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "how-to" / "keys.md"

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARYING = re.compile("SHA256:[A-Za-z0-9+/]{43}")
MARK = "--- the next command"


def steps() -> list[tuple[str, list[str]]]:
    """Each command of the page, and the lines that it shows."""
    found: list[tuple[str, list[str]]] = []
    for block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def test_the_commands_of_the_page(ssh_keygen, tmp_path):
    """All in one shell, in an empty folder."""
    commands = steps()
    assert len(commands) > 10
    program = tmp_path / "bin" / "sshproto"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m sshproto_cli "$@"\n')
    program.chmod(0o755)
    script = "".join(f"status=$?; echo '{MARK}'; (exit $status)\n{command}\n" for command, _ in commands)
    env = {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}",
        "HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
    }
    work = tmp_path / "work"
    work.mkdir()
    merged = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(["sh"], input=script, env=env, cwd=work, check=False, timeout=120, **merged)
    shown = [part.splitlines() for part in done.stdout.split(f"{MARK}\n")[1:]]
    assert len(shown) == len(commands)
    for (command, expected), got in zip(commands, shown, strict=True):
        assert [VARYING.sub("SHA256", line) for line in got] == [VARYING.sub("SHA256", line) for line in expected], (
            command
        )
