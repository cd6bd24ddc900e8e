// The tabs beside the map: scores, training, duplicates and outliers.

import { CLASSES, ask, byId, count, drawn, element, itemsOf, number, patiently, tile, tiles } from "/parts.js";

const COLUMNS = { "knn@1": "kNN k=1", "knn@5": "kNN k=5", "knn@20": "kNN k=20", "knn@200": "kNN k=200", "knn@chosen": "kNN k chosen" };
const MEASURES = {
  alignment: "between views; 0 = none", uniformity: "-4 = spread evenly", "effective rank": "directions", std: "0 = collapsed, 1 = centred",
  "view retrieval": "finds its other view; at most 1", "neighbour agreement": "shared neighbours of two views; at most 1",
  LiDAR: "discriminative directions", "alpha-ReQ": "decay of the spectrum; near 1", hubness: "0 = none",
};
const CURVES = [
  ["Positive and negative similarity", ["positive", "negative"]], ["Effective rank, directions", ["effective_rank", "features_effective_rank"]],
  ["Alignment (0 = views coincide)", ["alignment", "features_alignment"]], ["Uniformity (-4 = spread evenly)", ["uniformity", "features_uniformity"]],
  ["Standard deviation (0 = collapsed)", ["std", "features_std"]], ["View retrieval, at most 1", ["features_view_retrieval", "features_neighbour_agreement"]],
  ["LiDAR, directions", ["features_LiDAR"]], ["Learning rate", ["lr"]], ["Items per second", ["items_per_second"]],
];

const short = (value) => number(value, Math.abs(value) < 0.01 ? 2 : 3);
const title = (words) => element("h2", {}, words);
const said = (words, kind = "") => element("p", { class: kind }, words);

export async function scores(about) {
  const { value } = await ask("/api/scores");
  const sheet = byId("scores");
  if (!value) {
    sheet.replaceChildren(title("Scores"), element("p", {}, "This run has not been evaluated. ", element("code", {}, `tellapart eval ${about.command}`), " makes this table; then reload."));
    return;
  }
  sheet.replaceChildren(title("Scores"), said(value.verdict || "", "verdict"));
  for (const [name, result] of Object.entries(value.transfer || { "": value })) {
    if (name) sheet.append(title(name), said(result.verdict || "", "verdict"));
    judged(sheet, result);
  }
}

function judged(sheet, result) {
  const percent = (cell) => (typeof cell === "number" ? [(100 * cell).toFixed(1)] : [(100 * cell.value).toFixed(1), element("small", {}, `±${(50 * (cell.high - cell.low)).toFixed(1)}`)]);
  if (result.scores) {
    const names = Object.keys(Object.values(result.scores)[0]).filter((n) => n !== "knn@chosen");
    const mark = (row, column) => {
      const here = (result.comparisons || []).filter((c) => c.row === row && c.column === column);
      return here.length && here.every((c) => c.low > 0) ? " ▲" : here.some((c) => c.high < 0) ? " ▼" : "";
    };
    table(sheet, "Classification accuracy, %", names, result.scores, (cell, row, column) => {
      const [value, interval] = percent(cell);
      return [value + mark(row, column), interval];
    }, result);
    const counts = result.counts || {};
    sheet.append(said(`On ${count(counts.test)} items; ± is half of a 95 % bootstrap interval over them. ${count(counts.train)} labelled items vote or fit. ▲ better than every baseline, ▼ worse than one (paired bootstrap, 95 %). Protocol ${result.protocol}.`, "soft"));
    const notes = new Set(Object.values(result.scores).flatMap((row) => Object.entries(row).filter(([n, s]) => n.startsWith("knn@") && n !== "knn@chosen" && s.note).map(([n, s]) => `${COLUMNS[n] || n}: ${s.note}`)));
    for (const note of notes) sheet.append(said(note, "soft"));
  }
  if (result.sts) table(sheet, "Spearman correlation with human scores x 100", ["Spearman"], Object.fromEntries(Object.entries(result.sts).map(([n, s]) => [n, { Spearman: s }])), percent, result);
  if (result.partners) table(sheet, "Retrieval of the partner, %", Object.keys(Object.values(result.partners)[0]), result.partners, percent, result);
  if (result.frames) table(sheet, "Frame accuracy, %", ["right"], Object.fromEntries(Object.entries(result.frames.scores).map(([n, s]) => [n, { right: s }])), percent, result);
  if (result.geometry) {
    const rows = Object.keys(result.geometry), turned = {};
    for (const row of rows) for (const [name, value] of Object.entries(result.geometry[row])) (turned[MEASURES[name] ? `${name} (${MEASURES[name]})` : name] ||= {})[row] = value;
    table(sheet, "Geometry of the vectors, without labels", rows, turned, (cell) => [Number(cell).toFixed(2)], {});
  }
}

