"""The ground of the house: the words every room uses. No I/O, no clocks of its own, no globals."""
