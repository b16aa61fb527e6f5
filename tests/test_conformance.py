"""Every method on every hierarchy, through the engine, against solved-again differences and dense closed forms."""

from __future__ import annotations

import pytest
from torch import Tensor

from multilevel import CG, GMRES, MINRES, Darts, Exact, Identity, Method, Neumann, Nystrom, Sama
from multilevel.hypergrad.registry import available

from .conftest import CLOSED_FORM, CONVERGED, FINITE_DIFFERENCE
from .generic import engine_of, relative_error
from .hierarchies import BILEVEL, NESTED, SIBLINGS, reference, solved
from .inverses import (
    Solve,
    conjugate_gradient,
    damped,
    minimal_residual,
    neumann_series,
    nystrom_sketch,
    scaled_identity,
)
from .oracles import Formula, Hierarchy, Inverse, Values, bilevel_gradient
from .scalable_hierarchies import unit_quadratics

PROBLEMS = [*BILEVEL, *SIBLINGS, *NESTED]
LR = 0.3
every_problem = pytest.mark.parametrize("problem", PROBLEMS)
every_bilevel = pytest.mark.parametrize("problem", [*BILEVEL, *SIBLINGS])


def computed(hierarchy: Hierarchy, values: Values, method: Method | dict[str, Method]) -> dict[str, Tensor]:
    """The engine's hypergradient of each top problem."""
    engine = engine_of(hierarchy, values, method, lr=LR)
    return {top: engine.hypergradient(top)[0] for top in hierarchy.tops}


def assert_predicted(
    got: dict[str, Tensor], hierarchy: Hierarchy, values: Values, inverse: Inverse | dict[str, Inverse], within: float
) -> None:
    inverses = inverse if isinstance(inverse, dict) else dict.fromkeys(hierarchy.losses, inverse)
    formula = Formula(hierarchy, values, inverses)
    for top, gradient in got.items():
        assert relative_error(gradient, formula.gradient(top, values)) < within


def test_no_method_is_left_out() -> None:
    """The inner loops of unroll are in test_conformance_unroll.py; reinforce is for losses that sample."""
    here = {"darts", "identity", "neumann", "cg", "minres", "gmres", "nystrom", "sama", "exact"}
    builtin = {name for name, cls in available().items() if cls.__module__.startswith("multilevel.")}
    assert builtin == here | {"unroll", "reinforce"}


SOLVERS = [Exact(), CG(20), MINRES(20), GMRES(20)]


@every_problem
@pytest.mark.parametrize("method", SOLVERS, ids=repr)
def test_solvers_run_to_convergence_are_right(problem: str, method: Method) -> None:
    hierarchy, values = solved(problem)
    for top, gradient in computed(hierarchy, values, method).items():
        assert relative_error(gradient, reference(problem)[top]) < CONVERGED


@pytest.mark.parametrize("problem", ["quadratic", "logistic", "direct term", "two uppers", "diamond", "three levels"])
def test_a_long_neumann_series_is_right(problem: str) -> None:
    hierarchy, values = solved(problem)
    for top, gradient in computed(hierarchy, values, Neumann(*SERIES.get(problem, (200, 0.5)))).items():
        assert relative_error(gradient, reference(problem)[top]) < CONVERGED


SERIES = {"diamond": (30, 0.5), "three levels": (40, 0.5)}


TRUNCATED: list[tuple[Method, Inverse]] = [
    (Identity(), scaled_identity()),
    (Neumann(0, 0.4), scaled_identity(0.4)),
    (Neumann(1, 0.4), neumann_series(1, 0.4)),
    (Neumann(4, 0.3), neumann_series(4, 0.3)),
    (Nystrom(rank=1, damping=0.2), nystrom_sketch(1, 0.2)),
    (Nystrom(rank=2, damping=0.1, seed=3), nystrom_sketch(2, 0.1, seed=3)),
    (Nystrom(rank=20, damping=0.01), damped(0.01)),
    (Exact(damping=0.1), damped(0.1)),
]


@every_problem
@pytest.mark.parametrize(("method", "inverse"), TRUNCATED, ids=[repr(m) for m, _ in TRUNCATED])
def test_truncated_inverses_equal_their_closed_form_at_any_depth(
    problem: str, method: Method, inverse: Inverse
) -> None:
    hierarchy, values = solved(problem)
    assert_predicted(computed(hierarchy, values, method), hierarchy, values, inverse, CLOSED_FORM)


KRYLOV: list[tuple[Method, Solve]] = [
    *((CG(k), conjugate_gradient(k)) for k in (1, 2, 3)),
    (CG(2, alpha=0.1), conjugate_gradient(2)),
    *((MINRES(k), minimal_residual(k)) for k in (1, 2, 3)),
    *((GMRES(k), minimal_residual(k)) for k in (1, 2, 3)),
]


@every_bilevel
@pytest.mark.parametrize(("method", "solve"), KRYLOV, ids=[repr(m) for m, _ in KRYLOV])
def test_truncated_krylov_methods_are_optimal_in_their_space(problem: str, method: Method, solve: Solve) -> None:
    hierarchy, values = solved(problem)
    for top, gradient in computed(hierarchy, values, method).items():
        assert relative_error(gradient, bilevel_gradient(hierarchy, values, top, solve)) < CLOSED_FORM


