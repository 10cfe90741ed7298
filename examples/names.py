"""Generate names with a model trained on the names of Unicode characters.

Usage: python names.py [MINUTES]. To use your own names, pass charloom.train the path of a file
with one name per line.
"""

import sys

import charloom

minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5
known = set(charloom.open_text("unicode-names").read().splitlines())
model = charloom.train("unicode-names", minutes=minutes, window=48, seed=1)

# No prompt is needed, because the model reads a newline first, so each sample starts a new line.
names = [
    "".join(model.stream(length=80, stop="\n", temperature=0.8, seed=7, index=index))
    for index in range(20)
]
for name in names:
    print(f"{name}{'   (exists)' if name in known else ''}")

print("\nBeginning with GREEK:")
for index in range(5):
    print(model.sample("GREEK ", length=60, stop="\n", temperature=0.8, seed=8, index=index))
