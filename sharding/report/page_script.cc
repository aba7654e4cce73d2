#include "sharding/report/page_template.h"

namespace serrate {

const char* const kPlanPageScript = R"page("use strict";
const plan = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const colors = {data_parallel: "#8a8f98", table_wise: "#2f7ed8", row_wise: "#d9822b",
  column_wise: "#2c9a8f", table_row_wise: "#8b5cd6", table_column_wise: "#c2508f", grid: "#9a8a1e"};
const number = (value, digits) => value.toLocaleString("en", {minimumFractionDigits: digits,
  maximumFractionDigits: digits});
const ms = value => number(value, value >= 100 ? 1 : value >= 1 ? 3 : 4);
const percent = share => number(100 * share, 1) + " %";
const sum = values => values.reduce((a, b) => a + b, 0);
function bytes(value) {
  if (value < 1024) return value + " B";
  let unit = -1;
  do { value /= 1024; ++unit; } while (value >= 999.95 && unit < 4);
  return number(value, value < 99.95 ? 2 : 1) + " " + ["KiB", "MiB", "GiB", "TiB", "PiB"][unit];
}
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.onclick = value; else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}
function badge(type) {
  return element("span", {class: "type", style: "--color:" + colors[type]}, type);
}
function bar(share) {
  return element("span", {class: "bar"}, element("i", {style: "width:" + 100 * share + "%"}));
}

// Facts at the top.
const hasDevices = plan.device === "cuda";
const nodes = plan.world_size / plan.ranks_per_node;
const model = plan.estimator === "torchrec" ? "TorchRec’s cost model" : "Serrate’s cost model";
const count = (n, of) => `${number(n, 0)} ${of}${n === 1 ? "" : "s"}`;
$("subtitle").textContent = `${count(plan.tables.length, "table")} on ${count(plan.world_size, "rank")} ` +
  `(${count(nodes, "node")} of ${plan.ranks_per_node}), ` +
  `${count(plan.batch_size, "sample")} a rank and step; judged by ${model}`;
function card(name, value, unit, more, share) {
  const made = element("div", {class: "card"}, element("div", {class: "name"}, name),
    element("div", {class: "value"}, value, " ", element("span", {class: "unit"}, unit)),
    element("div", {class: "more"}, more));
  if (share !== undefined) {
    made.append(element("div", {class: "meter"}, element("i", {style: `width:${100 * share}%`})));
  }
  $("cards").append(made);
}
const isMaxRank = plan.objective === "max_rank";
const atMost = values => Math.max(0, ...values);
function fullest(kind) {
  return atMost(plan.ranks.map(r => r[kind + "_usable"] ? r[kind + "_bytes"] / r[kind + "_usable"] : 0));
}
card("Slowest rank", ms(plan.max_rank_ms), "ms", isMaxRank ? "what the plan makes small" : "sum of its shards’ times");
card("Critical path", ms(plan.critical_path_ms), "ms", isMaxRank ? "slowest rank of each phase" : "what the plan makes small");
if (plan.bound_ms !== null) {
  card("Gap", number(100 * plan.gap, 2), "%", `no plan is below ${ms(plan.bound_ms)} ms`, 1 / (1 + plan.gap));
}
card("Imbalance", number(plan.imbalance, 3), "×", "slowest rank / mean of all ranks");
const kind = hasDevices ? "device" : "host";
card(hasDevices ? "Fullest device" : "Fullest host", number(100 * fullest(kind), 0), "%",
  `${bytes(atMost(plan.ranks.map(r => r[kind + "_bytes"])))} of what tables may use`, Math.min(1, fullest(kind)));
card(hasDevices ? "HBM in all" : "DDR in all", ...bytes(sum(plan.ranks.map(r => r[kind + "_bytes"]))).split(" "),
  hasDevices ? `and ${bytes(sum(plan.ranks.map(r => r.host_bytes)))} of DDR` : "tables, state and buffers");

