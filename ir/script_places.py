"""Where the nodes of a parsed module stand: order, parents and ranges, gathered in one walk."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from types import TracebackType

import libcst as cst
from libcst._nodes.internal import CodegenState


@dataclass(frozen=True, eq=False)
class Places:
    """What a walk over a module finds.

    Args:
        code: the module's text as libcst writes it.
        nodes: every node in the order of the source, a parent before its children.
        parents: the node that holds a node.
        ranges: first and last index into `offsets`; like libcst's `PositionProvider`, without outer blanks.
        offsets: where each token starts in `code`.
    """

    code: str
    nodes: list[cst.CSTNode]
    parents: dict[cst.CSTNode, cst.CSTNode]
    ranges: dict[cst.CSTNode, tuple[int, int]]
    offsets: list[int]


def walk(module: cst.Module) -> Places:
    """Gather order, parents and ranges of all nodes.

    libcst's own providers walk the tree once each and copy it as they go, which takes five times as long.
    """
    state = _State(default_indent=module.default_indent, default_newline=module.default_newline)
    module._codegen(state)
    offsets = list(accumulate(map(len, state.tokens), initial=0))
    offsets.append(offsets[-1])  # the last line end is taken back where the file has none
    return Places("".join(state.tokens), state.nodes, state.parents, state.ranges, offsets)


@dataclass
class _State(CodegenState):
    """Writes the module out and remembers what stood where; counts tokens, which is cheaper than columns."""

    nodes: list[cst.CSTNode] = field(default_factory=list)
    parents: dict[cst.CSTNode, cst.CSTNode] = field(default_factory=dict)
    ranges: dict[cst.CSTNode, tuple[int, int]] = field(default_factory=dict)
    around: list[tuple[cst.CSTNode, int]] = field(default_factory=list)

    def before_codegen(self, node: cst.CSTNode) -> None:
        if self.around:
            self.parents[node] = self.around[-1][0]
        self.nodes.append(node)
        self.around.append((node, len(self.tokens)))

    def after_codegen(self, node: cst.CSTNode) -> None:
        start = self.around.pop()[1]
        if node not in self.ranges:
            self.ranges[node] = (start, len(self.tokens))

    def record_syntactic_position(  # type: ignore[override]
        self, node: cst.CSTNode, *, start_node: cst.CSTNode | None = None, end_node: cst.CSTNode | None = None
    ) -> _Record:
        return _Record(self, node, start_node, end_node)


class _Record:
    """Notes the range of what is written inside it; a generator made into a context would be slow."""

    __slots__ = ("end_node", "node", "start", "start_node", "state")

    def __init__(
        self, state: _State, node: cst.CSTNode, start_node: cst.CSTNode | None, end_node: cst.CSTNode | None
    ) -> None:
        self.state, self.node, self.start_node, self.end_node = state, node, start_node, end_node
        self.start = 0

    def __enter__(self) -> None:
        self.start = len(self.state.tokens)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ranges = self.state.ranges
        start = ranges[self.start_node][0] if self.start_node in ranges else self.start
        end = ranges[self.end_node][1] if self.end_node in ranges else len(self.state.tokens)
        ranges[self.node] = (start, end)
