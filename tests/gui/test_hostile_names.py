"""Names that look like markup are shown as they are: Qt would fetch the pictures that they name."""

import pandas as pd
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QComboBox, QLabel, QWidget

pytestmark = pytest.mark.gui

EVIL = "<img src='file://server/share/x.png'><b>CD19</b>"


def might_be_markup(text):
    """Whether Qt would take a text for markup where nobody says which it is."""
    return Qt.mightBeRichText(text)


def taken_for_markup(window):
    """Texts in which a name is markup to Qt, with what shows them."""
    found = []
    for widget in [window, *window.findChildren(QWidget)]:
        shown = {"tooltip": widget.toolTip(), "status": widget.statusTip()}
        if isinstance(widget, QLabel) and widget.textFormat() != Qt.TextFormat.PlainText:
            rich = widget.textFormat() == Qt.TextFormat.RichText
            if rich or might_be_markup(widget.text()):
                shown["label"] = f"<b></b>{widget.text()}"
        if isinstance(widget, QComboBox):
            for i in range(widget.count()):
                shown[f"item {i}"] = widget.itemData(i, Qt.ItemDataRole.ToolTipRole) or ""
        found += [
            f"{type(widget).__name__} in {type(widget.parent()).__name__}, {place}: {text[:200]}"
            for place, text in shown.items()
            if EVIL[:20] in text and might_be_markup(text)
        ]
    return found


@pytest.fixture
def evil_section(predicted_section):
    from dataclasses import replace

    table = predicted_section.table
    table.var_names = [EVIL, "MS4A1"]
    predicted = table.obsm["protein_predicted"]
    table.obsm["protein_predicted"] = predicted.rename(columns={"CD19": EVIL})
    table.obsm["protein"] = pd.DataFrame(
        {EVIL: [1.0, 2, 3, 4], "CD3": [4.0, 3, 2, 1]}, index=table.obs_names
    )
    table.obs[EVIL] = pd.Categorical([EVIL, "b", EVIL, "b"])
    table.uns["sclinguist"] |= {"unit": EVIL, "model": EVIL, "trust": {EVIL: EVIL}, "date": EVIL}
    return replace(predicted_section, name=EVIL)


def test_the_check_finds_markup(qtbot):
    label, tip = QLabel(EVIL), QLabel("plain")
    tip.setToolTip(f"Show {EVIL}")
    for widget in (label, tip):
        qtbot.addWidget(widget)
        assert len(taken_for_markup(widget)) == 1
    label.setTextFormat(Qt.TextFormat.PlainText)
    assert taken_for_markup(label) == []


def test_no_name_is_markup(dock, add_section, evil_section, qtbot):
    opened = add_section(evil_section)
    keys = [entry.key for entry in opened.catalogue.entries if EVIL in entry.key]
    assert len(keys) == 3  # predicted, measured, RNA
    found = taken_for_markup(dock)
    for i in range(dock.tabs.count()):
        dock.tabs.setCurrentIndex(i)
        for key in keys:
            opened.set_view(opened.view.showing(key))
            QApplication.processEvents()
            found += taken_for_markup(dock)
        opened.set_view(opened.view.showing(*keys))
        QApplication.processEvents()
        found += taken_for_markup(dock)
    dock.workspace.report(ValueError(EVIL), EVIL)
    QApplication.processEvents()
    found += taken_for_markup(dock)
    assert found == []
