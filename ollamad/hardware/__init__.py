"""What the machine offers: memory, processors and GPUs."""
