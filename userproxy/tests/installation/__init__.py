"""What a machine must have: programs, and the versions of what pip installs."""
