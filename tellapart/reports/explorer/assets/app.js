// The page: loads the run, draws the map, and keeps the side panel.

import { PointMap } from "/map.js";
import { ask, byId, bytesOf, classColour, count, element, itemsOf, number, patiently, rampColour, shown, thumbnail, tile, tiles } from "/parts.js";
import { findings, scores, training } from "/tabs.js";

const COLOURS = {
  label: "Label", cluster: "Cluster (k-means)", outlier: "Outlier score", loss: "Instance loss",
};
const MEANING = {
  outlier: "1 - mean similarity to the 10 nearest; high = isolated",
  loss: "nats, among all items, temperature 0.07; 0 = fully distinguished",
};
const SHOWN = 60; // thumbnails of a selection
const LARGEST = 32 * 2 ** 20; // bytes of an upload
const LEGEND = 40; // classes named in it

let about, map, ids = null, hovered = -1, selected = [], hidden = new Set();
const page = { ready: false, firstPaintMs: null };
window.tellapart = page;

async function start() {
  const [{ value }, places, labels] = await Promise.all(["/api/run", "/api/map/pca", "/api/colour/label"].map((path) => ask(path)));
  about = value;
  document.title = `${about.run} - tellapart`;
  byId("run").textContent = about.run;
  byId("about").textContent = `${about.method} · ${about.data} · ${count(about.items)} ${about.many} · ${about.width} features${about.state ? ` · ${about.state}` : ""} · random pairs ${about.random_pairs}`;
  for (const name of ["scores", "training"]) byId(`tab-${name}`).hidden = !about.trained;
  byId("ask").hidden = !about.searchable;
  byId("about").title = about.verdict || "";
  for (const [name, words] of Object.entries(COLOURS)) if (name !== "label" || about.labelled) byId("colour").append(element("option", { value: name }, words));
  byId("colour").prepend(...(about.labelled ? [] : [element("option", { value: "none" }, "None")]));
  byId("colour").value = about.labelled ? "label" : "none";
  if (!about.umap) {
    const option = byId("layout").options[1];
    option.disabled = true; option.textContent = "UMAP (pip install 'tellapart[map]')";
  }
  map = new PointMap(byId("field"), byId("points"), byId("marks"), { hover, pick: take, lasso: select }, location.hash.slice(1));
  map.show(places.value);
  paintClasses(labels.value, about.labelled ? about.classes : []);
  requestAnimationFrame(() => setTimeout(() => { page.firstPaintMs = performance.now(); page.ready = true; document.documentElement.dataset.ready = ""; }));
  Object.defineProperties(page, Object.getOwnPropertyDescriptors({
    map, take, select, painter: map.painter.name, screenOf: (row) => map.screenOf(row), rowAt: (x, y) => map.rowAt(x, y),
    zoom: (factor) => map.zoomBy(factor), get view() { return { ...map.view }; }, get frames() { return map.frames; },
    get selected() { return [...selected]; }, get hovered() { return hovered; }, get items() { return about.items; },
  }));
}

// colours ----------------------------------------------------------------------------------------------

async function layout() {
  await working("UMAP", `/api/map/${byId("layout").value}`, (points) => { map.show(points); map.fit(); });
}

async function colour() {
  const name = byId("colour").value;
  hidden = new Set();
  if (name === "none") return paintClasses(new Float32Array(about.items).fill(-1), []);
  await working(COLOURS[name], `/api/colour/${name}`, (values) => {
    if (byId("colour").value !== name) return;
    if (name === "outlier" || name === "loss") paintRamp(values, MEANING[name]);
    else paintClasses(values, name === "label" ? about.classes : [...new Set(values)].sort((a, b) => a - b).map((c) => `cluster ${c + 1}`));
  });
}

async function working(what, path, done) {
  const hint = byId("hint");
  try {
    done(await patiently(path, (seconds) => { hint.hidden = false; hint.textContent = `${what} is being computed … ${Math.round(seconds)} s`; }));
    hint.hidden = true;
  } catch (error) {
    hint.hidden = false; hint.textContent = error.message;
  }
}

