"""The whole system on one page: a recurrent network that learns a text, character by character.

Read it from top to bottom, or run it on a book of your own:

    python -m charloom.scratch BOOK [--epochs N] [--steps N] [--seed N]

Only NumPy is needed, and nothing is hidden: every gradient below is derived by hand. At each step
t of a window, the network reads one character and predicts the next:

    a_t = U x_t + W s_{t-1} + b_s    what reaches the hidden units: the character and the past
    s_t = tanh(a_t)                  the hidden state, all that the network remembers
    z_t = V s_t + b_y                the logits, a score for every character
    p_t = softmax(z_t)               the probability of every character to come next
    L   = Σ_t −ln p_t[y_t]           the loss: how surprised it was by what came, in nats

Shapes: V characters in the vocabulary (as a matrix, V is the output weights), H hidden units, T
steps in a window, N characters in the text. Vectors are columns, (V, 1) or (H, 1); everything is
float64. In the code, dA stands for dL/dA and has the shape of A.
"""

import argparse
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Activation = Callable[[Array], Array]

# --- The text, as numbers -------------------------------------------------------------------------


def vocabulary(text: str) -> tuple[dict[str, int], dict[int, str]]:
    """Return a text's two tables, `char_to_indexes` and `indexes_to_char`, by code point."""
    chars = sorted(set(text))  # a set alone comes in another order at every run of Python
    return {ch: i for i, ch in enumerate(chars)}, dict(enumerate(chars))


class OneHot:
    """The (N, V) one-hot rows of a text, of which only the requested slice is ever built.

    A whole novel in one array takes half a gigabyte; 25 rows of it take 17 kilobytes. `indexes`
    holds the N characters' indexes, each in 0..V-1. `rows[3:28]` is a new (25, V) array.
    """

    def __init__(self, indexes: npt.ArrayLike, vocab_size: int) -> None:
        self.indexes = np.asarray(indexes, dtype=np.int64)
        self.vocab_size = vocab_size

    def __len__(self) -> int:
        return len(self.indexes)

    def __getitem__(self, window: slice) -> Array:
        return np.asarray(self.indexes[window, None] == np.arange(self.vocab_size), np.float64)


def train_data_generator(
    data: Any, step: int = 1, chunk_size: int = 10, one_hot_targets: bool = False
) -> Iterator[tuple[Any, Any]]:
    """Cut `data`, an (N, V) one-hot array or a `OneHot`, into windows `step` rows apart.

    Yields pairs `(x, y)`. x (T, V) is one-hot, and y holds the characters that follow x's, one
    further on. These are (T,) indexes, or (T, V) one-hot with `one_hot_targets`. T is `chunk_size`,
    less where the text ends. Raises ValueError, at once, unless 1 <= step <= N and chunk_size >= 1.
    """
    if not 1 <= step <= len(data):
        raise ValueError(f"step must be from 1 to the data's length, {len(data)}, not {step}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}")

    def windows() -> Iterator[tuple[Any, Any]]:
        for start in range(0, len(data) - 1, step):
            end = min(start + chunk_size, len(data) - 1)  # the last character is only a target
            x, y = data[start:end], data[start + 1 : end + 1]
            yield x, y if one_hot_targets else np.argmax(y, axis=1)

    return windows()


# --- Functions and their derivatives --------------------------------------------------------------


def softmax(x: npt.ArrayLike) -> Array:
    """Turn logits (V, 1), or columns (V, B), into probabilities, so that each column sums to 1."""
    x = np.asarray(x, dtype=np.float64)
    exps = np.exp(x - np.max(x, axis=0))  # the same quotient, and no exponential above e^0
    return np.asarray(exps / np.sum(exps, axis=0))


def cross_entropy(x: Array, y: int) -> float:
    """Return the loss −ln x[y] in nats, of probabilities x (V, 1) when the character y came.

    A probability below the smallest normal float counts as that one, so that the loss is never
    infinite: at most 708.4 nats. Raises IndexError for an index outside 0..V-1.
    """
    if not 0 <= y < len(x):
        raise IndexError(f"no character has the index {y}: there are {len(x)}")
    return float(-np.log(np.maximum(x[y, 0], np.finfo(np.float64).tiny)))


