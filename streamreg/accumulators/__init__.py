"""What a pass keeps: mergeable states, their bytes known before reading."""