function paintClasses(values, names) {
  const counts = new Map();
  for (const v of values) counts.set(v, (counts.get(v) || 0) + 1);
  const present = [...counts.keys()].sort((a, b) => (a < 0) - (b < 0) || a - b);
  const tint = new Map(present.map((v) => [v, bytesOf(classColour(v))]));
  const draw = () => {
    const bytes = new Uint8Array(4 * values.length);
    for (let i = 0; i < values.length; i++) {
      const [r, g, b] = tint.get(values[i]), off = hidden.size && !hidden.has(values[i]);
      bytes[4 * i] = r; bytes[4 * i + 1] = g; bytes[4 * i + 2] = b; bytes[4 * i + 3] = off ? 28 : 215;
    }
    map.paint(bytes);
  };
  const entries = names.length ? present.slice(0, LEGEND) : [];
  const buttons = entries.map((v) => {
    const dot = element("span", { class: "swatch" });
    dot.style.background = classColour(v);
    const button = element("button", { type: "button", "aria-pressed": "false", title: `${count(counts.get(v))} items; click shows these alone` }, dot, v < 0 ? "no label" : names[v] ?? String(v));
    button.removeAttribute("aria-pressed");
    button.addEventListener("click", () => {
      if (!hidden.delete(v)) hidden.add(v);
      buttons.forEach((b, i) => b.classList.toggle("off", hidden.size > 0 && !hidden.has(entries[i])));
      draw();
    });
    return button;
  });
  const more = present.length > LEGEND && names.length ? element("li", { class: "soft" }, `and ${present.length - LEGEND} more`) : null;
  byId("legend").replaceChildren(...(buttons.length ? [element("ul", { "aria-label": "Colours" }, ...buttons.map((b) => element("li", {}, b)), more)] : []));
  draw();
}

function paintRamp(values, meaning) {
  const order = Uint32Array.from(values.keys()).sort((a, b) => values[a] - values[b]);
  const low = values[order[0]], high = values[order[Math.floor((order.length - 1) * 0.995)]];
  const bytes = new Uint8Array(4 * values.length);
  values.forEach((v, i) => bytes.set([...rampColour((v - low) / (high - low || 1)), 215], 4 * i));
  byId("legend").replaceChildren(element("div", {}, meaning), element("div", { class: "ramp" }), element("div", { class: "ends" }, element("span", {}, number(low)), element("span", {}, `≥ ${number(high)}`)));
  map.paint(bytes, order);
}

// one item ---------------------------------------------------------------------------------------------

async function hover(row, x, y) {
  const tip = byId("tip");
  if (row < 0) { hovered = -1; tip.hidden = true; return; }
  const put = () => {
    tip.style.left = `${Math.max(4, Math.min(x + 14, map.width - tip.offsetWidth - 6))}px`;
    tip.style.top = `${Math.max(4, Math.min(y + 14, map.height - tip.offsetHeight - 6))}px`;
  };
  if (row === hovered) { put(); return; }
  hovered = row;
  await new Promise((wake) => setTimeout(wake, 40));
  if (hovered !== row) return;
  const [item] = await itemsOf([row]).catch(() => []);
  if (!item || hovered !== row) return;
  const small = shown(about, item);
  const body = about.kind === "images" ? [element("img", { src: thumbnail(about, row), alt: "", class: "small" }), element("div", {}, item.id, item.label === null ? "" : ` · ${item.label}`)]
    : [element("div", {}, element("b", {}, item.label ?? ""), " ", item.id), ...(item.texts || []).map((t) => element("div", {}, t.slice(0, 240))), item.curves ? small.querySelector("svg") : ""];
  tip.replaceChildren(...body);
  tip.hidden = false;
  put();
}

async function take(row) {
  openTab("map");
  map.mark({ chosen: row, near: [] });
  map.reveal(row);
  await search(() => ask(`/api/search?row=${row}`, { method: "POST" }));
}

async function search(request, preview = null) {
  try {
    const { value } = await request();
    byId("trouble").hidden = true;
    map.mark({ chosen: value.item ? value.item.row : -1, near: value.neighbours.map((n) => n.row) });
    const what = value.item ? shown(about, value.item) : preview;
    byId("item").replaceChildren(
      element("h2", {}, value.item ? "Item" : "Query"), what ?? "",
      element("h2", {}, "Nearest neighbours"), element("p", { class: "soft" }, `by cosine similarity of the features, of ${count(about.items)}`),
      tiles(about, value.neighbours.map((n) => tile(about, n, n.similarity.toFixed(3), take))));
    if (innerWidth <= 700) byId("item").scrollIntoView({ behavior: "smooth", block: "nearest" });
  } catch (error) { trouble(error.message); }
}

function trouble(words) { byId("trouble").textContent = words; byId("trouble").hidden = false; }

async function searchFile(file) {
  if (!file) return;
  if (file.size > LARGEST) { trouble(`${(file.size / 2 ** 20).toFixed(0)} MB; an upload holds ${LARGEST / 2 ** 20} MB at most`); return; }
  let preview = element("p", {}, file.name);
  if (about.kind === "images") preview = element("div", { class: "shown" }, element("img", { src: URL.createObjectURL(file), alt: file.name }), preview);
  else if (about.kind === "audio") preview.append(element("audio", { controls: true, src: URL.createObjectURL(file) }));
  await search(() => ask("/api/search", { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } }), preview);
}

const searchText = (text) => search(() => ask("/api/search", { method: "POST", body: text, headers: { "content-type": "text/plain; charset=utf-8" } }), element("p", {}, text));

// several items ----------------------------------------------------------------------------------------

