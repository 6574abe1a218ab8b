"""From where on something counts, also for rooms that do not wait for torch."""

CLOSE = 0.1  # relative error below which what is no picture counts as recovered
