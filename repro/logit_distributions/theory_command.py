"""``logitdist theory``: tables of Appendix C's functions, and its audit."""

from __future__ import annotations

import argparse
import csv
import sys
import textwrap
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from logit_distributions.errors import ReproError, not_installed
from logit_distributions.theory import surrogate

COLUMNS = ("beta", "f_plus", "f_minus", "g_plus", "psi_plus", "g_minus", "psi_minus")


def parse_range(text: str) -> list[float]:
    """Return the values of ``START:STOP:STEP``, both ends included.

    Raises
    ------
    ReproError
        If the text is no such range, or STOP is not a whole number of steps from START.
    """
    try:
        start, stop, step = (Decimal(part) for part in text.split(":"))
        steps = (stop - start) / step
        count = int(steps)
    except (ValueError, ArithmeticError, InvalidOperation):
        count, steps = -1, Decimal(0)
    if count < 0 or count != steps:
        raise ReproError(
            f"--beta {text}: expected START:STOP:STEP with STOP a whole number of steps above "
            "START, such as 0.25:12:0.25"
        )
    return [float(start + i * step) for i in range(count + 1)]


def table(arguments: argparse.Namespace) -> int:
    """Print f, g and ψ as CSV; ``nan`` where they are not real."""
    beta = parse_range(arguments.beta)
    f = surrogate.correct_roots(beta, arguments.classes, arguments.variant)
    if arguments.branch == 2:
        g = surrogate.second_branch(beta, arguments.classes)
    else:
        g = surrogate.wrong_roots(beta, arguments.classes, arguments.variant)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in zip(beta, *f, *g, strict=True):
        writer.writerow(repr(float(value)) for value in row)
    return 0


def audit(arguments: argparse.Namespace) -> int:
    """Print every erratum, the proofs and the verdicts; 0 only if every proof ran."""
    from logit_distributions.theory import networks
    from logit_distributions.theory.errata import errata, run_proofs
    from logit_distributions.theory.verdicts import verdicts

    found, studies = errata(), networks.stored()
    print("ERRATA (printed residual, corrected residual)")
    for erratum in found:
        mark = "" if erratum.stands else "  NOT BORNE OUT"
        print(f"\n{erratum.place}: {erratum.printed}{mark}")
        print(f"    {erratum.residual:.3g}, {erratum.corrected:.2g}  ({erratum.measure})")
        print(_indented(erratum.finding))
        print(_indented(f"proof: {', '.join(erratum.proofs) or 'by definition'}"))
    print("\nCLAIMS")
    for verdict in verdicts(studies):
        print(f"\n{verdict.claim}: {verdict.verdict}")
        print(_indented(verdict.evidence))
    print("\nNETWORKS\n")
    print("\n".join(networks.report(studies)))
    print("\nPROOFS")
    outcome = run_proofs()
    for name, result in outcome.items():
        print(f"{name:24}{result}")
    proved = sum(result == "proved" for result in outcome.values())
    standing = sum(erratum.stands for erratum in found)
    print(
        f"\n{proved} of {len(outcome)} proofs ran and hold; "
        f"{standing} of {len(found)} errata borne out"
    )
    return 0 if proved == len(outcome) and standing == len(found) else 1


def _indented(text: str) -> str:
    return textwrap.fill(text, 96, initial_indent="    ", subsequent_indent="    ")


def step(arguments: argparse.Namespace) -> int:
    """Take the gradient step of eq. (6) with trained networks; needs torch."""
    try:
        from logit_distributions.make.steps import record_all
    except ImportError as error:
        raise not_installed(error) from error

    for path in record_all(arguments.run, arguments.samples):
        print(path)
    return 0


def add_theory_command(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Add ``theory`` with ``table``, ``audit`` and ``step`` to the commands of ``logitdist``.

    Parameters
    ----------
    subparsers : action
        What ``add_subparsers`` of the main parser returned.
    parents : sequence of ArgumentParser
        Options that every command has.
    """
    theory = subparsers.add_parser("theory", help="Appendix C: tables and audit")
    commands = theory.add_subparsers(dest="theory_command", required=True)

    tables = commands.add_parser(
        "table", help="print f, g and ψ of eqs. (4) and (5) as CSV", parents=list(parents)
    )
    tables.add_argument("--classes", type=int, default=10, metavar="N")
    tables.add_argument("--variant", choices=surrogate.VARIANTS, default="corrected")
    tables.add_argument("--beta", default="0.25:12:0.25", metavar="START:STOP:STEP")
    tables.add_argument(
        "--branch",
        type=int,
        choices=(1, 2),
        default=1,
        help="2: the misclassified solutions that eq. (5) leaves out, the same in all variants",
    )
    tables.set_defaults(handler=table)

    audits = commands.add_parser(
        "audit", help="print errata, proofs and a verdict per claim", parents=list(parents)
    )
    audits.set_defaults(handler=audit)

    steps = commands.add_parser(
        "step", help="eq. (6) on trained networks (needs torch)", parents=list(parents)
    )
    steps.add_argument("run", nargs="*", help="default: every run in data/checkpoints")
    steps.add_argument("--samples", type=int, default=2000, help="test images per run")
    steps.set_defaults(handler=step)
