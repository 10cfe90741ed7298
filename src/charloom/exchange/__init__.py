"""Exchange models with PyTorch, ONNX and Hugging Face Hub."""
