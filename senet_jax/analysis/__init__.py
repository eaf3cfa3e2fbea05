"""What a network costs and what its gates do, without training it."""
