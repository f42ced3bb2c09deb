// A training: layers down in execution order, steps to the right; a layer opens as a curve.
VIEWERS.layers = (place, data, numbers) => {
  const chosen = { grid: "0", scale: "auto", layer: null };
  const readout = el("output", { class: "readout", "aria-live": "polite" }, "Point at a layer, or move with the arrow keys; Enter or a click opens its curve.");
  const foot = el("p", { class: "foot" }), board = el("div", { class: "board" }), detail = el("div", { class: "detail" });
  const layers = el("span", { class: "group" });
  const grid = () => data.grids[Number(chosen.grid)];
  const label = (g) => `${g.statistic} of ${g.kind}`;

  const ruler = (values) => {  // how values become heights and colours: signed, over orders of magnitude, or plain
    const finite = values.filter(Number.isFinite), low = most(finite.map((v) => -v)) * -1, high = most(finite);
    const positive = finite.filter((v) => v > 0), least = most(positive.map((v) => -v)) * -1;
    const wanted = chosen.scale === "auto" ? (low < 0 ? "signed" : high > 100 * least ? "log" : "linear") : chosen.scale;
    if (wanted === "log" && positive.length) {
      const at = (v) => (Number.isFinite(v) ? (v > 0 ? Math.log10(v) : -Infinity) : v);
      return { at, low: Math.log10(least), high: Math.log10(high), lut: table(VIRIDIS), words: `log scale, ${plainly(least)} to ${plainly(high)}${finite.length > positive.length ? "; black: 0 or below" : ""}` };
    }
    if (wanted === "signed") {
      const top = percentile([finite], 99);
      return { at: (v) => v, low: -top, high: top, lut: table(MAPS["red and blue"]), words: `\u00b1${plainly(top)}, the 99th percentile` };
    }
    return { at: (v) => v, low: Math.min(0, low), high, lut: table(VIRIDIS), words: `${plainly(Math.min(0, low))} to ${plainly(high)}` };
  };

  const curve = (layer) => {
    const g = grid(), width = g.steps.length, { values } = read(numbers, g);
    const line = Array.from(values.slice(layer * width, (layer + 1) * width)), rule = ruler(line);
    const canvas = el("canvas", { class: "curve", role: "img", "aria-label": `${label(g)} at ${g.names[layer]} over the ${data.unit}s` });
    const draw = () => {
      const ratio = devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
      canvas.width = w * ratio;
      canvas.height = h * ratio;
      const ink = getComputedStyle(canvas), pen = canvas.getContext("2d"), left = 58, bottom = 22, span = rule.high - rule.low || 1;
      pen.scale(ratio, ratio);
      pen.font = "11px system-ui, sans-serif";
      pen.fillStyle = ink.getPropertyValue("--soft");
      pen.strokeStyle = ink.getPropertyValue("--line");
      const x = (i) => left + ((w - left - 8) * i) / Math.max(width - 1, 1), y = (v) => 8 + (h - bottom - 12) * (1 - (rule.at(v) - rule.low) / span);
      for (const part of [0, 0.5, 1]) {
        const value = rule.low + part * span, shown = rule.words.startsWith("log") ? 10 ** value : value, up = 8 + (h - bottom - 12) * (1 - part);
        pen.beginPath();
        pen.moveTo(left, up);
        pen.lineTo(w - 8, up);
        pen.stroke();
        pen.textAlign = "right";
        pen.fillText(plainly(shown), left - 6, up + 4);
      }
      pen.textAlign = "left";
      pen.fillText(`${data.unit} ${g.steps[0]}`, left, h - 5);
      pen.textAlign = "right";
      pen.fillText(String(g.steps[width - 1]), w - 8, h - 5);
      pen.strokeStyle = ink.getPropertyValue("--accent");
      pen.lineWidth = 1.6;
      pen.beginPath();
      const ups = line.map(y);  // none where a value is no number, was not measured or has no place on a log scale
      ups.forEach((up, i) => { if (Number.isFinite(up)) (i && Number.isFinite(ups[i - 1]) ? pen.lineTo(x(i), up) : pen.moveTo(x(i), up)); });
      pen.stroke();
    };
    const wrong = data.findings.filter((f) => f.name === g.names[layer]);
    detail.replaceChildren(el("h3", {}, `${g.names[layer]}: ${label(g)}`), canvas,
      ...wrong.map((f) => el("p", { class: "wrong" }, `Since ${data.unit} ${f.step}: ${f.text}`)));
    draw();
    chosen.layer = layer;
  };

  const draw = () => {
    const g = grid(), width = g.steps.length, height = g.names.length, { values } = read(numbers, g), rule = ruler(values);
    const tell = (row, column) => {
      const v = values[row * width + column];
      readout.textContent = `${g.names[row]}, ${data.unit} ${g.steps[column]}: ${v === Infinity ? "not measured" : number(v)}`;
    };
    const drawn = values.map(rule.at);
    const canvas = heatmap(drawn, width, height, rule, `${label(g)}, ${height} layers by ${width} ${data.unit}s`, tell, curve);
    const tall = Math.max(60, Math.min(640, height * 18));
    canvas.style.height = `${tall}px`;
    const marked = new Set(data.findings.map((f) => f.name));
    const names = el("div", { class: "names", "aria-hidden": "true" });
    names.style.height = `${tall}px`;
    if (height <= 40) for (const name of g.names) names.append(el("span", { class: marked.has(name) ? "wrong" : "", title: name }, name));
    else names.append(el("span", {}, g.names[0]), el("span", {}, `${height} layers`), el("span", {}, g.names[height - 1]));
    board.replaceChildren(names, canvas);
    layers.replaceChildren(picker("Layer", g.names.map((name, i) => [String(i), name]), String(chosen.layer ?? 0), (v) => curve(Number(v))));
    const notes = [`Colours: ${rule.words}. Magenta: not a number. Grey: not measured.`];
    if (data.thin > 1) notes.push(`Every ${data.thin}th measured ${data.unit} is in this page.`);
    foot.textContent = notes.join(" ");
    if (chosen.layer !== null && chosen.layer < height) curve(chosen.layer);
    else detail.replaceChildren();
  };
  const heatmap = (values, width, height, rule, name, tell, open) => cells(values, width, height, rule.lut, rule.low, rule.high, name, tell, open);
  place.append(
    el("div", { class: "controls" },
      picker("Statistic", data.grids.map((g, i) => [String(i), label(g)]), "0", (v) => { chosen.grid = v; draw(); }),
      picker("Scale", [["auto", "by the values"], ["linear", "linear"], ["log", "log"], ["signed", "signed"]], "auto", (v) => { chosen.scale = v; draw(); }),
      layers),
    board, readout, detail, foot);
  draw();
};
