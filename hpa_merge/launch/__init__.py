"""How the processes of one run start, find each other, and end together."""
