"""Markdown, HTML and plots, whatever they show."""
