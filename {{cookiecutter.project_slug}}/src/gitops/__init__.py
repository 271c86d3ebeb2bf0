"""What runs the model's life cycle; the template keeps it, and nobody edits it in a project.

What makes the model is the project's own package; owner.py names all that this one takes from it. Each sub-package is a
step; pyproject.toml says which may import which.
"""
