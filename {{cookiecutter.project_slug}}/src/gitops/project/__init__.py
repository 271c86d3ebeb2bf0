"""Set-up of environments and of GitHub. Imports only the standard library: it runs before anything is installed."""
