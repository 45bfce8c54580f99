from __future__ import annotations

import json

from diffopt.bench.device import devices, environment


def test_the_processor_is_always_there() -> None:
    cpu = devices(accelerators=False)[0]
    assert cpu["device"] == "cpu"
    assert cpu["name"]
    assert isinstance(cpu["cores"], int)
    assert cpu["cores"] >= 1


def test_the_environment_is_json_and_names_the_versions_that_matter() -> None:
    found = json.loads(json.dumps(environment()))
    assert found["versions"]["torch"]
    assert found["cores"] >= 1
