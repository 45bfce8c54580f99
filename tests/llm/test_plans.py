import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.identity import module_hash
from diffopt.llm.plans import Plans, build, plan_schema
from diffopt.passes.base import Refusal, options, registry
from diffopt.passes.pipeline import Trace, run

VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["ddim", "deis"])
)
OPTIONS = st.dictionaries(
    st.sampled_from(["steps", "solver", "spacing", "stop", "interval", "branch", "mode", "x"]), VALUES, max_size=2
)
NAMES = st.sampled_from(["reduce-steps", "guidance-window", "cache-features", "quantize", "compile", "nope", ""])
PASSES = st.lists(st.fixed_dictionaries({"name": NAMES, "options": OPTIONS}), max_size=3)


@settings(max_examples=60, deadline=None)
@given(passes=PASSES)
def test_whatever_is_said_ends_as_a_legal_trace_or_a_line(module: ModuleOp, passes: list[dict[str, object]]) -> None:
    try:
        plans = Plans.model_validate({"plans": [{"passes": passes}]})
    except ValidationError:
        return
    built = build(plans.plans[0], module, {})
    if isinstance(built, str):
        assert built.isprintable()
        return
    trace, key = built
    assert Trace.parse(str(trace)) == trace
    result = run(trace, module)
    assert not isinstance(result, Refusal)
    assert key == module_hash(result) != module_hash(module)


@pytest.mark.parametrize("value", [10**400, float("nan"), float("inf"), None, [1], {"a": 1}, "x" * 101])
def test_refuses_option_values_that_no_pass_can_take(value: object) -> None:
    with pytest.raises(ValidationError):
        Plans.model_validate({"plans": [{"passes": [{"name": "reduce-steps", "options": {"steps": value}}]}]})


def test_keeps_the_type_that_was_written() -> None:
    given = {"a": True, "b": 1, "c": 1.0, "d": "1"}
    plans = Plans.model_validate_json(json.dumps({"plans": [{"passes": [{"name": "p", "options": given}]}]}))
    kinds = {name: type(value) for name, value in plans.plans[0].passes[0].options.items()}
    assert kinds == {"a": bool, "b": int, "c": float, "d": str}


def test_the_schema_has_every_option_of_every_pass() -> None:
    text = json.dumps(plan_schema(registry()))
    for name, pass_type in registry().items():
        assert f'"enum": ["{name}"]' in text
        assert all(f'"{option.name}": {{' in text for option in options(pass_type))