// Heat maps: rows of one value for each rank.
const svg = (tag, attributes, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
};
function mix(share) {
  const ends = ["--cold", "--hot"].map(name =>
    getComputedStyle(document.documentElement).getPropertyValue(name).trim().split(" ").map(Number));
  return `rgb(${ends[0].map((low, i) => Math.round(low + (ends[1][i] - low) * share)).join(" ")})`;
}
function heatMap(place, rows, scale, legend) {
  const left = 220, right = 96, height = 22, gap = 3;
  const ranks = plan.world_size;
  const room = 1098 - left - right;
  const nodeGap = nodes > 1 && room / ranks > 5 ? 4 : 0;
  const fair = (room - nodeGap * (nodes - 1)) / ranks;
  const width = fair > 3 ? Math.min(48, Math.floor(fair)) : fair;
  const x = rank => left + rank * width + Math.floor(rank / plan.ranks_per_node) * nodeGap;
  const end = x(ranks - 1) + width;
  const map = svg("svg", {width: end + right, height: rows.length * (height + gap) + 22, role: "img"});
  rows.forEach((row, r) => {
    const y = r * (height + gap) + 1;
    map.append(svg("text", {x: left - 10, y: y + 15, "text-anchor": "end", class: "ink"}, row.name));
    map.append(svg("text", {x: end + 10, y: y + 15}, row.note));
    const worst = row.values.indexOf(atMost(row.values));
    row.values.forEach((value, rank) => {
      const cell = svg("rect", {class: "cell", x: x(rank), y, width: width > 5 ? width - 1 : width + 0.3,
        height, rx: width > 8 ? 2 : 0, fill: mix(Math.min(1, value / (row.top || scale || 1)))});
      if (row.outline && rank === worst && value > 0) {
        cell.setAttribute("stroke", "var(--bad)");
        cell.setAttribute("stroke-width", 1.5);
      }
      cell.dataset.tip = `rank ${rank}${nodes > 1 ? ", node " + Math.floor(rank / plan.ranks_per_node) : ""}\n` +
        `${row.name}: ${row.text(value, rank)}`;
      map.append(cell);
    });
  });
  const every = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024].find(step => step * width >= 30) || 4096;
  for (let rank = 0; rank < ranks; rank += every) {
    map.append(svg("text", {x: x(rank) + width / 2, y: rows.length * (height + gap) + 14,
      "text-anchor": "middle"}, rank));
  }
  map.append(svg("text", {x: left - 10, y: rows.length * (height + gap) + 14, "text-anchor": "end"}, "rank"));
  place.replaceChildren(map, element("div", {class: "legend"}, ...legend));
}
function drawMaps() {
  const longest = atMost(plan.phases.map(p => p.slowest_ms));
  const rows = plan.phases.map((phase, p) => ({name: phase.name, values: plan.ranks.map(r => r.phase_ms[p]),
    note: ms(phase.slowest_ms) + " ms", outline: true, text: value => ms(value) + " ms"}));
  rows.push({name: "all together", values: plan.ranks.map(r => r.ms), top: plan.max_rank_ms,
    note: ms(plan.max_rank_ms) + " ms", outline: true, text: value => ms(value) + " ms"});
  heatMap($("phases"), rows, longest, ["0", element("i"), ms(longest) + " ms (the last row: " +
    ms(plan.max_rank_ms) + " ms)"]);
  const memory = (name, of) => ({name, outline: true, note: percent(fullest(of)),
    values: plan.ranks.map(r => r[of + "_usable"] ? r[of + "_bytes"] / r[of + "_usable"] : 0),
    text: (value, rank) => `${bytes(plan.ranks[rank][of + "_bytes"])} of ` +
      `${bytes(plan.ranks[rank][of + "_usable"])}, ${percent(value)}`});
  heatMap($("memory"), [...(hasDevices ? [memory("HBM (device)", "device")] : []), memory("DDR (host)", "host")], 1,
    ["0", element("i"), "100 %"]);
}

// Where pointers are, there is a text.
document.addEventListener("pointermove", event => {
  const tip = $("tip"), text = event.target.dataset && event.target.dataset.tip;
  tip.style.display = text ? "block" : "none";
  if (!text) return;
  tip.textContent = text;
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = event.clientY + 16 + "px";
});

// Sharding types.
const work = sum(plan.tables.map(t => t.work_ms)) || 1;
const types = Object.keys(colors).map(type => ({type, tables: plan.tables.filter(t => t.type === type)}))
  .filter(entry => entry.tables.length);
const right = text => element("td", {class: "number"}, text);
const rightHead = text => element("th", {class: "number"}, text);
$("types").append(element("thead", {}, element("tr", {}, element("th", {}, "type"), rightHead("tables"),
  rightHead("shards"), rightHead("rank-ms"), element("th", {class: "share"}, "share of time"), rightHead(hasDevices ? "HBM" : ""), rightHead("DDR"))));
const typeBody = element("tbody");
$("types").append(typeBody);
for (const {type, tables} of types) {
  const share = sum(tables.map(t => t.work_ms)) / work;
  typeBody.append(element("tr", {}, element("td", {}, badge(type)), right(number(tables.length, 0)),
    right(number(sum(tables.map(t => t.num_shards)), 0)), right(ms(share * work)),
    element("td", {class: "share"}, bar(share), " ", percent(share)),
    right(hasDevices ? bytes(sum(tables.map(t => t.device_bytes))) : ""), right(bytes(sum(tables.map(t => t.host_bytes))))));
  $("type").append(element("option", {value: type}, type));
}

