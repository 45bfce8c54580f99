"""Record one pipeline call as a graph: leaves as calls, everything between them as tensor operations.

Only what depends on the inputs is recorded; all else (timesteps, the scheduler's coefficients, the negative prompt) is
computed as usual and enters the graph as constants.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from diffopt.backends.base import BackendError, Part, Program, Tensors
from diffopt.backends.runtime.leaf import Leaf


class Capture(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records while it is active. Use once: all `input`s first, then run the code with `call` in place of leaves, `program`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._root = torch.nn.Module()
        self._graph = torch.fx.Graph()
        self._nodes: dict[int, torch.fx.Node] = {}
        self._constants: dict[tuple[int, int], torch.fx.Node] = {}
        self._alive: list[torch.Tensor] = []
        self._parts: dict[str, Part] = {}
        self._inputs: dict[str, torch.Tensor] = {}
        self._inside_leaf = False
        self.calls: dict[str, int] = {}

    def input(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """Return a fresh tensor that stands for an input of the program."""
        fresh = value.clone()
        self._inputs[name] = fresh
        self._track(fresh, self._graph.placeholder(name))
        return fresh

    def call(self, leaf: Leaf, *inputs: torch.Tensor) -> Tensors:
        """Run a leaf for real and record it as one call of its part."""
        self._inside_leaf = True
        try:
            outputs: Tensors = leaf.module(*inputs)
        finally:
            self._inside_leaf = False
        if leaf.name not in self._parts:
            self._parts[leaf.name] = Part(leaf.name, leaf.module, inputs, leaf.input_names, leaf.batched)
            self._root.add_module(leaf.name, leaf.module)
        self.calls[leaf.name] = self.calls.get(leaf.name, 0) + 1
        node = self._graph.call_module(leaf.name, tuple(self._node(value) for value in inputs))
        for index, output in enumerate(outputs):
            self._track(output, self._graph.call_function(operator.getitem, (node, index)))
        return outputs

    def program(self, output: torch.Tensor) -> Program:
        """Return what was recorded, with this tensor as its result."""
        self._graph.output((self._node(output),))
        graph = torch.fx.GraphModule(self._root, self._graph)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        return Program(graph, self._parts, tuple(self._inputs.values()), tuple(self._inputs))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = torch.utils._pytree.tree_leaves((args, kwargs))
        tracked = any(isinstance(leaf, torch.Tensor) and id(leaf) in self._nodes for leaf in leaves)
        if self._inside_leaf or not tracked:
            if torch.Tag.nondeterministic_seeded in func.tags and not self._inside_leaf:
                raise BackendError("the scheduler draws noise in its steps: they cannot be folded into one engine")
            return func(*args, **kwargs)
        if func is torch.ops.aten._local_scalar_dense.default or func is torch.ops.aten.equal.default:
            raise BackendError("the pipeline's Python looks at image data: it cannot be folded into one engine")
        if func._schema.is_mutable:
            raise BackendError(f"the pipeline changes a tensor in place ({func}): it cannot be folded into one engine")
        outputs = func(*args, **kwargs)
        mapped_args, mapped_kwargs = torch.utils._pytree.tree_map_only(torch.Tensor, self._node, (args, kwargs))
        node = self._graph.call_function(func, tuple(mapped_args), mapped_kwargs)
        if isinstance(outputs, torch.Tensor):
            self._track(outputs, node)
        else:
            for index, output in enumerate(outputs):
                self._track(output, self._graph.call_function(operator.getitem, (node, index)))
        return outputs

    def _track(self, value: torch.Tensor, node: torch.fx.Node) -> None:
        self._alive.append(value)
        self._nodes[id(value)] = node
        node.meta["example"] = value

    def _node(self, value: torch.Tensor) -> torch.fx.Node:
        """Return the node that makes this tensor; a tensor nothing recorded made is a constant."""
        found = self._nodes.get(id(value), self._constants.get((id(value), value._version)))
        if found is not None:
            return found
        name = f"constant_{len(self._constants)}"
        self._root.register_buffer(name, value.detach().clone())
        self._alive.append(value)
        node = self._constants[id(value), value._version] = self._graph.get_attr(name)
        return node
