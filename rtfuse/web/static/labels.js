// Text beside boxes and spots: each label takes the first free place, so that none covers another or the page's own words.

const HEIGHT = 18;
const PAD = 5;

export class Labels {
  #context;
  #scale;
  #taken;

  /** Place labels on a canvas; `covered` are rectangles that already have something in them: { x, y, w, h }. */
  constructor(context, scale, covered = []) {
    [this.#context, this.#scale, this.#taken] = [context, scale, [...covered]];
  }

  /** Keep labels off a rectangle. */
  cover(rectangle) {
    this.#taken.push(rectangle);
  }

  /** Write a label at the first free one of `places(width, height)`, each { x, y } of its top left; else leave it out. */
  write(text, ink, pane, places) {
    const context = this.#context;
    const [w, h] = [context.measureText(text).width + 2 * PAD * this.#scale, HEIGHT * this.#scale];
    const free = places(w, h).map(({ x, y }) => within(pane, { x, y, w, h })).find((one) => !this.#taken.some((other) => overlap(one, other)));
    if (!free) return false;
    this.#taken.push(free);
    context.fillStyle = "rgba(8, 10, 11, 0.78)";
    context.fillRect(free.x, free.y, w, h);
    context.fillStyle = ink;
    context.fillText(text, free.x + PAD * this.#scale, free.y + (h + this.#scale) / 2);
    return true;
  }
}

/** Return the places of a label around a box: above, below, then inside and beside it. */
export const aroundBox = ({ x, y, w, h }) => (width, height) => [
  { x, y: y - height },
  { x: x + w - width, y: y - height },
  { x, y: y + h },
  { x: x + w - width, y: y + h },
  { x: x + w, y },
  { x: x - width, y },
  { x: x + w, y: y + h - height },
  { x: x - width, y: y + h - height },
  { x: x + w, y: y - height },
  { x: x - width, y: y - height },
];

/** Return the places of a label around a point: right, left, below, above, and the same a line away. */
export const aroundPoint = (x, y, reach) => (width, height) => [
  { x: x + reach, y: y - height / 2 },
  { x: x - reach - width, y: y - height / 2 },
  { x: x - width / 2, y: y + reach },
  { x: x - width / 2, y: y - reach - height },
  { x: x + reach, y: y + reach },
  { x: x - reach - width, y: y + reach },
  { x: x + reach, y: y - reach - height },
  { x: x - reach - width, y: y - reach - height },
];

function within(pane, { x, y, w, h }) {
  return {
    x: Math.max(pane.x, Math.min(x, pane.x + pane.w - w)),
    y: Math.max(pane.y, Math.min(y, pane.y + pane.h - h)),
    w,
    h,
  };
}

const overlap = (a, b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
