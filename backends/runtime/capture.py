"""Record one pipeline call as a graph: leaves as calls, everything between them as tensor operations.

Only what depends on the inputs is recorded; all else (timesteps, the scheduler's coefficients, the negative prompt) is
computed as usual and enters the graph as constants.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from diffopt.backends.base import BackendError, Part, Program, Tensors
from diffopt.backends.runtime.leaf import Leaf


class Capture(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records while it is active. Use once: run the code with `input` in place of its inputs and `call` of leaves, `program`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._root = torch.nn.Module()
        self._graph = torch.fx.Graph()
        self._nodes: dict[int, torch.fx.Node] = {}
        self._constants: dict[tuple[int, int], torch.fx.Node] = {}
        self._alive: list[torch.Tensor] = []
        self._parts: dict[str, Part] = {}
        self._widths: dict[str, int] = {}
        self._inputs: dict[str, torch.Tensor] = {}
        self._inside_leaf = False
        self._last_input: torch.fx.Node | None = None
        self.calls: dict[str, int] = {}

    def input(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """Return a fresh tensor that stands for an input of the program."""
        fresh = value.clone()
        self._inputs[name] = fresh
        with self._graph.inserting_after(self._last_input):
            self._last_input = self._graph.placeholder(name)
        self._track(fresh, self._last_input)
        return fresh

    def depends(self, value: torch.Tensor) -> bool:
        """Tell whether a tensor is an input or was made of some."""
        return id(value) in self._nodes

    def call(self, leaf: Leaf, *inputs: torch.Tensor) -> Tensors:
        """Run a leaf for real and record it as one call of its part."""
        with self.aside():
            outputs: Tensors = leaf.module(*inputs)
        if leaf.name not in self._parts:
            self._parts[leaf.name] = Part(leaf.name, leaf.module, inputs, leaf.input_names, leaf.batched)
            self._root.add_module(leaf.name, leaf.module)
            self._widths[leaf.name] = len(outputs)
        self.calls[leaf.name] = self.calls.get(leaf.name, 0) + 1
        node = self._graph.call_module(leaf.name, tuple(self._node(value) for value in inputs))
        for index, output in enumerate(outputs):
            self._track(output, self._graph.call_function(operator.getitem, (node, index)))
        return outputs

    def program(self, output: torch.Tensor) -> Program:
        """Return what was recorded, with this tensor as its result, and without what it does not need."""
        self._graph.output((self._node(output),))
        made = torch.fx.GraphModule(self._root, self._graph)
        graph = made.graph
        graph.eliminate_dead_code()
        for name in list(self._parts):
            self._narrow(made, name)
        for node in [node for node in graph.nodes if node.op == "placeholder" and not node.users]:
            self._inputs = {name: v for name, v in self._inputs.items() if self._nodes[id(v)] is not node}
            graph.erase_node(node)
        made.recompile()
        return Program(made, self._parts, tuple(self._inputs.values()), tuple(self._inputs))

    def _narrow(self, made: torch.fx.GraphModule, name: str) -> None:
        """Leave out results of a part that nothing reads, and the part where nothing calls it."""
        calls = [node for node in made.graph.nodes if node.op == "call_module" and node.target == name]
        if not calls:
            del self._parts[name]
            return
        read = sorted({user.args[1] for call in calls for user in call.users})
        if len(read) == self._widths[name]:
            return
        for user in [user for call in calls for user in call.users]:
            user.args = (user.args[0], read.index(user.args[1]))
        module = Some(self._parts[name].module, tuple(read))
        self._parts[name] = replace(self._parts[name], module=module)
        made.add_module(name, module)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Record nothing for a while."""
        self._inside_leaf = True
        try:
            yield
        finally:
            self._inside_leaf = False

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


class Some(torch.nn.Module):
    """A module of which only some results are wanted."""

    def __init__(self, module: torch.nn.Module, wanted: tuple[int, ...]) -> None:
        super().__init__()
        self.module = module
        self._wanted = wanted

    def forward(self, *inputs: torch.Tensor) -> Tensors:
        found: Tensors = self.module(*inputs)
        return tuple(found[index] for index in self._wanted)
