// What is drawn over the picture: detector boxes, and the hottest and the coldest point.

const FADE_MS = 250;
const GONE_MS = 500;
const NAMES = ["RGB", "Fused", "Thermal"];
const INKS = ["#ffd166", "#7fe0c8", "#f7a8d8", "#b9d36a"];

/** Draw over every pane. `scale` is pixels of the canvas per CSS pixel, `since_ms` how old the frame is by now. */
export function drawMarks(canvas, panes, header, { boxes, spots, scale, since_ms }) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!header) return;
  context.font = `600 ${12 * scale}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const widest = Math.max(...panes.map((pane) => pane.w));
  for (const pane of panes) {
    context.save();
    context.beginPath();
    context.rect(pane.x, pane.y, pane.w, pane.h);
    context.clip();
    if (boxes) (header.boxes ?? []).forEach((said, k) => drawBoxes(context, pane, said, INKS[k % INKS.length], scale, since_ms));
    const told = pane.w === widest;
    if (spots && header.spots) header.spots.forEach((spot, k) => drawSpot(context, pane, header, spot, k === 0, told, scale));
    if (panes.length > 1) tag(context, NAMES[pane.mix], pane.x, pane.y, pane, "#f1eee8", scale);
    context.restore();
  }
}

function drawBoxes(context, pane, said, ink, scale, since_ms) {
  const age_ms = said.age_ms + since_ms;
  context.globalAlpha = Math.max(0, Math.min(1, (GONE_MS + FADE_MS - age_ms) / FADE_MS));
  for (const [x, y, w, h, label, score] of said.boxes) {
    const [left, top, width, height] = [pane.x + x * pane.w, pane.y + y * pane.h, w * pane.w, h * pane.h];
    context.lineWidth = 4 * scale;
    context.strokeStyle = "rgba(0, 0, 0, 0.55)";
    context.strokeRect(left, top, width, height);
    context.lineWidth = 1.75 * scale;
    context.strokeStyle = ink;
    context.strokeRect(left, top, width, height);
    tag(context, `${label} ${Math.round(100 * score)}%`, left, top - 9 * scale, pane, ink, scale);
  }
  context.globalAlpha = 1;
}

function drawSpot(context, pane, header, spot, hot, told, scale) {
  const x = pane.x + ((spot.x + 0.5) / header.size[0]) * pane.w;
  const y = pane.y + ((spot.y + 0.5) / header.size[1]) * pane.h;
  const ink = hot ? "#ff9a5c" : "#9fd0ff";
  for (const [width, style] of [[4, "rgba(0, 0, 0, 0.55)"], [1.75, ink]]) {
    context.lineWidth = width * scale;
    context.strokeStyle = style;
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 4 * dx * scale, y + 4 * dy * scale);
      context.lineTo(x + 12 * dx * scale, y + 12 * dy * scale);
    }
    context.stroke();
  }
  if (told) tag(context, `${(spot.k - 273.15).toFixed(1)} °C`, x + 14 * scale, y, pane, ink, scale);
}

function tag(context, text, x, y, pane, ink, scale) {
  const pad = 5 * scale;
  const half = 9 * scale;
  const width = context.measureText(text).width + 2 * pad;
  const left = Math.max(pane.x, Math.min(x, pane.x + pane.w - width));
  const middle = Math.max(pane.y + half, Math.min(y, pane.y + pane.h - half));
  context.fillStyle = "rgba(8, 10, 11, 0.78)";
  context.fillRect(left, middle - half, width, 2 * half);
  context.fillStyle = ink;
  context.fillText(text, left + pad, middle + scale / 2);
}
