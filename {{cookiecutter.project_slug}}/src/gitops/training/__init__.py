"""Training beyond memory and beyond one process: batches out of parquet, processes and their checkpoints."""
