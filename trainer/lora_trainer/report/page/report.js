(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("js");
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (name, className, text) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  // A page opened from a disk may have no storage.
  const remembered = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
  const remember = (key, value) => { try { localStorage.setItem(key, value); } catch { /* forgotten */ } };

  // Language and theme.
  const speak = (language) => {
    root.dataset.language = language;
    root.lang = language === "zh" ? "zh-Hant" : "en";
    for (const element of all("[data-spoken]")) element.setAttribute(element.dataset.spoken, element.dataset[language]);
    document.title = document.querySelector("title").dataset[language];
  };
  const preferred = () => (navigator.language || "").toLowerCase().startsWith("zh") ? "zh" : "en";
  const asked = new URLSearchParams(location.hash.startsWith("#?") ? location.hash.slice(2) : "");
  speak(asked.get("language") || remembered("report-language") || preferred());
  document.getElementById("language").addEventListener("click", () => {
    speak(root.dataset.language === "zh" ? "en" : "zh");
    remember("report-language", root.dataset.language);
  });
  const theme = asked.get("theme") || remembered("report-theme");
  if (theme) root.dataset.theme = theme;
  document.getElementById("theme").addEventListener("click", () => {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    remember("report-theme", root.dataset.theme);
  });

  // Copy.
  const copy = async (text) => {
    try { await navigator.clipboard.writeText(text); } catch {
      const area = make("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  for (const button of all(".copy")) {
    const [idle, done] = [button.querySelector(".idle"), button.querySelector(".done")];
    button.addEventListener("click", async () => {
      await copy(button.dataset.copy);
      [idle.hidden, done.hidden] = [true, false];
      setTimeout(() => { [idle.hidden, done.hidden] = [false, true]; }, 1500);
    });
  }

  // Charts: values under the pointer, or under the cursor that arrow keys move.
  const told = (value) => Number(value).toPrecision(4).replace(/(\.\d*?)0+($|e)/, "$1$2").replace(/\.($|e)/, "$1");
  for (const figure of all(".chart")) {
    const svg = figure.querySelector("svg");
    const { frame, lines } = JSON.parse(svg.dataset.chart);
    const cursor = svg.querySelector(".cursor");
    const readout = figure.querySelector(".readout");
    const names = all(".line-name", figure);
    const xName = figure.querySelector(".x-name");
    const xs = [...new Set(lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
    let place = -1;
    const across = (x) => frame.left + (x - frame.x[0]) / (frame.x[1] - frame.x[0]) * (frame.right - frame.left);
    const show = (index) => {
      place = Math.min(Math.max(index, 0), xs.length - 1);
      const x = xs[place];
      cursor.setAttribute("x1", across(x));
      cursor.setAttribute("x2", across(x));
      const head = make("b");
      head.append(...[...xName.childNodes].map((node) => node.cloneNode(true)), ` ${x}`);
      const parts = lines.map((line, number) => {
        const at = line.points.findIndex((point) => point[0] === x);
        if (at < 0) return null;
        const part = make("span", "value");
        part.append(make("span", `swatch c${number % 6}`));
        part.append(...[...names[number].childNodes].map((node) => node.cloneNode(true)));
        part.append(` ${told(line.points[at][1])}${line.errors.length ? ` ± ${told(line.errors[at])}` : ""}`);
        return part;
      });
      readout.replaceChildren(head, ...parts.filter(Boolean));
    };
    const plot = figure.querySelector(".plot");
    const follow = (event) => {
      const box = svg.getBoundingClientRect();
      const wanted = (event.clientX - box.left) / box.width * frame.width;
      let nearest = 0;
      xs.forEach((x, index) => { if (Math.abs(across(x) - wanted) < Math.abs(across(xs[nearest]) - wanted)) nearest = index; });
      show(nearest);
    };
    plot.addEventListener("pointermove", follow);
    plot.addEventListener("pointerdown", follow);
    plot.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: xs.length - 1 };
      if (event.key in moves) { event.preventDefault(); show(moves[event.key]); }
    });
  }

  // Samples: one slider moves every picture.
  for (const board of all(".board")) {
    const slide = board.querySelector("input[type=range]");
    const moments = all(".moment", board);
    const every = board.querySelector("#every-epoch");
    const epochs = every ? JSON.parse(every.textContent) : null;
    const frames = all(".frames", board).map((element) => ({
      pictures: all(".frame", element),
      epochs: element.dataset.epochs ? JSON.parse(element.dataset.epochs) : null,
    }));
    const placeIn = (row, place) => {
      if (!epochs) return place;
      let found = 0;
      row.epochs.forEach((epoch, index) => { if (epoch <= epochs[place]) found = index; });
      return found;
    };
    const show = (place) => {
      moments.forEach((moment, index) => moment.classList.toggle("shown", index === place));
      for (const row of frames) {
        const shown = placeIn(row, place);
        row.pictures.forEach((picture, index) => picture.classList.toggle("shown", index === shown));
      }
      slide.setAttribute("aria-valuetext", moments[place].innerText);
    };
    slide.value = board.dataset.start;
    slide.addEventListener("input", () => show(Number(slide.value)));
    show(Number(board.dataset.start));
    const contact = board.querySelector(".contact");
    if (contact) contact.addEventListener("toggle", () => layOut(board, contact, moments), { once: true });
  }

  // The same pictures once more, side by side: made only when they are asked for.
  function layOut(board, contact, moments) {
    const table = make("table");
    const head = table.createTHead().insertRow();
    head.append(make("td"));
    for (const moment of moments) {
      const cell = make("th");
      cell.scope = "col";
      cell.append(...[...moment.childNodes].map((node) => node.cloneNode(true)));
      head.append(cell);
    }
    const body = table.createTBody();
    for (const figure of all("figure", board)) {
      const row = body.insertRow();
      const cell = make("th", "", figure.querySelector("figcaption bdi").textContent);
      cell.scope = "row";
      row.append(cell);
      for (const frame of all(".frame", figure)) row.insertCell().append(...all(".picture", frame).map((picture) => picture.cloneNode(true)));
    }
    contact.querySelector(".scroll").append(table);
  }

  // Pictures enlarged: drag to move, wheel, pinch or keys to zoom.
  const viewer = document.getElementById("viewer");
  const stage = viewer.querySelector(".stage");
  const image = stage.querySelector("img");
  const view = { x: 0, y: 0, scale: 1 };
  const fingers = new Map();
  const place = () => { image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`; };
  const fit = () => {
    const room = stage.getBoundingClientRect();
    view.scale = Math.min(room.width / image.naturalWidth, room.height / image.naturalHeight, 4);
    view.x = (room.width - image.naturalWidth * view.scale) / 2;
    view.y = (room.height - image.naturalHeight * view.scale) / 2;
    place();
  };
  const zoom = (factor, x, y) => {
    const scale = Math.min(Math.max(view.scale * factor, 0.02), 20);
    view.x = x - (x - view.x) * scale / view.scale;
    view.y = y - (y - view.y) * scale / view.scale;
    view.scale = scale;
    place();
  };
  const zoomAtCentre = (factor) => {
    const room = stage.getBoundingClientRect();
    zoom(factor, room.width / 2, room.height / 2);
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".picture");
    if (!button) return;
    image.src = button.querySelector("img").src;
    image.alt = button.dataset.label;
    viewer.querySelector(".caption").textContent = button.dataset.label;
    viewer.showModal();
    image.decode().then(fit, fit);
  });
  viewer.querySelector(".close").addEventListener("click", () => viewer.close());
  for (const button of all("[data-zoom]", viewer)) {
    const factor = Number(button.dataset.zoom);
    button.addEventListener("click", () => factor ? zoomAtCentre(factor) : fit());
  }
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const room = stage.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 400), event.clientX - room.left, event.clientY - room.top);
  }, { passive: false });
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, width: Math.hypot(a.x - b.x, a.y - b.y) };
  };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  stage.addEventListener("pointermove", (event) => {
    const finger = fingers.get(event.pointerId);
    if (!finger) return;
    const before = fingers.size === 2 ? spread() : { x: finger.x, y: finger.y };
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const after = fingers.size === 2 ? spread() : { x: event.clientX, y: event.clientY };
    view.x += after.x - before.x;
    view.y += after.y - before.y;
    const room = stage.getBoundingClientRect();
    if (fingers.size === 2 && before.width) zoom(after.width / before.width, after.x - room.left, after.y - room.top);
    place();
  });
  const lift = (event) => fingers.delete(event.pointerId);
  stage.addEventListener("pointerup", lift);
  stage.addEventListener("pointercancel", lift);
  stage.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
    if (event.key === "+" || event.key === "=") zoomAtCentre(1.25);
    else if (event.key === "-") zoomAtCentre(0.8);
    else if (event.key === "0") fit();
    else if (event.key in moves) {
      event.preventDefault();
      view.x += moves[event.key][0];
      view.y += moves[event.key][1];
      place();
    }
  });
  addEventListener("resize", () => { if (viewer.open) fit(); });
  addEventListener("beforeprint", () => { for (const element of all("details:not(.contact)")) element.open = true; });
})();
