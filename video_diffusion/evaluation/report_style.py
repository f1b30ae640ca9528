"""The style of the page of a report, for light and dark screens and paper."""

STYLE = """
:root {
  --ground: #ffffff; --panel: #f6f7f9; --ink: #1b1f24; --soft: #59636e;
  --rule: #d5dae0; --faint: #e8ebef; --link: #0b5cad;
  --k0: #1f6fb2; --k1: #c2501a; --k2: #00795c; --k3: #8a4fa8; --k4: #8f6a00;
  --k5: #5b6570;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171b; --panel: #1c2026; --ink: #e6e9ed; --soft: #9da7b3;
    --rule: #3a424c; --faint: #292f37; --link: #7ab8f5;
    --k0: #6cb2eb; --k1: #f2945c; --k2: #4cc9a0; --k3: #c99be0; --k4: #e0b84c;
    --k5: #a9b4c0;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 68rem; padding: 2.5rem 1.5rem 4rem;
  background: var(--ground); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
    "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: break-word;
}
h1 { margin: 0; font-size: 1.85rem; line-height: 1.2; letter-spacing: -0.015em;
  font-weight: 650; }
h2 { margin: 2.75rem 0 0.75rem; font-size: 1.25rem; line-height: 1.3;
  font-weight: 650; letter-spacing: -0.005em; scroll-margin-top: 1rem; }
h3 { margin: 0; font-size: 1rem; font-weight: 600; line-height: 1.4; }
a { color: var(--link); text-underline-offset: 0.15em; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 3px; }
.note { color: var(--soft); font-size: 0.9rem; }
p.note { margin: 0 0 0.75rem; max-width: 44rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; padding: 0;
  margin: 0.9rem 0 0; list-style: none; font-size: 0.9rem; }

.scroll { overflow-x: auto; border-block: 1px solid var(--rule); }
table { width: 100%; border-collapse: collapse; line-height: 1.4;
  font-variant-numeric: lining-nums tabular-nums; }
th, td { padding: 0.55rem 1rem; text-align: left; vertical-align: baseline;
  min-width: 5rem; }
th:first-child { padding-left: 0.25rem; min-width: 7rem; }
tr > :last-child { padding-right: 0.25rem; }
thead th { color: var(--soft); font-size: 0.85rem; font-weight: 500;
  white-space: nowrap; border-bottom: 1px solid var(--rule); }
tbody tr + tr > * { border-top: 1px solid var(--faint); }
tbody th { font-weight: 500; }
.number { text-align: right; white-space: nowrap; overflow-wrap: normal; }
.value { font-weight: 650; }
tbody th .note { display: block; font-weight: 400; }
td, dd, figcaption { overflow-wrap: anywhere; }

dl { display: grid; grid-template-columns: 1fr 1fr; gap: 0 2.5rem; margin: 0;
  border-block: 1px solid var(--rule); padding: 0.35rem 0; }
dl div { display: grid; grid-template-columns: minmax(7rem, 11rem) 1fr;
  gap: 1rem; padding: 0.3rem 0.25rem; font-size: 0.9rem; }
dl div.wide { grid-column: 1 / -1; }
dt { color: var(--soft); }
dd { margin: 0; font-variant-numeric: lining-nums tabular-nums;
  white-space: pre-line; }

figure { margin: 0; min-width: 0; }
.curves { display: grid; gap: 2.25rem 2.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
.curve { max-width: 34rem; display: flex; flex-direction: column; }
.curve > svg { display: block; width: 100%; height: auto; margin-top: auto; }
.legend { display: flex; flex-wrap: wrap; gap: 0.1rem 1.1rem; padding: 0;
  margin: 0.25rem 0 0.6rem; list-style: none; font-size: 0.85rem; }
.legend svg { margin-right: 0.45rem; vertical-align: middle; }
svg text { fill: var(--soft); font-size: 13px;
  font-variant-numeric: lining-nums tabular-nums; }
.middle { text-anchor: middle; }
.right { text-anchor: end; }
.grid { stroke: var(--faint); fill: none; }
.axis { stroke: var(--soft); fill: none; }
.line { stroke: var(--k); stroke-width: 2; fill: none; stroke-linecap: round;
  stroke-linejoin: round; }
.band { fill: var(--k); opacity: 0.25; }
circle { fill: var(--k); stroke: var(--ground); }
.k0 { --k: var(--k0); }
.k1 { --k: var(--k1); } .k1 .line { stroke-dasharray: 7 4; }
.k2 { --k: var(--k2); } .k2 .line { stroke-dasharray: 2 4; }
.k3 { --k: var(--k3); } .k3 .line { stroke-dasharray: 10 4 2 4; }
.k4 { --k: var(--k4); } .k4 .line { stroke-dasharray: 4 4; }
.k5 { --k: var(--k5); } .k5 .line { stroke-dasharray: 12 4; }

.groups { display: flex; flex-wrap: wrap; gap: 1rem; align-items: stretch; }
.group { display: flex; flex-wrap: wrap; gap: 0.75rem; padding: 0.75rem;
  background: var(--panel); border: 1px solid var(--faint);
  border-radius: 6px; max-width: 100%; }
.group figure { display: grid; align-content: start; width: min-content; }
.group video, .group img { display: block; height: auto; background: #000;
  border-radius: 3px; }
.group figcaption { margin-top: 0.45rem; color: var(--soft);
  font-size: 0.85rem; line-height: 1.4; }
.pixels { image-rendering: pixelated; }

@media (max-width: 44rem) {
  body { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  th, td { padding-inline: 0.5rem; min-width: 4.5rem; }
  thead th, .interval { white-space: normal; }
  .interval { max-width: 6rem; }
  dl { grid-template-columns: 1fr; }
  dl div { grid-template-columns: 9rem 1fr; }
  dl div.wide { grid-template-columns: 1fr; gap: 0; }
  svg text { font-size: 15px; }
  .group { width: 100%; padding: 0.6rem; gap: 0.6rem; }
  .group figure { width: calc(50% - 0.3rem); }
  .group video, .group img { width: 100%; }
}
@media print {
  body { max-width: none; padding: 0; }
  nav { display: none; }
  section, figure, tr, dl div { break-inside: avoid; }
}
"""
