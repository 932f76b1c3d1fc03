"""Pickles that are read and not run."""

import collections
import copyreg
import io
import os
import pickle
import pickletools
import struct
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.published_layout import save_with_foreign_classes
from sclinguist_core.errors import InputError
from sclinguist_core.model.restricted_pickle import MAX_STEPS, Foreign, read_pickle
from sclinguist_core.model.tensor_archive import TensorArchive, read_lightning_state_dict

KEYS = st.integers(-(2**63), 2**63 - 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.frozensets(KEYS) | st.sets(st.text()),
    lambda children: st.lists(children)
    | st.tuples(children, children)
    | st.tuples(children, children, children, children)
    | st.dictionaries(st.text() | KEYS, children),
    max_leaves=12,
)  # fmt: skip


class Hostile:
    """Writes a file as soon as it is unpickled."""

    def __init__(self, path, way):
        self.path, self.way = str(path), way

    def __reduce__(self):
        code = f"open({self.path!r}, 'w').close()"
        return {
            "exec": (exec, (code,)),
            "system": (os.system, (f"touch {self.path}",)),
            "path": (Path.touch, (Path(self.path),)),
            "rebuilt": (copyreg._reconstructor, (Hostile, object, None), {"a": eval}),
        }[self.way]


@settings(max_examples=60, deadline=None)
@given(PLAIN, st.integers(min_value=2, max_value=5))
def test_plain_values_come_back(value, protocol):
    if protocol == 2 and has_bytes_or_sets(value):
        return  # that protocol has to call a function for these
    if protocol == 3 and has_sets(value):
        return
    assert read_pickle(pickle.dumps(value, protocol)) == value


def parts(value):
    yield value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from parts(key)
            yield from parts(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from parts(item)


def has_sets(value):
    return any(isinstance(part, set | frozenset) for part in parts(value))


def has_bytes_or_sets(value):
    return has_sets(value) or any(isinstance(part, bytes) for part in parts(value))


def test_the_oldest_protocol_is_read():
    assert read_pickle(pickle.dumps([1, 2.5, "a", (3,), {"b": None}], 0)) == [
        1, 2.5, "a", (3,), {"b": None},
    ]  # fmt: skip


def test_what_refers_to_itself_is_read():
    value = [1]
    value.append(value)
    found = read_pickle(pickle.dumps(value))
    assert found[0] == 1
    assert found[1] is found


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("way", ["exec", "system", "path", "rebuilt"])
def test_nothing_is_executed(tmp_path, way, protocol):
    mark = tmp_path / "executed"
    program = pickle.dumps({"weights": [1, 2], "trap": Hostile(mark, way)}, protocol)
    content = read_pickle(program)
    assert not mark.exists()
    assert content["weights"] == [1, 2]
    assert isinstance(content["trap"], Foreign)
    if way != "rebuilt":  # the trap is a real one: the ordinary loader falls into it
        pickle.loads(program)
        assert mark.exists()


def test_nothing_is_imported():
    program = b"cantigravity\nflight\n(tR."
    sys.modules.pop("antigravity", None)
    content = read_pickle(program)
    assert content.name == "antigravity.flight"
    assert content.args == ()
    assert "antigravity" not in sys.modules


def test_a_name_cannot_be_changed_by_what_follows():
    # Sets attributes of the function that stands for tensors: it is a record, and stays one.
    program = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb."
    assert read_pickle(program).state == {"a": 1}
    again = read_pickle(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n.")
    assert again.state == {}


def test_ordered_and_foreign_mappings():
    ordered = collections.OrderedDict([("b", 1), ("a", 2)])
    assert list(read_pickle(pickle.dumps(ordered)).items()) == [("b", 1), ("a", 2)]
    counter = read_pickle(pickle.dumps(collections.Counter("aab")))
    assert counter.name == "collections.Counter"


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b"not a pickle",
        b"\x80\x02K\x01",  # no end
        b"\x80\x02h\x05.",  # not in the memo
        b"\x80\x02R.",  # nothing to call
        b"\x80\x02K\x01)R.",  # a number is called
        b"\x80\x02}]K\x01s.",  # a list as a key
        b"\x80\x02}K\x01\x85\x85K\x01s.",  # nested tuples as a key
        b"\x80\x02\x82\x01.",  # a registered extension
        b"\x80\x02t.",  # no mark
        b"\x80\x02(K\x01K\x02K\x03d.",  # an odd number of items
    ],
)
def test_damaged_programs_are_refused(program):
    with pytest.raises(ValueError, match=r"."):
        read_pickle(program)


DOUBLED = b"\x80\x04)" + b"2\x86" * 200  # (x, x) of (x, x) of ...: short to say, long to write out
NESTED = b"\x80\x04)" + b"\x85" * 200_000
NAME = b"\x8c\x01a"
LONG = b"X\xe9\x03\x00\x00" + b"a" * 1_001
STORAGE = b"(\x8c\x07storage\x8c\x05torch\x8c\x0cFloatStorage\x93\x8c\x010\x8c\x03cpu%stQ"
REBUILD = b"\x80\x04\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93"


