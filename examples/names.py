"""Learn a list of names: new names, the likeliest that no one has, the strangest in the list.

Usage: python names.py [LIST] [MINUTES]. LIST is the path of a file with one name per line, or the
name of a corpus. The default is the list of the names of Unicode characters, which needs no file.
"""

import sys

import charloom

source = sys.argv[1] if len(sys.argv) > 1 else "unicode-names"
minutes = float(sys.argv[2]) if len(sys.argv) > 2 else 0.5
model = charloom.train(source, lines=True, minutes=minutes, seed=1)

# Each sample is a whole name. All of them differ from each other and from the list.
found = model.sample_documents(1000, unique=True, new=True, temperature=0.9, seed=7)
print("New names:")
for name in found[:15]:
    print(f"  {name.text}")

print("\nThe likeliest of them:")
for name in sorted(found, key=lambda name: -name.log_probability)[:10]:
    print(f"  {name.text}")

names = sorted({name for name in charloom.open_text(source).read().split("\n") if name})
scores = model.score_documents(names)  # log-probabilities of whole names, in nats
nats = [-score / (len(name) + 1) for name, score in zip(names, scores, strict=True)]
print("\nThe strangest in the list, with their nats per character:")
for value, name in sorted(zip(nats, names, strict=True), reverse=True)[:10]:
    print(f"  {value:.2f}  {name}")
