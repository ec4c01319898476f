"""``logitdist theory step``: the gradient step of Appendix C's eq. (6) on trained networks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from logit_distributions.errors import not_installed


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
    """Add ``theory step`` to the commands of ``logitdist``; `parents` have common options."""
    theory = subparsers.add_parser("theory", help="eq. (6) on trained networks")
    commands = theory.add_subparsers(dest="theory_command", required=True)
    steps = commands.add_parser(
        "step", help="eq. (6) on trained networks (needs torch)", parents=list(parents)
    )
    steps.add_argument("run", nargs="*", help="default: every run in data/checkpoints")
    steps.add_argument("--samples", type=int, default=2000, help="test images per run")
    steps.set_defaults(handler=step)
