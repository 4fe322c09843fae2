"""What a model does and needs: FLOPs, memory, time and money."""
