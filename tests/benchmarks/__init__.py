"""What the daemon costs, each figure beside the bare runner's of the same run."""
