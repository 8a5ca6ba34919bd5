"""`python -m framefold_encoder` is `framefold-encoder`."""

import sys

from framefold_encoder.cli import main

sys.exit(main())