// Tables: sorted, filtered, opened.
const kPage = 100;
let shown = kPage, sortBy = "work_ms", ascending = false;
const opened = new Set();
function ranksOf(table) {
  const ranks = table.ranks;
  if (ranks.length === plan.world_size && ranks.length > 1) return "all";
  if (ranks.length > 2 && ranks[ranks.length - 1] - ranks[0] + 1 === ranks.length) {
    return `${ranks[0]}–${ranks[ranks.length - 1]}`;
  }
  return ranks.length > 5 ? ranks.length + " ranks" : ranks.join(", ");
}
const columns = [
  {key: "name", title: "table", text: t => element("td", {class: "name", title: t.name}, t.name)},
  {key: "type", title: "sharding type", text: t => element("td", {}, badge(t.type))},
  {key: "kernel", title: "kernel", text: t => element("td", {}, t.kernel)},
  {key: "first_rank", title: "ranks", text: t => element("td", {}, ranksOf(t))},
  {key: "num_shards", title: "shards", number: true, text: t => right(number(t.num_shards, 0))},
  {key: "shard_ms", title: "longest shard", number: true, text: t => right(ms(t.shard_ms) + " ms")},
  {key: "work_ms", title: "rank-ms", number: true, text: t => right(ms(t.work_ms))},
  {key: "share", title: "share of time", text: t => element("td", {class: "share"}, bar(t.work_ms / work), " ", percent(t.work_ms / work))},
  ...(hasDevices ? [{key: "device_bytes", title: "HBM", number: true, text: t => right(bytes(t.device_bytes))}] : []),
  {key: "host_bytes", title: "DDR", number: true, text: t => right(bytes(t.host_bytes))},
];
for (const table of plan.tables) {
  table.first_rank = table.ranks.length ? table.ranks[0] : -1;
  table.share = table.work_ms;
}
function explanation(table) {
  const rows = plan.explanations[table.name].options.map(o => element("tr", {class: o.chosen ? "chosen" : ""},
    element("td", {}, o.type), element("td", {}, o.kernel), right(o.possible ? number(o.num_shards, 0) : "–"),
    right(o.possible ? ms(o.shard_ms) : "–"), right(o.possible ? ms(o.work_ms) : "–"),
    right(o.possible ? bytes(o.device_bytes + o.host_bytes) : "–"), element("td", {class: "why"}, o.why)));
  return element("tr", {class: "opened"}, element("td", {colspan: columns.length}, element("table", {},
    element("thead", {}, element("tr", {}, element("th", {}, "it could be"), element("th", {}, "kernel"), rightHead("shards"),
      rightHead("shard ms"), rightHead("rank-ms"), rightHead("memory/rank"), element("th", {}, "then the plan would take"))),
    element("tbody", {}, ...rows))));
}
function drawTables() {
  const words = $("filter").value.toLowerCase(), type = $("type").value;
  const found = plan.tables.filter(t => t.name.toLowerCase().includes(words) && (!type || t.type === type));
  found.sort((a, b) => {
    const order = typeof a[sortBy] === "string" ? a[sortBy].localeCompare(b[sortBy], "en", {numeric: true})
      : a[sortBy] - b[sortBy];
    return ascending ? order : -order;
  });
  const head = element("tr");
  for (const column of columns) {
    const cell = element("th", {class: column.number ? "number" : column.key === "share" ? "share" : "", scope: "col"}, element("button", {type: "button", onclick: () => {
      ascending = sortBy === column.key ? !ascending : !column.number && column.key !== "share";
      sortBy = column.key;
      drawTables();
    }}, column.title));
    if (column.key === sortBy) cell.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    head.append(cell);
  }
  const body = element("tbody");
  for (const table of found.slice(0, shown)) {
    const opens = table.name in plan.explanations;
    body.append(element("tr", {class: opens ? "opens" : "", onclick: () => {
      if (!opens) return;
      if (!opened.delete(table.name)) opened.add(table.name);
      drawTables();
    }}, ...columns.map(column => column.text(table))));
    if (opened.has(table.name)) body.append(explanation(table));
  }
  $("tables").replaceChildren(element("thead", {}, head), body);
  $("count").textContent = `${number(Math.min(shown, found.length), 0)} of ${count(found.length, "table")}`;
  $("more").style.display = found.length > shown ? "" : "none";
}
const explained = Object.keys(plan.explanations).length;
$("explained").textContent = explained === 0 ? "" : explained === plan.tables.length
  ? "Click a table to see every other way to shard it, and why it lost."
  : `Click one of the ${explained} most expensive tables to see every other way to shard it, and why it lost.`;
$("filter").oninput = $("type").onchange = () => { shown = kPage; drawTables(); };
$("more").onclick = () => { shown += kPage; drawTables(); };
$("footer").textContent = `Made by serrate ${plan.serrate} for ${plan.objective}; ` +
  "rank-ms: the times of a table’s shards, summed over all ranks.";

// Light and dark.
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
  drawMaps();
}
const wanted = location.hash.slice(1);
setTheme(wanted === "dark" || wanted === "light" ? wanted
  : matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
$("theme").onclick = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
drawTables();)page";

}  // namespace serrate
