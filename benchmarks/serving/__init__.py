"""The server beside what one would write in an afternoon, under load, and for hours."""
