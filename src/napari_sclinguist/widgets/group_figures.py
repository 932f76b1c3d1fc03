"""Features by groups in a table: means of all groups, or what tells one group from others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sclinguist.control.entries import Kind
from napari_sclinguist.control.group_comparison import (
    ALL_OTHERS,
    KINDS,
    GroupQuestion,
    mean_column,
)
from napari_sclinguist.control.saving import default_folder, file_stem, free_name
from napari_sclinguist.widgets.data_frame_table import Column, TableView
from napari_sclinguist.widgets.save_dialog import choose_file

if TYPE_CHECKING:
    from napari_sclinguist.control.group_comparison import GroupAnswer, GroupComparing
    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.region_groups import RegionGroups

_ALL = "all groups, by their means"
_HEIGHT = 280
_NARROWEST, _WIDEST, _ROOM = 60, 84, 250
"""Widths of the columns of means, and what there is for all of them; in pixels."""
_CAUTION = (
    "Wilcoxon rank-sum test, p adjusted for the number of features. Neighbouring {} are alike, so "
    "p is too small: go by the difference and AUC."
)
_DIFFERENCES = (
    Column(name="feature", title="Feature"),
    Column(name="mean", title="Mean", tip="Mean of the group", width=54),
    Column(name="mean_reference", title="Others", tip="Mean of what it is compared with", width=54),
    Column(name="difference", title="Differ.", tip="How much higher the group is", width=54),
    Column(
        name="auc",
        title="AUC",
        tip="Share of pairs, one of each side, in which the group's is the higher: 0.5 means no "
        "difference, 1 that all of the group are higher",
        width=44,
    ),
    Column(
        name="p_adjusted",
        title="p adj.",
        tip="Wilcoxon rank-sum test, adjusted for the number of features (Benjamini-Hochberg)",
        width=60,
    ),
)


class GroupFigures(QWidget):
    """The question about groups, and the table that answers it.

    Parameters
    ----------
    groups, comparing
        What it renders.
    """

    def __init__(self, groups: RegionGroups, comparing: GroupComparing) -> None:
        super().__init__()
        self.groups, self.comparing = groups, comparing
        self._followed: OpenSection | None = None
        self._table_of: GroupAnswer | None = None
        self.kind = _box("What is compared")
        self.group = _box("A group, or all of them")
        self.reference = _box("What the group is compared with")
        self.button = QPushButton("Compare groups")
        self.working = QLabel("computing…")
        self.table = TableView(_DIFFERENCES)
        self.table.setFixedHeight(_HEIGHT)
        self.table.horizontalHeader().setTextElideMode(Qt.TextElideMode.ElideRight)
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.caution = QLabel()
        self.caution.setWordWrap(True)
        self.export = QPushButton("Export table…")
        self.export.setToolTip("Write all features and figures to a CSV file")
        self._lay_out()
        self.group.activated.connect(lambda _: self._offer_references())
        self.button.clicked.connect(self._ask)
        self.table.chosen.connect(comparing.show)
        self.export.clicked.connect(self._ask_where)
        groups.changed.connect(self.render_state)
        comparing.changed.connect(self.render_state)
        self.render_state()

    def _lay_out(self) -> None:
        form = QGridLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setHorizontalSpacing(12)
        form.setColumnStretch(1, 1)
        self.against = QLabel("with")
        for row, (label, box) in enumerate(
            (
                (QLabel("Values"), self.kind),
                (QLabel("Compare"), self.group),
                (self.against, self.reference),
            )
        ):
            form.addWidget(label, row, 0)
            form.addWidget(box, row, 1)
        pressing = QHBoxLayout()
        pressing.addWidget(self.button)
        pressing.addWidget(self.working)
        pressing.addStretch(1)
        pressing.addWidget(self.export)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addLayout(pressing)
        layout.addWidget(self.table)
        layout.addWidget(self.caution)

    # --- rendering --------------------------------------------------------------------------

    def render_state(self) -> None:
        """Show what the controllers hold."""
        opened, answer = self.groups.opened, self.comparing.answer
        self._follow(opened)
        names = [group.name for group in self.groups.groups() if group.n_rows]
        kinds = [] if opened is None else [one for one in KINDS if opened.catalogue.of_kind(one)]
        _offer(self.kind, [(KINDS[kind], kind) for kind in kinds])
        _offer(self.group, [(_ALL, ""), *((name, name) for name in names)])
        self._offer_references()
        self.setVisible(bool(names and kinds))
        self.button.setEnabled(not self.comparing.working)
        self.working.setVisible(self.comparing.working)
        for widget in (self.table, self.export):
            widget.setVisible(answer is not None)
        tested = answer is not None and bool(answer.question.group)
        self.caution.setVisible(tested)
        if tested:
            self.caution.setText(_CAUTION.format(opened.noun))
        if answer is not None and answer is not self._table_of:
            self._fill(answer)
        self._table_of = answer
        self._mark()

    def _offer_references(self) -> None:
        chosen = self.group.currentData()
        names = [self.group.itemData(i) for i in range(1, self.group.count())]
        others = [name for name in names if name != chosen]
        _offer(self.reference, [(ALL_OTHERS, None), *((name, name) for name in others)])
        for widget in (self.against, self.reference):
            widget.setVisible(bool(chosen))

    def _fill(self, answer: GroupAnswer) -> None:
        frame, columns = answer.table, list(_DIFFERENCES)
        if answer.question.group:
            frame = frame.assign(p_adjusted=p_texts(frame["p_adjusted"]))
        else:
            columns = self._mean_columns(answer)
        self.table.set_frame(frame, columns)
        self.table.sortByColumn(-1, Qt.SortOrder.AscendingOrder)  # as it came

    def _mean_columns(self, answer: GroupAnswer) -> list[Column]:
        """Give every group a column, as wide as its name where that is not too long."""
        metrics = self.table.fontMetrics()
        means = []
        for name, n_rows in answer.sizes.items():
            wide = metrics.horizontalAdvance(name) + 24
            means.append(
                Column(
                    name=mean_column(name),
                    title=name,
                    tip=f"{name}: mean of {n_rows:,} {self.groups.opened.noun}",
                    width=min(max(wide, _NARROWEST), _WIDEST),
                )
            )
        # Where they do not fit, the table is scrolled; the feature must stay readable.
        is_wide = sum(column.width for column in means) > _ROOM
        return [Column(name="feature", title="Feature", width=90 if is_wide else None), *means]

    def _mark(self, view: object = None) -> None:
        answer, opened = self.comparing.answer, self.groups.opened
        if answer is None or self._table_of is not answer:
            return
        keys = answer.table["key"].tolist()
        shown = opened.view.keys[0] if len(opened.view.keys) == 1 else ""
        self.table.mark(keys.index(shown) if shown in keys else None)

    def _follow(self, opened: OpenSection | None) -> None:
        if opened is self._followed:
            return
        if self._followed is not None:
            self._followed.view_changed.disconnect(self._mark)
        self._followed = opened
        if opened is not None:
            opened.view_changed.connect(self._mark)

    # --- what is pressed --------------------------------------------------------------------

    def _ask(self) -> None:
        self.comparing.ask(
            GroupQuestion(
                kind=Kind(self.kind.currentData()),
                group=self.group.currentData(),
                reference=self.reference.currentData(),
            )
        )

    def _ask_where(self) -> None:
        question = self.comparing.answer.question
        stem = file_stem(f"{question.kind} {question.group or 'groups'}")
        proposed = free_name(default_folder(self.groups.opened.section), stem, ".csv")
        path = choose_file(self, "Export table", proposed, "CSV (*.csv)")
        if path is not None:
            self.comparing.export(path)


def p_texts(values: pd.Series) -> pd.Categorical:
    """Spell p-values; as categories in their order, so that they sort as numbers do."""
    array = values.to_numpy(np.float64)
    texts = np.array([_p_text(value) for value in array], object)
    known = np.isfinite(array)
    order = pd.unique(texts[known][np.argsort(array[known], kind="stable")])
    return pd.Categorical(np.where(known, texts, None), categories=order, ordered=True)


def _p_text(value: float) -> str:
    if value >= 0.001:
        return f"{value:.3f}"
    if value < 1e-300:
        return "< 1e−300"
    return f"{value:.0e}".replace("e-0", "e-").replace("-", "−")


def _offer(box: QComboBox, offers: Sequence[tuple[str, str | None]]) -> None:
    """List offers, text and value; the chosen value stays chosen as long as it is there."""
    present = [(box.itemText(i), box.itemData(i)) for i in range(box.count())]
    if present == offers:
        return
    chosen = box.currentData()
    box.clear()
    for text, value in offers:
        box.addItem(text, value)
    values = [value for _, value in offers]
    box.setCurrentIndex(values.index(chosen) if chosen in values else 0)


def _box(tip: str) -> QComboBox:
    box = QComboBox()
    box.setToolTip(tip)
    # Long names are cut off rather than widening the dock.
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(12)
    return box
