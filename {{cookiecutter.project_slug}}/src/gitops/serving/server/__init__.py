"""The server: the handler runs in TorchServe's worker, out of the model archive; start.py and the proxy around it."""
