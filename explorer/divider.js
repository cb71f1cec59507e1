() => {  // gradio's slider of two pictures knows no keyboard, and its pictures have no text
  const handles = '[data-testid="slider"]', step = 32;
  const name = () => document.querySelectorAll(handles).forEach((handle) => {
    if (handle.tabIndex === 0) return;
    Object.assign(handle, {tabIndex: 0, role: 'slider', ariaLabel: 'Divider: naive upsampling left, EmerDiff right'});
    handle.parentElement.querySelectorAll('img').forEach((image, i) => {
      image.alt = `The picture under ${['the segments of naive upsampling', "EmerDiff's segments"][i]}`;
    });
  });
  name();
  new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
  document.addEventListener('keydown', (event) => {
    const move = {ArrowLeft: -step, ArrowRight: step}[event.key], handle = event.target;
    if (!move || !handle.matches(handles)) return;
    event.preventDefault();
    const box = handle.getBoundingClientRect(), x = box.x + box.width / 2, clientY = box.y + box.height / 2;
    const drag = (type, target, clientX) =>
      target.dispatchEvent(new MouseEvent(type, {clientX, clientY, bubbles: true, cancelable: true, view: window}));
    drag('mousedown', handle, x);
    drag('mousemove', window, x + move);
    drag('mouseup', window, x + move);
  });
}
