"""The machine as /sys describes it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from models_app import machine, topology
from models_app.placement import Core, ranges


@pytest.fixture
def system(tmp_path, monkeypatch) -> Path:
    """Two sockets with two cores of two threads each; no limit of time."""
    monkeypatch.setattr(machine, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "cgroup_folders", lambda: [tmp_path / "cgroup"])
    for cpu in range(8):
        folder = tmp_path / "cpu" / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    for node, cpus in enumerate(("0-1,4-5", "2-3,6-7", "")):  # the last one has memory only
        (tmp_path / "node" / f"node{node}").mkdir(parents=True)
        (tmp_path / "node" / f"node{node}" / "cpulist").write_text(cpus + "\n")
    return tmp_path


def test_cores_with_their_threads_and_nodes(system):
    assert topology.read(system, range(8)).cores == (Core(0, (0, 4)), Core(0, (1, 5)), Core(1, (2, 6)), Core(1, (3, 7)))


def test_only_what_this_process_may_use(system):
    there = topology.read(system, [1, 2, 6])
    assert there.cores == (Core(0, (1,)), Core(1, (2, 6)))


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 4), ("300000 100000", 3), ("50000 100000", 1), ("", 4)])
def test_a_containers_time_limits_how_many_cores_count(system, quota, cores):
    (system / "cgroup").mkdir()
    (system / "cgroup" / "cpu.max").write_text(quota)
    assert len(topology.read(system, range(8)).usable) == cores


def test_the_older_control_groups_count_as_well(system):
    (system / "cgroup" / "cpu").mkdir(parents=True)
    (system / "cgroup" / "cpu" / "cpu.cfs_quota_us").write_text("200000\n")
    (system / "cgroup" / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert len(topology.read(system, range(8)).usable) == 2


def test_without_such_a_description_one_node(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8 if logical else 4)
    there = topology.read(tmp_path / "none", range(8))
    assert (len(there.cores), there.nodes, ranges(there.cpus)) == (4, 1, "0-7")


def test_this_machine():
    assert topology.read().cpus == os.sched_getaffinity(0)
    assert 1 <= topology.physical_cores() <= len(os.sched_getaffinity(0))
