"""What a run leaves in its workdir, and what reads it."""
