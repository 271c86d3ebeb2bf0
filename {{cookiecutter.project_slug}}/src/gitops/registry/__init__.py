"""MLflow's model registry, and lineage."""
