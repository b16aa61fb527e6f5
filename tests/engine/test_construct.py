"""Components become objects; what cannot be constructed is refused by its key before or after the call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from multilevel.configs.schema import Component
from multilevel.engine.construct import ANYTHING, MODULE, OPTIMIZER, SCHEDULER, Constructor
from multilevel.engine.imports import Importer
from multilevel.hypergrad.errors import ConfigError, ProblemError

MINE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, *, width, depth=2):
        super().__init__()
        self.width, self.depth = width, depth

def batches(size, *, count=1, offset=None):
    return [torch.full((size,), float(offset or 0))] * count

def net(width):
    return nn.Linear(width, width)

def nothing():
    pass

def anything(*args, **kwargs):
    return [args, kwargs]

def failing(code):
    raise KeyError(code)
"""


@pytest.fixture
def construct(tmp_path: Path) -> Constructor:
    (tmp_path / "mine.py").write_text(MINE)
    return Constructor(Importer(tmp_path))


def component(cls: str, **arguments: object) -> Component:
    return Component(**{"class": cls, **arguments})


def test_classes_and_functions_are_called_with_their_arguments(construct):
    net = construct.build(component("torch.nn.Linear", in_features=3, out_features=2, bias=False), MODULE)
    assert (net.in_features, net.out_features, net.bias) == (3, 2, None)
    assert construct.build(component("mine.py:net", width=4), MODULE).in_features == 4
    assert construct.build(component("mine.py:Net", width=4), MODULE).depth == 2
    assert len(construct.build(component("mine.py:batches", size=2, count=3), ANYTHING)) == 3
    assert construct.build(component("mine.py:anything", args=[1], x=2), ANYTHING) == [(1,), {"x": 2}]


def test_an_optimizer_is_given_its_parameters_and_a_scheduler_its_optimizer(construct):
    net = nn.Linear(2, 2)
    optimizer = construct.build(component("torch.optim.Adam", lr=0.5), OPTIMIZER, net.parameters())
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in net.parameters()]
    scheduler = construct.build(component("torch.optim.lr_scheduler.StepLR", step_size=3), SCHEDULER, optimizer)
    assert scheduler.optimizer is optimizer
    plateau = construct.build(component("torch.optim.lr_scheduler.ReduceLROnPlateau"), SCHEDULER, optimizer)
    assert plateau.optimizer is optimizer


def test_components_nest_in_lists_and_mappings(construct):
    linear = {"class": "torch.nn.Linear", "in_features": 3, "out_features": 2}
    net = construct.build(component("torch.nn.Sequential", args=[linear, {"class": "torch.nn.ReLU"}]), MODULE)
    assert [type(layer) for layer in net] == [nn.Linear, nn.ReLU]
    args, kwargs = construct.build(
        component("mine.py:anything", nets={"a": [linear], "b": 1}, plain=[1, {"c": 2}]), ANYTHING
    )
    assert args == ()
    assert isinstance(kwargs["nets"]["a"][0], nn.Linear)
    assert kwargs["nets"]["b"] == 1
    assert kwargs["plain"] == [1, {"c": 2}]


@pytest.mark.parametrize(
    ("cls", "kind", "arguments", "words"),
    [
        ("torch.nn.Linear", MODULE, {"in_feature": 3}, ["in_feature: ", "did you mean 'in_features'"]),
        ("torch.nn.Linear", MODULE, {}, ["needs in_features, out_features", "it takes in_features"]),
        ("torch.nn.Linear", MODULE, {"args": list(range(9))}, ["at most 5 positional", "got 9"]),
        ("torch.nn.Linear", MODULE, {"in_features": "x", "out_features": 1}, ["torch.nn.Linear raised TypeError"]),
        ("mine.py:Net", MODULE, {"args": [3]}, ["needs width"]),
        ("mine.py:batches", ANYTHING, {"args": [3], "size": 4}, ["no argument 'size'"]),
        ("mine.py:batches", MODULE, {"size": 2}, ["class: ", "returned list", "expected a torch.nn.Module"]),
        ("mine.py:nothing", ANYTHING, {}, ["class: ", "returned NoneType"]),
        ("mine.py:failing", ANYTHING, {"code": 7}, ["mine.py:failing raised KeyError: 7"]),
        ("torch.optim.SGD", MODULE, {}, ["class: ", "'torch.optim.SGD' is not a torch.nn.Module"]),
        ("torch.nn.Linear", OPTIMIZER, {}, ["class: ", "is not a torch.optim.Optimizer"]),
        ("os.system", ANYTHING, {"command": "ls"}, ["class: ", "--allow-import os"]),
        ("multilevel.engine.construct.Constructor", ANYTHING, {}, ["class: ", "only what multilevel.problems has"]),
        ("multilevel.configs.loader.find", MODULE, {"which": "x"}, ["class: ", "only what multilevel.problems has"]),
        (
            "mine.py:anything",
            ANYTHING,
            {"nets": {"a": [{"class": "torch.nn.Linear", "in_features": 1, "out": 2}]}},
            ["nets.a.0.out: ", "no argument 'out'"],
        ),
        ("mine.py:anything", ANYTHING, {"args": [{"class": "no.such"}]}, ["args.0.class: ", "--allow-import no"]),
        ("mine.py:anything", ANYTHING, {"x": {"class": 3}}, ["x.class: ", "a text", "got 3"]),
    ],
)
def test_refusals_name_the_key(construct, cls, kind, arguments, words):
    with pytest.raises(ConfigError) as caught:
        construct.build(component(cls, **arguments), kind)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_refusal_keeps_its_cause(construct):
    with pytest.raises(ConfigError, match="Invalid learning rate") as caught:
        construct.build(component("torch.optim.SGD", lr=-1.0), OPTIMIZER, nn.Linear(1, 1).parameters())
    assert isinstance(caught.value.__cause__, ValueError)


def test_our_own_errors_are_not_wrapped_in_words(construct):
    def target() -> None:
        raise ProblemError("problem 'low': no module")

    with pytest.raises(ConfigError, match=r"problem 'low': no module") as caught:
        construct.call("x.Target", target, [], {})
    assert "raised" not in str(caught.value)


def test_every_torch_optimizer_and_scheduler_has_a_signature_that_can_be_checked(construct):
    parameters = list(nn.Linear(2, 2).parameters())
    for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "LBFGS", "Rprop", "NAdam"):
        with pytest.raises(ConfigError, match="did you mean 'lr'"):
            construct.build(component(f"torch.optim.{name}", lrr=0.1), OPTIMIZER, parameters)
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    for name in ("CosineAnnealingLR", "ExponentialLR", "OneCycleLR", "ReduceLROnPlateau"):
        with pytest.raises(ConfigError, match="takes no argument 'nonsense'"):
            construct.build(component(f"torch.optim.lr_scheduler.{name}", nonsense=1), SCHEDULER, optimizer)
