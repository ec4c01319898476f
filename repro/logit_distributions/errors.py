"""What the person at the keyboard is told: one line for every failure, in a form that shows."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO


class ReproError(Exception):
    """Something the user can mend; the message says what was expected, got, and likely why."""


def brief(error: object) -> str:
    """Return the first line of what another library said, at most 160 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]


def not_installed(error: ImportError) -> ReproError:
    """Return the error of a command that needs what readers do not install."""
    return ReproError(
        f"this command needs {error.name}, which is not installed; "
        "install the extra 'train': pip install '.[train]'"
    )


def printable(text: str) -> str:
    """Return a text whose control characters, but for line ends and tabs, are written as escapes.

    What a dataset or a file name holds cannot command the terminal then.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode()
        for each in text
    )


class _Shown:
    """A stream that shows what is printed as far as the terminal can, and says if it is full."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        encoding = self.stream.encoding or "utf-8"
        shown = printable(text).encode(encoding, "replace").decode(encoding)
        with _standard_output():
            return self.stream.write(shown)

    def flush(self) -> None:
        with _standard_output():
            self.stream.flush()


@contextlib.contextmanager
def _standard_output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:  # full, or closed
        raise ReproError(f"standard output: {_what(error)}") from error


def exit_code(name: str, command: Callable[[], int], debug: bool = False) -> int:
    """Return a command's exit code; whatever fails is one line on stderr, and 1.

    The one guard of every entry point: also where the disk is full, a folder is read-only, or the
    terminal cannot show what is printed.

    Parameters
    ----------
    name : str
        What comes before the line, such as ``table2`` or ``logitdist: error``.
    command : callable
        Prints, and returns the exit code.
    debug : bool
        Whether to show tracebacks instead.
    """
    try:
        with _shown():
            return command()
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        return 1
    except KeyboardInterrupt:
        _say(f"{name.partition(':')[0]}: stopped; the same command resumes")
        return 130
    except Exception as error:
        if debug:
            raise
        _say(f"{name}: {_what(error)}")
        return 1
    finally:
        _abandon_what_cannot_be_flushed()


@contextlib.contextmanager
def _shown() -> Iterator[None]:
    if sys.stdout is None:  # closed by the caller
        yield
        return
    with contextlib.redirect_stdout(_Shown(sys.stdout)):
        try:
            yield
        finally:
            sys.stdout.flush()


def _abandon_what_cannot_be_flushed() -> None:
    """Let the interpreter's own last flush find nothing that fails again."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(printable(" ".join(line.splitlines())), file=sys.stderr)


def _what(error: BaseException) -> str:
    """Return in one line what an exception says."""
    if isinstance(error, ReproError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        places = [str(each) for each in (error.filename, error.filename2) if each is not None]
        return ": ".join([" to ".join(places), error.strerror] if places else [error.strerror])
    if isinstance(error, MemoryError):
        return "out of memory"
    return (
        f"{type(error).__name__}: {brief(error)}; likely a fault of this program: --debug shows "
        "where"
    )
