// What every view is built from: elements, requests, colours, single items.

export const CLASSES = ["#3b78c9", "#e08214", "#2f9e5a", "#d0453b", "#8b62c4", "#9c6b4e", "#dd6fb4", "#7d858f", "#b2a519", "#23a7b5"];
export const MISSING = "#8a929c";
const RAMP = [[0x6f, 0x8f, 0xb8], [0xc9, 0xa2, 0x27], [0xd1, 0x36, 0x0f]];
const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new Error("the server does not answer; is `tellapart explore` still running?");
  }
  if (answer.status === 202) return { working: (await answer.json()).working };
  if (!answer.ok) {
    let words = `the server answered ${answer.status}`;
    try { words = (await answer.json()).error || words; } catch { /* no JSON: the status has to do */ }
    throw new Error(words);
  }
  const kind = answer.headers.get("content-type") || "";
  return { value: kind.includes("json") ? await answer.json() : new Float32Array(await answer.arrayBuffer()) };
}

// Ask until it is made; `told` hears the seconds that it has taken so far.
export async function patiently(path, told) {
  for (;;) {
    const found = await ask(path);
    if ("value" in found) return found.value;
    told(found.working);
    await new Promise((wake) => setTimeout(wake, 600));
  }
}

export function classColour(number) {
  if (number < 0) return MISSING;
  if (number < CLASSES.length) return CLASSES[number];
  return `hsl(${(number * 137.5) % 360} ${50 + (number % 3) * 12}% ${46 + (number % 2) * 12}%)`;
}

export function bytesOf(colour) {
  if (colour.startsWith("#")) return [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const [h, s, l] = colour.match(/[\d.]+/g).map(Number);
  const reach = (s / 100) * Math.min(l / 100, 1 - l / 100);
  const part = (n) => {
    const k = (n + h / 30) % 12;
    return Math.round(255 * (l / 100 - reach * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [part(0), part(8), part(4)];
}

// 0..1 to [r, g, b]: blue, yellow, red.
export function rampColour(share) {
  const at = Math.max(0, Math.min(1, share)) * (RAMP.length - 1);
  const i = Math.min(RAMP.length - 2, Math.floor(at));
  return RAMP[i].map((low, c) => Math.round(low + (at - i) * (RAMP[i + 1][c] - low)));
}

export const number = (value, digits = 3) =>
  value === null || value === undefined ? "-" : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : Number(value).toPrecision(digits);

export const count = (value) => Number(value).toLocaleString("en");

const AT_ONCE = 200; // items of a request, at most
const known = new Map();

// Items by row, each asked for once.
export async function itemsOf(rows) {
  const missing = [...new Set(rows)].filter((row) => !known.has(row));
  for (let i = 0; i < missing.length; i += AT_ONCE) {
    const { value } = await ask(`/api/items?rows=${missing.slice(i, i + AT_ONCE).join(",")}`);
    for (const item of value) known.set(item.row, item);
  }
  return rows.map((row) => known.get(row));
}

export const thumbnail = (about, row) => `/api/thumbnail/${row}?of=${about.fingerprint}`;

export function picture(about, row, words) {
  return element("img", { src: thumbnail(about, row), alt: words, loading: "lazy", class: "small", draggable: "false" });
}

export function curve(curves) {
  const svg = drawn("svg", { class: "curve", viewBox: "0 0 160 64", preserveAspectRatio: "none", role: "img", "aria-label": "its values over time" });
  const all = curves.flat();
  const low = Math.min(...all), span = Math.max(...all) - low || 1;
  curves.forEach((line, i) => {
    const points = line.map((y, x) => `${(x / Math.max(1, line.length - 1)) * 160},${(61 - ((y - low) / span) * 58).toFixed(1)}`);
    svg.append(drawn("polyline", { points: points.join(" "), class: ["", "second", "third"][i] }));
  });
  return svg;
}

// An item as large as the side panel has room for.
export function shown(about, item) {
  const words = element("div", {}, element("p", {}, element("b", {}, item.id)));
  if (item.label !== null) words.append(element("p", { class: "soft" }, item.label));
  if (item.unit) words.append(element("p", { class: "soft" }, `${number(item.begin)} to ${number(item.end)} ${item.unit}`));
  const whole = element("div", {}, element("div", { class: "shown" }, about.kind === "images" ? picture(about, item.row, item.id) : null, words));
  for (const text of item.texts || []) whole.append(element("p", {}, text));
  if (item.curves) whole.append(curve(item.curves));
  if (about.kind === "audio") whole.append(element("audio", { controls: true, preload: "none", src: `/api/sound/${item.row}?of=${about.fingerprint}` }));
  return whole;
}

// A small button for an item among others. `strong` stands in bold (a similarity, a score).
export function tile(about, item, strong, take) {
  const words = [strong === null ? null : element("b", {}, strong)];
  words.push(item.texts ? element("span", {}, item.texts.join(" | ").slice(0, 160)) : element("span", {}, item.label ?? item.id));
  const image = about.kind === "images" ? picture(about, item.row, item.id) : item.curves ? curve(item.curves) : null;
  return element("button", { class: "tile", type: "button", title: item.id, "data-row": item.row, onclick: () => take(item.row) }, image, ...words);
}

export const tiles = (about, made) => element("div", { class: about.kind === "text" ? "lines" : "tiles" }, ...made);
