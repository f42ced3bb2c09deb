// Attention: all heads of all layers as thumbnails, one of them large, and for each position what it looks at most.
VIEWERS.attention = (place, data, numbers) => {
  const chosen = { sample: 0, layer: 0, head: 0, scale: "one" };
  const lut = table(VIRIDIS), SMALL = 48;
  const readout = el("output", { class: "readout", "aria-live": "polite" }, "Point at the matrix, or move with the arrow keys.");
  const small = el("div", { class: "heads" }), large = el("div", { class: "head" }), foot = el("p", { class: "foot" }), key = el("div", {}), pickers = el("span", { class: "group" });
  const brief = apart(data.layers);
  const weight = (at, i) => (numbers[at + i] / 255) ** 2;
  const where = (layer, head) => data.heads[layer][chosen.sample][head];

  const thumbnail = (layer, head) => {  // the largest weight of each cell, so that no line is lost
    const { at, shape: [rows, columns] } = where(layer, head), h = Math.min(rows, SMALL), w = Math.min(columns, SMALL);
    const values = new Float32Array(w * h);
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
      const i = Math.floor((r * h) / rows) * w + Math.floor((c * w) / columns);
      values[i] = Math.max(values[i], numbers[at + r * columns + c]);
    }
    const canvas = el("canvas", {});
    paint(canvas, values.map((v) => v / 255), w, h, lut, 0, 1);
    const name = `${data.layers[layer]}, head ${head}`;
    return el("button", { class: "thumb", "aria-label": name, title: name, onclick: () => { chosen.layer = layer; chosen.head = head; draw(); } }, canvas);
  };
  const overview = () => {
    small.replaceChildren();
    data.layers.forEach((name, layer) => setTimeout(() => {  // one layer at a time, so that the page stays quick
      const row = el("div", { class: "headrow" }, el("span", { class: "what", title: name }, brief[layer]));
      data.heads[layer][chosen.sample].forEach((_, head) => row.append(thumbnail(layer, head)));
      small.append(row);
    }));
  };
  const draw = () => {
    const { at, shape: [rows, columns] } = where(chosen.layer, chosen.head);
    const roots = Float32Array.from({ length: rows * columns }, (_, i) => numbers[at + i] / 255);
    const tell = (row, column) => {
      const looks = Array.from({ length: columns }, (_, c) => [c, weight(at, row * columns + c)]).sort((a, b) => b[1] - a[1]).slice(0, 3);
      const most = looks.map(([c, w]) => `${c} (${plainly(w)})`).join(", ");
      readout.textContent = `Position ${row} looks at ${column} with ${plainly(weight(at, row * columns + column))}; most at ${most}.`;
    };
    const name = `${data.layers[chosen.layer]}, head ${chosen.head}, sample ${chosen.sample}`;
    const top = chosen.scale === "one" ? 1 : percentile([roots], 99);
    large.replaceChildren(el("h3", {}, name), cells(roots, columns, rows, lut, 0, top, `attention of ${name}`, tell));
    key.replaceChildren(legend(lut, "0", "", plainly(top * top) + (top < 1 ? " and more" : "")));
    pickers.replaceChildren(
      picker("Layer", data.layers.map((l, i) => [String(i), l]), String(chosen.layer), (v) => { chosen.layer = Number(v); chosen.head = Math.min(chosen.head, data.heads[chosen.layer][0].length - 1); draw(); }),
      picker("Head", data.heads[chosen.layer][chosen.sample].map((_, i) => [String(i), String(i)]), String(chosen.head), (v) => { chosen.head = Number(v); draw(); }),
      picker("Scale", [["one", "0 to 1"], ["head", "up to the head's 99th percentile"]], chosen.scale, (v) => { chosen.scale = v; draw(); }));
  };
  const shown = data.heads[0].length;
  const notes = ["Rows look at columns; colours are square roots of the weights, so that faint ones are seen."];
  if (shown < data.samples) notes.push(`${shown} of ${data.samples} samples are in this page.`);
  if (data.layers.length < data.all) notes.push(`${data.layers.length} of ${data.all} layers are in this page.`);
  foot.textContent = notes.join(" ");
  place.append(
    el("div", { class: "controls" },
      picker("Sample", data.heads[0].map((_, i) => [String(i), String(i)]), "0", (v) => { chosen.sample = Number(v); draw(); overview(); }), pickers),
    el("div", { class: "split" }, small, large), key, readout, foot);
  draw();
  overview();
};

// What tells the names of layers apart: "encoder.0.attn", "encoder.1.attn" are "0" and "1".
const apart = (names) => {
  const parts = names.map((name) => name.split("."));
  const same = (at) => parts.every((p) => p.length > 1 && p.at(at) === parts[0].at(at));
  if (names.length < 2) return names;
  let head = 0, tail = 0;
  while (head < parts[0].length - 1 && same(head)) head++;
  while (tail < parts[0].length - head - 1 && same(-tail - 1)) tail++;
  return parts.map((p) => p.slice(head, p.length - tail).join(".") || p.join("."));
};
