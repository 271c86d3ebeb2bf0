"""The programs and services that this works with, each behind one module: Git, GitHub, CML, DVC, MLflow, kustomize."""
