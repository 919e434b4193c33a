"""`python -m tastemaker` is the command line."""

from __future__ import annotations

from tastemaker.cli.app import main

if __name__ == "__main__":
    main()
