"""The judgement of the house: pure questions over tables, answered with verdicts."""
