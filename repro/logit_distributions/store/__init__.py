"""The stored results: where they lie, what they hold, how they are written and found."""

from logit_distributions.store.arrays import from_arrays
from logit_distributions.store.datasets import (
    Missing,
    enter,
    find,
    need,
    open_dataset,
    read_file,
    recipe_of,
    save,
    stored_files,
    validate,
    validate_folder,
    write,
    write_file,
)
from logit_distributions.store.files import REGISTRY, registering, registry
from logit_distributions.store.places import path_of
from logit_distributions.store.schema import KINDS, SCHEMA, content_sha256, faults, provenance

__all__ = [
    "KINDS",
    "REGISTRY",
    "SCHEMA",
    "Missing",
    "content_sha256",
    "enter",
    "faults",
    "find",
    "from_arrays",
    "need",
    "open_dataset",
    "path_of",
    "provenance",
    "read_file",
    "recipe_of",
    "registering",
    "registry",
    "save",
    "stored_files",
    "validate",
    "validate_folder",
    "write",
    "write_file",
]
