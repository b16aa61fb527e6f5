"""An attribute that is computed once holds no lock while it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from multilevel.hypergrad.once import once


class Counted:
    """Its value says how often it was computed."""

    def __init__(self) -> None:
        self.count = 0

    @once
    def value(self) -> int:
        """How often."""
        self.count += 1
        return self.count


def test_it_is_computed_once_and_again_after_it_was_deleted():
    counted = Counted()
    assert counted.count == 0
    assert [counted.value, counted.value] == [1, 1]
    del counted.value
    assert counted.value == 2
    assert Counted.value.__doc__ == "How often."


def test_two_threads_compute_it_for_two_instances_at_the_same_time():
    both = Barrier(2, timeout=10)

    class Waits:
        @once
        def value(self) -> int:
            return both.wait()

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(lambda waits: waits.value, [Waits(), Waits()])) == [0, 1]
