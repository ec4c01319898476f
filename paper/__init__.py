"""One script for each table and figure of the paper, of the same name."""