function table(sheet, heading, names, rows, cells, result) {
  const top = element("tr", {}, element("th", {}, ""), ...names.map((n) => element("th", { scope: "col" }, COLUMNS[n] || n)));
  const body = Object.entries(rows).map(([row, values]) => element("tr", { class: row === result.headline ? "head" : (result.baselines || []).includes(row) ? "base" : null },
    element("td", {}, row), ...names.map((n) => element("td", {}, ...(n in values && values[n] !== null ? cells(values[n], row, n).filter(Boolean) : ["-"])))));
  sheet.append(title(heading), element("div", { class: "wide", tabindex: "0" }, element("table", {}, element("thead", {}, top), element("tbody", {}, ...body))));
}

export async function training(about) {
  const { value } = await ask("/api/training");
  const sheet = byId("training");
  sheet.replaceChildren(title("Training"));
  if (about.verdict) sheet.append(said(about.verdict, "verdict"));
  if (!value.length) { sheet.append(said("This run has no logged metrics yet.")); return; }
  const last = value[value.length - 1], line = (name) => value.filter((r) => Number.isFinite(r[name])).map((r) => [r.step, r[name]]);
  const charts = element("div", { class: "charts" });
  charts.append(chart("Loss, nats, over steps", { loss: line("loss") }, Number.isFinite(last.chance) ? last.chance : null, true));
  const known = new Set(["loss"]);
  for (const [heading, names] of CURVES) {
    names.forEach((n) => known.add(n));
    const lines = Object.fromEntries(names.map((n) => [n.replace("features_", "features: ").replaceAll("_", " "), line(n)]).filter(([, l]) => l.length));
    if (Object.keys(lines).length) charts.append(chart(heading, lines, null, false));
  }
  sheet.append(charts, said(`${count(value.length)} logged steps; the last is step ${count(last.step)}${Number.isFinite(last.epoch) ? `, epoch ${number(last.epoch)}` : ""}.`, "soft"));
}

