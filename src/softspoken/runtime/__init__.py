"""What a process does beside its work: it stops when told to, shows how far it is, shares with others, imports a user's file."""
