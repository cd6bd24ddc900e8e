// The map: points on WebGL (on a plain canvas where no graphics card draws it), marks above them, and how one moves.

const VERTEX = `#version 300 es
in vec2 at; in vec4 colour; uniform vec2 scale, shift; uniform float size; out vec4 tint; out float width;
void main() { gl_Position = vec4(at * scale + shift, 0.0, 1.0); gl_PointSize = size; width = size; tint = colour; }`;
const FRAGMENT = `#version 300 es
precision mediump float; in vec4 tint; in float width; out vec4 seen;
void main() { float a = tint.a * clamp((0.5 - distance(gl_PointCoord, vec2(0.5))) * width + 0.5, 0.0, 1.0);
  if (a == 0.0) discard; seen = vec4(tint.rgb * a, a); }`;
const EASE = 0.28, CLOSEST = 400, REACH = 9; // share of the way to go in a frame; largest zoom; pixels around a point

export class PointMap {
  // field: the element; told: { hover(row | -1, x, y), pick(row), lasso(rows) }
  constructor(field, points, marks, told, way = "") {
    Object.assign(this, { field, points, marks, told });
    this.at = new Float32Array(0); this.colours = new Uint8Array(0); this.order = new Uint32Array(0);
    this.view = { x: 0, y: 0, zoom: 1 }; this.goal = { ...this.view };
    this.marked = { chosen: -1, near: [], selected: [] };
    this.lassoing = false; this.outline = null; this.frame = 0; this.frames = 0;
    const card = way === "webgl" || (way !== "canvas" && hasGraphicsCard());
    this.painter = (card && glPainter(points)) || flatPainter(points);
    new ResizeObserver(() => this.resize()).observe(field);
    this.listen();
    this.resize();
  }

  show(at) {
    const fresh = at.length !== this.at.length;
    this.at = at;
    if (fresh) this.setOrder(shuffled(at.length / 2));
    this.painter.place(at);
    this.redraw();
  }

  // colours: (S, 4) bytes; order: rows, the last on top
  paint(colours, order = null) {
    this.colours = colours;
    this.painter.colour(colours);
    this.setOrder(order || shuffled(this.at.length / 2));
    this.redraw();
  }

  setOrder(order) { this.order = order; this.painter.order(order); }

  mark(changes) { Object.assign(this.marked, changes); this.redraw(); }

  resize() {
    const box = this.field.getBoundingClientRect();
    if (this.width && !box.width) return; // another tab is in front
    this.dots = Math.min(2, window.devicePixelRatio || 1);
    this.width = Math.max(1, box.width); this.height = Math.max(1, box.height);
    for (const canvas of [this.points, this.marks]) {
      canvas.width = Math.round(this.width * this.dots); canvas.height = Math.round(this.height * this.dots);
    }
    this.draw();
  }

  get half() { return (Math.min(this.width, this.height) / 2) * 0.93; }

  screenOf(row, view = this.view) {
    const unit = this.half * view.zoom;
    return [this.width / 2 + (this.at[2 * row] - view.x) * unit, this.height / 2 - (this.at[2 * row + 1] - view.y) * unit];
  }

  rowAt(x, y, reach = REACH) {
    const unit = this.half * this.view.zoom;
    const mx = this.view.x + (x - this.width / 2) / unit, my = this.view.y - (y - this.height / 2) / unit;
    let best = -1, nearest = (reach / unit) ** 2;
    for (let i = 0; i < this.at.length; i += 2) {
      const far = (this.at[i] - mx) ** 2 + (this.at[i + 1] - my) ** 2;
      if (far < nearest && this.colours[2 * i + 3] > 40) { nearest = far; best = i / 2; }
    }
    return best;
  }

  // moving -----------------------------------------------------------------------------------------------

