"""The server: the handler runs in TorchServe's worker, out of the model archive; start.py around it, HAProxy before it."""
