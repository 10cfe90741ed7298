"""A generator of names, one a line, trained on the names of Unicode's characters.

python names.py [MINUTES]. Any file with a name a line does as well: give charloom.train its path.
"""

import sys

import charloom
from charloom.text.corpora import open_text

minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5
known = set(open_text("unicode-names").read().splitlines())
model = charloom.train("unicode-names", minutes=minutes, window=48, seed=1)

# A line begins after a newline, which is what a model reads before the first character it draws.
names = [
    "".join(model.stream(length=80, stop="\n", temperature=0.8, seed=7, index=index))
    for index in range(20)
]
for name in names:
    print(f"{name}{'   (there is one)' if name in known else ''}")

print("\nBeginning with GREEK:")
for index in range(5):
    print(model.sample("GREEK ", length=60, stop="\n", temperature=0.8, seed=8, index=index))
