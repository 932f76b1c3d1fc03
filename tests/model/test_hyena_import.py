"""Published checkpoints become folders, and nothing in them is run."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from model.published_layout import published_weights, save_with_foreign_classes
from model.test_restricted_pickle import Hostile
from sclinguist_core.cli import app
from sclinguist_core.errors import InputError
from sclinguist_core.inference.predict import predict
from sclinguist_core.model.checkpoint import load_checkpoint
from sclinguist_core.model.hyena import HyenaTranslator
from sclinguist_core.model.hyena_config import PARTS, HyenaConfig
from sclinguist_core.model.hyena_import import import_checkpoint, import_iter
from sclinguist_core.model.hyena_published import load_published
from sclinguist_core.model.hyena_tables import read_gene_order, read_protein_order
from sclinguist_core.vocabulary.genes import gene_table
from synthetic import paired_cells

N_GENES, PROTEINS = 30, ["TAP1", "CD3", "CD19", "MRP1", "FAS", "CD95", "TCR.1", "TCRAB"]
CONFIG = HyenaConfig(n_genes=N_GENES, n_proteins=len(PROTEINS), width=6, filter_width=8)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return HyenaTranslator(CONFIG).eval()


@pytest.fixture
def tables(tmp_path):
    """The authors' two tables; positions are not sorted by anything."""
    genes = tmp_path / "gene_order.csv"
    ids = gene_table()["ensembl_id"].loc[["CD19", "CD3E", "CD14"]].tolist()
    ids += ["ENSG00000168255"]  # not known under a current symbol
    ids += gene_table()["ensembl_id"].iloc[100 : 100 + N_GENES - len(ids)].tolist()
    pd.DataFrame({0: ids, 1: 1, 2: 5, 3: 9}, index=range(7, 7 + N_GENES)).to_csv(genes)
    proteins = tmp_path / "protein_index_map.csv"
    pd.DataFrame({"name": PROTEINS, "index": range(len(PROTEINS))}).iloc[::-1].to_csv(
        proteins, index=False
    )
    return {"genes": genes, "proteins": proteins}


def options(tables):
    return [part for name, path in tables.items() for part in (f"--{name}", str(path))]


def test_a_hostile_checkpoint_is_imported_and_nothing_is_run(model, tables, tmp_path):
    mark = tmp_path / "executed"
    trap = Hostile(mark, "system")
    weights = published_weights(model)
    file = save_with_foreign_classes(tmp_path / "finetune.ckpt", weights, callbacks={"t": trap})
    folder = tmp_path / "imported"
    result = CliRunner().invoke(
        app, ["import-checkpoint", str(file), "-o", str(folder), *options(tables)]
    )
    assert result.exit_code == 0, result.output
    assert not mark.exists()
    assert result.stdout.strip() == str(folder)
    assert "asks to run posix.system" in result.stderr
    assert "nothing was run" in (folder / "card.md").read_text()
    # The trap is a real one: whoever unpickles it falls into it.
    pickle.loads(pickle.dumps(trap))
    assert mark.exists()
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.md", "config.json", "genes.tsv", "model.safetensors", "proteins.tsv",
    ]  # fmt: skip
    loaded = load_checkpoint(folder)
    assert loaded.info.model == CONFIG
    assert loaded.info.stage == "post-pretrain"
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weight), name
    x = torch.rand(2, N_GENES)
    torch.testing.assert_close(loaded.model(x), model(x), rtol=1e-5, atol=1e-6)


def test_positions_get_names_of_their_own(model, tables, tmp_path):
    file = save_with_foreign_classes(tmp_path / "made.ckpt", published_weights(model))
    checkpoint = import_checkpoint(file, **tables)
    assert checkpoint.symbols[:4] == ["CD19", "CD3E", "CD14", "ENSG00000168255"]
    assert checkpoint.genes["symbol"].is_unique
    proteins = checkpoint.proteins.set_index("published_name")
    assert proteins.index.tolist() == PROTEINS
    # MRP1 is an alias of CD9 and the mnemonic of another protein: it keeps its name, no gene.
    # CD95 stands there itself, so FAS stays FAS; of two T cell receptors the better spelled wins.
    assert proteins["name"].to_dict() == {
        **{name: name for name in PROTEINS}, "MRP1": "CD9", "TCRAB": "TCRab",
    }  # fmt: skip
    assert proteins.loc["TCR.1", "genes"] == ""
    assert proteins.loc["FAS", "genes"] == "FAS"
    assert proteins.loc["TCRAB", "genes"] == "TRAC;TRBC1;TRBC2"


def test_an_alias_yields_to_the_protein_that_bears_the_name(tmp_path):
    path = tmp_path / "map.csv"
    names = ["HPDL", "MRP1", "CD9", "CD8A", "CD8", "gtpba"]
    pd.DataFrame({"name": names, "index": range(6)}).to_csv(path, index=False)
    order = read_protein_order(path)
    assert order.table["name"].tolist() == names
    assert order.table["genes"].tolist() == ["HPDL", "", "CD9", "CD8A", "CD8A", ""]
    assert order.n_known == 5


