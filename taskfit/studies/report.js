"use strict";
// What the page does with a script: sorts tables, redraws the charts, moves the volume, leafs through rows.
// Without it everything stands on the page all the same. Texts of data and models go in as text, never as markup.
(() => {
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const data = JSON.parse($("#study").textContent);
  const views = [];
  document.documentElement.classList.add("js");

  const digits = (value, most) => value.toLocaleString("en", { maximumSignificantDigits: most });
  const money = (value) => {
    if (data.unit !== "US dollars") return `${digits(value, 2)} s`;
    if (value === 0) return "$0";
    return value < 0.0001 ? "under $0.0001" : value < 1 ? `$${digits(value, 2)}` : `$${value.toLocaleString("en", { maximumFractionDigits: 2 })}`;
  };
  const element = (tag, text, kind) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };

  // Tables: a heading is a button that sorts; a second press turns the order round.
  const valueOf = (row, at) => {
    const cell = row.cells[at];
    const number = cell.dataset.sort;
    return number === undefined ? cell.textContent.trim().toLowerCase() : Number(number);
  };
  for (const table of $$("table.sortable")) {
    $$("thead th", table).forEach((head, at) => {
      const button = element("button", head.textContent.trim() || "key");
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        $$("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
        [...body.rows]
          .sort((one, other) => (down ? -1 : 1) * order(valueOf(one, at), valueOf(other, at)))
          .forEach((row) => body.append(row));
      });
    });
  }

  // One row of the table and one mark of the charts light up together.
  const light = (key) => {
    $$("tr[data-key]").forEach((row) => row.classList.toggle("lit", row.dataset.key === key));
    for (const { view } of views) {
      if (view.signal("hovered") !== key) view.signal("hovered", key).runAsync();
    }
  };
  for (const row of $$("tr[data-key]")) {
    row.addEventListener("pointerenter", () => light(row.dataset.key));
    row.addEventListener("pointerleave", () => light(""));
  }

  const tip = element("div", undefined, "tip");
  tip.hidden = true;
  document.body.append(tip);
  const showTip = (_, event, __, mark) => {
    tip.hidden = !mark;
    if (!mark) return;
    const cost = mark.fit + volume * mark.row;
    const lines = [`${mark.key}  ${mark.label}`];
    const figure = mark.figures[metric];
    if (figure) lines.push(`${data.names[metric]} ${figure.value.toFixed(3)} (${figure.low.toFixed(3)} to ${figure.high.toFixed(3)})`);
    lines.push(`${money(cost)} for ${volume.toLocaleString("en")} rows`, data.verdicts[mark.verdict]);
    tip.replaceChildren(...lines.map((line) => element("div", line)));
    const { clientX, clientY } = event;
    tip.style.left = `${Math.max(8, Math.min(clientX + 14, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${clientY + 14 + tip.offsetHeight > innerHeight ? clientY - tip.offsetHeight - 10 : clientY + 14}px`;
  };

  // Charts: the same specifications that the pictures were drawn from.
  let volume = data.volume;
  let metric = data.metric;
  const set = (view, name, value) => {
    if (name in view.getState({ signals: () => true }).signals) view.signal(name, value).runAsync();
  };
  const setAll = (name, value) => views.forEach(({ view }) => set(view, name, value));
  const mount = (name) => {
    const place = $(`#chart-${name}`);
    if (!place) return;
    const spec = { ...data.charts[name], width: Math.max(260, place.clientWidth) };
    const stage = element("div");
    const options = { mode: "vega", renderer: "svg", ast: true, actions: false, defaultStyle: false, tooltip: showTip };
    vegaEmbed(stage, spec, options).then(({ view }) => {
      const drawn = $("svg", stage);
      drawn.classList.add("chart");
      drawn.setAttribute("role", "img");
      drawn.setAttribute("aria-label", spec.description);
      place.replaceChildren(stage);
      view.addSignalListener("hovered", (_, key) => light(key));
      views.push({ view, place });
      set(view, "volume", volume);
    });
  };
  // The drawing library comes packed, which halves the page; a browser that cannot unpack it keeps the pictures.
  const unpack = async (packed) => {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    document.head.append(element("script", await new Response(plain).text()));
  };
  if ("DecompressionStream" in window) unpack($("#library").textContent).then(() => ["cost", "volume"].forEach(mount));
  let resizing;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => views.forEach(({ view, place }) => {
      if (place.clientWidth) view.width(Math.max(260, place.clientWidth)).runAsync();
    }), 150);
  });
  // Volume and metric: the charts move, and a sentence says what is the choice there.
  const slider = $("#volume");
  const rounded = (exact) => {
    const unit = 10 ** Math.max(0, Math.floor(Math.log10(exact)) - 1);
    return Math.round(exact / unit) * unit;
  };
  const say = () => {
    $("#volume-shown").textContent = `${volume.toLocaleString("en")} rows`;
    slider.setAttribute("aria-valuetext", `${volume.toLocaleString("en")} rows`);
    const choice = data.choices.find((one) => one.first <= volume && volume <= one.last);
    const at = choice && data.points.find((point) => point.label === choice.label);
    const words = at ? [`At ${volume.toLocaleString("en")} rows choose `, element("strong", `${at.key} ${at.label}`), `: ${money(at.fit + volume * at.row)} in all.`]
      : [data.choices.length ? `At ${volume.toLocaleString("en")} rows nothing is within the limits.` : ""];
    $("#choice-now").replaceChildren(...words);
    $$("#breaks tr[data-first]").forEach((row) => {
      row.classList.toggle("recommended", Number(row.dataset.first) <= volume && volume <= Number(row.dataset.last));
    });
  };
  if (slider) {
    slider.value = String(Math.log10(volume));
    slider.addEventListener("input", () => {
      volume = rounded(10 ** Number(slider.value));
      setAll("volume", volume);
      say();
    });
    $("#metric")?.addEventListener("change", (event) => {
      metric = event.target.value;
      setAll("metric", metric);
    });
    $("#all")?.addEventListener("change", (event) => setAll("all", event.target.checked));
    $("#reset").addEventListener("click", () => {
      volume = data.volume;
      slider.value = String(Math.log10(volume));
      setAll("volume", volume);
      say();
    });
    say();
  }

  // Paper has no button to press: what is folded away is opened for the print, and closed again.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = $$("details:not([open])");
    folded.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((one) => { one.open = false; }));

  // Rows: all those that strategies answer differently, by who is right and by a word in them.
  const list = $("#rows");
  const SHOWN = 9;
  let page = 0;
  const wanted = (row) => {
    const [right, wrong] = [$("#row-right").value, $("#row-wrong").value];
    const text = $("#row-text").value.trim().toLowerCase();
    const is = (key, value) => key === "" || row.said[Number(key)][1] === value;
    return is(right, 1) && is(wrong, 0) && (text === "" || `${row.text} ${row.gold} ${row.id}`.toLowerCase().includes(text));
  };
  const card = (row) => {
    const made = element("article", undefined, "row");
    const text = element("p", `${row.text} `);
    text.append(element("span", row.id, "soft"));
    made.append(text);
    const answers = element("dl");
    answers.append(element("dt", "right"), element("dd", row.gold));
    row.said.forEach(([answer, right], at) => {
      const mark = right === null ? "" : right ? "✓ " : "✗ ";
      const name = element("dt", data.keys[at].key);
      name.title = data.keys[at].label;
      answers.append(name, element("dd", mark + data.answers[answer], right === null ? "" : right ? "right" : "wrong"));
    });
    made.append(answers);
    return made;
  };
  const leaf = () => {
    const found = data.rows.filter(wanted);
    page = Math.min(page, Math.max(0, Math.ceil(found.length / SHOWN) - 1));
    list.replaceChildren(...found.slice(page * SHOWN, (page + 1) * SHOWN).map(card));
    const last = Math.min(found.length, (page + 1) * SHOWN);
    $("#row-count").textContent = found.length ? `Rows ${page * SHOWN + 1} to ${last} of ${found.length}` : "No such row";
    $("#row-back").disabled = page === 0;
    $("#row-on").disabled = last >= found.length;
  };
  if (list && data.rows.length) {
    ["row-right", "row-wrong", "row-text"].forEach((name) => $(`#${name}`)?.addEventListener("input", () => { page = 0; leaf(); }));
    $("#row-back").addEventListener("click", () => { page -= 1; leaf(); });
    $("#row-on").addEventListener("click", () => { page += 1; leaf(); });
    leaf();
  }
})();
