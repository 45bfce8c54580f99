from dataclasses import replace

from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory
from diffopt.llm.feedback import history_text
from tests.llm.conftest import Candidate, Trial


def measured(trace: str, ratio: float, psnr: float) -> Trial:
    outcome = Measured(
        latency=Latency(ratio, ratio * 0.9, ratio * 1.1, 9, (1.0,), (0.5,)),
        fidelity=Fidelity(psnr, psnr - 3, psnr - 6, 0.9, 0.97, 0.98, None, None, 16, ()),
        memory=Memory(50, 100),
        build_s=1.0,
        load_s=1.0,
        first_call_s=1.0,
        witnesses=({"transform": "cache", "count": 33, "detail": "33 of 50 steps cached"},),
        tier="near",
    )
    return Trial(Candidate(trace, trace), outcome)


def test_an_empty_history_says_so() -> None:
    assert history_text([]) == "nothing yet"


def test_shows_the_front_apart_with_intervals_and_witnesses() -> None:
    text = history_text([measured("slow-good", 2, 50), measured("fast-bad", 9, 30), measured("beaten", 1.5, 40)])
    front, rest = text.split("Beaten by the front, 1:")
    assert front.index("fast-bad") < front.index("slow-good")
    assert "fast-bad | 9.00x [8.10, 9.90] | PSNR median 30.0 p10 27.0 worst 24.0 dB | tier near" in front
    assert "prompt accuracy -1.0 points | memory 0.50 of the baseline's | cache: 33 of 50 steps cached" in front
    assert "beaten" in rest


def test_says_which_transform_took_no_effect() -> None:
    trial = measured("t", 2, 50)
    assert isinstance(trial.outcome, Measured)
    idle = replace(trial.outcome, witnesses=({"transform": "cache", "count": 0, "detail": ""},))
    assert "cache took no effect" in history_text([Trial(trial.candidate, idle)])


def test_failures_are_short_and_on_one_line() -> None:
    log = "noise\n" * 1000 + "ValueError: bad\x1b[0m shape"
    text = history_text([Trial(Candidate("t", "k"), Failed("crash", "the worker\ndied", log))])
    assert text.startswith("Failed, 1:\n- t | crash: the worker died | log ends: ")
    assert text.endswith("bad [0m shape")
    assert len(text) < 500


def test_the_list_is_bounded() -> None:
    trials = [measured(f"trace-{n}", 1 + n, 60 - n) for n in range(40)]
    text = history_text(trials)
    assert "Front (speed up, PSNR up), 40:" in text
    assert text.count("\n- ") == 12
