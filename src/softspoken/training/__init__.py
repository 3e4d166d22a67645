"""What is around the six lines of a step: a run's beginning, what is measured of a step, and the evaluation at its end."""
