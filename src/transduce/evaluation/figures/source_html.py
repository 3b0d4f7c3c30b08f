"""The figure of `source` as one HTML page: the shade follows the token of the output in focus."""

from __future__ import annotations

import json
from html import escape

from transduce.evaluation.figures.source import Shaded

STYLE = """
:root { color-scheme: light dark; --ink: #1f2340; --quiet: #6a7088; --page: #fff;
  --shade: 47 95 179; --mark: #c8621f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6f0; --quiet: #9aa0b8; --page: #171923;
  --shade: 110 155 235; --mark: #f0a06a; } }
body { font: 17px/1.9 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 52rem; margin: 2.5rem auto; padding: 0 1.2rem; overflow-wrap: anywhere; }
h2 { font-size: .85rem; font-weight: 600; color: var(--quiet); margin: 1.6rem 0 .2rem; }
p { margin: 0; white-space: pre-wrap; } .note { color: var(--quiet); font-size: .85rem; }
#output span { cursor: default; border-radius: 3px; }
#output span:hover, #output span:focus { outline: 2px solid rgb(var(--shade)); }
#source span { background: rgb(var(--shade) / calc(.6 * var(--w))); border-radius: 2px; }
.copied { text-decoration: underline var(--mark) 3px; text-underline-offset: 3px; }
.origin { outline: 2px solid var(--mark); }
"""

# Weights come as whole numbers of thousandths: nothing of the text is in the script.
SCRIPT = """
const {rows, origins} = JSON.parse(document.getElementById("weights").textContent);
const source = [...document.querySelectorAll("#source span")];
const before = source.map(span => span.style.getPropertyValue("--w"));
const show = t => {
  const most = Math.max(1, ...rows[t]);
  source.forEach((span, s) => {
    span.style.setProperty("--w", rows[t][s] / most);
    span.title = (rows[t][s] / 10).toFixed(1) + " %";
    span.classList.toggle("origin", s === origins[t]);
  });
};
const all = () => source.forEach((span, s) => {
  span.style.setProperty("--w", before[s]);
  span.title = "";
  span.classList.remove("origin");
});
document.querySelectorAll("#output span").forEach((span, t) => {
  for (const event of ["mouseenter", "focus"]) span.addEventListener(event, () => show(t));
  for (const event of ["mouseleave", "blur"]) span.addEventListener(event, all);
});
"""


def source_html(drawn: Shaded, title: str) -> str:
    """The page, which needs nothing else; text is escaped. Without scripts it shows the sum."""
    rows = (1000 * drawn.attention).round().astype(int).tolist()
    data = json.dumps({"rows": rows, "origins": drawn.origins}, separators=(",", ":"))
    copied = drawn.copied
    output = "".join(
        f'<span tabindex="0"{_class(origin is not None)}>{escape(piece)}</span>'
        for piece, origin in zip(drawn.target, drawn.origins, strict=True)
    )
    source = "".join(
        f'<span{_class(place in copied)} style="--w:{weight:.3f}">{escape(piece)}</span>'
        for place, (piece, weight) in enumerate(
            zip(drawn.source, drawn.total.tolist(), strict=True)
        )
    )
    parts = [
        '<!DOCTYPE html>\n<html><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f'<h2>output</h2><p id="output" dir="auto">{output}</p>',
        f'<h2>source</h2><p id="source" dir="auto">{source}</p>',
        f'<h2></h2><p class="note">{escape(drawn.legend)} Point at a word of the output to see '
        "where the model looked for it.</p>",
        f'<script type="application/json" id="weights">{data}</script>',
        f"<script>{SCRIPT}</script></body></html>\n",
    ]
    return "\n".join(parts)


def _class(copied: bool) -> str:
    return ' class="copied"' if copied else ""