def cross_entropy_derivative(y_predicted: Array, y: int) -> Array:
    """Return the loss's gradient (V, 1) with respect to the *logits* behind `y_predicted` (V, 1).

    With p = softmax(z): d(−ln p[y])/dz = d(ln Σ_k e^{z_k} − z[y])/dz = p − onehot(y).
    """
    gradient = np.array(y_predicted, dtype=np.float64)  # a copy: the probabilities stay as they are
    gradient[y] -= 1
    return gradient


def derivative_of(activation_function: Activation) -> Activation:
    """Return the derivative of an elementwise function, as a function of the same argument.

    For `np.tanh` it is 1 − tanh². Any other function is measured, by central differences that are
    good to about ten digits (except within a millionth of a corner, as relu's at 0).
    """
    if activation_function is np.tanh:
        return lambda a: 1 - np.tanh(a) ** 2

    def central_difference(a: Array) -> Array:
        h = 1e-6 * np.maximum(1, np.abs(a))
        rise = activation_function(a + h) - activation_function(a - h)
        return np.asarray(rise / ((a + h) - (a - h)))

    return central_difference


# --- The network ----------------------------------------------------------------------------------


class Probabilities(dict[int, Array]):
    """The predictions of `forward`: p_t (V, 1) by t, and in `states` the s_t of that same call."""

    def __init__(self, states: dict[int, Array]) -> None:
        super().__init__()
        self.states = states


