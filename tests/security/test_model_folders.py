"""A model folder that came from elsewhere: what is a link in it leads nowhere else."""

import os
import shutil

import pytest

from evaluation.tiny_model import tiny_checkpoint
from sclinguist_core import resources
from sclinguist_core.errors import InputError
from sclinguist_core.model import checkpoint as checkpoints
from sclinguist_core.model.checkpoint import load_checkpoint, read_summary, save_checkpoint

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")

FILES = ["model.safetensors", "config.json", "genes.tsv", "proteins.tsv", "card.md"]
OPTIONAL = ["calibration.json", "familiarity.safetensors", "conditioning.safetensors"]


@pytest.fixture
def model(tmp_path):
    return save_checkpoint(tiny_checkpoint(), tmp_path / "model")


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("name", FILES + OPTIONAL)
def test_a_link_out_is_refused(tmp_path, model, name, relative):
    secret = tmp_path / "secret"
    if (model / name).exists():
        (model / name).rename(secret)  # even what would do
    else:
        secret.write_text("secret")
    (model / name).symlink_to("../secret" if relative else secret)
    for read in (load_checkpoint, read_summary):
        with pytest.raises(InputError, match=rf"{name}: is a link to .*secret"):
            read(model)


def test_a_link_to_what_never_ends(model):
    (model / "card.md").unlink()
    (model / "card.md").symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"found no card\.md"):
        read_summary(model)
    (model / "card.md").unlink()
    os.mkfifo(model / "card.md")
    with pytest.raises(InputError, match=r"found no card\.md"):
        read_summary(model)


def test_a_link_in_a_circle(model):
    (model / "card.md").unlink()
    (model / "card.md").symlink_to("card.md")
    with pytest.raises(InputError, match=r"found no card\.md"):
        read_summary(model)


def test_links_that_stay_inside_and_a_link_to_the_folder_are_followed(tmp_path, model):
    (model / "card.md").rename(model / "README.md")
    (model / "card.md").symlink_to("README.md")
    (tmp_path / "newest").symlink_to(model)
    assert load_checkpoint(tmp_path / "newest").digest == load_checkpoint(model).digest


def test_an_installed_model_may_be_linked_to_the_cache_of_its_installer(
    tmp_path, model, monkeypatch
):
    installed = tmp_path / "package" / "checkpoints" / "bundled"
    installed.mkdir(parents=True)
    for path in model.iterdir():
        (installed / path.name).symlink_to(path)
    with pytest.raises(InputError, match="is a link to"):
        read_summary(installed)
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "package")
    monkeypatch.setattr(checkpoints, "checkpoints_dir", resources.checkpoints_dir)
    assert read_summary("bundled").info.name == "tiny"


def test_saving_over_a_link_keeps_the_link(tmp_path, model):
    elsewhere = tmp_path / "disk"
    shutil.move(model, elsewhere)
    model.symlink_to(elsewhere)
    save_checkpoint(tiny_checkpoint(without=("CD4",)), model)
    assert model.is_symlink()
    assert len(load_checkpoint(elsewhere).proteins) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "model"]


def test_saving_over_a_folder_with_links_removes_the_links_alone(tmp_path, model):
    other = tmp_path / "card.md"
    other.write_text("not ours to remove")
    (model / "card.md").unlink()
    (model / "card.md").symlink_to(other)
    save_checkpoint(tiny_checkpoint(), model)
    assert other.read_text() == "not ours to remove"
    assert not (model / "card.md").is_symlink()
