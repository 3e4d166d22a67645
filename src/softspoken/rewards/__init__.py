"""From a text to a number: judges, the other terms, and their weighted sum."""
