"""The memory of the house: DuckDB behind Ibis tables. Nothing outside this room writes SQL."""
