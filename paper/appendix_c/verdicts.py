"""A verdict on each claim of Appendix C, by the rules of paper/claims.toml."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

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
from paper.claims.verdicts import MISSING, NEEDS_SCALE, Claim, Verdict, VerdictName, register

BETA_CORRECT = np.linspace(0.1, 10, 100)
BETA_WRONG = np.linspace(3.5, 10, 66)


def _all_or_some(holding: Sequence[bool]) -> VerdictName:
    """Return ``"holds"`` where all hold, and ``"holds in direction"`` where only some do."""
    return "holds" if all(holding) else "holds in direction" if any(holding) else "does not hold"


def _minima(claim: Claim, studies: Studies) -> Verdict:
    counts = []
    for beta in (1.0, 2.0, 3.5, 5.0, 8.0):
        points = landscape.stationary_points(beta, CLASSES, wrong=True)
        counts.append(sum(p.admissible and p.falling == 0 for p in points))
    return Verdict(
        claim,
        "holds in direction" if any(counts) else "does not hold",
        f"misclassified: {max(counts)} local minima of (3) in S at β = 1, 2, 3.5, 5, 8; correctly "
        "classified: one, below β = ln 9 only",
    )


def _threshold(claim: Claim, studies: Studies) -> Verdict:
    thresholds = {variant: _admissible_from(variant) for variant in surrogate.VARIANTS}
    return Verdict(
        claim,
        _all_or_some([abs(thresholds[v] - 3.5) < 0.05 for v in ("printed", "corrected")]),
        "g₊ and ψ₊ stay below β from "
        + ", ".join(f"{beta:.3f} ({variant})" for variant, beta in thresholds.items())
        + f"; flip crosses at {surrogate.threshold(10):.4f}, printed g₋ at "
        f"{surrogate.threshold(10, 'printed', '-'):.3f}",
    )


def _admissible_from(variant: Variant) -> float:
    """Return the β from which on, up to 12, g₊ and ψ₊ are admissible, in steps of 0.001."""
    beta = np.linspace(0.001, 12, 12000)
    g, psi, *_ = surrogate.wrong_roots(beta, CLASSES, variant)
    outside = np.flatnonzero(~surrogate.admissible(beta, g, psi))
    return float(beta[outside[-1] + 1])


def _only_constraint(claim: Claim, studies: Studies) -> Verdict:
    beta = np.linspace(0.1, 12, 1191)
    shares = {
        variant: surrogate.admissible(
            beta, surrogate.correct_roots(beta, CLASSES, variant).f_plus
        ).mean()
        for variant in ("printed", "corrected")
    }
    return Verdict(
        claim,
        _all_or_some([share > 0.99 for share in shares.values()]),
        f"f₊ leaves {shares['printed']:.0%} of β in (0.1, 12) as printed, "
        f"{shares['corrected']:.0%} corrected (up to ln 18 = {np.log(18):.3f})",
    )


def _surface(variant: Variant, error: float) -> Array:
    return response.mean_field_loss(
        BETA_CORRECT[:, None], BETA_WRONG, error=error, classes=CLASSES, variant=variant
    )


def _loss_a(claim: Claim, studies: Studies) -> Verdict:
    worst = {e: float(_surface("flip", e)[-1].max()) for e in (0.0, *SENSITIVITIES, ERROR)}
    text = ", ".join(f"{value:.3f} at e = {e:g}" for e, value in sorted(worst.items()))
    return Verdict(
        claim,
        _all_or_some([value < 0.1 for value in worst.values()]),
        f"flip, largest loss at β✓ = 10: {text} nats",
    )


def _loss_b(claim: Claim, studies: Studies) -> Verdict:
    surface = _surface("flip", ERROR)
    low = surface[BETA_CORRECT.searchsorted(3.0), 0]
    share = float((surface < low).mean())
    return Verdict(
        claim,
        _all_or_some([share < 0.25, share < 0.5]),
        f"flip, e = {ERROR}: loss {low:.3f} at (3, 3.5); {share:.0%} of the surface is lower",
    )


def _loss_c(claim: Claim, studies: Studies) -> Verdict:
    surface = _surface("flip", ERROR)
    corner, other = float(surface[0, -1]), float(surface[0, 0])
    return Verdict(
        claim,
        _all_or_some([corner == surface.max()]),
        f"flip, e = {ERROR}: loss {corner:.3f} at (0.1, 10), the largest of the surface; "
        f"{other:.3f} at (0.1, 3.5)",
    )


def _shrink(claim: Claim, studies: Studies) -> Verdict:
    proof = "theorem for every Jacobian at a correctly classified surrogate"
    if not studies.steps:
        return Verdict(claim, "holds", f"{proof}; {MISSING_STEPS}")
    growing = ", ".join(
        f"{s.run} {s.hard[0].growing:.1%} (soft margin {s.soft[0].growing:.1%})"
        for s in studies.steps
    )
    return Verdict(claim, "holds", f"{proof}; real gaps that grow to first order: {growing}")


def _positive(claim: Claim, studies: Studies) -> Verdict:
    shares = {}
    for variant in surrogate.VARIANTS:
        g, psi, *_ = surrogate.wrong_roots(BETA_WRONG, CLASSES, variant)
        shares[variant] = float(((g > psi) & (g < BETA_WRONG)).mean())
    both = shares["printed"] == shares["corrected"] == 1
    return Verdict(
        claim,
        _all_or_some([both, 1 in shares.values()]),
        "share of β✗ in (3.5, 10) with β✗ - g > 0 and g - ψ > 0: "
        + ", ".join(f"{variant} {share:.0%}" for variant, share in shares.items()),
    )


def _shielding(claim: Claim, studies: Studies) -> Verdict:
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
        _all_or_some(["corrected" in low, bool(low)]),
        "correct gap above which errors lower the response, at the best β✗ in (3.5, 10): "
        + ", ".join(f"{v} with {e} (10) {gap:.2f}" for (v, e), gap in least.items()),
    )


def _quadratic(claim: Claim, studies: Studies) -> Verdict:
    if not studies.steps:
        return Verdict(claim, MISSING, MISSING_STEPS)
    exponents = ", ".join(
        f"{s.run} {fit.shape} (exponent {fit.exponent:.2f} at ε = {eps:g})"
        for s in studies.steps
        for eps, fit in zip(s.eps, s.hard, strict=True)
        if eps == s.eps[0]
    )
    quadratic = [study.hard[0].shape == "quadratic" for study in studies.steps]
    return _of_networks(claim, studies.steps, quadratic, exponents)


def _mean(claim: Claim, studies: Studies) -> Verdict:
    adversarial = [study for study in studies.logits if study.recipe == "at"]
    if not adversarial:
        return Verdict(claim, MISSING, MISSING_LOGITS)
    close = [abs(study.largest - 3.5) < 0.5 for study in adversarial]
    means = ", ".join(f"{study.run} {study.largest:.2f}" for study in adversarial)
    return _of_networks(claim, adversarial, close, f"mean largest logit: {means}")


def _assumption(claim: Claim, studies: Studies) -> Verdict:
    if not studies.logits:
        return Verdict(claim, MISSING, MISSING_LOGITS)
    small = [study.ratio[1] < 0.1 for study in studies.logits]
    ratios = ", ".join(f"{study.run} {study.ratio[1]:.2g}" for study in studies.logits)
    return _of_networks(claim, studies.logits, small, f"median ‖z-βφ‖⁴/β⁴: {ratios}")


def _of_networks(
    claim: Claim,
    studies: Sequence[LogitStudy] | Sequence[StepStudy],
    holding: Sequence[bool],
    evidence: str,
) -> Verdict:
    """Return the verdict that networks give: as stated, it holds of the paper's scale only."""
    scales = sorted({study.scale for study in studies})
    verdict, reason = _all_or_some(holding), f"at scale {' and '.join(scales)}: {evidence}"
    if scales != ["paper"] and claim.scale == "paper":
        verdict, reason = NEEDS_SCALE, f"{claim.needs}; {reason}"
    elif scales != ["paper"] and verdict == "holds":
        verdict = "holds in direction"
    return Verdict(claim, verdict, reason, scale=" and ".join(scales))


JUDGES: dict[str, Callable[[Claim, Studies], Verdict]] = {
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
    "C-zero-error": _shielding,
    "C-shield": _shielding,
    "C-quadratic": _quadratic,
}
"""By id of the claims without a measure."""


def verdicts(studies: Studies) -> list[Verdict]:
    """Return the verdict on each claim of Appendix C; some need the stored networks."""
    return [JUDGES[claim.id](claim, studies) for claim in register() if claim.measure is None]
