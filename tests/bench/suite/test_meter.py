"""Measuring one program at a time: real programs, each text once."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffopt.bench.suite.choosing import keeps_quality, speed
from diffopt.bench.suite.families import FAMILIES
from diffopt.bench.suite.measuring import Protocol, fork_server
from diffopt.bench.suite.meter import Meter, OutOfTime
from diffopt.bench.suite.store import MeasurementStore
from diffopt.bench.suite.writing import plain_script

PROTOCOL = Protocol(4, aimed_pairs=(3, 3), split="search", threads=1)
BASE = plain_script(FAMILIES["sd15"], sampler="ddim", steps=6)
FASTER = plain_script(FAMILIES["sd15"], sampler="ddim", steps=3)


def test_a_program_is_measured_once_and_comes_from_the_store_where_there_is_no_time(tmp_path: Path) -> None:
    store = MeasurementStore(tmp_path / "store")
    with fork_server(tmp_path, PROTOCOL) as server:
        with Meter("sd15", BASE, store, protocol=PROTOCOL, work=tmp_path, server=server) as meter:
            record = meter.record(FASTER)
        late = Meter("sd15", BASE, store, protocol=PROTOCOL, work=tmp_path, server=server, end=0.0)
        assert late.record(FASTER) == record
        with pytest.raises(OutOfTime):
            late.record(BASE)
    assert speed(record) > 1
    assert len(record["adherence"]["candidate"]) == 4
    assert isinstance(keeps_quality(record), bool)
