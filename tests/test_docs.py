"""The documentation: its code runs, its commands parse, it has every public name."""

import contextlib
import importlib.util
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest
import tyro
from mkdocstrings import Inventory

import igb_jax
from experiments import cli, compare, custom, league, nyuv2, qm9
from experiments.comparison.datasets import DATASETS
from igb_jax import balancers

ROOT = Path(__file__).parents[1]
EXPERIMENTS = {
  "experiments.qm9": qm9, "experiments.nyuv2": nyuv2, "experiments.custom": custom,
}  # fmt: skip
PAGES = {
  path.relative_to(ROOT).as_posix(): path.read_text()
  for path in (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
  )
}


def fences(text: str) -> list[tuple[str, str]]:
  """The fenced blocks of a page, each with its language."""
  found = re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", text, re.M | re.S)
  return [(match[2], textwrap.dedent(match[3])) for match in found]


# -------------------------------------------------------------------------- code


def assert_shown(actual: str, shown: str) -> None:
  """What was printed is what the page shows, but for rounding on other machines."""
  number = r"-?\d+(?:\.\d*)?(?:e[+-]?\d+)?"
  words = [re.sub(number, "#", text).split() for text in (actual, shown)]
  assert "".join(words[0]) == "".join(words[1]), actual
  numbers = [[float(found) for found in re.findall(number, t)] for t in (actual, shown)]
  assert numbers[0] == pytest.approx(numbers[1], rel=0.05, abs=1e-3), actual


# whose blocks compile for five seconds and more
LONG_PAGES = [
  f"docs/how_to/{name}.md"
  for name in ("gradient_accumulation", "one_step", "optax_pipeline", "recommenders")
]


@pytest.mark.parametrize(
  "page",
  [
    pytest.param(name, marks=pytest.mark.slow if name in LONG_PAGES else ())
    for name, text in PAGES.items()
    if "```python" in text
  ],
)
def test_code_runs_and_prints_what_the_page_shows(page, tmp_path, monkeypatch):
  """Blocks of a page share their names; a block of text after one is its output."""
  monkeypatch.chdir(tmp_path)
  module = types.ModuleType("page")
  monkeypatch.setitem(sys.modules, "page", module)  # dataclasses look there
  printed = None
  for language, block in fences(PAGES[page]):
    if language == "python":
      output = io.StringIO()
      with contextlib.redirect_stdout(output):
        exec(compile(block, page, "exec"), module.__dict__)
      printed = output.getvalue()
    elif language == "text" and printed is not None:
      assert_shown(printed, block)
      printed = None
    else:
      printed = None


def test_the_readme_has_code():
  assert sum(language == "python" for language, _ in fences(PAGES["README.md"])) >= 3


@pytest.mark.slow
def test_a_recommender_balances_in_little_more_memory_than_equal_weights():
  """The page's model with 100,000 rows, which is compiled and not run."""
  page: dict[str, Any] = {}
  for language, block in fences(PAGES["docs/how_to/recommenders.md"]):
    if language == "python":
      exec(compile(block, "recommenders", "exec"), page)
  bytes_of, num_rows = page["temporary_bytes"], 100_000
  table = 4 * page["DIM"] * num_rows
  least = bytes_of(page["losses_of"], page["ew"], num_rows)
  for name in ("nashmtl", "pcgrad"):
    shared = {"table": False, "layers": True, "heads": False}
    balancer = balancers.create(name, num_tasks=4, shared=shared)
    for form in (
      {"fun": page["losses_of"]},
      {"fun": page["heads"], "trunk": page["trunk"]},
    ):
      needed = bytes_of(balancer=balancer, num_rows=num_rows, **form)
      assert needed <= least + 1.5 * table
  everything = page["nash"]  # and this is why
  assert bytes_of(page["losses_of"], everything, num_rows) > least + 4 * table


def test_what_a_page_shows_is_compared():
  assert_shown("a  [0.30000001 1e-07]\n", "a [0.3 0]")
  for shown in ("a [0.4 0]", "a [0.3 0.002]", "b [0.3 0]", "a [0.3]"):
    with pytest.raises(AssertionError):
      assert_shown("a [0.30000001 1e-07]\n", shown)


# ---------------------------------------------------------------------- commands


def commands() -> list[tuple[str, str, str]]:
  """Page, module and arguments of every `python -m` and `igb-jax` on it."""
  modules = r"python -m ((?:experiments|benchmarks|tests)\.\w+(?:\.\w+)*|benchmarks)"
  trained = r"igb-jax train (qm9|nyuv2|custom)|igb-jax (compare)(?= )"
  others = r"igb-jax(?= (?:prepare \w|balancers\b))"
  found = []
  for page, text in PAGES.items():
    joined = re.sub(r"\\\n\s*", " ", text)
    start = f"(?:{modules}|{trained}|{others})"
    for match in re.finditer(rf"{start}([^`\"'&|;#)\n]*)", joined):
      module, dataset, comparison, arguments = match.groups()
      module = module or f"experiments.{dataset or comparison or 'cli'}"
      found.append((page, module, arguments.strip()))
  return found


