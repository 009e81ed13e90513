"""The data sets, training methods and settings that a run compares."""
