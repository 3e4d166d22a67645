"""What `softspoken` and `python -m softspoken` call: the signals' handlers first, then all the rest."""

import sys
from collections.abc import Sequence

from softspoken import interrupt


def main(argv: Sequence[str] | None = None) -> int:
    interrupt.install()
    from softspoken.cli.main import main as run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