def rebuilt(size=b"K\x04", shape=b")", stride=b")"):
    """Write a program that makes a tensor."""
    return REBUILD + b"(" + STORAGE % size + b"K\x00" + shape + stride + b"tR."


@pytest.mark.parametrize(
    ("program", "found"),
    [
        (DOUBLED + NAME + b"\x93.", "a name that is no text"),
        (b"\x80\x04" + NAME + DOUBLED[2:] + b"\x93.", "a name that is no text"),
        (NESTED + NAME + b"\x93.", "a name that is no text"),
        (b"\x80\x04}" + NESTED[2:] + b"Ns.", "of type tuple"),
        (b"\x80\x04\x8f(" + DOUBLED[2:] + b"\x90.", "of type tuple"),
        (DOUBLED + b"Q.", "a persistent id that is no storage"),
        (DOUBLED + b"\x85R.", "."),
        (b"\x80\x04" + NAME + LONG + b"\x93.", "a name of 1,003 characters"),
        (b"\x80\x04c" + b"a" * 2_000 + b"\nb\n.", "a name of 2,002 characters"),
        (b"\x80\x04}" + LONG + b"Ns.", "item of 1,001 characters"),
        (b"\x80\x04}(" + b"N" * 65 + b"tNs.", "item of 65 parts"),
        (b"\x80\x04}\x8a\x0a" + b"\x7f" * 10 + b"Ns.", "more than 64 bits"),
        (rebuilt(size=b"\x8a\x0a" + b"\x7f" * 10), "a storage without a size"),
        (rebuilt(shape=b"(" + b"K\x02" * 65 + b"t", stride=b"(" + b"K\x02" * 65 + b"t"), "65 dim"),
        # Empty, and still of more numbers in a row than torch can count.
        (
            rebuilt(shape=b"K\x00\x8a\x05" + b"\x7f" * 5 + b"2\x87", stride=b"K\x0122\x87"),
            "not made of sizes",
        ),
    ],
)  # fmt: skip
def test_short_programs_for_endless_work_are_refused(program, found):
    with pytest.raises(ValueError, match=found):
        read_pickle(program)


def test_setting_the_same_attributes_again_and_again_is_refused():
    state = b"}(" + b"".join(b"K%cN" % i for i in range(256)) + b"u"
    once = b"\x80\x04ca\nb\n" + state + b"q\x00b"
    assert len(read_pickle(once + b"h\x00b" * 1_000 + b".").state) == 256
    with pytest.raises(ValueError, match="more than 2,000,000 steps"):
        read_pickle(once + b"h\x00b" * 10_000 + b".")


def test_a_program_without_end_in_sight_is_refused(monkeypatch):
    monkeypatch.setattr("sclinguist_core.model.restricted_pickle.MAX_STEPS", 1_000)
    assert read_pickle(b"\x80\x04" + b"]" * 998 + b".") == []
    with pytest.raises(ValueError, match="more than 1,000 steps"):
        read_pickle(b"\x80\x04" + b"]" * 999 + b".")


@pytest.mark.parametrize("error", [RecursionError, MemoryError])
def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    torch.save({"a": torch.zeros(2)}, tmp_path / "whole.pt")
    monkeypatch.setattr("sclinguist_core.model.restricted_pickle._made", fail)
    with pytest.raises(InputError, match="more than fits into memory, or nested too deeply"):
        read_lightning_state_dict(tmp_path / "whole.pt")


def test_a_large_checkpoint_stays_far_below_the_bounds(tmp_path):
    weights = {f"encoder.blocks.{i}.weight": torch.zeros(2, 3) for i in range(1_000)}
    optimizer = {i: {"exp_avg": torch.zeros(2)} for i in range(1_000)}
    torch.save({"state_dict": weights, "optimizer": optimizer}, tmp_path / "large.pt")
    with zipfile.ZipFile(tmp_path / "large.pt") as archive:
        program = archive.read("large/data.pkl")
    assert sum(1 for _ in pickletools.genops(program)) < MAX_STEPS / 20
    assert len(read_lightning_state_dict(tmp_path / "large.pt")) == 1_000


