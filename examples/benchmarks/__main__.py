"""Run as ``python examples/benchmarks NAME``."""

from command_line import main

main()
