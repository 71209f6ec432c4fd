"""The notebook is valid, each cell compiles, and all of it runs on a CPU."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

from tests.molecules import qm9_dir as qm9_dir

NOTEBOOK = Path(__file__).parents[1] / "examples" / "colab_tpu.ipynb"


def read_notebook():
  return nbformat.read(NOTEBOOK, as_version=4)


def code_cells():
  cells = read_notebook().cells
  return {cell.id: cell.source for cell in cells if cell.cell_type == "code"}


def make_tiny(notebook):
  (cell,) = [cell for cell in notebook.cells if cell.id == "settings"]
  cell.source, count = re.subn(
    '^SIZE = "quick"$', 'SIZE = "tiny"', cell.source, flags=re.MULTILINE
  )
  assert count == 1


def test_is_valid_and_has_no_outputs():
  notebook = read_notebook()
  nbformat.validate(notebook)
  assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
  for cell in notebook.cells:
    if cell.cell_type == "code":
      assert not cell.outputs
      assert cell.execution_count is None


@pytest.mark.parametrize("cell", code_cells())
def test_cell_compiles(cell):
  python = TransformerManager().transform_cell(code_cells()[cell])
  compile(python, f"{NOTEBOOK.name}:{cell}", "exec")


class Packages:
  """What the install cell finds installed; its pip replaces it by `after`."""

  def __init__(self, monkeypatch, before, after=None):
    self.installed = before
    self.calls = []
    self.after = after or before | {"igb-jax": "0.1.0"}
    modules = {"pytest": ["pytest"], "nowhere": ["another"]}
    patch = {
      "distributions": lambda: [
        SimpleNamespace(name=name, version=version)
        for name, version in self.installed.items()
      ],
      "packages_distributions": lambda: modules,
    }
    for name, fake in patch.items():
      monkeypatch.setattr(f"importlib.metadata.{name}", fake)

  def run_line_magic(self, name, line):
    self.calls.append((name, line))
    self.installed = self.after

  def install(self, source):
    names = {"SOURCE": source, "get_ipython": lambda: self}
    exec(TransformerManager().transform_cell(code_cells()["install"]), names)
    return names


def test_where_the_package_is_missing_the_source_is_asked_for(monkeypatch):
  packages = Packages(monkeypatch, {"pytest": "1"})
  names = {}
  exec(code_cells()["settings"], names)
  with pytest.raises(ValueError, match="set SOURCE"):
    packages.install(names["SOURCE"])


@pytest.mark.parametrize(
  ("plugin", "requirement"),
  [("libtpu", "jax[tpu]"), ("jax_cuda12_plugin", "jax[cuda12]"), (None, "jax[]")],
)
@pytest.mark.parametrize("source", ["git+https://host/igb_jax", "checkout"])
def test_installs_with_the_extra_of_the_machine(
  monkeypatch, tmp_path, source, plugin, requirement
):
  monkeypatch.chdir(tmp_path)
  # a folder of that name, such as a checkout, is not the package
  (tmp_path / "igb_jax").mkdir()
  monkeypatch.setattr(
    "importlib.util.find_spec", lambda name: name if name == plugin else None
  )
  packages = Packages(monkeypatch, {"pytest": "1", "another": "1"})
  packages.after = packages.after | {"another": "2"}  # which is not loaded
  names = packages.install(source)
  ((name, line),) = packages.calls
  assert name == "pip"
  url = source if "://" in source else (tmp_path / source).as_uri()
  # IPython itself fills the braces in
  assert eval(f"f{line!r}", names).endswith(
    f'"igb-jax[experiments] @ {url}" "{requirement}"'
  )


def test_what_is_installed_is_not_installed_again(monkeypatch):
  packages = Packages(monkeypatch, {"igb-jax": "0.1.0"})
  packages.install("")
  assert not packages.calls


def test_a_restart_is_asked_for_where_a_loaded_package_was_replaced(monkeypatch):
  after = {"pytest": "2", "another": "2", "igb-jax": "0.1.0"}
  packages = Packages(monkeypatch, {"pytest": "1", "another": "1"}, after)
  with pytest.raises(
    RuntimeError, match=r"^Restart the session .* replaced, pytest\.$"
  ):
    packages.install("checkout")


def test_an_installation_that_failed_is_told(monkeypatch):
  packages = Packages(monkeypatch, {"pytest": "1"}, {"pytest": "1"})
  with pytest.raises(RuntimeError, match="could not install igb_jax"):
    packages.install("checkout")


def test_the_balancer_of_ones_own_learns_what_equal_weights_leave(capsys):
  cells, names = code_cells(), {}
  exec("import jax", names)
  for cell in ("own", "own-step"):
    exec(cells[cell], names)
  assert len(capsys.readouterr().out.splitlines()) == 2
  assert (np.asarray(names["unexplained"]) < 0.1).all()
  np.testing.assert_allclose(names["state"].weights.sum(), 2, 1e-5)
  equal, _ = names["train_small_net"](names["balancers"].equal(num_tasks=2))
  assert equal[0] > 0.3


@pytest.mark.slow
def test_runs_from_top_to_bottom(tmp_path, qm9_dir, monkeypatch):
  monkeypatch.setenv("IGB_JAX_DATA", str(qm9_dir))
  # most of the time goes into compiling steps of which few are taken
  monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
  notebook = read_notebook()
  make_tiny(notebook)
  resources = {"metadata": {"path": str(tmp_path)}}
  NotebookClient(notebook, timeout=1800, resources=resources).execute()

  outputs = {
    cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"
  }
  assert not outputs["install"]
  shown = [
    output
    for output in outputs["plot"]
    if output.output_type == "display_data" and "image/png" in output.data
  ]
  assert len(shown) == 2
  (compared,) = outputs["compare"]
  assert compared.text.count("delta_m") == 2
  found = {}
  for path in (tmp_path / "runs").glob("*/summary.json"):
    summary = json.loads(path.read_text())
    assert summary["complete"]
    assert f"{summary['delta_m']:15.4g}" in compared.text
    found[summary["dataset"], summary["balancer"]] = summary
  assert sorted(found) == [
    (dataset, balancer)
    for dataset in ("qm9", "rooms")
    for balancer in ("igbv1", "igbv1+nashmtl")
  ]
  for (_, balancer), summary in found.items():
    weights = np.array(summary["weights"])
    assert (weights != 1).all()  # the base epoch has ended
    np.testing.assert_allclose(weights.sum(), len(weights), 1e-4)
    assert ("gradient_weights" in summary) == ("nashmtl" in balancer)
    assert summary.get("solver_worst_residual", 0) < 1e-4
