// What is drawn over the picture: detector boxes, and the hottest and the coldest point.

import { aroundBox, aroundPoint, Labels } from "./labels.js";

const FADE_MS = 250;
const GONE_MS = 500;
const NAMES = ["RGB", "Fused", "Thermal"];
const INKS = ["#ffd166", "#7fe0c8", "#f7a8d8", "#b9d36a"];
const ARM = 12; // of a spot's cross

/**
 * Draw over every pane. `scale` is pixels of the canvas per CSS pixel, `since_ms` how old the frame is by now, `covered`
 * are the rectangles of the canvas that the page writes into itself. Labels of spots come first, then those of the
 * boxes, the surest first; a label that finds no free place is left out.
 */
export function drawMarks(canvas, panes, header, { boxes, spots, scale, since_ms, covered = [] }) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!header) return;
  context.font = `600 ${12 * scale}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const labels = new Labels(context, scale, covered);
  const widest = Math.max(...panes.map((pane) => pane.w));
  const found = boxes ? (header.boxes ?? []).flatMap((said, k) => boxesOf(said, INKS[k % INKS.length], since_ms)) : [];
  for (const pane of panes) {
    context.save();
    context.beginPath();
    context.rect(pane.x, pane.y, pane.w, pane.h);
    context.clip();
    const placed = found.map((one) => ({ ...one, box: onPane(pane, one.box) }));
    for (const one of placed) strokeBox(context, one, scale);
    const points = spots && header.spots ? header.spots.map((spot, k) => pointOf(pane, header, spot, k === 0)) : [];
    for (const point of points) strokePoint(context, labels, point, scale);
    if (panes.length > 1) labels.write(NAMES[pane.mix], "#f1eee8", pane, () => [{ x: pane.x, y: pane.y }]);
    if (pane.w === widest) for (const { x, y, text, ink } of points) labels.write(text, ink, pane, aroundPoint(x, y, (ARM + 2) * scale));
    for (const { box, text, ink, alpha } of placed.sort((a, b) => b.score - a.score)) {
      context.globalAlpha = alpha;
      labels.write(text, ink, pane, aroundBox(box));
    }
    context.restore();
  }
}

function boxesOf(said, ink, since_ms) {
  const alpha = Math.max(0, Math.min(1, (GONE_MS + FADE_MS - said.age_ms - since_ms) / FADE_MS));
  return said.boxes.map(([x, y, w, h, label, score]) => ({ box: { x, y, w, h }, text: `${label} ${Math.round(100 * score)}%`, score, ink, alpha }));
}

const onPane = (pane, { x, y, w, h }) => ({ x: pane.x + x * pane.w, y: pane.y + y * pane.h, w: w * pane.w, h: h * pane.h });

function pointOf(pane, header, spot, hot) {
  return {
    x: pane.x + ((spot.x + 0.5) / header.size[0]) * pane.w,
    y: pane.y + ((spot.y + 0.5) / header.size[1]) * pane.h,
    text: `${(spot.k - 273.15).toFixed(1)} °C`,
    ink: hot ? "#ff9a5c" : "#9fd0ff",
  };
}

function strokeBox(context, { box, ink, alpha }, scale) {
  context.globalAlpha = alpha;
  for (const [width, style] of [[4, "rgba(0, 0, 0, 0.55)"], [1.75, ink]]) {
    context.lineWidth = width * scale;
    context.strokeStyle = style;
    context.strokeRect(box.x, box.y, box.w, box.h);
  }
  context.globalAlpha = 1;
}

function strokePoint(context, labels, { x, y, ink }, scale) {
  labels.cover({ x: x - ARM * scale, y: y - ARM * scale, w: 2 * ARM * scale, h: 2 * ARM * scale });
  for (const [width, style] of [[4, "rgba(0, 0, 0, 0.55)"], [1.75, ink]]) {
    context.lineWidth = width * scale;
    context.strokeStyle = style;
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 4 * dx * scale, y + 4 * dy * scale);
      context.lineTo(x + ARM * dx * scale, y + ARM * dy * scale);
    }
    context.stroke();
  }
}
