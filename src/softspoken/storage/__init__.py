"""What lies on disk: a run's folder with its record and lock, files of lines, outputs that are whole or not there."""
