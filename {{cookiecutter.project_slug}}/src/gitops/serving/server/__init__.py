"""The server: the handler runs in TorchServe's worker, from the model archive; start.py around, HAProxy before it."""
