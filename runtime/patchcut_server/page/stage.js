// The picture on the screen, and what a pointer or the keyboard points at in it.

import { drawOverlay } from "./draw.js";

const LEAST_BOX = 4; // pixels of the screen: a shorter drag is a click
const LARGE_STEP = 10;

export class Stage {
  /**
   * canvas: shows the picture. onPoint({point}) and onBox({box}) are called in pixels of the picture;
   * onEscape() where the last of them is taken back.
   */
  constructor(canvas, { onPoint, onBox, onEscape }) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.tool = "all";
    this.prompts = [];
    this.drag = this.cross = this.corner = null;
    Object.assign(this, { onPoint, onBox, onEscape });
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#end(event));
    canvas.addEventListener("pointercancel", () => this.#forget());
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#forget());
  }

  /** Chooses what a click means: all (nothing), point, box or name (a box, too). */
  use(tool) {
    this.tool = tool;
    this.canvas.dataset.tool = tool;
    this.#forget();
  }

  /** Shows a picture and what was found in it. */
  show(picture, found, shown, marked = -1) {
    const { canvas } = this;
    if (canvas.width !== picture.width || canvas.height !== picture.height) {
      canvas.width = picture.width;
      canvas.height = picture.height;
      canvas.style.setProperty("--ratio", picture.width / picture.height);
      this.cross = this.corner = null;
    }
    this.last = [picture, found, shown, marked];
    drawOverlay(this.context, picture.canvas, found, shown, marked);
    this.#drawPrompts();
  }

  redraw() {
    if (this.last) this.show(...this.last);
  }

  #drawPrompts() {
    const scale = this.#scale();
    for (const { point, box } of this.prompts) {
      if (point) this.#ring(point, 6 * scale, scale);
      if (box) this.#frame(box, scale, []);
    }
    if (this.drag?.to) this.#frame(boxOf(this.drag.from, this.drag.to), scale, [6 * scale, 4 * scale]);
    if (this.corner) this.#frame(boxOf(this.corner, this.cross), scale, [6 * scale, 4 * scale]);
    if (this.cross) this.#ring(this.cross, 12 * scale, scale);
  }

  #ring([x, y], radius, scale) {
    const { context } = this;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.moveTo(x - radius, y);
    context.lineTo(x + radius, y);
    context.moveTo(x, y - radius);
    context.lineTo(x, y + radius);
    this.#stroke(scale);
  }

  #frame([x0, y0, x1, y1], scale, dashes) {
    this.context.setLineDash(dashes);
    this.context.beginPath();
    this.context.rect(x0, y0, x1 - x0, y1 - y0);
    this.#stroke(scale);
    this.context.setLineDash([]);
  }

  #stroke(scale) {
    for (const [style, width] of [["#000c", 4], ["#fff", 2]]) {
      this.context.strokeStyle = style;
      this.context.lineWidth = width * scale;
      this.context.stroke();
    }
  }

  /** Pixels of the picture in one of the screen. */
  #scale() {
    return this.canvas.width / Math.max(1, this.canvas.getBoundingClientRect().width);
  }

  #at(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return this.#inside([
      ((event.clientX - left) / width) * this.canvas.width,
      ((event.clientY - top) / height) * this.canvas.height,
    ]);
  }

  #inside([x, y]) {
    const { width, height } = this.canvas;
    return [Math.min(width - 1, Math.max(0, x)), Math.min(height - 1, Math.max(0, y))];
  }

  #begin(event) {
    if (this.tool === "all" || !this.last || event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = { from: this.#at(event), to: null };
    this.cross = this.corner = null;
  }

  #move(event) {
    if (!this.drag || this.tool === "point") return;
    this.drag.to = this.#at(event);
    this.redraw();
  }

  #end(event) {
    if (!this.drag) return;
    const { from } = this.drag, to = this.#at(event);
    this.drag = null;
    const least = LEAST_BOX * this.#scale();
    if (this.tool === "point") this.onPoint({ point: to });
    else if (Math.abs(to[0] - from[0]) > least && Math.abs(to[1] - from[1]) > least) this.onBox({ box: boxOf(from, to) });
    else this.redraw();
  }

  #forget() {
    if (this.drag || this.cross) {
      this.drag = this.cross = this.corner = null;
      this.redraw();
    }
  }

  #key(event) {
    if (this.tool === "all" || !this.last) return;
    const step = event.shiftKey ? LARGE_STEP : 1;
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const middle = [this.canvas.width / 2, this.canvas.height / 2];
    if (by) {
      const [x, y] = this.cross ?? middle, far = step * Math.max(1, Math.round(this.canvas.width / 200));
      this.cross = this.#inside([x + far * by[0], y + far * by[1]]);
    } else if (event.key === "Enter" || event.key === " ") {
      this.#press(this.cross ?? middle);
    } else if (event.key === "Escape") {
      if (this.corner) this.corner = null;
      else this.onEscape();
    } else return;
    event.preventDefault();
    this.redraw();
  }

  #press(at) {
    if (this.tool === "point") return this.onPoint({ point: at });
    if (!this.corner) {
      this.corner = this.cross = at;
      return undefined;
    }
    const box = boxOf(this.corner, at);
    this.corner = null;
    return box[2] - box[0] >= 1 && box[3] - box[1] >= 1 ? this.onBox({ box }) : undefined;
  }
}

function boxOf([x0, y0], [x1, y1]) {
  return [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
}
