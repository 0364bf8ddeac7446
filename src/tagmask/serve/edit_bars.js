() => {
  // The editor's buttons: tools, classes and actions, each with its key.
  const TOOLS = [
    ["brush", "Brush", "b", "Paint the chosen class"],
    ["erase", "Erase", "x", "Paint what shows no class"],
    ["is", "Is", "i", "Draw a line over what is of the chosen class; what looks alike follows"],
    ["not", "Is not", "n", "Draw a line over what is not of the chosen class; what looks alike goes"],
    ["delete", "Delete", "d", "Click on a region to delete it"],
    ["relabel", "Relabel", "r", "Click on a region to give it the chosen class"],
    ["alone", "Keep alone", "o", "Click on a region to delete all others of its class"],
    ["move", "Move", "m", "Drag the picture; so does Space, or the middle button, with any tool"],
  ];

  const make = (tag, properties = {}, children = []) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const labelled = (text, key) => [text, make("kbd", { textContent: key })];
  const choosing = (buttons, act) => (chosen) => {
    for (const [value, button] of buttons) button.setAttribute("aria-pressed", value === chosen);
    act(chosen, buttons.get(chosen).title);
  };

  // Each of these takes `keys`, to which it adds what its keys do, and what to do with the choice.
  const toolBar = (keys, act) => {
    const buttons = new Map(
      TOOLS.map(([name, text, key, title]) => {
        const button = make("button", { type: "button", title }, labelled(text, key.toUpperCase()));
        button.dataset.tool = name;
        return [name, button];
      }),
    );
    const choose = choosing(buttons, act);
    for (const [name, , key] of TOOLS) {
      buttons.get(name).addEventListener("click", () => choose(name));
      keys[key] = () => choose(name);
    }
    choose(TOOLS[0][0]);
    return make("div", { className: "tm-tools" }, [...buttons.values()]);
  };
  const classList = ({ classes, tags, colours, ground, ignored }, keys, act) => {
    const rest = classes.map((_, index) => index + 1).filter((label) => !tags.includes(label));
    const ids = [...tags, ...rest, ...(ground ? [] : [0]), ignored];
    const buttons = new Map();
    const choose = choosing(buttons, act);
    ids.forEach((label, place) => {
      const isClass = label > 0 && label < ignored;
      const key = label === 0 ? "0" : isClass && place < 9 ? String(place + 1) : "";
      const name = isClass ? classes[label - 1] : label ? "ignored" : "background";
      const chip = make("span", { className: "tm-chip" });
      chip.style.backgroundColor = label ? `rgb(${colours[label].join()})` : "transparent";
      const button = make("button", { type: "button" }, [chip, ...labelled(name, key)]);
      button.dataset.label = label;
      button.addEventListener("click", () => choose(label));
      buttons.set(label, button);
      if (key) keys[key] = () => choose(label);
    });
    choose(ids[0]);
    return make("div", { className: "tm-classes" }, [...buttons.values()]);
  };
  const action = (text, act, key = "") => {
    const button = make("button", { type: "button" }, labelled(text, key));
    button.addEventListener("click", act);
    return button;
  };
  // A button, and the bar that it opens: what the run makes of the image with more or less background.
  const anewBar = ({ refine, ground }, keys, act) => {
    const select = (title, options, value) => {
      const items = options.map(([key, text]) => make("option", { value: key, textContent: text }));
      const made = make("select", { title, ariaLabel: title }, items);
      made.value = value;
      return made;
    };
    const source = select("From", [["decoder", "the run's masks"], ["cam", "activation maps"]], "decoder");
    const ways = [["none", "not refined"], ["par", "refined by PAR"], ["crf", "refined by a CRF"]];
    const way = select("Refinement", ways, refine);
    const slider = make("input", { type: "range", min: -6, max: 6, step: 0.5, value: 0 });
    const range = make("label", { className: "tm-size" }, ["Background: less", slider, "more"]);
    const label = () => act({ source: source.value, refine: way.value, background: slider.value });
    for (const own of [source, way, slider]) own.addEventListener("change", label);
    const step = (by) => {
      if (bar.hidden) return;
      slider.value = Number(slider.value) + by;
      label();
    };
    const bar = make("div", { className: "tm-anew", hidden: true }, [source, way, ...(ground ? [] : [range])]);
    const toggle = () => {
      bar.hidden = !bar.hidden;
      button.setAttribute("aria-pressed", !bar.hidden);
    };
    const button = action("Label anew", toggle, "A");
    button.title = "Let the run label the image again, with more or less background";
    Object.assign(keys, { a: toggle, "-": () => step(-0.5), "+": () => step(0.5), "=": () => step(0.5) });
    return [button, bar];
  };
  window.tagmaskBars = { make, toolBar, classList, action, anewBar };
}
