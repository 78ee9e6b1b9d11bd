"""What every test gets; and what a second Python is spared.

What depends on the Python that runs is run on each: every test of every kind.  ``--second`` leaves out what would only
be the same again: tests that are marked slow, those with other programs, clients of one face at servers of another, and
of the cases of a test with three or more two thirds, chosen by their names: always the same ones, and never all.
"""

from __future__ import annotations

import gc
import os
import signal
import zlib
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# What helpers assert is checked under ``python -O``, too, as what tests assert is.
for room in ("bench", "faces", "fuzz", "interop", "learning", "property", "replay", "security", "support", "unit"):
    pytest.register_assert_rewrite(f"tests.{room}")

from tests.support import claims, claimspage  # noqa: E402

# Shared machines are slow now and then: no deadline for one example; pytest-timeout watches the test as a whole.
hypothesis.settings.register_profile("default", deadline=None)
# The same examples on every run: a failure in CI is the commit's, and can be repeated.
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
# For who has minutes: --hypothesis-profile=long.
hypothesis.settings.register_profile("long", deadline=None, max_examples=3000, stateful_step_count=100)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


ROTATED = pytest.StashKey[bool]()


def pytest_configure() -> None:
    # What a script starts with "&" or nohup ignores some signals, and so would all that tests start and end by them.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_xdist_auto_num_workers() -> int:
    """Twice as many processes as processors: half of the time is waiting for peers."""
    return 2 * (os.cpu_count() or 1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--second",
        action="store_true",
        help="for a second Python: leaves out what is slow, other programs, pairs of different faces, "
        "and two thirds of the cases of each test that has three or more",
    )
    parser.addoption(
        "--claims",
        action="store_true",
        help="run nothing; print what tests claim about hostile peers (tests/support/claims.py), fail if one is open "
        "or docs/security-claims.md is made from others",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    if config.getoption("--claims"):
        config.option.collectonly = True  # which also keeps the tests in this process
        config.option.verbose -= 2  # no tree of tests before the table


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Of several workers each begins with other files: what one has compiled for pytest, the others need not."""
    config = session.config
    worker = getattr(config, "workerinput", None)
    if worker is None or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    files = sorted(str(path) for path in Path(__file__).parent.rglob("test_*.py"))
    first = len(files) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    config.args = files[first:] + files[:first]
    config.stash[ROTATED] = True


def pytest_collection_finish(session: pytest.Session) -> None:
    # The collected tests stay to the end: who looks for garbage, or counts objects, need not look at all of them.
    gc.collect()
    gc.freeze()
    if session.config.getoption("--claims"):
        print()
        for line in (*claims.report(session.items), *claimspage.differences(session.items)):
            print(line)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--claims") and (
        claims.still_open(session.items) or any(claimspage.differences(session.items))
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    claims.check([metafunc.definition])  # at this place an error is the test file's, also in a worker


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if ROTATED in config.stash:
        items.sort(key=lambda item: str(item.path))  # all workers need one order
    claims.check(items)  # and those that have marks of their parameters
    if not config.getoption("--second"):
        return
    left_out = {item for item in items if item.get_closest_marker("slow") or _is_of_others(item)} | _mixed(items)
    left_out |= _repeated([item for item in items if item not in left_out])
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _is_of_others(item: pytest.Item) -> bool:
    """Whether a test is about other programs, which are the same whatever Python runs here."""
    return "interop" in item.path.parts


def _mixed(items: Sequence[pytest.Item]) -> set[pytest.Item]:
    """Tests that have a client of one face at a server of another, where the same is done by one face at both ends."""
    pairs = {item: pair for item in items if (pair := _pair(item)) is not None}
    same = {what for client, server, what in pairs.values() if client == server}
    return {item for item, (client, server, what) in pairs.items() if client != server and what in same}


def _pair(item: pytest.Item) -> tuple[Any, Any, Hashable] | None:
    """The faces of the client and of the server, and the test with its other parameters; None if there are no two."""
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return None
    params = dict(item.callspec.params)
    client, server = (params.pop(a, None) or params.pop(b, None) for a, b in (("face", "client"), ("served", "server")))
    return (client, server, (_test_of(item), repr(params))) if client and server else None


def _repeated(items: Sequence[pytest.Item]) -> set[pytest.Item]:
    """Of each test with three cases or more those that a second Python is spared: two thirds, but never all."""
    families: dict[str, list[pytest.Item]] = {}
    for item in items:
        families.setdefault(_test_of(item), []).append(item)
    found: set[pytest.Item] = set()
    for cases in families.values():
        if len(cases) >= 3:
            kept = [item for item in cases if _lot(item) % 3 == 0] or [min(cases, key=_lot)]
            found.update(set(cases) - set(kept))
    return found


def _lot(item: pytest.Item) -> int:
    """A number that a case always has."""
    return zlib.crc32(item.nodeid.encode())


def _test_of(item: pytest.Item) -> str:
    """Its name without its parameters."""
    return item.nodeid.partition("[")[0]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of specifications and captures that may stand beside the checkout."""
    path = Path(os.environ.get("SSHPROTO_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    if not path.is_dir():
        pytest.skip("no folder of specifications and captures; SSHPROTO_SHARED may name one")
    return path


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The top of the checkout that is being tested."""
    return Path(__file__).resolve().parents[1]
