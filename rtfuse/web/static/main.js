// The page: what is seen, what is said of it, and what the viewer has chosen.

import { Gain } from "./gain.js";
import { Link } from "./link.js";
import { drawMarks } from "./marks.js";
import { panesIn, PlainPicture, pictureOn, planesAt } from "./picture.js";
import { Plots } from "./plots.js";

const by = (id) => document.getElementById(id);
const NAMES = ["RGB", "fused", "thermal"];
const STALE_MS = 1500;
const ON_ITS_WAY_MS = 10000; // as slow as a link may be

const chosen = {
  mix: 1, split: false, boxes: true, spots: true, light: false, palette: "white-hot", quality: "medium",
  ...kept(),
};
// A browser may refuse a framed page its storage.
function kept(some) {
  try {
    if (some) localStorage.setItem("rtfuse", JSON.stringify(some));
    else return JSON.parse(localStorage.getItem("rtfuse") ?? "{}");
  } catch {
    return {};
  }
}

const picture = pictureOn(by("picture"));
const plots = new Plots();
const gain = new Gain(say);
let palettes = {};
let state = null;
let header = null;
let images = {};
let arrived = 0;
let seen = [];
let connection = "Connecting";
let said = "";
let saidUntil = 0;
let asked = 0; // when other planes or another quality were asked for
let saving = false; // a snapshot that waits for them

const link = new Link({
  said(message) {
    if (message.hello) {
      palettes = Object.fromEntries(Object.entries(message.hello.palettes).map(([name, hex]) => [name, bytes(hex)]));
      by("palette").replaceChildren(...Object.keys(palettes).map((name) => new Option(name.replace("-", " "), name)));
      if (!(chosen.palette in palettes)) chosen.palette = Object.keys(palettes)[0];
      by("palette").value = chosen.palette;
      gain.viewOnly = message.hello.view_only;
      by("boxes").hidden = by("behind-row").hidden = !message.hello.boxes;
      plots.restart(message.hello.history);
      arrived = performance.now();
    }
    if (message.state) showState((state = message.state));
    if (message.sample) plots.add(message.sample);
  },
  frame(now, decoded) {
    for (const image of Object.values(images)) image.close();
    [header, images, arrived] = [now, decoded, performance.now()];
    seen = [...seen.filter((t) => arrived - t < 2000), arrived];
    picture.take(images);
    if (saving && !onItsWay()) snapshot();
    document.documentElement.style.setProperty("--aspect", header.size[0] / header.size[1]);
    draw();
    showFrame();
  },
  link(how, why = "") {
    document.body.dataset.link = how;
    connection = { open: "Connected", full: why, lost: `No connection to the rig${why ? `: ${why}` : ""}. Trying again.` }[how];
    by("link").textContent = how === "open" ? "Connected" : how === "full" ? "Too many watch" : "No connection";
    notice();
  },
});

const bytes = (hex) => Uint8Array.from(hex.match(/../g), (two) => parseInt(two, 16));
const mixes = () => (chosen.split ? [0, 1, 2] : [chosen.mix]);
const number = (n, digits = 1) => (n == null ? "–" : n.toFixed(digits));

// A view that was just chosen may need planes that the newest frame was made without: they come with the next ones,
// unless their stream is missing.
const GONE = { rgb: ["ir"], ir: ["rgb"] };
const missing = () => mixes().flatMap(planesAt).filter((name) => !images[name] && !GONE[header?.mode]?.includes(name));
const onItsWay = () => missing().length > 0 && performance.now() - asked < ON_ITS_WAY_MS;

function draw() {
  const scale = Math.min(devicePixelRatio || 1, 2);
  const [w, h] = [Math.round(by("view").clientWidth * scale), Math.round(by("view").clientHeight * scale)];
  for (const canvas of [by("picture"), by("marks")]) {
    if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  }
  if (!header || !palettes[chosen.palette] || onItsWay()) return;
  const panes = panesIn(w, h, header.size[0] / header.size[1], mixes());
  picture.draw(panes, images, palettes[chosen.palette]);
  drawMarks(by("marks"), panes, header, { ...chosen, scale, since_ms: performance.now() - arrived, covered: covered(scale) });
}

// Where the page's own words and buttons lie over the picture, in pixels of the canvas.
function covered(scale) {
  const view = by("view").getBoundingClientRect();
  return [by("osd"), by("fill"), by("notice")]
    .map((element) => element.getBoundingClientRect())
    .filter((one) => one.width)
    .map((one) => ({ x: (one.x - view.x) * scale, y: (one.y - view.y) * scale, w: one.width * scale, h: one.height * scale }));
}

