"""Parameters and multiply-adds of networks, and the tables of the paper that list them."""
