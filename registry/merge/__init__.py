"""LoRA adapters merged into the weights they were trained on, tensor by tensor."""
