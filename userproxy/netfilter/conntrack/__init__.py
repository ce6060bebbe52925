"""What the kernel's connection tracking knows of the connections that our rules have translated."""
