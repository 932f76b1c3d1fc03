from dataclasses import replace

import numpy as np
import pytest
import torch

import small_runs
from sclinguist_core.errors import InputError
from sclinguist_core.train.augment import Augmentation
from sclinguist_core.train.chunks import PairedChunks, StepChunks
from sclinguist_core.train.module import TrainingModule
from sclinguist_core.train.objectives import PairedObjective
from sclinguist_core.train.options import TrainerConfig
from sclinguist_core.train.run_folder import RunFolder
from sclinguist_core.train.signals import StopRequest

QUIET = replace(small_runs.OPTIONS, log_every=100, validate_every=100)
SHORT = replace(small_runs.FIT, steps=10)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_error_falls_and_unseen_cells_are_predicted():
    steps = []
    config = replace(small_runs.FIT, steps=40, learning_rate=0.02)
    result = small_runs.train(config=config, progress=steps.append)
    assert steps[-1].error < 0.5 * steps[0].error
    assert result.score > 0.6
    assert result.scores.keys() == {"new"}
    assert steps[-1].learning_rate < 1e-3 * config.learning_rate
    assert (steps[-1].done, steps[-1].total) == (40, 40)


def test_training_stops_when_held_out_sets_no_longer_gain():
    """A rate of nothing learns nothing: the first validation is the best."""
    options = replace(small_runs.OPTIONS, validate_every=2, patience=3)
    config = replace(small_runs.FIT, learning_rate=1e-12)
    result = small_runs.train(options=options, config=config)
    assert result.stopped_early
    assert result.steps == 8
    assert result.kept_step == 2


