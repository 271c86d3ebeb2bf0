"""The model's life cycle: the template maintains this package, and a project does not edit it.

What makes the model is the project's own package; owner.py names everything that this one uses of it. Each sub-package
is a step of the life cycle.
"""

#: The template's version. SHA256SUMS, beside this file, has the digests of the package's files as generated.
__version__ = "0.1.0.dev0"
