"""An experiment is checked as a whole; whatever is wrong is named by its key path."""

from __future__ import annotations

import json

import pytest

from multilevel.configs.field_docs import argument_docs
from multilevel.configs.schema import Component, Experiment, experiment_schema
from multilevel.hypergrad.cg import CG
from multilevel.hypergrad.errors import ConfigError
from multilevel.hypergrad.registry import available

PAIR = {"upper": {"class": "m.Upper"}, "lower": {"class": "m.Lower"}}


def with_problem(**settings: object) -> dict[str, object]:
    return {"problems": {"lower": {"class": "m.Lower", **settings}}}


def test_keyword_arguments_are_flat_beside_the_class():
    component = Component(**{"class": "torch.optim.SGD", "lr": 0.1, "copy": 1, "args": [2]})
    assert component.class_ == "torch.optim.SGD"
    assert component.kwargs == {"lr": 0.1, "copy": 1}
    assert component.args == [2]


def test_data_may_be_one_component_or_several():
    one = Experiment(**with_problem(data={"class": "m.loader", "size": 3})).problems["lower"].data
    several = Experiment(**with_problem(data=[{"class": "m.a"}, {"class": "m.b"}])).problems["lower"].data
    assert isinstance(one, Component)
    assert one.kwargs == {"size": 3}
    assert [component.class_ for component in several] == ["m.a", "m.b"]


def test_defaults():
    experiment = Experiment(**with_problem(config={"type": "cg"}))
    assert experiment.engine.class_ == "multilevel.Engine"
    assert experiment.problems["lower"].config.method == CG()
    assert experiment.problems["lower"].module is None
    assert experiment.edges is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ["problems: ", "required"]),
        ({"problems": {}}, ["problems: ", "at least one"]),
        ({"problems": [1]}, ["problems: ", "a mapping"]),
        ({"problems": {"lower": {}}}, ["problems.lower.class: ", "required"]),
        ({"problems": PAIR, "edgs": []}, ["edgs: ", "did you mean 'edges'"]),
        (with_problem(optimiser={"class": "x"}), ["problems.lower.optimiser: ", "did you mean 'optimizer'"]),
        (with_problem(optimizer={"lr": 0.1}), ["problems.lower.optimizer.class: ", "required"]),
        (with_problem(optimizer="SGD"), ["problems.lower.optimizer: ", "a mapping", "'SGD'"]),
        (with_problem(data=[{"class": "a"}, {"clas": "b"}]), ["problems.lower.data.1.class: ", "required"]),
        (with_problem(data=[3]), ["problems.lower.data.0: ", "mapping with `class`", "got 3"]),
        (with_problem(data=3), ["problems.lower.data: ", "mapping with `class`", "got 3"]),
        (with_problem(config={"type": "cgg"}), ["problems.lower.config.type: ", "did you mean 'cg'"]),
        (with_problem(config={"unroll_steps": 0}), ["problems.lower.config.unroll_steps: ", "at least 1"]),
        ({"problems": PAIR, "engine": {"train_itters": 1}}, ["engine.train_itters: ", "did you mean 'train_iters'"]),
        ({"problems": PAIR, "edges": [["upper", "lowr"]]}, ["edges.0: ", "'lowr'", "did you mean 'lower'"]),
        ({"problems": PAIR, "edges": [["upper"]]}, ["edges.0: ", "[upper, lower]", "['upper']"]),
        ({"problems": PAIR, "edges": ["ul"]}, ["edges.0: ", "[upper, lower]", "'ul'"]),
        ({"problems": PAIR, "edges": [], "dependencies": {}}, ["edges: ", "`dependencies`", "one of the two"]),
        (
            {"problems": PAIR, "dependencies": {"u2l": {"uper": ["lower"]}}},
            ["dependencies.u2l.uper: ", "did you mean 'upper'"],
        ),
        ({"problems": PAIR, "dependencies": {"l2u": {"lower": ["x"]}}}, ["dependencies.l2u.lower.0: ", "'x'"]),
        ({"problems": PAIR, "dependencies": {"ul": {}}}, ["dependencies.ul: ", "u2l"]),
        ({"problems": PAIR, "name": "a/b"}, ["name: ", "slashes"]),
    ],
)
def test_refusals_name_the_key_path_and_the_way_out(settings, words):
    with pytest.raises(ConfigError) as caught:
        Experiment(**settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_plain_data_gives_the_same_experiment():
    experiment = Experiment(
        **{
            "name": "x",
            "engine": {"train_iters": 5, "class": "m.MyEngine", "options": {"size": 3}},
            "problems": {
                "upper": {
                    "class": "m.Upper",
                    "optimizer": {"class": "torch.optim.SGD", "lr": 0.1, "foreach": None},
                    "config": {"type": "cg", "cg_iterations": 3},
                },
                "lower": {"class": "m.Lower", "data": [{"class": "m.a"}], "options": {"penalty": {"class": "m.P"}}},
            },
            "dependencies": {"u2l": {"upper": ["lower"]}, "l2u": {"lower": ["upper"]}},
        }
    )
    plain = experiment.plain()
    assert Experiment(**plain).plain() == plain
    assert plain["problems"]["upper"]["optimizer"] == {"class": "torch.optim.SGD", "lr": 0.1, "foreach": None}
    assert plain["problems"]["upper"]["config"]["type"]["iterations"] == 3
    assert plain["engine"]["valid_step"] == 0


def test_the_engine_section_holds_an_engine_config():
    section = Experiment(problems=PAIR, engine={"train_iters": 5, "seed": 2}).engine
    assert section.config.train_iters == 5
    assert section.config.seed == 2
    assert not hasattr(section.config, "options")


def test_the_json_schema_has_every_method_with_its_options():
    schema = experiment_schema()
    json.dumps(schema)
    names, *mappings = schema["$defs"]["Config"]["properties"]["type"]["anyOf"]
    assert set(names["enum"]) == set(available())
    options = {m["properties"]["name"]["const"]: m["properties"] for m in mappings}
    assert options["cg"]["iterations"]["type"] == "integer"
    assert options["cg"]["iterations"]["description"] == argument_docs(CG).get("iterations", "")
    assert schema["$defs"]["ProblemSection"]["properties"].keys() >= {"class", "module", "optimizer", "data"}
    assert "unroll_steps" in schema["$defs"]["Config"]["properties"]
    assert schema["$defs"]["Config"]["properties"]["unroll_steps"]["description"].startswith("Optimizer steps")


def test_argument_docs_join_continuation_lines():
    class Documented:
        """One line.

        Args:
            first: What it is,
                going on.
            second: Another.

        Raises:
            ConfigError: Never.
        """

    assert argument_docs(Documented) == {"first": "What it is, going on.", "second": "Another."}
