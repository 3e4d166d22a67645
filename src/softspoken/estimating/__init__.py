"""How much memory a training takes, reckoned from shapes: no weight is loaded."""
