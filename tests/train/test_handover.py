import numpy as np
import pandas as pd
import pytest
import torch

from sclinguist_core.errors import InputError
from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    save_checkpoint,
)
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.train.handover import initialise, seen_earlier

SIZES = {"gene_dim": 8, "width": 8, "n_latents": 3, "n_heads": 2, "n_layers": 1}


def tables(genes, proteins):
    return (
        pd.DataFrame({"symbol": genes, "ensembl_id": "", "reference_share": 1 / len(genes),
                      "mean": 1.0, "std": 1.0}),
        pd.DataFrame({"name": proteins, "genes": "CD3E", "kind": "protein"}),
    )  # fmt: skip


def network(genes, proteins, seed, **more):
    """A network whose every weight is random, as after training."""
    torch.manual_seed(seed)
    model = build_translator(TranslatorConfig(**SIZES | more), *tables(genes, proteins)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def saved(folder, stage, genes, proteins, seed, **more):
    model = network(genes, proteins, seed, **more)
    tabled = tables(genes, proteins)
    info = CheckpointInfo(
        name=stage, model=model.config, stage=stage, training_datasets=("pbmc", stage)
    )
    checkpoint = Checkpoint(
        model=model, info=info, genes=tabled[0], proteins=tabled[1], card="# x\n"
    )
    save_checkpoint(checkpoint, folder, half=False)
    return model


@pytest.fixture
def stages(tmp_path):
    rna = saved(tmp_path / "rna", "pretrain-rna", ["A", "B", "C"], ["CD3", "CD4"], 1,
                gene_output=True)  # fmt: skip
    # A run folder keeps its model in checkpoint/.
    run = tmp_path / "run-protein"
    run.mkdir()
    protein = saved(run / "checkpoint", "pretrain-protein", ["C", "D"], ["CD8", "CD3", "CD19"], 2,
                    protein_input=True)  # fmt: skip
    return {"rna": (tmp_path / "rna", rna), "protein": (run, protein)}


GENES, PROTEINS = ["C", "E", "A"], ["CD19", "CD3", "CD56"]


def started(stages, *roles):
    model = network(GENES, PROTEINS, 3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    counts = initialise(model, GENES, PROTEINS, {role: stages[role][0] for role in roles})
    return model, before, counts


def test_rows_go_by_gene_and_by_protein(stages):
    model, before, counts = started(stages, "rna", "protein")
    rna, protein = stages["rna"][1], stages["protein"][1]
    expected = torch.stack(
        [rna.gene_embedding[2], before["gene_embedding"][1], rna.gene_embedding[0]]
    )
    torch.testing.assert_close(model.gene_embedding, expected, rtol=0, atol=0)
    answers = torch.stack(
        [protein.protein_embedding[2], protein.protein_embedding[1], before["protein_embedding"][2]]
    )
    torch.testing.assert_close(model.protein_embedding, answers, rtol=0, atol=0)
    assert (counts["genes"], counts["proteins"]) == (2, 2)


def test_rna_gives_the_reader_and_protein_the_answers(stages):
    model, _, _ = started(stages, "rna", "protein")
    rna, protein = (dict(stages[role][1].named_parameters()) for role in ("rna", "protein"))
    for name, weight in model.named_parameters():
        if name.startswith("reader."):
            assert torch.equal(weight, rna[name]), name
        if name.startswith("decoder."):
            assert torch.equal(weight, protein[name]), name


def test_what_a_stage_did_not_train_is_not_taken_over(stages):
    model, before, _ = started(stages, "rna")
    for name in ("protein_embedding", "protein_bias", "cognate_gain"):
        assert torch.equal(dict(model.named_parameters())[name], before[name]), name
    model, before, _ = started(stages, "protein")
    untouched = [n for n in before if n.startswith(("reader.gene_to_key_value", "reader.query"))]
    assert untouched
    for name in untouched:
        assert torch.equal(dict(model.named_parameters())[name], before[name]), name


def test_sizes_must_agree(stages, tmp_path):
    saved(tmp_path / "wide", "pretrain-rna", ["A"], ["CD3"], 4, width=16)
    model = network(GENES, PROTEINS, 3)
    with pytest.raises(InputError, match=r"init\.rna: .*use the same model section in all stages"):
        initialise(model, GENES, PROTEINS, {"rna": tmp_path / "wide"})


def test_a_folder_without_a_model_is_refused(tmp_path):
    model = network(GENES, PROTEINS, 3)
    with pytest.raises(InputError, match="nothing-here"):
        initialise(model, GENES, PROTEINS, {"rna": tmp_path / "nothing-here"})


def test_closed_form_parts_stay_with_their_data(stages, tmp_path):
    saved(tmp_path / "parts", "pretrain-rna", ["A", "B", "C"], ["CD3"], 5, n_components=2)
    model = network(GENES, PROTEINS, 6, n_components=2)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    initialise(model, GENES, PROTEINS, {"rna": tmp_path / "parts"})
    for name, buffer in model.named_buffers():
        np.testing.assert_array_equal(buffer, buffers[name])


def test_what_is_held_out_must_not_have_been_seen_by_an_earlier_stage(stages):
    folders = {role: stages[role][0] for role in stages}
    assert seen_earlier(folders, ["other"]) == ("pbmc", "pretrain-rna", "pretrain-protein")
    with pytest.raises(InputError, match=r"init\.rna: .* was trained on pbmc, which is held out"):
        seen_earlier(folders, ["pbmc"])
