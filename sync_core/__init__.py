"""Universal Data Sync, control plane: decides what runs, launches it and records what it did."""
