"""`python -m transduce`: the same as the `transduce` command."""

from __future__ import annotations

from transduce.cli import main

if __name__ == "__main__":
    main()
