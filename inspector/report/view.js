// What every viewer is built from: elements by name, text only as text, colours by table, numbers out of the page.
const el = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
};

const LOST = -32768, ABSENT = 32767, LOG_STEPS = 109, LOG_LOW = -150;
const unpack = async (text) => {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
};
const TYPES = { i2: Int16Array, u1: Uint8Array };
const wide = (n) => {
  if (n === LOST) return NaN;
  if (n === ABSENT) return Infinity;
  return n === 0 ? 0 : Math.sign(n) * 2 ** ((Math.abs(n) - 1) / LOG_STEPS + LOG_LOW);
};
const read = (numbers, place) => {  // {values, shape}: NaN where the value was not finite, infinite where nothing was
  const size = place.shape.reduce((a, b) => a * b, 1);
  const values = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const n = numbers[place.at + i];
    values[i] = place.wide ? wide(n) : n === LOST ? NaN : n * place.step;
  }
  return { values, shape: place.shape };
};

const MAPS = {
  "red and blue": "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f",
  "orange and purple": "2d004b 542788 8073ac b2abd2 d8daeb f7f7f7 fee0b6 fdb863 e08214 b35806 7f3b08",
  "grey, without sign": "1a1a1a 4d4d4d 878787 bababa e0e0e0 ffffff e0e0e0 bababa 878787 4d4d4d 1a1a1a",
};
const GREYS = "000000 ffffff";
const VIRIDIS = "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725";
const BROKEN = [230, 0, 190];  // no number: a colour that no map has
const EMPTY = [208, 213, 219];  // nothing was there
const table = (anchors) => {  // 257 colours, so that 0 gets the middle one exactly
  const stops = anchors.split(" ").map((c) => [0, 2, 4].map((i) => parseInt(c.slice(i, i + 2), 16)));
  return Array.from({ length: 257 }, (_, i) => {
    const at = (i / 256) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
    return stops[low].map((c, k) => c + (stops[low + 1][k] - c) * (at - low));
  });
};
const colour = (lut, value, low, high) => {
  if (Number.isNaN(value)) return BROKEN;
  if (value === -Infinity) return [0, 0, 0];  // nothing, where a log scale has no place for it
  if (value === Infinity) return EMPTY;
  return lut[Math.max(0, Math.min(256, Math.round(((value - low) / (high - low || 1)) * 256)))];
};

const paint = (canvas, values, width, height, lut, low, high) => {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    image.data.set(colour(lut, values[i], low, high), 4 * i);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
};

// What the colours mean: their two ends and, where it has a colour of its own, the middle.
const legend = (lut, low, middle, high) => {
  const canvas = el("canvas", { class: "ramp", "aria-hidden": "true" });
  paint(canvas, Float32Array.from({ length: 257 }, (_, i) => i), 257, 1, lut, 0, 256);
  return el("div", { class: "legend" }, el("span", {}, low), canvas, el("span", {}, high), middle ? el("span", { class: "middle" }, middle) : null);
};

const percentile = (lists, share) => {  // of |a| over a group: its largest where that is 0, then 1
  const all = Float32Array.from(lists.flatMap((list) => Array.from(list, Math.abs).filter(Number.isFinite))).sort();
  if (!all.length) return 1;
  return all[Math.min(all.length - 1, Math.round((share / 100) * (all.length - 1)))] || all[all.length - 1] || 1;
};

const number = (value) => (Number.isNaN(value) ? "not a number" : (value > 0 ? "+" : "") + Number(value.toPrecision(3)));
const plainly = (value) => (Number.isNaN(value) ? "not a number" : String(Number(value.toPrecision(3))));

let serial = 0;
const picker = (label, options, chosen, change) => {
  const id = `pick${serial++}`;
  const select = el("select", { id, onchange: () => change(select.value) });
  for (const [value, text] of options) select.append(el("option", { value, selected: value === chosen }, text));
  return el("span", { class: "pick" }, el("label", { for: id }, label), select);
};
const slider = (label, low, high, step, chosen, change) => {
  const id = `pick${serial++}`, shown = el("output", { for: id }, String(chosen));
  const input = el("input", {
    id, type: "range", min: low, max: high, step, value: chosen,
    oninput: () => { shown.textContent = input.value; change(Number(input.value)); },
  });
  return el("span", { class: "pick" }, el("label", { for: id }, label), input, shown);
};

// A grid of numbers that tells its values to mouse and keyboard: tell(row, column) writes the line below.
const cells = (values, width, height, lut, low, high, name, tell, open) => {
  const canvas = el("canvas", { tabindex: 0, role: "img", "aria-label": name });
  let row = 0, column = 0;
  paint(canvas, values, width, height, lut, low, high);
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    column = Math.max(0, Math.min(width - 1, Math.floor(((event.clientX - box.left) / box.width) * width)));
    row = Math.max(0, Math.min(height - 1, Math.floor(((event.clientY - box.top) / box.height) * height)));
  };
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  canvas.addEventListener("mousemove", (event) => { point(event); tell(row, column); });
  canvas.addEventListener("focus", () => tell(row, column));
  canvas.addEventListener("click", (event) => { point(event); if (open) open(row, column); });
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && open) open(row, column);
    if (!(event.key in moves)) return;
    event.preventDefault();
    row = Math.max(0, Math.min(height - 1, row + moves[event.key][0]));
    column = Math.max(0, Math.min(width - 1, column + moves[event.key][1]));
    tell(row, column);
  });
  return canvas;
};

const VIEWERS = {};
const start = async () => {
  for (const place of document.querySelectorAll(".viewer")) {
    const data = JSON.parse(place.querySelector("script").textContent);
    const numbers = new TYPES[data.type](await unpack(data.bytes));
    VIEWERS[place.dataset.kind](place, data, numbers);
    place.hidden = false;
  }
  document.documentElement.dataset.ready = "true";
};
