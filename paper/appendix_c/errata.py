"""Errata of Appendix C with their residuals.

A residual is what is left of the equation that the printed formula should satisfy; beside it
stands that of the corrected formula. The derivations themselves are in `proofs`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache

import numpy as np

from paper.appendix_c import landscape, resolvent, response, surrogate
from paper.appendix_c.surrogate import CLASSES, Array, Variant


@dataclass(frozen=True)
class Erratum:
    """One formula that does not follow.

    Attributes
    ----------
    place, printed, finding, consequence : str
    measure : str
        What the residuals are.
    residual : float
        Of the printed formula.
    corrected : float
        Of the corrected one; zero up to rounding, or nan where there is none.
    tolerance : float
        The corrected residual must be below, the printed above.
    proofs : tuple of str
        Names in `proofs.PROOFS`.
    """

    place: str
    printed: str
    finding: str
    consequence: str
    measure: str
    residual: float
    corrected: float
    proofs: tuple[str, ...]
    tolerance: float = 1e-9

    @property
    def stands(self) -> bool:
        """Whether the numbers bear the erratum out."""
        return self.residual > self.tolerance and not self.corrected >= self.tolerance


def _wrong_residual(beta: float, variant: Variant) -> float:
    g, psi, *_ = surrogate.wrong_roots(beta, CLASSES, variant)
    v = surrogate.wrong_logits(0.0, float(g), float(psi), CLASSES)
    return landscape.residual(v, beta, wrong=True)


def _correct_residual(beta: float, variant: Variant) -> float:
    f = float(surrogate.correct_roots(beta, CLASSES, variant).f_plus)
    return landscape.residual(surrogate.correct_logits(0.0, f, CLASSES), beta, wrong=False)


def _psi_residual(beta: float) -> float:
    """Residual of the corrected g₊ with ψ by the printed formula."""
    g = float(surrogate.wrong_roots(beta, CLASSES, "corrected").g_plus)
    a = np.exp(-beta)
    A, B, D = (1 - a * (CLASSES - 1), 1 + a * (CLASSES - 1), 1 - a * (CLASSES - 3))
    v = surrogate.wrong_logits(0.0, g, 2 * (a * g / A - B / D), CLASSES)
    return landscape.residual(v, beta, wrong=True)


@dataclass(frozen=True)
class Ensemble:
    """Seeded random features and surrogates to measure section C.3 on."""

    features: Array
    surrogates: Array
    multiplier: float


@cache
def ensemble(
    seed: int = 0, examples: int = 60, features: int = 20, multiplier: float = -1.0
) -> Ensemble:
    """Return rows of unit length and surrogates of half correct, half wrong examples."""
    draws = np.random.default_rng(seed)
    X = draws.normal(size=(examples, features))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    rows = []
    for _ in range(examples // 2):
        b1, b2 = draws.uniform(1.0, 2.8), draws.uniform(3.5, 8.0)
        f = float(surrogate.correct_roots(b1, CLASSES).f_plus)
        g, psi, *_ = surrogate.wrong_roots(b2, CLASSES)
        rows += [
            draws.permutation(surrogate.correct_logits(b1, f, CLASSES)),
            draws.permutation(surrogate.wrong_logits(b2, float(g), float(psi), CLASSES)),
        ]
    return Ensemble(X, np.array(rows), multiplier)


def off_diagonal_share(sample: Ensemble, example: int = 0) -> float:
    """Return ‖off-diagonal part‖ / ‖diagonal part‖ of Z̃ᵀ M Z̃ q, which eq. (8) drops."""
    M = response.equation_8_matrix(
        resolvent.omega_matrix(sample.features, sample.multiplier), example
    )
    z = sample.surrogates
    q = response.label_direction(z.shape[1], int(z[example].argmax()))
    diagonal = z.T @ (np.diag(M) * (z @ q))
    return float(np.linalg.norm(z.T @ (M @ (z @ q)) - diagonal) / np.linalg.norm(diagonal))


def _equation_9_residuals(label: int = 0) -> tuple[float, float]:
    z = ensemble().surrogates
    omega = np.random.default_rng(1).uniform(size=len(z))
    dz = response.equation_8(omega, z, label, 1.0)
    exact = dz[label] - np.delete(dz, label).mean()
    printed = response.equation_9(omega, z, 1.0)
    corrected = response.equation_9_for_label(omega, z, label, 1.0)
    return abs(printed / exact - 1), abs(corrected / exact - 1)


def equation_10_residual(
    beta: float, variant: Variant, equation: response.Equation10, classes: int = CLASSES
) -> float:
    """Return how far eq. (10) is from eq. (9) for one misclassified surrogate, relatively."""
    g, psi, *_ = surrogate.wrong_roots(beta, classes, variant)
    z = surrogate.wrong_logits(beta, float(g), float(psi), classes)
    nine = response.equation_9(np.ones(1), z[None], 1.0)
    return float(abs(-response.wrong_term(beta, g, psi, classes, equation) / nine - 1))


def noise_norm(draws: int = 4000, seed: int = 0) -> tuple[float, float, float, float]:
    """Return ⟨‖ω‖²⟩ by Monte Carlo with its standard error, and as printed and corrected."""
    sample = ensemble()
    X, Z, noise = sample.features, sample.surrogates, 2.0
    generator = np.random.default_rng(seed)
    RX = resolvent.resolvent(X, sample.multiplier) @ X.T
    norms = [
        float(((RX @ (Z + noise * generator.normal(size=Z.shape))) ** 2).sum())
        for _ in range(draws)
    ]
    printed, corrected = (
        resolvent.squared_norm(sample.multiplier, X, Z, noise, printed=p) for p in (True, False)
    )
    return float(np.mean(norms)), float(np.std(norms) / draws**0.5), printed, corrected


def _functional_slopes() -> tuple[float, float]:
    """Slope of the functional of C.3.2 at the printed ω (with -σ₀W) and with +σ₀W."""
    sample = ensemble()
    X, Z, noise = sample.features, sample.surrogates, 0.5
    W = np.random.default_rng(2).normal(size=Z.shape)
    R = resolvent.resolvent(X, sample.multiplier)
    target = Z + noise * W
    slopes = []
    for sign in (-1, 1):
        omega = R @ X.T @ (Z + sign * noise * W)
        slope = 2 * (X.T @ (X @ omega - target) - sample.multiplier * omega)
        slopes.append(float(np.linalg.norm(slope) / np.linalg.norm(X.T @ target)))
    return slopes[0], slopes[1]


def jacobian_residuals(sample: Ensemble, example: int = 0) -> tuple[float, float]:
    """Return the relative distance of the printed and the exact Jacobian to differences."""
    X, Z, multiplier = sample.features, sample.surrogates, sample.multiplier
    step = 1e-5

    def logits(direction: Array) -> Array:
        moved = X.copy()
        moved[example] += direction
        return np.asarray(resolvent.estimated_logits(moved, Z, multiplier)[example])

    axes = step * np.eye(X.shape[1])
    numeric = np.stack([logits(e) - logits(-e) for e in axes], 1) / (2 * step)
    size = float(np.linalg.norm(numeric))
    printed = resolvent.printed_jacobian(X, Z, multiplier, example)
    exact = resolvent.jacobian(X, Z, multiplier, example)
    return (
        float(np.linalg.norm(printed - numeric)) / size,
        float(np.linalg.norm(exact - numeric)) / size,
    )


def _squared_jacobian_residuals() -> tuple[float, float]:
    sample = ensemble()
    X, Z, multiplier = sample.features, sample.surrogates, sample.multiplier
    omega = resolvent.omega_matrix(X, multiplier)
    J = resolvent.printed_jacobian(X, Z, multiplier, 0)
    cross = np.outer(Z[0], omega[0] @ Z)
    common = omega[0, 0] * np.outer(Z[0], Z[0]) + cross + cross.T
    size = float(np.linalg.norm(J @ J.T))
    left = (resolvent.estimated_logits(X, Z, multiplier), Z)
    printed, corrected = (
        float(np.linalg.norm(J @ J.T - common - side.T @ omega @ Z)) / size for side in left
    )
    return printed, corrected


def exact_slope(beta: float) -> float:
    """Return the gradient of the exact loss at the corrected surrogate of eq. (5)."""
    g, psi, *_ = surrogate.wrong_roots(beta, CLASSES)
    z = surrogate.wrong_logits(beta, float(g), float(psi), CLASSES)
    softmax = np.exp(z - z.max())
    softmax /= softmax.sum()
    softmax[landscape.LABEL_IF_WRONG] -= 1
    return float(np.abs(softmax[1:]).max())


def errata() -> list[Erratum]:
    """Return every formula of Appendix C that does not follow, with its numbers."""
    gradient = "largest gradient component of (3)"
    right = landscape.stationary_points(2.5, CLASSES, wrong=False)
    wrong = landscape.stationary_points(3.5, CLASSES, wrong=True)
    minima = [p for p in wrong if p.falling == 0]
    nine, nine_corrected = _equation_9_residuals()
    slope, slope_corrected = _functional_slopes()
    mean, error, printed_norm, corrected_norm = noise_norm()
    squared, squared_corrected = _squared_jacobian_residuals()
    jacobian, jacobian_corrected = jacobian_residuals(ensemble())
    return [
        Erratum(
            "Eq. (4)",
            "f± with root of 1 + 2a²A/B²",
            "not stationary: the bracket 1 + f/B + f²A/(2B²) is 1 + a²/B² there instead of 0; "
            "the roots are (B/A)[-1 ± √(2a(N-1) - 1)], real for β ≤ ln 2(N-1) only",
            f"above β = ln 2(N-1), for N = {CLASSES} {np.log(2 * (CLASSES - 1)):.3f}, eq. (3) has "
            "no stationary point at all for a correctly classified example",
            f"{gradient}, β = 2.5",
            _correct_residual(2.5, "printed"),
            _correct_residual(2.5, "corrected"),
            ("correct-points", "no-correct-points"),
        ),
        Erratum(
            "Eq. (5), g± and κ",
            "g± = -(D/A)[1 ± κ], κ = (B/D) √(1 + 2AD/B)",
            "not stationary; two misprints: exp(β) is missing under the root, and the 1 before "
            "κ should be B/D. Mending one of them only does not help",
            "g₊ is negative above ln(N-1), so no threshold near 3.5 follows",
            f"{gradient}, β = 3.5",
            _wrong_residual(3.5, "printed"),
            _wrong_residual(3.5, "corrected"),
            ("wrong-points", "printed-wrong-points"),
        ),
        Erratum(
            "Figure C.1",
            "β > 3.5",
            "follows from (5) neither as printed nor as corrected; g₊ = +(D/A)[1 + κ] gives "
            f"{surrogate.threshold(10):.4f} (N = 10) and {surrogate.threshold(100):.4f} "
            "(N = 100), is not stationary, and is not the only misreading that gives 3.5: "
            f"g₊ = (B/A)[1 + √(1 + 2 exp(-β) A D/B)] gives {surrogate.other_threshold(10):.3f}",
            "the threshold is a property of a misprint, not of the model",
            f"{gradient} at the flipped root, β = 3.5",
            _wrong_residual(3.5, "flip"),
            _wrong_residual(3.5, "corrected"),
            ("printed-wrong-points",),
        ),
        Erratum(
            "Eq. (5), ψ±",
            "ψ = 2[a g/A - B/D]",
            "both denominators are D: ψ = 2[a g - B]/D",
            "the gap g - ψ in (10) changes",
            f"{gradient}, corrected g₊ with printed ψ, β = 3.5",
            _psi_residual(3.5),
            _wrong_residual(3.5, "corrected"),
            ("wrong-points", "printed-wrong-points"),
        ),
        Erratum(
            "C.2.4",
            "“one can fully characterize the local minima”",
            f"(4) and (5) have two points each; up to permutations (3) has {len(right)} (correct, "
            f"β = 2.5) and {len(wrong)} (wrong, β = 3.5), of which ψ = 0, "
            "g = Z(-1 ± √(2Z-3))/(Z-2) are symmetric too",
            "neither the family nor the choice of the root is unique",
            "stationary points that (5) leaves out, β = 3.5",
            float(len(wrong) - 2),
            np.nan,
            ("wrong-points",),
        ),
        Erratum(
            "C.2.4, (A) and (B)",
            "“the minima are given by”",
            f"of the {len(wrong)} points at β = 3.5, {sum(p.admissible for p in wrong)} lie in S "
            f"and none of these is a minimum; the one minimum has ψ = 0 and g = "
            f"{minima[0].v[1]:.2f} > β. The corrected g₊ is a maximum. f₊ is a minimum below "
            "β = ln(N-1) and a saddle above",
            "the surrogates of misclassified examples do not minimise even the truncated loss",
            "directions in which (3) falls from the corrected (5), β = 3.5",
            float(_falling(3.5)),
            np.nan,
            ("kinds", "wrong-points"),
        ),
        Erratum(
            "Eq. (3) as a surrogate",
            "stationary points of the loss",
            "the exact cross-entropy has no stationary point on S: its infimum, 0 (correct) or "
            "ln 2 (wrong), is not attained",
            "the surrogates are artefacts of the truncation",
            "largest gradient component of the exact loss at the corrected (5), β = 3.5",
            exact_slope(3.5),
            np.nan,
            ("no-stationary-point", "expansion"),
        ),
        Erratum(
            "Eq. (6)",
            "“FGSM”",
            "a gradient step of L2 length ε, not the sign step",
            "ε is not comparable with the paper's Linf attacks",
            "L2 length of a sign step over that of (6), image of 3072 values",
            float(np.sqrt(3072)),
            np.nan,
            (),
        ),
        Erratum(
            "Eq. (8)",
            "δz = ε Σ Ω_ν [z^ν·(1-N y)] z^ν",
            "drops the off-diagonal terms of M = (I + e eᵀ) Ω (I + e eᵀ); Ω_ν depends on Z̃, y "
            "and λ* too, through ζ and the softmax",
            "the sum over examples is not derived; its sign and that of (9) survive",
            "dropped over kept, random ensemble",
            off_diagonal_share(ensemble()),
            np.nan,
            ("squared-jacobian",),
        ),
        Erratum(
            "Eq. (9)",
            "(z·1)² - N z·z",
            "is (8) averaged uniformly over the label; for one label -(z·1 - N z·y)²",
            "holds on average over balanced classes only",
            "relative difference to (8), one label",
            nine,
            nine_corrected,
            ("responses",),
        ),
        Erratum(
            "Eq. (10)",
            "(β✗-g)(g-ψ)",
            "should be (β✗-ψ)(g-ψ): the printed sum falls short by 2(N-2)/(N-1) (g-ψ)²",
            "an error whose gap closes does not stop counting; shielding needs a large gap",
            "relative difference to (9), flip, β✗ = 3.5",
            equation_10_residual(3.5, "flip", "printed"),
            equation_10_residual(3.5, "flip", "corrected"),
            ("responses",),
        ),
        Erratum(
            "Eq. (13)",
            "Z̃ - σ₀W",
            "the functional is minimal at Z̃ + σ₀W",
            "none: W is symmetric",
            "slope of the functional, relative",
            slope,
            slope_corrected,
            ("multiplier",),
        ),
        Erratum(
            "λ* equation",
            "Z̃Z̃ᵀ + σ₀² 1",
            f"Z̃Z̃ᵀ + N σ₀² 1: Monte Carlo {mean:.2f} ± {error:.2f}, corrected "
            f"{corrected_norm:.2f}, printed {printed_norm:.2f}",
            "none as σ₀ → 0",
            "distance to Monte Carlo in standard errors",
            abs(printed_norm - mean) / error,
            abs(corrected_norm - mean) / error,
            ("multiplier",),
            tolerance=4.0,
        ),
        Erratum(
            "C.3.3, Jacobian",
            "z̃ ⊗ R x + (R Xᵀ Z̃)ᵀ",
            "the derivative with the resolvent held fixed; at fixed λ it is "
            "(z̃-z) ⊗ R x + (1 - H)(R Xᵀ Z̃)ᵀ",
            "Ω changes, most where the fit interpolates",
            "relative distance to finite differences, λ = -1",
            jacobian,
            jacobian_corrected,
            ("jacobians",),
            tolerance=1e-6,
        ),
        Erratum(
            "C.3.3, J Jᵀ",
            "Zᵀ X R² Xᵀ Z̃",
            "Z̃ᵀ on the left",
            "none: (8) uses Z̃",
            "relative distance to the printed J times its transpose",
            squared,
            squared_corrected,
            ("squared-jacobian",),
        ),
    ]


def _falling(beta: float) -> int:
    g, psi, *_ = surrogate.wrong_roots(beta, CLASSES)
    v = surrogate.wrong_logits(0.0, float(g), float(psi), CLASSES)
    return landscape.falling_directions(v, beta)


def run_proofs() -> dict[str, str]:
    """Run every derivation; return ``"proved"`` or why not, by name.

    Without sympy nothing can be derived, and the one entry says so.
    """
    if importlib.util.find_spec("sympy") is None:
        return {"derivations": "not run: need sympy (pip install '.[test]')"}
    from paper.appendix_c.proofs import PROOFS, ProofError

    outcome = {}
    for name, proof in PROOFS.items():
        try:
            proof()
            outcome[name] = "proved"
        except ProofError as error:
            outcome[name] = f"failed: {error}"
    return outcome
