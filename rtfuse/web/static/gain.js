// The rig's own settings: everybody who watches sees the same, and each change goes to the rig at once.

const WAIT_MS = 120;
const by = (id) => document.getElementById(id);
const reading = (id) => document.querySelector(`output[for="${id}"]`);
const percent = (n) => `${(100 * n).toFixed(2)} %`;

// A slider: its value in the rig's terms from the slider's, the other way round, and as text.
const SLIDERS = {
  plateau: { key: "plateau", text: (n) => `${n.toFixed(1)} × mean` },
  max_gain: { key: "max_gain", out: (n) => round(Math.exp(n)), in: (n) => Math.log(n), text: (n) => `${n.toFixed(2)} per count` },
  "tail-low": { key: "tails", part: 0, text: percent },
  "tail-high": { key: "tails", part: 1, text: percent },
  plane_m: { key: "plane_m", out: (n) => Number(Math.exp(n).toPrecision(3)), in: (n) => Math.log(n), text: (n) => `${n.toPrecision(3)} m` },
  tau_ms: { key: "tau_ms", text: (n) => (n ? `${(n / 1000).toFixed(1)} s` : "at once") },
};
const round = (n) => Math.min(10, Math.max(0.01, Number(n.toPrecision(3))));

export class Gain {
  viewOnly = false;
  #now = null;
  #held = new Set();
  #timer = 0;
  #waiting = {};
  #refused;

  constructor(refused) {
    this.#refused = refused;
    for (const [id, how] of Object.entries(SLIDERS)) {
      const input = by(id);
      input.addEventListener("input", () => this.#slid(how, input));
      for (const begins of ["pointerdown", "keydown"]) input.addEventListener(begins, () => this.#held.add(id));
      for (const ends of ["pointerup", "pointercancel", "keyup", "blur"]) input.addEventListener(ends, () => this.#held.delete(id));
    }
    for (const button of document.querySelectorAll("[data-method]")) {
      button.addEventListener("click", () => this.#change({ method: button.dataset.method }));
    }
    for (const id of ["freeze", "mark"]) by(id).addEventListener("change", () => this.#change({ [id]: by(id).checked }));
  }

  #slid(how, input) {
    const n = (how.out ?? Number)(Number(input.value));
    const whole = how.part == null ? n : this.#tails(how.part, n);
    reading(input.id).value = how.text(n);
    this.#change({ [how.key]: whole });
  }

  #tails(part, n) {
    const tails = [...(this.#waiting.tails ?? this.#now?.tails ?? [0.001, 0.001])];
    tails[part] = n;
    return tails;
  }

  #change(some) {
    Object.assign(this.#waiting, some);
    this.#timer ||= setTimeout(() => this.#send(), WAIT_MS);
  }

  async #send() {
    const body = JSON.stringify(this.#waiting);
    this.#waiting = {};
    this.#timer = 0;
    const answer = await fetch("controls", { method: "POST", headers: { "Content-Type": "application/json" }, body }).catch(() => null);
    if (answer?.ok) this.show(await answer.json());
    else this.#refused(answer ? (await answer.text()).trim() : "The rig does not answer.");
  }

  /** Show the rig's settings; `null`: they cannot be changed. `counts`: whether the camera gives more than 8 bits. */
  show(settings, counts = this.counts) {
    const now = this.viewOnly ? null : settings;
    this.counts = counts;
    this.#now = now;
    const hint = this.viewOnly ? "This address only shows the picture." : !now ? "Control is switched off on this rig." : counts ? "" : "This thermal camera sends 8 bits, ready to be shown: there is no gain to control.";
    by("gain-hint").textContent = hint;
    by("gain-hint").hidden = !hint;
    by("gain-form").disabled = by("gain-form").hidden = !now || !counts;
    by("mark-form").disabled = by("mark-form").hidden = !now;
    by("plane-form").disabled = by("plane-form").hidden = now?.plane_m == null;
    if (!now) return;
    for (const button of document.querySelectorAll("[data-method]")) {
      button.setAttribute("aria-pressed", String(button.dataset.method === now.method));
    }
    by("plateau").disabled = now.method !== "plateau" || now.freeze;
    for (const id of ["max_gain", "tail-low", "tail-high", "tau_ms"]) by(id).disabled = now.freeze;
    for (const [id, how] of Object.entries(SLIDERS)) {
      if (this.#held.has(id) || how.key in this.#waiting || now[how.key] == null) continue;
      const n = how.part == null ? now[how.key] : now[how.key][how.part];
      by(id).value = (how.in ?? Number)(n);
      reading(id).value = how.text(n);
    }
    for (const id of ["freeze", "mark"]) if (!(id in this.#waiting)) by(id).checked = now[id];
  }
}
