"""Derivations of Appendix C by machine, exact and for every β (needs sympy).

Each proof is a function without arguments that returns normally or raises `ProofError`. They
are run by the tests and by ``python -m paper.appendix_c``. Where a proof fixes the number of
classes or examples, its docstring says so; all else is symbolic.
"""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp  # type: ignore[import-untyped]


class ProofError(AssertionError):
    """A derivation did not come out; the message says which expression and what is left."""


a, N, f, g, psi, beta = sp.symbols("a N f g psi beta", positive=True)
A, B, D, Z = 1 - a * (N - 1), 1 + a * (N - 1), 1 - a * (N - 3), 1 / a + N - 1
SQRT = sp.Symbol("R")


def _is_zero(what: str, expression: sp.Expr) -> None:
    left = sp.simplify(expression)
    if left != 0:
        raise ProofError(f"{what}: expected 0, got {left}")


def _is_not_zero(what: str, expression: sp.Expr) -> None:
    if sp.simplify(expression) == 0:
        raise ProofError(f"{what}: expected something other than 0")


def _modulo_root(expression: sp.Expr, square: sp.Expr) -> sp.Expr:
    """Reduce a polynomial in the symbol R by R² = `square`; zero only if it vanishes at ±R."""
    numerator = sp.numer(sp.together(expression))
    return sp.rem(sp.Poly(numerator, SQRT), sp.Poly(SQRT**2 - square, SQRT)).as_expr()


def expansion_to_third_order() -> None:
    """Eq. (3), its h, Q and log Z are the Taylor expansion, for a right and a wrong label.

    In moments m_k of v under h this is for every N; h and log Z are derived for N = 4.
    """
    t, m1, m2, m3 = sp.symbols("t m1 m2 m3")
    exact = sp.log(1 + t * m1 + t**2 * m2 / 2 + t**3 * m3 / 6)
    # v·h = m1, v·Qv = m2 - m1², (v⊙v)·Qv = m3 - m1 m2
    printed = t * m1 + t**2 * (m2 - m1**2) / 2
    printed += t**3 * ((m3 - m1 * m2) / 6 - m1 * (m2 - m1**2) / 3)
    _is_zero("moments", sp.series(exact, t, 0, 4).removeO() - sp.expand(printed))
    v = sp.Matrix([0, *sp.symbols("v1:4")])
    h = (sp.ones(4, 1) + (sp.exp(beta) - 1) * sp.Matrix([1, 0, 0, 0])) / (sp.exp(beta) + 3)
    Q = sp.diag(*h) - h * h.T
    log_z = beta + sp.log(1 + sp.exp(-beta) * 3)
    for label in (0, 1):
        z = [beta + t * v[0], *(t * x for x in v[1:])]
        loss = sp.log(sum(sp.exp(x) for x in z)) - z[label]
        squares = v.multiply_elementwise(v)
        terms = [
            log_z - beta * int(label == 0),
            (v.T * h)[0] - v[label],
            (v.T * Q * v)[0] / 2,
            (squares.T * Q * v)[0] / 6 - (v.T * h)[0] * (v.T * Q * v)[0] / 3,
        ]
        for order, term in enumerate(terms):
            derived = sp.diff(loss, t, order).subs(t, 0) / sp.factorial(order)
            difference = derived - term
            if order == 0:
                difference = sp.expand_log(sp.exp(derived) - sp.exp(term))
            _is_zero(f"order {order}, label {label}", difference)


def _correct_bracket(x: sp.Expr) -> sp.Expr:
    """dL/df of eq. (3) at v = f(1-y), divided by the probability p of the other classes."""
    p = (N - 1) * a / B
    loss = p * f + p * (1 - p) * f**2 / 2 + p * (1 - p) * (1 - 2 * p) * f**3 / 6
    return (sp.diff(loss, f) / p).subs(f, x)


def correct_points() -> None:
    """Eq. (4): the corrected f± are stationary; the printed leave exactly 1 + a²/B²."""
    _is_zero("bracket", _correct_bracket(f) - (1 + f / B + f**2 * A / (2 * B**2)))
    root = B / A * (-1 + SQRT)
    _is_zero("corrected", _modulo_root(_correct_bracket(root), 2 * a * (N - 1) - 1))
    square = 1 + 2 * a**2 * A / B**2
    _is_zero("printed", _modulo_root(_correct_bracket(root) - (1 + a**2 / B**2), square))


def _wrong_system() -> tuple[sp.Expr, sp.Expr]:
    """Stationarity of eq. (3) at v = g y + ψ(1-φ-y): the ψ equation, and g minus ψ."""
    m1 = (g + (N - 2) * psi) / Z
    m2 = (g**2 + (N - 2) * psi**2) / Z

    def each(x: sp.Expr) -> sp.Expr:
        return 1 + x - m1 + x**2 / 2 - x * m1 - m2 / 2 + m1**2

    return each(psi), each(g) - Z - each(psi)


