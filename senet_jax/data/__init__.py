"""Data: what is known of each set, in-memory arrays, the device feed, preparation."""
