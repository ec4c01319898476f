"""What datasets are read by: statistics, tables of numbers. No torch."""
