// A status line, and the same line wherever else the page has one. Only this one is told to screen readers.

const stop = element.querySelector(".stop"), told = element.querySelector(".told");

function draw() {
  const value = typeof props.value === "object" && props.value ? props.value : { text: props.value || "" };
  const busy = "done" in value;
  for (const line of document.querySelectorAll(".waiting")) {
    const [said, bar] = [line.querySelector(".said"), line.querySelector("progress")];
    const text = busy || line.contains(stop) ? value.text : ""; // beside a button, while there is work
    if (said.textContent !== text) said.textContent = text;
    bar.hidden = !busy || value.done === null;
    bar.value = value.done ?? 0;
    bar.setAttribute("aria-label", value.text);
  }
  stop.disabled = !busy;
  stop.title = busy ? "" : "Nothing is running";
  const news = value.told ?? value.text;
  if (told.textContent !== news) told.textContent = news;
}

stop.addEventListener("click", () => trigger("stop"));
document.addEventListener("beside", draw);
watch("value", draw);
draw();
