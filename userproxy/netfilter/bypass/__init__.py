"""Who translates connections to our Services before we do: read from the rules of others, never changed."""
