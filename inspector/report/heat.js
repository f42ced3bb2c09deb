// Attributions: any sample by any method, with colours, clipping and scale that the reader chooses.
const PANELS = 60;  // drawn at once

VIEWERS.heat = (place, data, numbers) => {
  const maps = data.maps.map((row) => row.map((map) => read(numbers, map)));
  const inputs = data.inputs.map((map) => (map ? read(numbers, map) : null));
  const chosen = { sample: "0", method: "all", map: "red and blue", scale: "row", clip: 99 };
  const named = data.labels.map((label) => (data.controls.includes(label) ? `${label} (control)` : label));
  const panels = el("div", { class: "panels" });
  const readout = el("output", { class: "readout", "aria-live": "polite" }, "Point at a map, or move with the arrow keys.");
  const foot = el("p", { class: "foot" }), key = el("div", {});
  const limits = new Map();

  const group = (method, sample) => {
    if (chosen.scale === "panel") return [maps[method][sample].values];
    if (chosen.scale === "row") return maps[method].map((map) => map.values);
    const kept = maps.filter((_, i) => !data.controls.includes(data.labels[i]));  // a control's size says nothing of a method's
    return (kept.length ? kept : maps).flatMap((row) => row.map((map) => map.values));
  };
  const limit = (method, sample) => {
    const key = [chosen.scale, chosen.clip, chosen.scale === "shared" ? "" : method, chosen.scale === "panel" ? sample : ""].join();
    if (!limits.has(key)) limits.set(key, percentile(group(method, sample), chosen.clip));
    return limits.get(key);
  };
  const about = (sample) => {
    const { target, true: truth } = data.samples[sample];
    return `sample ${sample}` + (target ? ` \u2192 ${target}` : "") + (truth ? `, true ${truth}` : "");
  };

  const tokens = (sample, values, lut, high, tell) => {
    const line = el("p", { class: "tokens", tabindex: 0 });
    const words = data.tokens[sample], end = words.findLastIndex(([, valid]) => valid) + 1;
    words.slice(0, end).forEach(([word, valid], i) => {
      const span = el("span", { class: valid ? (values[i] < 0 ? "token minus" : "token") : "token padding" }, word);
      const [r, g, b] = colour(lut, values[i], -high, high);
      if (valid) {
        span.style.backgroundColor = `rgb(${r}, ${g}, ${b})`;
        span.style.color = 0.3 * r + 0.59 * g + 0.11 * b > 140 ? "#000" : "#fff";
      }
      span.title = number(values[i]);
      span.addEventListener("mouseenter", () => tell(0, i));
      line.append(span, " ");
    });
    if (end < words.length) line.append(el("span", { class: "token padding" }, `and ${words.length - end} of padding`));
    return line;
  };
  const feature = (sample, i) => {  // its name and what this sample has there
    const name = data.features[i] ?? `feature ${i}`, given = inputs[sample];
    return given && given.shape.length === 1 && i < given.shape[0] ? `${name} = ${plainly(given.values[i])}` : name;
  };
  const bars = (values, high, lut, tell, sample) => {
    const order = Array.from(values.keys()).sort((a, b) => Math.abs(values[b]) - Math.abs(values[a])).slice(0, 20);
    const list = el("ol", { class: "bars" });
    for (const i of order) {
      const bar = el("span", { class: "bar" }), [r, g, b] = colour(lut, values[i], -high, high);
      bar.style.width = `${Math.min(100, (100 * Math.abs(values[i])) / high)}%`;
      bar.style.backgroundColor = `rgb(${r}, ${g}, ${b})`;
      const item = el("li", { tabindex: 0, onfocus: () => tell(0, i) }, el("span", { class: "what", title: feature(sample, i) }, feature(sample, i)),
        el("span", { class: "track" }, bar), el("span", { class: "n" }, number(values[i])));
      item.addEventListener("mouseenter", () => tell(0, i));
      list.append(item);
    }
    if (order.length < values.length) list.append(el("li", { class: "more" }, `${order.length} of ${values.length} shown`));
    return list;
  };

  const words = (shape, sample, row, column) => {
    if (data.view === "tokens") return `\u201c${data.tokens[sample][column][0]}\u201d`;
    if (data.view === "row") return feature(sample, column);
    return shape.length === 2 ? `row ${row}, column ${column}` : `step ${column}`;
  };
  const panel = (method, sample) => {
    const { values, shape } = maps[method][sample], high = limit(method, sample), lut = table(MAPS[chosen.map]);
    const [height, width] = shape.length === 2 ? shape : [1, shape[0]];
    const total = values.reduce((sum, v) => sum + (Number.isNaN(v) ? 0 : Math.abs(v)), 0) || 1;
    const tell = (row, column) => {
      const value = values[row * width + column], share = ((100 * Math.abs(value)) / total).toPrecision(2);
      readout.textContent = `${named[method]}, sample ${sample}, ${words(shape, sample, row, column)}: ${number(value)}`
        + (Number.isNaN(value) ? "" : ` (${share}% of all attribution)`);
    };
    const title = chosen.sample === "all" ? (chosen.method === "all" ? `${named[method]}, sample ${sample}` : about(sample)) : named[method];
    const drawn = data.view === "tokens" ? tokens(sample, values, lut, high, tell)
      : data.view === "row" ? bars(values, high, lut, tell, sample)
      : cells(values, width, height, lut, -high, high, `${named[method]}, ${about(sample)}`, tell);
    const beyond = values.filter((v) => Math.abs(v) > high * 1.0001).length;
    const cut = beyond ? `, ${((100 * beyond) / values.length).toPrecision(2)}% beyond` : "";
    return el("figure", { class: `panel ${data.view}` }, el("figcaption", {}, title), drawn, el("small", {}, `\u00b1${plainly(high)}${cut}`));
  };
  const input = (sample) => {
    const given = inputs[sample];
    if (!given || data.view === "row") return null;
    const { values, shape } = given, canvas = el("canvas", { role: "img", "aria-label": `input, ${about(sample)}` });
    const finite = values.filter(Number.isFinite), low = Math.min(...finite.slice(0, 1), ...least(finite)), high = most(finite);
    if (shape.length === 3) paintColour(canvas, values, shape, low, high);
    else paint(canvas, values, shape[1] ?? shape[0], shape.length === 2 ? shape[0] : 1, table(GREYS), low, high);
    return el("figure", { class: `panel input ${data.view}` }, el("figcaption", {}, "input"), canvas,
      el("small", {}, `${plainly(low)} to ${plainly(high)}`));
  };

  const draw = () => {
    const samples = chosen.sample === "all" ? data.samples.map((_, i) => i) : [Number(chosen.sample)];
    const methods = chosen.method === "all" ? data.labels.map((_, i) => i) : [Number(chosen.method)];
    const pairs = methods.flatMap((m) => samples.map((s) => [m, s]));
    panels.replaceChildren(...(samples.length === 1 ? [input(samples[0])] : []).filter(Boolean), ...pairs.slice(0, PANELS).map(([m, s]) => panel(m, s)));
    const scale = { row: "Each method has its own scale over its samples", shared: "All maps share one scale", panel: "Each map has its own scale" };
    const notes = [`${scale[chosen.scale]}: ${chosen.clip === 100 ? "the largest |a|" : `the ${chosen.clip}th percentile of |a|`}.`];
    if (chosen.sample !== "all") notes.unshift(`${about(samples[0])}.`);
    if (pairs.length > PANELS) notes.push(`${PANELS} of ${pairs.length} maps shown.`);
    if (data.samples.length < data.total) notes.push(`${data.samples.length} of ${data.total} samples are in this page.`);
    if (data.view === "tokens") notes.push("Underlined: negative.");
    if (maps.some((row) => row.some((map) => map.values.some(Number.isNaN)))) notes.push("Magenta: not a number.");
    foot.textContent = notes.join(" ");
    const signs = methods.some((m) => samples.some((s) => maps[m][s].values.some((v) => v < 0)));
    key.replaceChildren(legend(table(MAPS[chosen.map]), signs ? "against" : "", signs ? "" : "no sign: how much it counts", signs ? "for" : "counts"));
  };
  const set = (name) => (value) => { chosen[name] = value; draw(); };
  const all = (word) => [["all", `all ${word}`]];
  place.append(
    el("div", { class: "controls" },
      picker("Sample", [...data.samples.map((_, i) => [String(i), about(i)]), ...all("samples")], "0", set("sample")),
      picker("Method", [...all("methods"), ...named.map((label, i) => [String(i), label])], "all", set("method")),
      picker("Colours", Object.keys(MAPS).map((name) => [name, name]), chosen.map, set("map")),
      picker("Scale", [["row", "per method"], ["shared", "shared by all"], ["panel", "per map"]], "row", set("scale")),
      slider("Clip at percentile", 90, 100, 0.5, 99, set("clip"))),
    panels, key, readout, foot);
  draw();
};

const least = (list) => [list.reduce((a, b) => Math.min(a, b), Infinity)];
const most = (list) => list.reduce((a, b) => Math.max(a, b), -Infinity);
const paintColour = (canvas, values, [, height, width], low, high) => {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height), size = width * height;
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = (255 * (values[c * size + i] - low)) / (high - low || 1);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
};
