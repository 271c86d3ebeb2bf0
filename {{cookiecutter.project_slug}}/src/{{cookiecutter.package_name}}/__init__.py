"""Train, check, release and serve a model of a table, one module a pipeline stage (see dvc.yaml)."""
