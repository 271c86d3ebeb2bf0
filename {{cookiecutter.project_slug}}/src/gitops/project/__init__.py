"""Set-up of the environments and of GitHub: standard library alone, since it runs before anything is installed."""
