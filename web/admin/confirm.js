/** A question before something that cannot be taken back. */

import { byId } from '../demo/dom.js';

/**
 * Asks, does it, and says when it failed; the dialog stays open for another try then.
 * @param {{ title: string, text: string, yes: string, act: () => Promise<unknown> }} question
 * @returns {Promise<boolean>} whether it was done
 */
export function confirm({ title, text, yes, act }) {
  const dialog = byId('confirm', HTMLDialogElement);
  const button = byId('confirm-yes', HTMLButtonElement);
  const problem = byId('confirm-error', HTMLElement);
  byId('confirm-title', HTMLElement).textContent = title;
  byId('confirm-text', HTMLElement).textContent = text;
  button.textContent = yes;
  button.disabled = false;
  problem.hidden = true;
  return new Promise((resolve) => {
    let done = false;
    button.onclick = async () => {
      button.disabled = true;
      problem.hidden = true;
      try {
        await act();
        done = true;
        dialog.close();
      } catch (error) {
        problem.textContent = `It did not work: ${/** @type {Error} */ (error).message}.`;
        problem.hidden = false;
        button.disabled = false;
      }
    };
    dialog.onclose = () => resolve(done);
    dialog.showModal();
    byId('confirm-no', HTMLButtonElement).focus();
  });
}
