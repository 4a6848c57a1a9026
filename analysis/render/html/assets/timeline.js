// The trace event by event, on a canvas. The packed events are unpacked when the timeline is first looked at; a frame draws
// at most one mark per pixel and track, whatever the number of events: rows are found by binary search, and what lies
// within one pixel is added up by differences of running sums.
const timeline = (() => {
  const { at, element, colour, stageColour } = page;
  const { count, duration } = figures;
  const holder = at("timeline");
  const packed = at("timeline-data");
  if (!holder || !packed) return null;
  holder.hidden = false;

  const canvas = at("timeline-canvas");
  const overview = at("timeline-overview");
  const tip = at("timeline-tip");
  const detail = at("timeline-detail");
  const brush = canvas.getContext("2d");
  const small = overview.getContext("2d");
  const AXIS = 22;
  const SHORTEST_GAP_NS = 1000;
  const CLOSEST_NS = 200;
  const MAX_TRACKS = 64;
  const PAINTS = 8;
  const HEIGHTS = { image: 16, stage: 20, step: 16, module: 16, other: 14, call: 18, "other call": 12, stream: 26, idle: 14 };
  canvas.style.height = "320px";

  // --- unpacking -------------------------------------------------------------------------------------------------
  const bytesOf = (text) => {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const raw = atob(text);
    const bytes = new Uint8Array(raw.length);
    for (let place = 0; place < raw.length; place += 1) bytes[place] = raw.charCodeAt(place);
    return bytes;
  };
  // A column: its bytes lowest first, plane by plane; with "sums", differences that begin anew in each track.
  const column = (bytes, offset, about, firsts) => {
    const values = about.name === "start" || about.name === "duration" || about.name === "busy" ? new Float64Array(about.rows) : new Int32Array(about.rows);
    let weight = 1;
    for (let plane = 0; plane < about.bytes; plane += 1) {
      const from = offset + plane * about.rows;
      for (let row = 0; row < about.rows; row += 1) values[row] += bytes[from + row] * weight;
      weight *= 256;
    }
    if (about.signed) for (let row = 0; row < about.rows; row += 1) values[row] = values[row] % 2 ? -(values[row] + 1) / 2 : values[row] / 2;
    if (about.sums) for (let row = 1; row < about.rows; row += 1) if (!firsts.has(row)) values[row] += values[row - 1];
    return values;
  };
  const unpack = async () => {
    const stream = new Blob([bytesOf(packed.textContent)]).stream().pipeThrough(new DecompressionStream("deflate"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    const length = new DataView(bytes.buffer).getUint32(0, true);
    const head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
    const tables_of = { operations: {}, calls: {}, others: {}, ranges: {} };
    let offset = 4 + length;
    for (const about of head.columns) {
      const firsts = new Set(head.tracks.filter((track) => track.table === about.table).map((track) => track.from));
      tables_of[about.table][about.name] = column(bytes, offset, about, firsts);
      offset += about.rows * about.bytes;
    }
    return { head, ...tables_of };
  };

  // --- what is drawn ---------------------------------------------------------------------------------------------
  let trace = null;
  let tracks = [];
  let height = 0;
  let whole = [0, 1];
  let home = [0, 1];
  let view = [0, 1];
  let zero = 0; // where the axis counts from
  let selected = null; // { track, row }
  let lit = null; // which operations are highlighted: { mask, sums, rows, name }
  let paints = {};
  const endOf = (track, row) => track.start[row] + track.duration[row];

  const runningSums = (weights, extra = null) => {
    const sums = new Float64Array(weights.length + 1);
    for (let row = 0; row < weights.length; row += 1) sums[row + 1] = sums[row] + (extra === null || extra(row) ? weights[row] : 0);
    return sums;
  };
  // The latest end up to each row: where rows overlap, what begins earlier may reach further.
  const latestEnds = (table, from, to, ends) => {
    let latest = -Infinity;
    for (let row = from; row < to; row += 1) {
      latest = Math.max(latest, table.start[row] + table.duration[row]);
      ends[row] = latest;
    }
  };
  // Idle time of a device: what no operation of it covers.
  const idleOf = (device) => {
    const mine = tracks.filter((track) => track.kind === "stream" && track.device === device);
    const rows = mine.flatMap((track) => Array.from({ length: track.to - track.from }, (_, place) => track.from + place));
    const { start, duration: lengths } = trace.operations;
    if (mine.length > 1) rows.sort((a, b) => start[a] - start[b]);
    const starts = [];
    const durations = [];
    let end = rows.length ? start[rows[0]] : 0;
    for (const row of rows) {
      if (start[row] - end >= SHORTEST_GAP_NS) {
        starts.push(end);
        durations.push(start[row] - end);
      }
      end = Math.max(end, start[row] + lengths[row]);
    }
    return { start: Float64Array.from(starts), duration: Float64Array.from(durations) };
  };
  const ORDER = ["image", "stage", "step", "module", "other", "call", "other call", "stream", "idle"];
  const prepare = () => {
    const { head } = trace;
    for (const name of ["operations", "calls", "others", "ranges"]) {
      const table = trace[name];
      table.ends = new Float64Array(table.start.length);
      table.sums = runningSums(name === "operations" && table.busy ? table.busy : table.duration);
    }
    const { kernels } = trace.head;
    // Colours by category, the one with the most time first.
    const spent = kernels.categories.map(() => 0);
    const operations = trace.operations;
    for (let row = 0; row < operations.start.length; row += 1) spent[kernels.category[operations.name[row]]] += operations.duration[row];
    const order = spent.map((_, code) => code).toSorted((a, b) => spent[b] - spent[a]);
    trace.rank = spent.map((_, code) => Math.min(PAINTS, order.indexOf(code)));
    trace.categoryOrder = order.filter((code) => spent[code] > 0);
    operations.paint = new Uint8Array(operations.start.length);
    for (let row = 0; row < operations.start.length; row += 1) operations.paint[row] = trace.rank[kernels.category[operations.name[row]]];
    operations.byPaint = Array.from({ length: PAINTS + 1 }, (_, paint) => runningSums(operations.duration, (row) => operations.paint[row] === paint));
    trace.calls.byPaint = head.kinds.map((_, kind) => runningSums(trace.calls.duration, (row) => trace.calls.kind[row] === kind));
    tracks = head.tracks.map((track) => {
      const { start, duration: lengths, ends, sums } = trace[track.table];
      return { ...track, start, duration: lengths, ends, sums, height: HEIGHTS[track.kind] };
    });
    for (const track of tracks) latestEnds(trace[track.table], track.from, track.to, trace[track.table].ends);
    for (const device of new Set(tracks.filter((track) => track.kind === "stream").map((track) => track.device))) {
      const idle = idleOf(device);
      const { of } = tracks.find((track) => track.device === device);
      const ends = new Float64Array(idle.start.length);
      latestEnds(idle, 0, idle.start.length, ends);
      tracks.push({ table: "idle", kind: "idle", device, of, label: "idle", from: 0, to: idle.start.length, ...idle, ends, sums: runningSums(idle.duration), height: HEIGHTS.idle });
    }
    const rank = (track) => (track.kind === "stream" || track.kind === "idle" ? 1 : 0);
    tracks = tracks.filter((track) => track.to > track.from).toSorted((a, b) => rank(a) - rank(b) || (a.thread ?? 0) - (b.thread ?? 0) || String(a.device ?? "").localeCompare(String(b.device ?? "")) || ORDER.indexOf(a.kind) - ORDER.indexOf(b.kind) || (a.depth ?? 0) - (b.depth ?? 0));
    trace.tracksLeftOut = 0;
    if (tracks.length > MAX_TRACKS) {
      const most = new Set(tracks.toSorted((a, b) => (b.kind === "stream") - (a.kind === "stream") || (b.to - b.from) - (a.to - a.from)).slice(0, MAX_TRACKS));
      trace.tracksLeftOut = tracks.length - most.size;
      tracks = tracks.filter((track) => most.has(track));
    }
    let top = AXIS;
    let group = null;
    for (const track of tracks) {
      if (track.of !== group) top += 18;
      track.heads = track.of !== group;
      group = track.of;
      track.top = top;
      top += track.height + 2;
    }
    height = top + 6;
    const ends = tracks.map((track) => track.ends[track.to - 1]);
    whole = [Math.min(...tracks.map((track) => track.start[track.from])), Math.max(...ends)];
    const stages = tracks.filter((track) => track.kind === "stage");
    const worked = tracks.filter((track) => track.kind === "stream");
    const shown = stages.length ? stages : worked.length ? worked : tracks;
    home = [Math.min(...shown.map((track) => track.start[track.from])), Math.max(...shown.map((track) => track.ends[track.to - 1]))];
    [zero] = home;
    trace.zeroIs = stages.length ? "the first stage" : worked.length ? "the first GPU operation" : "the first event";
    const margin = 0.01 * (home[1] - home[0]) || 1;
    home = [home[0] - margin, home[1] + margin];
    whole = [Math.min(whole[0], home[0]), Math.max(whole[1], home[1])];
    view = [...home];
  };

  // --- colours ---------------------------------------------------------------------------------------------------
  const luminance = (paint) => {
    const [red, green, blue] = (paint.match(/[\d.]+/g) ?? [0, 0, 0]).map(Number);
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255;
  };
  const CALLS = { launch: "launching", "graph launch": "launching", synchronise: "synchronising", "copy or set": "other", other: "outside" };
  const takeColours = () => {
    const kernels = Array.from({ length: PAINTS }, (_, number) => colour(`paint-${number}`));
    paints = {
      ink: colour("ink"), muted: colour("muted"), line: colour("line"), card: colour("card"), soft: colour("soft"), rest: colour("paint-rest"),
      stage: new Map(), kernels: [...kernels, colour("paint-rest")], idle: colour("idle"),
      calls: (trace?.head.kinds ?? []).map((kind) => colour(CALLS[kind])),
    };
    for (const name of trace?.head.stages ?? []) paints.stage.set(name, stageColour(name));
    paints.text = new Map([...paints.kernels, ...paints.calls, ...paints.stage.values(), paints.rest, paints.idle].map((paint) => [paint, luminance(paint) > 0.55 ? "#10141b" : "#ffffff"]));
  };
  const rangeName = (row) => trace.head.ranges.names[trace.ranges.name[row]];
  const families = new Map();
  const familyPaint = (name) => {
    const family = name.replace(/\d+/g, "*").split(".").slice(0, 2).join(".");
    if (!families.has(family)) families.set(family, families.size % PAINTS);
    return paints.kernels[families.get(family)];
  };
  const paintOf = (track, row) => {
    if (track.kind === "stream") return paints.kernels[trace.operations.paint[row]];
    if (track.kind === "call" || track.kind === "other call") return paints.calls[track.kind === "call" ? trace.calls.kind[row] : trace.others.kind[row]];
    if (track.kind === "idle") return paints.idle;
    const name = rangeName(row);
    if (track.kind === "module") return familyPaint(name);
    const stage = track.kind === "stage" ? trace.ranges.stage[row] : 0;
    return stage ? paints.stage.get(trace.head.stages[stage - 1]) : paints.rest;
  };
  // Of what lies within one pixel, the colour of what took most of its time.
  const mixedPaint = (track, from, to) => {
    const kinds = track.kind === "stream" ? trace.operations.byPaint : track.kind === "call" ? trace.calls.byPaint : null;
    if (kinds === null) return paintOf(track, (from + to) >> 1);
    let most = -1;
    let which = 0;
    for (let kind = 0; kind < kinds.length; kind += 1) {
      const spent = kinds[kind][to] - kinds[kind][from];
      if (spent > most) { most = spent; which = kind; }
    }
    return (track.kind === "stream" ? paints.kernels : paints.calls)[which];
  };

  // --- finding rows ----------------------------------------------------------------------------------------------
  // The first row of [from, to) whose value is at least (or, with "above", more than) a bound.
  const firstAtLeast = (values, from, to, bound) => {
    let low = from;
    let high = to;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[middle] < bound) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  // The same, for a bound that is near: steps that double, then the search between the last two.
  const nearAtLeast = (values, from, to, bound) => {
    let step = 1;
    let low = from;
    while (low + step < to && values[low + step] < bound) { low += step; step *= 2; }
    return firstAtLeast(values, low, Math.min(to, low + step + 1), bound);
  };

  // --- drawing ---------------------------------------------------------------------------------------------------
  let width = 0;
  let left = 118;
  let ratio = 1;
  const size = () => {
    width = canvas.clientWidth;
    left = width < 560 ? 8 : 118;
    ratio = Math.min(2, window.devicePixelRatio || 1);
    canvas.style.height = `${height}px`;
    for (const [each, high] of [[canvas, height], [overview, 40]]) {
      each.width = Math.max(1, Math.round(each.clientWidth * ratio));
      each.height = Math.max(1, Math.round(high * ratio));
    }
    trace.covered = null;
  };
  const scale = () => (width - left - 6) / (view[1] - view[0]);
  const xOf = (time) => left + (time - view[0]) * scale();
  const timeAt = (x) => view[0] + (x - left) / scale();
  const shortName = (track, row) => {
    if (track.kind === "stream") return trace.operations.count && trace.operations.count[row] > 1 ? `${count(trace.operations.count[row])} operations` : trace.head.kernels.words[trace.operations.name[row]];
    if (track.kind === "call") return trace.calls.count && trace.calls.count[row] > 1 ? `${count(trace.calls.count[row])} calls` : trace.head.calls.names[trace.calls.name[row]];
    if (track.kind === "other call") return "other call";
    if (track.kind === "idle") return duration(track.duration[row]);
    if (track.kind === "step") return `step ${count(row - track.from)}`;
    return rangeName(row);
  };
  const FAINT = 0.16;
  // Marks of one track. Of neighbouring pixels with one colour and density one rectangle is made.
  const drawTrack = (track) => {
    const { start, duration: lengths, sums, from, to, top } = track;
    const k = scale();
    const [t0, t1] = view;
    const right = width - 6;
    const high = track.height;
    const masked = track.kind === "stream" ? lit : null;
    const strength = track.kind === "idle" ? 0.4 : 1;
    let row = firstAtLeast(track.ends, from, to, t0);
    let run = null;
    const flush = () => {
      if (run === null) return;
      brush.globalAlpha = run.alpha * strength;
      brush.fillStyle = run.paint;
      brush.fillRect(run.x, top, run.wide, high);
      run = null;
    };
    const mark = (x, wide, paint, alpha) => {
      if (run !== null && run.paint === paint && run.alpha === alpha && x <= run.x + run.wide + 0.01) {
        run.wide = Math.max(run.wide, x + wide - run.x);
        return;
      }
      flush();
      run = { x, wide, paint, alpha };
    };
    const labels = [];
    while (row < to && start[row] < t1) {
      const x = left + (start[row] - t0) * k;
      const wide = lengths[row] * k;
      if (wide >= 1) {
        const clipped = Math.max(x, left);
        const end = Math.min(x + wide, right);
        const paint = paintOf(track, row);
        const dark = masked !== null && masked.mask[row] === 0;
        if (end > clipped) {
          flush();
          mark(clipped, Math.max(1, end - clipped - (wide > 3 ? 0.5 : 0)), paint, dark ? FAINT : 1);
          flush();
          if (end - clipped > 34 && high >= 14) labels.push([clipped, end, row, paint, dark]);
        }
        row += 1;
        continue;
      }
      const pixel = Math.max(left, Math.floor(x));
      const until = t0 + (pixel + 1 - left) / k;
      let next = nearAtLeast(start, row, to, until);
      if (next <= row) next = row + 1;
      // Only the last of them can reach further than its pixel.
      if (next > row + 1 && lengths[next - 1] * k >= 1) next -= 1;
      const covered = Math.min(1, (sums[next] - sums[row]) * k);
      const density = 0.35 + 0.65 * (Math.ceil(covered * 4) / 4);
      if (masked === null) mark(pixel, 1, mixedPaint(track, row, next), density);
      else if (masked.counts[next] > masked.counts[row]) mark(pixel, 1, mixedPaint(track, row, next), 1);
      else mark(pixel, 1, mixedPaint(track, row, next), FAINT * density);
      row = next;
    }
    flush();
    brush.globalAlpha = 1;
    for (const [x, end, which, paint, dark] of labels) {
      const fits = Math.floor((end - x - 6) / 6.1);
      const name = shortName(track, which);
      brush.fillStyle = dark ? paints.muted : track.kind === "idle" ? paints.ink : paints.text.get(paint) ?? paints.ink;
      brush.fillText(name.length > fits ? (track.kind === "module" ? `…${name.slice(name.length - fits + 1)}` : `${name.slice(0, Math.max(1, fits - 1))}…`) : name, x + 3, top + high / 2);
    }
  };
  const NICE = [1, 2, 5];
  // A time of the axis, with as many digits as tell one tick from the next.
  const tickText = (time, step) => {
    const [unit, each] = step >= 1e8 ? ["s", 1e9] : ["ms", 1e6];
    return `${figures.decimal(time / each, Math.max(0, Math.ceil(-Math.log10(step / each) - 1e-9)))} ${unit}`;
  };
  const drawAxis = () => {
    const span = view[1] - view[0];
    const rough = span / Math.max(2, (width - left) / 110);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * (NICE.find((nice) => nice * power >= rough) ?? 10);
    brush.fillStyle = paints.muted;
    brush.strokeStyle = paints.line;
    brush.lineWidth = 1;
    brush.beginPath();
    for (let tick = Math.ceil((view[0] - zero) / step); zero + tick * step < view[1]; tick += 1) {
      const x = Math.round(xOf(zero + tick * step)) + 0.5;
      brush.moveTo(x, 16);
      brush.lineTo(x, height);
      const time = Math.round(tick * step) + 0; // + 0: the tick at the origin may be −0
      if (x < width - 54) brush.fillText(tickText(time, step), x + 3, 9);
    }
    brush.stroke();
  };
  const drawLabels = () => {
    brush.fillStyle = paints.muted;
    for (const track of tracks) {
      if (track.heads) brush.fillText(track.of, 8, track.top - 9);
      if (width >= 560 && track.label) brush.fillText(track.label, 14, track.top + track.height / 2);
    }
  };
  const trackOf = (kind, test) => tracks.find((track) => track.kind === kind && test(track));
  const rowTrack = (table, row) => tracks.find((track) => track.table === table && row >= track.from && row < track.to);
  const callOf = (row) => trace.operations.call[row] - 1;
  const drawSelection = () => {
    if (selected === null) return;
    const { track, row } = selected;
    const x = Math.max(left, xOf(track.start[row]));
    const end = Math.min(width - 6, xOf(endOf(track, row)));
    brush.strokeStyle = paints.ink;
    brush.lineWidth = 2;
    if (end >= left && x <= width - 6) brush.strokeRect(x - 1, track.top - 1, Math.max(3, end - x + 2), track.height + 2);
    if (track.kind !== "stream") return;
    const call = callOf(row);
    const host = call < 0 ? null : rowTrack("calls", call);
    if (!host) return;
    // From where the call was made to where the kernel began.
    brush.save();
    brush.beginPath();
    brush.rect(left, AXIS, width - left - 6, height);
    brush.clip();
    brush.beginPath();
    const from = xOf(host.start[call]);
    const to = xOf(track.start[row]);
    const low = host.top + host.height;
    brush.moveTo(from, low);
    brush.bezierCurveTo(from, (low + track.top) / 2, to, (low + track.top) / 2, to, track.top);
    brush.stroke();
    brush.strokeRect(from - 1, host.top - 1, Math.max(3, host.duration[call] * scale() + 2), host.height + 2);
    brush.restore();
  };
  // Share of each pixel of the overview in which a GPU worked.
  const coverage = () => {
    if (trace.covered) return trace.covered;
    const pixels = Math.max(1, Math.round(overview.clientWidth));
    const busy = new Float64Array(pixels);
    const per = (whole[1] - whole[0]) / pixels;
    for (const track of tracks.filter((each) => each.kind === "stream")) {
      let row = track.from;
      for (let pixel = 0; pixel < pixels; pixel += 1) {
        const until = whole[0] + (pixel + 1) * per;
        const next = nearAtLeast(track.start, row, track.to, until);
        busy[pixel] = Math.max(busy[pixel], Math.min(1, (track.sums[next] - track.sums[row]) / per));
        row = next;
      }
    }
    trace.covered = busy;
    return busy;
  };
  const drawOverview = () => {
    const wide = overview.clientWidth;
    const busy = coverage();
    small.setTransform(ratio, 0, 0, ratio, 0, 0);
    small.clearRect(0, 0, wide, 40);
    small.fillStyle = paints.kernels[2];
    for (const [pixel, share] of busy.entries()) if (share > 0) small.fillRect(pixel, 38 - 34 * share, 1, 34 * share);
    const per = wide / (whole[1] - whole[0]);
    const from = (view[0] - whole[0]) * per;
    const to = Math.max(from + 3, (view[1] - whole[0]) * per);
    small.globalAlpha = 0.6;
    small.fillStyle = paints.soft;
    small.fillRect(0, 0, from, 40);
    small.fillRect(to, 0, wide - to, 40);
    small.globalAlpha = 1;
    small.strokeStyle = paints.ink;
    small.lineWidth = 1.5;
    small.strokeRect(from, 1, to - from, 38);
  };
  const frame = () => {
    brush.setTransform(ratio, 0, 0, ratio, 0, 0);
    brush.clearRect(0, 0, width, height);
    brush.font = "11px system-ui, sans-serif";
    brush.textBaseline = "middle";
    drawAxis();
    for (const track of tracks) drawTrack(track);
    drawLabels();
    drawSelection();
    drawOverview();
  };
  let asked = 0;
  const redraw = () => {
    if (!trace || asked) return;
    asked = requestAnimationFrame(() => {
      asked = 0;
      frame();
    });
  };

  // --- the window of time ----------------------------------------------------------------------------------------
  let saying = 0;
  const look = (from, to, tell = true) => {
    const span = Math.min(whole[1] - whole[0], Math.max(CLOSEST_NS, to - from));
    const middle = (from + to) / 2;
    const low = Math.min(Math.max(whole[0], middle - span / 2), whole[1] - span);
    view = [low, low + span];
    redraw();
    if (!tell) return;
    clearTimeout(saying);
    saying = setTimeout(() => {
      const text = view[0] === home[0] && view[1] === home[1] ? null : `${Math.round(view[0])}-${Math.round(view[1])}`;
      links.set({ view: text }, "replace");
    }, 200);
  };
  const zoom = (factor, time = (view[0] + view[1]) / 2) => {
    const span = Math.min(whole[1] - whole[0], Math.max(CLOSEST_NS, (view[1] - view[0]) * factor));
    const part = (time - view[0]) / (view[1] - view[0]);
    look(time - part * span, time + (1 - part) * span);
  };
  const pan = (part) => {
    const by = part * (view[1] - view[0]);
    look(view[0] + by, view[1] + by);
  };
  const lookAt = (track, row) => {
    const span = Math.max(track.duration[row] * 12, Math.min(view[1] - view[0], 200_000));
    const call = track.kind === "stream" ? callOf(row) : -1;
    const host = call < 0 ? null : rowTrack("calls", call);
    const from = host ? Math.min(host.start[call], track.start[row]) : track.start[row];
    const middle = (from + endOf(track, row)) / 2;
    const wide = Math.max(span, 1.3 * (endOf(track, row) - from));
    look(middle - wide / 2, middle + wide / 2);
  };

  // --- what is highlighted ---------------------------------------------------------------------------------------
  const highlight = () => {
    const { kernel, module } = links.state;
    const stage = links.stage();
    if (kernel === null && module === null && stage === "all") lit = null;
    else {
      const { head, operations } = trace;
      const names = kernel === null ? null : head.kernels.names.map((name) => name === kernel);
      const modules = module === null ? null : head.modules.map((name) => name !== "" && (tables.fits(module, name) || name.startsWith(`${module}.`)) || (name === "" && module === "(unattributed)"));
      const code = head.stages.indexOf(stage);
      const mask = new Uint8Array(operations.start.length);
      const counts = new Uint32Array(operations.start.length + 1);
      for (let row = 0; row < mask.length; row += 1) {
        if ((names === null || names[operations.name[row]]) && (modules === null || modules[operations.module[row]]) && (stage === "all" || operations.stage[row] === code)) mask[row] = 1;
        counts[row + 1] = counts[row] + mask[row];
      }
      lit = { mask, counts, all: counts[mask.length], of: [kernel === null ? null : head.kernels.words[head.kernels.names.indexOf(kernel)] ?? kernel, module].filter(Boolean).join(" in ") };
    }
    const some = lit !== null && lit.of && lit.all > 0;
    for (const id of ["timeline-previous", "timeline-next"]) at(id).disabled = !some;
    at("timeline-clear").disabled = lit === null || !lit.of;
    at("timeline-highlight").textContent = lit === null || !lit.of ? "" : `${lit.of}: ${count(lit.all)} ${trace.operations.count ? "blocks" : "operations"}${stage === "all" ? "" : ` in ${stage}`}`;
    redraw();
  };
  // The next (1) or previous (-1) highlighted operation from the selected one, or from the left edge.
  const step = (by) => {
    if (lit === null || !lit.all) return;
    const { start } = trace.operations;
    const from = selected?.track.kind === "stream" ? start[selected.row] : by > 0 ? view[0] - 1 : view[1];
    let best = -1;
    for (const track of tracks.filter((each) => each.kind === "stream")) {
      let row = firstAtLeast(start, track.from, track.to, from);
      if (by > 0) {
        while (row < track.to && (start[row] <= from || !lit.mask[row])) row += 1;
        if (row < track.to && (best < 0 || start[row] < start[best])) best = row;
      } else {
        row -= 1;
        while (row >= track.from && !lit.mask[row]) row -= 1;
        if (row >= track.from && (best < 0 || start[row] > start[best])) best = row;
      }
    }
    if (best >= 0) selectOperation(best, "replace");
  };

  // --- what is selected ------------------------------------------------------------------------------------------
  const stepAround = (time, thread) => {
    const track = trackOf("step", (each) => each.thread === thread) ?? null;
    return track ? rowAt(track, time) : -1;
  };
  const rowAt = (track, time) => {
    const row = firstAtLeast(track.start, track.from, track.to, time + 0.5) - 1;
    return row >= track.from && endOf(track, row) >= time ? row : -1;
  };
  const shape = (value) => (value === null ? "n/a" : value.join("×"));
  const kindOf = (track) => ({ stream: "GPU operation", call: "CUDA call", "other call": "CUDA call", idle: "GPU idle", other: "range" })[track.kind] ?? track.kind;
  // What an event is: title and pairs of label and text.
  const facts = (track, row) => {
    const since = track.start[row] - zero;
    const rows = [["duration", duration(track.duration[row])], ["begins", `${duration(Math.abs(since))} ${since < 0 ? "before" : "after"} the start of ${trace.zeroIs}`]];
    if (track.kind === "stream") {
      const { operations, head } = trace;
      const [grid, block, registers, shared] = head.shapes[operations.shape[row]] ?? [null, null, null, null];
      const call = callOf(row);
      const host = call < 0 ? null : rowTrack("calls", call);
      const times = operations.count && operations.count[row] > 1 ? operations.count[row] : 1;
      const module = head.modules[operations.module[row]];
      if (times > 1) rows.push(["block of", `${count(times)} operations, ${duration(operations.busy[row])} together; shown: the longest of them`]);
      rows.push(["category", head.kernels.categories[head.kernels.category[operations.name[row]]]], ["grid, block", `${shape(grid)}, ${shape(block)}`]);
      if (registers !== null) rows.push(["registers", `${count(registers)} a thread${shared === null ? "" : `, ${count(shared)} B of shared memory a block`}`]);
      rows.push(["module", module || "(unattributed)"], ["stage", head.stages[operations.stage[row]]]);
      if (host) {
        const around = stepAround(host.start[call], host.thread);
        if (around >= 0) rows.push(["step", `number ${count(around - trackOf("step", (each) => each.thread === host.thread).from)}`]);
        rows.push(["launched by", `${trace.head.calls.names[trace.calls.name[call]] || "a call"}, which took ${duration(host.duration[call])} and began ${duration(Math.abs(track.start[row] - host.start[call]))} ${track.start[row] < host.start[call] ? "later" : "earlier"}`]);
      } else rows.push(["launched by", "n/a: no call with its correlation id is in the trace"]);
      if (operations.graph[row]) rows.push(["CUDA graph", "replayed by one"]);
      return { title: head.kernels.words[operations.name[row]], name: head.kernels.names[operations.name[row]], rows };
    }
    if (track.kind === "idle") rows.push(["means", "no operation of this GPU ran; idle time below 1 µs is not shown"]);
    if (track.kind === "call") rows.push(["kind", trace.head.kinds[trace.calls.kind[row]]]);
    return { title: track.kind === "idle" ? "GPU idle" : shortName(track, row), name: null, rows: [...rows, ["on", track.of]] };
  };
  const describe = () => {
    const said = at("timeline-selected");
    for (const each of detail.querySelectorAll(":scope > :not(#timeline-selected)")) each.remove();
    if (selected === null) {
      said.textContent = "Nothing is selected.";
      said.className = "note";
      return;
    }
    const { track, row } = selected;
    const { title, name, rows } = facts(track, row);
    said.textContent = `${kindOf(track)}: ${title}, ${rows.map(([label, text]) => `${label} ${text}`).join("; ")}`.slice(0, 600);
    said.className = "unseen";
    const list = element("dl");
    for (const [label, text] of rows) {
      const pair = element("div");
      pair.append(element("dt", "", label), element("dd", "", text));
      list.append(pair);
    }
    detail.append(element("h3", "", title));
    if (name !== null && name !== title) {
      const line = element("p", "note");
      line.append(element("code", "", name));
      detail.append(line);
    }
    detail.append(list);
    const actions = element("p", "event-actions");
    const button = (text, act) => {
      const made = element("button", "", text);
      made.type = "button";
      made.addEventListener("click", act);
      actions.append(made);
    };
    const missing = (text) => { at("timeline-highlight").textContent = text; };
    if (track.kind === "stream") {
      const { operations, head } = trace;
      const stage = head.stages[operations.stage[row]];
      const module = head.modules[operations.module[row]];
      button("Row in the kernel table", () => { if (!kernelTable.goTo(name, stage)) missing("The kernel table has no row of it: it is a copy, or one of many short kernels."); });
      button("All launches of this kernel", () => links.set({ kernel: name, module: null }));
      if (operations.module[row] > 1) {
        button("Row of its module", () => { links.set({ module }); if (!tables.goToModule(module)) missing("The module tables have no row of it on this page."); });
        button("All kernels of its module", () => links.set({ module, kernel: null }));
      }
      const call = callOf(row);
      const host = call < 0 ? null : rowTrack("calls", call);
      if (host) button("Its launch call", () => { select(host, call); lookAt(host, call); });
    } else if (track.kind === "module") {
      const module = rangeName(row);
      button("All kernels of this module", () => links.set({ module, kernel: null }));
      button("Row of this module", () => { links.set({ module }); if (!tables.goToModule(module)) missing("It has no row of its own: it launches nothing itself."); });
    } else if (track.kind === "call") {
      const launched = launchedBy(row);
      if (launched >= 0) button("What it launched", () => { selectOperation(launched, "push"); });
    }
    button("Zoom to it", () => lookAt(track, row));
    detail.append(actions);
  };
  // The first operation that a call launched, -1: none.
  const launchedBy = (call) => {
    if (!trace.launched) {
      trace.launched = new Int32Array(trace.calls.start.length).fill(-1);
      for (let row = trace.operations.start.length - 1; row >= 0; row -= 1) if (callOf(row) >= 0) trace.launched[callOf(row)] = row;
    }
    return trace.launched[call];
  };
  const select = (track, row, how = "push") => {
    selected = track === null ? null : { track, row };
    describe();
    redraw();
    links.set({ op: track?.kind === "stream" ? String(row) : null }, how);
  };
  const selectOperation = (row, how) => {
    const track = rowTrack("operations", row);
    if (!track) return;
    select(track, row, how);
    const x = xOf(track.start[row]);
    if (x < left + 20 || x > width - 30 || track.duration[row] * scale() < 3) lookAt(track, row);
  };

  // --- pointer and keys ------------------------------------------------------------------------------------------
  // The track and row under a point; of several within three pixels the longest.
  const hit = (x, y) => {
    const track = tracks.find((each) => y >= each.top - 1 && y <= each.top + each.height + 1);
    if (!track || x < left - 2) return null;
    const slack = 1.5 / scale();
    const time = timeAt(x);
    let best = -1;
    let row = firstAtLeast(track.ends, track.from, track.to, time - slack);
    for (let looked = 0; row < track.to && track.start[row] <= time + slack && looked < 4000; row += 1, looked += 1) {
      if (endOf(track, row) < time - slack) continue;
      const inside = track.start[row] <= time && endOf(track, row) >= time;
      if (inside && track.duration[row] >= 2 * slack) { best = row; if (track.table !== "calls") break; }
      else if (best < 0 || track.duration[row] > track.duration[best]) best = row;
    }
    return best < 0 ? null : { track, row: best };
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const showTip = (x, y) => {
    const found = hit(x, y);
    if (!found) { tip.hidden = true; return; }
    const { title, rows } = facts(found.track, found.row);
    tip.textContent = [`${kindOf(found.track)}: ${title.slice(0, 160)}`, ...rows.filter(([label]) => ["duration", "module", "stage", "category", "kind", "block of"].includes(label)).map(([label, text]) => `${label} ${text}`)].join("\n");
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 12, width - box.width - 8))}px`;
    tip.style.top = `${y + 16 + box.height > height ? Math.max(0, y - box.height - 10) : y + 16}px`;
  };
  const pointers = new Map();
  let dragged = 0;
  canvas.addEventListener("pointerdown", (event) => {
    if (!trace) return;
    pointers.set(event.pointerId, place(event));
    dragged = 0;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!trace) return;
    const now = place(event);
    if (!pointers.has(event.pointerId)) { showTip(...now); return; }
    tip.hidden = true;
    const before = pointers.get(event.pointerId);
    const others = [...pointers].filter(([id]) => id !== event.pointerId);
    pointers.set(event.pointerId, now);
    if (others.length === 1) {
      const [, [other]] = others[0];
      const [was, is] = [Math.abs(before[0] - other), Math.abs(now[0] - other)];
      if (was > 8 && is > 8) zoom(was / is, timeAt((now[0] + other) / 2));
      dragged += 10;
      return;
    }
    dragged += Math.abs(now[0] - before[0]);
    if (dragged > 4) {
      const by = (before[0] - now[0]) / scale();
      look(view[0] + by, view[1] + by);
    }
  });
  const lift = (event) => {
    if (!pointers.delete(event.pointerId) || !trace) return;
    if (event.type === "pointerup" && dragged <= 4) {
      const found = hit(...place(event));
      select(found?.track ?? null, found?.row ?? 0);
    }
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  // Without Ctrl the wheel scrolls the page, until the timeline has been clicked: nobody is caught in it.
  canvas.addEventListener("wheel", (event) => {
    if (!trace) return;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) pan((event.deltaX || event.deltaY) / width);
    else if (event.ctrlKey || event.metaKey || document.activeElement === canvas) zoom(1.0018 ** event.deltaY, timeAt(place(event)[0]));
    else return;
    event.preventDefault();
  }, { passive: false });
  const beside = (by) => {
    const track = selected?.track ?? tracks.find((each) => each.kind === "stream") ?? tracks[0];
    const row = selected ? selected.row + by : firstAtLeast(track.start, track.from, track.to, view[0]);
    if (row >= track.from && row < track.to) {
      select(track, row, "replace");
      const x = xOf(track.start[row]);
      if (x < left || x > width - 10) look(track.start[row] - (view[1] - view[0]) / 2, track.start[row] + (view[1] - view[0]) / 2);
    }
  };
  const otherTrack = (by) => {
    const track = tracks[Math.min(tracks.length - 1, Math.max(0, (selected ? tracks.indexOf(selected.track) : by > 0 ? -1 : tracks.length) + by))];
    const time = selected ? selected.track.start[selected.row] : view[0];
    const row = Math.min(track.to - 1, firstAtLeast(track.start, track.from, track.to, time));
    select(track, row, "replace");
  };
  canvas.addEventListener("keydown", (event) => {
    if (!trace || event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = {
      ArrowLeft: () => (event.shiftKey ? beside(-1) : pan(-0.2)), ArrowRight: () => (event.shiftKey ? beside(1) : pan(0.2)),
      ArrowUp: () => otherTrack(-1), ArrowDown: () => otherTrack(1),
      "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6), "−": () => zoom(1 / 0.6),
      0: () => look(...whole), Home: () => look(...home), n: () => step(1), p: () => step(-1),
      Enter: () => { if (selected) lookAt(selected.track, selected.row); }, Escape: () => select(null, 0),
    };
    if (!(event.key in acts)) return;
    acts[event.key]();
    event.preventDefault();
  });
  at("timeline-in").addEventListener("click", () => zoom(0.5));
  at("timeline-out").addEventListener("click", () => zoom(2));
  at("timeline-all").addEventListener("click", () => look(...whole));
  at("timeline-home").addEventListener("click", () => look(...home));
  at("timeline-previous").addEventListener("click", () => step(-1));
  at("timeline-next").addEventListener("click", () => step(1));
  at("timeline-clear").addEventListener("click", () => links.set({ kernel: null, module: null }));
  // The overview: drag the window, or outside it a new one.
  let grip = null;
  overview.addEventListener("pointerdown", (event) => {
    if (!trace) return;
    const per = (whole[1] - whole[0]) / overview.clientWidth;
    const time = whole[0] + event.offsetX * per;
    const edge = 6 * per;
    const which = Math.abs(time - view[0]) < edge ? "from" : Math.abs(time - view[1]) < edge ? "to" : time > view[0] && time < view[1] && view[1] - view[0] < 0.98 * (whole[1] - whole[0]) ? "move" : "new";
    grip = { which, time, from: view[0], to: view[1] };
    overview.setPointerCapture(event.pointerId);
  });
  overview.addEventListener("pointermove", (event) => {
    if (grip === null) return;
    const time = whole[0] + (event.offsetX * (whole[1] - whole[0])) / overview.clientWidth;
    if (grip.which === "move") look(grip.from + time - grip.time, grip.to + time - grip.time);
    else if (grip.which === "from") look(Math.min(time, grip.to - CLOSEST_NS), grip.to);
    else if (grip.which === "to") look(grip.from, Math.max(time, grip.from + CLOSEST_NS));
    else if (Math.abs(time - grip.time) > 0) look(Math.min(time, grip.time), Math.max(time, grip.time));
  });
  overview.addEventListener("pointerup", () => { grip = null; });
  overview.addEventListener("pointercancel", () => { grip = null; });

  // --- the beginning ---------------------------------------------------------------------------------------------
  const legend = () => {
    const line = at("timeline-legend");
    line.replaceChildren();
    const entry = (paint, text) => {
      const one = element("span");
      const dot = element("i");
      dot.style.background = paint;
      one.append(dot, document.createTextNode(text));
      line.append(one);
    };
    const shown = trace.categoryOrder.slice(0, PAINTS);
    for (const code of shown) entry(paints.kernels[trace.rank[code]], trace.head.kernels.categories[code]);
    if (trace.categoryOrder.length > PAINTS) entry(paints.rest, `${count(trace.categoryOrder.length - PAINTS)} more categories`);
    const kinds = trace.head.kinds.map((kind, number) => [kind, number]).filter(([kind]) => kind !== "graph launch");
    for (const [kind, number] of kinds) entry(paints.calls[number], `${kind} (call)`);
    entry(paints.idle, "GPU idle");
  };
  const notes = () => {
    const { notes: told } = trace.head;
    const lines = [];
    if (told.operations) lines.push(`${count(told.operations.rows)} GPU operations are drawn as ${count(told.operations.blocks)} blocks: neighbours of one stream, stage and module${told.operations.mixed ? ", and those with the least time between them," : ""} are taken together. kernels.parquet has each of them.`);
    for (const [name, label] of [["calls", "CUDA calls"], ["others", "other CUDA calls"]]) if (told[name]) lines.push(`${count(told[name].rows)} ${label} are drawn as ${count(told[name].blocks)} blocks.`);
    if (told.ranges) lines.push(`${count(told.ranges.shown)} of ${count(told.ranges.rows)} ranges are drawn, the outermost.`);
    if (trace.tracksLeftOut) lines.push(`${count(trace.tracksLeftOut)} tracks with few events are not drawn.`);
    at("timeline-note").textContent = lines.join(" ");
  };
  const fromAddress = (changed, moved) => {
    const { op, view: shown, kernel, module } = links.state;
    if (changed.has("kernel") || changed.has("module") || changed.has("stage")) highlight();
    if (moved && changed.has("view")) {
      const given = /^(-?\d+)-(-?\d+)$/.exec(shown ?? "");
      if (given && Number(given[1]) < Number(given[2])) look(Number(given[1]), Number(given[2]), false);
      else if (shown === null) look(...home, false);
    }
    if (changed.has("op") && moved) {
      const row = Number(op);
      const track = op !== null && Number.isInteger(row) ? rowTrack("operations", row) : null;
      selected = track ? { track, row } : null;
      describe();
      redraw();
      if (track && shown === null) lookAt(track, row);
    }
    // A row of a table was followed here: its first kernel.
    if (!moved && (changed.has("kernel") || changed.has("module")) && (kernel !== null || module !== null) && op === null && lit?.all) {
      const first = lit.mask.indexOf(1);
      selected = { track: rowTrack("operations", first), row: first };
      describe();
      lookAt(selected.track, first);
      links.set({ op: String(first) }, "replace");
      holder.scrollIntoView({ block: "start" });
    }
  };
  let begun = null;
  const begin = () => {
    begun ??= (async () => {
      if (!("DecompressionStream" in window)) throw new Error("this browser cannot unpack it (no DecompressionStream)");
      trace = await unpack();
      prepare();
      takeColours();
      size();
      legend();
      notes();
      highlight();
      fromAddress(new Set(Object.keys(links.state)), true);
      canvas.dataset.ready = "true";
      canvas.setAttribute("aria-label", `Timeline: ${count(trace.operations.start.length)} ${trace.operations.count ? "blocks of GPU operations" : "GPU operations"}, ${count(trace.calls.start.length)} CUDA calls and ${count(trace.ranges.start.length)} ranges in ${tracks.length} tracks over ${duration(whole[1] - whole[0])}`);
      frame();
    })().catch((error) => {
      at("timeline-note").textContent = `The timeline cannot be drawn: ${error.message}.`;
      canvas.hidden = true;
      overview.hidden = true;
      // The picture that stands there without scripts says at least when the GPU worked.
      holder.parentElement.querySelector(".unscripted")?.classList.remove("unscripted");
      trace = null;
    });
    return begun;
  };
  new IntersectionObserver((seen, observer) => {
    if (!seen.some((one) => one.isIntersecting)) return;
    observer.disconnect();
    begin();
  }, { rootMargin: "400px" }).observe(holder);
  links.on((changed, moved) => {
    const wanted = ["kernel", "module", "op", "view"].some((key) => changed.has(key) && links.state[key] !== null);
    if (trace) fromAddress(changed, moved);
    else if (wanted) {
      const first = new Set(changed);
      begin().then(() => {
        if (!trace) return;
        if (!moved) fromAddress(first, moved);
        else if (links.state.table === null) holder.scrollIntoView({ block: "start" });
      });
    }
  });
  page.on("draw", () => { if (trace) { takeColours(); legend(); frame(); } });
  page.on("resize", () => { if (trace) { size(); frame(); } });

  return { begin, look, zoom, pan, frame, hit, xOf, view: () => [...view], whole: () => [...whole], home: () => [...home], tracks: () => tracks, trace: () => trace, selected: () => selected, lit: () => lit };
})();