class RNN:
    """A recurrent network with one hidden layer, its forward pass and its backward pass.

    U (H, V), W (H, H) and V (V, H) start as normal random numbers of standard deviation 0.01, b_s
    (H, 1) and b_y (V, 1) as zeros. `seed` decides those numbers, and all that `sample` returns.

    `loss_function(p_t, y_t)` and `loss_function_derivative(p_t, y_t)`, its gradient with respect
    to the logits, belong together: change both or neither. `activation_function` can be any that
    works element by element; `activation_derivative` is its derivative as a function of the same
    argument, and defaults to the one of `derivative_of`.
    """

    def __init__(  # nine parameters, because the notebook's class has them
        self,
        vocab_size: int,
        loss_function: Callable[[Array, Any], float] = cross_entropy,
        loss_function_derivative: Callable[[Array, Any], Array] = cross_entropy_derivative,
        activation_function: Activation = np.tanh,
        hidden_size: int = 100,
        seq_length: int = 25,
        learning_rate: float = 1e-1,
        *,
        activation_derivative: Activation | None = None,
        seed: int = 0,
    ) -> None:
        self.random = np.random.default_rng(seed)
        self.U = self.random.standard_normal((hidden_size, vocab_size)) * 0.01  # from the input
        self.W = self.random.standard_normal((hidden_size, hidden_size)) * 0.01  # from the past
        self.V = self.random.standard_normal((vocab_size, hidden_size)) * 0.01  # to the output
        self.b_s = np.zeros((hidden_size, 1))  # hidden bias
        self.b_y = np.zeros((vocab_size, 1))  # output bias

        self.loss_function = loss_function
        self.loss_function_derivative = loss_function_derivative
        self.activation_function = activation_function
        self.activation_derivative = activation_derivative
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.seq_length = seq_length
        self.learning_rate = learning_rate

    @property
    def params(self) -> dict[str, Array]:
        """The network's own five arrays by name, not copies: change one and the network changes."""
        return {"U": self.U, "W": self.W, "V": self.V, "b_s": self.b_s, "b_y": self.b_y}

    def set_parameters(self, param_dict: dict[str, Array]) -> None:
        """Copy the five arrays' values into the network's own; ValueError if they do not fit."""
        _must_match(param_dict, self.params)
        for name, param in self.params.items():
            param[...] = param_dict[name]

    def forward(
        self, x: npt.ArrayLike, y: npt.ArrayLike, s_initial: npt.ArrayLike | None = None
    ) -> tuple[float, dict[int, Array], dict[int, Array], Probabilities]:
        """Read a window x (T, V) of one-hot rows, of which y (T,) holds the following characters.

        Starts from the state `s_initial` (H, 1), or from zeros. T can be any length, whatever
        `seq_length` is. Returns `(loss, states, y_predicted, probability_predicted)`. The loss is
        in nats, summed over the window. The others are dictionaries by t, made for this call
        alone. They hold the states s_t (H, 1), with the initial one at -1, the logits z_t (V, 1)
        and the probabilities p_t (V, 1). Raises ValueError if x, y or `s_initial` does not fit.
        """
        x, y = self._window(x, y)
        if s_initial is None:
            s_initial = np.zeros(self.hidden_size)
        s = {-1: np.array(s_initial, dtype=np.float64).reshape(self.hidden_size, 1)}
        z: dict[int, Array] = {}
        p = Probabilities(s)
        loss = 0.0
        for t in range(len(x)):
            s[t], z[t], p[t] = self._step_forward(x[t], s[t - 1])
            loss += self.loss_function(p[t], y[t])
        return loss, {t: s_t.copy() for t, s_t in s.items()}, z, p

    def backpropagate_loss(
        self,
        probability_predicted: dict[int, Array],
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        states: dict[int, Array] | None = None,
    ) -> tuple[Array, Array, Array, Array, Array, Array]:
        """Return the gradients of a window's loss, by walking the steps of `forward` back in time.

        Takes that call's x and y and the `probability_predicted` it returned, which brings along
        its states (a plain dictionary of probabilities needs them as `states`). Returns
        `(dU, dW, dV, db_s, db_y, last_state)`: each gradient in its parameter's shape, and the
        state (H, 1) after the window. Raises ValueError if the arguments do not fit together.
        """
        x, y = self._window(x, y)
        p = probability_predicted
        s = p.states if states is None and isinstance(p, Probabilities) else states
        if s is None:
            raise ValueError("these probabilities came without their states: pass states as well")
        if not len(p) == len(s) - 1 == len(x):
            raise ValueError(f"{len(p)} predictions and {len(s) - 1} states for {len(x)} inputs")
        f_derivative = self.activation_derivative or derivative_of(self.activation_function)

        dU, dW, dV = np.zeros_like(self.U), np.zeros_like(self.W), np.zeros_like(self.V)
        db_s, db_y = np.zeros_like(self.b_s), np.zeros_like(self.b_y)
        ds_from_later = np.zeros_like(self.b_s)  # nothing follows the last step
        for t in reversed(range(len(x))):
            # dL/dz_t = p_t − onehot(y_t)                                       (V, 1)
            dz = self.loss_function_derivative(np.copy(p[t]), y[t])
            # dL/dV = Σ_t dz_t s_tᵀ                                             (V, H)
            dV += dz @ s[t].T
            # dL/db_y = Σ_t dz_t                                                (V, 1)
            db_y += dz
            # dL/ds_t = Vᵀ dz_t + Wᵀ da_{t+1}, for its output and the next step (H, 1)
            ds = self.V.T @ dz + ds_from_later
            # dL/da_t = ds_t ⊙ f′(a_t), and f′ = 1 − tanh² when f is tanh       (H, 1)
            da = ds * f_derivative(self._reaching(x[t], s[t - 1]))
            # dL/db_s = Σ_t da_t                                                (H, 1)
            db_s += da
            # dL/dU = Σ_t da_t x_tᵀ                                             (H, V)
            dU += da @ x[t].reshape(1, -1)
            # dL/dW = Σ_t da_t s_{t-1}ᵀ                                         (H, H)
            dW += da @ s[t - 1].T
            # Wᵀ da_t, what the step before receives from this one              (H, 1)
            ds_from_later = self.W.T @ da
        return dU, dW, dV, db_s, db_y, s[len(x) - 1].copy()

    def sample(self, seed: int, n: int) -> list[int]:
        """Let the network write: n indexes, each sampled from its probabilities and read in turn.

        `seed` is the index of the character it reads first, from a state of zeros; it is not part
        of the answer. Raises ValueError if no character has that index, or if n is negative.
        """
        if not 0 <= seed < self.vocab_size or n < 0:
            raise ValueError(f"seed must be in 0..{self.vocab_size - 1}, and n not below 0")
        index, indexes = int(seed), []
        state = np.zeros_like(self.b_s)
        for _ in range(n):
            x = np.zeros(self.vocab_size)
            x[index] = 1
            state, _, probability_predicted = self._step_forward(x, state)
            index = int(self.random.choice(self.vocab_size, p=probability_predicted.ravel()))
            indexes.append(index)
        return indexes

    def _step_forward(self, x: Array, prev_s: Array) -> tuple[Array, Array, Array]:
        next_s = self.activation_function(self._reaching(x, prev_s))  # (H, 1)
        y_predicted = self.V @ next_s + self.b_y  # (V, 1)
        return next_s, y_predicted, softmax(y_predicted)

    def _reaching(self, x: Array, prev_s: Array) -> Array:
        return self.U @ x.reshape(-1, 1) + self.W @ prev_s + self.b_s  # a_t (H, 1)

    def _window(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, npt.NDArray[Any]]:
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y)
        if x.ndim != 2 or x.shape[1] != self.vocab_size:
            raise ValueError(f"x must be rows of {self.vocab_size}, not of the shape {x.shape}")
        if y.ndim < 1 or len(x) != len(y):
            raise ValueError(f"{len(x)} inputs, but targets of the shape {y.shape}")
        return x, y


