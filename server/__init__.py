"""HTTP service over runtime and matchers."""
