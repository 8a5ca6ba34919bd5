"""`python -m framefold_decoder` is `framefold-decoder`."""

import sys

from framefold_decoder.cli import main

sys.exit(main())
