// The tables of a page: sorting, searching, the stage filter, copying, and finding a row by what the address says.
const tables = (() => {
  const { at, element, segmented } = page;
  const { count } = figures;

  const compare = (a, b) => {
    if (a === null || b === null) return a === b ? 0 : a === null ? 2 : -2;
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
  };
  // Unknown stays last, whichever way the column is sorted.
  const sorted = (rows, key, descending) => rows.toSorted((a, b) => {
    const order = compare(key(a), key(b));
    return Math.abs(order) === 2 && (key(a) === null || key(b) === null) ? order : descending ? -order : order;
  });
  // The column by which a table is sorted, as the address has it: its heading, "-" in front where it descends.
  const headingOf = (head) => head.dataset.key ?? head.textContent.replace(/\s+/g, " ").trim();
  const sorts = new Map();
  const places = new Map();
  const sortable = (id, heads, start, apply) => {
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
        links.set({ table: id, sort: `${descending ? "-" : ""}${headingOf(head)}`, ...(links.state.table === id ? {} : { search: null }) });
      };
      head.addEventListener("click", choose);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); } });
    });
    if (start >= 0) show();
    places.set(id, heads[0].closest("table"));
    sorts.set(id, (text) => {
      const index = heads.findIndex((head) => headingOf(head) === text.replace(/^-/, ""));
      if (index < 0) return;
      column = index;
      descending = text.startsWith("-");
      show();
      apply(column, descending);
    });
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const value = (row, column) => {
      const raw = row.cells[column].dataset.v;
      if (raw === undefined) return null;
      return raw !== "" && Number.isFinite(Number(raw)) ? Number(raw) : raw;
    };
    sortable(table.id, heads, -1, (column, descending) => body.append(...sorted([...body.rows], (row) => value(row, column), descending)));
  }

  // --- searching, and the stage filter ---------------------------------------------------------------------------
  // Words are regular expressions, all of which must be found; null: one is none.
  const expressions = (text) => {
    try {
      return text.split(/\s+/).filter(Boolean).map((word) => new RegExp(word, "i"));
    } catch {
      return null;
    }
  };
  const searches = new Map();
  // A field that searches a table: filter(expressions) says how many rows of how many it leaves.
  const searchField = (id, field, told, filter) => {
    const wrong = element("span", "wrong");
    wrong.setAttribute("role", "alert");
    field.after(wrong);
    field.title = "Words, each a regular expression: rows in which all are found";
    const search = () => {
      const found = expressions(field.value);
      field.setAttribute("aria-invalid", String(found === null));
      wrong.textContent = found === null ? " not a regular expression" : "";
      if (found !== null) told.textContent = filter(found);
    };
    field.addEventListener("input", () => {
      search();
      links.set({ table: id, search: field.value || null, ...(links.state.table === id ? {} : { sort: null }) }, "replace");
    });
    searches.set(id, (text) => {
      if (text !== null) field.value = text;
      search();
    });
  };
  const stageColumn = (table) => [...table.tHead.rows[0].cells].findIndex((head) => head.textContent.trim() === "Stage");

  // --- copying ---------------------------------------------------------------------------------------------------
  const FORMULA = /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/;
  // The dialect of kernels.csv: a text that a spreadsheet would take for a formula has an apostrophe in front.
  const csvCell = (value) => {
    if (value === null || value === undefined) return "";
    const text = typeof value === "string" && FORMULA.test(value) ? `'${value}` : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = (rows) => rows.map((row) => `${row.map(csvCell).join(",")}\n`).join("");
  const markdownCell = (text) => String(text).replace(/[\\|`*_<>[\]]/g, "\\$&").replace(/\s+/g, " ").trim();
  const markdown = ([head, ...rows], right) => [head, head.map((_, place) => (right[place] ? "---:" : "---")), ...rows]
    .map((row, number) => `| ${row.map((cell) => (number === 1 ? cell : markdownCell(cell))).join(" | ")} |\n`).join("");
  const copy = (text, button) => {
    const before = button.textContent;
    const done = () => { button.textContent = "copied"; setTimeout(() => { button.textContent = before; }, 1200); };
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
  const download = (name, text) => {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const tool = (text, label, act) => {
    const button = element("button", "copy", text);
    button.type = "button";
    button.setAttribute("aria-label", label);
    button.addEventListener("click", () => act(button));
    return button;
  };
  // Buttons of a table: read() gives { head, rows } as shown, values() as numbers; right: columns of numbers.
  const tools = (holder, id, read, values, right) => holder.append(
    tool("copy as Markdown", `Copy the table ${id} as Markdown`, (button) => copy(markdown(read(), right()), button)),
    tool("download CSV", `Download the table ${id} as CSV`, () => download(`${id}.csv`, csv(values()))),
  );
  for (const button of document.querySelectorAll("button[data-copies]")) {
    button.addEventListener("click", () => copy(at(button.dataset.copies).textContent, button));
  }

  const toTimeline = (label, patch) => {
    const button = element("button", "to-timeline", "in timeline");
    button.type = "button";
    button.setAttribute("aria-label", `Show ${label} in the timeline`);
    button.addEventListener("click", () => links.set({ op: null, kernel: null, module: null, ...patch }));
    return button;
  };
  const hasTimeline = at("timeline-data") !== null;

  // What the templates wrote: each table can be copied, long ones searched, and rows and tables of one stage filtered.
  const SEARCHED = 8;
  const written_tables = new Map();
  for (const table of document.querySelectorAll("table[id]:not(#kernel-table)")) {
    if (table.closest(".unscripted")) continue;
    const { id } = table;
    const box = table.closest(".scroll") ?? table;
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const bar = element("div", "table-tools");
    const own = document.querySelector(`input[data-filters="${CSS.escape(id)}"]`);
    const told = own ? document.querySelector(`[data-counts="${CSS.escape(id)}"]`) : element("span", "note");
    const place = stageColumn(table);
    let looked = [];
    const filter = () => {
      const rows = [...body.rows];
      for (const row of rows) {
        const text = row.textContent;
        const staged = place < 0 || links.shows(row.cells[place].textContent.trim());
        row.hidden = !staged || !looked.every((each) => each.test(text));
      }
      // The total is that of all rows, so it goes with the first that is hidden.
      const left = rows.filter((row) => !row.hidden).length;
      if (table.tFoot) table.tFoot.hidden = left < rows.length;
      return looked.length || left < rows.length ? `${count(left)} of ${count(rows.length)} rows` : "";
    };
    const narrow = (found) => { looked = found; return filter(); };
    if (own) searchField(id, own, told, narrow);
    else if (body.rows.length >= SEARCHED) {
      const label = element("label", "", "Search ");
      const field = element("input");
      field.type = "search";
      field.autocomplete = "off";
      field.spellcheck = false;
      label.append(field);
      told.setAttribute("aria-live", "polite");
      bar.append(label, told);
      searchField(id, field, told, narrow);
    }
    const lines = () => [...body.rows].filter((row) => !row.hidden);
    const textOf = (cell) => [...cell.childNodes].filter((node) => !(node.classList?.contains("to-timeline"))).map((node) => (node.tagName === "BR" ? " " : node.textContent)).join("").trim();
    const valueOf = (cell) => (cell.dataset.v !== undefined && cell.dataset.v !== "" && Number.isFinite(Number(cell.dataset.v)) ? Number(cell.dataset.v) : textOf(cell) === "n/a" ? null : textOf(cell));
    const table_rows = (write) => [heads.map((head) => headingOf(head)), ...lines().map((row) => [...row.cells].map(write))];
    tools(bar, id, () => table_rows(textOf), () => table_rows(valueOf), () => heads.map((head) => head.classList.contains("n")));
    (box.closest(".bounded") ?? box).before(bar);
    // Modules lead to the timeline.
    if (hasTimeline && /^(modules|module_kinds|kernel_modules)_/.test(id)) {
      const stage = id.replace(/^(modules|module_kinds|kernel_modules)_/, "");
      for (const row of body.rows) {
        const module = row.cells[0].textContent.trim();
        row.dataset.module = module;
        row.cells[0].append(" ", toTimeline(module, { module, stage: stage === "all" || stage === "capture" ? links.state.stage : stage }));
      }
    }
    written_tables.set(id, { table, filter: () => { told.textContent = filter(); } });
  }
  // Everything around a table of one stage goes with it: its heading, its tools, its note.
  let stages = [];
  const stagesShown = () => {
    for (const each of document.querySelectorAll("[data-stage]")) each.hidden = !links.shows(each.dataset.stage);
    for (const { table, filter } of written_tables.values()) {
      filter();
      const name = stages.find((stage) => table.id.endsWith(`_${stage}`));
      if (name === undefined || table.closest(".stage")) continue;
      // A fold goes with its tables if they are all of that stage.
      const fold = table.closest("details");
      const alone = fold && [...fold.querySelectorAll("table[id]")].every((each) => each.id.endsWith(`_${name}`));
      const outer = alone ? fold : table.closest(".bounded") ?? table.closest(".scroll") ?? table;
      const around = [outer];
      for (let each = outer.previousElementSibling; each?.matches("h3, .tools, .table-tools"); each = each.previousElementSibling) {
        around.push(each);
        if (each.matches("h3")) break;
      }
      if (outer.nextElementSibling?.matches(".note")) around.push(outer.nextElementSibling);
      for (const each of around) each.hidden = !links.shows(name);
    }
  };

  // --- the stage filter, and what the address says ---------------------------------------------------------------
  const inOrder = (stage) => ["prefill", "decode"].indexOf(stage) + 1 || (stage === "(unattributed)" ? 9 : 8);
  const filter = at("stage-filter");
  // Let the reader choose among the stages that the page shows.
  const offerStages = (named) => {
    stages = [...new Set(named)].toSorted((a, b) => inOrder(a) - inOrder(b));
    if (!filter || stages.length < 2) return;
    filter.className = "segmented";
    filter.setAttribute("role", "group");
    filter.setAttribute("aria-label", "Stage shown on this page");
    segmented(filter, ["all", ...stages], "all", (name) => links.set({ stage: name === "all" ? null : name }));
  };
  // The row of a module, in the table of its stage, its layers folded or not.
  const fits = (pattern, path) => pattern === path || (pattern.includes("*") && new RegExp(`^${pattern.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&")).join("\\d+")}$`).test(path));
  const moduleRowsOf = (path) => [...document.querySelectorAll("tr[data-module]")].filter((row) => row.dataset.module === path || fits(row.dataset.module, path));
  const reveal = (row) => {
    for (let outer = row.closest("details"); outer; outer = outer.parentElement.closest("details")) outer.open = true;
    row.scrollIntoView({ block: "center" });
    row.tabIndex = -1;
    row.focus({ preventScroll: true });
  };
  // Bring the row of a module into view; false: it is not on the page.
  const goToModule = (path) => {
    const row = moduleRowsOf(path).find((each) => each.offsetParent || each.closest("details")?.offsetParent);
    if (row) reveal(row);
    return Boolean(row);
  };
  links.on((changed, moved) => {
    if (changed.has("stage")) {
      for (const button of filter?.children ?? []) button.setAttribute("aria-pressed", String(button.textContent === links.stage()));
      stagesShown();
    }
    if (changed.has("module")) {
      const rows = new Set(links.state.module === null ? [] : moduleRowsOf(links.state.module));
      for (const row of document.querySelectorAll("tr[data-module]")) row.classList.toggle("chosen", rows.has(row));
    }
    if (moved && links.state.table !== null && (changed.has("table") || changed.has("sort") || changed.has("search"))) {
      const { table: id, sort, search } = links.state;
      if (sort !== null) sorts.get(id)?.(sort);
      searches.get(id)?.(search ?? "");
      (places.get(id) ?? at(id))?.scrollIntoView({ block: "nearest" });
    }
  });
  return { sorted, sortable, searchField, tools, copy, toTimeline, hasTimeline, offerStages, fits, reveal, goToModule };
})();
