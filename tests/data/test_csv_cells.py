from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmask.data.csv_cells import csv_text, plain_cell
from tagmask.data.readers import read_dataset
from tests.data.trees import write_table


@pytest.mark.parametrize("cell", ["=1+1", "+a", "-a", "@a", "\ta", "'=a", "''@a"])
def test_a_cell_that_a_spreadsheet_would_run_gets_a_quote(cell: str) -> None:
    (row,) = csv.reader(io.StringIO(csv_text([[cell, "b"]]), newline=""))
    assert row == ["'" + cell, "b"]


@pytest.mark.parametrize("cell", ["", "a", "'a", "a=b", "~cat", "0.5", "'"])
def test_other_cells_stay(cell: str) -> None:
    assert csv_text([["a", cell]]) == f"a,{cell}\n"
    assert plain_cell(cell) == cell


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r")), min_size=2))
def test_every_row_is_read_back_unchanged(cells: list[str]) -> None:
    (row,) = csv.reader(io.StringIO(csv_text([cells]), newline=""), strict=True)
    assert [plain_cell(cell) for cell in row] == cells


def test_a_table_of_ours_is_read_back(tmp_path: Path) -> None:
    rows = [("image", "tags"), ("=a.jpg", "-cat;dog"), ("b.jpg", "@bird")]
    write_table(tmp_path, csv_text(rows), "=a.jpg b.jpg")
    dataset = read_dataset(tmp_path / "tags.csv")
    tags = [(record.name, [dataset.classes[index] for index in record.tags]) for record in dataset.records]
    assert tags == [("=a", ["-cat", "dog"]), ("b", ["@bird"])]
