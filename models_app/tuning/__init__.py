"""Which settings are best for a model on this machine, found by measuring."""
