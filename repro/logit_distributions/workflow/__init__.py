"""The plans as a Snakemake workflow; its rules only call the ``logitdist`` command."""