function chart(heading, lines, level, first) {
  const width = first ? Math.max(320, Math.min(900, byId("training").clientWidth - 32)) : 320, height = first ? 260 : 150, left = 54, right = first ? 74 : 12, low = height - 22, top = 10;
  const all = Object.values(lines).flat(), ys = all.map((p) => p[1]).concat(level === null ? [] : [level]), xs = all.map((p) => p[0]);
  const reduce = (f, values) => values.reduce((a, b) => f(a, b));
  const [x0, x1, y0, y1] = [reduce(Math.min, xs), reduce(Math.max, xs), reduce(Math.min, ys), reduce(Math.max, ys)];
  const x = (v) => left + ((v - x0) / (x1 - x0 || 1)) * (width - left - right), y = (v) => low - ((v - y0) / (y1 - y0 || 1)) * (low - top);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": heading });
  const label = (words, px, py, anchor) => svg.append(drawn("text", { x: px, y: py, "text-anchor": anchor }, words));
  svg.append(drawn("line", { class: "axis", x1: left, x2: width - right, y1: low, y2: low }));
  label(short(y1), left - 5, top + 4, "end");
  if (y1 > y0) label(short(y0), left - 5, low + 3, "end");
  label(x0.toLocaleString("en"), left, height - 6, "start"); label(x1.toLocaleString("en"), width - right, height - 6, "end");
  if (level !== null) {
    svg.append(drawn("line", { class: "level", x1: left, x2: width - right, y1: y(level), y2: y(level) }));
    label(`chance ${number(level)}`, width - right + 5, y(level) + 4, "start");
  }
  const key = element("span", {});
  Object.entries(lines).forEach(([name, line], i) => {
    const thin = Math.ceil(line.length / 1200), kept = line.filter((_, n) => n % thin === 0 || n === line.length - 1);
    const path = kept.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ");
    svg.append(drawn("polyline", { points: path, stroke: CLASSES[i] }));
    if (first) label(number(line[line.length - 1][1]), x(x1) + 5, y(line[line.length - 1][1]) + 4, "start");
    if (Object.keys(lines).length > 1) {
      const swatch = element("span", {}, "● "); swatch.style.color = CLASSES[i];
      key.append(i ? "  " : " · ", swatch, name);
    }
  });
  return element("figure", { class: first ? "chart first" : "chart" }, element("figcaption", {}, heading, key), svg);
}

export async function findings(about, take) {
  const sheet = byId("findings"), waiting = said("Comparing every item with its neighbours …", "soft");
  sheet.replaceChildren(title("Duplicates and outliers"), waiting);
  const found = await patiently("/api/findings", (seconds) => { waiting.textContent = `Comparing every item with its neighbours … ${Math.round(seconds)} s`; });
  const all = async (rows, strong) => tiles(about, (await itemsOf(rows)).map((item, i) => tile(about, item, strong(i), take)));
  const choice = element("select", { "aria-label": "Cosine similarity of duplicates" }, ...found.alike.map((a, i) => element("option", { value: i }, `≥ ${a.above}`)));
  const groups = element("div", {});
  const show = async () => {
    const level = found.alike[choice.value];
    const rest = level.groups > level.shown.length ? ` The largest ${level.shown.length} are shown.` : "";
    const made = [said(level.groups ? `${count(level.pairs)} pairs make ${count(level.groups)} groups of ${count(level.items)} items.${rest}` : "No pair of items is that similar.")];
    await itemsOf(level.shown.flatMap((group) => group.rows));
    for (const group of level.shown) {
      made.push(element("div", { class: "group" }, said(group.size > group.rows.length ? `${group.size} items, ${group.rows.length} of them shown` : `${group.size} items`, "soft"), await all(group.rows, () => null)));
    }
    groups.replaceChildren(...made);
  };
  choice.addEventListener("change", show);
  const start = found.alike.findIndex((a) => a.items < about.items / 10);
  choice.value = start < 0 ? found.alike.length - 1 : start;
  const odd = await all(found.outliers.map((o) => o.row), (i) => found.outliers[i].score.toFixed(3));
  const parts = [title("Duplicates and outliers"), said("Candidates to check by eye, found by the features of the encoder.", "soft"),
    title("Near duplicates"), element("p", {}, "Cosine similarity ", choice), groups,
    title("Outliers"), said("1 minus the mean cosine similarity to the 10 nearest others; the farthest first.", "soft"), odd];
  if (about.labelled) {
    const suspects = await all(found.suspects.map((s) => s.row), (i) => `${about.classes[found.suspects[i].label]} → ${about.classes[found.suspects[i].neighbours]}?`);
    parts.push(title("Suspect labels"), said(found.suspected ? `${found.suspected} items whose 20 neighbours agree (80 % or more) on another label: its own → theirs.` : "No item has neighbours that agree on another label.", "soft"), suspects);
  }
  await show();
  sheet.replaceChildren(...parts);
}