def wrong_points() -> None:
    """Eq. (5), corrected, and the second branch solve eq. (3), and nothing symmetric else."""
    for_psi, difference = _wrong_system()
    # Without its constant the ψ equation splits: ψ = 0, or ψ = 2(a g - B)/D.
    split = psi * (D * psi - 2 * (a * g - B))
    combined = sp.simplify((Z * for_psi + difference) / split)
    if combined.has(g) or combined.has(psi) or combined == 0:
        raise ProofError(f"the ψ equation does not split: {combined}")
    first = 2 * (a * g - B) / D
    quadratic = A * g**2 + 2 * B * g - 2 * B * D / a
    ratio = sp.simplify(difference.subs(psi, first) / quadratic)
    if ratio.has(g) or ratio == 0:
        raise ProofError(f"first branch: {ratio}")
    root = -B / A * (1 + SQRT)
    _is_zero("corrected g", _modulo_root(quadratic.subs(g, root), 1 + 2 * A * D / (a * B)))
    _is_zero("κ'", root + D / A * (B / D + B / D * SQRT))
    second = (Z - 2) * g**2 + 2 * Z * g - 2 * Z**2
    ratio = sp.simplify(difference.subs(psi, 0) / second)
    if ratio.has(g) or ratio == 0:
        raise ProofError(f"second branch: {ratio}")
    root = Z * (-1 + SQRT) / (Z - 2)
    _is_zero("second g", _modulo_root(second.subs(g, root), 2 * Z - 3))


def printed_wrong_points() -> None:
    """Eq. (5) as printed, flipped, or with one misprint mended, is not stationary.

    At N = 10 and β = ln 20, exactly; a rational identity that fails at a point is false.
    """
    at = {N: 10, a: sp.Rational(1, 20)}
    for_psi, difference = (expression.subs(at) for expression in _wrong_system())
    An, Bn, Dn, an = (expression.subs(at) for expression in (A, B, D, a))
    without, with_exp = (sp.sqrt(1 + 2 * An * Dn / Bn / x) for x in (1, an))
    for sign in (1, -1):
        candidates = {
            "printed": -(Dn + sign * Bn * without) / An,
            "flip": (Dn + sign * Bn * without) / An,
            "exp(β) only": -(Dn + sign * Bn * with_exp) / An,
            "leading B only": -(Bn + sign * Bn * without) / An,
        }
        mended = -(Bn + sign * Bn * with_exp) / An
        for name, value in candidates.items():
            for denominator in (An, Dn):
                x = 2 * (an * value / denominator - Bn / Dn)
                point = {g: value, psi: x}
                residuals = [for_psi.subs(point), difference.subs(point)]
                _is_not_zero(f"{name}, {sign:+d}", sum(r**2 for r in residuals))
        printed_psi = {g: mended, psi: 2 * (an * mended / An - Bn / Dn)}
        _is_not_zero(f"printed ψ, {sign:+d}", for_psi.subs(printed_psi))


def kinds_of_points() -> None:
    """f₊ is a minimum only below β = ln(N-1), above it a saddle (for N of 3 or more).

    Along w with Σ w = 0 the curvature of eq. (3) at v = f(1-y) is h‖w‖²(1 + f/B), which is
    -(1-r)/(1+r) at f₊ with r² = 2a(N-1) - 1: negative exactly where r < 1.
    """
    v = sp.Matrix([0, *sp.symbols("v1:4")])
    E = 1 / a
    h = sp.Matrix([E, 1, 1, 1]) / (E + 3)
    m = [sum(h[i] * v[i] ** k for i in range(4)) for k in (1, 2, 3)]
    loss = m[0] + (m[1] - m[0] ** 2) / 2 + (m[2] - 3 * m[1] * m[0] + 2 * m[0] ** 3) / 6
    point = {x: f for x in v[1:]}
    curvature = sp.diff(loss, v[1], 2) - sp.diff(loss, v[1], v[2])
    _is_zero("curvature", (curvature.subs(point) - h[1] * (1 + f / B)).subs(N, 4))
    r = sp.Symbol("r", positive=True)
    A_of_r = (1 - r**2) / 2
    f_plus = -1 / A_of_r * (1 - r)  # f₊ / B
    _is_zero("sign", 1 + f_plus + (1 - r) / (1 + r))


