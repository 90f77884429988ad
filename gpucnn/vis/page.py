"""The shell of the report: document, style sheet, escaping."""

from __future__ import annotations

from html import escape

from gpucnn.vis.labels import clean

_STYLE = """
:root { color-scheme: light dark; --ink: #1b2733; --muted: #5b6875; --rule: #dfe4e9; --page: #f4f6f8; --card: #ffffff;
  --accent: #0069a8; --best: #e8f1f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --muted: #9aa7b4; --rule: #303a45; --page: #12171d;
  --card: #1b222a; --accent: #6bb5e6; --best: #1d3344; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 2rem clamp(0.75rem, 3vw, 2rem) 3rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 1.25rem; overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 0.75rem; margin: 0; }
.facts div { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 0.75rem 1rem; }
.facts dt { color: var(--muted); font-size: 0.85rem; overflow-wrap: anywhere; }
.facts dd { margin: 0; font-size: 1.3rem; font-weight: 600; overflow-wrap: anywhere; }
figure { margin: 1.25rem 0 0; background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  overflow: hidden; }
figure div { background: #ffffff; padding: 0.5rem; }
figure img { display: inline-block; max-width: 100%; height: auto; vertical-align: top; }
figcaption { padding: 0.6rem 1rem; border-top: 1px solid var(--rule); color: var(--muted); font-size: 0.9rem;
  overflow-wrap: anywhere; }
details { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; margin-top: 2.25rem; }
summary { cursor: pointer; padding: 0.75rem 1rem; font-weight: 600; }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; border-radius: 8px; }
.wide { overflow-x: auto; border-top: 1px solid var(--rule); }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 1rem; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: top; }
tbody tr:last-child > * { border-bottom: 0; }
.epochs th, .epochs td { text-align: right; white-space: nowrap; }
.epochs thead th { color: var(--muted); font-weight: 500; white-space: normal; }
.epochs tbody th { font-weight: 500; }
.best { background: var(--best); }
.config th { width: 16rem; color: var(--muted); font-weight: 500; overflow-wrap: anywhere; }
.config td { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 0.85rem;
  overflow-wrap: anywhere; white-space: pre-wrap; }
.note { color: var(--muted); font-size: 0.9rem; margin: 0.5rem 0 0; }
@media (max-width: 40rem) { .config th { width: 9rem; } th, td { padding: 0.35rem 0.6rem; } }
@media print { body { background: none; } main { padding: 0; } figure, .facts div { break-inside: avoid; } }
"""


def page(title: str, body: str) -> str:
    """The whole document: ``title`` as plain text, ``body`` as HTML."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="generator" content="gpucnn">
<title>{text(title)}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def text(value: object) -> str:
    """``value`` as HTML text, or as an attribute within quotes."""
    return escape(clean(str(value), keep="\n\t"), quote=True)
