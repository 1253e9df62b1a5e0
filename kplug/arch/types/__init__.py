"""What the declarations of architectures are made of."""
