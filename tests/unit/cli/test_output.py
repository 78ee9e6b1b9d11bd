"""What a verb writes has its name only when it is whole, whenever somebody interrupts it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sshproto_cli.key.saving import save
from sshproto_cli.options import Failure
from sshproto_cli.output import Output


def write(path: str) -> None:
    with Output(path) as output:
        output.write(b"new")


def keep(path: str) -> None:
    save(path, b"new", private=True, overwrite=True)


WAYS = pytest.mark.parametrize("way", [write, keep])


@WAYS
@pytest.mark.parametrize("made", [True, False])
def test_interrupted_as_its_file_is_made_it_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[str], None], made: bool
) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    real = os.open

    def interrupted(path: Any, *args: Any) -> int:
        if made:
            os.close(real(path, *args))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        way(str(target))
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"old"


def test_the_file_of_somebody_else_stays(tmp_path: Path) -> None:
    other = tmp_path / f".target.{os.getpid()}.tmp"
    other.write_bytes(b"theirs")
    with pytest.raises(Failure, match="exists"):
        write(str(tmp_path / "target"))
    assert other.read_bytes() == b"theirs"
