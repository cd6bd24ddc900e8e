"""Threads go by what is free; a training drops to one when several have become slower."""

from __future__ import annotations

import os

import pytest

from tellapart.runtime import threads
from tellapart.runtime.threads import TRIAL, WINDOW, ThreadChoice, free


@pytest.mark.parametrize(
    ("busy", "most", "wanted"),
    [(0, None, 8), (0, 4, 4), (1, None, 7), (3.4, 8, 5), (8, None, 1), (99, 4, 1)],
)
def test_as_many_threads_as_have_a_core(monkeypatch, busy, most, wanted):
    monkeypatch.setattr(threads, "cores", lambda: 8)
    assert free(most, busy=busy) == wanted


@pytest.mark.parametrize(("taken", "policy"), [(0.0, None), (1.0, "PASSIVE")])
def test_threads_sleep_while_they_wait_on_a_busy_machine_only(monkeypatch, taken, policy):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(threads, "others_busy", lambda: taken)
    threads.wait_without_spinning()
    assert os.environ.get("OMP_WAIT_POLICY") == policy
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


def test_a_policy_that_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setattr(threads, "others_busy", lambda: 5.0)
    threads.wait_without_spinning()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def _run(choice, steps, several, one):
    """The threads of each step, where a step takes `several` or `one` seconds by their number."""
    used = []
    for _ in range(steps):
        used.append(choice.threads)
        choice.after(one if choice.threads == 1 else several)
    return used


def test_a_quiet_machine_keeps_its_threads():
    assert set(_run(ThreadChoice(2), 10 * WINDOW, 1.0, 1.7)) == {2}


def test_a_busy_machine_ends_with_one_thread_to_the_end():
    choice = ThreadChoice(2)
    _run(choice, WINDOW, 1.0, 1.7)
    used = _run(choice, 10 * WINDOW, 20.0, 2.0)
    assert used[:WINDOW] == [2] * WINDOW
    assert set(used[WINDOW:]) == {1}


def test_threads_come_back_where_one_is_no_faster_and_trials_become_rare():
    choice = ThreadChoice(4)
    _run(choice, WINDOW, 1.0, 4.0)
    used = _run(choice, 40 * WINDOW, 3.0, 12.0)
    assert choice.threads == 4 or choice.slow is not None
    assert TRIAL <= used.count(1) < len(used) / 20


def test_one_thread_stays_one():
    assert set(_run(ThreadChoice(1), 3 * WINDOW, 1.0, 1.0)) == {1}


def test_what_the_system_says_is_a_number():
    assert threads.others_busy(looks=2, pause=0) >= 0
    assert 1 <= free() <= threads.cores()
