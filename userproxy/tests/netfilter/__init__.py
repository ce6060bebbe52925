"""What the kernel is told, without a kernel: golden rules, packets walked through them, elements."""
