"""``python -m mfpde``."""

import sys

from mfpde.cli import main

sys.exit(main())
