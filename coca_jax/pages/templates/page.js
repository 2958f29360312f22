for (const figure of document.querySelectorAll(".chart")) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const plot = figure.querySelector(".plot"), cursor = figure.querySelector(".cursor"), reading = figure.querySelector(".reading");
  let at = data.x.length - 1;
  function hide() { cursor.hidden = reading.hidden = true; }
  function show(index) {
    at = Math.max(0, Math.min(data.x.length - 1, index));
    const left = data.x[at];
    cursor.hidden = reading.hidden = false;
    cursor.style.left = left + "%";
    cursor.replaceChildren(...data.lines.filter(line => line.y[at] !== null).map(line => {
      const dot = document.createElement("i");
      dot.className = line.style;
      dot.style.top = line.y[at] + "%";
      return dot;
    }));
    reading.textContent = ["step " + data.step[at], ...data.lines.map(line => line.name + "  " + line.text[at])].join("\n");
    reading.style.left = left < 55 ? "calc(" + left + "% + 12px)" : "auto";
    reading.style.right = left < 55 ? "auto" : "calc(" + (100 - left) + "% + 12px)";
  }
  function nearest(event) {
    const box = plot.getBoundingClientRect(), x = 100 * (event.clientX - box.left) / box.width;
    let best = 0;
    data.x.forEach((value, i) => { if (Math.abs(value - x) < Math.abs(data.x[best] - x)) best = i; });
    return best;
  }
  plot.addEventListener("pointermove", event => show(nearest(event)));
  plot.addEventListener("pointerdown", event => show(nearest(event)));
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", event => {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
    if (move) { show(cursor.hidden ? data.x.length - 1 : at + move); event.preventDefault(); }
  });
}
