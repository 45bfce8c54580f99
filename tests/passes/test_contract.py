"""The laws of every pass, run for each one that the registry finds."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import context, module_hash, parse_module, print_module
from diffopt.ir.verify import Stage, verify
from diffopt.passes.base import DiffusionPass, Family, Option, Refusal, Tier, options, registry
from diffopt.passes.pipeline import Trace, applied, run

PASSES = list(registry().values())
EXAMPLES = [pytest.param(example, id=example.trace) for pass_type in PASSES for example in pass_type.examples]
every_pass = pytest.mark.parametrize("pass_type", PASSES, ids=lambda pass_type: pass_type.name)

HEADINGS = ("What it does:", "When it helps:", "Refuses when:", "What it costs:", "References:")


@cache
def _space(pass_type: type[DiffusionPass], module: ModuleOp) -> tuple[DiffusionPass, ...]:
    return tuple(pass_type.space(module))


@cache
def _applicable(pass_type: type[DiffusionPass], module: ModuleOp) -> tuple[DiffusionPass, ...]:
    return pass_type.schedule_space(context(), module)


@cache
def _result(instance: DiffusionPass, module: ModuleOp) -> ModuleOp | Refusal:
    """Return what an instance leads to; shared, so nobody may change it."""
    return run(Trace((instance,)), module)


def _any_value(option: Option) -> st.SearchStrategy[Any]:
    if option.choices:
        return st.sampled_from(option.choices)
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "bool": st.booleans(),
        "int": st.integers(-5, 1100),
        "float": st.one_of(st.floats(allow_nan=False), st.floats(0, 1)),
        "str": st.text(),
    }
    return kinds[option.type]


def _module(pass_type: type[DiffusionPass], modules: dict[str, ModuleOp]) -> ModuleOp:
    """Return a module that the pass is for: the one of its first example that comes to something.

    Where the pass has nothing to do on it, it stands behind the other passes of that example.
    """
    first = next(example for example in pass_type.examples if example.expect)
    return _behind(pass_type, Trace(Trace.parse(first.trace).passes[:-1]), modules[first.model])


@cache
def _behind(pass_type: type[DiffusionPass], ahead: Trace, module: ModuleOp) -> ModuleOp:
    apply_ahead = pass_type.schedule_space(context(), module) == () and len(ahead) > 0
    return applied(ahead, module) if apply_ahead and not pass_type.on_request else module


def _instance(pass_type: type[DiffusionPass]) -> DiffusionPass:
    """Return the pass as one asks for it: as its first example does where it needs to be told something."""
    if not pass_type.on_request:
        return pass_type()
    return next(Trace.parse(example.trace).passes[0] for example in pass_type.examples if example.expect)


def _made(pass_type: type[DiffusionPass], values: dict[str, Any]) -> DiffusionPass | DiffoptError:
    try:
        return pass_type(**values)
    except DiffoptError as error:
        return error


@every_pass
def test_the_file_is_named_as_the_pass(pass_type: type[DiffusionPass]) -> None:
    *_, family, file = pass_type.__module__.split(".")
    assert file == pass_type.name.replace("-", "_")
    assert family == pass_type.family.value or family in {f.value for f in Family}
    assert pass_type.__name__ == "".join(word.capitalize() for word in pass_type.name.split("-"))


@every_pass
def test_says_what_it_is(pass_type: type[DiffusionPass]) -> None:
    assert isinstance(pass_type.family, Family)
    assert isinstance(pass_type.tier, Tier)
    text = pass_type.__doc__ or ""
    places = [text.find(heading) for heading in HEADINGS]
    assert -1 not in places
    assert places == sorted(places)
    assert any(example.expect for example in pass_type.examples), "an example of what it does"
    assert any(example.refusal for example in pass_type.examples), "an example of what it refuses"


@every_pass
def test_options_have_defaults_and_simple_types(pass_type: type[DiffusionPass]) -> None:
    pass_type()
    for option in options(pass_type):
        assert option.type in ("int", "float", "bool", "str")
        assert not option.choices or option.default in option.choices


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_holds(modules: dict[str, ModuleOp], example: Any) -> None:
    result = run(Trace.parse(example.trace), modules[example.model])
    if example.refusal:
        assert isinstance(result, Refusal)
        assert example.refusal in str(result)
    else:
        assert isinstance(result, ModuleOp), result
        assert example.expect in print_module(result)


@every_pass
def test_asking_changes_nothing(modules: dict[str, ModuleOp], pass_type: type[DiffusionPass]) -> None:
    standard_module = _module(pass_type, modules)
    before = print_module(standard_module)
    for instance in _space(pass_type, standard_module):
        instance.refuse(standard_module)
    _applicable(pass_type, standard_module)
    run(Trace((pass_type(),)), standard_module)
    assert print_module(standard_module) == before


@every_pass
def test_an_instance_changes_the_module_and_leaves_it_valid_and_no_two_do_the_same(
    modules: dict[str, ModuleOp], pass_type: type[DiffusionPass]
) -> None:
    standard_module = _module(pass_type, modules)
    space = _space(pass_type, standard_module)
    assert bool(space) is not pass_type.on_request, "what is done on request alone is never searched"
    assert len(set(space)) == len(space)
    seen = {module_hash(standard_module)}
    for instance in _applicable(pass_type, standard_module) or (_instance(pass_type),):
        result = _result(instance, standard_module)
        assert isinstance(result, ModuleOp), f"{instance} is in the space and yet {result}"
        assert verify(result, Stage.EMITTABLE) == ()
        text = print_module(result)
        assert print_module(parse_module(text)) == text
        compile(emit_pipeline(result, lambda code, text: text), "pipeline.py", "exec")
        assert module_hash(result) not in seen, "nothing changes, or two instances lead to one module"
        seen.add(module_hash(result))


@every_pass
def test_twice_is_once_or_refused(modules: dict[str, ModuleOp], pass_type: type[DiffusionPass]) -> None:
    standard_module = _module(pass_type, modules)
    for instance in _applicable(pass_type, standard_module) or (_instance(pass_type),):
        once = _result(instance, standard_module)
        assert isinstance(once, ModuleOp)
        twice = run(Trace((instance,)), once)
        assert isinstance(twice, Refusal) or module_hash(twice) == module_hash(once)


@every_pass
def test_what_is_applied_names_its_pass(modules: dict[str, ModuleOp], pass_type: type[DiffusionPass]) -> None:
    result = run(Trace((_instance(pass_type),)), _module(pass_type, modules))
    assert isinstance(result, ModuleOp)
    assert re.search(rf'origin = "([^"]*, )?{pass_type.name}"', print_module(result))


@every_pass
@given(data=st.data())
def test_an_instance_reads_back_from_its_text(pass_type: type[DiffusionPass], data: st.DataObject) -> None:
    values = {option.name: data.draw(_any_value(option)) for option in options(pass_type)}
    instance = _made(pass_type, values)
    if isinstance(instance, DiffoptError):
        return
    text = str(Trace((instance,)))
    assert Trace.parse(text) == Trace((instance,))
    assert str(Trace.parse(text)) == text
    for option in options(pass_type):
        assert f"{option.name}=" in text, "text carries its defaults"


@every_pass
@given(data=st.data())
def test_an_option_out_of_range_names_pass_option_and_value(
    pass_type: type[DiffusionPass], data: st.DataObject
) -> None:
    if not options(pass_type):
        return
    option = data.draw(st.sampled_from(options(pass_type)))
    value = data.draw(st.one_of(_any_value(option), st.none(), st.text(max_size=5), st.integers(), st.floats()))
    error = _made(pass_type, {option.name: value})
    if isinstance(error, DiffoptError):
        shown = float(value) if option.type == "float" and type(value) is int and abs(value) < 2**53 else value
        said = " ".join(f"{pass_type.name}: option {option.name}={shown} must be ".split())
        assert str(error).startswith(said)
        assert len(str(error).splitlines()) == 1


@every_pass
def test_a_value_of_another_type_is_an_error(pass_type: type[DiffusionPass]) -> None:
    for option in options(pass_type):
        values: list[Any] = [None, [], True if option.type != "bool" else 1]
        values += ["no such choice"] if option.choices or option.type != "str" else []
        for value in values:
            assert isinstance(_made(pass_type, {option.name: value}), DiffoptError), (option, value)
