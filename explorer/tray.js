// Tiles that are checkboxes: the examples, which the template has, then the visitor's own pictures. What is on follows
// the value; a click tells the server, which answers with another value.

const group = element.querySelector('[role=group]'), examples = [...group.children];

function tile({title, source}) {
  const label = Object.assign(document.createElement('label'), {className: 'tile', title});
  const input = Object.assign(document.createElement('input'), {type: 'checkbox'});
  const picture = Object.assign(document.createElement('img'), {className: 'picture', src: source, alt: ''});
  label.append(input, picture, Object.assign(document.createElement('span'), {textContent: title}));
  return label;
}

function show() {
  const {own, on} = props.value, there = [...group.children].slice(examples.length);
  there.slice(own.length).forEach((label) => label.remove());
  own.forEach((one, i) => {
    const last = there[i];
    if (last?.querySelector('img').src === one.source) return; // it keeps the focus
    last ? last.replaceWith(tile(one)) : group.append(tile(one));
  });
  [...group.children].forEach((label, i) => {
    const at = on.indexOf(i);
    label.querySelector('input').checked = at >= 0;
    label.dataset.place = at >= 0 ? at + 1 : '';
  });
}

group.addEventListener('change', ({target}) => {
  trigger('select', {index: [...group.children].indexOf(target.parentElement), value: target.checked});
});
watch('value', show);
show();
