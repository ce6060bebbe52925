"""Which backends may be picked: by what befell clients, by checks, and by how many look dead."""
