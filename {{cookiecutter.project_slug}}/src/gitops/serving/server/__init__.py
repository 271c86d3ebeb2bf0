"""What runs in the server: in TorchServe's worker, from the model archive, and around TorchServe, in the image."""
