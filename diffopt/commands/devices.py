"""`diffopt devices`: show what is here: processor, accelerators, libraries."""

from __future__ import annotations

import argparse

from diffopt.commands import add_json, print_json

TEXT = "show what is here: processor, accelerators, libraries"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from diffopt.bench.device import devices, versions
    from diffopt.display import print_lines

    found, libraries = devices(), versions()
    if options.json:
        print_json({"devices": found, "libraries": libraries})
        return 0
    lines = []
    for device in found:
        lines.append(f"{device['device']}  {device['name']}")
        lines += [_line(key, value) for key, value in device.items() if key not in ("device", "name")]
    lines.append("libraries")
    lines += [f"  {name} {version}" for name, version in libraries.items()]
    print_lines(lines)
    return 0


def _line(key: str, value: object) -> str:
    if key.endswith("_bytes") and isinstance(value, int):
        return f"  {key.removesuffix('_bytes')}: {value / 1e9:.1f} GB"
    return f"  {key}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
