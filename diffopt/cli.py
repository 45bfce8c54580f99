"""The command line: argument text in, exit code out. 0 done, 1 no candidate met the goal, 2 bad usage or input."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

from diffopt.ir.errors import DiffoptError


def entry() -> NoReturn:
    """Run the command line of this process."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    options = build_parser().parse_args(argv)
    options.command_line = shlex.join(["diffopt", *argv])
    try:
        return int(options.run(options))
    except DiffoptError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # The reader of our output went away; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno is None:
            raise
        return _fail(f"{error.filename or 'diffopt'}: {error.strerror}")
    except KeyboardInterrupt:
        resumes = "; --resume goes on from here" if hasattr(options, "resume") else ""
        sys.stderr.write(f"diffopt: interrupted{resumes}\n")
        return 130


def _fail(message: str) -> int:
    sys.stderr.write(f"diffopt: {message}\n")
    return 2


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        unknown = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        near = difflib.get_close_matches(unknown.group(1), _option_names(self), 1) if unknown else []
        hint = f" (did you mean {near[0]}?)" if near else ""
        self.exit(2, f"{self.prog}: {message}{hint}; see {self.prog} --help\n")


def _option_names(parser: argparse.ArgumentParser) -> list[str]:
    """Return the options of a parser and of its commands."""
    names = [name for action in parser._actions for name in action.option_strings]
    groups = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return names + [name for group in groups for sub in group.values() for name in _option_names(sub)]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    import diffopt
    from diffopt.commands import commands

    parser = _Parser(prog="diffopt", description="An optimizing compiler for diffusion pipelines.")
    parser.add_argument("--version", action="version", version=f"diffopt {diffopt.__version__}")
    group = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, command in commands():
        sub = group.add_parser(name, help=command.TEXT, description=f"{command.TEXT[0].upper()}{command.TEXT[1:]}.")
        sub.set_defaults(run=command.run)
        command.add_arguments(sub)
    return parser
