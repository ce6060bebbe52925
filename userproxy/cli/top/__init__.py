"""`userproxy top`: live connections as a person watches them, by what they do a second."""