  zoomBy(factor, x = this.width / 2, y = this.height / 2, at_once = false) {
    const zoom = Math.max(0.5, Math.min(CLOSEST, this.goal.zoom * factor));
    const before = this.half * this.goal.zoom, after = this.half * zoom;
    this.goal.x += (x - this.width / 2) * (1 / before - 1 / after);
    this.goal.y -= (y - this.height / 2) * (1 / before - 1 / after);
    this.goal.zoom = zoom;
    this.go(at_once);
  }

  moveBy(x, y, at_once = false) {
    const unit = this.half * this.goal.zoom;
    this.goal.x -= x / unit; this.goal.y += y / unit;
    this.go(at_once);
  }

  fit() { this.goal = { x: 0, y: 0, zoom: 1 }; this.go(); }

  // Bring a row into view where it is not.
  reveal(row) {
    const [x, y] = this.screenOf(row, this.goal);
    if (x < 20 || y < 20 || x > this.width - 20 || y > this.height - 20) {
      this.goal.x = this.at[2 * row]; this.goal.y = this.at[2 * row + 1];
      this.go();
    }
  }

  go(at_once = false) {
    if (at_once || matchMedia("(prefers-reduced-motion: reduce)").matches) this.view = { ...this.goal };
    this.redraw();
  }

  redraw() { if (!this.frame) this.frame = requestAnimationFrame(() => this.step()); }

  step() {
    this.frame = 0;
    const { view, goal } = this;
    const left = Math.abs(Math.log(goal.zoom / view.zoom)) + (Math.abs(goal.x - view.x) + Math.abs(goal.y - view.y)) * view.zoom;
    if (left < 0.002) this.view = { ...goal };
    else {
      view.zoom *= (goal.zoom / view.zoom) ** EASE;
      view.x += (goal.x - view.x) * EASE; view.y += (goal.y - view.y) * EASE;
    }
    this.draw();
    if (left >= 0.002) this.redraw();
  }

  get size() {
    const count = this.at.length / 2;
    return Math.max(2, Math.min(9, 260 / Math.sqrt(count + 400))) * Math.min(2.2, this.view.zoom ** 0.35);
  }

  draw() {
    this.frames += 1;
    this.painter.draw(this);
    const { chosen, near, selected } = this.marked, focused = this.field.matches(":focus-visible");
    this.marks.hidden = !(chosen >= 0 || near.length || selected.length || this.outline || focused);
    if (!this.marks.hidden) this.drawMarks(focused); // a layer less to put together where nothing is marked
  }

