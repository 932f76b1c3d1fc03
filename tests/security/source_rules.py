"""Find, in Python source, what could run somebody's code or send something unencrypted.

Names are followed through imports and their aliases, not through assignments: this is a check of
our own habits, not a defence against somebody who hides things.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

RUNS_CODE = {
    "pickle": "pickle",
    "_pickle": "pickle",
    "cPickle": "pickle",
    "cloudpickle": "pickle",
    "dill": "pickle",
    "jsonpickle": "pickle",
    "joblib": "pickle",
    "shelve": "pickle",
    "marshal": "pickle",
    "tables": "pickle",
}
"""Modules that execute what they load; PyTables pickles objects."""
CALLS = {
    "eval": "code",
    "exec": "code",
    "compile": "code",
    "builtins.eval": "code",
    "builtins.exec": "code",
    "builtins.compile": "code",
    "__import__": "code",
    "runpy.run_path": "code",
    "runpy.run_module": "code",
    "code.interact": "code",
    "torch.hub.load": "code",
    "torch.jit.load": "code",
    "torch.package.PackageImporter": "code",
    "torch.utils.cpp_extension.load": "code",
    "pandas.read_pickle": "pickle",
    "pandas.read_hdf": "pickle",
    "pandas.eval": "code",
    "yaml.unsafe_load": "yaml",
    "yaml.unsafe_load_all": "yaml",
    "yaml.full_load": "yaml",
    "yaml.full_load_all": "yaml",
    "os.system": "shell",
    "os.popen": "shell",
    "subprocess.getoutput": "shell",
    "subprocess.getstatusoutput": "shell",
    "shutil.unpack_archive": "archive",
    "ssl._create_unverified_context": "tls",
    "tempfile.mktemp": "race",
    "markupsafe.Markup": "html",
    "jinja2.Markup": "html",
}
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader"}
XML = ("xml.etree", "xml.dom", "xml.sax", "xml.parsers", "lxml")
_PLAIN_ADDRESS = re.compile(r"http://(?=\S|$)(?!(www\.w3\.org|graphml\.graphdrawing\.org)/)")
"""Names of XML dialects are no addresses."""


def unsafe_uses(source: str) -> list[tuple[int, str, str]]:
    """Find what is unsafe in a file.

    Returns
    -------
    list of (line, rule, name)
        Rules: pickle, code, yaml, shell, archive, xml, html, tls, race, http, import.
    """
    tree = ast.parse(source)
    names = _imported_names(tree)
    found: set[tuple[int, str, str]] = set()
    for node in ast.walk(tree):
        for rule, name in _judge(node, names):
            found.add((node.lineno, rule, name))
    return sorted(found)


def _imported_names(tree: ast.AST) -> dict[str, str]:
    """Full name that each local name stands for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _full_name(node: ast.AST, names: dict[str, str]) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([names.get(node.id, node.id), *reversed(parts)])


def _judge(node: ast.AST, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        for module in _modules(node):
            if module.partition(".")[0] in RUNS_CODE:
                yield RUNS_CODE[module.partition(".")[0]], module
            if module.startswith(XML):
                yield "xml", module
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        if _PLAIN_ADDRESS.search(node.value):
            yield "http", node.value[:60]
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Attribute) and target.attr in {
                "check_hostname", "verify_mode",
            }:  # fmt: skip
                yield "tls", target.attr
    elif isinstance(node, ast.Call):
        yield from _judge_call(node, _full_name(node.func, names), names)


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.level or not node.module:
        return []
    return [f"{node.module}.{alias.name}" for alias in node.names]


def _judge_call(call: ast.Call, name: str, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in CALLS:
        yield CALLS[name], name
    method = call.func.attr if isinstance(call.func, ast.Attribute) else name
    if method in {"extractall", "extract"}:
        yield "archive", method
    # Ours is called by its name alone, and reads without running.
    if method in {"read_pickle", "to_pickle"} and method != name and name not in CALLS:
        yield "pickle", method
    if name == "torch.load" and not _is(keywords.get("weights_only"), True):
        yield "pickle", name
    if "allow_pickle" in keywords and not _is(keywords["allow_pickle"], False):
        yield "pickle", f"{name} with allow_pickle"
    if name in {"yaml.load", "yaml.load_all"}:
        loader = keywords.get("Loader", call.args[1] if len(call.args) > 1 else None)
        if loader is None or _full_name(loader, names) not in SAFE_LOADERS:
            yield "yaml", name
    if "shell" in keywords and not _is(keywords["shell"], False):
        yield "shell", name
    if "verify" in keywords and _is(keywords["verify"], False):
        yield "tls", f"{name} with verify=False"
    if name == "jinja2.Environment" and not _is(keywords.get("autoescape"), True):
        yield "html", name
    if name == "jinja2.Template":
        yield "html", name
    if name == "importlib.import_module" and not (
        call.args and isinstance(call.args[0], ast.Constant)
    ):
        yield "import", name


def _is(node: ast.AST | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