# --- Learning -------------------------------------------------------------------------------------


class AdaGrad:
    """Gradient descent in which every single number slows down as its own gradients add up.

    `params` are arrays by name. They are kept, not copied: `update` changes them in place.
    """

    def __init__(self, lr: float, params: dict[str, Array]) -> None:
        self.learning_rate = lr
        self.params_to_optimize = dict(params)
        self.old_G = {name: np.zeros_like(param) for name, param in params.items()}  # Σ g²

    def update(self, grad_params: dict[str, Array]) -> dict[str, Array]:
        """Take one step against the gradients: G += g², then param −= lr · g / √(G + 1e-8).

        Returns the arrays it was made with, by name, now updated. Raises ValueError, and changes
        nothing, unless there is one gradient for each, with its name and its shape.
        """
        _must_match(grad_params, self.params_to_optimize)
        for name, param in self.params_to_optimize.items():
            g, G = grad_params[name], self.old_G[name]
            G += g * g
            param -= self.learning_rate * g / np.sqrt(G + 1e-8)
        return dict(self.params_to_optimize)


def _must_match(given: dict[str, Array], wanted: dict[str, Array]) -> None:
    missing, unknown = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or unknown:
        raise ValueError(f"the names differ: missing {missing}, unknown {unknown}")
    for name, array in wanted.items():
        if np.shape(given[name]) != np.shape(array):
            raise ValueError(f"{name} must be {np.shape(array)}, not {np.shape(given[name])}")


class Progress(NamedTuple):
    """The progress of training: the epoch, from 1, windows and characters read, losses in nats.

    `loss` is the last window's, summed over its characters. `smooth_loss` follows it slowly, a
    thousandth of the way each time.
    """

    epoch: int
    windows: int
    characters: int
    loss: float
    smooth_loss: float


