"""`python -m r1_mini`, which `accelerate launch -m r1_mini` needs."""

import sys

from r1_mini.cli import main

sys.exit(main())
