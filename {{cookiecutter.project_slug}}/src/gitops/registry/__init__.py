"""MLflow's registered model, and the lineage of releases."""
