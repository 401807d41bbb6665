"""One file a job: its `Config`, its loop."""
