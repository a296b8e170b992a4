// Makes charts of the figures that the server drew: one cursor through all of them, and a time taken by dragging.
(() => {
  "use strict";
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = (value) => (value >= 1000 ? `${(value / 1000).toFixed(1)}k` : String(Math.round(value * 100) / 100));
  const took = (ms) => (ms == null ? "–" : ms < 1000 ? `${Math.round(ms)} ms` : ms < 60000 ? `${(ms / 1000).toFixed(2)} s` : `${Math.round(ms / 60000)} m`);
  const dollars = (value) => (value == null ? "–" : value >= 1 ? `$${value.toFixed(2)}` : `$${Number(value.toPrecision(3))}`);
  const KINDS = {
    volume: { colors: ["--accent", "--run"], say: ([all, running]) => `${short(all ?? 0)}${running ? `, ${short(running)} running` : ""}` },
    errors: { colors: ["--bad"], say: ([bad]) => short(bad ?? 0) },
    latency: { colors: ["--p95", "--accent"], say: ([high, mid]) => `${took(mid)} · ${took(high)}` },
    cost: { colors: ["--k-agent"], say: ([value]) => dollars(value) },
  };
  const stamp = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false });
  const iso = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 19);

  const draw = (figure) => {
    const kind = KINDS[figure.dataset.chart];
    const data = JSON.parse(figure.dataset.series);
    const still = figure.querySelector("svg");
    if (!kind || !still || !data[0].length) return;
    const read = figure.querySelector(".read"), said = read?.textContent;
    const box = document.createElement("div");
    box.className = "plot";
    still.replaceWith(box);
    const bars = uPlot.paths.bars({ size: [0.8, 60], align: 1 });
    const plot = new uPlot({
      width: box.clientWidth, height: box.clientHeight, padding: [2, 0, 0, 0], legend: { show: false },
      axes: [{ show: false }, { show: false }], scales: { x: { range: (u, low) => [low, low + Number(figure.dataset.step) * data[0].length] }, y: { range: (u, low, high) => [0, high || 1] } },
      cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false }, sync: { key: "strip" } },
      series: [{}, ...kind.colors.slice(0, data.length - 1).map((name) => ({ fill: color(name), width: 0, paths: bars, points: { show: false } }))],
      hooks: {
        setCursor: [(u) => { if (read) read.textContent = u.cursor.idx == null ? said : `${kind.say(data.slice(1).map((values) => values[u.cursor.idx]))}  ${stamp.format(data[0][u.cursor.idx] * 1000)}`; }],
        setSelect: [(u) => {
          if (u.select.width < 4) return;
          const address = new URL(location.href);
          for (const name of ["range", "before", "after"]) address.searchParams.delete(name);
          address.searchParams.set("from", iso(u.posToVal(u.select.left, "x")));
          address.searchParams.set("to", iso(u.posToVal(u.select.left + u.select.width, "x")));
          location.assign(address);
        }],
      },
    }, data, box);
    new ResizeObserver(() => plot.setSize({ width: box.clientWidth, height: box.clientHeight })).observe(box);
  };
  const all = () => { for (const figure of document.querySelectorAll("[data-chart]")) if (figure.querySelector("svg")) draw(figure); };
  all();
  document.addEventListener("htmx:afterSwap", all);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => location.reload());
})();
