(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const step = 1 / data.cells_per_decade;

  // --- copy a command ---

  for (const button of document.querySelectorAll(".command button")) {
    if (!navigator.clipboard) break;
    button.hidden = false;
    const label = button.getAttribute("aria-label");
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      const say = (word) => {
        button.textContent = word;
        button.setAttribute("aria-label", label.replace("Copy", word));
      };
      say("Copied");
      setTimeout(() => say("Copy"), 1500);
    });
  }

  // --- the value under the pointer, from the table of the figure ---

  const tip = document.body.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.setAttribute("aria-hidden", "true"); // the tables say the same
  tip.hidden = true;

  function pointed(svg, event) {
    const place = svg.getBoundingClientRect(), { width, height } = svg.viewBox.baseVal;
    const x = Math.floor(((event.clientX - place.left) / place.width) * width);
    const y = Math.floor(((event.clientY - place.top) / place.height) * height);
    const table = svg.closest("figure").querySelectorAll("table")[Number(svg.dataset.table)];
    const outside = svg.closest(".outside") !== null;
    const row = table?.tBodies[0].rows[outside ? y : x], cell = row?.cells[outside ? 1 : y + 1];
    if (!cell) return "";
    const name = outside ? row.cells[0].textContent : table.tHead.rows[0].cells[y + 1].textContent;
    return `${outside ? "" : `block ${row.cells[0].textContent}, `}${name}: ${cell.textContent || "none"}`;
  }

  for (const svg of document.querySelectorAll(".map svg")) {
    svg.addEventListener("pointermove", (event) => {
      tip.textContent = pointed(svg, event);
      tip.hidden = tip.textContent === "";
      tip.style.left = `${Math.min(event.pageX + 12, scrollX + innerWidth - 240)}px`;
      tip.style.top = `${event.pageY + 14}px`;
    });
    svg.addEventListener("pointerleave", () => (tip.hidden = true));
  }

  // --- the columns of one layer by their scores ---

  function unpacked(text) {
    return text.split(" ").map((cell) => {
      const [i, j, columns, restored] = cell.split(",").map(Number);
      return { i, j, columns, restored };
    });
  }

  function mixed(share) {
    const a = [0x64, 0x74, 0x8b], b = [0xe0, 0x7b, 0x10];
    return `rgb(${a.map((from, n) => Math.round(from + (b[n] - from) * share))})`;
  }

  function tiles(cells) {
    const most = Math.log1p(Math.max(...cells.map((cell) => cell.columns)));
    return cells.map(({ i, j, columns, restored }) => {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", `M${j - data.left} ${data.bottom + data.height - 1 - i}h1v1h-1z`);
      path.setAttribute("fill", mixed(restored / columns));
      path.setAttribute("opacity", (0.4 + (0.6 * Math.log1p(columns)) / most).toFixed(2));
      return path;
    });
  }

  function row(cell) {
    const line = document.createElement("tr");
    const range = (from) => `${(from * step).toFixed(2)} to ${((from + 1) * step).toFixed(2)}`;
    [range(cell.i), range(cell.j), cell.columns, cell.restored].forEach((text, n) => {
      const field = document.createElement(n ? "td" : "th");
      if (!n) field.scope = "row";
      field.textContent = text;
      line.append(field);
    });
    return line;
  }

  const select = document.getElementById("layer");
  if (select) {
    const figure = select.closest("figure"), chart = figure.querySelector(".chart");
    const group = chart.querySelector(".tiles-of"), table = figure.querySelector("table"), body = table.tBodies[0];
    const first = [...group.children], rows = [...body.rows];
    const label = chart.getAttribute("aria-label"), caption = table.caption.textContent;
    select.closest("p").hidden = false;
    select.addEventListener("change", () => {
      const option = select.selectedOptions[0], stack = option.parentElement.label;
      if (select.value === "") {
        group.replaceChildren(...first);
        body.replaceChildren(...rows);
        table.caption.textContent = caption;
        chart.setAttribute("aria-label", label);
        return;
      }
      const cells = unpacked(data.cells[Number(select.value)]), name = `${stack}, ${option.textContent}`;
      const sum = (of) => cells.reduce((total, cell) => total + cell[of], 0);
      group.replaceChildren(...tiles(cells));
      body.replaceChildren(...cells.sort((a, b) => b.i - a.i || a.j - b.j).map(row));
      table.caption.textContent = `${caption}: ${name}`;
      chart.setAttribute(
        "aria-label",
        `The columns of ${name} by their two scores: ${sum("restored")} of ${sum("columns")} were restored.`,
      );
    });
  }
  document.documentElement.dataset.ready = "yes";
})();
