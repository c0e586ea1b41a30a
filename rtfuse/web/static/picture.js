// The picture: three planes, mixed, thermal in its palette; by WebGL, or on a plain canvas where there is none.

/** Which planes are looked at when the blend stands at `mix`: 0 is RGB, 1 fused, 2 thermal. */
export function planesAt(mix) {
  if (mix <= 0) return ["rgb"];
  if (mix < 1) return ["rgb", "fused"];
  if (mix === 1) return ["fused"];
  return mix < 2 ? ["fused", "ir"] : ["ir"];
}

// Places and sizes in units of a pane: x, y, size. Of three, the second (fused) may be twice as large as the others.
const LAYOUTS = {
  1: [[[0, 0, 1]]],
  3: [
    [[0, 0, 1], [1, 0, 1], [2, 0, 1]],
    [[0, 0, 1], [0, 1, 1], [0, 2, 1]],
    [[2, 0, 1], [0, 0, 2], [2, 1, 1]],
    [[0, 2, 1], [0, 0, 2], [1, 2, 1]],
  ],
};

/** Return where to draw one pane, or three so that they fill as much as possible; in pixels of the canvas. */
export function panesIn(width, height, aspect, mixes) {
  const gap = Math.max(2, Math.round(width / 300));
  const fitted = LAYOUTS[mixes.length].map((places) => {
    const columns = Math.max(...places.map(([x, , size]) => x + size));
    const rows = Math.max(...places.map(([, y, size]) => y + size));
    const w = Math.min(width / columns, (height / rows) * aspect);
    return { places, columns, rows, w, h: w / aspect, filled: w * w * places.reduce((sum, [, , size]) => sum + size * size, 0) };
  });
  const { places, columns, rows, w, h } = fitted.reduce((best, one) => (one.filled > best.filled ? one : best));
  const [left, top] = [(width - columns * w) / 2, (height - rows * h) / 2];
  const inset = mixes.length > 1 ? gap / 2 : 0;
  return places.map(([x, y, size], k) => ({
    mix: mixes[k],
    x: Math.round(left + x * w + inset),
    y: Math.round(top + y * h + inset / aspect),
    w: Math.round(size * w - 2 * inset),
    h: Math.round(size * h - (2 * inset) / aspect),
  }));
}

/** Return the two planes that are mixed, and the share of the second; of what is not there, the other one alone. */
function mixed(mix, images) {
  const [first, second] = mix < 1 ? ["rgb", "fused"] : ["fused", "ir"];
  const share = mix < 1 ? mix : mix - 1;
  if (!images[second] || (share === 0 && images[first])) return [first, first, 0];
  if (!images[first]) return [second, second, 0];
  return [first, second, share];
}

const VERTEX = `#version 300 es
in vec2 corner;
out vec2 at;
void main() { at = vec2(corner.x, 1. - corner.y); gl_Position = vec4(corner * 2. - 1., 0., 1.); }`;
const FRAGMENT = `#version 300 es
precision mediump float;
uniform sampler2D first, second, palette;
uniform vec2 thermal;
uniform float share;
in vec2 at;
out vec4 colour;
vec3 shown(vec3 c, float is_thermal) {
  return is_thermal > .5 ? texture(palette, vec2((c.r * 255. + .5) / 256., .5)).rgb : c;
}
void main() {
  vec3 a = shown(texture(first, at).rgb, thermal.x), b = shown(texture(second, at).rgb, thermal.y);
  colour = vec4(mix(a, b, share), 1.);
}`;

export class GlPicture {
  #gl;
  #at = {};
  #textures = {};

  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, preserveDrawingBuffer: true });
    if (!gl) throw new Error("no WebGL");
    this.#gl = gl;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error("no WebGL program");
    gl.useProgram(program);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([0, 0, 1, 0, 0, 1, 1, 1]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(gl.getAttribLocation(program, "corner"), 2, gl.FLOAT, false, 0, 0);
    for (const name of ["first", "second", "palette", "thermal", "share"]) {
      this.#at[name] = gl.getUniformLocation(program, name);
    }
    gl.uniform1i(this.#at.first, 0);
    gl.uniform1i(this.#at.second, 1);
    gl.uniform1i(this.#at.palette, 2);
    for (const name of ["fused", "ir", "rgb", "palette"]) this.#textures[name] = this.#texture(name !== "palette");
  }

  #texture(smooth) {
    const gl = this.#gl;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    for (const [key, value] of [
      [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE],
      [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE],
      [gl.TEXTURE_MIN_FILTER, smooth ? gl.LINEAR : gl.NEAREST],
      [gl.TEXTURE_MAG_FILTER, smooth ? gl.LINEAR : gl.NEAREST],
    ]) gl.texParameteri(gl.TEXTURE_2D, key, value);
    return texture;
  }

  /** Take a frame's planes; they may be closed afterwards. */
  take(images) {
    const gl = this.#gl;
    gl.activeTexture(gl.TEXTURE0);
    for (const [name, image] of Object.entries(images)) {
      gl.bindTexture(gl.TEXTURE_2D, this.#textures[name]);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, image);
    }
  }

  draw(panes, images, palette) {
    const gl = this.#gl;
    gl.activeTexture(gl.TEXTURE2);
    gl.bindTexture(gl.TEXTURE_2D, this.#textures.palette);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, 256, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, palette);
    gl.viewport(0, 0, gl.canvas.width, gl.canvas.height);
    gl.clearColor(0, 0, 0, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    for (const pane of panes) {
      const [first, second, share] = mixed(pane.mix, images);
      if (!images[first]) continue;
      gl.activeTexture(gl.TEXTURE0);
      gl.bindTexture(gl.TEXTURE_2D, this.#textures[first]);
      gl.activeTexture(gl.TEXTURE1);
      gl.bindTexture(gl.TEXTURE_2D, this.#textures[second]);
      gl.uniform2f(this.#at.thermal, first === "ir", second === "ir");
      gl.uniform1f(this.#at.share, share);
      gl.viewport(pane.x, gl.canvas.height - pane.y - pane.h, pane.w, pane.h);
      gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    }
  }
}

export class PlainPicture {
  #context;
  #scratch = document.createElement("canvas");

  constructor(canvas) {
    this.#context = canvas.getContext("2d", { alpha: false });
  }

  take() {}

  draw(panes, images, palette) {
    const context = this.#context;
    context.globalAlpha = 1;
    context.fillStyle = "#000";
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
    for (const { mix, x, y, w, h } of panes) {
      const [first, second, share] = mixed(mix, images);
      for (const [name, alpha] of share ? [[first, 1], [second, share]] : [[first, 1]]) {
        if (!images[name]) continue;
        context.globalAlpha = alpha;
        context.drawImage(name === "ir" ? this.#coloured(images.ir, palette) : images[name], x, y, w, h);
      }
    }
    context.globalAlpha = 1;
  }

  #coloured(image, palette) {
    const canvas = this.#scratch;
    canvas.width = image.width;
    canvas.height = image.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    const data = pixels.data;
    for (let k = 0; k < data.length; k += 4) {
      const from = 3 * data[k];
      data[k] = palette[from];
      data[k + 1] = palette[from + 1];
      data[k + 2] = palette[from + 2];
    }
    context.putImageData(pixels, 0, 0);
    return canvas;
  }
}

/** Return the best picture that this browser can draw onto the canvas. */
export function pictureOn(canvas) {
  if (!new URLSearchParams(location.search).has("plain")) {
    try {
      return new GlPicture(canvas);
    } catch {
      // a canvas that has failed to give WebGL still gives a plain one
    }
  }
  return new PlainPicture(canvas);
}
