"""Universal Data Sync, data plane: moves the rows of one batch, exactly once."""
