() => {
  // A photograph under its mask on a canvas: colours, zoom, pan and strokes. It knows nothing of tools and the server.
  const OUTLINE = 255; // opacity at the rim of a region, of 255
  const STROKE = 2; // the mark of a scribble that is being drawn
  const LEAST_ZOOM = 0.5; // beside the zoom at which the whole image is seen
  const MOST_ZOOM = 40; // screen pixels a pixel of the image

  window.tagmaskView = (canvas, opened, photo) => {
    const { width, height, colours } = opened;
    const paint = new OffscreenCanvas(width, height);
    const layer = paint.getContext("2d");
    const screen = canvas.getContext("2d");
    const view = {
      labels: new Uint8Array(width * height),
      marks: new Uint8Array(width * height),
      opacity: 0.5,
      hidden: false,
      cursor: null, // the brush: x, y and size in pixels of the image
    };
    let scale = 1;
    let left = 0;
    let top = 0;
    let asked = false;

    const draw = () => {
      asked = false;
      screen.setTransform(1, 0, 0, 1, 0, 0);
      screen.clearRect(0, 0, canvas.width, canvas.height);
      const dense = window.devicePixelRatio;
      screen.setTransform(scale * dense, 0, 0, scale * dense, left * dense, top * dense);
      screen.imageSmoothingEnabled = true;
      screen.drawImage(photo, 0, 0, width, height);
      screen.imageSmoothingEnabled = false; // a pixel of the mask is a square
      if (!view.hidden) screen.drawImage(paint, 0, 0);
      if (view.cursor) drawCursor();
      Object.assign(canvas.dataset, { scale, left, top });
    };
    const drawCursor = () => {
      const { x, y, size } = view.cursor;
      for (const [wide, colour] of [[3, "black"], [1, "white"]]) {
        screen.beginPath();
        screen.arc(x + 0.5, y + 0.5, size / 2, 0, 2 * Math.PI);
        screen.lineWidth = wide / scale;
        screen.strokeStyle = colour;
        screen.stroke();
      }
    };
    const redraw = () => {
      if (!asked) requestAnimationFrame(draw);
      asked = true;
    };

    const isRim = (x, y, label) =>
      (x > 0 && view.labels[y * width + x - 1] !== label) ||
      (x < width - 1 && view.labels[y * width + x + 1] !== label) ||
      (y > 0 && view.labels[(y - 1) * width + x] !== label) ||
      (y < height - 1 && view.labels[(y + 1) * width + x] !== label);

    // Colour the pixels of a rectangle anew, and those beside it, whose outline may have changed.
    const recolour = (x0 = 0, y0 = 0, x1 = width - 1, y1 = height - 1) => {
      [x0, y0] = [Math.max(0, x0 - 1), Math.max(0, y0 - 1)];
      [x1, y1] = [Math.min(width - 1, x1 + 1), Math.min(height - 1, y1 + 1)];
      if (x1 < x0 || y1 < y0) return;
      const picture = new ImageData(x1 - x0 + 1, y1 - y0 + 1);
      let to = 0;
      for (let y = y0; y <= y1; y++) {
        for (let x = x0; x <= x1; x++, to += 4) {
          const label = view.labels[y * width + x];
          const drawn = view.marks[y * width + x] === STROKE;
          if (!label && !drawn) continue;
          const rim = drawn || isRim(x, y, label);
          picture.data.set(drawn ? [255, 255, 255] : colours[label], to);
          picture.data[to + 3] = rim ? OUTLINE : Math.round(255 * view.opacity);
        }
      }
      layer.putImageData(picture, x0, y0);
      redraw();
    };

    // Visit each pixel that a round brush covers on its way, and colour them anew.
    const stroke = (from, to, size, visit) => {
      const steps = Math.max(Math.abs(to.x - from.x), Math.abs(to.y - from.y), 1);
      const reach = Math.ceil(size / 2);
      for (let step = 0; step <= steps; step++) {
        const x = Math.round(from.x + ((to.x - from.x) * step) / steps);
        const y = Math.round(from.y + ((to.y - from.y) * step) / steps);
        stamp(x, y, size, reach, visit);
      }
      const [x0, x1] = [Math.min(from.x, to.x) - reach, Math.max(from.x, to.x) + reach];
      const [y0, y1] = [Math.min(from.y, to.y) - reach, Math.max(from.y, to.y) + reach];
      recolour(x0, y0, x1, y1);
    };
    const stamp = (x, y, size, reach, visit) => {
      for (let row = Math.max(0, y - reach); row <= Math.min(height - 1, y + reach); row++) {
        for (let column = Math.max(0, x - reach); column <= Math.min(width - 1, x + reach); column++) {
          if ((column - x) ** 2 + (row - y) ** 2 <= (size / 2) ** 2) visit(row * width + column);
        }
      }
    };

    const whole = () => Math.min(canvas.clientWidth / width, canvas.clientHeight / height);
    const fit = () => {
      scale = whole();
      left = (canvas.clientWidth - width * scale) / 2;
      top = (canvas.clientHeight - height * scale) / 2;
      redraw();
    };
    const resize = () => {
      canvas.width = Math.round(canvas.clientWidth * window.devicePixelRatio);
      canvas.height = Math.round(canvas.clientHeight * window.devicePixelRatio);
      fit();
    };
    const zoom = (factor, x, y) => {
      const next = Math.min(Math.max(MOST_ZOOM, whole()), Math.max(LEAST_ZOOM * whole(), scale * factor));
      left = x - ((x - left) * next) / scale;
      top = y - ((y - top) * next) / scale;
      scale = next;
      redraw();
    };
    // One of two fingers goes from a place to another, and the other stays.
    const pinch = (before, now, other) => {
      const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 1;
      zoom(apart(now) / apart(before), other.x, other.y);
    };
    const pan = (x, y) => {
      left += x;
      top += y;
      redraw();
    };
    // The place of an event on the canvas, and the pixel of the image there.
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    const pixel = (event) => {
      const { x, y } = place(event);
      return { x: Math.floor((x - left) / scale), y: Math.floor((y - top) / scale) };
    };
    const isInside = ({ x, y }) => x >= 0 && y >= 0 && x < width && y < height;
    const set = (labels, marks) => {
      view.labels = labels;
      if (marks) view.marks = marks;
      recolour();
    };
    const copied = () => ({ labels: view.labels.slice(), marks: view.marks.slice() });
    const shown = { set, copied, recolour, redraw, stroke };
    return Object.assign(view, shown, { fit, resize, zoom, pinch, pan, place, pixel, isInside });
  };
}