// Only a new frame says how old it is: one that is drawn again does not.
function showFrame() {
  by("osd-age").textContent = `${number(header.age_ms, 0)} ms`;
  by("osd-rate").textContent = `${(seen.length / 2).toFixed(1)} Hz`;
  const found = (header.boxes ?? []).flatMap((one) => one.boxes);
  by("osd-boxes-row").hidden = !found.length || !chosen.boxes;
  by("osd-boxes").textContent = found.length;
  const behind = Math.max(0, ...(header.boxes ?? []).map((one) => one.behind_ms));
  by("behind").textContent = found.length && behind < 10000 ? `${behind} ms` : "–";
}

function showState(now) {
  by("name").textContent = document.title = now.about.rig;
  for (const name of ["ir", "rgb"]) {
    const lamp = by(`lamp-${name}`);
    const stream = now.streams[name];
    if (!stream) continue;
    lamp.dataset.state = stream.state;
    if (lamp.lastElementChild.textContent !== stream.words) lamp.lastElementChild.textContent = stream.words;
    lamp.title = stream.why ?? "";
  }
  for (const what of ["age", "skew"]) [0, 1, 2].forEach((k) => (by(`${what}-${k}`).textContent = number(now[`${what}_ms`][k])));
  by("frames").textContent = now.frames.toLocaleString("en").replaceAll(",", " ");
  by("fuser").textContent = now.about.fuser.split(/ \(|:/)[0];
  by("fuser").title = now.about.fuser;
  by("size").textContent = now.size ? `${now.size[0]} × ${now.size[1]}` : "–";
  by("trip").textContent = header?.trip_ms == null ? "–" : `${header.trip_ms.toFixed(0)} ms`;
  by("viewers").textContent = now.viewers;
  const little = now.lowered.length ? [`Too little processor, so lowered: ${now.lowered.join("; ")}.`] : [];
  if (now.overload) little.push(`${now.overload[0].toUpperCase()}${now.overload.slice(1)}.`);
  by("lowered").textContent = little.join(" ");
  by("lowered").hidden = !little.length;
  by("spots").hidden = !now.spots;
  // A recording's frames have no age: their times are the recording's.
  for (const id of ["osd-age-row", "age-row", "plot-age-figure"]) by(id).hidden = now.recorded;
  showDrops(now);
  gain.show(now.controls, now.counts);
  notice();
}

function showDrops(now) {
  const rows = Object.entries(now.drops).sort(([, a], [, b]) => b - a);
  const lines = rows.length ? rows.map(([key, n]) => [now.causes[key], n, key]) : [["Nothing was dropped.", "", ""]];
  by("drops").replaceChildren(...lines.map(([words, n, key]) => {
    const row = document.createElement("li");
    row.dataset.cause = key;
    row.append(Object.assign(document.createElement("span"), { textContent: words }), Object.assign(document.createElement("b"), { textContent: n }));
    return row;
  }));
}

// What is shown in place of what was chosen, while a stream is missing.
function standIn() {
  if (header?.mode === "held") return "This is an older picture.";
  if (!["rgb", "ir"].includes(header?.mode)) return null;
  const [there, missing] = header.mode === "rgb" ? [0, 2] : [2, 0];
  if (!chosen.split && chosen.mix === missing) return `There is no ${NAMES[missing]} picture.`;
  return !chosen.split && chosen.mix === there ? null : `This is ${NAMES[there]} alone.`;
}

// What is wrong, in words, over the picture.
function notice() {
  const lines = [];
  const now = performance.now();
  if (document.body.dataset.link !== "open") lines.push(connection);
  else if (state) {
    for (const stream of Object.values(state.streams)) if (!["live", "ended"].includes(stream.state)) lines.push(stream.words, ...(stream.why ? [stream.why] : []));
    const instead = standIn();
    if (instead) lines.push(instead);
    if (state.quiet_s == null) lines.push("No picture yet");
    else if (now - arrived > STALE_MS && !document.hidden) lines.push(`No new picture for ${(state.quiet_s > 1 ? state.quiet_s : (now - arrived) / 1000).toFixed(1)} s`);
  }
  if (said && now < saidUntil) lines.push(said);
  const text = lines.join("\n");
  if (by("notice").textContent !== text) by("notice").textContent = text;
  by("notice").hidden = !text;
  const old = document.body.dataset.link !== "open" || now - arrived > STALE_MS;
  by("view").classList.toggle("old", old);
  if (!old) return;
  by("osd-age").textContent = "–";
  by("osd-rate").textContent = "0.0 Hz";
  by("osd-boxes-row").hidden = true;
}

function say(text) {
  [said, saidUntil] = [text, performance.now() + 4000];
  notice();
}

function choose(some) {
  Object.assign(chosen, some);
  kept(chosen);
  show();
}

function show() {
  const planes = [...new Set(mixes().flatMap(planesAt))];
  if (link.want(document.hidden ? [] : planes, chosen.quality)) asked = performance.now();
  by("mix").value = chosen.mix;
  by("mix").setAttribute("aria-valuetext", inWords(chosen.mix));
  for (const button of document.querySelectorAll("[data-mix]")) pressed(button, !chosen.split && Number(button.dataset.mix) === chosen.mix);
  for (const name of ["split", "boxes", "spots", "light"]) pressed(by(name), chosen[name]);
  by("stage").classList.toggle("split", chosen.split);
  document.documentElement.dataset.light = chosen.light ? "sun" : "dark";
  by("palette").value = chosen.palette;
  by("quality").value = chosen.quality;
  draw();
  plots.draw();
}

const pressed = (button, is) => button.setAttribute("aria-pressed", String(is));

function inWords(mix) {
  const [from, share] = [Math.floor(mix), mix % 1];
  return share ? `${Math.round(100 * share)} % from ${NAMES[from]} to ${NAMES[from + 1]}` : NAMES[from];
}

function blend(mix) {
  const near = Math.round(mix);
  choose({ mix: Math.abs(mix - near) < 0.04 ? near : Math.max(0, Math.min(2, mix)), split: false });
}

function snapshot() {
  if (!header) return say("There is no picture yet.");
  if ((saving = onItsWay())) return;
  const columns = mixes();
  if (!columns.some((mix) => planesAt(mix).some((name) => images[name]))) return say("There is no picture to save.");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [header.size[0] * columns.length, header.size[1]];
  const panes = columns.map((mix, k) => ({ mix, x: k * header.size[0], y: 0, w: header.size[0], h: header.size[1] }));
  new PlainPicture(canvas).draw(panes, images, palettes[chosen.palette]);
  const over = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
  drawMarks(over, panes, header, { ...chosen, scale: Math.max(1, header.size[0] / 900), since_ms: performance.now() - arrived });
  canvas.getContext("2d").drawImage(over, 0, 0);
  const name = `${state?.about.rig ?? "rtfuse"}-${new Date().toISOString().replaceAll(":", "").slice(0, 17)}Z-${header.seq}.png`;
  canvas.toBlob((blob) => {
    const url = URL.createObjectURL(blob);
    Object.assign(document.createElement("a"), { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    say(`Saved ${name}`);
  });
}

function fill(full = !document.body.classList.contains("filled")) {
  document.body.classList.toggle("filled", full);
  pressed(by("fill"), full);
  if (full) document.documentElement.requestFullscreen?.().catch(() => {});
  else if (document.fullscreenElement) document.exitFullscreen();
  draw();
}

function nextPalette() {
  const names = Object.keys(palettes);
  choose({ palette: names[(names.indexOf(chosen.palette) + 1) % names.length] });
}

const KEYS = {
  1: () => blend(0), 2: () => blend(1), 3: () => blend(2),
  ArrowLeft: () => blend(chosen.mix - 0.1), ArrowRight: () => blend(chosen.mix + 0.1),
  v: () => choose({ split: !chosen.split }), b: () => choose({ boxes: !chosen.boxes }),
  h: () => choose({ spots: !chosen.spots }), l: () => choose({ light: !chosen.light }),
  p: nextPalette, s: snapshot, f: () => fill(),
};

addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input:not([type=checkbox]), select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
for (const button of document.querySelectorAll("[data-mix]")) button.addEventListener("click", () => blend(Number(button.dataset.mix)));
for (const name of ["split", "boxes", "spots", "light"]) by(name).addEventListener("click", () => choose({ [name]: !chosen[name] }));
for (const name of ["palette", "quality"]) by(name).addEventListener("change", () => choose({ [name]: by(name).value }));
by("mix").addEventListener("input", () => blend(Number(by("mix").value)));
by("snap").addEventListener("click", snapshot);
by("fill").addEventListener("click", () => fill());
document.addEventListener("fullscreenchange", () => !document.fullscreenElement && fill(false));
document.addEventListener("visibilitychange", show);
new ResizeObserver(draw).observe(by("view"));
new ResizeObserver(() => plots.draw()).observe(by("plot-rate"));
setInterval(() => (notice(), header?.boxes?.length && draw()), 250);
show();
// A fragment may be the token of the printed address.
if (location.href.includes("#")) history.replaceState(null, "", location.pathname + location.search);
