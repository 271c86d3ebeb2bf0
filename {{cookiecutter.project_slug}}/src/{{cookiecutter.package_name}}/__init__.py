"""Your package: what makes the model. `gitops` runs around it; docs/your-model.md says how they meet."""
