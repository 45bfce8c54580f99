"""A trace of a captured loop says whether the host waited."""

from __future__ import annotations

from diffopt.bench.gpu.trace import longest, loop_excerpt


def test_only_what_stands_between_the_first_and_the_last_launch_counts() -> None:
    events = [("cudaStreamSynchronize", 0.0), ("cudaGraphLaunch", 1.0), ("cudaGraphLaunch", 2.0), ("aten::item", 3.0)]
    found = loop_excerpt(events)
    assert found["launches"] == 2
    assert found["waits"] == []


def test_a_wait_inside_is_named() -> None:
    events = [("cudaGraphLaunch", 1.0), ("cudaStreamSynchronize", 1.5), ("cudaGraphLaunch", 2.0)]
    assert loop_excerpt(events)["waits"] == ["cudaStreamSynchronize"]


def test_a_call_without_graphs_has_no_loop() -> None:
    assert loop_excerpt([("aten::mm", 0.0)])["launches"] == 0


def test_kernels_are_summed_by_name() -> None:
    kernels = [("gemm", 3.0), ("norm", 4.0), ("gemm", 2.0), ("copy", 1.0)]
    assert longest(kernels, 2) == [["gemm", 2, 5.0], ["norm", 1, 4.0]]
