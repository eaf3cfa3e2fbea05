"""The files that a run leaves in its workdir, and their readers."""
