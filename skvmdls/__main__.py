"""Run the command line: ``python -m skvmdls``."""

from skvmdls.cli.commands import entry

if __name__ == "__main__":
    entry()
