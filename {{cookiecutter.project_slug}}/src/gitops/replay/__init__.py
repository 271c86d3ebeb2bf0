"""Production's logged requests, answered by the candidate and by the release: what a merge would change."""
