"""Published state dicts under this package's names, one module a publisher: pure functions from names to names."""
