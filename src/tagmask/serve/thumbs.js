() => {
  // The strip of small pictures below the review: only those in sight are in the page. A click jumps to an image.
  const WIDTH = 92; // CSS pixels from one picture to the next; see page.css
  const SPARE = 8; // pictures beyond either end of what is in sight
  const PAUSE = 120; // milliseconds without scrolling before more is asked for
  const MOST = 150000; // masks in the strip, for browsers make nothing much wider; what follows is reached by keys

  let strip = null; // the element, and what is in it
  let asked = 0;

  const facts = () => document.querySelector("#review-facts [data-showing]");
  const setTotal = (total) => {
    strip.inner.style.width = `${Math.min(total, MOST) * WIDTH}px`;
    strip.box.dataset.total = total;
  };

  const button = (item, place) => {
    const made = document.createElement("button");
    made.type = "button";
    made.title = item.name;
    made.dataset.name = item.name;
    made.dataset.verdict = item.verdict;
    made.style.left = `${place * WIDTH}px`;
    const picture = new Image();
    picture.loading = "lazy";
    picture.alt = `${item.name}, ${item.verdict === "none" ? "not decided" : item.verdict}`;
    picture.src = `thumbs/picture?${new URLSearchParams({ name: item.name, stamp: item.stamp })}`;
    made.append(picture);
    made.addEventListener("click", () => {
      window.tagmaskJump = item.name;
      document.getElementById("review-jump").click();
    });
    return made;
  };
  const mark = () => {
    const shown = facts()?.dataset.showing ?? "";
    const name = shown.slice(shown.indexOf(" ") + 1);
    for (const own of strip.inner.children) {
      if (own.dataset.name === name) own.setAttribute("aria-current", "true");
      else own.removeAttribute("aria-current");
    }
  };
  const refresh = async () => {
    const number = ++asked;
    const start = Math.max(0, Math.floor(strip.box.scrollLeft / WIDTH) - SPARE);
    const count = Math.ceil(strip.box.clientWidth / WIDTH) + 2 * SPARE;
    const answer = await fetch(`thumbs/part?start=${start}&count=${count}`).catch(() => null);
    if (number !== asked || !answer?.ok) return;
    const { total, items } = await answer.json();
    if (number !== asked) return;
    setTotal(total);
    strip.inner.replaceChildren(...items.map((item, index) => button(item, start + index)));
    mark();
  };
  const show = () => {
    const { place, of } = facts().dataset;
    setTotal(Number(of));
    strip.box.scrollLeft = Math.max(0, Number(place) * WIDTH - (strip.box.clientWidth - WIDTH) / 2);
    refresh();
  };
  const build = (box) => {
    const inner = document.createElement("div");
    box.replaceChildren(inner);
    strip = { box, inner, showing: null };
    let timer = 0;
    box.addEventListener("scroll", () => {
      clearTimeout(timer);
      timer = setTimeout(refresh, PAUSE);
    });
    new ResizeObserver(() => box.clientWidth && strip.showing && show()).observe(box);
  };
  const look = () => {
    const box = document.querySelector("#review-strip .tm-strip");
    const showing = facts()?.dataset.showing;
    if (!box || !showing) return;
    if (strip?.box !== box) build(box);
    if (strip.showing === showing) return;
    strip.showing = showing;
    if (box.clientWidth) show();
  };
  new MutationObserver(look).observe(document.body, {
    subtree: true,
    childList: true,
    attributes: true,
    attributeFilter: ["data-showing"],
  });
}
