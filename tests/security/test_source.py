"""Nothing in the source runs what it reads: a check of every file, and a check of that check."""

from pathlib import Path

import pytest

from security.source_rules import unsafe_uses

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    path
    for folder in ("src", "training", "tools", "sample_data")
    for path in (ROOT / folder).rglob("*.py")
)

ALLOWED = {
    ("src/sclinguist_core/__init__.py", "import"): "modules named in its own table of exports",
    ("src/napari_sclinguist/widgets/dock.py", "import"): "tabs named in its own list",
}
"""What is unsafe elsewhere and why it is not there; by file and rule."""


def place(path):
    return path.relative_to(ROOT).as_posix()


def test_nothing_unsafe_is_used():
    assert len(FILES) > 200
    uses = [
        ((place(path), rule), f"{place(path)}:{line}: {rule}: {name}")
        for path in FILES
        for line, rule, name in unsafe_uses(path.read_text("utf-8"))
    ]
    assert [text for key, text in uses if key not in ALLOWED] == []
    # Each once: a second use in the same file needs a reason of its own.
    assert sorted(key for key, _ in uses) == sorted(ALLOWED)


UNSAFE = {
    "import pickle": "pickle",
    "import pickle as p": "pickle",
    "from pickle import loads": "pickle",
    "import _pickle": "pickle",
    "import dill": "pickle",
    "def f():\n    import cloudpickle": "pickle",
    "import shelve": "pickle",
    "import marshal": "pickle",
    "from joblib import load": "pickle",
    "import joblib": "pickle",
    "import tables": "pickle",
    "import torch\ntorch.load(path)": "pickle",
    "import torch\ntorch.load(path, weights_only=False)": "pickle",
    "import torch\ntorch.load(path, weights_only=flag)": "pickle",
    "import torch as t\nt.load(path)": "pickle",
    "from torch import load\nload(path)": "pickle",
    "from torch import load as read\nread(path)": "pickle",
    "import numpy as np\nnp.load(path, allow_pickle=True)": "pickle",
    "import numpy as np\nnp.load(path, allow_pickle=wanted)": "pickle",
    "import pandas as pd\npd.read_pickle(path)": "pickle",
    "frame.to_pickle(path)": "pickle",
    "import pandas\npandas.read_hdf(path)": "pickle",
    "import torch\ntorch.hub.load('a', 'b')": "code",
    "import torch\ntorch.jit.load(path)": "code",
    "eval(text)": "code",
    "exec(text)": "code",
    "compile(text, name, 'exec')": "code",
    "import builtins\nbuiltins.eval(text)": "code",
    "__import__(name)": "code",
    "import runpy\nrunpy.run_path(path)": "code",
    "import yaml\nyaml.load(text)": "yaml",
    "import yaml\nyaml.load(text, yaml.Loader)": "yaml",
    "import yaml\nyaml.load(text, Loader=yaml.FullLoader)": "yaml",
    "import yaml\nyaml.load_all(text, Loader=yaml.UnsafeLoader)": "yaml",
    "from yaml import unsafe_load\nunsafe_load(text)": "yaml",
    "import os\nos.system(text)": "shell",
    "from os import popen\npopen(text)": "shell",
    "import subprocess\nsubprocess.run(text, shell=True)": "shell",
    "import subprocess as s\ns.Popen(text, shell=flag)": "shell",
    "import tarfile\ntarfile.open(path).extractall(folder)": "archive",
    "import zipfile\nwith zipfile.ZipFile(path) as z:\n    z.extract(name)": "archive",
    "import shutil\nshutil.unpack_archive(path)": "archive",
    "import xml.etree.ElementTree as ET": "xml",
    "from xml.dom import minidom": "xml",
    "from lxml import etree": "xml",
    "from xml.sax import parse": "xml",
    "import jinja2\njinja2.Environment()": "html",
    "import jinja2\njinja2.Environment(autoescape=False)": "html",
    "from jinja2 import Template\nTemplate(text)": "html",
    "from markupsafe import Markup\nMarkup(name)": "html",
    "address = 'http://example.org/weights'": "http",
    "address = f'http://{host}/weights'": "http",
    "import requests\nrequests.get(url, verify=False)": "tls",
    "context.check_hostname = False": "tls",
    "import ssl\nssl._create_unverified_context()": "tls",
    "import tempfile\ntempfile.mktemp()": "race",
    "import importlib\nimportlib.import_module(name)": "import",
    "from importlib import import_module\nimport_module(f'a.{name}')": "import",
}


@pytest.mark.parametrize(("snippet", "rule"), UNSAFE.items(), ids=range(len(UNSAFE)))
def test_what_is_unsafe_is_found(snippet, rule):
    found = unsafe_uses(snippet)
    assert [one[1] for one in found] == [rule]
    assert found[0][0] == snippet.count("\n") + 1 or found[0][1] in {"pickle", "archive"}


SAFE = [
    "import pickletools",
    "import torch\ntorch.load(path, weights_only=True)",
    "import numpy as np\nnp.load(path)",
    "import numpy as np\nnp.load(path, allow_pickle=False)",
    "import yaml\nyaml.safe_load(text)",
    "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
    "import yaml\nyaml.load(text, yaml.CSafeLoader)",
    "model.eval()",
    "box.exec()",
    "import re\nre.compile(text)",
    "import torch\ntorch.compile(model)",
    "import subprocess\nsubprocess.run(['git'], shell=False)",
    "import jinja2\njinja2.Environment(autoescape=True)",
    "from importlib import import_module\nimport_module('torch')",
    "import tarfile\ntarfile.open(path).extractfile(member)",
    "address = 'https://example.org'",
    "dialect = 'http://www.w3.org/2000/svg'",
]


@pytest.mark.parametrize("snippet", SAFE, ids=range(len(SAFE)))
def test_what_is_safe_is_not_found(snippet):
    assert unsafe_uses(snippet) == []
