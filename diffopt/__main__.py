"""`python -m diffopt`."""

from diffopt.cli import entry

if __name__ == "__main__":
    entry()
