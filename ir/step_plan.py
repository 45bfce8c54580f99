"""What the runtime function `follow_step_plan` is given: where the steps of a module differ."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import loops, only_plain, steps_of
from diffopt.ir.reuse import Reuse


def plan_arguments(module: ModuleOp) -> list[str]:
    """Return its arguments, as code; empty where every step is as it was lifted."""
    found, steps = loops(module), steps_of(module)
    plain = not only_plain(module, controls=True)
    guided = [i for loop in found if loop.guide is not None for i in range(*loop.bounds)] if plain else []
    given = [f"guided={compact(guided)}"] if 0 < len(guided) < steps else []
    guides = [loop.guide for loop in found if loop.guide is not None]
    fresh = sorted({step for guide in guides for step in guide.fresh_steps or ()})
    if fresh:
        what = next(guide.reuse.data for guide in guides if guide.reuse is not None)
        given += [f"fresh={compact(fresh)}", f'reuse="{what}"']
    if any(guide.apart is not None for guide in guides):
        given.append("apart=True")
    reuse = found[0].predicts[0].reuse
    return given + (_reuse_arguments(reuse) if reuse is not None else [])


def _reuse_arguments(reuse: Reuse) -> list[str]:
    given = [f"full={compact(reuse.full)}"]
    if reuse.branch is not None:
        given.append(f"branch={reuse.branch}")
    elif reuse.blocks is not None:
        given.append(f"blocks={reuse.blocks}")
    else:
        given.append("cross_attention=True")
    return given + ([f"order={reuse.order}"] if reuse.order else [])


def compact(indices: Sequence[int]) -> str:
    """Write an arithmetic sequence as a range, anything else as a list."""
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    candidate = range(indices[0], indices[-1] + 1, step)
    if list(candidate) != list(indices):
        return repr(list(indices))
    stop = indices[-1] + 1
    return f"range({indices[0]}, {stop})" if step == 1 else f"range({indices[0]}, {stop}, {step})"
