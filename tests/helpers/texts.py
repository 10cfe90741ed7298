"""The texts that tests train on."""

TEXT = "The woods are lovely, dark and deep,\nund schön → 字 🦉\n" * 30
