"""The MCP server, asked by the SDK's own client."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

from mcp.client import Client

from diffopt.mcp_server import TOOLS, server
from diffopt.search.store import Store
from diffopt.session import STORE


def ask(*questions: tuple[str, dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the names of the tools, and the texts that calls of them gave."""

    async def talk() -> tuple[list[str], list[str]]:
        async with Client(server()) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            answers = [await client.call_tool(name, given) for name, given in questions]
            return names, [answer.content[0].text for answer in answers]  # type: ignore[union-attr]

    return asyncio.run(talk())


def test_the_tools_are_there_and_lift_and_apply_as_the_command_line_does() -> None:
    names, (module, changed, refused, missing) = ask(
        ("lift", {"source": "demo:shapes"}),
        ("apply", {"source": "demo:shapes", "trace": "reduce-steps{steps=12}"}),
        ("apply", {"source": "demo:shapes", "trace": "export,quantize"}),
        ("lift", {"source": "no/such/script.py"}),
    )
    assert names == [tool.__name__ for tool in TOOLS] == ["lift", "passes", "apply", "measure", "front"]
    assert "steps 0 to 50" in module
    assert "steps 0 to 12" in changed
    assert refused.startswith("refused: quantize @unet: quantize must come before export")
    assert missing.startswith("refused: no/such/script.py")


def test_passes_describes_what_is_legal_here() -> None:
    _, (text,) = ask(("passes", {}))
    found = json.loads(text)
    assert {"trace", "passes", "plan_schema"} <= set(found)


def test_the_front_of_a_run_is_read_from_its_store(tmp_path: Path) -> None:
    Store(tmp_path / STORE).close()
    _, (empty, none) = ask(("front", {"run": str(tmp_path)}), ("front", {"run": str(tmp_path / "other")}))
    assert json.loads(empty) == []
    assert none.endswith("there is no run; give the folder OUT.run of a compile")