def test_cells_are_predicted_by_symbol_and_by_id(model, tables, tmp_path):
    file = save_with_foreign_classes(tmp_path / "made.ckpt", published_weights(model))
    checkpoint = import_checkpoint(file, **tables)
    cells = paired_cells(12)
    cells = cells[:, :300].copy()
    names = list(cells.var_names)
    # Every gene of the model but the last three, one of them by its id alone.
    present = checkpoint.symbols[:-3]
    others = [name for name in names if name not in checkpoint.symbols]
    cells.var_names = [*present, *others][:300]
    out = predict(cells, model=checkpoint, device="cpu")
    info = out.uns["sclinguist"]
    assert info["genes_not_found"] == checkpoint.symbols[-3:]
    assert info["genes_found"] == N_GENES - 3
    said = [sentence for sentence in info["warnings"] if "enter as 0" in sentence]
    assert len(said) == 1
    assert f"3 of the model's 30 genes were not found ({checkpoint.symbols[-3]}, " in said[0]
    assert info["unit"] == "min-max of the cell's protein panel"
    assert info["rna_normalization"] == "log1p_cp10k"
    assert list(out.obsm["protein_predicted"]) == checkpoint.protein_names
    assert not {"protein_predicted_low", "protein_predicted_std"} & set(out.obsm)
    # CP10k over the model's genes alone, absent ones 0.
    counts = np.zeros((12, N_GENES), np.float32)
    counts[:, : N_GENES - 3] = np.asarray(cells[:, present].X.todense())
    x = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    with torch.inference_mode():
        expected = model(torch.from_numpy(x))
    np.testing.assert_allclose(out.obsm["protein_predicted"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("part", "given"), [("encoder", "genes"), ("decoder", "proteins")])
def test_stage_one_gives_one_part(tables, tmp_path, part, given):
    n = N_GENES if part == "encoder" else len(PROTEINS)
    torch.manual_seed(1)
    both = HyenaTranslator(HyenaConfig(n_genes=n, n_proteins=n, width=6, filter_width=8))
    weights = published_weights(both)
    # As the published code writes them: a token that no graph uses, and an idle bridge.
    weights |= {f"{part}.to_vector_tech.weight": torch.ones(6, 1)}
    file = save_with_foreign_classes(tmp_path / f"{part}.ckpt", weights)
    folder = tmp_path / part
    result = CliRunner().invoke(
        app, ["import-checkpoint", str(file), "-o", str(folder), f"--{given}", str(tables[given])]
    )
    assert result.exit_code == 0, result.output
    loaded = load_checkpoint(folder)
    assert loaded.info.model.parts == (part,)
    assert loaded.info.stage == {"encoder": "pretrain-rna", "decoder": "pretrain-protein"}[part]
    assert {name.partition(".")[0] for name in loaded.model.state_dict()} == {part}
    for name, weight in getattr(both, part).state_dict().items():
        assert torch.equal(getattr(loaded.model, part).state_dict()[name], weight)
    assert (len(loaded.genes), len(loaded.proteins)) == ((n, 0) if part == "encoder" else (0, n))
    with pytest.raises(InputError, match="has not learned to predict protein from RNA"):
        predict(paired_cells(5), model=loaded)


def test_what_does_not_fit_is_said(model, tables, tmp_path):
    file = save_with_foreign_classes(tmp_path / "made.ckpt", published_weights(model))
    short = tmp_path / "short.csv"
    lines = tables["genes"].read_text().splitlines(keepends=True)
    short.write_text("".join(lines[:-1]))
    torch.save({"state_dict": {"layer.weight": torch.ones(2)}}, tmp_path / "other.ckpt")
    square = HyenaTranslator(HyenaConfig(n_genes=12, n_proteins=12, width=6, filter_width=8))
    stage_one = save_with_foreign_classes(tmp_path / "one.ckpt", published_weights(square))
    infinite = published_weights(model)
    infinite["translator.fc1.bias"][2] = torch.nan
    damaged = save_with_foreign_classes(tmp_path / "nan.ckpt", infinite)
    for path, given, said in (
        (file, {**tables, "genes": short}, "29 rows, expected 30"),
        (file, {"genes": tables["genes"]}, "give it as --proteins"),
        (file, {"proteins": tables["proteins"]}, "give it as --genes"),
        (tmp_path / "other.ckpt", tables, "such as layer.weight"),
        (stage_one, tables, "12 positions .stage 1., found 30 rows"),
        (damaged, tables, "not finite"),
        (tables["genes"], tables, "zip archive"),
    ):
        with pytest.raises(InputError, match=said) as error:
            import_checkpoint(path, **given)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("inside", ["source", "genes", "proteins", "link"])
def test_nothing_is_written_over_what_is_read(model, tables, tmp_path, inside):
    """A folder is replaced whole, and what is read from it would be gone."""
    file = save_with_foreign_classes(tmp_path / "finetune.ckpt", published_weights(model))
    folder = tmp_path / "model"

    def run(source, tables, output=folder):
        return CliRunner().invoke(
            app, ["import-checkpoint", str(source), "-o", str(output), *options(tables)]
        )

    assert run(file, tables).exit_code == 0
    moved, output = dict(tables), folder
    if inside == "source":
        moved_file = file = file.rename(folder / "model.ckpt")
    elif inside == "link":
        output = tmp_path / "link"
        output.symlink_to(folder)
        moved_file = moved["genes"] = tables["genes"].rename(folder / "genes.tsv")
    else:
        moved_file = moved[inside] = tables[inside].rename(folder / f"{inside}.tsv")
    content = moved_file.read_bytes()
    result = run(file, moved, output)
    assert result.exit_code == 1
    assert "lies in" in str(result.exception or result.stderr)
    assert moved_file.read_bytes() == content


def test_large_finite_weights_are_weights(model):
    weights = published_weights(model)
    largest = torch.finfo(torch.float32).max
    weights["translator.fc1.weight"][:] = largest
    loaded = load_published(weights)
    assert (loaded.bridge.layers[1].weight == largest).all()
    for value in (torch.nan, torch.inf, -torch.inf):
        weights["translator.fc1.weight"][1, 2] = value
        with pytest.raises(InputError, match="not finite"):
            load_published(weights)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,index\nCD3,0\nCD4,2\n", "no protein of index 1"),
        ("name,index\nCD3,0\nCD3,1\n", "CD3 is there 2 times"),
        ("protein,place\nCD3,0\n", "found the columns protein, place"),
        ("name,index\nCD3,0,1\n", "rows of as many values"),
        ("", "found 0 lines"),
    ],
)
def test_damaged_tables_of_proteins(tmp_path, text, said):
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        read_protein_order(tmp_path / "map.csv")


