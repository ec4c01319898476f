// The explorer: two networks, one image; their logits, their distributions, and a student's target.
"use strict";
(() => {
  const stored = JSON.parse(document.getElementById("stored").textContent);
  const { classes, labels, count, columns, rows, bins } = stored;
  const element = (id) => document.getElementById(id);

  /** Decode little-endian 16-bit integers; each times the run's scale is a logit. */
  function decode(run) {
    const bytes = Uint8Array.from(atob(run.logits), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const size = count * classes.length;
    const read = (start) =>
      Float64Array.from({ length: size }, (_, i) => view.getInt16(2 * (start + i), true) * run.scale);
    return { natural: read(0), adversarial: read(size), robust: run.robust };
  }
  const decoded = new Map();
  function network(which) {
    const index = Number(element(`run-${which}`).value);
    if (!decoded.has(index)) decoded.set(index, decode(stored.runs[index]));
    return { ...stored.runs[index], ...decoded.get(index) };
  }
  const vector = (logits, image) =>
    Array.from(logits.subarray(image * classes.length, (image + 1) * classes.length));

  // The rules of repro/logit_distributions/manipulations.py: equal logits rank by class, lowest first.
  const ranking = (z) => z.map((_, c) => c).sort((c, d) => z[d] - z[c] || c - d);
  function permute(z, k, random) {
    const rest = ranking(z).slice(k);
    const shuffled = rest.slice();
    for (let i = shuffled.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [shuffled[i], shuffled[j]] = [shuffled[j], shuffled[i]];
    }
    const result = z.slice();
    rest.forEach((c, i) => (result[c] = z[shuffled[i]]));
    return result;
  }
  function average(z, k) {
    const rest = ranking(z).slice(k);
    const mean = rest.reduce((sum, c) => sum + z[c], 0) / rest.length;
    const result = z.slice();
    rest.forEach((c) => (result[c] = mean));
    return result;
  }
  /** Mulberry32: the same image, draw and k give the same permutation. */
  function generator(seed) {
    return () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  const NS = "http://www.w3.org/2000/svg";
  function svg(width, height, className) {
    const root = document.createElementNS(NS, "svg");
    root.setAttribute("viewBox", `0 0 ${width} ${height}`);
    root.setAttribute("class", className);
    return root;
  }
  function add(parent, tag, attributes, text) {
    const node = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return parent.appendChild(node);
  }
  const show = (id, drawing) => element(id).replaceChildren(drawing);
  const linear = (from, to, low, high) => (x) => low + ((x - from) / (to - from)) * (high - low);

  /** Horizontal bars, one group a class: labels at the left, values at the right of the bars. */
  function frame(low, high, height, width) {
    const root = svg(width, height * classes.length + 4, "bars");
    const x = linear(Math.min(low, 0), Math.max(high, 0), 78, width - 38);
    add(root, "line", { x1: x(0), x2: x(0), y1: 0, y2: height * classes.length, class: "grid" });
    return { root, x };
  }
  const span = (x, value) => ({ x: Math.min(x(0), x(value)), width: Math.abs(x(value) - x(0)) });

  function drawBars(which, net, image, low, high) {
    const natural = vector(net.natural, image);
    const adversarial = vector(net.adversarial, image);
    const { root, x } = frame(low, high, 24, 400);
    root.setAttribute("role", "img");
    root.setAttribute("aria-label", `Logits of ${net.label}: ` +
      classes.map((name, c) => `${name} ${natural[c].toFixed(1)}, attacked ${adversarial[c].toFixed(1)}`).join("; "));
    classes.forEach((name, c) => {
      const y = 24 * c;
      const truth = c === labels[image] ? "truth" : "";
      add(root, "text", { x: 72, y: y + 15, "text-anchor": "end", class: truth }, name);
      add(root, "rect", { ...span(x, natural[c]), y: y + 3, height: 9, class: "nat" });
      add(root, "rect", { ...span(x, adversarial[c]), y: y + 13, height: 7, class: "adv" });
      add(root, "text", { x: 398, y: y + 15, "text-anchor": "end", class: "faint" }, natural[c].toFixed(1));
    });
    show(`bars-${which}`, root);
    const top = classes[ranking(natural)[0]];
    const attacked = classes[ranking(adversarial)[0]];
    element(`name-${which}`).textContent = net.label;
    const right = top === classes[labels[image]];
    element(`outcome-${which}`).textContent = !right
      ? `says ${top}: wrong without an attack`
      : net.robust[image] === "1" ? `says ${top}: robust` : `says ${top}, under attack ${attacked}: fooled`;
  }

  const largest = (z) => Math.max(...z);
  const gap = (z) => { const [first, second] = ranking(z); return z[first] - z[second]; };

  function drawDensity(id, quantity, measure, nets, image) {
    const width = 480, height = 190, bottom = 160;
    const root = svg(width, height, "density");
    const { low, high, number } = bins[quantity];
    const last = Math.max(...nets.map((net) => net[quantity].findLastIndex((share) => share > 0.0005)));
    const to = low + ((last + 2) * (high - low)) / number;
    const x = linear(low, to, 8, width - 8);
    const y = linear(0, Math.max(...nets.flatMap((net) => net[quantity])), bottom, 24);
    const step = [0.5, 1, 2, 5].find((s) => (to - low) / s <= 12) || 10;
    for (let tick = Math.ceil(low / step) * step; tick <= to; tick += step) {
      add(root, "line", { x1: x(tick), x2: x(tick), y1: bottom, y2: bottom + 4, class: "grid" });
      add(root, "text", { x: x(tick), y: bottom + 17, "text-anchor": "middle", class: "faint" }, `${tick}`);
    }
    add(root, "line", { x1: x(low), x2: x(to), y1: bottom, y2: bottom, class: "grid" });
    nets.forEach((net, i) => {
      const at = (bin) => x(low + (bin * (high - low)) / number).toFixed(1);
      const steps = net[quantity].slice(0, last + 2).map((share, bin) => `L${at(bin)} ${y(share).toFixed(1)} L${at(bin + 1)} ${y(share).toFixed(1)}`);
      add(root, "path", { d: `M${at(0)} ${bottom} ${steps.join(" ")} V${bottom} Z`, class: "ab"[i] === "a" ? "fa" : "fb" });
    });
    nets.forEach((net, i) => {
      for (const kind of ["adversarial", "natural"]) {
        const value = measure(vector(net[kind], image));
        const at = x(Math.min(value, to)), top = i ? 12 : 3;
        const hollow = kind === "adversarial" ? " hollow" : "";
        const mark = add(root, "path", { d: `M${at - 5} ${top} h10 l-5 8 z`, class: `m${"ab"[i]}${hollow}` });
        add(mark, "title", {}, `${net.label}, ${kind}: ${value.toFixed(2)}`);
        if (!hollow) add(root, "line", { x1: at, x2: at, y1: top + 8, y2: bottom, class: `m${"ab"[i]}`, "stroke-dasharray": "2 3" });
      }
    });
    show(id, root);
  }

  let draw = 0;
  const how = () => document.querySelector('input[name="how"]:checked').value;
  function target(z, image) {
    const k = Number(element("k").value);
    if (how() === "permute") return { k, z: permute(z, k, generator(1000 * image + draw)) };
    return { k, z: how() === "average" ? average(z, k) : z };
  }

  function drawTarget(net, image) {
    const before = vector(net.natural, image);
    const { k, z } = target(before, image);
    const kept = new Set(how() === "none" ? ranking(before) : ranking(before).slice(0, k));
    const { root, x } = frame(Math.min(...before), Math.max(...before), 20, 460);
    classes.forEach((name, c) => {
      const truth = c === labels[image];
      const kind = !kept.has(c) ? "is-changed" : truth ? "is-truth" : "is-kept";
      add(root, "text", { x: 72, y: 20 * c + 14, "text-anchor": "end", class: truth ? "truth" : "" }, name);
      add(root, "rect", { ...span(x, z[c]), y: 20 * c + 3, height: 14, class: kind });
      add(root, "line", { x1: x(before[c]), x2: x(before[c]), y1: 20 * c + 1, y2: 20 * c + 19, class: "before" });
      add(root, "text", { x: 458, y: 20 * c + 14, "text-anchor": "end", class: "faint value" }, z[c].toFixed(2));
    });
    element("k-number").textContent = k;
    show("target", root);
  }

  /** The place of the image among those of the page; people count from one. */
  const shown = () => Number(element("image").value) - 1;

  function render() {
    const image = shown();
    const nets = [network("a"), network("b")];
    element("image-number").textContent = `${image + 1} of ${count}`;
    element("image").setAttribute("aria-valuetext", `${image + 1} of ${count}, ${classes[labels[image]]}`);
    const column = image % columns, row = Math.floor(image / columns);
    const picture = element("picture");
    picture.style.backgroundPosition = `${(100 * column) / (columns - 1)}% ${(100 * row) / (rows - 1)}%`;
    picture.setAttribute("aria-label", `Test image ${image + 1}, a ${classes[labels[image]]}`);
    element("label").textContent = `${classes[labels[image]]}, test image ${image + 1}`;
    nets.forEach((net, i) => {
      const values = [...vector(net.natural, image), ...vector(net.adversarial, image)];
      drawBars("ab"[i], net, image, Math.min(...values), Math.max(...values));
    });
    drawDensity("density-max", "max", largest, nets, image);
    drawDensity("density-gap", "gap", gap, nets, image);
    drawTarget(nets[0], image);
  }

  // The address keeps what is chosen, by the names on the page: a view can be sent on.
  const PLACE = "#explorer?";
  const named = (which) => stored.runs[Number(element(`run-${which}`).value)].label;
  function remember() {
    const chosen = { a: named("a"), b: named("b"), image: shown() + 1, how: how(), k: element("k").value, draw };
    history.replaceState(null, "", PLACE + new URLSearchParams(chosen));
  }
  /** Choose what the address says, where it says something that this page has. */
  function recall() {
    if (!location.hash.startsWith(PLACE)) return false;
    const chosen = new URLSearchParams(location.hash.slice(PLACE.length));
    for (const which of ["a", "b"]) {
      const run = stored.runs.findIndex((each) => each.label === chosen.get(which));
      if (run >= 0) element(`run-${which}`).value = run;
    }
    for (const slider of ["image", "k"]) if (chosen.has(slider)) element(slider).value = chosen.get(slider);
    const button = document.querySelector(`input[name="how"][value="${CSS.escape(chosen.get("how") || "")}"]`);
    if (button) button.checked = true;
    draw = Math.trunc(Number(chosen.get("draw"))) || 0;
    render();
    element("explorer").scrollIntoView();
    return true;
  }
  let waiting;
  /** Draw what a person chose, and keep it once they pause: browsers limit how often that may be. */
  function choose() {
    render();
    clearTimeout(waiting);
    waiting = setTimeout(remember, 400);
  }

  function go(image) {
    element("image").value = Math.max(1, Math.min(count, image + 1));
    choose();
  }
  const move = (by) => go(shown() + by);
  /** Return the next image on which just one of the networks is robust; this one if there is none. */
  function differing() {
    const [a, b] = [network("a").robust, network("b").robust];
    const after = labels.map((_, i) => (shown() + 1 + i) % count);
    return after.find((image) => a[image] !== b[image]) ?? shown();
  }

  for (const [which, chosen] of [["a", stored.first], ["b", stored.second]]) {
    const options = stored.runs.map((run, i) => new Option(run.label, i, i === chosen, i === chosen));
    element(`run-${which}`).replaceChildren(...options);
    element(`run-${which}`).addEventListener("change", choose);
  }
  element("image").addEventListener("input", choose);
  element("previous").addEventListener("click", () => move(-1));
  element("next").addEventListener("click", () => move(1));
  element("differ").addEventListener("click", () => go(differing()));
  element("manipulation").addEventListener("input", choose);
  element("again").addEventListener("click", () => { draw += 1; choose(); });
  addEventListener("hashchange", recall);
  document.addEventListener("keydown", (event) => {
    const taken = event.target.closest("input, select, textarea");
    if (event.altKey || event.ctrlKey || event.metaKey || (taken && taken.id !== "image")) return;
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -count, End: count };
    const visible = element("explorer").getBoundingClientRect();
    if (!(event.key in steps) || visible.bottom < 0 || visible.top > innerHeight) return;
    event.preventDefault();
    move(steps[event.key]);
  });
  if (!recall()) {
    element("image").value = differing() + 1;
    render();
  }
})();
