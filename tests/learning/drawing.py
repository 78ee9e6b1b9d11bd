"""The picture of a machine, for people: what ends the connection, what changes nothing and rekeys are left out."""

from __future__ import annotations

import shutil
import subprocess

from tests.learning.machine import Machine

COLOURS = {
    "identification": "#eeeeee",
    "key exchange": "#fde8c8",
    "authentication": "#d8e8fb",
    "connection": "#d9f2dd",
}
AN_ARROW = 34
"""Characters of an arrow's line, after which it is broken."""


def picture(machine: Machine) -> str:
    """The machine as Graphviz draws it."""
    shown = {name: where for name, where in machine.situations.items() if where in COLOURS}
    # Only what is reached without a rekey.
    reached, todo = {machine.start}, [machine.start]
    while todo:
        for _, following in machine.steps[todo.pop()].values():
            if following in shown and following not in reached:
                reached.add(following)
                todo.append(following)
    lines = [
        f"digraph {machine.role.value} {{",
        '  graph [rankdir=TB, nodesep=0.3, ranksep=0.45, fontname="Helvetica", bgcolor="white"];',
        '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11, margin="0.12,0.06"];',
        '  edge [fontname="Helvetica", fontsize=8, arrowsize=0.6];',
    ]
    for name, where in shown.items():
        if name in reached:
            ends = sum(following == machine.end for _, following in machine.steps[name].values())
            label = f"{name}  {where}\\n{ends} of {len(machine.steps[name])} words end it"
            lines.append(f'  {name} [label="{label}", fillcolor="{COLOURS[where]}"];')
    for name in shown:
        if name not in reached:
            continue
        edges: dict[str, dict[str, list[str]]] = {}
        for word, (answer, following) in machine.steps[name].items():
            if following in reached and following != name:
                edges.setdefault(following, {}).setdefault(answer, []).append(word)
        for following, answers in edges.items():
            label = "".join(f"{_folded(words)} / {_folded(answer.split())}\\l" for answer, words in answers.items())
            lines.append(f'  {name} -> {following} [label="{label}"];')
    return "\n".join([*lines, "}", ""])


def _folded(words: list[str]) -> str:
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > AN_ARROW:
            lines.append("")
        lines[-1] += f"{word} "
    return "\\l    ".join(line.rstrip() for line in lines)


def draw(machine: Machine) -> None:
    """Write the picture beside the machine, if Graphviz is there."""
    if (program := shutil.which("dot")) is None:
        print("  no picture: apt-get install graphviz")
        return
    path = machine.path.with_suffix(".svg")
    subprocess.run([program, "-Tsvg", "-o", path], input=picture(machine).encode(), check=True)
    print(f"  {path.name}")
