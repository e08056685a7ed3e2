(async () => {
  "use strict";
  const { charts, cells, saliency, cells_per_decade } = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const DARK = {
    axis: { labelColor: "#c6d0de", titleColor: "#a9b6c9", gridColor: "#2a374f" },
    legend: { labelColor: "#c6d0de", titleColor: "#a9b6c9" },
    text: { color: "#c6d0de" },
    title: { color: "#e6ebf3", subtitleColor: "#a9b6c9" },
  };
  const drawn = new Map(); // chart's element -> its view
  let width = 0;

  function themed(spec) {
    const config = { ...spec.config, background: null };
    for (const [part, colours] of dark.matches ? Object.entries(DARK) : [])
      config[part] = { ...config[part], ...colours };
    return { ...spec, config };
  }

  function fitted(spec, element) {
    const { widths, left, right } = spec.usermeta;
    const room = Math.max(80, element.clientWidth - left - right);
    const parts = spec.vconcat ?? [spec];
    parts.forEach((part, i) => (part.width = Math.min(widths[i], room)));
    return spec;
  }

  async function draw(element) {
    const spec = fitted(themed(structuredClone(charts[element.dataset.figure])), element);
    drawn.get(element)?.finalize();
    const options = { actions: false, renderer: "svg", tooltip: { theme: dark.matches ? "dark" : "light" } };
    let inner = element.querySelector("div"); // Vega labels what it draws into, and the chart has its own label
    if (!inner) (inner = element.appendChild(document.createElement("div"))).setAttribute("aria-hidden", "true");
    drawn.set(element, await vegaEmbed(inner, spec, options));
  }

  async function drawAll() {
    width = innerWidth;
    for (const element of document.querySelectorAll(".chart")) await draw(element);
    document.documentElement.dataset.charts = drawn.size;
  }

  function unpacked(text) {
    return text.split(" ").map((cell) => {
      const [i, j, columns, restored] = cell.split(",").map(Number);
      return { y: i / cells_per_decade, x: j / cells_per_decade, columns, restored };
    });
  }

  function chooseLayer(select) {
    const element = document.querySelector(`[data-figure="${saliency}"]`);
    const table = element.parentElement.querySelector("table");
    const spec = charts[saliency], label = element.getAttribute("aria-label"), body = table.tBodies[0];
    const first = spec.datasets.cells, rows = [...body.rows];
    const caption = table.caption.textContent;
    select.closest("p").hidden = false;
    select.addEventListener("change", () => {
      const chosen = select.value === "" ? null : unpacked(cells[Number(select.value)]);
      const option = select.selectedOptions[0], group = option.parentElement.label;
      const name = group ? `${group}, ${option.textContent}` : "all layers together";
      spec.datasets.cells = chosen ?? first;
      body.replaceChildren(...(chosen?.sort((a, b) => b.y - a.y || a.x - b.x).map(row) ?? rows));
      table.caption.textContent = chosen === null ? caption : `${caption}: ${name}`;
      const restored = (chosen ?? []).reduce((sum, cell) => sum + cell.restored, 0);
      const columns = (chosen ?? []).reduce((sum, cell) => sum + cell.columns, 0);
      element.setAttribute(
        "aria-label",
        chosen === null ? label : `The columns of ${name} by their two scores: ${restored} of ${columns} were restored.`,
      );
      draw(element);
    });
  }

  function row(cell) {
    const line = document.createElement("tr"), step = 1 / cells_per_decade;
    const range = (from) => `${from.toFixed(2)} to ${(from + step).toFixed(2)}`;
    [range(cell.y), range(cell.x), cell.columns, cell.restored].forEach((text, i) => {
      const field = document.createElement(i ? "td" : "th");
      if (!i) field.scope = "row";
      field.textContent = text;
      line.append(field);
    });
    return line;
  }

  const select = document.getElementById("layer");
  if (select) chooseLayer(select);
  await drawAll();
  dark.addEventListener("change", drawAll);
  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    if (innerWidth !== width) waiting = setTimeout(drawAll, 150);
  });
})();
