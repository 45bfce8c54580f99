from __future__ import annotations

import importlib
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from diffopt.backends import BackendError, EngineKey, Witness
from diffopt.backends.base import BUILDERS, EngineOptions, builder

KEY = EngineKey("openvino", "w", [], [], {"precision": "f32"}, {"torch": "2"}, "cpu-0")


def test_a_key_names_the_same_folder_in_every_process() -> None:
    assert KEY.hash == replace(KEY).hash
    assert len(KEY.hash) == 24


@pytest.mark.parametrize(
    "changed",
    [
        {"backend": "onnxruntime"},
        {"weights": "other"},
        {"transforms": [{"transform": "quantize"}]},
        {"inputs": [["sample", "torch.float32", [-1, 4, 8, 8]]]},
        {"options": {"precision": "bf16"}},
        {"versions": {"torch": "3"}},
        {"device": "cpu-1"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_key_changes_with_all_an_engine_depends_on(changed: dict[str, object]) -> None:
    assert replace(KEY, **changed).hash != KEY.hash  # type: ignore[arg-type]


def test_an_error_is_one_line_that_says_who_must_act() -> None:
    error = BackendError("no engine", "build it again")
    assert (str(error), error.message, error.hint) == ("no engine (build it again)", "no engine", "build it again")


def test_a_witness_is_data() -> None:
    assert Witness("export", 3, "3 calls").to_json() == {"transform": "export", "count": 3, "detail": "3 calls"}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_builder_says_what_it_can_do(name: str) -> None:
    module, attribute = BUILDERS[name]
    made = getattr(importlib.import_module(module), attribute)()
    assert made.name == name
    assert "f32" in made.capabilities.precisions
    missing = made.available()
    if missing is None:
        assert builder(name, EngineOptions(), made.capabilities.devices[0]).name == name
    else:
        with pytest.raises(BackendError, match=re.escape(missing)):
            builder(name, EngineOptions(), made.capabilities.devices[0])


@pytest.mark.parametrize(
    ("name", "options", "device", "message"),
    [
        ("tensorflow", EngineOptions(), "cpu", "no backend 'tensorflow'"),
        ("openvino", EngineOptions("int3"), "cpu", "no precision 'int3'"),
        ("onnxruntime", EngineOptions("bf16"), "cpu", "no precision 'bf16'"),
        ("openvino", EngineOptions(), "cuda:0", "not on cuda:0"),
        ("onnxruntime", EngineOptions(dynamic_int8=True), "cpu", "cannot multiply in 8 bits"),
    ],
)
def test_a_builder_refuses_what_it_cannot_do(name: str, options: EngineOptions, device: str, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        builder(name, options, device)


def test_importing_the_runtime_imports_no_torch_and_nothing_of_the_compiler() -> None:
    code = (
        "import sys, diffopt.backends.runtime;"
        "print([m for m in ('torch', 'openvino', 'onnxruntime', 'xdsl', 'libcst', 'openai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
