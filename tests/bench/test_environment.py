from __future__ import annotations

from pathlib import Path

from diffopt.bench.environment import allowed, cpus_for, worker_environment

HOME = Path("/home/someone")


def test_only_what_is_on_the_list_passes_and_never_a_secret() -> None:
    given = {"PATH": "/bin", "OMP_WAIT_POLICY": "PASSIVE", "HF_TOKEN": "x", "OPENAI_API_KEY": "x", "CUDA_AUTH": "x",
             "EDITOR": "vi", "PYTHONPATH": "/tmp"}  # fmt: skip
    kept = allowed(given, home=HOME)
    assert {"PATH": "/bin", "OMP_WAIT_POLICY": "PASSIVE"}.items() <= kept.items()
    assert not {"HF_TOKEN", "OPENAI_API_KEY", "CUDA_AUTH", "EDITOR", "PYTHONPATH"} & set(kept)


def test_the_hub_is_off_unless_asked_for_and_telemetry_always() -> None:
    assert allowed({}, home=HOME)["HF_HUB_OFFLINE"] == "1"
    online = allowed({"HF_HUB_DISABLE_TELEMETRY": "0"}, home=HOME, offline=False)
    assert "HF_HUB_OFFLINE" not in online
    assert online["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_the_model_cache_stays_where_the_user_has_it() -> None:
    assert allowed({}, home=HOME)["HF_HOME"] == "/home/someone/.cache/huggingface"
    assert allowed({"HF_HOME": "/models"}, home=HOME)["HF_HOME"] == "/models"


def test_threads_are_the_users_own_unless_given() -> None:
    assert "OMP_NUM_THREADS" not in allowed({}, home=HOME)
    assert allowed({"OMP_NUM_THREADS": "8"}, home=HOME, threads=2)["OMP_NUM_THREADS"] == "2"


def test_fewer_threads_mean_fewer_cores_so_engines_get_no_more_than_the_baseline() -> None:
    assert cpus_for({}, {0, 1, 2, 3}) is None
    assert cpus_for({"OMP_NUM_THREADS": "2"}, {0, 1, 2, 3}) == [2, 3]
    assert cpus_for({"OMP_NUM_THREADS": "2"}, {0, 1, 2, 3}, threads=1) == [3]
    assert cpus_for({"OMP_NUM_THREADS": "8"}, {0, 1}) is None


def test_a_worker_has_a_home_of_its_own_and_shares_compile_caches() -> None:
    one, two = (worker_environment(Path(folder), Path("/engines")) for folder in ("/work/a", "/work/b"))
    assert one["HOME"] != two["HOME"]
    assert one["TORCHINDUCTOR_CACHE_DIR"] == two["TORCHINDUCTOR_CACHE_DIR"] == "/engines/inductor"
