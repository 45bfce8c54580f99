"""`diffopt mcp`: serve lift, passes, apply, measure and front to an agent over the Model Context Protocol."""

from __future__ import annotations

import argparse

TEXT = "serve lift, passes, apply, measure and front to an agent (MCP, standard input and output)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: there are none."""


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from diffopt.mcp_server import server

    server().run("stdio")
    return 0
