"""Pages in a browser."""

import re
from collections.abc import Callable
from typing import Any

OpenPage = Callable[..., Any]

# The worst contrast of the elements that a selector finds, and which element has it.
CONTRAST = """([selector, property]) => {
  const numbers = (color) => color.match(/[0-9.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = numbers(color).map((c) => {
      const part = c / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!(numbers(color)[3] === 0)) return color;
    }
    return "rgb(255, 255, 255)";
  };
  let worst = [Infinity, "nothing"];
  for (const element of document.querySelectorAll(selector)) {
    const [a, b] = [getComputedStyle(element)[property], ground(element)].map(luminance);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < worst[0]) worst = [contrast, element.outerHTML.slice(0, 200)];
  }
  return worst;
}"""


def readout(page: Any) -> dict[str, str]:
    """What a page tells of the place that its line is at, by name."""
    names, values = (page.locator(f".readout {kind}").all_text_contents() for kind in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def wait_for_truth(page: Any, expression: str) -> None:
    """Wait until an expression is true, or a function returns what is.

    Playwright's own `wait_for_function` repeats it with `eval`, which the policy of these pages
    forbids: it fails whenever the first answer is false. The page may be loaded anew meanwhile.
    """
    from playwright.sync_api import Error

    while True:  # up to the time limit of the test
        try:
            if page.evaluate(expression):
                return
        except Error as error:
            if not re.search("context was destroyed|navigation", str(error)):
                raise
        page.wait_for_timeout(10)
