"""Settings, paths, files and console output: what every other sub-package stands on."""
