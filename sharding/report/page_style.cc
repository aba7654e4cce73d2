#include "sharding/report/page_template.h"

namespace serrate {

const char* const kPlanPageStyle = R"page(:root {
  --page: #f6f7f9; --card: #ffffff; --ink: #14181f; --soft: #5b6472; --line: #e2e5ea;
  --accent: #1f5fbf; --good: #1c7c4a; --bad: #b3261e; --cold: 236 241 248; --hot: 16 60 130;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  color-scheme: light;
}
:root[data-theme="dark"] {
  --page: #0f1217; --card: #171b22; --ink: #e7eaef; --soft: #98a2b1; --line: #2a303a;
  --accent: #79aef5; --good: #5fc792; --bad: #ff8a80; --cold: 33 40 52; --hot: 148 196 255;
  color-scheme: dark;
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
header { display: flex; justify-content: space-between; align-items: flex-start; gap: 20px; }
h1 { font-size: 22px; margin: 0 0 2px; letter-spacing: -0.01em; }
h2 { font-size: 15px; margin: 0 0 2px; }
p { margin: 0; }
.soft, .note { color: var(--soft); }
.note { font-size: 12.5px; margin-bottom: 12px; }
button, input, select { font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: 7px; padding: 5px 10px; }
button { cursor: pointer; }
button:hover, select:hover { border-color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px;
  margin: 20px 0; }
.card, section { background: var(--card); border: 1px solid var(--line); border-radius: 11px; }
.card { padding: 13px 16px; }
.card .name { color: var(--soft); font-size: 12.5px; }
.card .value { font-size: 23px; font-weight: 600; letter-spacing: -0.02em;
  font-variant-numeric: tabular-nums; }
.card .unit { font-size: 13px; font-weight: 400; color: var(--soft); }
.card .more { color: var(--soft); font-size: 12.5px; }
.meter { height: 5px; border-radius: 3px; background: var(--line); margin-top: 7px; overflow: hidden; }
.meter i { display: block; height: 100%; background: var(--accent); }
section { padding: 18px 20px; margin-bottom: 16px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; font-size: 12.5px; color: var(--soft); padding: 5px 10px 5px 0;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
th button { all: unset; cursor: pointer; }
th button:hover { color: var(--ink); }
th[aria-sort] button::after { content: " ▾"; }
th[aria-sort="ascending"] button::after { content: " ▴"; }
td { padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
td.number, th.number { text-align: right; }
td.share, th.share { padding-left: 16px; }
td.name { font-weight: 500; max-width: 280px; overflow: hidden; text-overflow: ellipsis; }
tbody tr.opens { cursor: pointer; }
tbody tr.opens:hover td { background: color-mix(in srgb, var(--accent) 7%, transparent); }
tr.opened td { padding: 2px 0 14px 22px; white-space: normal; }
tr.opened table td, tr.opened table th { padding: 2px 12px 2px 0; font-size: 12.5px; white-space: nowrap;
  border-bottom: 0; }
tr.opened td.why { white-space: normal; color: var(--soft); }
tr.chosen td { font-weight: 600; }
.type { display: inline-block; border-radius: 5px; padding: 0 7px; font-size: 12px;
  border: 1px solid var(--line); }
.type::before { content: ""; display: inline-block; width: 8px; height: 8px; border-radius: 2px;
  margin-right: 6px; background: var(--color); }
.bar { display: inline-block; width: 64px; height: 7px; border-radius: 2px; margin-right: 4px;
  background: var(--line); vertical-align: 1px; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--accent); }
.tools { display: flex; gap: 8px; flex-wrap: wrap; margin: 4px 0 10px; align-items: center; }
.tools input { flex: 1 1 220px; max-width: 340px; }
svg { display: block; }
svg text { fill: var(--soft); font-size: 11.5px; }
svg text.ink { fill: var(--ink); }
svg rect.cell:hover { stroke: var(--ink); stroke-width: 1.5; }
.legend { display: flex; align-items: center; gap: 8px; color: var(--soft); font-size: 12px;
  margin-top: 8px; }
.legend i { width: 130px; height: 8px; border-radius: 4px;
  background: linear-gradient(90deg, rgb(var(--cold)), rgb(var(--hot))); }
#tip { position: fixed; pointer-events: none; display: none; background: var(--ink); color: var(--page);
  padding: 5px 9px; border-radius: 6px; font-size: 12.5px; white-space: pre; z-index: 9; }
pre { font: 12px/1.45 var(--mono); overflow-x: auto; margin: 10px 0 0; }
summary { cursor: pointer; }
footer { color: var(--soft); font-size: 12.5px; }
@media print { button, .tools { display: none; } section { break-inside: avoid; } })page";

}  // namespace serrate
