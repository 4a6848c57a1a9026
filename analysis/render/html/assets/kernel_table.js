// The kernel table, whose rows are made here from the page's data.
const kernelTable = (() => {
  const { data, at, element } = page;
  const { written, count } = figures;
  const { sorted, sortable, searchField, tools, copy, toTimeline, hasTimeline } = tables;

  // Columns, their order, definitions and styles come from the declaration of the kernel table.
  const kernels = data.kernels;
  const STAGE = 0;
  const places = kernels.columns.map((column, index) => ({ ...column, index }));
  const columns = places.filter((column) => !column.below && column.index !== STAGE);
  const under = Object.fromEntries(places.filter((column) => column.below).map((column) => [column.below, column]));
  const valueOf = (row, column) => (column.type === "string" && row[column.index] !== null ? kernels.strings[row[column.index]] : row[column.index]);
  const stageOf = (row) => valueOf(row, places[STAGE]);
  const table = at("kernel-table");
  const state = { found: [], column: columns.findIndex((column) => column.key === "total_ns"), descending: true, all: false, open: new Set() };
  const LIMIT = 8;
  const fullName = (name, stage) => {
    const line = element("div", "kernel-name");
    const code = element("code", "", name);
    code.title = "Show the whole name";
    code.addEventListener("click", () => line.classList.toggle("open"));
    const button = element("button", "copy", "copy");
    button.type = "button";
    button.setAttribute("aria-label", "Copy the kernel's name");
    button.addEventListener("click", () => copy(name, button));
    line.append(code, button);
    if (stage !== undefined && hasTimeline) line.append(toTimeline(name, { kernel: name, stage: stage === "(unattributed)" ? null : stage }));
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
      cell.append(second.style === "name" ? fullName(below, stageOf(row)) : element("div", "note", below));
    }
    return cell;
  };
  const NAME = places.find((column) => column.key === "name");
  const isChosen = (row) => links.state.kernel !== null && valueOf(row, NAME) === links.state.kernel && links.shows(stageOf(row));
  const kernelRow = (row) => {
    const shapes = kernels.shapes[row.number] ?? [];
    const made = element("tr");
    made.append(...columns.map((column, place) => kernelCell(row, column, place, shapes)));
    if (isChosen(row)) made.className = "chosen";
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
  const searched = (row) => places.filter((column) => column.type === "string").map((column) => valueOf(row, column) ?? "").join(" ");
  const addedUp = (rows, column) => {
    if (!column.adds || (column.within && new Set(rows.map(stageOf)).size > 1)) return "";
    const values = rows.map((row) => row[column.index]);
    return values.includes(null) ? "" : written(column.style, values.reduce((sum, value) => sum + value, 0), column.digits);
  };
  const foundKernels = () => {
    const found = allRows.filter((row) => {
      if (!links.shows(stageOf(row))) return false;
      const text = searched(row);
      return state.found.every((each) => each.test(text));
    });
    return { found, ordered: sorted(found, sortValue(columns[state.column]), state.descending) };
  };
  const showKernels = () => {
    const { found, ordered } = foundKernels();
    const shown = state.all ? ordered : ordered.slice(0, LIMIT);
    table.tBodies[0].replaceChildren(...shown.flatMap(kernelRow));
    const foot = element("tr");
    foot.append(...columns.map((column, place) => (place
      ? element("td", column.align === "right" ? "n" : "t", addedUp(found, column))
      : element("td", "t", `Total of ${count(found.length)} kernels`))));
    table.tFoot.replaceChildren(foot);
    const told = `${count(shown.length)} of ${count(found.length)} shown`;
    at("kernel-count").textContent = told;
    at("kernel-more").hidden = shown.length === ordered.length;
    at("kernel-more").textContent = `Show all ${count(ordered.length)}`;
    return told;
  };
  const head = element("tr");
  for (const column of columns) {
    const cell = element("th", column.align === "right" ? "n" : "t", column.label);
    cell.scope = "col";
    cell.dataset.key = column.key;
    if (column.unit) cell.append(" ", element("small", "", column.unit));
    if (column.definition) cell.dataset.def = column.definition;
    head.append(cell);
  }
  table.tHead.append(head);
  sortable("kernels", [...head.cells], state.column, (column, descending) => { Object.assign(state, { column, descending }); showKernels(); });
  searchField("kernels", at("kernel-search"), at("kernel-count"), (found) => { state.found = found; return showKernels(); });
  at("kernel-more").addEventListener("click", () => { state.all = true; showKernels(); });
  const kernelTools = element("div", "table-tools");
  const shapeText = (value) => (Array.isArray(value) ? value.join("x") : value);
  tools(
    kernelTools, "kernels",
    () => [columns.map((column) => (column.unit ? `${column.label} ${column.unit}` : column.label)), ...foundKernels().ordered.map((row) => columns.map((column) => written(column.style, valueOf(row, column), column.digits)))],
    () => [places.map((column) => column.key), ...foundKernels().ordered.map((row) => places.map((column) => shapeText(valueOf(row, column))))],
    () => columns.map((column) => column.align === "right"),
  );
  table.closest(".scroll").before(kernelTools);
  showKernels();
  at("note-kernels").textContent = kernels.folded.map((one) => `${one.stage}: ${count(one.kernels)} more kernels, ${one.sums.join(", ")} together, are in kernels.parquet only.`).join(" ");

  // --- what the address says -------------------------------------------------------------------------------------
  tables.offerStages([...allRows.map(stageOf), ...(data.modules ? data.modules.rows.map((row) => row[0]) : []), ...(data.timeline ? data.timeline.instances.map((one) => one.stage) : [])]);
  const chosenRow = () => table.querySelector("tr.chosen");
  // Bring the row of a kernel into view; false: it is not on the page.
  const goTo = (name, stage) => {
    links.set({ kernel: name, stage: links.stage() === "all" ? null : stage });
    const row = chosenRow();
    if (row) tables.reveal(row);
    return Boolean(row);
  };
  links.on((changed) => {
    if (changed.has("stage")) state.all = false;
    if (changed.has("kernel")) {
      const { ordered } = foundKernels();
      if (ordered.findIndex(isChosen) >= LIMIT) state.all = true;
    }
    if (changed.has("stage") || changed.has("kernel")) showKernels();
  });
  page.on("print", () => { state.all = true; showKernels(); });
  page.on("printed", () => { state.all = false; showKernels(); });
  return { goTo };
})();
