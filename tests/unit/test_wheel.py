"""What is installed: three packages, typed, and nothing else."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from sshproto import config

PACKAGES = {"sshproto", "sshproto_io", "sshproto_cli"}
PAGE = {"sshproto_cli/pcap/page.css", "sshproto_cli/pcap/page.js"}
"""What the page of "sshproto pcap timeline" has beside Python."""


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    """A wheel of the checkout, built from a copy so that the build leaves nothing behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(checkout / name, source)
    for name in ("sshproto", "adapters", "tests"):
        shutil.copytree(checkout / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for package, oldest in (("pip", 0), ("setuptools", 77)):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = "-1"
        if int(version.split(".")[0]) < oldest:
            reason = (
                f"{package} {oldest or 'of any version'} or later is needed to build a wheel: pip install '.[test]'"
            )
            pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    # No isolation: that would fetch the build backend from a package index.
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def files(archive):
    return [name for name in archive.namelist() if ".dist-info/" not in name]


def test_top_level_names(wheel):
    assert {name.split("/")[0] for name in files(wheel)} == PACKAGES


def test_every_module_is_in(wheel, checkout):
    here = {
        path.relative_to(root).as_posix()
        for root in (checkout, checkout / "adapters")
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
    }
    assert {name for name in files(wheel) if name.endswith(".py")} == here


def test_typed(wheel):
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(files(wheel))


def test_nothing_but_code(wheel):
    assert [name for name in files(wheel) if not name.endswith((".py", "/py.typed"))] == sorted(PAGE)


def test_the_page_is_whole(wheel, checkout):
    for name in PAGE:
        assert wheel.read(name) == (checkout / "adapters" / name).read_bytes()


def test_metadata(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = wheel.read(name).decode()
    assert f"\nVersion: {config.VERSION}\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    assert "sshproto = sshproto_cli.main:main" in wheel.read(name).decode()


def test_one_version(checkout):
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    assert project["version"] == config.VERSION