  drawMarks(focused) {
    const pen = this.marks.getContext("2d"), style = getComputedStyle(this.field);
    pen.setTransform(this.dots, 0, 0, this.dots, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    const ring = (row, radius, colour, width) => {
      const [x, y] = this.screenOf(row);
      pen.beginPath(); pen.arc(x, y, radius, 0, 7); pen.lineWidth = width; pen.strokeStyle = colour; pen.stroke();
    };
    const ink = style.getPropertyValue("--ink"), mark = style.getPropertyValue("--mark"), r = this.size / 2;
    if (this.marked.selected.length <= 3000) for (const row of this.marked.selected) ring(row, r + 1, ink, 1);
    for (const row of this.marked.near) ring(row, r + 3, mark, 2);
    if (this.marked.chosen >= 0) { ring(this.marked.chosen, r + 5, ink, 2.5); ring(this.marked.chosen, r + 2.5, mark, 2); }
    if (this.outline) {
      pen.beginPath(); this.outline.forEach(([x, y]) => pen.lineTo(x, y)); pen.closePath();
      pen.fillStyle = mark; pen.globalAlpha = 0.12; pen.fill(); pen.globalAlpha = 1;
      pen.strokeStyle = mark; pen.lineWidth = 1.5; pen.stroke();
    }
    if (focused) {
      const x = this.width / 2, y = this.height / 2;
      pen.beginPath(); pen.moveTo(x - 8, y); pen.lineTo(x + 8, y); pen.moveTo(x, y - 8); pen.lineTo(x, y + 8);
      pen.strokeStyle = ink; pen.lineWidth = 1; pen.stroke();
    }
  }

  inside(outline) {
    const found = [], xs = outline.map((p) => p[0]), ys = outline.map((p) => p[1]);
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    for (let row = 0; row < this.at.length / 2; row++) {
      const [x, y] = this.screenOf(row);
      if (x < x0 || x > x1 || y < y0 || y > y1 || this.colours[4 * row + 3] <= 40) continue;
      let within = false;
      for (let i = 0, j = outline.length - 1; i < outline.length; j = i++) {
        const [ax, ay] = outline[i], [bx, by] = outline[j];
        if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
      }
      if (within) found.push(row);
    }
    return found;
  }

  visible() { return this.inside([[0, 0], [this.width, 0], [this.width, this.height], [0, this.height]]); }

  // hands ------------------------------------------------------------------------------------------------

  listen() {
    const { field } = this, down = new Map();
    let moved = 0, last = null;
    const spot = (event) => { const box = field.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    field.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.target.closest(".legend")) return;
      field.setPointerCapture(event.pointerId);
      down.set(event.pointerId, spot(event));
      moved = 0; last = null;
      if (down.size === 1 && (this.lassoing || event.shiftKey)) this.outline = [spot(event)];
      this.told.hover(-1);
    });
    field.addEventListener("pointermove", (event) => {
      const [x, y] = spot(event), before = down.get(event.pointerId);
      if (!before) {
        if (event.pointerType !== "touch" && !event.target.closest(".legend")) {
          const row = this.rowAt(x, y);
          field.classList.toggle("over", row >= 0);
          this.told.hover(row, x, y);
        }
        return;
      }
      moved += Math.hypot(x - before[0], y - before[1]);
      down.set(event.pointerId, [x, y]);
      if (this.outline) { this.outline.push([x, y]); this.redraw(); return; }
      if (down.size === 2) {
        const [a, b] = [...down.values()], wide = Math.hypot(a[0] - b[0], a[1] - b[1]) || 1, middle = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
        if (last) {
          this.moveBy(middle[0] - last.middle[0], middle[1] - last.middle[1], true);
          this.zoomBy(wide / last.wide, ...middle, true);
        }
        last = { wide, middle };
      } else { field.classList.add("moving"); this.moveBy(x - before[0], y - before[1], true); }
    });
    const up = (event) => {
      if (!down.delete(event.pointerId)) return;
      last = null;
      field.classList.remove("moving");
      if (this.outline) {
        const outline = this.outline;
        this.outline = null; this.redraw();
        if (event.type === "pointerup" && outline.length > 2) this.told.lasso(this.inside(outline));
      } else if (event.type === "pointerup" && moved < 5 && !down.size) {
        const row = this.rowAt(...spot(event), event.pointerType === "touch" ? 20 : REACH);
        if (row >= 0) this.told.pick(row);
      }
    };
    field.addEventListener("pointerup", up);
    field.addEventListener("pointercancel", up);
    field.addEventListener("pointerleave", () => this.told.hover(-1));
    field.addEventListener("wheel", (event) => {
      if (event.target.closest(".legend")) return;
      event.preventDefault();
      this.zoomBy(Math.exp(-Math.max(-120, Math.min(120, event.deltaY * (event.deltaMode ? 30 : 1))) * 0.0022), ...spot(event));
    }, { passive: false });
    field.addEventListener("focus", () => this.redraw());
    field.addEventListener("blur", () => this.redraw());
  }
}

