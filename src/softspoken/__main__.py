"""`python -m softspoken …` is `softspoken …`."""

import sys

from softspoken.cli.main import main

sys.exit(main())
