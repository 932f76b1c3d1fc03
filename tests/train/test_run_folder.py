import json

import pytest
import yaml

from sclinguist_core.errors import InputError
from sclinguist_core.train.fit import Step
from sclinguist_core.train.run_folder import RunFolder, is_first_process
from sclinguist_core.train.state import write_state

RECIPE = yaml.safe_dump({"name": "x", "fit": {"steps": 20}, "trainer": {"workers": 0}})
RECORD = {"stage": "post-pretrain", "data": {"a.h5ad": {"sha256": "1"}}}


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "deep" / "run")
    folder.create(RECIPE, RECORD, resume=False)
    return folder


def step(done, score=None):
    return Step(
        done=done, total=20, error=0.5, loss=0.75, learning_rate=0.1, cells_per_second=99.96,
        score=score,
    )  # fmt: skip


def test_recipe_and_record_are_written(run):
    assert run.recipe_path.read_text() == RECIPE
    assert json.loads((run.path / "run.json").read_text()) == RECORD
    assert run.last_step() == 0


def test_a_used_folder_is_kept(run):
    with pytest.raises(InputError, match="holds a run already; add --resume"):
        run.create(RECIPE, RECORD, resume=False)


def test_a_folder_of_something_else_is_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(InputError, match="holds no run, expected a new folder"):
            RunFolder(tmp_path).create(RECIPE, RECORD, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(InputError, match="is a file, expected a folder"):
        RunFolder(tmp_path / "run").create(RECIPE, RECORD, resume=False)


def test_a_job_can_always_be_started_with_resume(tmp_path):
    RunFolder(tmp_path).create(RECIPE, RECORD, resume=True)
    RunFolder(tmp_path).create(RECIPE, RECORD, resume=True)
    assert RunFolder(tmp_path).recipe_path.read_text() == RECIPE


def test_devices_may_change_and_what_is_learned_may_not(run):
    values = yaml.safe_load(RECIPE)
    run.create(yaml.safe_dump(values | {"trainer": {"workers": 4}}), RECORD, resume=True)
    other = yaml.safe_dump(values | {"fit": {"steps": 30}, "name": "y"})
    with pytest.raises(InputError, match=r"another recipe \(fit, name differ\)"):
        run.create(other, RECORD, resume=True)


def test_another_stage_does_not_go_on(run):
    with pytest.raises(InputError, match="run of post-pretrain, expected one of pretrain-rna"):
        run.create(RECIPE, RECORD | {"stage": "pretrain-rna"}, resume=True)


@pytest.mark.parametrize("text", [None, "{", "[1]"])
def test_a_run_without_its_record_does_not_go_on(run, text):
    record = run.path / "run.json"
    record.unlink() if text is None else record.write_text(text)
    with pytest.raises(InputError, match=r"run\.json: expected the record of the run"):
        run.create(RECIPE, RECORD, resume=True)


def test_changed_data_are_noticed(run):
    changed = RECORD | {"data": {"a.h5ad": {"sha256": "2"}}}
    with pytest.raises(InputError, match=r"a\.h5ad: has changed since the run"):
        run.create(RECIPE, changed, resume=True)


def test_metrics_are_cut_to_the_saved_step(run):
    for done in (5, 10, 15):
        run.add_metrics(step(done, score=0.25), {"error": 0.5}, {"set, one": 0.25})
    with run.metrics_path.open("a") as file:
        file.write("20,0.7")  # killed while writing
    run.cut_metrics(10)
    assert run.metrics_path.read_text().splitlines() == [
        "step,loss,error,learning_rate,cells_per_second,heldout",
        "5,0.75,0.5,0.1,100.0,0.25",
        "10,0.75,0.5,0.1,100.0,0.25",
    ]
    assert run.heldout_path.read_text().splitlines() == [
        "step,dataset,score", '5,"set, one",0.25', '10,"set, one",0.25',
    ]  # fmt: skip


def test_an_unvalidated_step_has_no_score(run):
    run.add_metrics(step(5), {"error": 0.5}, {})
    assert run.metrics_path.read_text().splitlines()[1].endswith(",100.0,")
    assert not run.heldout_path.exists()


def test_half_written_state_is_swept_away(run):
    write_state({"sclinguist": {"step": 7}}, run.state_path)
    stray = run.state_path.with_name(f".{run.state_path.name}.abc.part")
    stray.mkdir()
    (stray / ".lock").touch()
    (stray / run.state_path.name).write_bytes(b"half")
    run.create(RECIPE, RECORD, resume=True)
    assert run.last_step() == 7
    write_state({"sclinguist": {"step": 8}}, run.state_path)
    assert [path.name for path in run.state_path.parent.iterdir()] == [run.state_path.name]
    assert run.last_step() == 8


def kill_while_creating(folder, n_files):
    """What is there when `create` is killed behind so many of its steps."""
    run = RunFolder(folder)
    run.state_path.parent.mkdir(parents=True)
    if n_files > 0:
        (folder / ".run.json.abc.part").mkdir()
    if n_files > 1:
        (folder / "run.json").write_text(json.dumps(RECORD))
    if n_files > 2:
        (folder / ".recipe.yaml.abc.part").mkdir()
        (folder / ".recipe.yaml.abc.part" / ".lock").touch()
        (folder / ".recipe.yaml.abc.part" / "recipe.yaml").write_text(RECIPE[:5])
    return run


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("n_files", [0, 1, 2, 3])
def test_a_folder_whose_making_was_killed_is_begun_anew(tmp_path, n_files, resume):
    run = kill_while_creating(tmp_path / "run", n_files)
    run.create(RECIPE, RECORD, resume=resume)
    assert sorted(path.name for path in run.path.iterdir()) == ["recipe.yaml", "run.json", "state"]
    assert run.recipe_path.read_text() == RECIPE


def test_the_record_of_another_program_is_not_replaced(tmp_path):
    (tmp_path / "run.json").write_text('{"theirs": 1}')
    with pytest.raises(InputError, match="holds no run"):
        RunFolder(tmp_path).create(RECIPE, RECORD, resume=True)
    assert (tmp_path / "run.json").read_text() == '{"theirs": 1}'


def test_an_empty_table_of_reports_gets_its_header_again(run):
    run.metrics_path.touch()  # killed before its first line
    run.cut_metrics(0)
    run.add_metrics(step(1), {"clr": 0.5}, {})
    assert run.metrics_path.read_text().splitlines()[0].startswith("step,loss,clr")


def test_only_an_untouched_folder_is_taken_away(run):
    write_state({"sclinguist": {"step": 7}}, run.state_path)
    run.remove_if_untouched()
    assert run.recipe_path.is_file()
    run.state_path.unlink()
    run.remove_if_untouched()
    assert not run.path.exists()


def test_one_process_writes(monkeypatch):
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert is_first_process()
    for name in names:
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            assert not is_first_process()
