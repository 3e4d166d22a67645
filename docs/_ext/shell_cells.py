"""Run by every kernel at its start (PYTHONSTARTUP): `%%sh` whose output is one piece, in the order of a terminal, and which fails with any of its
commands. IPython's own hands on a hundred bytes at a time, each of which would be a box of its own on the page."""

import subprocess

from IPython.core.magic import register_cell_magic


@register_cell_magic
def sh(line: str, cell: str) -> None:
    done = subprocess.run(
        ["sh", "-e"],
        input=cell,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        check=False,
    )
    print(done.stdout, end="")
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}")
