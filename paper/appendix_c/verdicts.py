"""A verdict on each claim of Appendix C, by the rules of paper/claims.toml."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from paper.appendix_c import landscape, response, surrogate
from paper.appendix_c.networks import (
    MISSING_LOGITS,
    MISSING_STEPS,
    LogitStudy,
    StepStudy,
    Studies,
)
from paper.appendix_c.response import ERROR, SENSITIVITIES
from paper.appendix_c.surrogate import CLASSES, Array, Variant

BETA_CORRECT = np.linspace(0.1, 10, 100)
BETA_WRONG = np.linspace(3.5, 10, 66)

VerdictName = Literal["holds", "holds in part", "fails", "needs data"]


@dataclass(frozen=True)
class Verdict:
    """What becomes of one claim.

    Attributes
    ----------
    claim : str
        An id of paper/claims.toml.
    verdict : str
    evidence : str
    scales : tuple of str
        Of the networks that the verdict rests on; none where it is theory.
    """

    claim: str
    verdict: VerdictName
    evidence: str
    scales: tuple[str, ...] = ()


def _minima(studies: Studies) -> Verdict:
    counts = []
    for beta in (1.0, 2.0, 3.5, 5.0, 8.0):
        points = landscape.stationary_points(beta, CLASSES, wrong=True)
        counts.append(sum(p.admissible and p.falling == 0 for p in points))
    return Verdict(
        "C-minima",
        "holds in part" if any(counts) else "fails",
        f"misclassified: {max(counts)} local minima of (3) in S at β = 1, 2, 3.5, 5, 8; correctly "
        "classified: one, below β = ln 9 only",
    )


def _threshold(studies: Studies) -> Verdict:
    found = {variant: _admissible_from(variant) for variant in surrogate.VARIANTS}
    close = [abs(found[variant] - 3.5) < 0.05 for variant in ("printed", "corrected")]
    return Verdict(
        "C-threshold",
        "holds" if all(close) else "holds in part" if any(close) else "fails",
        "g₊ and ψ₊ stay below β from "
        + ", ".join(f"{beta:.3f} ({variant})" for variant, beta in found.items())
        + f"; flip crosses at {surrogate.threshold(10):.4f}, printed g₋ at "
        f"{surrogate.threshold(10, 'printed', '-'):.3f}",
    )


def _admissible_from(variant: Variant) -> float:
    """Return the β from which on, up to 12, g₊ and ψ₊ are admissible, in steps of 0.001."""
    beta = np.linspace(0.001, 12, 12000)
    g, psi, *_ = surrogate.wrong_roots(beta, CLASSES, variant)
    outside = np.flatnonzero(~surrogate.admissible(beta, g, psi))
    return float(beta[outside[-1] + 1])


def _only_constraint(studies: Studies) -> Verdict:
    beta = np.linspace(0.1, 12, 1191)
    shares = {
        variant: surrogate.admissible(
            beta, surrogate.correct_roots(beta, CLASSES, variant).f_plus
        ).mean()
        for variant in ("printed", "corrected")
    }
    inactive = [share > 0.99 for share in shares.values()]
    return Verdict(
        "C-only-constraint",
        "holds" if all(inactive) else "holds in part" if any(inactive) else "fails",
        f"f₊ leaves {shares['printed']:.0%} of β in (0.1, 12) as printed, "
        f"{shares['corrected']:.0%} corrected (up to ln 18 = {np.log(18):.3f})",
    )


def _surface(variant: Variant, error: float) -> Array:
    return response.mean_field_loss(
        BETA_CORRECT[:, None], BETA_WRONG, error=error, classes=CLASSES, variant=variant
    )


def _loss_a(studies: Studies) -> Verdict:
    worst = {e: float(_surface("flip", e)[-1].max()) for e in (0.0, *SENSITIVITIES, ERROR)}
    small = [value < 0.1 for value in worst.values()]
    text = ", ".join(f"{value:.3f} at e = {e:g}" for e, value in sorted(worst.items()))
    verdict: VerdictName = "holds" if all(small) else "holds in part" if any(small) else "fails"
    return Verdict("C-loss-a", verdict, f"flip, largest loss at β✓ = 10: {text} nats")


def _loss_b(studies: Studies) -> Verdict:
    surface = _surface("flip", ERROR)
    low = surface[BETA_CORRECT.searchsorted(3.0), 0]
    share = float((surface < low).mean())
    return Verdict(
        "C-loss-b",
        "holds" if share < 0.25 else "holds in part" if share < 0.5 else "fails",
        f"flip, e = {ERROR}: loss {low:.3f} at (3, 3.5); {share:.0%} of the surface is lower",
    )


def _loss_c(studies: Studies) -> Verdict:
    surface = _surface("flip", ERROR)
    corner, other = float(surface[0, -1]), float(surface[0, 0])
    return Verdict(
        "C-loss-c",
        "holds" if corner == surface.max() else "fails",
        f"flip, e = {ERROR}: loss {corner:.3f} at (0.1, 10), the largest of the surface; "
        f"{other:.3f} at (0.1, 3.5)",
    )


def _shrink(studies: Studies) -> Verdict:
    proof = "theorem for every Jacobian at a correctly classified surrogate"
    if not studies.steps:
        return Verdict("C-shrink", "holds", f"{proof}; {MISSING_STEPS}")
    growing = ", ".join(
        f"{s.run} {s.hard[0].growing:.1%} (soft margin {s.soft[0].growing:.1%})"
        for s in studies.steps
    )
    return Verdict("C-shrink", "holds", f"{proof}; real gaps that grow to first order: {growing}")


def _positive(studies: Studies) -> Verdict:
    shares = {}
    for variant in surrogate.VARIANTS:
        g, psi, *_ = surrogate.wrong_roots(BETA_WRONG, CLASSES, variant)
        shares[variant] = float(((g > psi) & (g < BETA_WRONG)).mean())
    full = {variant for variant, share in shares.items() if share == 1}
    return Verdict(
        "C-positive",
        "holds" if full >= {"printed", "corrected"} else "holds in part" if full else "fails",
        "share of β✗ in (3.5, 10) with β✗ - g > 0 and g - ψ > 0: "
        + ", ".join(f"{variant} {share:.0%}" for variant, share in shares.items()),
    )


def _shielding(claim: str) -> Callable[[Studies], Verdict]:
    def judge(studies: Studies) -> Verdict:
        least = {
            (variant, equation): float(
                response.shielding_gap(BETA_WRONG, variant=variant, equation=equation).min()
            )
            for variant in surrogate.VARIANTS
            for equation in get_args(response.Equation10)
        }
        low = {equation for (_, equation), gap in least.items() if gap < 3.5}
        return Verdict(
            claim,
            "holds" if "corrected" in low else "holds in part" if low else "fails",
            "correct gap above which errors lower the response, at the best β✗ in (3.5, 10): "
            + ", ".join(f"{v} with {e} (10) {gap:.2f}" for (v, e), gap in least.items()),
        )

    return judge


def _quadratic(studies: Studies) -> Verdict:
    if not studies.steps:
        return Verdict("C-quadratic", "needs data", MISSING_STEPS)
    exponents = ", ".join(
        f"{s.run} {fit.verdict} (exponent {fit.exponent:.2f} at ε = {eps:g})"
        for s in studies.steps
        for eps, fit in zip(s.eps, s.hard, strict=True)
        if eps == s.eps[0]
    )
    quadratic = sum(s.hard[0].verdict == "quadratic" for s in studies.steps)
    return Verdict(
        "C-quadratic",
        "holds"
        if quadratic == len(studies.steps)
        else "fails"
        if not quadratic
        else "holds in part",
        _at_scale(studies.steps) + exponents,
        _scales(studies.steps),
    )


def _scales(studies: Sequence[LogitStudy] | Sequence[StepStudy]) -> tuple[str, ...]:
    return tuple(sorted({study.scale for study in studies}))


def _at_scale(studies: Sequence[LogitStudy] | Sequence[StepStudy]) -> str:
    """Say what the verdict rests on: a network of another scale may give another one."""
    return f"at scale {' and '.join(_scales(studies))}: "


def _mean(studies: Studies) -> Verdict:
    found = [study for study in studies.logits if study.recipe == "at"]
    if not found:
        return Verdict("C-mean", "needs data", MISSING_LOGITS)
    close = [abs(study.largest - 3.5) < 0.5 for study in found]
    return Verdict(
        "C-mean",
        "holds" if all(close) else "holds in part" if any(close) else "fails",
        f"{_at_scale(found)}mean largest logit: "
        + ", ".join(f"{s.run} {s.largest:.2f}" for s in found),
        _scales(found),
    )


def _assumption(studies: Studies) -> Verdict:
    if not studies.logits:
        return Verdict("C-assumption", "needs data", MISSING_LOGITS)
    holding = [study.ratio[1] < 0.1 for study in studies.logits]
    return Verdict(
        "C-assumption",
        "holds" if all(holding) else "holds in part" if any(holding) else "fails",
        f"{_at_scale(studies.logits)}median ‖z-βφ‖⁴/β⁴: "
        + ", ".join(f"{s.run} {s.ratio[1]:.2g}" for s in studies.logits),
        _scales(studies.logits),
    )


CLAIMS: dict[str, Callable[[Studies], Verdict]] = {
    "C-assumption": _assumption,
    "C-minima": _minima,
    "C-threshold": _threshold,
    "C-only-constraint": _only_constraint,
    "C-mean": _mean,
    "C-loss-a": _loss_a,
    "C-loss-b": _loss_b,
    "C-loss-c": _loss_c,
    "C-shrink": _shrink,
    "C-positive": _positive,
    "C-zero-error": _shielding("C-zero-error"),
    "C-shield": _shielding("C-shield"),
    "C-quadratic": _quadratic,
}


def verdicts(studies: Studies) -> list[Verdict]:
    """Return what becomes of each claim of Appendix C; some need the stored networks."""
    return [judge(studies) for judge in CLAIMS.values()]
