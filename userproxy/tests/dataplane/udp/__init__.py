"""Of UDP."""
