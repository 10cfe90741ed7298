"""Pages in a browser."""

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
