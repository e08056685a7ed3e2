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

  function placed(svg, event) {
    const place = svg.getBoundingClientRect(), { width, height } = svg.viewBox.baseVal;
    const across = (event.clientX - place.left) / place.width, down = (event.clientY - place.top) / place.height;
    return [Math.floor(across * width), Math.floor(down * height)];
  }

  function pointed(svg, event) {
    const [x, y] = placed(svg, event);
    const table = svg.closest("figure").querySelectorAll("table")[Number(svg.dataset.table)];
    const outside = svg.closest(".outside") !== null;
    const row = table?.tBodies[0].rows[outside ? y : x], cell = row?.cells[outside ? 1 : y + 1];
    if (!cell) return "";
    const name = outside ? row.cells[0].textContent : table.tHead.rows[0].cells[y + 1].textContent;
    return `${outside ? "" : `block ${row.cells[0].textContent}, `}${name}: ${cell.textContent || "none"}`;
  }

  function explain(svg, text) {
    svg.addEventListener("pointermove", (event) => {
      tip.textContent = text(event);
      tip.hidden = tip.textContent === "";
      tip.style.left = `${Math.min(event.pageX + 12, scrollX + innerWidth - 240)}px`;
      tip.style.top = `${event.pageY + 14}px`;
    });
    svg.addEventListener("pointerleave", () => (tip.hidden = true));
  }

  for (const svg of document.querySelectorAll(".map svg")) explain(svg, (event) => pointed(svg, event));

  // --- the columns of one layer by their scores ---

  function unpacked(text) {
    return text.split(" ").flatMap((run) => {
      const [i, first, ...counts] = run.split(",");
      return counts.map((count, n) => {
        const [columns, restored] = `${count}.0`.split(".").map((digits) => parseInt(digits, 16));
        return { i: Number(i), j: Number(first) + n, columns, restored };
      });
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
  // --- what other settings would undo ---

  const panel = document.querySelector(".what-if"), grid = data.what_if;
  if (panel && grid) {
    const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", all = grid.cells.map((_, n) => n);
    const sliders = [...panel.querySelectorAll("input")], [start, words, end] = grid.command;
    const level = (cell, at) => 64 * digits.indexOf(cell[2 * at]) + digits.indexOf(cell[2 * at + 1]);
    const sum = (places, of) => places.reduce((total, place) => total + of(place), 0);
    const share = (places, at) =>
      sum(places, (n) => grid.counts[n] * level(grid.cells[n], at)) / sum(places, (n) => grid.counts[n]) / 4095;
    const shown = (value) => (100 * value).toFixed(1);

    function depths(svg, shares) {
      const path = shares.map((value, n) => `M${n}.1 100v${(-100 * value).toFixed(1)}h.8V100z`);
      svg.querySelector(".chosen").setAttribute("d", path.join(""));
      const ends = document.getElementById(svg.getAttribute("aria-labelledby")).querySelectorAll("b");
      ends.forEach((end, n) => (end.textContent = shown(shares.at(-n))));
    }

    function position() {
      return sliders.reduce((place, slider, n) => place * grid.sizes[n] + Number(slider.value), 0);
    }

    function show() {
      const at = position();
      sliders.forEach((slider, n) => {
        slider.setAttribute("aria-valuetext", grid.values[at][n]);
        slider.parentElement.querySelector("output").textContent = grid.values[at][n];
      });
      const total = share(all, at), now = share(all, grid.own);
      panel.querySelector(".undone strong").textContent = `${shown(total)} %`;
      panel.querySelector(".undone span").textContent =
        at === grid.own ? "is undone by this merge" : `would be undone; this merge undoes ${shown(now)} %`;
      panel.querySelectorAll(".places").forEach((places, number) => {
        const stack = grid.stacks[number], svg = places.querySelector(".depths svg");
        if (svg) depths(svg, stack.depths.map((cells) => share(cells, at)));
        places.querySelectorAll(".bar").forEach((bar, n) => {
          const value = share(stack.projections[n], at);
          bar.querySelector("i").style.width = `${100 * value}%`;
          bar.querySelector("strong").textContent = shown(value);
        });
      });
      panel.querySelector(".made code").textContent = [start, words[at], end].filter(Boolean).join(" ");
    }

    function back() {
      const steps = grid.sizes.map((_, n) => grid.sizes.slice(n + 1).reduce((product, size) => product * size, 1));
      sliders.forEach((slider, n) => (slider.value = Math.floor(grid.own / steps[n]) % grid.sizes[n]));
      show();
    }

    panel.querySelectorAll(".places").forEach((places, number) => {
      const { blocks, depths } = grid.stacks[number], svg = places.querySelector(".depths svg");
      if (!svg) return;
      explain(svg, (event) => {
        const [n] = placed(svg, event);
        if (!depths[n]) return "";
        return `block ${blocks[n]}: ${shown(share(depths[n], position()))} %; this merge ${shown(share(depths[n], grid.own))} %`;
      });
    });
    for (const slider of sliders) slider.addEventListener("input", show);
    panel.querySelector(".sliders button").addEventListener("click", back);
    for (const part of panel.querySelectorAll(".sliders, .made")) part.hidden = false;
    back();
  }
  document.documentElement.dataset.ready = "yes";
})();
