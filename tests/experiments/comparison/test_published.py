"""The published numbers that a report has beside ours."""

import json
from pathlib import Path

import pytest

from experiments.comparison import report
from experiments.comparison.datasets import DATASETS
from experiments.comparison.report import write_report
from experiments.comparison.statistics import compare
from experiments.comparison.tables import records_table
from experiments.qm9 import SINGLE_TASK_ERRORS
from igb_jax import scene_tasks
from igb_jax.data import qm9
from tests.experiments.comparison.made_up import made_up
from tests.experiments.comparison.page import page_of


def test_the_papers_rows_have_our_names():
  published = json.loads((Path(report.__file__).parent / "published.json").read_text())
  more = {"delta_m", "relative_train_time"}
  assert "UAI 2023" in published["source"]
  for dataset, metrics in (("qm9", qm9.TARGETS), ("nyuv2", scene_tasks.METRICS)):
    rows = published[dataset]["rows"]
    assert published[dataset]["protocol"]
    for name, row in rows.items():
      assert set(row) <= {*metrics, *more}
      assert name in ("si", "stl") or set(row) == {*metrics, *more}
  for value, base in zip(
    (published["qm9"]["rows"]["stl"][name] for name in qm9.TARGETS),
    SINGLE_TASK_ERRORS,
    strict=True,
  ):
    assert value == pytest.approx(base, rel=5e-3)


def test_records_have_our_names_and_stand_beside_our_numbers(tmp_path):
  content = json.loads((Path(report.__file__).parent / "published.json").read_text())
  known = {"qm9": {*qm9.TARGETS}, "nyuv2": {*scene_tasks.METRICS}}
  for record in content["records"]:
    assert record["protocol"]
    assert record["source"]
    for row in record["rows"].values():
      extra = set(row) - {"delta_m", "mean_rank"}
      assert record["dataset"] not in known or extra <= known[record["dataset"]]
  datasets = {record["dataset"] for record in content["records"]}
  assert datasets == {"qm9", "nyuv2", "cityscapes", "celeba"}
  results = made_up(tmp_path)
  results["published"] = DATASETS["qm9"].published_rows()
  comparison = compare(results)
  table = records_table(results, comparison)
  titles = [column.title for column in table.columns]
  assert titles == ["here", "QM9, batches of 120", "QM9, batches of 60"]
  rows = {row.name: [cell.value for cell in row.cells] for row in table.rows}
  here = comparison.delta_m("nashmtl")
  assert here is not None
  assert rows["nashmtl"] == [here.mean, 62.0, 72.9]
  assert rows["fairgrad"][0] is None
  write_report(tmp_path, results)
  assert "delta_m in the literature" in page_of(tmp_path).headings
  assert "## delta_m in the literature" in (tmp_path / "report.md").read_text()
