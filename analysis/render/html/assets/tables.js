// The tables: sorting, searching, and the kernel table, whose rows are made here.
(() => {
  const { data, at, element, segmented } = page;
  const { written, count } = figures;

  const compare = (a, b) => {
    if (a === null || b === null) return a === b ? 0 : a === null ? 2 : -2;
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
  };
  // Unknown stays last, whichever way the column is sorted.
  const sorted = (rows, key, descending) => rows.toSorted((a, b) => {
    const order = compare(key(a), key(b));
    return Math.abs(order) === 2 && (key(a) === null || key(b) === null) ? order : descending ? -order : order;
  });
  const sortable = (heads, start, apply) => {
    let column = start;
    let descending = true;
    const show = () => heads.forEach((head, index) => {
      if (index === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    heads.forEach((head, index) => {
      head.classList.add("sorts");
      head.tabIndex = 0;
      const choose = () => {
        descending = index === column ? !descending : head.classList.contains("n");
        column = index;
        show();
        apply(column, descending);
      };
      head.addEventListener("click", choose);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); } });
    });
    if (start >= 0) show();
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const value = (row, column) => {
      const raw = row.cells[column].dataset.v;
      if (raw === undefined) return null;
      return raw !== "" && Number.isFinite(Number(raw)) ? Number(raw) : raw;
    };
    sortable(heads, -1, (column, descending) => body.append(...sorted([...body.rows], (row) => value(row, column), descending)));
  }

  // A search field hides the rows of its table that lack one of its words; the total is that of all rows, so it goes too.
  for (const field of document.querySelectorAll("input[data-filters]")) {
    const filtered = at(field.dataset.filters);
    const shownCount = document.querySelector(`[data-counts="${field.dataset.filters}"]`);
    const filter = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      const rows = [...filtered.tBodies[0].rows];
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
      if (filtered.tFoot) filtered.tFoot.hidden = words.length > 0;
      shownCount.textContent = words.length ? `${count(rows.filter((row) => !row.hidden).length)} of ${count(rows.length)} rows` : "";
    };
    field.addEventListener("input", filter);
  }

  // Columns, their order, definitions and styles come from the declaration of the kernel table.
  const kernels = data.kernels;
  const STAGE = 0;
  const places = kernels.columns.map((column, index) => ({ ...column, index }));
  const columns = places.filter((column) => !column.below && column.index !== STAGE);
  const under = Object.fromEntries(places.filter((column) => column.below).map((column) => [column.below, column]));
  const valueOf = (row, column) => (column.type === "string" && row[column.index] !== null ? kernels.strings[row[column.index]] : row[column.index]);
  const stageOf = (row) => valueOf(row, places[STAGE]);
  const table = at("kernel-table");
  const state = { stage: "all", search: "", column: columns.findIndex((column) => column.key === "total_ns"), descending: true, all: false, open: new Set() };
  const LIMIT = 10;
  const copy = (text, button) => {
    const done = () => { button.textContent = "copied"; setTimeout(() => { button.textContent = "copy"; }, 1200); };
    const byHand = () => {
      const area = element("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      done();
    };
    if (navigator.clipboard && window.isSecureContext) navigator.clipboard.writeText(text).then(done, byHand);
    else byHand();
  };
  const fullName = (name) => {
    const line = element("div", "kernel-name");
    const code = element("code", "", name);
    code.title = "Show the whole name";
    code.addEventListener("click", () => line.classList.toggle("open"));
    const button = element("button", "copy", "copy");
    button.type = "button";
    button.setAttribute("aria-label", "Copy the kernel's name");
    button.addEventListener("click", () => copy(name, button));
    line.append(code, button);
    return line;
  };
  const bar = (stage, part) => {
    const whole = element("span", `share ${stage}`);
    const fill = element("i");
    fill.style.width = `${Math.min(100, 100 * part)}%`;
    whole.append(fill);
    return whole;
  };
  const shapesButton = (row, text) => {
    const button = element("button", "shapes", text);
    button.type = "button";
    button.title = "Show the launch shapes one by one";
    button.setAttribute("aria-expanded", String(state.open.has(row)));
    button.addEventListener("click", () => {
      if (!state.open.delete(row)) state.open.add(row);
      showKernels();
    });
    return button;
  };
  const kernelCell = (row, column, place, shapes) => {
    const value = valueOf(row, column);
    const cell = element("td", column.align === "right" ? "n" : "t");
    const why = kernels.unknown[row.number]?.[column.key];
    if (why !== undefined) cell.dataset.hint = kernels.strings[why];
    const text = written(column.style, value, column.digits);
    const second = under[column.key];
    if (place === 0) {
      const title = element("div");
      title.append(element("span", `dot ${stageOf(row)}`), document.createTextNode(text));
      title.title = stageOf(row);
      cell.append(title);
    } else {
      if (column.style === "share" && column.within && value !== null) cell.append(bar(stageOf(row), value));
      cell.append(column.key === "shapes" && shapes.length ? shapesButton(row, text) : document.createTextNode(text));
    }
    if (second && valueOf(row, second) !== null) {
      const below = written(second.style, valueOf(row, second), second.digits);
      cell.append(second.style === "name" ? fullName(below) : element("div", "note", below));
    }
    return cell;
  };
  const kernelRow = (row) => {
    const shapes = kernels.shapes[row.number] ?? [];
    const made = element("tr");
    made.append(...columns.map((column, place) => kernelCell(row, column, place, shapes)));
    return state.open.has(row) ? [made, ...shapes.map((shape) => shapeRow(row, shape))] : [made];
  };
  // One launch shape of a kernel, or those that are too many to be shown: what it shares with the kernel is not repeated.
  const shapeRow = (row, shape) => {
    const made = element("tr", "of-kernel");
    made.append(...columns.map((column, place) => {
      if (place === 0) return element("td", "t", shape.rest ? `${count(shape.rest)} more shapes` : "one launch shape");
      const cell = element("td", column.align === "right" ? "n" : "t");
      const value = shape.row[column.index];
      if (column.type === "string" || column.key === "shapes" || (shape.rest && value === null)) return cell;
      if (column.style === "share" && column.within && value !== null) cell.append(bar(stageOf(row), value));
      cell.append(document.createTextNode(written(column.style, value, column.digits)));
      const second = under[column.key];
      if (second && shape.row[second.index] !== null) cell.append(element("div", "note", written(second.style, shape.row[second.index], second.digits)));
      return cell;
    }));
    return made;
  };
  const sortValue = (column) => (row) => {
    const value = valueOf(row, column);
    if (value === null) return null;
    if (column.type === "shape") return value.reduce((all, one) => all * one, 1);
    return typeof value === "boolean" ? Number(value) : value;
  };
  const allRows = kernels.rows.map((row, number) => Object.assign(row, { number }));
  const searched = (row) => places.filter((column) => column.type === "string").map((column) => valueOf(row, column) ?? "").join(" ").toLowerCase();
  const addedUp = (rows, column) => {
    if (!column.adds || (column.within && new Set(rows.map(stageOf)).size > 1)) return "";
    const values = rows.map((row) => row[column.index]);
    return values.includes(null) ? "" : written(column.style, values.reduce((sum, value) => sum + value, 0), column.digits);
  };
  const showKernels = () => {
    const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
    const found = allRows.filter((row) => {
      if (state.stage !== "all" && stageOf(row) !== state.stage) return false;
      if (!words.length) return true;
      const text = searched(row);
      return words.every((word) => text.includes(word));
    });
    const ordered = sorted(found, sortValue(columns[state.column]), state.descending);
    const shown = state.all ? ordered : ordered.slice(0, LIMIT);
    table.tBodies[0].replaceChildren(...shown.flatMap(kernelRow));
    const foot = element("tr");
    foot.append(...columns.map((column, place) => (place
      ? element("td", column.align === "right" ? "n" : "t", addedUp(found, column))
      : element("td", "t", `Total of ${count(found.length)} kernels`))));
    table.tFoot.replaceChildren(foot);
    at("kernel-count").textContent = `${count(shown.length)} of ${count(found.length)} shown`;
    at("kernel-more").hidden = shown.length === ordered.length;
    at("kernel-more").textContent = `Show all ${count(ordered.length)}`;
  };
  const head = element("tr");
  for (const column of columns) {
    const cell = element("th", column.align === "right" ? "n" : "t", column.label);
    cell.scope = "col";
    if (column.unit) cell.append(" ", element("small", "", column.unit));
    if (column.definition) cell.dataset.def = column.definition;
    head.append(cell);
  }
  table.tHead.append(head);
  sortable([...head.cells], state.column, (column, descending) => { Object.assign(state, { column, descending }); showKernels(); });
  const inOrder = (stage) => ["prefill", "decode"].indexOf(stage) + 1 || 9;
  const kernelStages = [...new Set(allRows.map(stageOf))].toSorted((a, b) => inOrder(a) - inOrder(b));
  segmented(at("kernel-stages"), ["all", ...kernelStages], "all", (name) => { state.stage = name; state.all = false; showKernels(); });
  at("kernel-search").addEventListener("input", (event) => { state.search = event.target.value; showKernels(); });
  at("kernel-more").addEventListener("click", () => { state.all = true; showKernels(); });
  showKernels();
  at("note-kernels").textContent = kernels.folded.map((one) => `${one.stage}: ${count(one.kernels)} more kernels, ${one.sums.join(", ")} together, are in kernels.parquet only.`).join(" ");

  page.on("print", () => { state.all = true; showKernels(); });
  page.on("printed", () => { state.all = false; showKernels(); });
})();
