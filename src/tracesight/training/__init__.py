"""What recipes share: configuration, optimisers, schedules, the step iterator, checkpoints, history, progress."""
