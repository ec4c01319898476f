"""Questions of ours: what the controls say of the paper's conclusions, by rules fixed before."""

from __future__ import annotations

from pathlib import Path

from logit_distributions import plans, recipes, store
from paper import selection, tables
from paper.claims.verdicts import MISSING, Claim, Verdict, judge, measured, number, read

REGISTER = Path(__file__).with_suffix(".toml")


def register() -> tuple[Claim, ...]:
    """Return every question, in the order of the register."""
    return read(REGISTER)


def verdicts() -> list[Verdict]:
    """Return what becomes of every question, in the order of the register."""
    return [judge(claim) for claim in register()]


def table() -> tables.Table:
    """Return the questions with their verdicts; of those that must wait, what they wait for."""
    judged = verdicts()
    rows = [_row(verdict) for verdict in judged]
    notes = [
        "Ours, not the paper's: rules in paper/beyond/questions.toml, committed before any of "
        "these networks was trained. 95 % interval: test images and, by Student's t over seeds, "
        "other trainings. “Holds” asks for the paper's scale: as stated at another one is “holds "
        "in direction”; “does not hold” excludes even the range in direction."
    ]
    waiting = sum(verdict.verdict == MISSING for verdict in judged)
    if waiting:
        notes.append(f"{waiting} of {len(judged)} wait for networks: make them with '{command()}'.")
    header = ("statement", "measured", "each seed", "as stated", "in direction", "verdict", "data")
    return tables.Table("beyond.questions", header, rows, notes)


def _row(verdict: Verdict) -> tuple[str, ...]:
    claim, seeds = verdict.claim, len(verdict.seeds)
    return (
        claim.quotation,
        measured(verdict) or "–",
        ", ".join(map(number, verdict.each)) or "–",
        claim.stated,
        claim.direction or claim.stated,
        verdict.verdict,
        f"{verdict.scale}, {seeds} seed{'s' * (seeds != 1)}" if verdict.scale else "–",
    )


def command() -> str:
    """Return the command that makes the networks, at the largest scale that was begun."""
    begun = [s for s in selection.scales() if store.find("logits", "normal", scale=s)]
    scale = begun[0] if begun else selection.scales()[-1]
    return f"logitdist make {plans.CONTROLS} --scale {recipes.SCALES[scale]}"
