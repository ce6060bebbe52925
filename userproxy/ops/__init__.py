"""What an operator touches: the admin socket, health and metrics endpoints."""
