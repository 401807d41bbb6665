"""The style sheet of a report: light and dark by the reader's setting, one column on narrow screens, fit for print."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #ffffff; --ink: #1c2430; --soft: #5b6675; --line: #dfe3e9;
  --accent: #0b63a5; --bar: #cfe3f4; --warn: #8a4b00; --warnback: #fff4e2; --code: #f0f2f5;
  --bad: #a3161f; --badback: #fde8e8; }
@media (prefers-color-scheme: dark) { :root { --back: #0f1319; --card: #171c24; --ink: #dfe5ee; --soft: #98a3b3;
  --line: #2b333f; --accent: #6bb5f0; --bar: #1f4668; --warn: #f2c078; --warnback: #2e2415; --code: #10151c;
  --bad: #ff9c9c; --badback: #3a1619; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header > div { max-width: 1120px; margin: 0 auto; padding: 0 20px; }
header { padding: 34px 0 20px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 12px; }
h3 { font-size: 14px; margin: 18px 0 8px; color: var(--soft); font-weight: 600; }
p { margin: 0 0 10px; max-width: 78ch; }
.lead { color: var(--soft); font-size: 16px; overflow-wrap: anywhere; }
.brand { color: var(--accent); font-weight: 600; font-size: 13px; letter-spacing: 0.04em; margin-bottom: 8px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 14px; font-size: 14px; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 20px 22px;
  margin: 0 0 18px; scroll-margin-top: 12px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(124px, 1fr)); gap: 12px; margin-bottom: 18px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; white-space: nowrap; font-size: 25px; line-height: 1.2; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.tile.first { border-color: var(--accent); } .tile.first b { color: var(--accent); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: 13px; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.text, th.text { text-align: left; white-space: normal; overflow-wrap: anywhere; }
tr:last-child td { border-bottom: 0; }
table.keys td:first-child { width: 32%; white-space: normal; } .wide + .wide { margin-top: 16px; }
tbody tr.apart td { border-top: 2px solid var(--line); }
td.bar { background: linear-gradient(var(--bar), var(--bar)) no-repeat left 50% /
  calc((100% - 60px) * var(--share)) 62%; min-width: 108px; }
pre { background: var(--code); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px;
  margin: 4px 0 12px;
  overflow-x: auto; font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; }
code { font: 13px ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; display: block; border-radius: 6px; }
.wide picture img { min-width: 620px; }
.shots { display: grid; gap: 20px; }
.shots.many { grid-template-columns: repeat(auto-fill, minmax(min(100%, 240px), 1fr)); }
.shots.pairs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); }
.shots.thumbs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 225px), 1fr)); gap: 14px; margin: 12px 0; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: 13px; margin-top: 6px; overflow-wrap: anywhere; }
.kind { display: inline-block; color: var(--warn); background: var(--warnback); border-radius: 4px; padding: 0 7px;
  font-weight: 600; margin-right: 6px; }
.kind.error { color: var(--bad); background: var(--badback); }
.kind.note { color: var(--soft); background: var(--code); }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--accent); font-size: 14px; }
ul.lines { margin: 8px 0 0; padding-left: 18px; font-size: 13px; } ul.lines li { overflow-wrap: anywhere; }
.notes { background: var(--warnback); border-radius: 8px; padding: 10px 14px 10px 32px; margin: 14px 0 0; }
.notes li { overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: 13px; max-width: none; } .wide + .soft { margin: 14px 0 0; }
footer { color: var(--soft); font-size: 13px; padding: 4px 0 40px; }
@media (max-width: 560px) { main, header > div { padding: 0 12px; } section { padding: 16px 14px; }
  .tiles { grid-template-columns: 1fr 1fr; } h1 { font-size: 23px; } .tile b { font-size: 22px; } }
@media print { body { background: #fff; } section, .tile { break-inside: avoid; } nav { display: none; } }
"""
