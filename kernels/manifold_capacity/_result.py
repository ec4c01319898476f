"""Labelled results: values by name, with dimensions, convertible to xarray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray


class Result(Mapping[str, Any]):
    """A read-only mapping from names to numbers and arrays; names are attributes as well.

    Parameters
    ----------
    values : mapping of str to (tuple of str, value)
        Dimensions and value of each entry; scalars have no dimensions.
    attributes : mapping
        The settings that the values were computed with.
    """

    def __init__(
        self, values: Mapping[str, tuple[tuple[str, ...], Any]], attributes: Mapping[str, Any]
    ) -> None:
        self._values = dict(values)
        self.attributes = dict(attributes)

    def __getitem__(self, name: str) -> Any:
        return self._values[name][1]

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("_values", {})
        if name not in values:
            raise AttributeError(f"no {name!r}: expected one of {', '.join(values)}")
        return values[name][1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        lines = []
        for name, (dims, value) in self._values.items():
            if dims:
                middle = np.nanmedian(value) if np.isfinite(value).any() else np.nan
                shape = ", ".join(f"{d} {n}" for d, n in zip(dims, value.shape, strict=True))
                lines.append(f"  {name:24s} median {middle:.6g}  ({shape})")
            else:
                lines.append(f"  {name:24s} {value}")
        settings = ", ".join(f"{k}={v}" for k, v in self.attributes.items())
        return "\n".join([f"Result({settings})", *lines])

    def to_xarray(self) -> xarray.Dataset:
        """Return the same values as an `xarray.Dataset`; settings become attributes."""
        import xarray

        return xarray.Dataset(self._values, attrs=self.attributes)
