"use strict";
// Makes the pages nicer; every page works without it.

document.documentElement.classList.add("js");
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Previews, drop zones, and pictures that add up instead of replacing each other.
async function draw(file, place) {
  let picture;
  try {
    picture = await createImageBitmap(file, { resizeWidth: 320, resizeQuality: "medium" });
  } catch {
    const page = document.createElement("span");
    page.className = "page";
    page.textContent = /\.(dcm|dicom)$/i.test(file.name) || !file.name.includes(".") ? "DICOM" : "file";
    place.replaceWith(page);
    return;
  }
  place.width = picture.width;
  place.height = picture.height;
  place.getContext("2d").drawImage(picture, 0, 0);
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function filePicker(input) {
  const panel = input.closest("fieldset");
  const drop = input.closest(".drop");
  const list = panel.querySelector(".chosen");
  const complaint = panel.querySelector("[data-complaint]");
  const most = Number(input.dataset.most);
  let kept = [...input.files];

  function show() {
    const files = new DataTransfer();
    kept.forEach((file) => files.items.add(file));
    input.files = files.files;
    list.hidden = kept.length === 0;
    list.replaceChildren(...kept.map((file, place) => {
      const item = document.createElement("li");
      const canvas = document.createElement("canvas");
      canvas.setAttribute("aria-hidden", "true");
      const name = document.createElement("p");
      name.textContent = `${file.name} (${size(file.size)})`;
      const away = document.createElement("button");
      away.type = "button";
      away.className = "plain";
      away.textContent = "Remove";
      away.setAttribute("aria-label", `Remove ${file.name}`);
      away.addEventListener("click", () => {
        kept.splice(place, 1);
        complain("");
        show();
        input.focus();
      });
      item.append(canvas, name, away);
      draw(file, canvas);
      return item;
    }));
  }

  function complain(text) {
    complaint.textContent = text;
    complaint.hidden = text === "";
  }

  function add(files) {
    const fresh = files.filter((file) => !kept.some((k) => k.name === file.name && k.size === file.size && k.lastModified === file.lastModified));
    const together = most === 1 ? (fresh.length ? fresh : kept) : [...kept, ...fresh];
    kept = together.slice(0, most);
    complain(together.length > most ? `Only ${most} ${most === 1 ? "file is" : "files are"} taken here: the rest was left out.` : "");
    show();
  }

  input.addEventListener("change", () => add([...input.files]));
  for (const kind of ["dragenter", "dragover"]) input.addEventListener(kind, () => drop.classList.add("over"));
  for (const kind of ["dragleave", "drop", "dragend"]) input.addEventListener(kind, () => drop.classList.remove("over"));
  input.addEventListener("invalid", () => complain("A file is needed here."));

  const camera = panel.querySelector("[data-camera]");
  if (camera && matchMedia("(pointer: coarse)").matches) {
    camera.hidden = false;
    camera.firstElementChild.addEventListener("click", () => {
      const shot = document.createElement("input");
      shot.type = "file";
      shot.accept = "image/jpeg,image/png";
      shot.capture = "environment";
      shot.addEventListener("change", () => add([...shot.files]));
      shot.click();
    });
  }
  if (kept.length) show();
  return add;
}

const pickers = all("fieldset .drop input").map(filePicker);
// A file dropped beside the zones must not make the browser leave the page.
if (pickers.length) {
  for (const kind of ["dragover", "drop"]) {
    document.addEventListener(kind, (event) => {
      if (event.target.type === "file") return;
      event.preventDefault();
      if (kind === "drop" && pickers.length === 1) pickers[0]([...event.dataTransfer.files]);
    });
  }
}

// One scanner for all views, until somebody says otherwise.
const layouts = all("[data-layout]");
layouts.forEach((select) => select.addEventListener("change", () => {
  select.dataset.touched = "yes";
  layouts.filter((other) => !other.dataset.touched && [...other.options].some((o) => o.value === select.value))
    .forEach((other) => { other.value = select.value; });
}));

// Says beside a figure where it lies, as soon as it is typed.
all("input[type=number][aria-describedby*=said]").forEach((input) => {
  const said = input.closest(".field").querySelector(".said");
  const end = (name) => (input.dataset[name] === undefined ? NaN : Number(input.dataset[name]));
  input.addEventListener("change", () => {
    const value = input.valueAsNumber;
    const words = [];
    if (!input.validity.valid && !Number.isNaN(value)) words.push("not plausible: check figure and unit");
    else {
      if (value < end("normalLow")) words.push("below the reference range");
      if (value > end("normalHigh")) words.push("above the reference range");
      if (value < end("trainingLow") || value > end("trainingHigh")) words.push("outside what the study saw");
    }
    said.textContent = words.join("; ");
  });
});

all("form[data-case]").forEach((form) => {
  const button = form.querySelector("button[type=submit]");
  const busy = form.querySelector("[data-busy]");
  form.addEventListener("submit", () => {
    button.disabled = true;
    busy.textContent = "Reading and answering. This takes a few seconds.";
  });
  addEventListener("pageshow", () => {
    button.disabled = false;
    busy.textContent = "";
  });
});

// The answer.
all("[data-strength]").forEach((label) => {
  label.hidden = false;
  const view = label.closest(".view");
  label.querySelector("input").addEventListener("input", (event) => {
    all(".heat", view).forEach((map) => { map.style.opacity = event.target.value / 100; });
    view.querySelector(".seen").checked = true;
  });
});

const percent = (p) => (p < 0.01 ? "< 1 %" : p > 0.99 ? "> 99 %" : `${Math.round(100 * p)} %`);
const positive = (sensitivity, specificity, p) => (sensitivity * p) / (sensitivity * p + (1 - specificity) * (1 - p));
const negative = (sensitivity, specificity, p) => (specificity * (1 - p)) / (specificity * (1 - p) + (1 - sensitivity) * p);

all("form[data-prevalence]").forEach((form) => {
  const input = form.querySelector("input[type=number]");
  const panel = form.closest("section");
  const out = (name, text) => { panel.querySelector(`[data-out="${name}"]`).textContent = text; };
  const [sensitivity, specificity] = ["sensitivity", "specificity"].map((name) => input.dataset[name].split(" ").map(Number));
  form.querySelector("button").hidden = true;
  form.addEventListener("submit", (event) => event.preventDefault());
  input.addEventListener("input", () => {
    if (!input.validity.valid) return;
    const p = input.valueAsNumber / 100;
    for (const [name, value] of [["ppv", positive], ["npv", negative]]) {
      const [middle, low, high] = [0, 1, 2].map((i) => value(sensitivity[i], specificity[i], p));
      out(name, percent(middle));
      out(`${name}-interval`, Number.isFinite(low) && Number.isFinite(high) ? `${percent(low)} to ${percent(high)}` : "no interval");
    }
    const having = Math.round(1000 * p);
    const found = Math.round(having * sensitivity[0]);
    out("having", having);
    out("prevalence", input.value);
    out("found", found);
    out("missed", having - found);
    out("wrongly", Math.round((1000 - having) * (1 - specificity[0])));
  });
});

all("[data-print]").forEach((button) => {
  button.hidden = false;
  button.addEventListener("click", () => {
    print();
  });
});

// A batch: the page asks for itself again and takes over what is new.
async function poll() {
  const part = document.getElementById("batch");
  if (!part || !part.hasAttribute("data-poll")) return;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("batch");
      const status = part.querySelector("[role=status]");
      if (!fresh) return location.reload();
      status.textContent = fresh.querySelector("[role=status]").textContent;
      if (!fresh.hasAttribute("data-poll")) {
        document.querySelector("h1").textContent = page.querySelector("h1").textContent;
        part.removeAttribute("data-poll");
      }
      part.querySelector("progress").value = fresh.querySelector("progress").value;
      const old = part.querySelector(".buttons"), buttons = fresh.querySelector(".buttons");
      if (buttons && !old) part.querySelector("section").append(buttons);
      const rows = part.querySelector("tbody"), now = fresh.querySelector("tbody");
      if (rows && now) rows.replaceChildren(...now.children);
      else if (now) part.querySelector("section").after(fresh.querySelector(".scroll"));
    } else if (answer.status === 404) return location.reload();
  } catch { /* the server may be restarting: ask again */ }
  setTimeout(poll, 1000);
}
setTimeout(poll, 700);
