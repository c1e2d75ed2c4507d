"""Statistics of a classifier's predictions: intervals, confusions, calibration, comparisons. One algorithm is one file."""
