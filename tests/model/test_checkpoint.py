import json
import pickle
import shutil

import pandas as pd
import pytest
import torch

from sclinguist_core.errors import InputError
from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    check_checkpoint_target,
    load_checkpoint,
    read_summary,
    save_checkpoint,
)
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.resources import bundled_checkpoint

CONFIG = TranslatorConfig(gene_dim=8, width=8, n_latents=2, n_heads=2, n_layers=1)


@pytest.fixture
def checkpoint():
    genes = pd.DataFrame(
        {
            "symbol": ["CD3E", "NA", "CD19"],
            "ensembl_id": ["ENSG00000198851", "", "ENSG00000177455"],
            "reference_share": [0.5, 0.25, 0.25],
            "mean": [1.0, 0.5, 0.25],
            "std": [1.0, 0.5, 0.01],
        }
    )
    proteins = pd.DataFrame(
        {"name": ["CD3", "CD15"], "genes": ["CD3E", ""], "kind": ["protein", "glycan"]}
    )
    return Checkpoint(
        model=build_translator(CONFIG, genes, proteins),
        info=CheckpointInfo(name="tiny", model=CONFIG, training_datasets=("a", "b")),
        genes=genes,
        proteins=proteins,
        card="# tiny\n",
    )


def test_round_trip(checkpoint, tmp_path):
    folder = save_checkpoint(checkpoint, tmp_path / "tiny", half=False)
    loaded = load_checkpoint(folder)
    assert loaded.info == checkpoint.info
    pd.testing.assert_frame_equal(loaded.genes, checkpoint.genes)
    pd.testing.assert_frame_equal(loaded.proteins, checkpoint.proteins)
    assert loaded.card == "# tiny\n"
    assert len(loaded.digest) == 12
    for name, tensor in checkpoint.model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[name], tensor)
    torch.testing.assert_close(loaded.model.gene_std, torch.tensor([1.0, 0.5, 0.15]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny"]


def test_half_precision_is_close(checkpoint, tmp_path):
    loaded = load_checkpoint(save_checkpoint(checkpoint, tmp_path / "tiny"))
    assert loaded.model.gene_embedding.dtype == torch.float32
    torch.testing.assert_close(
        loaded.model.gene_embedding, checkpoint.model.gene_embedding, rtol=1e-3, atol=1e-3
    )


def test_saving_again_replaces_the_old_one(checkpoint, tmp_path):
    folder = save_checkpoint(checkpoint, tmp_path / "tiny")
    first = load_checkpoint(folder).digest
    with torch.no_grad():
        checkpoint.model.protein_bias += 1
    assert load_checkpoint(save_checkpoint(checkpoint, folder)).digest != first
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]


def test_a_foreign_folder_is_not_replaced(checkpoint, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a checkpoint"):
        save_checkpoint(checkpoint, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_a_checkpoint_of_another_project_is_not_replaced(checkpoint, tmp_path):
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(InputError, match="not a checkpoint of this package"):
        save_checkpoint(checkpoint, folder)
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_what_lies_beside_a_checkpoint_is_not_removed(checkpoint, tmp_path):
    folder = save_checkpoint(checkpoint, tmp_path / "tiny")
    (folder / "finetune.ckpt").write_bytes(b"the only copy")
    (folder / "figures").mkdir()
    with pytest.raises(InputError, match=r"holds figures, finetune\.ckpt besides"):
        save_checkpoint(checkpoint, folder)
    assert (folder / "finetune.ckpt").read_bytes() == b"the only copy"
    (folder / "finetune.ckpt").unlink()
    (folder / "figures").rmdir()
    (folder / "card.md").unlink()
    (folder / "card.md").mkdir()
    with pytest.raises(InputError, match=r"holds card\.md besides"):
        check_checkpoint_target(folder)


def test_what_a_file_browser_leaves_is_no_hindrance(checkpoint, tmp_path):
    folder = save_checkpoint(checkpoint, tmp_path / "tiny")
    (folder / ".DS_Store").write_bytes(b"")
    save_checkpoint(checkpoint, folder)
    assert not (folder / ".DS_Store").exists()


def test_the_bundled_checkpoint_would_be_replaced(tmp_path):
    copy = shutil.copytree(bundled_checkpoint(), tmp_path / "copy")
    assert (copy / "conditioning.safetensors").is_file()
    assert check_checkpoint_target(copy) == copy


def test_unfinished_writing_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda *a, **k: (_ for _ in ()).throw(OSError))
    with pytest.raises(OSError):  # noqa: PT011 - raised above
        save_checkpoint(checkpoint, tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_strict_loading(checkpoint, tmp_path):
    folder = save_checkpoint(checkpoint, tmp_path / "tiny")
    edit_config(folder, surprise=1)
    with pytest.raises(InputError, match="unknown key 'surprise'"):
        load_checkpoint(folder)
    save_checkpoint(checkpoint, folder)
    edit_config(folder, format_version=99)
    with pytest.raises(InputError, match="format version 99, expected 1"):
        load_checkpoint(folder)
    save_checkpoint(checkpoint, folder)
    edit_config(folder, model=CONFIG.to_dict() | {"width": 16})
    with pytest.raises(InputError, match="weights do not fit"):
        load_checkpoint(folder)


def test_missing_files_are_named(checkpoint, tmp_path):
    folder = save_checkpoint(checkpoint, tmp_path / "tiny")
    (folder / "genes.tsv").unlink()
    with pytest.raises(InputError, match=r"found no genes\.tsv"):
        load_checkpoint(folder)
    with pytest.raises(InputError, match="no such folder"):
        load_checkpoint(tmp_path / "nowhere")


def test_figures_of_no_genes_are_numbers(checkpoint, tmp_path):
    folder = save_checkpoint(checkpoint, tmp_path / "tiny")
    path = folder / "genes.tsv"
    path.write_text(path.read_text().splitlines()[0])
    genes = read_summary(folder).genes
    assert len(genes) == 0
    assert {str(genes[name].dtype) for name in ("reference_share", "mean", "std")} == {"float64"}


def test_a_pickle_is_never_executed(checkpoint, tmp_path):
    folder = save_checkpoint(checkpoint, tmp_path / "tiny")

    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load_checkpoint(folder)
    assert not (tmp_path / "owned").exists()


def test_truncated_weights(checkpoint, tmp_path):
    folder = save_checkpoint(checkpoint, tmp_path / "tiny")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load_checkpoint(folder)


def test_bad_json(checkpoint, tmp_path):
    folder = save_checkpoint(checkpoint, tmp_path / "tiny")
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        load_checkpoint(folder)


def test_the_digest_tells_every_file_that_decides_predictions(checkpoint, tmp_path):
    folder = save_checkpoint(checkpoint, tmp_path / "tiny")
    before = load_checkpoint(folder).digest
    (folder / "card.md").write_text("other words")
    assert load_checkpoint(folder).digest == before
    table = folder / "proteins.tsv"
    table.write_text(table.read_text().replace("CD15", "CD57"))
    assert load_checkpoint(folder).digest != before
