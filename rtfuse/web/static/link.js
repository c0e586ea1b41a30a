// The connection to the rig: frames and state come in, wishes go out; it comes back by itself.

const QUIET_MS = 3000; // the rig speaks four times a second
const LENGTH_BYTES = 4;
const REACHED = 400; // the rig's answer where WebSocket is asked for in plain HTTP
// Below a proxy's path too; an address with a link token has it in place of a session.
const LIVE = new URL("live", document.baseURI);
const token = new URLSearchParams(location.search).get("token");
if (token) LIVE.searchParams.set("token", token);

export class Link {
  #on;
  #socket = null;
  #want = { planes: [], quality: "medium" };
  #busy = false;
  #next = null;
  #heard = 0;
  #tries = 0;
  #why = ""; // why it was lost: later attempts fail without saying so

  /** `on` has `said(message)`, `frame(header, images)` and `link(state, words)`; state is open, lost or full. */
  constructor(on) {
    this.#on = on;
    setInterval(() => this.#socket && performance.now() - this.#heard > QUIET_MS && this.#lost("no answer"), 500);
    // A browser may keep a page that was left, and its place on the rig with it.
    addEventListener("pagehide", () => this.#socket?.close());
    this.#open();
  }

  /** Ask for these planes; returns whether that is something else than before. */
  want(planes, quality) {
    const now = { planes, quality };
    if (JSON.stringify(now) === JSON.stringify(this.#want)) return false;
    this.#want = now;
    this.#say({ want: now });
    return true;
  }

  #say(words) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(words));
  }

  #open() {
    const socket = new WebSocket(LIVE.href.replace(/^http/, "ws"));
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    this.#heard = performance.now();
    socket.onopen = () => {
      this.#tries = 0;
      this.#why = "";
      this.#say({ want: this.#want });
      this.#on.link("open");
    };
    socket.onmessage = ({ data }) => {
      this.#heard = performance.now();
      if (typeof data === "string") this.#on.said(JSON.parse(data));
      else this.#arrived(data);
    };
    socket.onclose = ({ code }) => this.#socket === socket && this.#lost(code === 1001 ? "it was stopped" : "");
  }

  #lost(why) {
    const socket = this.#socket;
    this.#socket = this.#next = null;
    socket?.close();
    this.#on.link("lost", (this.#why = why || this.#why));
    this.#tryAgain();
  }

  async #tryAgain() {
    const wait_s = Math.min(0.5 * 2 ** this.#tries++, 5);
    await new Promise((done) => setTimeout(done, 1000 * wait_s));
    // A WebSocket that is refused does not say why; the same address asked plainly does.
    const answer = await fetch(LIVE).catch(() => null);
    if (answer === null) this.#lost("");
    else if (answer.status === 401) location.assign("login");
    else if (answer.status === REACHED) {
      if (this.#tries > 2) this.#why = "a proxy in between may not pass WebSocket or the host on";
      this.#open();
    } else this.#refused(answer);
  }

  // The rig refuses in a line of plain text. Other answers come from a proxy in between, which may not reach the rig.
  async #refused(answer) {
    const own = answer.headers.get("content-type")?.startsWith("text/plain");
    const words = own ? (await answer.text().catch(() => "")).trim() : "";
    if (own && answer.status === 503) {
      this.#on.link("full", words);
      this.#tryAgain();
    } else this.#lost(words || this.#why || `a proxy in between does not reach it (${answer.status})`);
  }

  #arrived(buffer) {
    if (this.#busy) this.#next = buffer;
    else this.#decode(buffer);
  }

  // The next frame is asked for when this one begins to be decoded: one on its way, one in work, none that waits.
  async #decode(buffer) {
    this.#busy = true;
    const length = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, LENGTH_BYTES, length)));
    this.#say({ ack: header.seq });
    let at = LENGTH_BYTES + length;
    try {
      const decoded = header.planes.map(async ([name, bytes]) => {
        const jpeg = new Blob([new Uint8Array(buffer, at, bytes)], { type: "image/jpeg" });
        at += bytes;
        return [name, await createImageBitmap(jpeg)];
      });
      this.#on.frame(header, Object.fromEntries(await Promise.all(decoded)));
    } finally {
      this.#busy = false;
      const next = this.#next;
      this.#next = null;
      if (next) this.#decode(next);
    }
  }
}
