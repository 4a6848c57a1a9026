// The two charts that are worth a closer look – steps one by one, sampled metrics – drawn by Apache ECharts in place of
// their pictures, from which they differ only in that they zoom and say each value. Without scripts, and in print, the
// pictures stand.
(() => {
  const { data, element, colour, stageColour } = page;
  const { decimal, count, duration } = figures;
  if (typeof echarts === "undefined") return;
  // On an axis: 200 ms, 0, 1 s – no zeros that say nothing.
  const bare = (text) => text.replace(/(\.\d*?)0+(?=\s)/, "$1").replace(/\.(?=\s)/, "").replace(/^0 \S+$/, "0");
  const time = (value) => bare(duration(Math.round(value)));

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
    splitLine: { lineStyle: { color: colour("line") }, show: more.split ?? true },
    nameTextStyle: { color: colour("muted"), ...more.name },
    axisLabel: { color: colour("muted"), ...more.label },
  });
  const zoom = (axes, bottom) => [
    { type: "inside", xAxisIndex: axes, zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false, filterMode: "none" },
    { type: "slider", xAxisIndex: axes, height: 16, bottom, brushSelect: false, borderColor: colour("line"), fillerColor: "rgba(128,140,160,.16)", textStyle: { color: colour("muted") }, showDataShadow: false, showDetail: false, filterMode: "none" },
  ];

  const stepOptions = (steps) => {
    const byContext = steps.by === "context";
    const at = (value) => decimal(value, Number.isInteger(value) ? 0 : 1);
    return {
      ...base(),
      grid: { left: 70, right: 18, top: 30, bottom: 60, outerBoundsMode: "none" },
      legend: { top: 0, right: 10, itemWidth: 9, itemHeight: 9, textStyle: { color: colour("ink") } },
      dataZoom: zoom([0], 4),
      tooltip: {
        ...base().tooltip, trigger: "item",
        formatter: (params) => tooltip(`${byContext ? "context" : "step"} ${at(params.value[0])}`, [[params.seriesName, duration(params.value[1])]]),
      },
      xAxis: { ...axis({ split: false }), type: "value", min: "dataMin", max: "dataMax", name: byContext ? "context length, tokens" : "step", nameLocation: "middle", nameGap: 22 },
      yAxis: { ...axis({ label: { formatter: time } }), type: "value", min: 0 },
      series: [
        { name: "host elapsed", type: "scatter", symbol: "circle", symbolSize: 6, itemStyle: { color: colour("decode"), opacity: 0.75 }, data: steps.points.map((one) => [one[0], one[1]]) },
        { name: "GPU busy", type: "scatter", symbol: "rect", symbolSize: 5, itemStyle: { color: colour("busy"), opacity: 0.75 }, data: steps.points.map((one) => [one[0], one[2]]) },
      ],
    };
  };

  const STRIP = 34;
  const ROW = 46;
  const NICE = [1, 1.5, 2, 3, 4, 5, 6, 8, 10];
  const metricOptions = (metrics) => {
    const instances = data.timeline ? data.timeline.instances : [];
    const bands = instances.map((one) => [
      { xAxis: one.start, itemStyle: { color: stageColour(one.stage), opacity: 0.12 } }, { xAxis: one.end },
    ]);
    const tops = metrics.series.map((one) => {
      const most = one.points.reduce((a, b) => Math.max(a, b[1]), one.unit === "%" ? 10 : 1e-9);
      const size = 10 ** Math.floor(Math.log10(most));
      return size * NICE.find((nice) => nice * size >= most * 0.999);
    });
    const times = metrics.series.flatMap((one) => one.points.map((point) => point[0]));
    const first = times.reduce((a, b) => Math.min(a, b), Infinity);
    const last = times.reduce((a, b) => Math.max(a, b), -Infinity);
    const all = metrics.series.map((_, index) => index);
    const bottom = (index) => index === all.length - 1;
    return {
      ...base(),
      grid: all.map((index) => ({ left: 260, right: 24, top: 6 + index * ROW, height: STRIP, outerBoundsMode: "none" })),
      dataZoom: zoom(all, 4),
      tooltip: {
        ...base().tooltip, trigger: "axis", axisPointer: { type: "line", lineStyle: { color: colour("faint") } },
        formatter: (items) => tooltip(`at ${duration(items[0].value[0])}`, items.map((item) => [metrics.series[item.seriesIndex].name, `${decimal(item.value[1], 1)} ${metrics.series[item.seriesIndex].unit}`])),
      },
      axisPointer: { link: [{ xAxisIndex: "all" }] },
      xAxis: all.map((index) => ({ ...axis({ split: false, label: { show: bottom(index), formatter: time } }), type: "value", gridIndex: index, min: first, max: last, axisTick: { show: bottom(index) } })),
      yAxis: metrics.series.map((one, index) => ({
        ...axis({ split: false, name: { align: "right", color: colour("ink") }, label: { fontSize: 10.5, formatter: (value) => decimal(value, value && value < 10 ? 1 : 0) } }),
        type: "value", gridIndex: index, min: 0, max: tops[index], interval: tops[index],
        name: `${one.name.length > 30 ? `${one.name.slice(0, 29)}…` : one.name}${one.unit && !one.name.includes(one.unit) ? `, ${one.unit}` : ""}`, nameLocation: "middle", nameRotate: 0, nameGap: 42,
      })),
      series: metrics.series.map((one, index) => ({
        name: one.name, type: "line", symbol: "none", xAxisIndex: index, yAxisIndex: index, data: one.points,
        lineStyle: { width: 1, color: colour("busy") }, areaStyle: { color: colour("busy"), opacity: 0.35 },
        markArea: { silent: true, data: bands },
      })),
    };
  };

  const known = {
    steps: data.steps && { height: () => 226, options: () => stepOptions(data.steps), told: `Time of ${count(data.steps.count)} decode steps` },
    metrics: data.metrics && { height: () => data.metrics.series.length * ROW + 56, options: () => metricOptions(data.metrics), told: "Sampled GPU metrics over time" },
  };
  const drawn = [];
  // Drawn when it first comes into sight: inside a closed fold it would have no size.
  const sight = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      sight.unobserve(entry.target);
      const picture = entry.target;
      const { height, options, told } = known[picture.dataset.chart];
      const holder = element("div", "zoomable");
      holder.style.height = `${height()}px`;
      holder.setAttribute("role", "img");
      holder.setAttribute("aria-label", `${told}. Drag the handles below, or hold Ctrl and scroll, to zoom.`);
      picture.append(holder);
      picture.classList.add("is-drawn");
      const chart = echarts.init(holder);
      chart.setOption(options());
      drawn.push({ chart, options });
    }
  });
  for (const picture of document.querySelectorAll("[data-chart]")) if (known[picture.dataset.chart]) sight.observe(picture);

  page.on("draw", () => { for (const { chart, options } of drawn) chart.setOption(options(), true); });
  page.on("resize", () => { for (const { chart } of drawn) chart.resize(); });
})();