def no_correct_points() -> None:
    """Above β = ln 2(N-1) eq. (3) has no stationary point for a correct example, for every N.

    Each component solves the same quadratic, so k of them are -u - d and the others -u + d.
    What is left is a quadratic in d, whose discriminant has the sign of
    2a²(N-1-2k)² + a(N-1) - 1: largest at k = 0 and N - 1, where it is that of f±.
    """
    d, k = sp.symbols("d k")
    M = N - 1
    m1 = (-M + (M - 2 * k) * d) * a
    u = 1 - m1
    m2 = ((M - k) * (d - u) ** 2 + k * (d + u) ** 2) / Z
    constant = (u**2 - d**2) / 2 - u + m2 / 2 - m1**2
    _is_zero("u", m1 - ((M - k) * (d - u) - k * (d + u)) / Z)
    discriminant = sp.discriminant(sp.Poly(sp.numer(sp.together(constant)), d))
    sign = 2 * a**2 * (M - 2 * k) ** 2 + a * M - 1
    _is_zero("discriminant", discriminant / (4 * B) - sign)
    _is_zero("k = 0", sign.subs(k, 0) - (2 * a * M - 1) * (a * M + 1))
    _is_zero("largest at the ends", sign.subs(k, 0) - sign - 8 * a**2 * k * (M - k))


def responses() -> None:
    """Eq. (8) gives (9) on average over labels, and (9) gives the corrected (10).

    (8) to (9) for N = 4 and one term of the sum; (9) to (10) for every N.
    """
    z = sp.Matrix(sp.symbols("z1:5"))
    total, square = sum(z), (z.T * z)[0]
    changes = []
    for label in range(4):
        q = sp.ones(4, 1) - 4 * sp.Matrix([int(i == label) for i in range(4)])
        dz = (z.T * q)[0] * z
        change = dz[label] - (sum(dz) - dz[label]) / 3
        _is_zero("per label", change + (total - 4 * z[label]) ** 2 / 3)
        changes.append(change)
    _is_zero("(9)", sum(changes) / 4 - (total**2 - 4 * square) / 3)

    def nine(values: list[tuple[sp.Expr, sp.Expr]]) -> sp.Expr:
        first = sum(count * x for count, x in values)
        second = sum(count * x**2 for count, x in values)
        return (first**2 - N * second) / (N - 1)

    _is_zero("(10), correct", nine([(1, beta), (N - 1, f)]) + (beta - f) ** 2)
    wrong = nine([(1, beta), (1, g), (N - 2, psi)])
    factor = 2 * (N - 2) / (N - 1)
    corrected = -((beta - g) ** 2) - factor * (beta - psi) * (g - psi)
    printed = -((beta - g) ** 2) - factor * (beta - g) * (g - psi)
    _is_zero("(10), corrected", wrong - corrected)
    _is_zero("(10), printed", wrong - printed + factor * (g - psi) ** 2)


def gap_theorem() -> None:
    """At a correct surrogate the step of eq. (6) never widens the gap, whatever J (N = 3)."""
    z = sp.Matrix([beta, f, f])
    weights = z.applyfunc(sp.exp)
    gradient = weights / sum(weights) - sp.Matrix([1, 0, 0])
    q = sp.Matrix([-2, 1, 1])
    _is_zero("gradient ∥ q", sum(x**2 for x in gradient - weights[1] / sum(weights) * q))
    J = sp.Matrix(3, 2, sp.symbols("j1:7", real=True))
    dz = J * J.T * q
    to_mean = dz[0] - (dz[1] + dz[2]) / 2
    squared_norm = ((J.T * q).T * (J.T * q))[0]
    _is_zero("δgap ‖Jᵀq‖/ε", to_mean + squared_norm / 2)


def no_stationary_point() -> None:
    """On S the exact loss has none: ∂L/∂v_i > 0 for i ≠ y, infima 0 and ln 2 (N = 4)."""
    v = sp.symbols("v1:4", real=True)
    z = [beta, *v]
    total = sum(sp.exp(x) for x in z)
    for label in (0, 1):
        loss = sp.log(total) - z[label]
        for i in range(1, 4):
            if i != label:
                _is_zero("softmax", sp.diff(loss, v[i - 1]) - sp.exp(v[i - 1]) / total)
    t = sp.Symbol("t", positive=True)
    right = sp.log(sp.exp(beta) + 3 * sp.exp(-t)) - beta
    wrong = sp.log(2 * sp.exp(beta) + 2 * sp.exp(-t)) - beta
    _is_zero("infimum, correct", sp.limit(right, t, sp.oo))
    _is_zero("infimum, wrong", sp.expand_log(sp.limit(wrong, t, sp.oo)) - sp.log(2))


def _small_problem() -> tuple[sp.Matrix, sp.Matrix, sp.Rational]:
    X = sp.Matrix([[1, 2], [3, -1], [-2, 1]])
    surrogates = sp.Matrix([[2, -1, 0], [1, 3, -2], [0, 1, 4]])
    return X, surrogates, sp.Rational(-3, 2)


