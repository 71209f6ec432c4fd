"""All timings of the project, one after another, into benchmarks/results.md.

    make bench        or        python -m benchmarks

Each part is a process of its own and prints its table with median, least and largest;
its docstring says what is measured. Ratios are of one run. With `--parts` the others'
sections stay as they are in the file.
"""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import tyro

PARTS = (
  "qm9_step",
  "arithmetic",
  "balancer_overhead",
  "agent_limit",
  "gradient_balancers",
  "torch_methods",
  "solver_times",
  "loss_balancers",
  "one_step",
  "scene_step",
  "scene_forms",
  "first_step",
  "waiting",
)
RESULTS = Path(__file__).with_name("results.md")


@dataclasses.dataclass(frozen=True)
class Options:
  """Runs the benchmarks and writes what they print."""

  parts: tuple[str, ...] = PARTS
  """Which of them."""
  out: Path = RESULTS
  """The file; its sections are replaced one by one, as they are done."""


def read_sections(path: Path) -> dict[str, str]:
  """The sections of a results file, by the name of the part.

  Args:
    path: of the file, which need not exist.
  """
  if not path.exists():
    return {}
  _, *sections = re.split(r"^## ", path.read_text(), flags=re.MULTILINE)
  return {
    name: text.strip()
    for name, _, text in (section.partition("\n") for section in sections)
  }


def write_sections(path: Path, sections: dict[str, str]) -> None:
  """Writes a results file.

  Args:
    path: of the file.
    sections: name of the part -> its text.
  """
  parts = [f"## {name}\n\n{sections[name]}\n" for name in PARTS if name in sections]
  path.write_text("# Timings, by `make bench`\n\n" + "\n".join(parts))


def main() -> None:
  """Runs the parts; a failed one is named at the end."""
  options = tyro.cli(Options, description=__doc__)
  unknown = set(options.parts) - set(PARTS)
  if unknown:
    sys.exit(f"--parts has {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
  failed = []
  for name in options.parts:
    print(f"## {name}\n", flush=True)
    process = subprocess.Popen(
      [sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
      print(line, end="", flush=True)
      lines.append(line)
    if process.wait():
      failed.append(name)
      continue
    sections = read_sections(options.out)
    sections[name] = f"`python -m benchmarks.{name}`\n\n{''.join(lines).strip()}"
    write_sections(options.out, sections)
  if failed:
    sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
  main()
