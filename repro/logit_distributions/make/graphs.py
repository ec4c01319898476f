"""A step that a GPU repeats many times, recorded once as a CUDA graph and replayed.

A training step of a small network is hundreds of short kernels; started one by one from
Python they keep a fast GPU waiting. A graph starts them all at once.
"""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM_UP = 3
"""Calls that run one by one before the recording, in which libraries make their choices."""

TOLERANCE = 0.1
"""Largest mean relative difference between what a replay and a plain call change.

Beyond that between two plain calls, which kernels that add in no fixed order make: up to 0.1 in
bfloat16, where the sign of a gradient decides. A replay on wrong inputs makes one of about 1.
"""

WORST = 0.5
"""The same for any single tensor; one that the replay leaves alone has a difference of 1."""


class Graphed:
    """A function of tensors that is captured in a CUDA graph and from then on replayed.

    The first `WARM_UP` calls run as they are, the next one too, after it was captured; the one
    after that is computed both ways, from the same state, and compared; a line on stderr says by
    how much they differ. If that is more than two plain calls do, or the capture fails, the line
    says so and every call runs as it is. So do calls with tensors of other shapes, such as the last
    batch of an epoch.

    Compared are real numbers only, on which training goes on. A count of correct predictions
    differs by as much as it changes where one image is on the border between two classes.

    Parameters
    ----------
    function : callable
        Takes tensors, changes tensors in place, returns nothing, never waits for the GPU, and
        does the same every time but for what is in the tensors.
    state : callable
        Returns all tensors that `function` changes and that outlive it, always the same ones
        once it has run.
    """

    def __init__(
        self, function: Callable[..., None], state: Callable[[], Sequence[Tensor]]
    ) -> None:
        self.function, self.state = function, state
        self.calls = 0
        self.static: tuple[Tensor, ...] = ()
        self.replay: Callable[[], None] | None = None
        self.checked = self.given_up = False

    def __call__(self, *tensors: Tensor) -> None:
        """Do what the function does."""
        if self.given_up:
            self.function(*tensors)
        elif self.replay is None:
            self._call_before_capture(tensors)
        elif not self._fits(tensors):
            self.function(*tensors)
        else:
            for static, tensor in zip(self.static, tensors, strict=True):
                static.copy_(tensor)
            if self.checked:
                self.replay()
            else:
                self._check()

    def _fits(self, tensors: Sequence[Tensor]) -> bool:
        return [each.shape for each in tensors] == [each.shape for each in self.static]

    def _call_before_capture(self, tensors: tuple[Tensor, ...]) -> None:
        if not self._fits(tensors):
            self.static, self.calls = tuple(each.clone() for each in tensors), 0
        if self.calls == WARM_UP:
            try:
                self.replay = self._captured(*self.static)
            except RuntimeError as error:
                self._give_up(_first_cause(error))
        self.calls += 1
        self._aside(*tensors)

    def _check(self) -> None:
        """Compute the call whose tensors are in place both ways; keep a plain result."""
        assert self.replay is not None
        plain = functools.partial(self.function, *self.static)
        state = self.state()
        before = [each.clone() for each in state]
        results = []
        for call in (self.replay, plain, plain):
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)
            call()
            results.append([each.clone() for each in state])
        replayed, first, second = results
        of_replay, usual = (
            torch.stack(
                [
                    _relative_difference(*three)
                    for three in zip(before, a, b, strict=True)
                    if three[0].is_floating_point()
                ]
            )
            for a, b in ((replayed, second), (first, second))
        )
        more = of_replay - usual
        mean, worst = more.mean().item(), more.max().item()
        self.checked = True
        differs = (
            f"its replay differs from the plain step by {mean:.2g} on average and {worst:.2g} at "
            "most more than usual"
        )
        if mean <= TOLERANCE and worst <= WORST:
            print(f"logitdist: steps are replayed from a CUDA graph: {differs}", file=sys.stderr)
        else:
            self._give_up(f"{differs}, expected {TOLERANCE} and {WORST}")

    def _give_up(self, reason: str) -> None:
        self.given_up, self.replay, self.static = True, None, ()
        print(f"logitdist: no CUDA graph, steps run one by one: {reason}", file=sys.stderr)

    @functools.cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def _aside(self, *tensors: Tensor) -> None:
        """Call the function on the stream of the capture, which must not be the usual one."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self.function(*tensors)
        torch.cuda.current_stream().wait_stream(self._stream)

    def _captured(self, *tensors: Tensor) -> Callable[[], None]:
        """Return a function that repeats the call on what is in `tensors` then."""
        gc.collect()  # the graphs of earlier runs, in cycles: their memory, and not in a capture
        graph = torch.cuda.CUDAGraph()
        usual = torch.cuda.current_stream()  # to which a capture that fails does not go back
        with torch.cuda.stream(usual), torch.cuda.graph(graph, stream=self._stream):
            self.function(*tensors)
        return graph.replay


def _first_cause(error: BaseException) -> str:
    """Return the first line of the error that made the capture fail, not of its aftermath."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _relative_difference(before: Tensor, replayed: Tensor, plain: Tensor) -> Tensor:
    """Return how far two changes of a tensor are apart, relative to the second."""
    change: Tensor = (plain.double() - before.double()).norm()
    difference: Tensor = (replayed.double() - plain.double()).norm()
    return difference / (change + 1e-12)
