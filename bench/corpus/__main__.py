"""Print what becomes of diffusers' own examples: `python -m diffopt.bench.corpus`, or `make corpus`."""

from __future__ import annotations

from diffopt.bench.corpus.examples import rows, table


def main() -> None:
    """Print the table and its totals."""
    print(table(list(rows())))


if __name__ == "__main__":
    main()