// Rows in a fixed random order, so that no class lies on top of the others.
function shuffled(count) {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1, seed = 1; i > 0; i--) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const j = seed % (i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

// Whether WebGL is drawn by hardware: in software the plain canvas is several times faster (benchmarks/explorer.json).
function hasGraphicsCard() {
  const gl = document.createElement("canvas").getContext("webgl2");
  if (!gl) return false;
  const more = gl.getExtension("WEBGL_debug_renderer_info");
  const name = gl.getParameter(more ? more.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

function glPainter(canvas) {
  const gl = canvas.getContext("webgl2", { antialias: false, alpha: true, premultipliedAlpha: true });
  if (!gl) return null;
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text); gl.compileShader(shader); gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
  gl.useProgram(program);
  gl.enable(gl.BLEND); gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const fill = (target, buffer, data) => { gl.bindBuffer(target, buffer); gl.bufferData(target, data, gl.STATIC_DRAW); };
  const [places, tints, rows] = [gl.createBuffer(), gl.createBuffer(), gl.createBuffer()];
  const input = (name, buffer, size, type, unit) => {
    const where = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer); gl.enableVertexAttribArray(where); gl.vertexAttribPointer(where, size, type, unit, 0, 0);
  };
  input("at", places, 2, gl.FLOAT, false);
  input("colour", tints, 4, gl.UNSIGNED_BYTE, true);
  const [scale, shift, size] = ["scale", "shift", "size"].map((name) => gl.getUniformLocation(program, name));
  let coloured = 0, ordered = 0;
  return {
    name: "webgl",
    place: (at) => fill(gl.ARRAY_BUFFER, places, at),
    colour: (bytes) => { fill(gl.ARRAY_BUFFER, tints, bytes); coloured = bytes.length / 4; },
    order: (order) => { fill(gl.ELEMENT_ARRAY_BUFFER, rows, order); ordered = order.length; },
    draw(map) {
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT);
      if (!ordered || coloured < map.at.length / 2) return;
      const unit = map.half * map.view.zoom, sx = (2 * unit) / map.width, sy = (2 * unit) / map.height;
      gl.uniform2f(scale, sx, sy); gl.uniform2f(shift, -map.view.x * sx, -map.view.y * sy); gl.uniform1f(size, map.size * map.dots);
      gl.drawElements(gl.POINTS, ordered, gl.UNSIGNED_INT, 0);
    },
  };
}

// Without WebGL: discs written into the pixels of the canvas, their edges half transparent.
function flatPainter(canvas) {
  const pen = canvas.getContext("2d", { willReadFrequently: true }); // kept in memory, where it is written
  let image = null, order = new Uint32Array(0), colours = new Uint8Array(0);
  return {
    name: "canvas",
    place() {},
    colour: (bytes) => { colours = bytes; },
    order: (rows) => { order = rows; },
    draw(map) {
      const { width, height } = canvas;
      if (image?.width !== width || image.height !== height) image = pen.createImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer).fill(0);
      if (colours.length >= 2 * map.at.length) {
        const words = new Uint32Array(colours.buffer, colours.byteOffset, colours.length / 4);
        const radius = (map.size * map.dots) / 2, disc = [], rim = [], unit = map.half * map.view.zoom * map.dots;
        const edge = Math.ceil(radius) + 1;
        for (let y = -edge; y <= edge; y++) {
          for (let x = -edge; x <= edge; x++) {
            const far = Math.hypot(x, y);
            if (far <= radius - 0.25) disc.push(y * width + x);
            else if (far <= radius + 0.35) rim.push(y * width + x);
          }
        }
        for (const row of order) {
          const x = Math.round(width / 2 + (map.at[2 * row] - map.view.x) * unit), y = Math.round(height / 2 - (map.at[2 * row + 1] - map.view.y) * unit);
          if (x < edge || y < edge || x >= width - edge || y >= height - edge || colours[4 * row + 3] === 0) continue;
          const word = words[row], middle = y * width + x;
          for (let i = 0; i < disc.length; i++) pixels[middle + disc[i]] = word;
          const faint = (word & 0xffffff) | (((word >>> 25) << 24) >>> 0);
          for (let i = 0; i < rim.length; i++) if (!pixels[middle + rim[i]]) pixels[middle + rim[i]] = faint;
        }
      }
      pen.putImageData(image, 0, 0);
    },
  };
}
