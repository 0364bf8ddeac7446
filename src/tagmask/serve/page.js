() => {
  // Keys and clicks of the review tab stand in line. Each is sent only when the answer to the one before is on the
  // screen, so that it is a decision on the image that follows, and never a second one on the image before.
  const BUTTONS = {
    k: "review-keep",
    r: "review-redo",
    e: "review-edit",
    arrowleft: "review-back",
    arrowright: "review-forth",
  };
  const IN_LINE = new Set([...Object.values(BUTTONS), "review-fix", "review-mended", "review-jump"]);
  const MOVES = new Set(["review-jump", "review-back", "review-forth"]); // these decide nothing
  const TAGS = "tags"; // T stands in line too: it asks for the tags of the image to come
  const PATIENCE = 60000; // milliseconds; where no answer came in this time, none will

  // On a phone the decisions stay at the foot of the window. The interface mends style sheets in a way that loses @media.
  const PHONE = 700; // CSS pixels of the width of a window that is one
  const fit = () => document.documentElement.classList.toggle("tm-phone", window.innerWidth <= PHONE);
  window.addEventListener("resize", fit);
  fit();

  const line = [];
  let sent = null; // the last press: what was on the screen, when, what it was; null once its answer is there
  let passing = false; // whether a click is our own, on its way to the button

  const shown = () => document.querySelector("#review-facts [data-showing]")?.dataset.showing;
  const nameOf = (showing) => showing.slice(showing.indexOf(" ") + 1);

  const sendNext = () => {
    if (sent || !line.length || !shown()) return;
    const next = line.shift();
    if (next === TAGS) {
      document.querySelector("#review-tags input")?.focus();
      return;
    }
    sent = { showing: shown(), at: performance.now(), moves: MOVES.has(next) };
    passing = true;
    document.getElementById(next)?.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
    passing = false;
  };
  const queue = (what) => {
    if (line.at(-1) === TAGS) return; // what is typed after T is a tag, not a decision
    if (sent && performance.now() - sent.at > PATIENCE) {
      line.length = 0;
      sent = null;
    }
    line.push(what);
    sendNext();
  };
  new MutationObserver(() => {
    if (!sent || !shown() || shown() === sent.showing) return;
    // The same image again: the decision was refused, or all are decided. The person has to look before the next.
    // A move to the image that is shown already is what was asked for, and the keys after it stand.
    if (!sent.moves && nameOf(shown()) === nameOf(sent.showing)) line.length = 0;
    sent = null;
    setTimeout(sendNext); // once the interface has taken in the whole answer
  }).observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-showing"] });

  window.addEventListener(
    "click",
    (event) => {
      const id = event.target.closest?.("button")?.id;
      if (passing || !IN_LINE.has(id)) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      queue(id);
    },
    true,
  );
  document.addEventListener("keydown", (event) => {
    const panel = document.getElementById("review-panel");
    if (!panel || panel.offsetParent === null || event.repeat) return;
    if (event.ctrlKey && event.key === "Enter") {
      document.activeElement?.blur();
      queue("review-fix");
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, [contenteditable]")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const key = event.key.toLowerCase();
    if (key !== "t" && !BUTTONS[key]) return;
    event.preventDefault();
    queue(key === "t" ? TAGS : BUTTONS[key]);
  });
}
