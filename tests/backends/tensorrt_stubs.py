"""Write type stubs of TensorRT's Python API from the real bindings: `python tensorrt_stubs.py FOLDER`.

Every pybind11 method carries its signature in its docstring; the bindings import where three empty libraries stand in.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

HEAD = "# mypy: ignore-errors\nimport typing\nimport typing_extensions\nimport collections.abc\nfrom typing import Any, overload\n\n"
LIBRARIES = ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11")
FUNCTIONS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getBuilderPluginRegistry",
    "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins",
)  # fmt: skip


def stub(module: Any) -> str:
    """Return the stubs of all classes of the bindings."""
    names = sorted(name for name in dir(module) if isinstance(getattr(module, name), type))
    lines = [HEAD, "__version__: str\n"]
    for name in names:
        lines.append(_class(getattr(module, name), name, set(names)))
    return "\n".join(lines)


def _class(kind: type, name: str, known: set[str]) -> str:
    members = getattr(kind, "__members__", {})
    bases = [base.__name__ for base in kind.__bases__ if base.__name__ in known and not members]
    lines = [f"class {name}({', '.join(bases)}):"]
    lines += [f"    {member}: {name}" for member in members]
    if members:
        lines.append("    def __int__(self) -> int: ...")
    if kind.__name__ == "IHostMemory":
        lines.append("    def __buffer__(self, flags: int, /) -> memoryview: ...")
    if kind.__name__ == "Dims":
        lines.append("    def __iter__(self) -> collections.abc.Iterator[int]: ...")
    for attribute, value in sorted(vars(kind).items()):
        if isinstance(value, property):
            found = re.search(r"-> (.+)$", (value.fget.__doc__ or "").strip().split("\n")[0])
            kind_text = _type(found.group(1), known) if found else "Any"
            lines.append(f"    {attribute}: {kind_text}")
        elif isinstance(value, type):
            lines += ["    " + line for line in _class(value, attribute, known | {attribute}).splitlines()]
        elif callable(value) and (attribute == "__init__" or not attribute.startswith("_")):
            lines += _method(attribute, value, known)
    return "\n".join(lines if len(lines) > 1 else [*lines, "    ..."])


def _method(name: str, value: Any, known: set[str]) -> list[str]:
    signatures = re.findall(rf"^(?:\d+\. )?{re.escape(name)}\((.*)\) -> (.+)$", value.__doc__ or "", re.MULTILINE)
    if name == "__init__":
        signatures = re.findall(r"^(?:\d+\. )?__init__\((.*)\) -> (.+)$", value.__doc__ or "", re.MULTILINE)
    lines = []
    for arguments, result in signatures:
        line = f"    def {name}({_arguments(arguments, known)}) -> {_type(result, known)}: ..."
        try:
            ast.parse("class Stub:\n" + line)
        except SyntaxError:  # a signature whose default is an object's text; none of ours
            line = f"    def {name}(self, *args: Any, **kwargs: Any) -> Any: ..."
        lines += ["    @overload", line] if len(signatures) > 1 else [line]
    return lines


def _arguments(text: str, known: set[str]) -> str:
    text = re.sub(r"= <[^>]*>|= [^,]+", "= ...", text)
    parts = re.split(r", (?=\w+: )", text)
    return ", ".join(
        "self"
        if part.startswith("self:")
        else re.sub(r": (.+?)( = \.\.\.)?$", lambda m: f": {_type(m[1], known)}{m[2] or ''}", part)
        for part in parts
    )


def _type(text: str, known: set[str]) -> str:
    text = re.sub(r"tensorrt_bindings\.tensorrt\.|nvonnxparser::", "", text.strip())
    text = re.sub(r"\bIParserError\b", "ParserError", text)
    words = re.findall(r"[A-Za-z_][\w.]*", text)
    plain = {"int", "str", "bool", "float", "None", "list", "tuple", "object", "bytes", "dict"}
    if not all(w.split(".")[0] in known | plain | {"typing", "typing_extensions", "collections"} for w in words):
        return "Any"
    if text == "Dims":
        return "Dims"
    return text


def libraries(folder: Path) -> str:
    """Return C code of empty libraries that the bindings load against."""
    return "\n".join(f"void *{name}(void) {{ return 0; }}" for name in FUNCTIONS)


if __name__ == "__main__":
    import tensorrt_bindings

    (Path(sys.argv[1]) / "tensorrt.pyi").write_text(stub(tensorrt_bindings))
    print(tensorrt_bindings.__version__)
