from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp

from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, key, run
from diffopt.search.presets import ENGINE, ENGINES, PRESETS, RuleProposer


def test_every_preset_parses_with_every_engine() -> None:
    for preset in PRESETS:
        for engine in (e for engines in ENGINES.values() for e in engines):
            assert len(Trace.parse(preset.replace(ENGINE, engine))) >= 1


def test_every_preset_is_legal_somewhere_and_none_says_what_another_says(module: ModuleOp) -> None:
    keys = [key(trace, module) for trace in RuleProposer().propose(module, (), 99)]
    assert not any(isinstance(k, Refusal) for k in keys)
    assert len(set(keys)) == len(keys) == len(PRESETS)


def test_the_first_six_hold_kept_steps_many_steps_and_few(module: ModuleOp) -> None:
    from diffopt.ir.dialect import steps_of

    steps = []
    for trace in RuleProposer().propose(module, (), 6):
        result = run(trace, module)
        assert not isinstance(result, Refusal)
        steps.append(steps_of(result))
    assert 50 in steps
    assert any(8 <= n <= 20 for n in steps)
    assert any(3 <= n <= 5 for n in steps)
    assert 2 in steps


def test_a_gpu_gets_no_cpu_engine(module: ModuleOp) -> None:
    for trace in RuleProposer(device="cuda:1").propose(module, (), 6)[1:4]:
        assert "openvino" not in str(trace)


def test_a_flow_matching_pipeline_gets_only_solvers_of_flows(module: ModuleOp) -> None:
    from diffopt.ir.dialect import scheduler_of

    flow = module.clone()
    scheduler = scheduler_of(flow)
    scheduler.properties["class_name"] = type(scheduler.class_name)("diffusers.FlowMatchEulerDiscreteScheduler")
    proposed = RuleProposer().propose(flow, (), 4)
    assert not any(isinstance(run(trace, flow), Refusal) for trace in proposed)
    assert 'solver="own"' in str(proposed[0]), "DEIS does not integrate flows"
    assert 'solver="dpmsolver++"' in str(proposed[1])


def test_count_limits_the_proposals(module: ModuleOp) -> None:
    assert len(RuleProposer().propose(module, (), 3)) == 3
