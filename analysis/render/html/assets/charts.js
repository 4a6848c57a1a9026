// The charts: options for Apache ECharts, made from the page's data.
(() => {
  const { data, at, element, colour, stageColour, segmented } = page;
  const { decimal, count, significant, duration, ratio, share, prefixed } = figures;
  // On an axis: 200 ms, 0, 1 s – no zeros that say nothing.
  const bare = (text) => text.replace(/(\.\d*?)0+(?=\s)/, "$1").replace(/\.(?=\s)/, "").replace(/^0 \S+$/, "0");
  const known = (value, write) => (value === null ? "n/a" : write(value));

  const charts = new Map();
  const tooltip = (title, rows) => {
    const box = element("div", "chart-tip");
    if (title) box.append(element("b", "", title));
    for (const [label, value] of rows) {
      const row = element("div", "row");
      row.append(element("span", "", label), element("span", "", value));
      box.append(row);
    }
    return box;
  };
  const chart = (id, options) => {
    const holder = at(id);
    if (!holder) return;
    charts.set(id, { holder, options, drawn: null });
  };
  const nothing = (id, why) => {
    const holder = at(id);
    if (!holder) return;
    holder.classList.add("empty");
    holder.removeAttribute("role");
    holder.textContent = why;
  };
  const base = () => ({
    animation: false,
    textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: colour("muted"), fontSize: 12 },
    tooltip: {
      backgroundColor: colour("card"),
      borderColor: colour("line"),
      textStyle: { color: colour("ink") },
      confine: true,
      transitionDuration: 0,
    },
  });
  const axis = (more = {}) => ({
    axisLine: { lineStyle: { color: colour("line") } },
    axisTick: { lineStyle: { color: colour("line") } },
    axisLabel: { color: colour("muted"), ...more.axisLabel },
    splitLine: { lineStyle: { color: colour("line") }, ...more.splitLine },
    nameTextStyle: { color: colour("muted"), ...more.nameTextStyle },
    ...Object.fromEntries(Object.entries(more).filter(([key]) => !["axisLabel", "splitLine", "nameTextStyle"].includes(key))),
  });
  const legend = (more = {}) => ({ textStyle: { color: colour("ink") }, itemWidth: 12, itemHeight: 12, icon: "roundRect", ...more });
  const draw = () => {
    for (const one of charts.values()) {
      if (one.drawn) one.drawn.dispose();
      one.drawn = echarts.init(one.holder, null, { renderer: "svg" });
      one.drawn.setOption({ ...base(), ...one.options() });
      if (one.ready) one.ready(one.drawn);
    }
  };

  const timeline = data.timeline;
  if (timeline) {
    const names = [...new Set(timeline.instances.map((one) => one.stage))];
    const end = timeline.slice_ns * timeline.busy.length;
    chart("chart-timeline", () => ({
      grid: [{ left: 76, right: 32, top: 4, height: 32 * Math.max(1, names.length), outerBoundsMode: "none" }, { left: 76, right: 32, top: 18 + 32 * Math.max(1, names.length), bottom: 62, outerBoundsMode: "none" }],
      tooltip: { ...base().tooltip, trigger: "item" },
      axisPointer: { link: [{ xAxisIndex: [0, 1] }], lineStyle: { color: colour("faint") } },
      dataZoom: [
        { type: "inside", xAxisIndex: [0, 1], zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false },
        { type: "slider", xAxisIndex: [0, 1], height: 18, bottom: 8, brushSelect: false, borderColor: colour("line"), fillerColor: "rgba(128,140,160,.16)", textStyle: { color: colour("muted") }, labelFormatter: (value) => duration(Math.round(value)), showDataShadow: false },
      ],
      xAxis: [
        { type: "value", gridIndex: 0, min: 0, max: end, show: false },
        { ...axis({ splitLine: { show: false }, axisLabel: { formatter: (value) => bare(duration(value)) } }), type: "value", gridIndex: 1, min: 0, max: end },
      ],
      yAxis: [
        { ...axis({ splitLine: { show: false } }), type: "category", gridIndex: 0, data: names, inverse: true, axisLine: { show: false }, axisTick: { show: false }, axisLabel: { color: colour("ink") } },
        { ...axis({ axisLabel: { formatter: "{value} %" } }), type: "value", gridIndex: 1, min: 0, max: 100, interval: 50, name: "GPU busy", nameLocation: "middle", nameGap: 48 },
      ],
      series: [
        {
          name: "stages", type: "custom", clip: true, encode: { x: [1, 2], y: 0 },
          data: timeline.instances.map((one) => [names.indexOf(one.stage), one.start, one.end]),
          renderItem: (params, api) => {
            const from = api.coord([api.value(1), api.value(0)]);
            const to = api.coord([api.value(2), api.value(0)]);
            const area = params.coordSys;
            const left = Math.max(from[0], area.x);
            const right = Math.min(to[0], area.x + area.width);
            if (right < left) return null;
            return {
              type: "rect",
              shape: { x: left, y: from[1] - 11, width: Math.max(1, right - left - 0.5), height: 22, r: 3 },
              style: { fill: stageColour(names[api.value(0)]) },
            };
          },
          tooltip: {
            formatter: (params) => {
              const one = timeline.instances[params.dataIndex];
              return tooltip(one.path, [
                ["host elapsed", duration(one.end - one.start)],
                ["GPU busy", `${duration(one.busy)} = ${known(one.share, share)} of ${duration(one.elapsed)} elapsed`],
                ["kernels", count(one.kernels)], ...(one.steps ? [["steps", count(one.steps)]] : []),
              ]);
            },
          },
        },
        {
          name: "GPU busy", type: "line", step: "end", symbol: "none", xAxisIndex: 1, yAxisIndex: 1,
          lineStyle: { width: 1, color: colour("busy") }, areaStyle: { color: colour("busy"), opacity: 0.55 },
          data: timeline.busy.map((value, index) => [(index + 1) * timeline.slice_ns, value]),
          tooltip: { trigger: "axis" },
        },
      ],
    }));
    let text = `Each point is the GPU-busy share of ${duration(timeline.slice_ns)} (${timeline.busy.length} equal slices). Drag the handles, or hold Ctrl and scroll, to zoom.`;
    if (timeline.left_out) text += ` The first ${timeline.instances.length} stage instances are drawn, ${count(timeline.left_out)} later ones are not.`;
    at("note-timeline").textContent = text;
  } else nothing("chart-timeline", "n/a: there is no GPU operation in the trace.");

  const budget = data.budget;
  if (budget.rows.length) {
    at("chart-budget").style.height = `${84 + 44 * budget.rows.length}px`;
    chart("chart-budget", () => ({
      grid: { left: 76, right: 32, top: 36, bottom: 28, outerBoundsMode: "none" },
      legend: legend({ top: 0, left: 70 }),
      tooltip: {
        ...base().tooltip, trigger: "item",
        formatter: (params) => {
          const row = budget.rows[params.dataIndex];
          const part = budget.parts[params.seriesIndex];
          const ns = row[part.key];
          return tooltip(`${row.stage}: ${part.label}`, [["time", duration(ns)], ["of host elapsed", known(row.elapsed ? ns / row.elapsed : null, share)], [part.definition, ""]]);
        },
      },
      xAxis: { ...axis({ axisLabel: { formatter: "{value} %" } }), type: "value", min: 0, max: 100 },
      yAxis: { ...axis(), type: "category", inverse: true, data: budget.rows.map((row) => row.stage), axisLine: { show: false }, axisTick: { show: false }, axisLabel: { color: colour("ink") } },
      series: budget.parts.map(({ key, label }, place) => ({
        name: label, type: "bar", stack: "all", barWidth: 26, itemStyle: { color: colour(key) },
        data: budget.rows.map((row) => (row.elapsed ? (100 * row[key]) / row.elapsed : 0)),
        label: {
          show: true, color: key === "outside" ? colour("ink") : colour("card"), fontWeight: 600,
          formatter: (params) => (params.value >= 5 ? budget.rows[params.dataIndex].whole[place] : ""),
        },
      })),
    }));
  } else nothing("chart-budget", "n/a: the trace has no stages.");

  const steps = data.steps;
  if (steps) {
    const edges = steps.histogram.edges;
    chart("chart-histogram", () => ({
      grid: { left: 56, right: 36, top: 30, bottom: 46, outerBoundsMode: "none" },
      tooltip: {
        ...base().tooltip, trigger: "item",
        formatter: (params) => tooltip(`${duration(edges[params.dataIndex])} – ${duration(edges[params.dataIndex + 1])}`, [["steps", count(params.value[2])]]),
      },
      xAxis: { ...axis({ splitLine: { show: false } }), type: "value", min: edges[0], max: edges[edges.length - 1], name: "host time per step", nameLocation: "middle", nameGap: 28, axisLabel: { color: colour("muted"), formatter: (value) => bare(duration(Math.round(value))), hideOverlap: true } },
      yAxis: { ...axis(), type: "value", name: "steps", nameLocation: "middle", nameGap: 34, minInterval: 1 },
      series: [{
        name: "steps", type: "custom", itemStyle: { color: colour("decode") }, encode: { x: [0, 1], y: 2 },
        data: steps.histogram.counts.map((height, index) => [edges[index], edges[index + 1], height]),
        renderItem: (params, api) => {
          const top = api.coord([api.value(0), api.value(2)]);
          const foot = api.coord([api.value(1), 0]);
          return { type: "rect", shape: { x: top[0] + 0.5, y: top[1], width: Math.max(1, foot[0] - top[0] - 1), height: foot[1] - top[1] }, style: { fill: colour("decode") } };
        },
        markLine: {
          symbol: "none", silent: true, lineStyle: { color: colour("ink"), type: "dashed" },
          data: [{ xAxis: steps.median, label: { formatter: `median ${duration(steps.median)}`, position: "end", color: colour("ink") } },
            ...(steps.p95 - steps.median > 0.16 * (edges[edges.length - 1] - edges[0]) ? [{ xAxis: steps.p95, label: { formatter: `p95 ${duration(steps.p95)}`, position: "end", color: colour("ink") } }] : [])],
        },
      }],
    }));
    const byContext = steps.by === "context";
    chart("chart-steps", () => ({
      grid: { left: 58, right: 20, top: 30, bottom: 46, outerBoundsMode: "none" },
      legend: legend({ top: 0, right: 10, icon: "circle", itemWidth: 8, itemHeight: 8 }),
      tooltip: {
        ...base().tooltip, trigger: "item",
        formatter: (params) => tooltip(`${byContext ? "context" : "step"} ${decimal(params.value[0], Number.isInteger(params.value[0]) ? 0 : 1)}`, [[params.seriesName, duration(params.value[1])]]),
      },
      xAxis: { ...axis({ splitLine: { show: false } }), type: "value", min: "dataMin", max: "dataMax", name: byContext ? "context length, tokens" : "step", nameLocation: "middle", nameGap: 28 },
      yAxis: { ...axis({ axisLabel: { formatter: (value) => bare(duration(value)) } }), type: "value", min: 0 },
      series: [
        { name: "host elapsed", type: "scatter", symbolSize: 6, itemStyle: { color: colour("decode"), opacity: 0.75 }, data: steps.points.map((one) => [one[0], one[1]]) },
        { name: "GPU busy", type: "scatter", symbolSize: 6, itemStyle: { color: colour("busy"), opacity: 0.75 }, data: steps.points.map((one) => [one[0], one[2]]) },
      ],
    }));
    const rule = steps.averaged > 1 ? ` Each point is the mean of up to ${steps.averaged} consecutive steps.` : "";
    at("note-steps").textContent = `${count(steps.count)} steps.${rule}${byContext ? "" : " The ranges carry no context length, so steps are numbered."}`;
  } else for (const id of ["chart-histogram", "chart-steps"]) nothing(id, "n/a: the trace has no ranges of single decode steps.");

  const categories = data.categories;
  if (categories.names.length) {
    at("chart-categories").style.height = `${Math.max(240, 70 + 36 * categories.names.length)}px`;
    chart("chart-categories", () => ({
      grid: { left: 186, right: 40, top: 32, bottom: 26, outerBoundsMode: "none" },
      legend: legend({ top: 0, left: 0 }),
      tooltip: {
        ...base().tooltip, trigger: "item",
        formatter: (params) => {
          const one = categories.stages[params.seriesIndex];
          const index = params.dataIndex;
          return tooltip(`${categories.names[index]}, ${one.stage}`, [["share", share(one.share[index])], ["sum", duration(one.ns[index])], ["calls", count(one.calls[index])]]);
        },
      },
      xAxis: { ...axis({ axisLabel: { formatter: "{value} %" } }), type: "value" },
      yAxis: { ...axis(), type: "category", inverse: true, data: categories.names, axisLine: { show: false }, axisTick: { show: false }, axisLabel: { color: colour("ink"), width: 178, overflow: "truncate", interval: 0 } },
      series: categories.stages.map((one) => ({
        name: one.stage, type: "bar", barGap: "10%", barCategoryGap: "28%", itemStyle: { color: stageColour(one.stage), borderRadius: [0, 2, 2, 0] }, data: one.share.map((value) => 100 * value),
        label: { show: true, position: "right", color: colour("muted"), fontSize: 10.5, formatter: (params) => (params.value >= 1 ? decimal(params.value, 1) : "") },
      })),
    }));
  } else nothing("chart-categories", "n/a: there is no kernel in the trace.");

  const roofline = data.roofline;
  if (roofline) {
    const xs = roofline.points.map((one) => one.intensity);
    const ridges = roofline.roofs.map((one) => one.flop_per_s / one.bytes_per_s);
    const low = 10 ** Math.floor(Math.log10(Math.min(...xs, ...ridges)) - 0.4);
    const high = 10 ** Math.ceil(Math.log10(Math.max(...xs, ...ridges)) + 0.4);
    const top = Math.max(...roofline.roofs.map((one) => one.flop_per_s));
    const bottom = Math.min(...roofline.points.map((one) => one.flop_per_s), ...roofline.roofs.map((one) => one.bytes_per_s * low));
    // The same work in three times: one above the other, close together, so each has its label on a side of its own.
    const bases = { unprofiled: ["diamond", true, "right"], "profiled elapsed": ["circle", false, "bottom"], "profiled gpu busy": ["circle", true, "top"] };
    chart("chart-roofline", () => ({
      grid: { left: 84, right: 32, top: 12, bottom: 46, outerBoundsMode: "none" },
      tooltip: { ...base().tooltip, trigger: "item" },
      xAxis: { ...axis(), type: "log", min: low, max: high, name: "arithmetic intensity, FLOP per byte", nameLocation: "middle", nameGap: 28, axisLabel: { color: colour("muted"), formatter: (value) => decimal(value, value < 1 ? 2 : 0) } },
      yAxis: { ...axis(), type: "log", min: 10 ** Math.floor(Math.log10(bottom)), max: 10 ** Math.ceil(Math.log10(top * 1.02)), axisLabel: { color: colour("muted"), formatter: (value) => bare(prefixed(value, "FLOP/s")) } },
      series: [
        ...roofline.roofs.map((roof) => ({
          name: `roof (${roof.how})`, type: "line", symbol: "none", silent: true, lineStyle: { color: colour("ink"), width: 1.5, type: roof.how === "measured" ? "dashed" : "solid" },
          data: [[low, roof.bytes_per_s * low], [roof.flop_per_s / roof.bytes_per_s, roof.flop_per_s], [high, roof.flop_per_s]],
          endLabel: { show: true, align: "right", offset: [-6, -12], color: colour("muted"), formatter: () => `${prefixed(roof.flop_per_s, "FLOP/s")} · ${prefixed(roof.bytes_per_s, "B/s")} (${roof.how})` },
        })),
        ...roofline.points.map((one) => {
          const [symbol, filled, side] = bases[one.base];
          const paint = stageColour(one.stage);
          return {
            name: `${one.stage}, ${one.base}`, type: "scatter", symbol, symbolSize: 13,
            itemStyle: { color: filled ? paint : colour("card"), borderColor: paint, borderWidth: 2 },
            data: [[one.intensity, one.flop_per_s]],
            label: { show: true, position: side, distance: 8, color: colour("ink"), formatter: `${one.stage}, ${one.base}` },
            tooltip: { formatter: () => tooltip(`${one.stage}, ${one.base}`, [["reached", prefixed(one.flop_per_s, "FLOP/s")], ["intensity", `${significant(one.intensity)} FLOP/B`], ["MFU", known(one.mfu, ratio)], ["MBU", known(one.mbu, ratio)], ["peak from", one.how]]) },
          };
        }),
      ],
    }));
  } else nothing("chart-roofline", "n/a: FLOPs, bytes or peaks are not known; the table below says why.");

  const metrics = data.metrics;
  if (metrics) {
    const strip = 46;
    const gap = 16;
    at("chart-metrics").style.height = `${metrics.series.length * (strip + gap) + 44}px`;
    const bands = (timeline ? timeline.instances : []).map((one) => [
      { xAxis: one.start, itemStyle: { color: stageColour(one.stage), opacity: 0.1 } }, { xAxis: one.end },
    ]);
    const all = metrics.series.flatMap((one) => one.points.map((point) => point[0]));
    const NICE = [1, 1.5, 2, 3, 4, 5, 6, 8, 10];
    const tops = metrics.series.map((one) => {
      const most = one.points.reduce((a, b) => Math.max(a, b[1]), one.unit === "%" ? 10 : 1e-9);
      const size = 10 ** Math.floor(Math.log10(most));
      return size * NICE.find((nice) => nice * size >= most * 0.999);
    });
    const first = all.reduce((a, b) => Math.min(a, b), Infinity);
    const last = all.reduce((a, b) => Math.max(a, b), -Infinity);
    chart("chart-metrics", () => ({
      grid: metrics.series.map((_, index) => ({ left: 230, right: 32, top: 6 + index * (strip + gap), height: strip, outerBoundsMode: "none" })),
      tooltip: {
        ...base().tooltip, trigger: "axis", axisPointer: { type: "line", lineStyle: { color: colour("faint") } },
        formatter: (items) => tooltip(`at ${duration(items[0].value[0])}`, items.map((item) => [metrics.series[item.seriesIndex].name, `${decimal(item.value[1], 1)} ${metrics.series[item.seriesIndex].unit}`])),
      },
      axisPointer: { link: [{ xAxisIndex: "all" }] },
      xAxis: metrics.series.map((_, index) => ({
        ...axis({ splitLine: { show: false }, axisLabel: { show: index === metrics.series.length - 1, formatter: (value) => bare(duration(value)) } }), type: "value", gridIndex: index, min: first, max: last,
        axisTick: { show: index === metrics.series.length - 1 },
      })),
      yAxis: metrics.series.map((one, index) => ({
        ...axis({ splitLine: { show: false } }), type: "value", gridIndex: index, min: 0, max: tops[index], interval: tops[index],
        name: `${one.name.length > 30 ? `${one.name.slice(0, 29)}…` : one.name}${one.unit && !one.name.includes(one.unit) ? `, ${one.unit}` : ""}`, nameLocation: "middle", nameRotate: 0, nameGap: 42, nameTextStyle: { align: "right", color: colour("ink") },
        axisLabel: { color: colour("muted"), fontSize: 10.5, formatter: (value) => decimal(value, value && value < 10 ? 1 : 0) },
      })),
      series: metrics.series.map((one, index) => ({
        name: one.name, type: "line", symbol: "none", xAxisIndex: index, yAxisIndex: index, data: one.points,
        lineStyle: { width: 1, color: colour("busy") }, areaStyle: { color: colour("busy"), opacity: 0.35 },
        markArea: { silent: true, data: bands },
      })),
    }));
    if (metrics.left_out) at("note-metrics").textContent = `${metrics.left_out} more metrics are in the table below.`;
  }

  // --- module treemap ------------------------------------------------------------------------------------------
  const moduleStages = Object.keys(data.modules);
  if (moduleStages.length) {
    let stage = moduleStages.includes("all") ? "all" : moduleStages[0];
    const paints = ["#4878b0", "#3f9384", "#a8763e", "#8a68b3", "#b5606a", "#6d8a3c", "#5f7a93", "#a3628f"];
    const order = new Map();
    for (const tree of Object.values(data.modules)) {
      for (const node of tree.toSorted((a, b) => b.value - a.value)) {
        const family = node.name.replace(/\d+$/, "");
        if (!order.has(family)) order.set(family, paints[order.size % paints.length]);
      }
    }
    chart("chart-modules", () => {
      const tree = data.modules[stage];
      const whole = tree.reduce((sum, node) => sum + node.value, 0);
      return {
        tooltip: {
          ...base().tooltip,
          formatter: (params) => tooltip(params.treePathInfo.slice(1).map((part) => part.name).join(".") || "all modules", [["GPU time", duration(params.value)], ["share", share(whole ? params.value / whole : 0)], ...(params.data && params.data.kernels !== undefined ? [["kernels", count(params.data.kernels)]] : [])]),
        },
        series: [{
          type: "treemap", name: "modules", roam: false, leafDepth: 2, drillDownIcon: "", left: 0, right: 0, top: 0, bottom: 34,
          data: tree.map((node) => (node.name === "(unattributed)"
            ? { ...node, itemStyle: { color: colour("outside") }, label: { color: colour("ink") } }
            : { ...node, itemStyle: { color: order.get(node.name.replace(/\d+$/, "")) } })),
          breadcrumb: { bottom: 2, left: 0, height: 22, itemStyle: { color: colour("soft"), borderColor: colour("line"), textStyle: { color: colour("ink") } }, emphasis: { itemStyle: { color: colour("line") } } },
          label: { color: "#fff", fontSize: 12, lineHeight: 16, formatter: (params) => (params.value < 0.025 * whole ? "" : `${params.name}\n${duration(params.value)}`), overflow: "truncate" },
          upperLabel: { show: true, height: 20, color: "#fff", fontSize: 12, formatter: (params) => `${params.name}   ${duration(params.value)}` },
          itemStyle: { borderColor: colour("card"), borderWidth: 1, gapWidth: 1 },
          levels: [
            { itemStyle: { borderWidth: 0, gapWidth: 3 }, upperLabel: { show: false } },
            { itemStyle: { borderWidth: 1, gapWidth: 1, borderColorSaturation: 0.35 } },
            { itemStyle: { borderWidth: 1, gapWidth: 1, borderColorSaturation: 0.4 }, colorSaturation: [0.3, 0.45] },
          ],
          visibleMin: 60,
        }],
      };
    });
    segmented(at("module-stages"), moduleStages, stage, (name) => { stage = name; redraw("chart-modules"); });
  } else nothing("chart-modules", "n/a: the trace has no module ranges.");

  const redraw = (id) => {
    const one = charts.get(id);
    one.drawn.setOption({ ...base(), ...one.options() }, true);
  };

  page.on("draw", draw);
  page.on("resize", () => { for (const one of charts.values()) one.drawn.resize(); });
})();