def test_going_on_after_an_early_stop_changes_nothing(tmp_path):
    options = replace(small_runs.OPTIONS, validate_every=2, patience=1)
    config = replace(small_runs.FIT, learning_rate=1e-12)
    first = small_runs.train(tmp_path, options=options, config=config)
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    again = small_runs.train(tmp_path, options=options, config=config, resume=True)
    assert (first.steps, first.kept_step, first.stopped_early) == (4, 2, True)
    assert (again.steps, again.kept_step, again.stopped_early) == (4, 2, True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == files


def test_the_best_weights_are_kept_or_the_last():
    options = replace(small_runs.OPTIONS, validate_every=5)
    config = replace(SHORT, learning_rate=1e-12)
    seen = []
    best = small_runs.network()
    result = small_runs.train(model=best, options=options, config=config, on_best=seen.append)
    assert (result.kept_step, len(seen)) == (5, 1)
    torch.testing.assert_close(best.state_dict(), seen[0].weights, rtol=0, atol=0)
    last = small_runs.train(options=replace(options, keep="last"), config=config)
    assert last.kept_step == 10


def test_passes_and_workers_change_nothing_but_rounding():
    models = [small_runs.network() for _ in range(3)]
    for model, options in zip(
        models, (QUIET, replace(QUIET, accumulate=4), replace(QUIET, workers=2)), strict=True
    ):
        small_runs.train(model=model, options=options, config=SHORT)
    torch.testing.assert_close(weights(models[0]), weights(models[1]), rtol=1e-3, atol=1e-3)
    assert torch.equal(weights(models[0]), weights(models[2]))


def test_frozen_parameters_stay():
    model = small_runs.network()
    model.gene_embedding.requires_grad_(False)
    before, bias = model.gene_embedding.clone(), model.protein_bias.clone()
    small_runs.train(model=model, options=QUIET, config=SHORT)
    assert torch.equal(model.gene_embedding, before)
    assert not torch.equal(model.protein_bias, bias)
    assert not model.training


def test_half_precision_learns_too():
    steps = []
    options = replace(small_runs.OPTIONS, precision="bf16-mixed")
    small_runs.train(options=options, config=replace(SHORT, steps=20), progress=steps.append)
    assert steps[-1].error < steps[0].error


def test_the_loss_is_a_mean_over_all_measured_entries():
    """However rows are cut into chunks, sums over sums are the mean of the whole."""
    sets = [small_runs.paired_set("one", 1), small_runs.paired_set("two", 2)]
    config = replace(small_runs.FIT, sets_per_step=2)
    chunks = PairedChunks(sets, small_runs.SHARE, config, Augmentation())
    drawn = StepChunks(chunks, 0, 1).of(0)
    objective = PairedObjective(small_runs.network(), 0.2).eval()
    together = objective(drawn) / torch.tensor([c.counts for c in drawn]).sum(0)
    apart = sum(objective([c]) for c in drawn) / torch.tensor([c.counts for c in drawn]).sum(0)
    torch.testing.assert_close(together, apart)
    for chunk in drawn:
        measured = torch.isfinite(chunk.tensors["target"]).sum().item()
        assert chunk.counts[0] == pytest.approx(measured * small_runs.N_PROTEINS**-0.5)
        assert measured < chunk.tensors["target"].numel()  # some entries are missing


def test_chunks_are_functions_of_seed_step_and_number():
    sets = [small_runs.paired_set("one", 1), small_runs.paired_set("two", 2)]

    def source(seed=0):
        config = replace(small_runs.FIT, seed=seed)
        return PairedChunks(sets, small_runs.SHARE, config, Augmentation())

    one, again = source().chunk(5, 3), source().chunk(5, 3)
    assert all(torch.equal(one.tensors[k].nan_to_num(), again.tensors[k].nan_to_num())
               for k in one.tensors)  # fmt: skip
    assert one.seed == again.seed
    others = [source().chunk(5, 2), source().chunk(4, 3), source(seed=1).chunk(5, 3)]
    assert len({one.seed, *(chunk.seed for chunk in others)}) == 4
    whole = StepChunks(source(), 5, 6).of(5)
    parts = [StepChunks(source(), 5, 6, rank=r, world_size=3).of(5) for r in range(3)]
    assert [len(part) for part in parts] == [2, 1, 1]
    assert [c.seed for c in whole] == [parts[n % 3][n // 3].seed for n in range(4)]


def test_more_processes_than_chunks_are_refused():
    class Many:
        world_size = 5

    module = TrainingModule(
        PairedObjective(small_runs.network(), 0.2),
        PairedChunks([], small_runs.SHARE, small_runs.FIT, None),
        small_runs.FIT, TrainerConfig(), StopRequest(),
    )  # fmt: skip
    module._trainer = Many()
    with pytest.raises(InputError, match="4 chunks a step for 5 processes"):
        module.on_fit_start()


@pytest.mark.parametrize(
    "values",
    [{"strategy": "dp"}, {"precision": "16"}, {"save_every": 0}, {"patience": -1}, {"devices": 0},
     {"keep": "first"}, {"accelerator": "tpu"}],
)  # fmt: skip
def test_refused_options(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        TrainerConfig(**values)


def test_devices_that_are_not_there_are_one_sentence():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(InputError, match=r"set trainer\.accelerator=cpu"):
        small_runs.train(options=replace(QUIET, accelerator="cuda"))


def test_the_folder_holds_metrics_and_no_pickle(tmp_path):
    small_runs.train(tmp_path, config=SHORT)
    run = RunFolder(tmp_path)
    assert run.last_step() == 10
    assert run.heldout_path.read_text().splitlines()[0] == "step,dataset,score"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".csv", ".safetensors"}
    # A pickle begins with its protocol, a zipped one (torch.save) with PK.
    assert not any(path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04", b"PK") for path in files)


def test_going_on_after_the_end_changes_nothing(tmp_path):
    first = small_runs.train(tmp_path, config=SHORT)
    again = small_runs.train(tmp_path, config=SHORT, resume=True)
    assert again.steps == 10
    for name, value in first.weights.items():
        np.testing.assert_array_equal(value, again.weights[name])
