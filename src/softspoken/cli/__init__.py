"""The command line: from words to settings, and from what went wrong to one sentence."""
