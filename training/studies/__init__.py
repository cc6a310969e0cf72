"""What measures: benchmarks, calibrations and the tables of the documentation."""
