() => {
  // The editor of a mask. It opens when the review tab shows an image with `data-mend`, and is gone once it is saved.
  const { make, toolBar, classList, action, anewBar } = window.tagmaskBars;
  const DRAWS = new Set(["brush", "erase", "is", "not"]);
  const SCRIBBLES = new Set(["is", "not"]);
  const [FREE, FIXED, STROKE] = [0, 1, 2]; // marks: see serve/scribble.py
  const MOST_SIZE = 150; // of the brush, in pixels of the image
  const NARROW = 700; // CSS pixels of a window that has the classes below the picture
  const MOST_KEPT = 256e6; // bytes of maps to go back to
  const HELP = "Wheel zooms · Space drags · [ ] size · H hides the mask · Ctrl+Z undo · S saves · Esc leaves";

  let state = null; // of the open editor

  const say = (text, isError = false) => {
    if (!state) return;
    state.status.textContent = text;
    state.status.classList.toggle("tm-wrong", isError);
  };

  // What the server is asked: see serve/editor.py.
  const ask = async (what, query = {}, body = undefined) => {
    const address = `mend/${what}?${new URLSearchParams({ showing: state.showing, ...query })}`;
    const answer = await fetch(address, body && { method: "POST", body });
    if (!answer.ok) {
      const said = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
      throw new Error(said.error);
    }
    return answer;
  };
  const bytesOf = async (answer) => new Uint8Array(await answer.arrayBuffer());
  // One task after the other; no stroke begins meanwhile.
  const busy = (task) => {
    const own = state;
    own.busy++;
    own.canvas.ariaBusy = true;
    own.work = own.work
      .then(() => (state === own ? task() : undefined))
      .catch((error) => say(error.message, true))
      .finally(() => {
        own.busy--;
        own.canvas.ariaBusy = own.busy > 0;
      });
    return own.work;
  };

  // Undo and redo: whole maps, as many as there is room for.
  const remember = () => {
    state.past.push(state.view.copied());
    state.future.length = 0;
    const most = Math.max(3, Math.floor(MOST_KEPT / (2 * state.view.labels.length)));
    if (state.past.length > most) state.past.shift();
    state.leaving = false;
  };
  const travel = (from, to) => {
    const next = from.pop();
    if (!next) return;
    to.push(state.view.copied());
    state.view.set(next.labels, next.marks);
  };
  const undo = () => travel(state.past, state.future);
  const redo = () => travel(state.future, state.past);

  // What the tools do.
  const begin = (point) => {
    if (!state.view.isInside(point) && !DRAWS.has(state.tool)) return;
    remember();
    if (DRAWS.has(state.tool)) {
      state.at = point;
      draw(point);
      return;
    }
    const label = state.tool === "relabel" ? state.label : state.opened.ground;
    busy(async () => {
      const query = { ...point, change: state.tool, label };
      state.view.set(await bytesOf(await ask("region", query, state.view.labels)));
    });
  };
  const draw = (point) => {
    const { labels, marks } = state.view;
    const label = state.tool === "erase" ? state.opened.ground : state.label;
    const paint = (place) => {
      labels[place] = label;
      marks[place] = FIXED;
    };
    const scribble = (place) => {
      marks[place] = STROKE;
    };
    state.view.stroke(state.at, point, state.size, SCRIBBLES.has(state.tool) ? scribble : paint);
    state.at = point;
  };
  const end = () => {
    if (!state.at) return;
    state.at = null;
    if (SCRIBBLES.has(state.tool)) busy(refine);
  };
  const refine = async () => {
    const { labels, marks } = state.view;
    const body = new Uint8Array(2 * labels.length);
    body.set(labels);
    body.set(marks, labels.length);
    const query = { label: state.label, wanted: state.tool === "is" ? 1 : 0 };
    try {
      state.view.set(await bytesOf(await ask("scribble", query, body)));
    } catch (error) {
      undo();
      state.future.length = 0;
      throw error;
    }
    state.view.set(
      state.view.labels,
      marks.map((mark) => (mark === STROKE ? FIXED : mark)),
    );
  };
  // The image labelled anew; what was drawn by hand stays.
  const anew = (query) => {
    remember();
    busy(async () => {
      const { labels, marks } = state.view;
      const found = await bytesOf(await ask("relabel", query));
      state.view.set(found.map((label, place) => (marks[place] === FREE ? label : labels[place])));
      say("Labelled anew; what you drew has stayed.");
    });
  };
  const save = () =>
    busy(async () => {
      await ask("save", {}, state.view.labels);
      close();
      document.getElementById("review-mended").click();
    });
  const leave = () => {
    if (state.past.length && !state.leaving) {
      state.leaving = true;
      say("There are changes: Esc once more leaves them, S saves them.", true);
    } else close();
  };
  const close = () => {
    state.sizes.disconnect();
    state.dialog.remove();
    state = null;
  };

  // What the pointer does.
  const startPan = (event) => {
    state.held = state.view.place(event);
  };
  const down = (event) => {
    state.fingers.set(event.pointerId, state.view.place(event));
    event.target.setPointerCapture(event.pointerId);
    if (state.fingers.size === 2) {
      if (state.at) undo();
      state.at = null;
    } else if (event.button === 1 || state.space || state.tool === "move") startPan(event);
    else if (event.button === 0 && !state.busy) begin(state.view.pixel(event));
    event.preventDefault();
  };
  const move = (event) => {
    const { view, fingers } = state;
    const before = fingers.get(event.pointerId);
    const now = view.place(event);
    view.cursor = DRAWS.has(state.tool) ? { ...view.pixel(event), size: state.size } : null;
    view.redraw();
    if (!before) return;
    fingers.set(event.pointerId, now);
    if (fingers.size === 2) view.pinch(before, now, [...fingers].find(([own]) => own !== event.pointerId)[1]);
    else if (state.held) {
      view.pan(now.x - state.held.x, now.y - state.held.y);
      state.held = now;
    } else if (state.at) draw(view.pixel(event));
  };
  const up = (event) => {
    state.fingers.delete(event.pointerId);
    state.held = null;
    end();
  };
  const wheel = (event) => {
    event.preventDefault();
    const { x, y } = state.view.place(event);
    state.view.zoom(Math.exp(-event.deltaY / 400), x, y);
  };

  // What the keys do. None of them reaches the review tab below.
  const setSize = (size) => {
    state.size = Math.min(MOST_SIZE, Math.max(1, Math.round(size)));
    state.slider.value = state.size;
    if (state.view.cursor) state.view.cursor.size = state.size;
    state.view.redraw();
  };
  const hide = () => {
    state.view.hidden = !state.view.hidden;
    state.view.redraw();
  };
  const KEYS = {
    h: hide,
    s: save,
    escape: leave,
    "[": () => setSize(Math.min(state.size - 1, state.size * 0.8)),
    "]": () => setSize(Math.max(state.size + 1, state.size * 1.25)),
  };
  const keydown = (event) => {
    if (!state) return;
    event.stopImmediatePropagation();
    const key = event.key.toLowerCase();
    if (!state.view && key !== "escape") return;
    if (event.ctrlKey || event.metaKey) {
      if (key !== "z" && key !== "y") return;
      event.preventDefault();
      busy(key === "y" || event.shiftKey ? redo : undo);
      return;
    }
    if (key === " ") {
      state.space = true;
      event.preventDefault();
      return;
    }
    const own = KEYS[key] ?? state.keys[key];
    if (!own || (event.repeat && "hs".includes(key))) return;
    event.preventDefault();
    own();
  };
  window.addEventListener("keydown", keydown, true);
  window.addEventListener("keyup", (event) => state && event.key === " " && (state.space = false), true);
  window.addEventListener("beforeunload", (event) => state?.past.length && event.preventDefault());

  // The dialog.
  const chooseTool = (name, title) => {
    state.tool = name;
    state.canvas.dataset.tool = name;
    say(`${title}.`);
  };
  const chooseLabel = (label) => {
    state.label = label;
  };
  const sizes = () => {
    state.slider = make("input", { type: "range", min: 1, max: MOST_SIZE, value: state.size });
    state.slider.addEventListener("input", () => setSize(Number(state.slider.value)));
    return make("label", { className: "tm-size" }, ["Size", state.slider]);
  };
  const build = () => {
    const { canvas } = state;
    const history = [
      action("Undo", () => busy(undo)),
      action("Redo", () => busy(redo)),
      action("Hide", hide, "H"),
      action("Fit", () => state.view.fit()),
    ];
    const ends = [action("Cancel", leave, "Esc"), action("Save", save, "S")];
    const top = make("div", { className: "tm-bar-row" }, [toolBar(state.keys, chooseTool), sizes(), ...history]);
    const bottom = make("div", { className: "tm-bar-row tm-ends" }, [state.status, ...ends]);
    ends[1].classList.add("tm-save");
    const [button, bar] = anewBar(state.opened, state.keys, anew);
    top.append(button, bar);
    state.dialog.append(top, canvas, classList(state.opened, state.keys, chooseLabel), bottom);
    const events = { pointerdown: down, pointermove: move, pointerup: up, pointercancel: up };
    for (const [name, react] of Object.entries(events)) canvas.addEventListener(name, react);
    canvas.addEventListener("wheel", wheel, { passive: false });
    state.dialog.addEventListener("cancel", (event) => event.preventDefault());
  };
  const arrange = () => {
    // The interface mends style sheets in a way that loses @media.
    state.dialog.classList.toggle("tm-narrow", window.innerWidth <= NARROW);
    state.view.resize();
  };
  const open = async (showing) => {
    const dialog = make("dialog", { id: "tm-editor" });
    const status = make("p", { className: "tm-status", role: "status", textContent: "Opening …" });
    const canvas = make("canvas", { tabIndex: 0 });
    const own = { showing, dialog, status, canvas, keys: {}, past: [], future: [], fingers: new Map(), busy: 0 };
    state = Object.assign(own, { work: Promise.resolve(), size: 15, sizes: { disconnect() {} } });
    dialog.append(status);
    document.body.append(dialog);
    dialog.showModal();
    try {
      state.opened = await (await ask("open")).json();
      const labels = await bytesOf(await ask("map"));
      const photo = Object.assign(new Image(), { src: state.opened.photo });
      await photo.decode();
      if (state !== own) return;
      state.view = window.tagmaskView(canvas, state.opened, photo);
      dialog.setAttribute("aria-label", `Mend the mask of ${state.opened.name}`);
      build();
      state.sizes = new ResizeObserver(arrange);
      state.sizes.observe(canvas);
      state.view.set(labels);
      canvas.focus();
      say(HELP);
      canvas.dataset.ready = showing;
    } catch (error) {
      say(error.message, true);
    }
  };
  let last = null;
  new MutationObserver(() => {
    const showing = document.querySelector("#review-facts [data-mend]")?.dataset.showing;
    if (!showing || showing === last || state) return;
    last = showing;
    open(showing);
  }).observe(document.body, { subtree: true, childList: true });
}
