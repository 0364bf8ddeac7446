() => {
  // Keys of the page of proposed tags. A press goes to a button or a box, so that both are one way.
  const BUTTONS = { Enter: "tags-confirm", ArrowLeft: "tags-back", ArrowRight: "tags-forth" };
  document.addEventListener("keydown", (event) => {
    if (!document.getElementById("tags-panel") || event.repeat) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const boxes = document.querySelectorAll("#tags-choice input[type=checkbox]");
    const pressed = BUTTONS[event.key]
      ? document.getElementById(BUTTONS[event.key])
      : /^[1-9]$/.test(event.key) && boxes[Number(event.key) - 1];
    if (!pressed) return;
    event.preventDefault();
    pressed.click();
  });
}
