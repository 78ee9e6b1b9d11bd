"""What is measured, and in what units."""

from __future__ import annotations

import attrs

from tests.bench.ends import CIPHERS

MIB = 1 << 20


@attrs.frozen(kw_only=True)
class Work:
    """Something that a pair of ends does.

    Attributes:
        name: What ``--only`` calls it; :attr:`group` stands for all of a kind.
        group: Of what kind it is.
        title: What tables call it.
        job: What the client is told; see :class:`~tests.bench.ends.Job`.
        cipher: Under what it runs.
        unit: In what figures are given.
        scale: What a figure is multiplied with, after it was divided by how much was done.
        amount, quick: How much is done.
        warming: How much of the same before that.
        already: How many idle ones there are before that.
        together: Both ends have one core between them. Where they have two, each message wakes a core that sleeps, and
            what that costs may be most of it, or little where the system happens to put both on one.
        figures: What is shown of a sample; the first is what is compared.
        goal: What the first may be, as a ratio to asyncssh, for our asyncio face.
    """

    name: str
    group: str
    title: str
    job: str
    cipher: str
    unit: str
    scale: float
    amount: int
    quick: int
    warming: int = 0
    already: int = 0
    together: bool = False
    figures: tuple[str, ...] = ("both", "client", "server", "wall")
    goal: float

    @property
    def measures(self) -> str:
        """What of a state is compared: processor or memory."""
        return "memory" if self.already else "cpu"


HEADS = {
    "both": "both ends",
    "client": "client",
    "server": "server",
    "wall": "wall",
    "rate": "MB/s",
    "cpu": "CPU",
}
"""What tables call figures."""


def _bulk(job: str, cipher: str, goal: float) -> Work:
    return Work(
        name=f"{job}-{cipher}",
        group="bulk",
        title=f"{job.capitalize()} by exec, {cipher}",
        job=job,
        cipher=cipher,
        unit="CPU-s/GB",
        scale=1e9,
        amount=(512 if cipher == "aes128-gcm" else 256) * MIB,
        quick=32 * MIB,
        warming=8 * MIB,
        figures=("both", "client", "server", "rate"),
        goal=goal,
    )


def _small(job: str, title: str, amount: int, quick: int, goal: float, *, together: bool = False) -> Work:
    return Work(
        name=f"{job}-together" if together else job,
        group=job,
        title=f"{title}, on one core" if together else title,
        job=job,
        cipher="aes128-gcm",
        unit="CPU ms",
        scale=1e3,
        amount=amount,
        quick=quick,
        warming=50 if job == "exec50" else 10,
        together=together,
        goal=goal,
    )


_CONNECT = ("connect", "Connect, log in by public key, close", 200, 40, 0.40)
_EXEC = ("exec", "Exec of an in-process `true`, one at a time", 500, 100, 0.50)


def _idle(job: str, what: str, side: str, goal: float) -> Work:
    return Work(
        name=f"{job}-{side}",
        group="memory",
        title=f"Memory of an idle {what}, {side}",
        job=job,
        cipher="aes128-gcm",
        unit="KiB",
        scale=1 / 1024,
        amount=220,
        quick=120,
        already=20,
        figures=(side,),
        goal=goal,
    )


_GOALS = {"aes128-gcm": 0.50, "chacha20": 0.45, "aes256-ctr+etm": 0.75}

IMPORT = Work(
    name="import",
    group="import",
    title="A process that only imports",
    job="import",
    cipher="",
    unit="ms",
    scale=1e3,
    amount=1,
    quick=1,
    figures=("wall", "cpu"),
    goal=0.50,
)

WORKS = (
    *(_bulk(job, cipher, _GOALS[cipher]) for cipher in CIPHERS for job in ("download", "upload")),
    _small(*_CONNECT),
    _small(*_CONNECT, together=True),
    _small(*_EXEC),
    _small(*_EXEC, together=True),
    _small("exec50", "Exec of an in-process `true`, 50 at once", 1000, 200, 0.50),
    _idle("connections", "connection", "server", 0.80),
    _idle("connections", "connection", "client", 0.80),
    _idle("channels", "channel", "server", 0.70),
    _idle("channels", "channel", "client", 0.70),
    IMPORT,
)

BY_NAME = {work.name: work for work in WORKS}


def chosen(names: list[str]) -> list[Work]:
    """The works that are named, or all; a name is a work's, a group's, or a job's."""
    if not names:
        return list(WORKS)
    return [work for work in WORKS if {work.name, work.group, work.job} & set(names)]
