"""Whether `softspoken estimate` says what a training takes."""
