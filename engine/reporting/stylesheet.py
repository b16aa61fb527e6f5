"""How the page of a run looks: light or dark as the reader's system is, from a phone's width up."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f8fafc; --card: #ffffff; --ink: #1f2937; --soft: #4b5563; --muted: #5b6472; --line: #e2e8f0; --code: #f1f5f9;
  --grid: #e5e7eb; --edge: #64748b; --bad: #b91c1c; --bad-fill: #fef2f2; --good: #0f6b45; --good-fill: #ecfdf5;
  --wait: #92400e; --wait-fill: #fffbeb; --validation: #0f766e;
  --fill-0: #e0f2fe; --fill-1: #e0e7ff; --fill-2: #ede9fe; --fill-3: #fae8ff; --fill-4: #ffe4e6;
  --level-0: #0284c7; --level-1: #4f46e5; --level-2: #7c3aed; --level-3: #c026d3; --level-4: #e11d48;
  --data: #94a3b8; --forward: #38bdf8; --backward: #2563eb; --sweep: #e11d48; --update: #a3a3a3; --compile: #d97706;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0b1120; --card: #131c2e; --ink: #e5e7eb; --soft: #cbd5e1; --muted: #9ca8ba; --line: #27324a;
    --code: #0b1324; --grid: #273147; --edge: #94a3b8; --bad: #fca5a5; --bad-fill: #3b1519; --good: #6ee7b7;
    --good-fill: #0c2f26; --wait: #fcd34d; --wait-fill: #33270a; --validation: #2dd4bf;
    --fill-0: #0c2f44; --fill-1: #232a57; --fill-2: #2f2457; --fill-3: #43204a; --fill-4: #4a1d2a;
    --level-0: #38bdf8; --level-1: #818cf8; --level-2: #a78bfa; --level-3: #e879f9; --level-4: #fb7185;
    --data: #64748b; --forward: #7dd3fc; --backward: #3b82f6; --sweep: #fb7185; --update: #a3a3a3; --compile: #fbbf24;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
header, main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.25rem; padding-bottom: 0.5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; letter-spacing: -0.015em; display: inline; }
h2 { font-size: 1.2rem; margin: 0 0 0.9rem; }
h3 { font-size: 1rem; margin: 0 0 0.5rem; }
p { margin: 0.6rem 0; max-width: 46rem; }
.lead { font-size: 1.05rem; color: var(--soft); margin: 0.7rem 0 0; }
.badge {
  display: inline-block; vertical-align: 0.3rem; margin-left: 0.6rem; padding: 0.1rem 0.7rem; border-radius: 999px;
  font-size: 0.82rem; font-weight: 600;
}
.finished { color: var(--good); background: var(--good-fill); }
.failed { color: var(--bad); background: var(--bad-fill); }
.unfinished { color: var(--wait); background: var(--wait-fill); }
section {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 1.35rem 1.4rem; margin: 1.1rem 0;
}
dl { margin: 0; }
.facts { display: flex; flex-wrap: wrap; gap: 0.5rem 2rem; margin-top: 1.2rem; }
.facts dd { font-weight: 500; }
dt { color: var(--muted); font-size: 0.85rem; }
dd { margin: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(11.5rem, 1fr)); gap: 1.1rem 1.5rem; }
.tiles dd { font-size: 1.5rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.beside { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: 1rem 2rem; align-items: center; }
.beside > * { min-width: 0; }
.levels { display: flex; flex-wrap: wrap; gap: 1.5rem 1.5rem; margin-bottom: 1rem; }
.levels > * { min-width: min(19rem, 100%); max-width: 100%; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: 1rem 1.25rem; }
.panels svg { width: 100% !important; min-width: 0 !important; max-width: 34rem; }
svg { display: block; height: auto; max-width: 100%; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
figure { margin: 0; overflow-x: auto; }
figcaption, .note { color: var(--muted); font-size: 0.87rem; }
.note ul { margin: 0.3rem 0; padding-left: 1.2rem; }
img { display: block; max-width: 100%; height: auto; border-radius: 8px; margin-bottom: 0.5rem; }
.scroll { overflow-x: auto; }
:focus-visible { outline: 2px solid var(--level-1); outline-offset: 2px; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td {
  text-align: left; padding: 0.42rem 1.1rem 0.42rem 0; border-bottom: 1px solid var(--line);
  vertical-align: baseline;
}
tr > :last-child { padding-right: 0; }
tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--muted); font-weight: 500; font-size: 0.85rem; }
tbody th { font-weight: 600; }
.numbers th, .numbers td, tbody th { white-space: nowrap; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; }
.chip { display: inline-block; width: 0.72em; height: 0.72em; border-radius: 3px; margin-right: 0.45em; }
.bars { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: 0.55rem 0.9rem; align-items: center; }
.bars { margin: 0 0 0.8rem; }
.bar { display: flex; height: 1.25rem; border-radius: 5px; overflow: hidden; min-width: 3px; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; padding: 0; margin: 0 0 1rem; }
.legend { font-size: 0.87rem; color: var(--soft); }
.key-data { background: var(--data); } .key-forward { background: var(--forward); }
.key-backward { background: var(--backward); } .key-sweep { background: var(--sweep); }
.key-update { background: var(--update); } .key-compile { background: var(--compile); }
pre {
  margin: 0.8rem 0 0; padding: 0.9rem 1rem; background: var(--code); border-radius: 8px; overflow: auto;
  max-height: 36rem; tab-size: 2;
  font: 0.82rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
}
code { font: 0.9em ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
summary { cursor: pointer; color: var(--soft); }
.trouble { border-color: var(--bad); }
.trouble .message { color: var(--bad); font-weight: 600; max-width: none; }
footer { color: var(--muted); font-size: 0.85rem; padding-top: 0.4rem; padding-bottom: 2.5rem; }
.aside { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (max-width: 44rem) {
  header, main, footer { padding-left: 0.75rem; padding-right: 0.75rem; }
  section { padding: 1.1rem 1rem; }
  h1 { font-size: 1.5rem; }
  .beside { grid-template-columns: minmax(0, 1fr); }
  .tiles { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
  .tiles dd { font-size: 1.25rem; }
}
@media print {
  body { background: none; } section { break-inside: avoid; } pre { max-height: none; white-space: pre-wrap; }
}
"""
