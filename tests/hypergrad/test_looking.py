"""Numbers to warn of are shown at once on the host; those of a device where the host waits for it anyway."""

from __future__ import annotations

import torch

from multilevel.hypergrad.looking import MOST, show, show_waiting

from ..second_device import DEVICE, SecondDevice


def test_numbers_on_the_host_are_shown_at_once():
    seen: list[list[float]] = []
    show(torch.tensor([1.0, 2.0]), seen.append)
    assert seen == [[1.0, 2.0]]


def test_numbers_of_a_device_wait_and_are_shown_once():
    seen: list[list[float]] = []
    with SecondDevice() as device:
        for number in (1.0, 2.0):
            show(torch.tensor([number], device=DEVICE), seen.append)
        assert (seen, sum(device.waits.values())) == ([], 0)
        show_waiting()
        show_waiting()
    assert seen == [[1.0], [2.0]]


def test_only_so_many_wait():
    seen: list[list[float]] = []
    with SecondDevice():
        for _ in range(MOST):
            show(torch.zeros(1, device=DEVICE), seen.append)
        assert len(seen) == MOST
