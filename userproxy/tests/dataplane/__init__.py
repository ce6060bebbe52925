"""The data side: who is picked, how health is judged, and how bytes travel over real sockets."""
