"""How a comparison is divided: into contenders, their jobs, and each one's cores."""

import os

from experiments.comparison import processes
from experiments.comparison.plan import Contender, contender_jobs, parse_contenders


def test_hyper_parameters_follow_a_balancer():
  contenders = parse_contenders(
    "ew, igbv2:start_epoch=0:warmup_epochs=1,igbv2+nashmtl", ["a", "b"]
  )
  assert contenders[1].options == ("start_epoch=0", "warmup_epochs=1")
  assert [each.kind for each in contenders] == ["loss", "loss", "gradient"]


def test_a_hyper_parameter_may_be_a_list():
  contenders = parse_contenders(
    "ew,cosmos:preference=[1, 2]:penalty=0.5, pbi:preference=[2,1]", ["a", "b"]
  )
  assert [each.options for each in contenders] == [
    (),
    ("preference=[1, 2]", "penalty=0.5"),
    ("preference=[2,1]",),
  ]


def test_seeds_are_divided_into_jobs():
  contender = Contender("igbv1:base_epoch=0", "igbv1", ("base_epoch=0",))
  together, last = contender_jobs(contender, [0, 1, 2], at_once=2)
  assert [run.folder for run in together.runs] == [
    f"runs/igbv1%3Abase_epoch=0/together-0-1/seed{seed}" for seed in (0, 1)
  ]
  assert "--balancer-options=base_epoch=0" in together.arguments
  assert last.folder == last.runs[0].folder == "runs/igbv1%3Abase_epoch=0/seed2"
  assert "--seed=2" in last.arguments


def test_each_of_several_runs_has_its_share_of_the_cores(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
  monkeypatch.setattr(os, "sched_setaffinity", print, raising=False)
  assert processes.shares_of_cores(1) == [None]
  assert processes.shares_of_cores(2) == [{3, 7}, {5}]
