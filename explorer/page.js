() => {  // what gradio leaves out for keyboards and screen readers; components come and go, so it is set after each change
  const each = (selector, mend) => document.querySelectorAll(selector).forEach(mend);
  const mend = () => {
    due = 0;
    each('[aria-label="Empty value"]:not([role])', (box) => box.role = 'img');
    each('.download-link button', (button) => button.tabIndex = -1);  // the link around it is a Tab stop already
    each('fieldset', (group) => {  // of one name: one Tab stop, and arrow keys go through the choices
      const choices = [...group.querySelectorAll('input[type=radio]')];
      choices.filter((choice) => choice.name !== choices[0].name).forEach((choice) => choice.name = choices[0].name);
      group.ariaLabel ??= group.querySelector('[data-testid="block-info"]')?.textContent.trim();
    });
  };
  let due = requestAnimationFrame(mend);
  new MutationObserver(() => due ||= requestAnimationFrame(mend)).observe(document.body, {childList: true, subtree: true});
}
