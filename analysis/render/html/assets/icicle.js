// Modules as an icicle: each row divides the one above it, and width is GPU time, host time or launches.
(() => {
  const { data, at, element, segmented } = page;
  const { count, duration, share } = figures;
  const holder = at("icicle");
  if (!holder) return;
  if (!data.modules) {
    holder.replaceChildren(element("p", "note", "n/a: the trace has no module ranges."));
    holder.hidden = false;
    return;
  }
  holder.hidden = false;
  const ROW = 30;
  const NARROWEST = 0.0012;
  const REST = "(unattributed)";
  const OWN = "(itself)";
  const PAINTS = 8;
  const MEASURES = [
    { key: "gpu", label: "GPU time", place: 2, write: duration },
    { key: "host", label: "Host time", place: 3, write: duration },
    { key: "launches", label: "Launches", place: 4, write: count },
  ];
  const known = MEASURES.filter((one) => data.modules.rows.some((row) => row[one.place] !== null));
  let measure = known[0];
  let fold = true;
  let root = null;
  let top = null;
  let focused = null;
  const tree = at("icicle-tree");

  // Numbers in paths that differ in nothing else: layers.0.mlp and layers.1.mlp are layers.*.mlp.
  const folded = (paths) => {
    const families = new Map();
    for (const path of paths) {
      const pattern = path.replace(/\d+/g, "*");
      families.set(pattern, [...(families.get(pattern) ?? []), path]);
    }
    return new Map([...families].flatMap(([pattern, members]) => members.map((path) => [path, members.length > 1 ? pattern : path])));
  };
  const node = (name, path, parent) => ({ name, path, parent, parts: new Map(), own: [0, 0, 0], all: [0, 0, 0], kernels: 0, inGraph: 0, paths: new Set() });
  const build = () => {
    const whole = node("all modules", "", null);
    const rows = data.modules.rows.filter((row) => links.shows(row[0]));
    const names = fold ? folded(new Set(rows.map((row) => data.modules.paths[row[1]]))) : null;
    for (const row of rows) {
      const given = data.modules.paths[row[1]];
      const path = names ? names.get(given) : given;
      let at_node = whole;
      const parts = path.startsWith("(") ? [path] : path.split(".");
      for (const [place, part] of parts.entries()) {
        if (!at_node.parts.has(part)) at_node.parts.set(part, node(part, parts.slice(0, place + 1).join("."), at_node));
        at_node = at_node.parts.get(part);
      }
      for (const [place, one] of MEASURES.entries()) at_node.own[place] += row[one.place] ?? 0;
      at_node.kernels += row[5];
      at_node.inGraph += row[6] ?? 0;
      at_node.paths.add(given);
    }
    const add = (each) => {
      each.all = [...each.own];
      for (const part of each.parts.values()) {
        add(part);
        for (const place of each.all.keys()) each.all[place] += part.all[place];
        each.kernels += part.kernels;
        each.inGraph += part.inGraph;
      }
      // What a module with parts does itself is one of them.
      if (each.parts.size && each.parent && each.own.some((value) => value > 0)) {
        const own = node(OWN, each.path, each);
        own.all = [...each.own];
        own.kernels = each.kernels - [...each.parts.values()].reduce((sum, part) => sum + part.kernels, 0);
        own.inGraph = each.inGraph - [...each.parts.values()].reduce((sum, part) => sum + part.inGraph, 0);
        own.paths = each.paths;
        each.parts.set(OWN, own);
      }
    };
    add(whole);
    return whole;
  };
  const which = () => MEASURES.indexOf(measure);
  const valueOf = (each) => each.all[which()];
  const partsOf = (each) => [...each.parts.values()].filter((part) => valueOf(part) > 0).toSorted((a, b) => (a.name === REST) - (b.name === REST) || valueOf(b) - valueOf(a));
  const pathOf = (each) => each.path || each.name;
  const fullName = (each) => (each.name === OWN ? `${pathOf(each)} (itself)` : pathOf(each));
  const graphNote = (each) => (each.inGraph === 0 ? "" : each.inGraph >= each.kernels ? ", all replayed by a CUDA graph" : `, ${count(each.inGraph)} of them replayed by a CUDA graph`);
  const told = (each) => {
    const whole = valueOf(root);
    const what = each.name === REST ? ": outside all module ranges – glue without weights, or a module without a range"
      : each.name === OWN ? ": what the module does outside its parts" : "";
    return `${fullName(each)}${what}. ${measure.label} ${measure.write(valueOf(each))}${whole ? `, ${share(valueOf(each) / whole)}` : ""}; ${count(each.kernels)} kernels${graphNote(each)}`;
  };
  const paint = (each) => {
    let branch = each;
    while (branch.parent && branch.parent !== root && branch.parent.parent) branch = branch.parent;
    const order = partsOf(root).findIndex((part) => part === branch || part === branch.parent);
    return order < 0 || order >= PAINTS ? "var(--paint-rest)" : `var(--paint-${order})`;
  };

  const shown = new Map();
  const choose = (each, into) => {
    if (into && each.parts.size) zoom(each);
    else focusOn(each);
  };
  const zoom = (each) => {
    top = each;
    draw();
    focusOn(each);
  };
  const focusOn = (each) => {
    if (!shown.has(each)) return;
    if (focused && shown.has(focused)) shown.get(focused).tabIndex = -1;
    focused = each;
    shown.get(each).tabIndex = 0;
    shown.get(each).focus({ preventScroll: true });
  };
  const bar = (each, left, width, depth) => {
    const made = element("div");
    made.setAttribute("role", "treeitem");
    made.setAttribute("aria-level", String(depth + 1));
    made.setAttribute("aria-label", told(each));
    made.tabIndex = -1;
    if (each.parts.size) made.setAttribute("aria-expanded", "true");
    made.style.left = `${100 * left}%`;
    made.style.width = `${100 * width}%`;
    made.style.top = `${depth * ROW}px`;
    made.style.background = each === root ? "var(--paint-rest)" : paint(each);
    if (each.name === REST) made.classList.add("glue");
    if (width < 0.02) made.classList.add("narrow");
    else made.textContent = `${each.name === "*" ? each.path.split(".").slice(-2).join(".") : each.name}${each.inGraph ? " (CUDA graph)" : ""} ${measure.write(valueOf(each))}`;
    made.title = told(each);
    made.addEventListener("click", () => {
      choose(each, true);
      tell(each);
    });
    made.addEventListener("focus", () => {
      focused = each;
      tell(each);
    });
    shown.set(each, made);
    tree.append(made);
  };
  const lay = (each, left, width, depth) => {
    bar(each, left, width, depth);
    let deepest = depth;
    let at_left = left;
    const whole = valueOf(each);
    for (const part of partsOf(each)) {
      const wide = (width * valueOf(part)) / whole;
      if (wide >= NARROWEST) deepest = Math.max(deepest, lay(part, at_left, wide, depth + 1));
      at_left += wide;
    }
    return deepest;
  };
  const draw = () => {
    shown.clear();
    tree.replaceChildren();
    const above = [];
    for (let each = top.parent; each; each = each.parent) above.unshift(each);
    if (!valueOf(root)) {
      tree.style.height = "0";
      at("icicle-note").textContent = `n/a: no ${measure.label.toLowerCase()} in ${links.stage()}.`;
      return;
    }
    // What lies around the module that was gone into stands above it, over the whole width.
    for (const [depth, each] of above.entries()) bar(each, 0, 1, depth);
    const deepest = lay(top, 0, 1, above.length);
    tree.style.height = `${(deepest + 1) * ROW}px`;
    focused = shown.has(focused) ? focused : top;
    shown.get(focused).tabIndex = 0;
    at("icicle-up").disabled = top === root;
    at("icicle-where").textContent = `${links.stage() === "all" ? "all stages" : links.stage()}: ${fullName(top)}, ${measure.write(valueOf(top))}`;
    const hidden = measure.key === "launches" ? " What a CUDA graph replays has no launches of its own: the graph's launch belongs to the module around it, if any."
      : measure.key === "host" ? " Host time inside a module's ranges, profiled; a recorded CUDA graph costs its modules none." : "";
    at("icicle-note").textContent = `Exclusive, as in the tables: parts and the module itself add up.${hidden} Keys: arrows move, Enter goes in, Backspace comes back, Home the whole.`;
    mark();
  };
  const tell = (each) => {
    const line = at("icicle-told");
    line.replaceChildren(document.createTextNode(`${told(each)}. `));
    if (each === root) return;
    const button = (text, act) => {
      const made = element("button", "plain-button", text);
      made.type = "button";
      made.addEventListener("click", act);
      line.append(made, " ");
    };
    if (each.name === REST) return;
    if (at("timeline-data")) button("Show in timeline", () => links.set({ module: pathOf(each), kernel: null, op: null }));
    button("Row in the table", () => {
      links.set({ module: pathOf(each) });
      if (!tables.goToModule(pathOf(each))) line.append("It has no row of its own: it launches nothing itself.");
    });
  };
  const mark = () => {
    for (const [each, made] of shown) made.classList.toggle("chosen", links.state.module !== null && each !== root && each.name !== OWN && (each.path === links.state.module || tables.fits(links.state.module, each.path)));
  };
  const anew = () => {
    const path = top?.path;
    const chosen = focused;
    root = build();
    top = root;
    if (path) for (const part of path.split(".")) top = top.parts.get(part) ?? top;
    const had = document.activeElement && tree.contains(document.activeElement);
    focused = null;
    draw();
    if (chosen && had) focusOn(top);
  };
  tree.addEventListener("keydown", (event) => {
    if (!focused) return;
    const visible = (each) => shown.has(each);
    const siblings = focused.parent ? partsOf(focused.parent).filter(visible) : [focused];
    const place = siblings.indexOf(focused);
    const moves = {
      ArrowLeft: () => siblings[place - 1], ArrowRight: () => siblings[place + 1],
      ArrowUp: () => focused.parent, ArrowDown: () => partsOf(focused).find(visible), Home: () => root,
    };
    if (event.key in moves) {
      const next = moves[event.key]();
      if (event.key === "Home") zoom(root);
      else if (next) focusOn(next);
    } else if (event.key === "Enter" || event.key === " ") choose(focused, true);
    else if (event.key === "Backspace" && top.parent) zoom(top.parent);
    else return;
    event.preventDefault();
  });
  segmented(at("icicle-by"), known.map((one) => one.label), measure.label, (label) => {
    measure = MEASURES.find((one) => one.label === label);
    draw();
  });
  at("icicle-fold").addEventListener("change", (event) => { fold = event.target.checked; anew(); });
  at("icicle-up").addEventListener("click", () => { if (top.parent) zoom(top.parent); });
  links.on((changed) => {
    if (changed.has("stage")) anew();
    else if (changed.has("module")) mark();
  });
  anew();
})();
