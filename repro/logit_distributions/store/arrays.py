"""Logits that somebody already has, from any framework, as a dataset like the stored ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from logit_distributions.errors import ReproError, brief
from logit_distributions.store.schema import (
    FROM_ARRAYS,
    KINDS,
    SCHEMA,
    content_sha256,
    provenance,
)


def from_arrays(
    logits: ArrayLike,
    labels: ArrayLike,
    robust: ArrayLike | None = None,
    adversarial_logits: ArrayLike | None = None,
    *,
    name: str = "given",
    attack: str = "an attack of yours",
    classes: Sequence[str] | None = None,
    index: ArrayLike | None = None,
) -> xr.Dataset:
    """Return logits from JAX, TensorFlow, a dump or anywhere else as a dataset of kind ``logits``.

    `describe` sets it beside the stored networks, ``logitdist show`` and Figures 1 to 3 take its
    file. Natural logits alone give what is known of natural images.

    Parameters
    ----------
    logits : array_like of float, shape (n, classes)
        Before the softmax, on natural images; kept in float32.
    labels : array_like of int, shape (n,)
        True classes, from 0.
    robust : array_like of bool, shape (n,), optional
        Classified correctly on the natural image and after every attack. By default told from
        `adversarial_logits`, where these are given.
    adversarial_logits : array_like of float, shape (n, classes), optional
        On the strongest adversarial image of each.
    name : str
        Of the network, for tables and figures.
    attack : str
        What attacked it, for tables and captions, such as ``"AutoAttack 8/255"``.
    classes : sequence of str, optional
        Their names; by default their numbers.
    index : array_like of int, shape (n,), optional
        Positions of the images in their set, by which Figure 3 finds those that two networks
        have in common; by default 0, 1, ...

    Returns
    -------
    Dataset
        Sealed: ``write(dataset, path)`` keeps it.

    Raises
    ------
    ReproError
        If anything given is not what was expected, or contradicts the rest.

    Examples
    --------
    >>> import numpy as np
    >>> from logit_distributions import from_arrays
    >>> logits = np.array([[2.0, 0.5], [0.1, 0.3], [1.0, 0.0]])
    >>> mine = from_arrays(logits, [0, 1, 1], robust=[True, False, False], name="mine")
    >>> (mine.logits.argmax("class") == mine.label).values
    array([ True,  True, False])
    """
    natural = _logits("logits", logits)
    count, width = natural.shape
    label = _whole("labels", labels, count, "true classes")
    if label.min() < 0 or label.max() >= width:
        raise ReproError(
            f"labels: expected classes from 0 to {width - 1}, as there are {width} logits, got "
            f"{label.min()} to {label.max()}; likely counted from 1, or of another set"
        )
    names = list(map(str, range(width) if classes is None else classes))
    if len(names) != width or len(set(names)) != width:
        raise ReproError(f"classes: expected {width} different names, got {len(set(names))}")
    position = np.arange(count) if index is None else _whole("index", index, count, "positions")
    variables: dict[str, tuple[tuple[str, ...], NDArray[np.generic]]] = {
        "logits": (("sample", "class"), natural),
        "label": (("sample",), label.astype(np.int32)),
        "index": (("sample",), position),
    }
    hits = natural.argmax(1) == label
    if adversarial_logits is not None:
        attacked = _logits("adversarial_logits", adversarial_logits, natural.shape)
        variables["adversarial_logits"] = (("sample", "class"), attacked)
        both = hits & (attacked.argmax(1) == label)
        robust = both if robust is None else _verdicts(robust, hits, both)
    elif robust is not None:
        robust = _verdicts(robust, hits)
    if robust is not None:
        variables["robust"] = (("attack", "sample"), np.asarray(robust)[None])
    digest = hashlib.sha256(natural.tobytes() + label.tobytes()).hexdigest()
    dataset = xr.Dataset(
        variables,
        coords={"class": names, **({} if robust is None else {"attack": [attack]})},
        attrs={
            "kind": "logits", "run": name, "method": FROM_ARRAYS, "dataset": "given",
            "data_sha256": "unknown", "recipe": json.dumps({"name": name}),
            "recipe_hash": digest[:16], "seed": 0, "scale": "given", "schema": SCHEMA,
            **provenance(),
        },
    )  # fmt: skip
    for variable, about in KINDS["logits"].items():
        if variable in dataset:
            dataset[variable].attrs["long_name"] = about.long_name
    dataset.attrs["content_sha256"] = content_sha256(dataset)
    return dataset


def _array(name: str, given: ArrayLike) -> NDArray[np.generic]:
    """Return what numpy makes of an array of any framework."""
    try:
        return np.asarray(given)
    except Exception as error:
        raise ReproError(
            f"{name}: expected an array, got {type(given).__module__}.{type(given).__name__}, "
            f"which numpy does not read ({brief(error)}); a torch tensor: give "
            f"{name}.detach().cpu().numpy()"
        ) from error


def _logits(
    name: str, given: ArrayLike, shape: tuple[int, ...] | None = None
) -> NDArray[np.float32]:
    """Return logits in float32, or refuse what are none."""
    array = _array(name, given)
    if array.ndim != 2 or not len(array) or array.shape[1] < 2:
        raise ReproError(
            f"{name}: expected the shape (n, classes) with an image or more and at least two "
            f"classes, got {array.shape}"
        )
    if shape is not None and array.shape != shape:
        raise ReproError(
            f"{name}: expected the shape of logits, {shape}, got {array.shape}; likely of other "
            "images"
        )
    # bfloat16, which numpy itself does not have, is of kind V
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        likely = (
            "; if these are logits, give .astype('float32')" if array.dtype.kind in "iu" else ""
        )
        raise ReproError(f"{name}: expected floating-point numbers, got {array.dtype}{likely}")
    with np.errstate(over="ignore"):
        logits: NDArray[np.float32] = array.astype(np.float32)
    if not (finite := np.isfinite(logits).all(1)).all():
        where = int(np.argmin(finite))
        raise ReproError(f"{name}: expected finite numbers, got {logits[where]} for image {where}")
    return logits


def _whole(name: str, given: ArrayLike, count: int, what: str) -> NDArray[np.int64]:
    """Return whole numbers, one for each image, or refuse what are none."""
    array = _array(name, given)
    if array.ndim == 2:
        raise ReproError(
            f"{name}: expected the shape ({count},), got {array.shape}; likely one-hot: give "
            f"{name}.argmax(1)"
        )
    if array.shape != (count,):
        raise ReproError(
            f"{name}: expected {count} numbers, one for each row of logits, got the shape "
            f"{array.shape}"
        )
    if array.dtype.kind not in "iu":
        raise ReproError(f"{name}: expected whole numbers ({what}), got {array.dtype}")
    return array.astype(np.int64)


def _verdicts(
    given: ArrayLike, hits: NDArray[np.bool_], both: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return verdicts, or refuse what are none or contradict `hits`, or `both` logits."""
    array = _array("robust", given)
    if array.shape != hits.shape or array.dtype.kind != "b":
        raise ReproError(
            f"robust: expected {len(hits)} of True and False, one for each image, got "
            f"{array.dtype} of shape {array.shape}"
        )
    robust = array.astype(np.bool_)
    if count := int((robust & ~hits).sum()):
        raise ReproError(
            f"robust: {count} of {len(hits)} images are misclassified without an attack, yet "
            "robust; likely verdicts of the attack alone, or in another order"
        )
    if both is not None and (count := int((robust != both).sum())):
        raise ReproError(
            f"robust: contradicts the adversarial logits of {count} of {len(hits)} images; likely "
            "of another attack, or in another order"
        )
    return robust
