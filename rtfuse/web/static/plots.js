// Strip charts of the last five minutes, one sample a second.

const SPAN_S = 300;

export class Plots {
  #samples = [];
  #by = (id) => document.getElementById(id);

  restart(samples) {
    this.#samples = samples;
    this.draw();
  }

  add(sample) {
    this.#samples.push(sample);
    this.#samples.splice(0, Math.max(0, this.#samples.length - SPAN_S));
    this.draw();
  }

  draw() {
    const last = this.#samples.at(-1);
    const said = (id, text) => (this.#by(`${id}-now`).textContent = text);
    const ms = (n) => (n == null ? "–" : `${n.toFixed(1)} ms`);
    const { ink, ir, rgb, faint, bad } = inks();
    said("plot-age", last ? `${ms(last.age)}, worst ${ms(last.worst)}` : "–");
    this.#strip("plot-age", { low: 0, of: (s) => [s.age, s.worst], unit: "ms" }, (pen) => {
      pen.band((s) => s.age, (s) => s.worst, faint);
      pen.line((s) => s.age, ink);
    });
    said("plot-skew", last ? ms(last.skew) : "–");
    this.#strip("plot-skew", { mirrored: true, of: (s) => [s.skew], unit: "ms" }, (pen) => pen.line((s) => s.skew, ink));
    said("plot-rate", last ? `${last.hz.toFixed(1)} Hz` : "–");
    this.#strip("plot-rate", { low: 0, of: (s) => [s.hz, s.rates.ir, s.rates.rgb], unit: "Hz" }, (pen) => {
      pen.line((s) => s.rates.rgb, rgb);
      pen.line((s) => s.rates.ir, ir);
      pen.line((s) => s.hz, ink);
    });
    const total = (s, where) => sum(s.drops, (key) => key.startsWith(`${where}.`));
    said("plot-drops", last ? `${sum(last.drops, () => true)} in the last second` : "–");
    this.#strip("plot-drops", { low: 0, least: 4, of: (s) => [sum(s.drops, () => true)], unit: "" }, (pen) => {
      pen.bars([(s) => total(s, "ir"), (s) => total(s, "rgb"), (s) => sum(s.drops, (k) => !/^(ir|rgb)\./.test(k))], [ir, rgb, bad]);
    });
  }

  #strip(id, { low, mirrored, least = 1, of, unit }, paint) {
    const canvas = this.#by(id);
    const scale = devicePixelRatio || 1;
    const [w, h] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
    if (!w || !h) return;
    if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
    const context = canvas.getContext("2d");
    const { line, dim } = inks();
    context.clearRect(0, 0, w, h);
    const highest = Math.max(least, ...this.#samples.flatMap((s) => of(s).map((n) => Math.abs(n ?? 0))));
    const top = nice(highest * 1.05);
    const bottom = mirrored ? -top : low;
    const foot = 2 * scale;
    const y = (n) => h - foot - ((n - bottom) / (top - bottom)) * (h - 2 * foot);
    const x = (k) => w - 1 - ((this.#samples.length - 1 - k) * w) / SPAN_S;
    context.strokeStyle = line;
    context.lineWidth = 1;
    for (let minute = 1; minute < 5; minute++) rule(context, Math.round(w - (minute * 60 * w) / SPAN_S) + 0.5, 0, 0, h);
    rule(context, 0, Math.round(y(0)) + 0.5, w, 0);
    paint(penFor(context, this.#samples, x, y, scale, w / SPAN_S));
    context.fillStyle = dim;
    context.font = `${10 * scale}px system-ui, sans-serif`;
    context.textBaseline = "top";
    context.fillText(`${mirrored ? "±" : ""}${top} ${unit}`.trim(), 3 * scale, 2 * scale);
  }
}

function penFor(context, samples, x, y, scale, step) {
  const runs = (of) => {
    const found = [[]];
    samples.forEach((s, k) => (of(s) == null ? found.push([]) : found.at(-1).push([x(k), y(of(s)), k])));
    return found.filter((run) => run.length);
  };
  return {
    line(of, ink) {
      context.strokeStyle = context.fillStyle = ink;
      context.lineWidth = 1.5 * scale;
      context.lineJoin = "round";
      for (const run of runs(of)) {
        context.beginPath();
        run.forEach(([px, py], k) => (k ? context.lineTo(px, py) : context.moveTo(px, py)));
        if (run.length > 1) context.stroke();
        else context.fillRect(run[0][0] - scale, run[0][1] - scale, 2 * scale, 2 * scale);
      }
    },
    band(from, to, ink) {
      context.fillStyle = ink;
      for (const run of runs((s) => (from(s) == null ? null : to(s)))) {
        context.beginPath();
        run.forEach(([px, py], k) => (k ? context.lineTo(px, py) : context.moveTo(px, py)));
        for (const [px, , k] of run.reverse()) context.lineTo(px, y(from(samples[k])));
        context.fill();
      }
    },
    bars(parts, inks) {
      samples.forEach((s, k) => {
        let base = 0;
        parts.forEach((of, part) => {
          const n = of(s);
          if (!n) return;
          context.fillStyle = inks[part];
          context.fillRect(x(k) - step, y(base + n), Math.max(step, scale), y(base) - y(base + n));
          base += n;
        });
      });
    },
  };
}

const sum = (drops, counts) => Object.entries(drops).reduce((n, [key, k]) => n + (counts(key) ? k : 0), 0);

function rule(context, x, y, dx, dy) {
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x + dx, y + dy);
  context.stroke();
}

function nice(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return power * [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((m) => m * power >= n * 0.999);
}

function inks() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["ink", "dim", "line", "faint", "ir", "rgb", "bad"].map((n) => [n, style.getPropertyValue(`--${n}`)]));
}
