"""How a report looks, on a bright screen, on a dark one, and on paper."""

STYLE_SHEET = """
:root {
  --paper: #ffffff; --ink: #1d1d22; --muted: #6d6d78; --faint: #dcdce2; --wash: #f6f6f8; --accent: #0072b2;
  --better: #d8ebf7; --worse: #fbe3d3; --care: #fff6dd;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #17171b; --ink: #e8e8ec; --muted: #a0a0ac; --faint: #37373f; --wash: #1f1f25; --accent: #5ab4e6;
    --better: #16374c; --worse: #4a2b17; --care: #3a3218;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 3rem 1.5rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 0.4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; letter-spacing: -0.005em; margin: 0 0 1rem; }
h3 { font-size: 0.95rem; margin: 2rem 0 0.6rem; }
p, ul { margin: 0 0 1rem; }
.lead { color: var(--muted); }
section { margin-top: 3.2rem; }
ul.findings { padding-left: 1.1rem; max-width: 46rem; }
ul.findings li { margin-bottom: 0.3rem; }
aside { background: var(--care); border-radius: 6px; padding: 1rem 1.3rem 0.3rem; margin: 1.8rem 0; }
aside h2 { font-size: 1rem; margin-bottom: 0.4rem; }
aside ul { padding-left: 1.1rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.84rem; font-variant-numeric: tabular-nums; line-height: 1.4; }
thead th {
  color: var(--muted); font-weight: 500; vertical-align: bottom; border-bottom: 1px solid var(--ink);
  padding: 0 0.7rem 0.4rem;
}
td, tbody th { padding: 0.32rem 0.7rem; border-bottom: 1px solid var(--faint); font-weight: 400; }
tr > :first-child { padding-left: 0; }
.word { text-align: left; }
.number { text-align: right; white-space: nowrap; }
tbody th { white-space: nowrap; }
tr.strong > * { font-weight: 650; }
tr.quiet > * { color: var(--muted); }
table.standings { width: 100%; }
table.standings thead th.number { white-space: normal; }
table.standings td, table.standings th { padding-left: 0.45rem; padding-right: 0.45rem; }
table.standings tr > :first-child { padding-left: 0; }
table.pairs { font-size: 0.76rem; }
table.pairs td { padding: 0.25rem 0.4rem; border: 1px solid var(--paper); }
table.pairs thead th { padding: 0 0.4rem 0.3rem; border-bottom: 0; }
table.pairs tbody th { border-bottom: 0; padding-right: 0.9rem; }
td.better { background: var(--better); }
td.worse { background: var(--worse); }
table.pairs td.unsure { color: var(--muted); background: var(--wash); }
table.confusion td { min-width: 4.5rem; }
table.gaps td:last-child { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 16rem; }
table.mistakes td:last-child { min-width: 22rem; white-space: pre-wrap; overflow-wrap: anywhere; }
table.facts tbody th { color: var(--muted); vertical-align: top; }
.legend, figcaption { color: var(--muted); font-size: 0.82rem; line-height: 1.5; max-width: 52rem; margin: 0.6rem 0 0; }
figure { margin: 1.8rem 0 2.4rem; }
figure svg { width: 100%; height: auto; display: block; }
figure svg text { font-family: inherit !important; }
pre {
  background: var(--wash); border-radius: 6px; padding: 0.8rem 1rem; overflow-x: auto; margin: 0 0 1.4rem;
  font: 0.8rem/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap;
}
details { margin-bottom: 1.4rem; }
summary { cursor: pointer; margin-bottom: 0.6rem; }
@media print {
  :root {
    --paper: #ffffff; --ink: #000000; --muted: #55555e; --faint: #c8c8ce; --wash: #f6f6f8; --accent: #0072b2;
    --better: #d8ebf7; --worse: #fbe3d3; --care: #fff6dd;
  }
  @page { size: A4 landscape; margin: 14mm; }
  body { font-size: 11px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  section { margin-top: 1.6rem; }
  .wide { overflow: visible; }
  figure, tr, aside { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""
