"""Train, attack, record and analyse the networks of the paper.

Importing this package, its statistics or its datasets needs no torch; only the
modules that train or attack do.
"""

__version__ = "0.2.0"
