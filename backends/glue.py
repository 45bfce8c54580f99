"""Split a program into its parts and the glue between them, so that each can be converted by itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffopt.backends.base import Program


@dataclass(frozen=True)
class PartCall:
    """One call of a part: its inputs are outputs of the glue, its results are inputs of the glue."""

    part: str
    inputs: tuple[int | torch.Tensor, ...]
    results: tuple[int | None, ...]


@dataclass(frozen=True)
class Glue:
    """A program without its parts.

    module: takes the program's inputs, then every result of every call; returns every varying input of every call,
    then the program's outputs.
    """

    module: torch.fx.GraphModule
    examples: tuple[torch.Tensor, ...]
    calls: tuple[PartCall, ...]
    outputs: int


def split(program: Program) -> Glue:
    """Return the glue of a program and its calls in order."""
    graph, source = torch.fx.Graph(), program.graph.graph
    copied: dict[torch.fx.Node, torch.fx.Node] = {}
    examples, outputs, calls = list(program.inputs), list[torch.fx.Node](), list[PartCall]()
    last_input = None
    for node in source.nodes:
        if node.op == "placeholder":
            copied[node] = last_input = graph.placeholder(node.name)
        elif node.op == "call_module":
            inputs, results = list[int | torch.Tensor](), dict[int, int]()
            for argument in node.args:
                if argument.op == "get_attr":
                    inputs.append(program.graph.get_buffer(argument.target))
                    continue
                inputs.append(len(outputs))
                outputs.append(copied[argument])
            for user in node.users:
                with graph.inserting_after(last_input):
                    copied[user] = last_input = graph.placeholder(user.name)
                results[user.args[1]] = len(examples)
                examples.append(user.meta["example"])
            count = max(results, default=-1) + 1
            calls.append(PartCall(node.target, tuple(inputs), tuple(results.get(i) for i in range(count))))
        elif node.op == "output":
            outputs += [copied[value] for value in node.args[0]]
            graph.output(tuple(outputs))
        elif node not in copied:
            copied[node] = graph.node_copy(node, lambda n: copied[n])
    count = len(next(node for node in reversed(source.nodes) if node.op == "output").args[0])
    return Glue(torch.fx.GraphModule(program.graph, graph), tuple(examples), tuple(calls), count)


__all__ = ["Glue", "PartCall", "split"]
