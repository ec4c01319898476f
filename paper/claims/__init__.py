"""Every claim of the paper, held against the stored datasets by rules fixed beforehand."""
