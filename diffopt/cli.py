"""The command line: argument text in, exit code out. 0 done, 1 no candidate met the goal, 2 bad usage or input."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from diffopt.ir.errors import DiffoptError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def entry() -> NoReturn:
    """Run the command line of this process."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    options = build_parser().parse_args(argv)
    options.command_line = shlex.join(["diffopt", *argv])
    try:
        return int(options.run(options))
    except DiffoptError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # The reader of our output went away; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno is None:
            raise
        return _fail(f"{error.filename or 'diffopt'}: {error.strerror}")
    except KeyboardInterrupt:
        sys.stderr.write("diffopt: interrupted; --resume goes on from here\n")
        return 130


def _fail(message: str) -> int:
    sys.stderr.write(f"diffopt: {message}\n")
    return 2


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        unknown = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        near = difflib.get_close_matches(unknown.group(1), _option_names(self), 1) if unknown else []
        hint = f" (did you mean {near[0]}?)" if near else ""
        self.exit(2, f"{self.prog}: {message}{hint}; see {self.prog} --help\n")


def _option_names(parser: argparse.ArgumentParser) -> list[str]:
    """Return the options of a parser and of its commands."""
    names = [name for action in parser._actions for name in action.option_strings]
    groups = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return names + [name for group in groups for sub in group.values() for name in _option_names(sub)]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    import diffopt

    parser = _Parser(prog="diffopt", description="An optimizing compiler for diffusion pipelines.")
    parser.add_argument("--version", action="version", version=f"diffopt {diffopt.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    source = "a .py script, a model directory, IR text (.mlir), or demo:shapes"

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        sub.set_defaults(run=run)
        return sub

    sub = command("compile", _compile, "search for the fastest pipeline that meets the goal, and prove it")
    sub.add_argument("source", metavar="SOURCE", help=source)
    sub.add_argument("-o", "--out", default="diffopt-out", help="folder of the artifact (default: %(default)s)")
    sub.add_argument("--target", default="cpu", help="cpu or cuda[:N] (default: %(default)s)")
    sub.add_argument("--tier", choices=("exact", "near", "traded"), default="near", help="default: %(default)s")
    sub.add_argument("--min-fidelity", type=float, metavar="DB", help="least median paired PSNR")
    sub.add_argument("--max-latency", type=float, metavar="MS", help="most milliseconds a call")
    sub.add_argument("--max-memory", type=float, metavar="GB", help="most peak memory")
    sub.add_argument("--keep-steps", action="store_true", help="leave the number of steps alone")
    sub.add_argument("--budget", default="10m", help="of the search: a time (90s, 10m) or a number of candidates (40)")
    sub.add_argument("--prompts", metavar="FILE", help="one prompt a line; half of them are held out")
    sub.add_argument("--passes", metavar="TRACE", help="measure this one trace instead of searching")
    sub.add_argument("--planner", choices=("rules", "llm", "none"), default="rules", help="who proposes first")
    sub.add_argument("--llm-base-url", metavar="URL", help="OpenAI-compatible endpoint of --planner llm")
    sub.add_argument("--llm-model", metavar="NAME", help="model of --planner llm")
    sub.add_argument("--no-controls", action="store_true", help="leave out the control arms; torch.compile takes long")
    sub.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    sub.add_argument("--force", action="store_true", help="replace an artifact, or start a stopped run again")
    sub.add_argument("--seed", type=int, default=0, help="of the search and of the prompts' choice")
    _add_set(sub)
    _add_json(sub)

    sub = command("lift", _lift, "print the IR of a source; nothing of it is run")
    sub.add_argument("source", metavar="SOURCE", help=source)
    _add_set(sub)

    sub = command("opt", _opt, "apply passes to a source and print the IR they lead to")
    sub.add_argument("source", metavar="SOURCE", help=source)
    sub.add_argument("--passes", required=True, metavar="TRACE", help='such as "reduce-steps{steps=12},export"')
    _add_set(sub)

    sub = command("emit", _emit, "print the code of a source, with passes applied where given")
    sub.add_argument("source", metavar="SOURCE", help=source)
    sub.add_argument("--passes", default="", metavar="TRACE", help="passes to apply first")
    sub.add_argument("--patch", action="store_true", help="for a script: print the patch of the script instead")
    _add_set(sub)

    from diffopt.doctor.command import add_arguments

    add_arguments(command("doctor", _doctor, "lint scripts that use diffusers; nothing of them is run"))

    sub = command("passes", _passes, "show the catalogue, or one pass")
    sub.add_argument("name", nargs="?", metavar="NAME")
    _add_json(sub)

    sub = command("devices", _devices, "show what is here: processor, accelerators, libraries")
    _add_json(sub)

    sub = command("run", _run, "make an image with an artifact")
    sub.add_argument("artifact", metavar="ARTIFACT")
    sub.add_argument("--prompt", required=True, help="what to draw")
    sub.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    sub.add_argument("--model", metavar="PATH", help="where the model directory stands, if it has moved")
    sub.add_argument("-o", "--out", default="image.png", help="default: %(default)s")

    sub = command("explain", _explain, "say what each pass of an artifact does, and where the time of a call goes here")
    sub.add_argument("artifact", metavar="ARTIFACT")
    sub.add_argument("--model", metavar="PATH", help="where the model directory stands, if it has moved")
    _add_json(sub)

    sub = command("verify", _verify, "measure an artifact again, here; exit 1 where it misses what it promises")
    sub.add_argument("artifact", metavar="ARTIFACT")
    sub.add_argument("--model", metavar="PATH", help="where the model directory stands, if it has moved")
    _add_json(sub)
    return parser


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="steps=30, guidance=5, or a name left open"
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def _settings(options: argparse.Namespace) -> dict[str, str]:
    settings = {}
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise DiffoptError(f"{text!r} is not NAME=VALUE", where="--set", hint="write it like --set steps=30")
        settings[name] = value
    return settings


def _compile(options: argparse.Namespace) -> int:
    from diffopt.api import Goal, compile
    from diffopt.display import Display, print_lines
    from diffopt.planners import proposers_for
    from diffopt.report import summary_lines

    goal = Goal(options.tier, options.min_fidelity, options.max_latency, options.max_memory, options.keep_steps)
    goal.constraints()
    planner = proposers_for(
        options.planner,
        goal,
        options.target,
        os.environ,
        base_url=options.llm_base_url,
        model=options.llm_model,
    )
    with Display(quiet=options.json) as display:
        artifact = compile(
            options.source,
            options.out,
            goal=goal,
            target=options.target,
            budget=options.budget,
            prompts=options.prompts,
            passes=options.passes,
            proposers=planner,
            resume=options.resume,
            force=options.force,
            seed=options.seed,
            controls=not options.no_controls,
            settings=_settings(options),
            command=options.command_line,
            listen=display,
        )
    if artifact is None:
        if options.json:
            near = [{"trace": m.trace, "reasons": m.reasons, "outcome": m.outcome.to_json()} for m in display.missed]
            reason = "no candidate met the goal on held-out prompts"
            _print_json({"ok": False, "artifact": None, "reason": reason, "closest": near})
        sys.stderr.write(
            "diffopt: no candidate met the goal; ask for less (--tier, --min-fidelity, --max-latency), or search longer"
            f" with --resume (all that was tried is in {options.out}.run/store.sqlite)\n"
        )
        return 1
    if options.json:
        _print_json(_result_json(True, artifact.path, artifact.manifest["result"], artifact.manifest["trace"]))
    else:
        print_lines(
            [
                *summary_lines(artifact.manifest),
                "",
                f"artifact  {artifact.path}",
                f"report    {artifact.path / 'report.html'}",
            ]
        )
    return 0


def _result_json(ok: bool, path: Path, outcome: dict[str, Any], trace: str) -> dict[str, Any]:
    """Return the JSON that `compile` and `verify` share."""
    latency = outcome.get("latency", {})
    samples = sorted(latency.get("baseline_s", ()))
    return {
        "ok": ok,
        "artifact": str(path),
        "tier": outcome.get("tier"),
        "speedup": {key: latency.get(key) for key in ("ratio", "lo", "hi")},
        "fidelity": outcome.get("fidelity"),
        "baseline": {
            "median_s": samples[len(samples) // 2] if samples else None,
            "samples_s": latency.get("baseline_s"),
        },
        "latency": latency,
        "memory": outcome.get("memory"),
        "witnesses": outcome.get("witnesses"),
        "build_s": outcome.get("build_s"),
        "first_call_s": outcome.get("first_call_s"),
        "trace": trace,
    }


def _print_json(data: object) -> None:
    sys.stdout.write(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def _lift(options: argparse.Namespace) -> int:
    from diffopt.display import say_assumed
    from diffopt.ir.identity import print_module
    from diffopt.sources import lift_all

    say_assumed(module := lift_all(options.source, _settings(options)))
    sys.stdout.write(print_module(module))
    return 0


def _opt(options: argparse.Namespace) -> int:
    from diffopt.display import say_assumed
    from diffopt.ir.identity import print_module
    from diffopt.passes.pipeline import Trace, applied
    from diffopt.sources import lift

    say_assumed(module := lift(options.source, _settings(options)).module)
    sys.stdout.write(print_module(applied(Trace.parse(options.passes), module)))
    return 0


def _emit(options: argparse.Namespace) -> int:
    from diffopt.display import say_assumed
    from diffopt.ir.emit_pipeline import emit_pipeline
    from diffopt.passes.pipeline import Trace, applied
    from diffopt.sources import lift

    source = lift(options.source, _settings(options))
    say_assumed(source.module)
    trace = Trace.parse(options.passes)
    if not options.patch:
        sys.stdout.write(emit_pipeline(applied(trace, source.module)))
        return 0
    if source.kind != "script":
        raise DiffoptError("only a script can be patched", where=options.source, hint="leave --patch out")
    from diffopt.packing import patch_of_trace

    sys.stdout.write(patch_of_trace(trace, source, _settings(options), engines=Path("engines")))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from diffopt.doctor.command import run

    return run(options)


def _passes(options: argparse.Namespace) -> int:
    from diffopt.catalogue import catalogue_json, catalogue_lines, pass_lines
    from diffopt.display import print_lines

    if options.json:
        _print_json(catalogue_json(options.name))
    else:
        print_lines(pass_lines(options.name) if options.name else catalogue_lines())
    return 0


def _devices(options: argparse.Namespace) -> int:
    from diffopt.bench.device import devices, versions
    from diffopt.display import print_lines

    found, libraries = devices(), versions()
    if options.json:
        _print_json({"devices": found, "libraries": libraries})
        return 0
    lines = []
    for device in found:
        lines.append(f"{device['device']}  {device['name']}")
        lines += [f"  {key}: {value}" for key, value in device.items() if key not in ("device", "name")]
    lines.append("libraries")
    lines += [f"  {name} {version}" for name, version in libraries.items()]
    print_lines(lines)
    return 0


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep the libraries from talking about their optional parts while they load; diffopt's own word comes later."""
    from diffusers.utils.logging import disable_progress_bar
    from transformers.utils.logging import disable_progress_bar as disable_other_progress_bar

    logging.disable(logging.WARNING)
    disable_progress_bar()
    disable_other_progress_bar()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _run(options: argparse.Namespace) -> int:
    from diffopt.artifact import load

    out = Path(options.out)
    if out.suffix and out.suffix.lower() not in IMAGE_SUFFIXES:
        raise DiffoptError(f"no image format is called {out.suffix}", where=str(out), hint="give a .png or .jpg")
    if not options.prompt.strip():
        raise DiffoptError("the prompt is empty", where="--prompt")
    if not out.resolve().parent.is_dir():
        raise DiffoptError("no such folder", where=str(out.parent), hint="make it, or give another -o")
    with _quiet_libraries():
        import torch

        pipe = load(options.artifact, model=options.model)
    pipe.set_progress_bar_config(disable=True)

    image = pipe(options.prompt, generator=torch.Generator("cpu").manual_seed(options.seed)).images[0]
    image.save(out, format=None if out.suffix else "PNG")
    sys.stdout.write(f"{out}\n")
    return 0


def _explain(options: argparse.Namespace) -> int:
    from diffopt.display import print_lines
    from diffopt.explain import explain, explanation_lines

    with _quiet_libraries():
        found = explain(options.artifact, model=options.model)
    if options.json:
        _print_json(found.to_json())
    else:
        print_lines(explanation_lines(found))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from diffopt.api import verify
    from diffopt.display import Display, describe, print_lines

    with Display(quiet=options.json) as display:
        verdict = verify(options.artifact, model=options.model, listen=display)
    if options.json:
        result = _result_json(
            verdict.ok, verdict.artifact.path, verdict.outcome.to_json(), verdict.artifact.manifest["trace"]
        )
        _print_json(result | {"reason": verdict.reason, "recorded": verdict.recorded.to_json()})
    else:
        print_lines([f"recorded {describe(verdict.recorded)}", f"here     {describe(verdict.outcome)}"])
        print_lines(
            ["kept: the tier, and the speed-up to within a quarter" if verdict.ok else f"missed: {verdict.reason}"]
        )
    return 0 if verdict.ok else 1