async function select(rows) {
  selected = rows;
  map.mark({ selected: rows });
  const box = byId("selection");
  if (!rows.length) { box.replaceChildren(); return; }
  const first = await itemsOf(rows.slice(0, SHOWN));
  if (selected !== rows) return;
  box.replaceChildren(
    element("h2", {}, `${count(rows.length)} selected`),
    element("div", { class: "row" },
      element("button", { type: "button", id: "export-text", onclick: () => save("txt") }, "Export list (.txt)"),
      element("button", { type: "button", id: "export-json", onclick: () => save("json") }, "Export list (.json)"),
      element("button", { type: "button", onclick: () => select([]) }, "Clear selection")),
    tiles(about, first.map((item) => tile(about, item, null, take))),
    rows.length > SHOWN ? element("p", { class: "soft" }, `The first ${SHOWN} are shown.`) : "");
}

async function save(kind) {
  try {
    ids ||= (await ask("/api/ids")).value;
    const names = selected.map((row) => ids[row]);
    const text = kind === "txt" ? `${names.join("\n")}\n` : JSON.stringify({ run: about.run, data: about.data, fingerprint: about.fingerprint, ids: names }, null, 1);
    const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: kind === "txt" ? "text/plain" : "application/json" })), download: `${about.run}-selection.${kind}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) { trouble(error.message); }
}

// the page ---------------------------------------------------------------------------------------------

const TABS = ["map", "scores", "training", "findings"];
const LOADS = { scores: () => scores(about), training: () => training(about), findings: () => findings(about, take) };
const loaded = new Set();

function openTab(name) {
  for (const tab of TABS) {
    byId(tab).hidden = tab !== name;
    byId(`tab-${tab}`).setAttribute("aria-selected", tab === name);
    byId(`tab-${tab}`).tabIndex = tab === name ? 0 : -1;
  }
  if (!LOADS[name] || loaded.has(name)) return;
  loaded.add(name);
  LOADS[name]().catch((error) => { loaded.delete(name); byId(name).replaceChildren(element("p", { class: "trouble" }, error.message)); });
}

function lassoMode(on) {
  map.lassoing = on;
  byId("lasso").setAttribute("aria-pressed", on);
  byId("field").classList.toggle("drawing", on);
}

function onMapKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const far = 60, keys = {
    ArrowLeft: () => map.moveBy(far, 0), ArrowRight: () => map.moveBy(-far, 0), ArrowUp: () => map.moveBy(0, far), ArrowDown: () => map.moveBy(0, -far),
    "+": () => map.zoomBy(1.5), "=": () => map.zoomBy(1.5), "-": () => map.zoomBy(1 / 1.5), 0: () => map.fit(),
    Enter: () => { const row = map.rowAt(map.width / 2, map.height / 2, map.width); if (row >= 0) take(row); },
    v: () => select(map.visible()), l: () => lassoMode(!map.lassoing),
    Escape: () => { lassoMode(false); select([]); map.mark({ chosen: -1, near: [] }); byId("item").replaceChildren(); },
  };
  const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act && event.target === byId("field")) { event.preventDefault(); act(); }
}

function listen() {
  byId("layout").addEventListener("change", layout);
  byId("colour").addEventListener("change", colour);
  byId("closer").addEventListener("click", () => map.zoomBy(1.6));
  byId("farther").addEventListener("click", () => map.zoomBy(1 / 1.6));
  byId("whole").addEventListener("click", () => map.fit());
  byId("lasso").addEventListener("click", () => lassoMode(!map.lassoing));
  byId("visible").addEventListener("click", () => select(map.visible()));
  byId("field").addEventListener("keydown", onMapKey);
  TABS.forEach((name) => {
    const tab = byId(`tab-${name}`);
    tab.addEventListener("click", () => openTab(name));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const shown = TABS.filter((other) => !byId(`tab-${other}`).hidden);
      const next = shown[(shown.indexOf(name) + step + shown.length) % shown.length];
      openTab(next); byId(`tab-${next}`).focus();
    });
  });
  const text = about.kind === "text";
  byId("words").hidden = !text; byId("drop").hidden = text;
  byId("dropwords").textContent = `Drop or paste ${about.one} to search for, or choose a file`;
  byId("file").addEventListener("change", (event) => { searchFile(event.target.files[0]); event.target.value = ""; });
  byId("ask").addEventListener("submit", (event) => { event.preventDefault(); const given = byId("sentence").value.trim(); if (given) searchText(given); });
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    openTab("map");
    if (text) { const given = event.dataTransfer.getData("text/plain").trim(); if (given) searchText(given); } else searchFile(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => {
    if (event.target.closest?.("input")) return;
    if (text) { const given = event.clipboardData.getData("text/plain").trim(); if (given) searchText(given); } else searchFile(event.clipboardData.files[0]);
  });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    loaded.delete("training"); // its curves are drawn for a width
    if (!byId("training").hidden) openTab("training");
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => map.redraw());
}

start().then(listen).catch((error) => { byId("about").textContent = error.message; byId("about").className = "trouble"; });