def test_damaged_tables_of_genes(tmp_path):
    path = tmp_path / "genes.csv"
    path.write_text(",0\n1,CD3E\n2,CD4\n")
    with pytest.raises(InputError, match="Ensembl ids"):
        read_gene_order(path)
    path.write_text(",0\n1,ENSG00000177455.12\n2,ENSG00000177455\n")
    with pytest.raises(InputError, match="ENSG00000177455 is there 2 times"):
        read_gene_order(path)
    with pytest.raises(InputError, match="No such file"):
        read_gene_order(tmp_path / "none.csv")


def test_progress_covers_the_file_and_its_weights(model, tables, tmp_path):
    file = save_with_foreign_classes(tmp_path / "made.ckpt", published_weights(model))
    steps = list(import_iter(file, **tables))
    assert [step.phase for step in steps if step.phase == "checking"] == ["checking"]
    assert steps[0][:2] == (file.stat().st_size, file.stat().st_size)
    reading = [step.done for step in steps if step.phase == "reading"]
    assert reading == sorted(reading)
    assert len(reading) == len(list(model.named_parameters())) + len(list(model.named_buffers()))


@pytest.mark.data
def test_the_published_tables(test_data):
    """The authors' own files: every position has a name of its own."""
    genes = read_gene_order(test_data / "names" / "scLinguist_gene_order.csv")
    proteins = read_protein_order(test_data / "names" / "scLinguist_protein_index_map.csv")
    assert (len(genes.table), len(proteins.table)) == (19_202, 6_427)
    assert genes.table["symbol"].is_unique
    assert proteins.table["name"].is_unique
    assert genes.n_known > 19_100
    assert proteins.table["name"].isin(["CD3", "CD19", "CD279", "TCRab", "HLA-DR"]).sum() == 5


@pytest.mark.data
def test_the_tiny_published_checkpoint(test_data, tmp_path):
    """Through the folder, the published numbers come out again, from counts on."""
    reference = test_data / "reference" / "hyena"
    tables = {}
    for option, name, n_rows in (
        ("genes", "gene_order", 96),
        ("proteins", "protein_index_map", 40),
    ):
        table = (test_data / "names" / f"scLinguist_{name}.csv").read_text()
        rows = table.splitlines(keepends=True)
        tables[option] = tmp_path / f"{name}.csv"
        tables[option].write_text("".join(rows[: n_rows + 1]))
    folder = tmp_path / "tiny"
    result = CliRunner().invoke(
        app,
        [
            "import-checkpoint",
            str(reference / "tiny_finetune.ckpt"),
            "-o",
            str(folder),
            *options(tables),
        ],
    )
    assert result.exit_code == 0, result.output
    loaded = load_checkpoint(folder)
    published = json.loads((reference / "keys.json").read_text())
    assert loaded.info.model.parts == PARTS
    n_named = sum(
        int(np.prod(shape))
        for part in published.values()
        for name, shape in part.items()
        # Written once a layer, or following from the sizes.
        if not name.endswith(("filter.3.freq", "filter.5.freq", "pos_emb.t", "deltas"))
    )
    assert sum(p.numel() for p in loaded.model.parameters()) == n_named
    with np.load(reference / "tiny_expected.npz") as file:
        expected = dict(file)
    with torch.inference_mode():
        protein = loaded.model(torch.from_numpy(expected["rna"]))
    largest = np.abs(expected["protein"]).max()
    np.testing.assert_allclose(protein / largest, expected["protein"] / largest, rtol=0, atol=1e-5)
