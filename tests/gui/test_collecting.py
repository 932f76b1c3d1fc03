"""Full garbage collections are put off while they would be in the way."""

import gc
import threading

import numpy as np
import pytest

from gui.compared_section import make_section
from napari_sclinguist.control.collecting import little_to_collect


@pytest.fixture(autouse=True)
def nothing_left_out():
    """Commands that ran in this process before leave all objects out of collections."""
    gc.unfreeze()


def test_what_is_there_is_left_out_until_the_last_one_ends():
    assert gc.get_freeze_count() == 0
    with little_to_collect():
        assert gc.get_freeze_count() > 10_000
        other = threading.Thread(target=_hold)
        other.start()
        other.join()
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0


def _hold():
    with pytest.raises(KeyError), little_to_collect():
        raise KeyError


@pytest.mark.gui
def test_the_first_selection_and_panels_beside_each_other_do_not_wait_for_it(
    dock, add_section, qtbot, monkeypatch
):
    opened = add_section(make_section())
    opened.show("predicted:CD19")
    panel = dock.open_tab("Compare")
    qtbot.waitUntil(lambda: panel.comparing.proteins is not None, timeout=60_000)
    qtbot.waitUntil(lambda: not panel._later.isActive(), timeout=60_000)
    left_out = []
    collect = gc.collect

    def watched(*arguments):
        left_out.append(gc.get_freeze_count())
        return collect(*arguments)

    monkeypatch.setattr(gc, "collect", watched)
    opened.select(np.arange(opened.section.n_obs) < 20)
    panel.panels.button(1).click()
    assert len(left_out) == 2  # one by napari after each batch of layers
    assert min(left_out) > 10_000
    panel.panels.button(0).click()
    assert len(left_out) == 3  # layers went; what is left out then hangs on work beside the window
