"""``python -m logit_distributions`` is the ``logitdist`` command."""

import sys

from logit_distributions.cli import main

sys.exit(main())
