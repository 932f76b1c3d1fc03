import errno
import math
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sclinguist_core.errors import InputError
from sclinguist_core.train.state import read_state, state_step, write_state

SHARED = torch.arange(6.0).reshape(2, 3)
ODD = {
    "nothing": None,
    "numbers": [0.1, -0.0, 5e-324, 1.7976931348623157e308, 2**80, True, np.float32(0.1)],
    "infinite": (float("inf"), -float("inf")),
    "text": "µ \u2028 \"quoted\" \x00",
    "empty": {"list": [], "tuple": (), "dict": {}, "": "no name"},
    "keys": {0: "a", (1, "b"): [None], None: 2.5, True: "c"},
    "__tensor__": "not one",
    "ordered": OrderedDict(z=1, a=2),
    "tensors": [
        SHARED, SHARED.T, SHARED[:, 1], torch.zeros(0, 3), torch.tensor(7, dtype=torch.int64),
        torch.tensor([math.nan, -0.0, math.inf]), torch.randn(4).to(torch.bfloat16),
        torch.tensor([True, False]), torch.nn.Parameter(torch.ones(2)),
    ],
}  # fmt: skip


def same(a, b):
    if isinstance(a, torch.Tensor):
        a, b = a.detach(), b.detach()
        return a.dtype == b.dtype and a.shape == b.shape and (
            a.contiguous().view(-1).view(torch.uint8).tolist()
            == b.contiguous().view(-1).view(torch.uint8).tolist()
        )  # fmt: skip
    if isinstance(a, dict):
        return list(map(repr, a)) == list(map(repr, b)) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.generic):
        a = a.item()
    return type(a) is type(b) and repr(a) == repr(b)  # repr: -0.0 is not 0.0


def test_odd_values_come_back_bit_for_bit(tmp_path):
    write_state(ODD, tmp_path / "state.safetensors")
    assert same(ODD, read_state(tmp_path / "state.safetensors"))


def test_nan_comes_back(tmp_path):
    write_state({"x": math.nan}, tmp_path / "state.safetensors")
    assert math.isnan(read_state(tmp_path / "state.safetensors")["x"])


def test_state_of_an_optimiser_goes_on_as_before(tmp_path):
    def optimiser():
        weight = torch.nn.Parameter(torch.ones(3))
        return weight, torch.optim.AdamW([weight], lr=0.1)

    def step(weight, optimizer):
        (weight**2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    weight, optimizer = optimiser()
    step(weight, optimizer)
    path = tmp_path / "state.safetensors"
    write_state({"optimizer": optimizer.state_dict(), "weight": weight}, path)
    other, restored = optimiser()
    state = read_state(path)
    restored.load_state_dict(state["optimizer"])
    with torch.no_grad():
        other.copy_(state["weight"])
    step(weight, optimizer)
    step(other, restored)
    assert torch.equal(weight, other)


@pytest.mark.parametrize("value", [{1, 2}, np.zeros(2), object(), b"bytes"])
def test_what_needs_a_pickle_is_refused(tmp_path, value):
    path = tmp_path / "state.safetensors"
    write_state({"sclinguist": {"step": 3}}, path)
    with pytest.raises(TypeError, match="without a pickle"):
        write_state({"deep": [{"value": value}]}, path)
    assert state_step(path) == 3  # the older state stays
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def damaged(path, kind):
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Trap()))
    elif kind == "torch":
        torch.save({"sclinguist": {"step": 1}}, path)
    elif kind == "truncated":
        write_state({"sclinguist": {"step": 1}, "x": torch.ones(1000)}, path)
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "empty":
        path.touch()
    elif kind == "other weights":
        save_file({"w": torch.ones(2)}, path)
    elif kind == "other text":
        save_file({"w": torch.ones(2)}, path, metadata={"state": '{"sclinguist": '})

    elif kind == "a list":
        save_file({"w": torch.ones(2)}, path, metadata={"state": "[]"})
    elif kind == "deep":
        save_file({"w": torch.ones(2)}, path, metadata={"state": "[" * 10**5 + "]" * 10**5})


KINDS = [
    "pickle", "torch", "truncated", "empty", "other weights", "other text", "a list", "deep",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", [read_state, state_step])
def test_damaged_and_foreign_files_are_one_sentence(tmp_path, kind, read):
    path = tmp_path / "last.safetensors"
    damaged(path, kind)
    with pytest.raises(InputError, match=r"training state \(safetensors\)") as found:
        read(path)
    assert str(path) in str(found.value)
    assert "\n" not in str(found.value)
    assert str(found.value).endswith("delete it and train from the start.")


@pytest.mark.parametrize("kind", ["missing", "no rights", "a pipe", "a folder"])
@pytest.mark.parametrize("read", [read_state, state_step])
def test_what_cannot_be_opened_is_not_to_be_deleted(tmp_path, kind, read, monkeypatch):
    path = tmp_path / "last.safetensors"
    if kind == "a pipe":
        if sys.platform == "win32":
            pytest.skip("Windows has no such pipes")
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "no rights":
        write_state({"sclinguist": {"step": 1}}, path)

        def refuse(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)  # the administrator may read everything
    with pytest.raises(InputError, match=r"check (the path|what has)") as found:
        read(path)
    assert "delete" not in str(found.value)