FIRST_ORDER = [
    (Darts(alpha=1e-4), scaled_identity(first_order=True)),
    (Sama(alpha=1e-4), scaled_identity(LR, first_order=True)),
]
first_order = pytest.mark.parametrize(("method", "inverse"), FIRST_ORDER, ids=["darts", "sama"])


@every_problem
@first_order
def test_first_order_methods_equal_their_formula_at_any_depth(problem: str, method: Method, inverse: Inverse) -> None:
    hierarchy, values = solved(problem)
    assert_predicted(computed(hierarchy, values, method), hierarchy, values, inverse, FINITE_DIFFERENCE)


@every_bilevel
@pytest.mark.parametrize(("method", "same"), [(Darts(1e-4), Identity()), (Sama(1e-4), Neumann(0, LR))], ids=repr)
def test_first_order_methods_on_two_levels_are_their_autograd_twins(problem: str, method: Method, same: Method) -> None:
    """darts is identity, and sama with SGD(lr) is lr times the identity."""
    hierarchy, values = solved(problem)
    twins = computed(hierarchy, values, same)
    for top, gradient in computed(hierarchy, values, method).items():
        assert relative_error(gradient, twins[top]) < FINITE_DIFFERENCE


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize(
    "method", [Darts(1e-3), Sama(1e-3), Identity(), Neumann(1), CG(1), MINRES(1), Exact()], ids=repr
)
def test_every_inverse_is_exact_where_total_hessians_are_the_identity(depth: int, method: Method) -> None:
    hierarchy, values = unit_quadratics(depth)
    got = engine_of(hierarchy, values, method, lr=1.0).hypergradient("level0")[0]
    assert relative_error(got, Formula(hierarchy, values).gradient("level0", values)) < FINITE_DIFFERENCE


CONVERGED_MIXTURES: list[dict[str, Method]] = [
    {"mid": CG(20), "low": Exact()},
    {"mid": Exact(), "low": MINRES(20)},
    {"mid": GMRES(20), "low": CG(20)},
    {"mid": MINRES(20), "low": GMRES(20)},
]


@pytest.mark.parametrize("methods", CONVERGED_MIXTURES, ids=repr)
@pytest.mark.parametrize("problem", ["three levels", "pure response"])
def test_solvers_may_differ_from_level_to_level(problem: str, methods: dict[str, Method]) -> None:
    hierarchy, values = solved(problem)
    got = computed(hierarchy, values, methods)["top"]
    assert relative_error(got, reference(problem)["top"]) < CONVERGED


UNIT, STEP = scaled_identity(first_order=True), scaled_identity(LR, first_order=True)
MIXTURES: list[tuple[dict[str, Method], dict[str, Inverse], float]] = [
    ({"mid": CG(20), "low": Darts(1e-4)}, {"low": UNIT}, FINITE_DIFFERENCE),
    ({"mid": Darts(1e-4), "low": CG(20)}, {"mid": UNIT}, FINITE_DIFFERENCE),
    ({"mid": Sama(1e-4), "low": Exact()}, {"mid": STEP}, FINITE_DIFFERENCE),
    ({"mid": Exact(), "low": Sama(1e-4)}, {"low": STEP}, FINITE_DIFFERENCE),
    ({"mid": Darts(1e-4), "low": Sama(1e-4)}, {"mid": UNIT, "low": STEP}, FINITE_DIFFERENCE),
    ({"mid": Identity(), "low": CG(20)}, {"mid": scaled_identity()}, CLOSED_FORM),
    (
        {"mid": Neumann(2, 0.3), "low": Identity()},
        {"mid": neumann_series(2, 0.3), "low": scaled_identity()},
        CLOSED_FORM,
    ),
    ({"mid": Exact(), "low": Neumann(2, 0.3)}, {"low": neumann_series(2, 0.3)}, CLOSED_FORM),
    ({"mid": Nystrom(1, 0.1), "low": Exact()}, {"mid": nystrom_sketch(1, 0.1)}, CLOSED_FORM),
]


@pytest.mark.parametrize(("methods", "inverses", "within"), MIXTURES, ids=[repr(m) for m, _, _ in MIXTURES])
@pytest.mark.parametrize("problem", ["three levels", "pure response"])
def test_mixtures_equal_their_formula(
    problem: str, methods: dict[str, Method], inverses: dict[str, Inverse], within: float
) -> None:
    hierarchy, values = solved(problem)
    assert_predicted(computed(hierarchy, values, methods), hierarchy, values, inverses, within)


def test_four_methods_in_four_levels() -> None:
    hierarchy, values = solved("four levels")
    methods: dict[str, Method] = {"b": Neumann(3, 0.3), "c": Exact(), "d": Nystrom(1, 0.1)}
    inverses = {"b": neumann_series(3, 0.3), "d": nystrom_sketch(1, 0.1)}
    assert_predicted(computed(hierarchy, values, methods), hierarchy, values, inverses, CLOSED_FORM)
