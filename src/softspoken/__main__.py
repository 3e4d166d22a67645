"""What `softspoken` and `python -m softspoken` call: the signals' handlers first, then all the rest."""

import gc
import sys
from collections.abc import Sequence

from softspoken.runtime import interrupt


def main(argv: Sequence[str] | None = None) -> int:
    interrupt.install()
    from softspoken.cli.main import main as run

    return run(argv)


def run() -> None:
    """The whole process: at its end nothing that was imported is searched for garbage, which takes a second."""
    status = main()
    gc.freeze()
    sys.exit(status)


if __name__ == "__main__":
    run()