def train(rnn: RNN, data: Any, n_epochs: int = 4, step: int = 10) -> Iterator[Progress]:
    """Train `rnn` on `data`, (N, V) one-hot or a `OneHot`; yields a `Progress` after each window.

    Windows of `rnn.seq_length` characters begin `step` characters apart, each from a state of
    zeros. The first `Progress` comes before any of them: both its losses are what guessing evenly
    would cost, seq_length · ln V. Raises ValueError where `train_data_generator` does.
    """
    adagrad = AdaGrad(rnn.learning_rate, rnn.params)
    windows = characters = 0
    smooth_loss = float(rnn.seq_length * np.log(rnn.vocab_size))
    yield Progress(1, windows, characters, smooth_loss, smooth_loss)
    for epoch in range(1, n_epochs + 1):
        for x, y in train_data_generator(data, step, chunk_size=rnn.seq_length):
            loss, _, _, probability_predicted = rnn.forward(x, y)
            dU, dW, dV, db_s, db_y, _ = rnn.backpropagate_loss(probability_predicted, x, y)
            gradients = {"U": dU, "W": dW, "V": dV, "b_s": db_s, "b_y": db_y}
            rnn.set_parameters(adagrad.update(gradients))
            smooth_loss = 0.999 * smooth_loss + 0.001 * loss
            windows, characters = windows + 1, characters + len(x)
            yield Progress(epoch, windows, characters, loss, smooth_loss)


# --- The command line -----------------------------------------------------------------------------


def read_book(path: str) -> str:
    """Read a UTF-8 file's text, every character as it is. Raises ValueError if that fails."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    if len(text) < 26:  # one window of 25, and the character after it
        raise ValueError(f"{path} is too short: it has {len(text)} characters, and 26 are needed")
    return text


def learn_aloud(text: str, n_epochs: int, steps: int | None, seed: int) -> None:
    """Train on a text, and print how it goes and what the network would write by then.

    Stops after `n_epochs`, or already after `steps` windows. A loss is printed every 1,000
    windows, a sample of 200 characters every 10,000, and both at the end.
    """
    char_to_indexes, indexes_to_char = vocabulary(text)
    data = OneHot([char_to_indexes[ch] for ch in text], vocab_size=len(char_to_indexes))
    rnn = RNN(data.vocab_size, seed=seed)
    started = time.perf_counter()

    def report(now: Progress) -> None:
        speed = f", {now.characters / (time.perf_counter() - started):,.0f} characters/s"
        print(
            f"epoch {now.epoch}, {now.windows:,} windows: smoothed loss {now.smooth_loss:.2f} nats"
            f" ({now.smooth_loss / rnn.seq_length:.2f} a character){speed if now.windows else ''}",
            flush=True,
        )

    def write() -> None:
        sampled = rnn.sample(int(data.indexes[-1]), 200)  # continues where the text ends
        print("----", "".join(indexes_to_char[i] for i in sampled), "----", sep="\n", flush=True)

    print(f"{len(text):,} characters; vocabulary size: {rnn.vocab_size}", flush=True)
    for now in train(rnn, data, n_epochs):
        if now.windows % 1000 == 0:
            report(now)
        if now.windows % 10_000 == 0:
            write()
        if now.windows == steps:
            break
    if now.windows % 1000:
        report(now)
    if now.windows % 10_000:
        write()


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status.

    0 when training is over, 2 for an unsuitable file (with one line of why on standard error),
    130 after Ctrl-C, 141 when the output is no longer read.
    """
    parser = argparse.ArgumentParser(
        prog="python -m charloom.scratch", description="Train a character-level RNN on a text."
    )
    parser.add_argument("book", metavar="BOOK", help="a text file in UTF-8")
    parser.add_argument("--epochs", metavar="N", type=int, default=4, help="default: 4")
    parser.add_argument("--steps", metavar="N", type=int, help="stop after N windows")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="default: 0")
    options = parser.parse_args(arguments)
    if min(options.epochs, options.steps or 0, options.seed) < 0:
        parser.error("no option takes a negative number")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without curly quotes shows "?"
    try:
        try:
            text = read_book(options.book)
        except ValueError as error:
            print(f"{parser.prog}: {error}", file=sys.stderr)
            return 2
        learn_aloud(text, options.epochs, options.steps, options.seed)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes as it exits
        return 141
    return 0


if __name__ == "__main__":
    sys.exit(main())
