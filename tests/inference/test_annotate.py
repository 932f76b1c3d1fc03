"""Cell types by a reference: votes, confidence, what is new, columns, what is refused."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sclinguist_core as scl
from inference.following import following_checkpoint
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.inference import annotate_votes
from sclinguist_core.inference.annotate import annotate_iter, labels_of
from sclinguist_core.inference.annotate_votes import LabelledCells
from sclinguist_core.inference.progress import finish
from synthetic import paired_cells

NAMES = {"CD3": "T", "CD19": "B", "CD14": "monocyte", "CD56": "NK/ILC", "CD4": "T helper"}


def labelled(n, seed):
    """Cells whose kind is known: the protein of which they have most."""
    cells = paired_cells(n, seed=seed)
    protein = cells.obsm["protein"].drop(columns="IgG1")
    cells.obs["kind"] = protein.idxmax(axis=1).map(NAMES)
    return cells


@pytest.fixture(scope="module")
def reference():
    return labelled(300, seed=1)


@pytest.fixture(scope="module")
def query():
    cells = labelled(120, seed=2)
    counts = cells.X.toarray()
    counts[4] = 0  # a cell without reads
    cells.X = sparse.csr_matrix(counts)
    return cells


@pytest.fixture(scope="module")
def checkpoint(reference):
    return following_checkpoint(reference, training_datasets=("blood",))


def run(query, reference, checkpoint, labels="kind", **options):
    steps = annotate_iter(
        as_section(query), as_section(reference), labels, model=checkpoint, device="cpu", **options
    )
    return finish(steps)


def blobs(n, centers, seed=0, spread=1.0):
    """Cells around centres, and which centre."""
    rng = np.random.default_rng(seed)
    code = np.arange(n) % len(centers)
    values = np.asarray(centers, float)[code] + spread * rng.normal(size=(n, len(centers[0])))
    return values.astype(np.float32), np.array([f"type {c}" for c in code])


CENTERS = [[0, 0, 0], [8, 0, 0], [0, 8, 0]]


def test_types_come_over_from_the_reference(query, reference, checkpoint):
    result = run(query, reference, checkpoint)
    rows = np.arange(120) != 4
    truth = query.obs["kind"].to_numpy()
    assert (result.best == truth)[rows].mean() > 0.85
    assert ((result.confidence > 0.2) & (result.confidence <= 1.0))[rows].all()
    assert result.labels == sorted(NAMES.values())
    assert (result.best[4], result.cell_type[4]) == ("unassigned", "unassigned")
    assert np.isnan(result.confidence[4])
    assert result.info["references"] == ["AnnData"]
    assert sum(result.info["cell_types"].values()) == 300


def test_the_columns_are_written_and_nothing_else_changes(query, reference, checkpoint, tmp_path):
    query = query.copy()
    query.uns["sclinguist"] = {"model": "of a prediction"}
    table = scl.annotate(query, reference, "kind", model=checkpoint, device="cpu")
    new = [name for name in table.obs if name not in query.obs]
    assert new == [
        f"sclinguist_cell_type{end}" for end in ("", "_confidence", "_best", "_distance")
    ]
    assert "sclinguist_cell_type" not in query.obs
    assert table.uns["sclinguist"] == {"model": "of a prediction"}
    table.write_h5ad(tmp_path / "annotated.h5ad")
    again = ad.read_h5ad(tmp_path / "annotated.h5ad")
    categories = again.obs["sclinguist_cell_type"].cat.categories
    assert list(categories) == [*sorted(NAMES.values()), "unassigned"]
    written = again.uns["sclinguist_annotate"]
    assert written["cell_types"].set_index("cell_type")["reference_cells"].sum() == 300
    assert (written["labels"], written["model_digest"]) == ("kind", "0123456789ab")


def test_a_type_that_the_reference_lacks_is_rejected(query, reference, checkpoint):
    lacking = reference[(reference.obs["kind"] != "B").to_numpy()].copy()
    result = run(query, lacking, checkpoint)
    new = (query.obs["kind"] == "B").to_numpy()
    assert "B" not in result.labels
    rejected = result.cell_type == "unassigned"
    assert rejected[new].mean() > 3 * rejected[~new].mean()
    assert result.distance[new].mean() > 1.2 * np.nanmean(result.distance[~new])
    kept = run(query, lacking, checkpoint, reject_novel=False, min_confidence=0.0)
    assert (kept.cell_type == "unassigned").tolist() == [i == 4 for i in range(120)]


def test_references_are_pooled_and_rows_without_a_label_left_out(query, reference, checkpoint):
    parts = [reference[:150].copy(), reference[150:].copy()]
    parts[1].obs["kind"] = parts[1].obs["kind"].astype(object)
    parts[1].obs.iloc[:5, parts[1].obs.columns.get_loc("kind")] = [None, "NaN", "unknown", "", "-"]
    steps = annotate_iter(
        as_section(query), [as_section(p) for p in parts], "kind", model=checkpoint, device="cpu"
    )
    result = finish(steps)
    assert "-" in result.labels
    assert sum(result.info["cell_types"].values()) == 296
    assert any(s.startswith("4 of 300 reference cells have no label") for s in result.warnings)


def test_progress_counts_reference_and_input(query, reference, checkpoint):
    steps = annotate_iter(
        as_section(query), as_section(reference), "kind", model=checkpoint, device="cpu"
    )
    seen = list(steps)
    assert {progress.total for progress in seen} == {420}
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert done[-1] == 420
    phases = list(dict.fromkeys(progress.phase for progress in seen))
    assert phases == [
        "loading model", "embedding reference", "embedding", "calibrating", "voting"
    ]  # fmt: skip


def test_center_moves_the_query_half_way(query, reference, checkpoint, monkeypatch):
    seen = []
    call = LabelledCells.__call__
    monkeypatch.setattr(
        LabelledCells, "__call__", lambda self, values: (seen.append(values), call(self, values))[1]
    )
    run(query, reference, checkpoint)
    run(query, reference, checkpoint, correct="center")
    target = scl.embed(reference, model=checkpoint, device="cpu").obsm["X_sclinguist"].mean(axis=0)
    before, after = (np.nanmean(values, axis=0) for values in seen)
    np.testing.assert_allclose(after, (before + target) / 2, atol=1e-5)


def test_cells_that_the_model_was_trained_on_are_told(query, reference, checkpoint):
    steps = annotate_iter(
        as_section(query),
        as_section(reference).renamed("Blood_"),
        "kind",
        model=checkpoint,
        device="cpu",
    )
    result = finish(steps)
    assert result.info["seen_in_training"] == ["blood"]
    assert (
        "The model was trained on blood: results are better here than they would be on new data."
        in result.warnings
    )
    unseen = run(query, reference, checkpoint)
    assert unseen.info["seen_in_training"] == []
    assert not any("was trained on" in sentence for sentence in unseen.warnings)


def test_the_notebook_passes_the_seed_on(query, reference, checkpoint):
    for seed in (0, 7):
        table = scl.annotate(query, reference, "kind", model=checkpoint, device="cpu", seed=seed)
        assert table.uns["sclinguist_annotate"]["seed"] == seed


def test_a_left_out_cell_does_not_vote_for_itself():
    values, names = blobs(60, CENTERS)
    names = names.astype(object)
    names[7] = "one of a kind"
    cells = LabelledCells(values, names)
    shares = cells._shares(values, own=np.arange(60))
    column = cells.names.index("one of a kind")
    assert shares[7, column] < 0.01
    assert cells._shares(values)[7, column] > 0.05


def test_votes_are_right_and_far_cells_are_new():
    values, names = blobs(300, CENTERS)
    cells = LabelledCells(values, names)
    near, truth = blobs(90, CENTERS, seed=1)
    far = np.full((10, 3), 30.0, np.float32)
    votes = cells(np.concatenate([near, far]))
    said = np.array(cells.names)[votes.probability[:90].argmax(axis=1)]
    assert (said == truth).all()
    assert (votes.distance[:90] > 1).mean() < 0.1
    assert (votes.distance[90:] > 1).all()
    np.testing.assert_allclose(votes.probability.sum(axis=1), 1.0, rtol=1e-5)


def test_the_limit_follows_a_data_set_that_is_farther_as_a_whole():
    values, names = blobs(300, CENTERS)
    cells = LabelledCells(values, names)
    wide, _ = blobs(300, CENTERS, seed=1, spread=1.6)
    lone = np.concatenate([wide[:1], values[1:]])
    # The same cell is less of an outlier among others that are alike.
    assert cells(wide).distance[0] < cells(lone).distance[0]


def test_labels_that_are_noise_make_a_modest_confidence():
    values, _ = blobs(400, [[0, 0, 0]])
    names = np.random.default_rng(0).choice(["a", "b"], 400)
    cells = LabelledCells(values, names)
    assert cells.temperature > 2
    assert np.abs(cells(values[:50] + 0.01).probability - 0.5).max() < 0.35


def test_a_rare_type_is_not_outvoted():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(330, 2)).astype(np.float32)
    values[:30, 0] += 2.5
    cells = LabelledCells(values, np.array(["rare"] * 30 + ["common"] * 300))
    votes = cells(np.array([[2.5, 0.0]], np.float32))
    assert cells.names[votes.probability[0].argmax()] == "rare"


def test_identical_and_lost_cells_do_no_harm():
    values = np.zeros((40, 3), np.float32)
    values[20:] = 5
    cells = LabelledCells(values, np.repeat(["a", "b"], 20))
    query = np.array([[0, 0, 0], [5, 5, 5], [np.nan, 0, 0]], np.float32)
    votes = cells(query)
    assert votes.probability[:2].argmax(axis=1).tolist() == [0, 1]
    assert np.isnan(votes.probability[2]).all()
    assert np.isnan(votes.distance[2])
    assert np.isfinite(votes.distance[:2]).all()


def test_few_cells_all_vote():
    cells = LabelledCells(np.array([[0.0, 0], [0, 1], [9, 9]], np.float32), ["a", "a", "b"])
    votes = cells(np.array([[0.0, 0.4]], np.float32))
    assert cells.names[votes.probability[0].argmax()] == "a"
    with pytest.raises(InputError, match="found 1 labelled cells, expected at least two"):
        LabelledCells(np.zeros((1, 2), np.float32), ["a"])


def test_a_large_reference_is_calibrated_on_a_sample(monkeypatch):
    values, names = blobs(300, CENTERS)
    monkeypatch.setattr(annotate_votes, "MAX_CALIBRATION", 50)
    first, again = (LabelledCells(values, names, seed=3) for _ in range(2))
    assert len(first._own_distance) == 50
    assert first.temperature == again.temperature


def test_labels_of_reads_categories_numbers_and_gaps():
    table = ad.AnnData(
        obs=pd.DataFrame(
            {
                "type": pd.Categorical(["T", " B ", None, "Undefined"]),
                "cluster": [1, 2, 1, 3],
                "share": [0.5, 0.1, 0.2, 0.3],
            },
            index=list("abcd"),
        )
    )
    assert labels_of(table, "type", "x").tolist() == ["T", "B", None, None]
    assert labels_of(table, "cluster", "x").tolist() == ["1", "2", "1", "3"]
    with pytest.raises(InputError, match="holds numbers with decimals, expected labels"):
        labels_of(table, "share", "x")
    with pytest.raises(InputError, match="x: found no column 'kind' in obs, expected one of type"):
        labels_of(table, "kind", "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "celltype"}, "found no column 'celltype' in obs, expected one of kind, one"),
        ({"labels": "one"}, "found 1 cell types in the reference, expected two or more"),
        ({"min_confidence": 50}, "minimum confidence 50: expected a number from 0 to 1"),
        ({"correct": "harmony"}, "correct 'harmony': expected one of none, center"),
        ({"context": "near"}, "context 'near'"),
        ({"context": "spatial"}, "has no positions"),
        ({"n_neighbours": 0}, "neighbours 0: expected at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(query, reference, checkpoint, options, message):
    reference = reference.copy()
    reference.obs["one"] = "T"
    with pytest.raises(InputError, match=message):
        run(query, reference, checkpoint, **options)
    with pytest.raises(InputError, match="found an empty list, expected labelled cells"):
        finish(annotate_iter(as_section(query), [], "kind", model=checkpoint))
