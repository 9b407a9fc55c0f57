"""Run the command line: ``python -m skvmdls``."""

import sys

from skvmdls.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
