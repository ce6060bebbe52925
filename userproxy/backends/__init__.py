"""Which backends may be picked: by what happened to clients, by checks, and by how many look dead."""
