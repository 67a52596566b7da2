"""One module per command of ``python -m matchers``; each has ``add``, which describes it, and a function to run it."""
