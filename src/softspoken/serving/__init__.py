"""A trained model in use: an HTTP server with a guard, and a page for people to try it."""
