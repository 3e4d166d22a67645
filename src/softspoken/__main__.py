"""`python -m softspoken …` is `softspoken …`."""

import sys

from softspoken.cli import main

sys.exit(main())
