"""``python -m runner.cli``."""

from runner.cli.app import main

main()
