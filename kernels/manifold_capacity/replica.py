"""The public Python package's functions, on these kernels: change the imports.

``from mftma.manifold_analysis_correlation import manifold_analysis_corr`` becomes
``from manifold_capacity.replica import manifold_analysis_corr``; so do
``mftma.alldata_dimension_analysis.alldata_dimension_analysis``,
``mftma.utils.make_manifold_data.make_manifold_data``,
``mftma.utils.activation_extractor.extractor`` and ``mftma.utils.analyze_pytorch.analyze``. The
last three import torch when they are called.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from manifold_capacity._input import Array, Manifolds, joined, real_number, whole_number
from manifold_capacity._parallel import one_blas_thread
from manifold_capacity.capacity import analyse, warn_of_flagged

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "alldata_dimension_analysis",
    "analyze",
    "extractor",
    "make_manifold_data",
    "manifold_analysis_corr",
]


def manifold_analysis_corr(
    XtotT: Manifolds,
    kappa: float,
    n_t: int,
    t_vecs: Sequence[ArrayLike] | None = None,
    n_reps: int = 10,
    seed: int = 0,
) -> tuple[Array, Array, Array, float, int]:
    """Carry out the analysis on multiple manifolds, by the public package's definitions.

    Given `t_vecs` mean the same thing as there, so that results agree to the accuracy of the
    package's own solver once the same low-rank structure is removed. That is found by the
    package's rule: K >= 1, and of `n_reps` starts at every rank the one in which the centre
    that keeps least keeps most ("stability"). `manifold_capacity.mean_field_capacity` differs
    by default: it guards every centre, may remove nothing, and needs no starts
    (`centers.low_rank`); its definitions of radius and dimension are the paper's.

    Differences from the package:

    - Deterministic by `seed` (there: numpy's global state), whatever the number of threads.
    - Every search is finished (there: many end unfinished after 1,000 steps), and the first of the
      `n_reps` starts is not random; the rank is capped at P - 2, so any P >= 2 works (there:
      P >= 7), and nothing is removed for P = 2.
    - A manifold that keeps less than 1e-3 of its centre is named in a warning; its numbers are
      returned as there, though they say little. One whose centre coincides with the global
      mean gives NaN and a warning (there: a radius of 1e15).
    - Bad input raises a ValueError that names the manifold.

    Parameters
    ----------
    XtotT : sequence of array_like, shapes (N, P_i)
        Features by points.
    kappa : float
        Margin.
    n_t : int
        Gaussian vectors per manifold.
    t_vecs : sequence of array_like, shapes (min(N, P_i) + 1, n_t), optional
    n_reps : int
        Starts of the low-rank search per rank, the first one deterministic.
    seed : int

    Returns
    -------
    a_Mfull_vec : ndarray, shape (P,)
        Capacity of each manifold.
    R_M_vec : ndarray, shape (P,)
        Radius of each.
    D_M_vec : ndarray, shape (P,)
        Dimension of each.
    res_coeff0 : float
        Mean absolute correlation of the centres.
    KK : int
        Dimension of the low-rank structure.

    Examples
    --------
    >>> import numpy as np
    >>> from manifold_capacity.replica import manifold_analysis_corr
    >>> rng = np.random.default_rng(0)
    >>> manifolds = rng.standard_normal((8, 40, 1)) + 0.3 * rng.standard_normal((8, 40, 6))
    >>> a, r, d, r0, K = manifold_analysis_corr(manifolds, kappa=0, n_t=100, n_reps=1)
    >>> print(round(1 / np.mean(1 / a), 1), K)
    1.2 1
    """
    result = analyse(
        XtotT, kappa, n_t, t_vecs, "package", "package", seed, n_reps, None,
        choose="stability", strict=False,
    )  # fmt: skip
    undefined = np.flatnonzero(np.isnan(result["capacity"])).tolist()
    if undefined:
        warnings.warn(
            f"manifolds {undefined}: centre on the global mean, so capacity, radius and "
            "dimension are undefined (NaN)",
            RuntimeWarning,
            stacklevel=2,
        )
    warn_of_flagged(result)
    return (
        result["capacity"],
        result["radius"],
        result["dimension"],
        result["center_correlation"],
        result["low_rank_dimension"],
    )


@one_blas_thread
def alldata_dimension_analysis(XtotT: Manifolds, perc: float = 0.90) -> tuple[float, int, int]:
    """Return the total data dimension by participation ratio and explained variance.

    As the package computes them, which is not what the names say where N < ΣM or the mean over
    features differs between points: its participation ratio leaves out the smallest singular
    value (there, one that is not zero), and its explained variance removes from every point
    its mean over features and counts the components up to `perc`, one fewer than reach it.
    `manifold_capacity.participation_ratio` and `explained_variance_dimension` do what they say.

    Parameters
    ----------
    XtotT : sequence of array_like, shapes (N, P_i)
    perc : float
        Share of the variance to explain.

    Returns
    -------
    Dsvd : float
        Participation ratio.
    D_expvar : int
        Principal components within `perc` of the variance.
    D_feature : int
        N.

    Examples
    --------
    >>> import numpy as np
    >>> from manifold_capacity.replica import alldata_dimension_analysis
    >>> manifolds = np.random.default_rng(0).standard_normal((8, 40, 6))
    >>> ratio, explained, features = alldata_dimension_analysis(manifolds, perc=0.9)
    >>> explained, features
    (21, 40)
    """
    share = real_number("perc", perc, "share")
    points, _ = joined(XtotT)
    points -= points.mean(axis=1, keepdims=True)
    variances = np.linalg.svd(points, compute_uv=False)[:-1] ** 2
    points -= points.mean(axis=0, keepdims=True)
    explained = np.linalg.svd(points, compute_uv=False) ** 2
    if not (variances.any() and explained.any()):
        raise ValueError("expected points that differ in at least 2 directions")
    within = np.cumsum(explained / explained.sum()) <= share
    ratio = variances.sum() ** 2 / (variances**2).sum()
    return float(ratio), int(np.count_nonzero(within)), len(points)


def make_manifold_data(
    dataset: Any,
    sampled_classes: int,
    examples_per_class: int,
    max_class: int | None = None,
    seed: int = 0,
) -> list[Tensor]:
    """Sample examples of classes, as the package does, with its very draws at seed 0.

    There `seed` has no effect and numpy's global state is set to 0; here it counts, and no
    state is touched.

    Parameters
    ----------
    dataset : sequence of (Tensor, int)
        A PyTorch style dataset of inputs and labels.
    sampled_classes : int
        Classes drawn, among labels 0 to `max_class` - 1.
    examples_per_class : int
        Drawn of each.
    max_class : int, optional
        Default: `sampled_classes`.
    seed : int

    Returns
    -------
    list of Tensor, shapes (examples_per_class, ...)
        In the package's order: the class of the first example looked at, if it was drawn, then
        those drawn.

    Raises
    ------
    ValueError
        If the classes or examples are too few.

    Examples
    --------
    >>> import torch
    >>> from manifold_capacity.replica import make_manifold_data
    >>> dataset = [(torch.full((2,), float(i)), i % 3) for i in range(12)]
    >>> [tuple(each.shape) for each in make_manifold_data(dataset, 2, 4)]
    [(4, 2), (4, 2)]
    """
    import torch

    sampled = whole_number("sampled_classes", sampled_classes, 1)
    wanted = whole_number("examples_per_class", examples_per_class, 1)
    labels = whole_number("max_class", sampled if max_class is None else max_class, 1)
    if sampled > labels:
        raise ValueError(f"max_class: expected at least {sampled} classes, got {labels}")
    if wanted * labels >= len(dataset):
        raise ValueError(
            f"examples_per_class: expected more than {wanted} x {labels} examples in the "
            f"dataset, got {len(dataset)}"
        )
    draws = np.random.RandomState(whole_number("seed", seed, 0))
    chosen = draws.choice(range(labels), size=sampled, replace=False).tolist()
    order = np.arange(len(dataset))
    draws.shuffle(order)
    first = int(dataset[int(order[0])][1])
    chosen.sort(key=lambda label: label != first)  # as there: it comes first if it is chosen
    samples: dict[int, list[Tensor]] = {label: [] for label in chosen}
    missing = sampled * wanted
    for place in order.tolist():
        sample, label = dataset[place]
        if int(label) in samples and len(samples[int(label)]) < wanted:
            samples[int(label)].append(sample)
            missing -= 1
        if not missing:
            return [torch.stack(each) for each in samples.values()]
    counts = {label: len(each) for label, each in sorted(samples.items())}
    raise ValueError(f"expected {wanted} examples of each sampled class, got {counts}")


def extractor(
    model: nn.Module,
    data: Iterable[Tensor],
    layer_nums: Sequence[int] | None = None,
    layer_types: Sequence[str] | None = None,
) -> OrderedDict[str, list[NDArray[Any]]]:
    """Return activations of a model's leaf modules, by the package's names.

    Differences: activations are copied, so that a layer that works in place spoils no other's;
    no gradient is recorded; nothing is left in the modules.

    Parameters
    ----------
    model : Module
        In the mode in which it is to be run.
    data : iterable of Tensor
        Batches of inputs.
    layer_nums : sequence of int, optional
        Leaf modules, counted from 1 in the order of `Module.children`. Default: all.
    layer_types : sequence of str, optional
        Instead, their class names.

    Returns
    -------
    OrderedDict
        ``layer_0_Input`` and ``layer_<number>_<class>``, each a list of one array a batch (a
        call, for a module that is called more than once).

    Raises
    ------
    ValueError
        If both selections are given, or a chosen module does not return a tensor.

    Examples
    --------
    >>> import torch
    >>> from manifold_capacity.replica import extractor
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()).eval()
    >>> activations = extractor(model, [torch.ones(4, 2)])
    >>> {name: each[0].shape for name, each in activations.items()}
    {'layer_0_Input': (4, 2), 'layer_1_Linear': (4, 3), 'layer_2_ReLU': (4, 3)}
    """
    import torch

    if layer_nums is not None and layer_types is not None:
        raise ValueError("expected layer_nums or layer_types, got both")
    leaves = [module for module in model.modules() if not list(module.children())]
    kept: OrderedDict[str, list[NDArray[Any]]] = OrderedDict({"layer_0_Input": []})

    def keeper(name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, torch.Tensor):
                raise ValueError(f"{name}: expected a tensor, got {type(output).__name__}")
            kept.setdefault(name, []).append(output.detach().cpu().numpy().copy())

        return keep

    handles = []
    for number, leaf in enumerate(leaves, 1):
        kind = type(leaf).__name__
        if (layer_nums is None or number in layer_nums) and (
            layer_types is None or kind in layer_types
        ):
            handles.append(leaf.register_forward_hook(keeper(f"layer_{number}_{kind}")))
    try:
        with torch.no_grad():
            for batch in data:
                kept["layer_0_Input"].append(batch.detach().cpu().numpy().copy())
                model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return kept


def analyze(
    model: nn.Module,
    dataset: Any,
    sampled_classes: int = 50,
    examples_per_class: int = 50,
    kappa: float = 0,
    n_t: int = 300,
    n_reps: int = 1,
    max_class: int | None = None,
    projection: bool = True,
    projection_dimension: int = 5000,
    layer_nums: Sequence[int] | None = None,
    layer_types: Sequence[str] | None = None,
    cuda: bool = True,
    seed: int = 0,
) -> OrderedDict[str, dict[str, Any]]:
    """Return the package's analysis of class manifolds in the layers of a PyTorch model.

    Samples, names and projections are the package's at the same seed; `max_class`, which it
    ignores, counts.

    Parameters
    ----------
    model : Module
        Moved to the device; run in the mode that it is in.
    dataset : sequence of (Tensor, int)
    sampled_classes, examples_per_class, max_class
        As in `make_manifold_data`.
    kappa, n_t, n_reps
        As in `manifold_analysis_corr`.
    projection : bool
        Project layers of more than `projection_dimension` features to so many, by Gaussian rows
        of length one.
    projection_dimension : int
    layer_nums, layer_types
        As in `extractor`; the input is number 0, type ``"Input"``.
    cuda : bool
        Use a GPU if there is one.
    seed : int

    Returns
    -------
    OrderedDict of dict
        For each layer ``capacity``, ``radius``, ``dimension``, ``correlation``, ``K``,
        ``feature dimension``.

    Examples
    --------
    >>> import torch
    >>> from manifold_capacity.replica import analyze
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.ReLU()).eval()
    >>> dataset = [(torch.rand(20) + i % 4, i % 4) for i in range(40)]
    >>> measured = analyze(model, dataset, 4, 6, n_t=50, cuda=False)
    >>> list(measured)
    ['layer_0_Input', 'layer_1_Linear', 'layer_2_ReLU']
    """
    import torch

    device = torch.device("cuda" if cuda and torch.cuda.is_available() else "cpu")
    largest = whole_number("projection_dimension", projection_dimension, 1)
    batches = make_manifold_data(dataset, sampled_classes, examples_per_class, max_class, seed)
    moved = [batch.to(device) for batch in batches]
    activations = extractor(model.to(device), moved, layer_nums, layer_types)
    draws = np.random.RandomState(seed)
    results: OrderedDict[str, dict[str, Any]] = OrderedDict()
    for layer, batches_of_layer in activations.items():
        points = [batch.reshape(len(batch), -1).T for batch in batches_of_layer]
        if projection and len(points[0]) > largest:
            matrix = draws.randn(largest, len(points[0]))
            matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
            points = [matrix @ each for each in points]
        _, number, *_, kind = layer.split("_")
        if (layer_nums is not None and int(number) not in layer_nums) or (
            layer_types is not None and kind not in layer_types
        ):
            continue
        names = ("capacity", "radius", "dimension", "correlation", "K")
        numbers = manifold_analysis_corr(points, kappa, n_t, n_reps=n_reps, seed=seed)
        results[layer] = dict(zip(names, numbers, strict=True))
        results[layer]["feature dimension"] = len(points[0])
    return results