def jacobians() -> None:
    """C.3.3: the printed Jacobian freezes the resolvent; the exact one at fixed λ does not.

    Three examples, two features, three classes, in rational numbers.
    """
    X0, surrogates, multiplier = _small_problem()
    x = sp.Matrix(1, 2, sp.symbols("x1:3"))
    X = X0.copy()
    X[0, :] = x
    at = dict(zip(x, X0[0, :], strict=True))
    R = (X.T * X - multiplier * sp.eye(2)).inv()
    frozen = R.subs(at)
    z = surrogates.T * X * R * x.T
    derived = z.jacobian(x).subs(at)
    by_hand = (surrogates.T * X * frozen * x.T).jacobian(x).subs(at)
    Rx, own = frozen * X0[0, :].T, surrogates[0, :].T
    rest = (frozen * X0.T * surrogates).T
    H = (X0[0, :] * Rx)[0]
    exact = (own - z.subs(at)) * Rx.T + (1 - H) * rest
    printed = own * Rx.T + rest
    _is_zero("exact", sum(x**2 for x in derived - exact))
    _is_zero("printed is frozen", sum(x**2 for x in by_hand - printed))
    _is_not_zero("printed is exact", sum(x**2 for x in derived - printed))


def squared_jacobian() -> None:
    """C.3.3: J Jᵀ has Z̃ᵀ, not Zᵀ, on the left of its second term; and (8) drops terms."""
    X, surrogates, multiplier = _small_problem()
    R = (X.T * X - multiplier * sp.eye(2)).inv()
    Z_estimated = X * R * X.T * surrogates
    own = surrogates[0, :].T
    J = own * (R * X[0, :].T).T + (R * X.T * surrogates).T
    omega = X * R * R * X.T
    cross = own * (omega * surrogates)[0, :]
    common = omega[0, 0] * own * own.T + cross + cross.T
    _is_zero("corrected", sum(x**2 for x in J * J.T - common - surrogates.T * omega * surrogates))
    _is_not_zero(
        "printed", sum(x**2 for x in J * J.T - common - Z_estimated.T * omega * surrogates)
    )
    double = sp.diag(2, 1, 1)
    M = double * omega * double
    _is_zero("M", sum(x**2 for x in J * J.T - surrogates.T * M * surrogates))
    diagonal = sp.diag(*[M[i, i] for i in range(3)])
    _is_not_zero("single sum", sum(x**2 for x in J * J.T - surrogates.T * diagonal * surrogates))


def multiplier_equation() -> None:
    """C.3.2: ω minimises the functional with +σ₀W, and ⟨WWᵀ⟩ = N 1, not 1.

    Two examples, one feature, three classes; moments of the noise by its definition.
    """
    X = sp.Matrix(sp.symbols("x1:3", real=True))
    noise, multiplier = sp.symbols("sigma lambda", real=True)
    W = sp.Matrix(2, 3, sp.symbols("w1:7", real=True))
    surrogates = sp.Matrix(2, 3, sp.symbols("s1:7", real=True))
    omega = sp.Matrix(1, 3, sp.symbols("o1:4", real=True))
    residual = X * omega - surrogates - noise * W
    energy = sum(x**2 for x in residual) - multiplier * sum(x**2 for x in omega)
    solved = X.T * (surrogates + noise * W) / ((X.T * X)[0] - multiplier)
    slopes = [sp.diff(energy, o).subs(dict(zip(omega, solved, strict=True))) for o in omega]
    _is_zero("minimum", sum(s**2 for s in slopes))
    norm = sp.expand(sum(x**2 for x in solved))
    mean = _gaussian_mean(norm, list(W))
    R = 1 / ((X.T * X)[0] - multiplier)
    for factor, check in ((3, _is_zero), (1, _is_not_zero)):
        S = surrogates * surrogates.T + factor * noise**2 * sp.eye(2)
        check(f"factor {factor}", mean - (X.T * S * X)[0] * R**2)


def _gaussian_mean(expression: sp.Expr, variables: list[sp.Symbol]) -> sp.Expr:
    """Mean of a polynomial of degree two in independent standard normal variables."""
    polynomial = sp.Poly(expression, *variables)
    moments = {0: 1, 1: 0, 2: 1}
    terms = []
    for powers, coefficient in polynomial.terms():
        terms.append(coefficient * sp.prod([moments[power] for power in powers]))
    return sum(terms)


PROOFS: dict[str, Callable[[], None]] = {
    "expansion": expansion_to_third_order,
    "correct-points": correct_points,
    "wrong-points": wrong_points,
    "printed-wrong-points": printed_wrong_points,
    "kinds": kinds_of_points,
    "no-correct-points": no_correct_points,
    "responses": responses,
    "gap-theorem": gap_theorem,
    "no-stationary-point": no_stationary_point,
    "jacobians": jacobians,
    "squared-jacobian": squared_jacobian,
    "multiplier": multiplier_equation,
}
