"""Images to checkpoints to datasets: a module for each stage, and the runner. Needs torch."""
