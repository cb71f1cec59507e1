// Draws what explorer/pair.py sends, in the viewer's clothes. A flicker shows one picture after the other, twice a second
// at most; for those who prefer less motion a press of the button swaps them.

const root = element.querySelector('.pair');
const still = matchMedia('(prefers-reduced-motion: reduce)');
const PAUSE = 600; // milliseconds
root.innerHTML = `
  <figure><div class="stage">
    <div class="layer"><img draggable="false"></div><div class="layer"><img draggable="false"></div>
    <input class="divider" type="range" min="0" max="100" value="50"><div class="line"></div>
    <span class="side left"></span><span class="side right"></span>
  </div></figure>
  <div class="bar">
    <div class="factors" role="radiogroup" aria-label="Change"></div>
    <button type="button" class="flicker" aria-pressed="false"></button>
  </div>`;
const stage = root.querySelector('.stage'), divider = root.querySelector('.divider');
const images = [...root.querySelectorAll('img')], sides = [...root.querySelectorAll('.side')];
const factors = root.querySelector('.factors'), flicker = root.querySelector('.flicker');
let factor = null, timer = null;

const place = () => {
  stage.style.setProperty('--divider', `${divider.value}%`);
  divider.setAttribute('aria-valuetext', `${sides[0].textContent} on ${divider.value} % of the width`);
};

/** One of the pictures alone, by its number, or both with the divider: null. */
function alone(number) {
  if (number === null) delete stage.dataset.alone;
  else stage.dataset.alone = number;
  flicker.setAttribute('aria-pressed', number !== null);
}

function stop() {
  clearInterval(timer);
  timer = null;
  alone(null);
}

function press() {
  const now = stage.dataset.alone;
  if (still.matches) return alone({undefined: 0, 0: 1, 1: null}[now]);
  if (now !== undefined) return stop();
  alone(0);
  timer = setInterval(() => alone(1 - stage.dataset.alone), PAUSE);
}

function draw() {
  const {titles, files} = props.value;
  images.forEach((image, n) => {
    image.src = files[factor][n].url;
    image.alt = `The picture painted again, ${titles[n]}${factor === '1' ? '' : `, its change amplified ${factor} times`}`;
    image.onload = () => stage.style.setProperty('--ratio', image.naturalWidth / image.naturalHeight);
    sides[n].textContent = titles[n];
  });
  divider.setAttribute('aria-label', `Divider: ${titles[0]} on the left, ${titles[1]} on the right`);
  place();
}

function show() {
  stop();
  root.hidden = !props.value;
  if (!props.value) return;
  flicker.textContent = still.matches ? 'Swap' : 'Flicker';
  const all = Object.keys(props.value.files).sort((a, b) => b - a);
  factor ??= all[0];
  factors.replaceChildren('Change ', ...all.map((one) => {
    const label = document.createElement('label'), input = document.createElement('input');
    Object.assign(input, {type: 'radio', name: `factor-${root.parentElement.id}`, checked: one === factor});
    input.onchange = () => { factor = one; draw(); };
    label.append(input, one === '1' ? 'as it is' : `amplified × ${one}`);
    return label;
  }));
  draw();
}

divider.oninput = place;
flicker.onclick = press;
watch('value', show);
show();
