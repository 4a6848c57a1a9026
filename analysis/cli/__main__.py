"""``python -m analysis.cli``."""

from analysis.cli.app import main

if __name__ == "__main__":
    main()
