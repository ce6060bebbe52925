"""The data side as processes: what passes between them, and what happens when one of them is gone."""
