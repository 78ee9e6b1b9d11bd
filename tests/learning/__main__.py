"""Learn both machines, or one, and write what was learnt. It takes some minutes."""

from __future__ import annotations

import argparse
import sys
import time

from sshproto.wire.table import Role
from tests.learning.drawing import draw
from tests.learning.machine import FOLDER, Machine, differences


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.learning", description=__doc__)
    parser.add_argument("role", nargs="*", type=Role, help="server or client; both if none is named")
    parser.add_argument("--depth", type=int, default=1, help="how many states more than found would be noticed")
    parser.add_argument("--walks", type=int, default=0, help="walks from each state, chosen by lot")
    parser.add_argument("--draw", action="store_true", help="learn nothing: draw what is there, with Graphviz")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the machine is another one")
    options = parser.parse_args()
    status = 0
    for role in options.role or list(Role):
        if options.draw:
            draw(Machine.committed(role))
            continue
        from tests.learning.learn import learn

        start = time.monotonic()
        machine, teacher = learn(role, options.depth, options.walks)
        print(
            f"{role.value}: {len(machine.situations)} states, {len(teacher.alphabet)} words; "
            f"{teacher.runs} connections heard {teacher.said} words in {time.monotonic() - start:.0f} s"
        )
        path = FOLDER / f"{role.value}.dot"
        changes = differences(Machine.committed(role), machine) if path.exists() else ["it is new"]
        print("".join(f"  {line}\n" for line in changes), end="")
        if options.check:
            status |= bool(changes)
        else:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(machine.to_dot())
            draw(machine)
    return status


sys.exit(main())