def test_tensors_of_every_kind_come_back(tmp_path):
    weights = {
        dtype: torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
        for dtype in (
            "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8",
            "uint8", "bool",
        )
    }  # fmt: skip
    base = torch.arange(12.0).reshape(3, 4)
    weights |= {
        "transposed": base.T,
        "part": base[1:, 1:3],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    file = save_with_foreign_classes(tmp_path / "made.ckpt", weights)
    read = read_lightning_state_dict(file)
    assert list(read) == list(weights)
    for name, expected in weights.items():
        assert read[name].dtype == expected.dtype
        assert read[name].is_contiguous()
        torch.testing.assert_close(read[name], expected.detach(), rtol=0, atol=0)


def test_weights_without_a_trainer_around_them(tmp_path):
    torch.save({"a": torch.ones(2), "note": "x"}, tmp_path / "plain.pt")
    assert read_lightning_state_dict(tmp_path / "plain.pt")["a"].tolist() == [1, 1]


def test_a_hostile_checkpoint_gives_its_weights_and_nothing_else(tmp_path):
    mark = tmp_path / "executed"
    file = save_with_foreign_classes(
        tmp_path / "made.ckpt",
        {"encoder.weight": torch.arange(3.0)},
        callbacks={"trap": Hostile(mark, "exec")},
        optimizer_states=[{"state": {0: {"step": torch.tensor(3.0)}}}],
    )
    assert read_lightning_state_dict(file)["encoder.weight"].tolist() == [0, 1, 2]
    with TensorArchive(file) as archive:
        config = archive.content["hyper_parameters"]["enc_ret_config"]
        assert config.name == "model.configuration_hyena.HyenaConfig"
        assert config.state == {"d_model": 16}
        assert archive.content["callbacks"]["trap"].name == "__builtin__.exec"
    assert not mark.exists()


def rewritten(source, target, change, *, compression=zipfile.ZIP_STORED):
    """Copy an archive with the bytes of its members changed; None leaves one out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            data = change(name.partition("/")[2], old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda name, data: None if name == "data.pkl" else data, "0 data.pkl"),
        (lambda name, data: None if name == "data/0" else data, "data/0 missing"),
        (lambda name, data: data[:-4] if name == "data/0" else data, "8 bytes in data/0"),
        (lambda name, data: b"big" if name == "byteorder" else data, "byte order"),
        (lambda name, data: data[:40] if name == "data.pkl" else data, "in its data.pkl"),
    ],
)
def test_damaged_archives_are_refused(tmp_path, change, found):
    torch.save({"a": torch.arange(3.0)}, tmp_path / "whole.pt")
    file = rewritten(tmp_path / "whole.pt", tmp_path / "damaged.pt", change)
    with pytest.raises(InputError, match=found) as error:
        read_lightning_state_dict(file)
    assert str(file) in str(error.value)


CENTRAL = b"PK\x01\x02"
"""Where the entry of a member in the table of contents starts."""


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (6, struct.pack("<H", 99)),  # a version of the format that nobody has
        (8, struct.pack("<H", 0x800)),  # the name is said to be UTF-8, and is not
        (8, struct.pack("<H", 0x1)),  # encrypted
        (42, struct.pack("<I", 2**32 - 2)),  # begins beyond the end
    ],
)
def test_tables_of_contents_that_cannot_be_are_refused(tmp_path, place, value):
    torch.save({"a": torch.zeros(4)}, tmp_path / "whole.pt")
    data = bytearray((tmp_path / "whole.pt").read_bytes())
    start = data.index(CENTRAL)
    data[start + place : start + place + len(value)] = value
    if value == struct.pack("<H", 0x800):
        data[start + 46] = 0xFF
    (tmp_path / "damaged.pt").write_bytes(data)
    with pytest.raises(InputError, match="expected a PyTorch checkpoint") as error:
        read_lightning_state_dict(tmp_path / "damaged.pt")
    assert "\n" not in str(error.value)


def test_a_member_that_begins_beyond_all_files_is_refused(tmp_path):
    torch.save({"a": torch.zeros(4)}, tmp_path / "whole.pt")
    with TensorArchive(tmp_path / "whole.pt") as archive:
        record = archive.content["a"]
        archive._zip.getinfo("whole/data/0").header_offset = 2**64 - 1
        with pytest.raises(InputError, match="whole/data/0 damaged"):
            archive.tensor(record)


def test_a_compressed_archive_is_refused(tmp_path):
    torch.save({"a": torch.zeros(4)}, tmp_path / "whole.pt")
    file = rewritten(
        tmp_path / "whole.pt", tmp_path / "bomb.pt", lambda _, data: data,
        compression=zipfile.ZIP_DEFLATED,
    )  # fmt: skip
    with pytest.raises(InputError, match="compressed"):
        read_lightning_state_dict(file)


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    torch.save({"a": torch.zeros(5)}, tmp_path / "whole.pt")
    # The shape (5,) becomes (9,): K\x05\x85 is "the number 5, in a tuple".
    file = rewritten(
        tmp_path / "whole.pt", tmp_path / "beyond.pt",
        lambda name, data: data.replace(b"K\x05\x85", b"K\x09\x85") if "pkl" in name else data,
    )  # fmt: skip
    with pytest.raises(InputError, match="larger than its storage"):
        read_lightning_state_dict(file)


def test_other_files_are_refused_in_one_sentence(tmp_path):
    file = tmp_path / "old.ckpt"
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=False)
    file.write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="zip archive") as error:
        read_lightning_state_dict(file)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="missing"):
        read_lightning_state_dict(tmp_path / "missing.ckpt")
    torch.save({"state_dict": {"a": 1}}, file)
    with pytest.raises(InputError, match="no tensor"):
        read_lightning_state_dict(file)
    torch.save([1, 2], file)
    with pytest.raises(InputError, match="expected a dict"):
        read_lightning_state_dict(file)
