"""TCP: accept, dial, relay. `flow` decides, the other files apply."""
