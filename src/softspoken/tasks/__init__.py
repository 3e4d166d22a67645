"""One small file a task: what examples are called, how they are asked, and how responses are judged."""
