() => {
  // Keys of the review tab. They press its buttons, so that there is one way a decision goes.
  const buttons = { k: "review-keep", r: "review-redo", arrowleft: "review-back", arrowright: "review-forth" };
  const press = (id) => document.getElementById(id)?.click();
  document.addEventListener("keydown", (event) => {
    const panel = document.getElementById("review-panel");
    if (!panel || panel.offsetParent === null || event.repeat) return;
    if (event.ctrlKey && event.key === "Enter") {
      document.activeElement?.blur();
      press("review-fix");
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, [contenteditable]")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const key = event.key.toLowerCase();
    if (key === "t") {
      event.preventDefault();
      document.querySelector("#review-tags input")?.focus();
    } else if (buttons[key]) {
      event.preventDefault();
      press(buttons[key]);
    }
  });
}
