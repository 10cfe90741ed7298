"""Train on your own text in ten lines.

Usage: python own_text.py [TEXT] [MINUTES]. TEXT is a path or the name of a corpus.
"""

import sys

import charloom

source = sys.argv[1] if len(sys.argv) > 1 else "python-docs"
model = charloom.train(source, minutes=float(sys.argv[2]) if len(sys.argv) > 2 else 0.3)
print(model.sample(length=400, temperature=0.7, seed=1))
model.save("own.safetensors")
try:
    evaluation = model.evaluate()
    print(f"\n{evaluation.bits_per_character:.3f} bits per character on the test split. Baselines:")
    for name, baseline in evaluation.baselines.items():
        print(f"{baseline.bits_per_character:.3f} {name}")
except charloom.CharloomError as error:  # of a short text, which is for training alone
    print(f"\n{error}")