def parse(module: str, arguments: list[str]) -> Any:
  """The configuration that a command line gives; SystemExit if it is wrong."""
  if module in EXPERIMENTS:
    return EXPERIMENTS[module].parse_config(arguments)
  config, others = tyro.cli(compare.Config, args=arguments, return_unknown_args=True)
  assert (config.dataset is None) != (config.task is None)
  if config.task is not None:
    others = [*others, f"--task={config.task}"]
  DATASETS[config.dataset or "custom"].module.parse_config(others)
  return config


@pytest.mark.parametrize(("page", "module", "arguments"), commands())
def test_commands_parse(page, module, arguments):
  assert importlib.util.find_spec(module) is not None
  if module == "experiments.cli":
    assert cli._parse(shlex.split(arguments), "igb-jax")
  if module == "experiments.league":
    league.check(tyro.cli(league.Config, args=shlex.split(arguments)))
  if module not in (*EXPERIMENTS, "experiments.compare"):
    return
  config = parse(module, shlex.split(arguments))
  specs = config.balancers if module == "experiments.compare" else config.balancer
  for spec in specs.split(","):
    parts = spec.partition(":")[0].split("+")
    assert set(parts) <= {*balancers.names(), "ls", "imtl"}


def test_there_are_commands_and_wrong_ones_are_noticed(capsys):
  assert len(commands()) > 20
  for arguments in (["--balancr=ew"], ["--preset=papre"]):
    with pytest.raises(SystemExit):
      parse("experiments.qm9", arguments)
  with pytest.raises(SystemExit):
    parse("experiments.compare", ["--dataset=qm9", "--eposch=3"])
  assert "--balancr" in capsys.readouterr().err


def test_make_targets_and_extras_exist():
  targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  for page, text in PAGES.items():
    code = [block for language, block in fences(text) if language == "sh"]
    code += re.findall(r"`([^`]+)`", text)
    for line in "\n".join(code).splitlines():
      for target in re.findall(r"^make ([\w-]+)", line):
        assert target in targets, (page, line)
      for extras in re.findall(r"(?:\.|igb-jax)\[([\w,]+)\]", line):
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), page


# -------------------------------------------------------------------------- names


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
  """Builds a site strictly."""
  command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
  return subprocess.run(
    [*command, "--config-file", config, "--site-dir", site],
    cwd=config.parent,
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
  )


@pytest.mark.builds
def test_the_site_is_built_with_every_public_name_and_what_pages_link_to(tmp_path):
  result = build(ROOT / "mkdocs.yml", tmp_path)
  assert result.returncode == 0, result.stderr
  with (tmp_path / "objects.inv").open("rb") as file:
    shown = Inventory.parse_sphinx(file)
  public = [
    f"{value.__module__}.{value.__qualname__}"
    for package in (igb_jax, balancers, balancers.sac, balancers.solvers)
    for name, value in vars(package).items()
    if (inspect.isclass(value) or inspect.isfunction(value)) and name[0] != "_"
  ]
  assert len(public) > 30
  assert not {*public} - shown.keys()
  for path in ("index.html", "choosing/index.html", "benchmarks/results/index.html"):
    assert (tmp_path / path).is_file()
  pages = [path.read_text() for path in tmp_path.rglob("*.html")]
  assert not any("googleapis" in page or "unpkg" in page for page in pages)


@pytest.mark.builds
def test_a_public_name_that_is_undocumented_or_on_no_page_fails_the_build(tmp_path):
  package, pages = tmp_path / "igb_jax", tmp_path / "docs"
  package.mkdir()
  pages.mkdir()
  (package / "__init__.py").write_text('"""A package."""\n')
  (package / "shown.py").write_text(
    '"""A module."""\n\n'
    'def documented():\n  """Does nothing."""\n\n'
    "def undocumented():\n  pass\n\n"
    "def _private():\n  pass\n\n"
    'class Documented:\n  """Has a method."""\n\n  def method(self):\n    pass\n'
  )
  (package / "hidden.py").write_text(
    '"""A module."""\n\ndef documented():\n  """Does nothing."""\n'
  )
  (pages / "index.md").write_text("# API\n\n::: igb_jax.shown\n")
  (tmp_path / "mkdocs.yml").write_text(
    "site_name: site\n"
    f"hooks: [{ROOT / 'docs' / '_tools' / 'hooks.py'}]\n"
    "plugins: [{mkdocstrings: {handlers: {python: {paths: [.]}}}}]\n"
  )
  result = build(tmp_path / "mkdocs.yml", tmp_path / "site")
  assert result.returncode == 1
  named = re.findall(r"(igb_jax\S+) is public and (has no|on no)", result.stderr)
  assert sorted(named) == [
    ("igb_jax.hidden.documented", "on no"),
    ("igb_jax.shown.Documented.method", "has no"),
    ("igb_jax.shown.undocumented", "has no"),
  ]
