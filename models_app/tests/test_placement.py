"""Which cores replicas get, on machines made up for it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_app.placement import Core, CoresMissing, Machine, Need, Place, parse_cores, place, plan, ranges

AUTO = Need("a")
quick = settings(deadline=None, max_examples=40)


def machine(*nodes: int, hyperthreads: int = 1, limit: int = 4096) -> Machine:
    """``nodes``: the cores of each."""
    total, cores = sum(nodes), []
    for node, size in enumerate(nodes):
        first = len(cores)
        cores += [
            Core(node, tuple(number + total * way for way in range(hyperthreads)))
            for number in range(first, first + size)
        ]
    return Machine(tuple(cores), limit)


TWO_SOCKETS = machine(32, 32, hyperthreads=2)
machines = st.builds(
    lambda nodes, hyperthreads, limit: machine(*nodes, hyperthreads=hyperthreads, limit=limit),
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.sampled_from([1, 2]),
    st.one_of(st.just(4096), st.integers(1, 40)),
)


def one_by_one(there: Machine, needs: list[Need]) -> list[Place]:
    held: dict[int, Place] = {}
    for number, need in enumerate(needs):
        held[number] = place(there, need, needs, held)
    return list(held.values())


def users(places: list[Place]) -> Counter[Core]:
    return Counter(core for one in places for core in one.cores)


def test_cores_that_are_not_there_keep_their_own_model_only_from_running():
    there, bad = machine(4), Need("bad", cores=frozenset({8, 9}))
    assert place(there, AUTO, [bad, AUTO], {}).threads == 4
    with pytest.raises(CoresMissing):
        place(there, bad, [bad, AUTO], {})


@quick
@given(machines, st.integers(1, 60))
def test_cores_are_shared_out_evenly_and_disjoint_while_there_are_enough(there, count):
    places = one_by_one(there, [Need(str(number)) for number in range(count)])
    seen, usable = users(places), there.usable
    assert seen.keys() <= set(usable)
    if count <= len(usable):
        assert set(seen.values()) == {1}
        for node in range(there.nodes):
            sizes = [one.threads for one in places if {core.node for core in one.cores} == {node}]
            assert not sizes or max(sizes) - min(sizes) <= 1
    else:
        assert all(one.threads == 1 for one in places)
        assert {seen[core] for core in usable} <= {count // len(usable), -(-count // len(usable))}


@quick
@given(machines, st.integers(1, 60))
def test_no_replica_crosses_a_node_when_its_share_fits_in_one(there, count):
    largest = max(Counter(core.node for core in there.usable).values())
    if len(there.usable) / count <= largest:
        assert all(len({core.node for core in one.cores}) == 1 for one in plan(there, [AUTO] * count))


@quick
@given(machines, st.lists(st.one_of(st.none(), st.integers(1, 50)), min_size=1, max_size=12))
def test_set_threads_get_as_many_cores_as_there_are_and_disjoint_ones_where_all_fit(there, threads):
    needs = [Need(str(number), threads=one) for number, one in enumerate(threads)]
    places = one_by_one(there, needs)
    for need, found in zip(needs, places, strict=True):
        assert found.threads >= 1
        if need.threads:
            assert found.threads == min(need.threads, len(there.usable))
    if sum(one or 1 for one in threads) <= len(there.usable):
        assert set(users(places).values()) == {1}


@quick
@given(machines, st.data())
def test_named_cores_are_divided_among_the_replicas_of_their_model_and_left_by_others(there, data):
    named = data.draw(st.sets(st.sampled_from(sorted(there.cpus)), min_size=1))
    count, others = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 4))
    places = one_by_one(there, [Need("a", frozenset(named))] * count + [AUTO] * others)
    own = [one.bound or frozenset() for one in places[:count]]
    assert frozenset().union(*own) <= named
    named_cores = {core.cpus[0] for one in places[:count] for core in one.cores}
    if count <= len({core for core in there.cores if named.intersection(core.cpus)}):
        assert sum(len(one) for one in own) == len(frozenset().union(*own))
    whole = {core for core in there.usable if core.cpus[0] not in named_cores}
    if whole:
        assert all(core in whole for one in places[count:] for core in one.cores)


@quick
@given(machines, st.lists(st.integers(0, 9), max_size=40))
def test_whoever_comes_again_when_others_have_gone_finds_cores_of_its_own(there, restarts):
    """Each of ten replicas is restarted in any order: in the end all places are disjoint again."""
    if len(there.usable) < 10:
        return
    needs = [Need(str(number)) for number in range(10)]
    held: dict[int, Place] = {0: place(there, needs[0], needs[:1], {})}  # the first one took the whole machine
    for number in [*range(1, 10), *restarts, *range(10)]:
        held.pop(number, None)
        held[number] = place(there, needs[number], needs, held)
    assert set(users(list(held.values())).values()) == {1}


def test_a_new_version_takes_the_cores_of_the_one_it_replaces():
    there = machine(8)
    needs = [Need("a"), Need("b")]
    held = dict(enumerate(one_by_one(there, needs)))
    for number, need in enumerate(needs):
        assert place(there, need, needs, held).cores == held[number].cores


@pytest.mark.parametrize(
    ("there", "count", "threads", "bound"),
    [
        (machine(8, hyperthreads=2), 3, [2, 3, 3], [None, None, None]),
        (TWO_SOCKETS, 1, [64], [None]),
        (TWO_SOCKETS, 2, [32, 32], ["0-31,64-95", "32-63,96-127"]),
        (TWO_SOCKETS, 3, [16, 16, 32], ["0-31,64-95", "0-31,64-95", "32-63,96-127"]),
        (machine(16, 16, 16, 16), 2, [32, 32], ["0-31", "32-63"]),
        (machine(32, 32, hyperthreads=2, limit=6), 2, [3, 3], [None, None]),  # a container with time for 6 cores
        (machine(4, 2), 2, [4, 2], ["0-3", "4-5"]),
        (machine(2), 5, [1, 1, 1, 1, 1], [None] * 5),
    ],
)
def test_the_machines_of_the_manual(there, count, threads, bound):
    places = plan(there, [AUTO] * count)
    assert [one.threads for one in places] == threads
    assert [one.bound and ranges(one.bound) for one in places] == bound


def test_an_engine_that_spreads_itself_is_not_bound():
    assert plan(TWO_SOCKETS, [Need("a", numa=True)] * 2)[0].bound is None


def test_cores_that_are_not_there_are_refused():
    with pytest.raises(CoresMissing):
        plan(machine(2), [Need("a", frozenset({1, 2}))])


@quick
@given(st.sets(st.integers(0, 4095), min_size=1))
def test_ranges_are_read_as_they_are_written(cpus):
    assert parse_cores(ranges(cpus)) == cpus


@pytest.mark.parametrize("text", ["", "-", "a", "1-", "3-1", "0,,1", "0-4096", "0-99999999999", "1;2", "٣"])
def test_what_is_no_list_of_cores_is_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        parse_cores(text)
